"""Pictures of the simulated street: one camera at one instant.

Things that stand or move are drawn as lit triangles into a depth buffer (`raster`); ground and sky
fill what they leave (`backdrop`); a camera model makes bytes of it (`exposure`).  Everything that
does not change over a scene is made once, in `Renderer`.
"""

import cv2
import numpy as np

from mta_perception.geometry import invert_rigid
from mta_training.synth.meshes.catalogue import joint_matrices, mesh_of, palette_of, variant_of
from mta_training.synth.render import backdrop, exposure, raster
from mta_training.synth.render.glow import add_glow
from mta_training.synth.render.ground import SHADE_CELL_M, make_ground
from mta_training.synth.render.light import (
    NOISE_SIZE,
    cloud_texture,
    light_of,
    noise_table,
    skyline_texture,
)
from mta_training.synth.render.scenery import make_scenery
from mta_training.synth.render.surround import surround_of
from mta_training.synth.scene import Rendering

MAX_VERTICES = 12000
DRAW_DISTANCE_M = 260.0
HEADLIGHTS_AHEAD_M = 3.2  # of the ego's origin under the rear axle
_NO_HEADLIGHTS = np.zeros(5)


class Renderer:
    """Draws one world under one weather; a picture depends on the arguments of `render` alone.

    The work space makes one renderer unfit for two threads at a time; processes are fine.
    detail: of the textures on the ground, 1 = for pictures 1600 pixels wide; small pictures look
    the same with half of it, and are drawn sooner.
    """

    def __init__(self, world, weather, detail=1.0):
        self.weather, self.detail = weather, detail
        self.light = light = light_of(weather)
        self.ground = make_ground(world, weather, light.to_sun, detail)
        self.scenery = make_scenery(world, weather, light, self._sun_share)
        self._env = light.matrix()
        lit_windows = (
            0.24 if weather.night else (0.06 if weather.rain or weather.overcast else 0.0)
        )
        self._facades = raster.Facades(self.scenery.facade, lit_windows)
        self._sky = backdrop.Sky(
            cloud_texture(weather.seed), skyline_texture(weather.seed), light.clouds
        )
        self._air = backdrop.Air(light.haze, light.wet, bool(weather.night))
        self._noise = noise_table(weather.seed, weather.night, weather.rain)
        self._work = raster.Work(
            np.empty((16, 8)), np.empty((MAX_VERTICES, 3)), np.empty((MAX_VERTICES, 3))
        )

    def render(self, view, objects, world_from_ego=None):
        """`Rendering` of a `CameraView` of `objects` (ObjectState).

        world_from_ego  (4, 4) pose of the car with the cameras; its headlights shine at night
        """
        height, width = view.height, view.width
        buffers = raster.Buffers(
            np.zeros((height, width), np.float32),
            np.empty((height, width, 3), np.float32),
            np.zeros((height, width), np.int32),
        )
        world_from_camera = np.asarray(view.world_from_camera, dtype=np.float64)
        eye = raster.Eye(
            invert_rigid(world_from_camera),
            world_from_camera[:3, 3].copy(),
            np.ascontiguousarray(view.intrinsics, dtype=np.float64),
        )
        headlights = self._headlights(world_from_ego)
        frustum = _frustum(eye.intrinsics, width, height)
        self._draw_objects(objects, eye, frustum, headlights, buffers)
        self._draw_scenery(eye, frustum, headlights, buffers)
        surround = surround_of(
            eye.place,
            world_from_camera[:2, 2],
            objects,
            self.ground,
            self.light.to_sun,
            self.weather.night,
            headlights,
            self.detail,
        )
        backdrop.fill_background(
            buffers.nearness,
            buffers.light,
            _rays(world_from_camera, eye.intrinsics),
            self.ground,
            surround,
            self._sky,
            self._air,
            self._env,
        )
        image = self._expose(view, buffers.light)
        if self.weather.night:
            add_glow(
                image,
                buffers.nearness,
                self.scenery.glows,
                objects,
                eye.camera_from_world,
                eye.intrinsics,
            )
        return Rendering(cv2.GaussianBlur(image, (3, 3), 0.45), buffers.owner, buffers.nearness)

    def _headlights(self, world_from_ego):
        """(5,) x, y, cos yaw, sin yaw, strength of the ego's headlights."""
        if world_from_ego is None or not self.weather.night:
            return _NO_HEADLIGHTS
        forward = np.asarray(world_from_ego)[:2, 0]
        forward = forward / np.hypot(*forward)
        return np.array(
            [*(np.asarray(world_from_ego)[:2, 3] + HEADLIGHTS_AHEAD_M * forward), *forward, 0.7]
        )

    def _shade_at(self, x, y):
        """Value 0..1 of the fixed light map at a world place."""
        shade = self.ground.shade
        ix = int(np.clip((x - self.ground.origin[0]) / SHADE_CELL_M, 0, shade.shape[1] - 1))
        iy = int(np.clip((y - self.ground.origin[1]) / SHADE_CELL_M, 0, shade.shape[0] - 1))
        return shade[iy, ix] / 255.0

    def _sun_share(self, x, y):
        return 1.0 if self.weather.night else self._shade_at(x, y)

    def _draw_objects(self, objects, eye, frustum, headlights, buffers):
        """Nearest first, so that what is hidden is rejected early."""
        half_heights = np.array([state.size[2] / 2 for state in objects]).reshape(-1, 1)
        centres = np.array([state.world_from_object[:3, 3] for state in objects]).reshape(-1, 3)
        centres = centres + half_heights * (0.0, 0.0, 1.0)
        radii = np.array([np.linalg.norm(state.size) / 2 for state in objects])
        for k in _visible(centres, radii, eye.camera_from_world, frustum):
            state = objects[k]
            mesh = mesh_of(state.class_name, variant_of(state))
            share = self._shade_at(*centres[k, :2])
            sun, lamp = (0.0, share) if self.weather.night else (0.25 + 0.75 * share, 0.0)
            raster.draw_mesh(
                mesh.solid,
                joint_matrices(state, mesh),
                np.asarray(state.size, dtype=np.float64),
                np.ascontiguousarray(state.world_from_object, dtype=np.float64),
                palette_of(state, self.weather.night),
                eye,
                raster.Lighting(self._env, sun, lamp, headlights),
                self._facades,
                buffers,
                int(state.instance),
                self._work,
            )

    def _draw_scenery(self, eye, frustum, headlights, buffers):
        scenery = self.scenery
        for k in _visible(scenery.centres, scenery.radii, eye.camera_from_world, frustum):
            first, last, first_clump, last_clump = scenery.spans[k]
            raster.draw_static(
                first,
                last,
                scenery.walls,
                eye,
                headlights,
                self._facades,
                buffers,
                self._work.corners,
            )
            for c in range(first_clump, last_clump):
                raster.draw_leaves(
                    scenery.clumps[c, :3],
                    scenery.clumps[c, 3],
                    scenery.tints[c],
                    scenery.flips[c],
                    scenery.leaves,
                    eye,
                    buffers,
                )

    def _expose(self, view, light):
        """(H, W, 3) uint8: what the camera's sensor makes of the light."""
        height, width = view.height, view.width
        image = np.empty((height, width, 3), np.uint8)
        aside = (np.arange(width) - width / 2) / (width / 2)
        falloff = np.repeat(float(exposure.VIGNETTE) * aside**2, 3).astype(np.float32)
        rng = np.random.default_rng((abs(int(view.seed)), 977))
        noise_row = rng.integers(0, NOISE_SIZE - 3 * width, height)
        exposure.expose(
            light.reshape(height, -1),
            image.reshape(height, -1),
            np.float32(self.light.gain * view.exposure),
            falloff,
            self._noise,
            noise_row,
        )
        return image


