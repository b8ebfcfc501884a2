"""Caption facts of every annotated object of a keyframe, read off the simulated world."""

import numpy as np
from shapely import contains_xy, prepare
from shapely.geometry import Polygon
from shapely.ops import unary_union

from mta_perception.geometry import invert_rigid
from mta_training.captions import grammar


class Places:
    """Which of `captions.PLACES` a point lies in."""

    def __init__(self, town):
        static = town.static

        def area(polygons):
            return unary_union([Polygon(points).buffer(0.02) for points in polygons])

        # The first that holds the point names it.
        self._layers = [
            ('on the crosswalk', area(static.ped_crossing)),
            ('at the intersection', area(static.intersection)),
            ('in the carpark', town.lots),
            ('at the roadside', area(static.carpark_area)),
            ('in the lane', town.carriageway),
            ('on the walkway', town.walkway),
        ]
        self._streets = town.streets
        for geometry in (*(layer for _, layer in self._layers), self._streets):
            prepare(geometry)

    def names(self, points):
        """Places of points (n, 2), world."""
        names = np.full(len(points), 'off the road', dtype=object)
        free = np.ones(len(points), dtype=bool)
        for name, layer in self._layers:
            inside = free & contains_xy(layer, points[:, 0], points[:, 1])
            names[inside], free = name, free & ~inside
        return names.tolist()

    def on_street(self, points):
        """Booleans: which of the points (n, 2) lie on the carriageway of a street."""
        return contains_xy(self._streets, points[:, 0], points[:, 1])


def facts_of(states, attributes, world_from_ego, places):
    """(Facts, xy in the ego frame, velocity in ego axes) of each ObjectState of a keyframe.

    attributes  nuScenes attribute names, in the same order
    """
    if not states:
        return []
    ego_from_world = invert_rigid(world_from_ego)
    points = np.array([state.world_from_object[:3, 3] for state in states])
    xy = (points @ ego_from_world[:3, :3].T + ego_from_world[:3, 3])[:, :2]
    velocities = np.array([state.velocity for state in states]) @ ego_from_world[:2, :2].T
    things = [
        grammar.thing_of(state.category, state.colour_name, state.has_rider) for state in states
    ]
    names, on_street = places.names(points[:, :2]), places.on_street(points[:, :2])
    result = []
    for k, state in enumerate(states):
        others = [(things[j], tuple(xy[j])) for j in range(len(states)) if j != k]
        crosses = state.class_name == 'pedestrian' and bool(on_street[k])
        motion = grammar.motion_of(float(np.hypot(*velocities[k])), attributes[k], crosses)
        facts = grammar.Facts(
            things[k],
            int(round(float(np.hypot(*xy[k])))),
            grammar.sector_of(*xy[k]),
            motion,
            names[k],
            grammar.relation_of(xy[k], others),
        )
        result.append((facts, xy[k], velocities[k]))
    return result
