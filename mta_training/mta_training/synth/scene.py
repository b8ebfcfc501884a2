"""The seam between the simulated world and the renderer: what is where, at one instant.

World frame: x east, y north, z up, metres; flat ground at z = 0.  It is the nuScenes global frame.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

KEYFRAME_S = 0.5  # between the frames that are learned from
# Kinds of Pole that look a little like objects and are none.
CLUTTER = ('bin', 'bollard', 'parasol', 'box', 'meter', 'planter', 'container', 'billboard')


class ObjectState(NamedTuple):
    """One movable object at one instant."""

    instance: int  # 1-based, constant over the scene; 0 is 'no object' in id images
    class_name: str  # contract.CLASSES, what is drawn
    category: str  # nuScenes category, e.g. human.pedestrian.adult
    style: int  # picks among the class's mesh variants, any integer >= 0
    colour_name: str  # the word captions use, e.g. 'red'
    colour: tuple  # body colour, linear-ish RGB in 0..1
    size: tuple  # length, width, height [m]
    world_from_object: np.ndarray  # (4, 4), origin at the *bottom* centre of the box, x = front
    velocity: tuple  # vx, vy in world axes [m/s]
    steer: float  # front-wheel angle [rad], 0 for what has none
    phase: float  # gait / wheel phase [rad], grows with the distance travelled
    braking: bool  # brake lights on
    has_rider: bool  # cycles only


class Building(NamedTuple):
    """An upright box with a facade."""

    footprint: np.ndarray  # (4, 2) corners, counter-clockwise [m]
    height: float
    style: int


class Pole(NamedTuple):
    """Tree, lamp post, traffic light, sign: something thin that stands."""

    kind: str  # 'tree' | 'lamp' | 'traffic_light' | 'sign' | 'bush', or one of CLUTTER
    xy: tuple
    yaw: float  # where the arm or the face looks [rad]
    height: float
    style: int


class Marking(NamedTuple):
    """Paint on the road: a polyline with a width, or a filled polygon where width is 0."""

    points: np.ndarray  # (n, 2) [m]
    width: float  # [m]; 0 = filled polygon
    colour: str  # 'white' | 'yellow'
    dash: tuple  # (painted, gap) lengths [m]; (0, 0) = solid


@dataclass(frozen=True)
class StaticWorld:
    """The street: all polygons are (n, 2) arrays in metres, counter-clockwise."""

    extent: tuple  # x_min, y_min, x_max, y_max
    drivable_area: list = field(default_factory=list)
    walkway: list = field(default_factory=list)
    ped_crossing: list = field(default_factory=list)
    carpark_area: list = field(default_factory=list)
    stop_line: list = field(default_factory=list)
    intersection: list = field(default_factory=list)
    markings: list = field(default_factory=list)  # Marking
    buildings: list = field(default_factory=list)  # Building
    poles: list = field(default_factory=list)  # Pole


@dataclass(frozen=True)
class Weather:
    """Light and weather of a whole scene."""

    night: bool = False
    rain: bool = False
    overcast: bool = False
    sun_azimuth: float = 0.8  # world angle of the direction towards the sun [rad]
    sun_elevation: float = 0.7  # [rad]
    seed: int = 0  # textures, noise, tints
    street: bool = False  # light, walls and lenses as unkind as on real streets


class CameraView(NamedTuple):
    """One camera at one instant."""

    intrinsics: np.ndarray  # (3, 3) for width x height
    width: int
    height: int
    world_from_camera: np.ndarray  # (4, 4), optical axes
    exposure: float  # multiplies the light; 1 = nominal
    seed: int  # sensor noise


class Rendering(NamedTuple):
    """What `Renderer.render` returns."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    instances: np.ndarray  # (H, W) int32 ObjectState.instance of the surface; 0: none
    nearness: object = None  # (H, W) float32, 1 / depth [1/m]; 0: ground or sky