def _camera_from_pixel(intrinsics):
    """Inverse (3, 3) of pinhole intrinsics in closed form (LAPACK costs a millisecond)."""
    (fx, skew, cx), (_, fy, cy), _ = intrinsics.tolist()
    return np.array(
        [
            [1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy)],
            [0.0, 1 / fy, -cy / fy],
            [0.0, 0.0, 1.0],
        ]
    )


def _rays(world_from_camera, intrinsics):
    """The `backdrop.Rays` of a camera."""
    world_from_pixel = world_from_camera[:3, :3] @ _camera_from_pixel(intrinsics)
    along_u, along_v, first = (np.ascontiguousarray(world_from_pixel[:, k]) for k in range(3))
    return backdrop.Rays(
        world_from_camera[:3, 3].copy(), first, along_u, along_v, 1.0 / intrinsics[0, 0]
    )


def _frustum(intrinsics, width, height):
    """(4, 3) inward normals of the side planes in the camera frame."""
    corners = _camera_from_pixel(intrinsics) @ np.array(
        [
            [-0.5, width - 0.5, width - 0.5, -0.5],
            [-0.5, -0.5, height - 0.5, height - 0.5],
            [1, 1, 1, 1],
        ]
    )
    rays = corners.T
    normals = np.cross(rays, np.roll(rays, -1, axis=0))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals * np.sign(normals @ rays.mean(0))[:, None]


def _visible(centres, radii, camera_from_world, frustum):
    """Indices of bounding spheres that may show, nearest first."""
    if not len(centres):
        return []
    points = centres @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    inside = (points @ frustum.T > -radii[:, None]).all(1)
    near = (points[:, 2] > -radii) & (points[:, 2] - radii < DRAW_DISTANCE_M)
    found = np.flatnonzero(inside & near)
    return found[np.argsort(points[found, 2], kind='stable')]
