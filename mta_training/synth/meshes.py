"""Which mesh and which colours an object is drawn with."""

from functools import lru_cache

import numpy as np

from mta_training.synth import figures, vehicles

GLOSS_PAINT, GLOSS_GLASS = 0.35, 1.0
PALETTE_ROWS = 16

_BUILDERS = {
    'car': (lambda: vehicles.car(vehicles.SEDAN), lambda: vehicles.car(vehicles.HATCH, wheel_radius=.31),
            lambda: vehicles.car(vehicles.SUV, wheel_radius=.37),
            lambda: vehicles.car(vehicles.VAN, wheel_radius=.35)),
    'truck': (vehicles.box_truck, lambda: vehicles.car(vehicles.PICKUP, True, .40), vehicles.tipper_truck),
    'bus': (vehicles.bus,),
    'trailer': (vehicles.box_trailer, vehicles.flat_trailer),
    'construction_vehicle': (figures.excavator, figures.wheel_loader),
    'motorcycle': (lambda: figures.motorcycle(False), lambda: figures.motorcycle(False, True),
                   lambda: figures.motorcycle(True), lambda: figures.motorcycle(True, True)),
    'bicycle': (lambda: figures.bicycle(False), lambda: figures.bicycle(False, basket=True),
                lambda: figures.bicycle(True), lambda: figures.bicycle(True, True, True)),
    'pedestrian': (figures.pedestrian, lambda: figures.pedestrian(bag=True),
                   lambda: figures.pedestrian(skirt=True), lambda: figures.pedestrian('child'),
                   lambda: figures.pedestrian(helmet=True)),
    'barrier': (figures.board_barrier, figures.concrete_barrier, figures.fence_barrier),
    'traffic_cone': (figures.traffic_cone, figures.delineator),
}


@lru_cache(maxsize=None)
def mesh_of(class_name, variant):
    """The `Mesh` of one variant of a class."""
    return _BUILDERS[class_name][variant]()


def variant_of(state):
    """Which of its class's meshes an object has; its proportions decide where styles would look odd."""
    length, width, height = state.size
    if state.class_name not in _BUILDERS:
        raise ValueError(f'object {state.instance} has class {state.class_name!r}; '
                         f'expected one of {", ".join(_BUILDERS)}.')
    if state.class_name == 'car':
        return 3 if height > 1.95 else (0, 1, 2, 0, 2)[state.style % 5]
    if state.class_name == 'truck':
        return 1 if height < 2.3 else (2 if state.style % 3 == 2 else 0)
    if state.class_name == 'trailer':
        return 0 if height > 2.9 or length > 8.0 else 1
    if state.class_name == 'construction_vehicle':
        return 1 if height < 3.3 and state.style % 2 else 0
    if state.class_name in ('bicycle', 'motorcycle'):
        return 2 * int(state.has_rider) + state.style % 2
    if state.class_name == 'pedestrian':
        if state.category.endswith('construction_worker'):
            return 4
        return 3 if state.category.endswith('child') else state.style % 3
    if state.class_name == 'traffic_cone':
        return 1 if height > 1.05 * max(2.4 * width, .6) and state.style % 3 == 0 else 0
    if state.class_name == 'barrier':
        stripes_show = min(state.colour) < 0.6
        return state.style % 3 if stripes_show else 1 + state.style % 2
    return state.style % len(_BUILDERS[state.class_name])


_SKINS = ((.62, .42, .32), (.45, .28, .19), (.24, .14, .09), (.70, .50, .40))
_HAIRS = ((.02, .018, .015), (.08, .05, .03), (.25, .17, .08), (.35, .35, .36), (.05, .03, .02))
_TROUSERS = ((.03, .035, .05), (.05, .08, .16), (.10, .10, .11), (.22, .18, .12), (.02, .02, .02))
_SECONDS = ((.55, .56, .58), (.05, .07, .14), (.45, .06, .05), (.04, .22, .10), (.7, .5, .05))


def palette_of(state, night):
    """(16, 5) float32: linear RGB, gloss, emission of each material of an object."""
    v = vehicles
    pick = state.style * 7919 + state.instance * 104729
    palette = np.zeros((PALETTE_ROWS, 5), np.float32)
    vehicle = state.class_name in ('car', 'truck', 'bus', 'trailer', 'motorcycle', 'construction_vehicle')
    # Named colours are meant as seen; the power keeps them apart after the camera's shoulder.
    palette[v.BODY, :3] = 0.8 * np.asarray(state.colour) ** 1.4
    palette[v.BODY, 3] = GLOSS_PAINT if state.class_name in ('car', 'motorcycle', 'bus') else .12
    if not vehicle:
        palette[v.BODY, 3] = 0.0
    palette[v.GLASS] = (.015, .018, .02, GLOSS_GLASS, 0)
    palette[v.TYRE] = (.018, .018, .019, 0, 0)
    palette[v.HUB] = (.42, .43, .45, .25, 0)
    palette[v.DARK] = (.022, .022, .024, .05, 0)
    palette[v.METAL] = (.30, .31, .33, .15, 0)
    palette[v.PLATE] = (.72, .72, .66, 0, 0)
    palette[v.SECOND, :3] = _SECONDS[pick % 5]
    palette[v.SKIN, :3] = _SKINS[pick // 5 % 4]
    palette[v.HAIR, :3] = _HAIRS[pick // 20 % 5]
    palette[v.TROUSERS, :3] = _TROUSERS[pick // 100 % 5]
    palette[v.SHOES, :3] = (.03, .025, .02) if pick // 500 % 2 else (.5, .5, .5)
    palette[v.WHITE] = (.78, .78, .76, 0, 0)
    palette[v.INDICATOR] = (.85, .55, .03, 0, .3 if vehicle else 0)
    lit = night and np.hypot(*state.velocity) > 0.2
    palette[v.HEADLIGHT] = (.75, .77, .78, .6, 14.0 if lit else 0)
    palette[v.TAILLIGHT] = (.42, .02, .02, .3, 5.0 if state.braking else (1.2 if lit else 0))
    if state.class_name == 'barrier':
        palette[v.SECOND, :3] = (.8, .35, .03)
    if state.category.endswith('construction_worker'):
        palette[v.TROUSERS, :3] = (.05, .07, .12)
    return palette


def joint_matrices(state, mesh):
    """(J, 3, 4) float64: where each part of a mesh lies in the object's frame, from metres at rest."""
    matrices = np.zeros((len(mesh.joints), 3, 4))
    matrices[:, 0, 0] = matrices[:, 1, 1] = matrices[:, 2, 2] = 1.0
    size = np.asarray(state.size)
    swing = 0.42 * np.sin(state.phase) if np.hypot(*state.velocity) > 0.15 else 0.06
    for k, joint in enumerate(mesh.joints):
        if joint.kind == 'body':
            continue
        pivot = np.asarray(joint.pivot) * size
        angle = {'roll': state.phase, 'steer': state.phase, 'leg': swing, 'counter_leg': -swing}[joint.kind]
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        if joint.kind == 'steer':
            c, s = np.cos(state.steer), np.sin(state.steer)
            turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn
        matrices[k, :, :3] = turn
        matrices[k, :, 3] = pivot - turn @ pivot
    return matrices
