"""Which mesh and which colours an object is drawn with."""

from functools import cache

import numpy as np

from mta_training.synth.meshes import figures, machines, vehicles

GLOSS_PAINT, GLOSS_GLASS = 0.35, 1.0
PALETTE_ROWS = 16

_BUILDERS = {
    'car': (
        lambda: vehicles.car(vehicles.SEDAN),
        lambda: vehicles.car(vehicles.HATCH, wheel_radius=0.31),
        lambda: vehicles.car(vehicles.SUV, wheel_radius=0.37),
        lambda: vehicles.car(vehicles.VAN, wheel_radius=0.35),
    ),
    'truck': (
        machines.box_truck,
        lambda: vehicles.car(vehicles.PICKUP, True, 0.40),
        machines.tipper_truck,
    ),
    'bus': (vehicles.bus,),
    'trailer': (machines.box_trailer, machines.flat_trailer),
    'construction_vehicle': (machines.excavator, machines.wheel_loader),
    'motorcycle': (
        lambda: figures.motorcycle(False),
        lambda: figures.motorcycle(False, True),
        lambda: figures.motorcycle(True),
        lambda: figures.motorcycle(True, True),
    ),
    'bicycle': (
        lambda: figures.bicycle(False),
        lambda: figures.bicycle(False, basket=True),
        lambda: figures.bicycle(True),
        lambda: figures.bicycle(True, True, True),
    ),
    'pedestrian': (
        figures.pedestrian,
        lambda: figures.pedestrian(bag=True),
        lambda: figures.pedestrian(skirt=True),
        lambda: figures.pedestrian('child'),
        lambda: figures.pedestrian(helmet=True),
    ),
    'barrier': (figures.board_barrier, figures.concrete_barrier, figures.fence_barrier),
    'traffic_cone': (figures.traffic_cone, figures.delineator),
}

MESH_COUNT = {name: len(builders) for name, builders in _BUILDERS.items()}


@cache
def mesh_of(class_name, variant):
    """The `Mesh` of one variant of a class."""
    return _BUILDERS[class_name][variant]()


def variant_of(state):
    """Which of its class's meshes an object has: by style, or by size where a style looked odd."""
    length, width, height = state.size
    if state.class_name not in _BUILDERS:
        raise ValueError(
            f'object {state.instance} has class {state.class_name!r}; '
            f'expected one of {", ".join(_BUILDERS)}.'
        )
    if state.class_name == 'car':
        return 3 if height > 1.93 else (0, 1, 2, 0, 2)[state.style % 5]
    if state.class_name == 'truck':
        return 1 if height < 2.15 else (2 if state.style % 3 == 2 else 0)
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
        return 1 if height > 0.85 and state.style % 3 == 0 else 0
    if state.class_name == 'barrier':
        stripes_show = min(state.colour) < 0.6
        return state.style % 3 if stripes_show else 1 + state.style % 2
    return state.style % len(_BUILDERS[state.class_name])


_SKINS = ((0.62, 0.42, 0.32), (0.45, 0.28, 0.19), (0.24, 0.14, 0.09), (0.70, 0.50, 0.40))
_HAIRS = (
    (0.02, 0.018, 0.015),
    (0.08, 0.05, 0.03),
    (0.25, 0.17, 0.08),
    (0.35, 0.35, 0.36),
    (0.05, 0.03, 0.02),
)
_TROUSERS = (
    (0.03, 0.035, 0.05),
    (0.05, 0.08, 0.16),
    (0.10, 0.10, 0.11),
    (0.22, 0.18, 0.12),
    (0.02, 0.02, 0.02),
)
_SECONDS = (
    (0.55, 0.56, 0.58),
    (0.05, 0.07, 0.14),
    (0.45, 0.06, 0.05),
    (0.04, 0.22, 0.10),
    (0.7, 0.5, 0.05),
)


def palette_of(state, night):
    """(16, 5) float32: linear RGB, gloss, emission of each material of an object."""
    v = vehicles
    pick = state.style * 7919 + state.instance * 104729
    palette = np.zeros((PALETTE_ROWS, 5), np.float32)
    vehicle = state.class_name in (
        'car',
        'truck',
        'bus',
        'trailer',
        'motorcycle',
        'construction_vehicle',
    )
    # Named colours are meant as seen; the power keeps them apart after the camera's shoulder.
    palette[v.BODY, :3] = 0.8 * np.asarray(state.colour) ** 1.4
    palette[v.BODY, 3] = GLOSS_PAINT if state.class_name in ('car', 'motorcycle', 'bus') else 0.12
    if not vehicle:
        palette[v.BODY, 3] = 0.0
    palette[v.GLASS] = (0.015, 0.018, 0.02, GLOSS_GLASS, 0)
    palette[v.TYRE] = (0.018, 0.018, 0.019, 0, 0)
    palette[v.HUB] = (0.42, 0.43, 0.45, 0.25, 0)
    palette[v.DARK] = (0.022, 0.022, 0.024, 0.05, 0)
    palette[v.METAL] = (0.30, 0.31, 0.33, 0.15, 0)
    palette[v.PLATE] = (0.72, 0.72, 0.66, 0, 0)
    palette[v.SECOND, :3] = _SECONDS[pick % 5]
    palette[v.SKIN, :3] = _SKINS[pick // 5 % 4]
    palette[v.HAIR, :3] = _HAIRS[pick // 20 % 5]
    palette[v.TROUSERS, :3] = _TROUSERS[pick // 100 % 5]
    palette[v.SHOES, :3] = (0.03, 0.025, 0.02) if pick // 500 % 2 else (0.5, 0.5, 0.5)
    palette[v.WHITE] = (0.78, 0.78, 0.76, 0, 0)
    palette[v.INDICATOR] = (0.85, 0.55, 0.03, 0, 0.3 if vehicle else 0)
    lit = night and np.hypot(*state.velocity) > 0.2
    palette[v.HEADLIGHT] = (0.75, 0.77, 0.78, 0.6, 14.0 if lit else 0)
    palette[v.TAILLIGHT] = (0.42, 0.02, 0.02, 0.3, 5.0 if state.braking else (1.2 if lit else 0))
    if state.class_name == 'barrier':
        palette[v.SECOND, :3] = (0.8, 0.35, 0.03)
    if state.category.endswith('construction_worker'):
        palette[v.TROUSERS, :3] = (0.05, 0.07, 0.12)
    return palette


def joint_matrices(state, mesh):
    """(J, 3, 4) float64 object_from_part of each part of a mesh, in metres."""
    matrices = np.zeros((len(mesh.joints), 3, 4))
    matrices[:, 0, 0] = matrices[:, 1, 1] = matrices[:, 2, 2] = 1.0
    size = np.asarray(state.size)
    swing = 0.42 * np.sin(state.phase) if np.hypot(*state.velocity) > 0.15 else 0.06
    for k, joint in enumerate(mesh.joints):
        if joint.kind == 'body':
            continue
        pivot = np.asarray(joint.pivot) * size
        angle = {'roll': state.phase, 'steer': state.phase, 'leg': swing, 'counter_leg': -swing}[
            joint.kind
        ]
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        if joint.kind == 'steer':
            c, s = np.cos(state.steer), np.sin(state.steer)
            turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn
        matrices[k, :, :3] = turn
        matrices[k, :, 3] = pivot - turn @ pivot
    return matrices
