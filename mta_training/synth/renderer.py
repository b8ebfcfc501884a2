"""Pictures of the simulated street: one camera at one instant.

Things that stand or move are drawn as lit triangles into a depth buffer (`raster`); ground and sky fill
what they leave (`backdrop`).  Everything that does not change over a scene is made once, in `Renderer`.
"""

import cv2
import numpy as np

from mta_perception.geometry import invert_rigid
from mta_training.synth import backdrop, raster
from mta_training.synth.ground import make_ground, SHADE_CELL_M
from mta_training.synth.light import cloud_texture, light_of, noise_table, NOISE_SIZE, skyline_texture
from mta_training.synth.meshes import joint_matrices, mesh_of, palette_of, variant_of
from mta_training.synth.scene import Rendering
from mta_training.synth.scenery import make_scenery

LOCAL_CELL_M, LOCAL_SIZE = 0.12, 768
MAX_VERTICES = 12000
DRAW_DISTANCE_M = 260.0
_NO_LAMPS = np.zeros(5)
VEHICLES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle', 'motorcycle')


class Renderer:
    """Draws one world under one weather; holds no state that a picture depends on."""

    def __init__(self, world, weather):
        self.world, self.weather = world, weather
        self.light = light_of(weather)
        self.ground = make_ground(world, weather, self.light.to_sun)
        self.scenery = make_scenery(world, weather, self.light, self._sun_share)
        self._clouds = cloud_texture(weather.seed)
        self._skyline = skyline_texture(weather.seed)
        self._noise = noise_table(weather.seed, weather.night, weather.rain)
        light = self.light
        self._env = np.stack([light.to_sun, light.sun, light.sky, light.bounce, light.zenith, light.horizon,
                              light.lamp, np.array([light.night, light.wet, 0.0])]).astype(np.float64)
        self._lit_windows = 0.24 if weather.night else (0.06 if weather.rain or weather.overcast else 0.0)
        self._scratch = np.empty((16, 8))
        self._world_points = np.empty((MAX_VERTICES, 3))
        self._camera_points = np.empty((MAX_VERTICES, 3))

    def render(self, view, objects, world_from_ego=None):
        """`Rendering` of a `CameraView` of `objects` (ObjectState).

        world_from_ego  (4, 4) pose of the car that carries the camera; at night its headlights shine
        """
        height, width = view.height, view.width
        nearness = np.zeros((height, width), np.float32)
        light = np.empty((height, width, 3), np.float32)
        owner = np.zeros((height, width), np.int32)
        camera_from_world = invert_rigid(view.world_from_camera)
        eye = np.ascontiguousarray(view.world_from_camera[:3, 3], dtype=np.float64)
        intrinsics = np.ascontiguousarray(view.intrinsics, dtype=np.float64)
        lamps = self._headlights(world_from_ego)
        frustum = _frustum(intrinsics, width, height)
        self._draw_objects(objects, camera_from_world, eye, intrinsics, frustum, lamps,
                           nearness, light, owner)
        self._draw_scenery(camera_from_world, eye, intrinsics, frustum, lamps, nearness, light, owner)
        image = self._finish(view, objects, eye, intrinsics, lamps, nearness, light, owner)
        if self.weather.night:
            self._add_glow(image, objects, camera_from_world, intrinsics, nearness)
        image = cv2.GaussianBlur(image, (3, 3), 0.45)
        return Rendering(image, owner)

    def _headlights(self, world_from_ego):
        """(5,) x, y, cos yaw, sin yaw, strength of the ego's headlights."""
        if world_from_ego is None or not self.weather.night:
            return _NO_LAMPS
        forward = np.asarray(world_from_ego)[:2, 0]
        forward = forward / np.hypot(*forward)
        front = np.asarray(world_from_ego)[:2, 3] + 3.2 * forward
        return np.array([*front, *forward, 0.7])

    def _shade_at(self, x, y):
        """Value 0..1 of the fixed light map at a world place."""
        shade = self.ground.shade
        ix = int(np.clip((x - self.ground.origin[0]) / SHADE_CELL_M, 0, shade.shape[1] - 1))
        iy = int(np.clip((y - self.ground.origin[1]) / SHADE_CELL_M, 0, shade.shape[0] - 1))
        return shade[iy, ix] / 255.0

    def _sun_share(self, x, y):
        return 1.0 if self.weather.night else self._shade_at(x, y)

    def _draw_objects(self, objects, camera_from_world, eye, intrinsics, frustum, lamps,
                      nearness, light, owner):
        """Nearest first, so that what is hidden is rejected early."""
        centres = np.array([o.world_from_object[:3, 3] for o in objects]).reshape(-1, 3)
        radii = np.array([np.linalg.norm(o.size) / 2 for o in objects])
        if len(centres):
            centres = centres + (0, 0, 1) * np.array([o.size[2] / 2 for o in objects])[:, None]
        for k in _visible(centres, radii, camera_from_world, frustum):
            state = objects[k]
            mesh = mesh_of(state.class_name, variant_of(state))
            x, y = centres[k, :2]
            share = self._shade_at(x, y)
            sun, lamp = (0.0, share) if self.weather.night else (0.25 + 0.75 * share, 0.0)
            raster.draw_mesh(
                mesh.vertices, mesh.parts, mesh.triangles, mesh.normals, mesh.materials,
                joint_matrices(state, mesh), np.asarray(state.size, dtype=np.float64),
                np.ascontiguousarray(state.world_from_object, dtype=np.float64), camera_from_world, eye,
                intrinsics, palette_of(state, self.weather.night), self._env, sun, lamp, lamps,
                nearness, light, owner, int(state.instance), self._scratch, self._world_points,
                self._camera_points, self.scenery.facade)

    def _draw_scenery(self, camera_from_world, eye, intrinsics, frustum, lamps, nearness, light, owner):
        s = self.scenery
        for k in _visible(s.centres, s.radii, camera_from_world, frustum):
            first, last, first_clump, last_clump = s.spans[k]
            raster.draw_static(first, last, s.vertices, s.triangles, s.colours, s.texture, s.styles, s.seeds,
                               camera_from_world, eye, intrinsics, lamps, self._lit_windows, s.facade,
                               nearness, light, owner, self._scratch)
            for c in range(first_clump, last_clump):
                x, y, z = camera_from_world[:3, :3] @ s.clumps[c, :3] + camera_from_world[:3, 3]
                raster.draw_leaves(x, y, z, s.clumps[c, 3], s.tints[c], intrinsics, s.leaves, s.flips[c],
                                   nearness, light, owner)

    def _finish(self, view, objects, eye, intrinsics, lamps, nearness, light, owner):
        """Ground, sky, haze and camera: the image (H, W, 3) uint8."""
        height, width = view.height, view.width
        world_from_pixel = view.world_from_camera[:3, :3] @ np.linalg.inv(intrinsics)
        rays = np.ascontiguousarray(np.stack([world_from_pixel[:, 2], world_from_pixel[:, 0],
                                              world_from_pixel[:, 1]]))
        local, local_origin = self._local_light(eye, view.world_from_camera[:2, 2], objects)
        backdrop.fill_background(
            nearness, light, rays, eye, 1.0 / intrinsics[0, 0], self.ground, self._env,
            float(self.light.haze), float(self.light.clouds), self._clouds, self._skyline, local,
            local_origin, LOCAL_CELL_M, lamps, float(self.light.wet))
        image = np.empty((height, width, 3), np.uint8)
        aside = (np.arange(width) - width / 2) / (width / 2)
        falloff = np.repeat(float(backdrop.VIGNETTE) * aside ** 2, 3).astype(np.float32)
        rng = np.random.default_rng((abs(int(view.seed)), 977))
        noise_row = rng.integers(0, NOISE_SIZE - 3 * width, height)
        backdrop.expose(light.reshape(height, -1), image.reshape(height, -1),
                        np.float32(self.light.gain * view.exposure), falloff, self._noise, noise_row)
        return image

    def _local_light(self, eye, forward, objects):
        """Light around the camera: (M, M, 2) uint8 and the world place of texel [0, 0].

        [..., 0] is the share of the sun (at night: 255 minus the headlights of others), [..., 1] of the
        sky; both fall off under and beside the moving things.
        """
        extent = LOCAL_CELL_M * LOCAL_SIZE
        length = max(float(np.hypot(*forward)), 1e-6)
        origin = eye[:2] + np.asarray(forward) / length * 0.42 * extent - extent / 2
        sun = np.full((LOCAL_SIZE, LOCAL_SIZE), 255, np.uint8)
        sky = sun.copy()
        to_sun = self.light.to_sun
        per_metre = -to_sun[:2] / max(float(to_sun[2]), 0.12)
        for state in objects:
            if np.abs(state.world_from_object[:2, 3] - origin - extent / 2).max() > extent / 2 + 12.0:
                continue
            base = _footprint(state)
            if not self.weather.night:
                hull = np.concatenate([base, base + per_metre * state.size[2] * 0.94]).astype(np.float32)
                cv2.fillConvexPoly(sun, self._pixels(cv2.convexHull(hull)[:, 0], origin), 15, cv2.LINE_8, 4)
            elif state.class_name in VEHICLES and np.hypot(*state.velocity) > 0.2:
                self._add_beam(sun, state, origin)
            dark = 70 if state.class_name in VEHICLES else 150
            cv2.fillConvexPoly(sky, self._pixels(base, origin), dark, cv2.LINE_8, 4)
        sun = cv2.GaussianBlur(sun, (5, 5), 0)
        if not self.weather.night:
            sun = cv2.multiply(sun, self._fixed_shade(origin), scale=1 / 255.0)
        return cv2.merge([sun, cv2.blur(sky, (7, 7))]), origin

    def _fixed_shade(self, origin):
        """The world's own shadows on the grid of `_local_light`."""
        scale = LOCAL_CELL_M / SHADE_CELL_M
        shift = (origin - self.ground.origin) / SHADE_CELL_M
        return cv2.warpAffine(self.ground.shade, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]),
                              (LOCAL_SIZE, LOCAL_SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_CONSTANT, borderValue=255)

    def _pixels(self, points, origin):
        return np.round((points - origin) / LOCAL_CELL_M * 16).astype(np.int32)

    def _add_beam(self, image, state, origin):
        """Light of a vehicle's headlights on the road."""
        matrix = state.world_from_object
        for share, reach, spread in ((215, 13.0, 2.6), (170, 8.0, 1.8)):
            nose, half = state.size[0] / 2, state.size[1] / 2
            local = np.array([(nose, half * .8), (nose + reach, half + spread), (nose + reach, -half - spread),
                              (nose, -half * .8)])
            points = local @ matrix[:2, :2].T + matrix[:2, 3]
            cv2.fillConvexPoly(image, self._pixels(points, origin), share, cv2.LINE_8, 4)

    def _add_glow(self, image, objects, camera_from_world, intrinsics, nearness):
        """Halos around lamps and lights that are in view."""
        lights = [(g[:3], g[3:], 0.5) for g in self.scenery.glows]
        for state in objects:
            if state.class_name in VEHICLES and np.hypot(*state.velocity) > 0.2 or state.braking:
                lights.extend(_lights_of(state))
        for place, colour, size in lights:
            x, y, z = camera_from_world[:3, :3] @ np.asarray(place) + camera_from_world[:3, 3]
            if z < 1.0 or z > 150.0:
                continue
            u, v, _ = intrinsics @ (x / z, y / z, 1.0)
            if not (0 <= u < image.shape[1] and 0 <= v < image.shape[0]):
                continue
            if nearness[int(v), int(u)] > 1.0 / max(z - 0.6, 0.3):
                continue
            _blend_halo(image, u, v, max(size * intrinsics[0, 0] / z, 3.0), np.asarray(colour))


def _lights_of(state):
    """(place, colour, halo radius in metres) of a vehicle's lights."""
    length, width, height = state.size
    z = min(0.7, 0.45 * height)
    for side in (-0.4, 0.4):
        for x, colour, size in ((length / 2 + .05, (1.0, .95, .85), 0.55),
                                (-length / 2 - .05, (1.0, .06, .04), 0.42 if state.braking else 0.2)):
            yield state.world_from_object[:3, :3] @ (x, side * width, z) + state.world_from_object[:3, 3], \
                colour, size


def _blend_halo(image, u, v, radius, colour):
    reach = int(min(radius * 1.5, 140)) + 1
    x0, x1 = max(int(u) - reach, 0), min(int(u) + reach + 1, image.shape[1])
    y0, y1 = max(int(v) - reach, 0), min(int(v) + reach + 1, image.shape[0])
    dx, dy = (np.arange(x0, x1) - u) / radius, (np.arange(y0, y1) - v) / radius
    squared = dy[:, None] ** 2 + dx ** 2
    fall = np.clip(1.0 - squared / 2.25, 0, 1) * (0.55 * np.exp(-4.0 * squared) + 0.30 / (1.0 + 40.0 * squared))
    patch = image[y0:y1, x0:x1].astype(np.float32)
    image[y0:y1, x0:x1] = 255.0 - (255.0 - patch) * (1.0 - np.clip(fall[..., None] * colour, 0, 1))


def _footprint(state):
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * np.asarray(state.size[:2]) * 0.48
    return half @ np.asarray(state.world_from_object)[:2, :2].T + np.asarray(state.world_from_object)[:2, 3]


def _frustum(intrinsics, width, height):
    """(4, 3) inward normals of the side planes in the camera frame."""
    corners = np.linalg.inv(intrinsics) @ np.array([[-0.5, width - 0.5, width - 0.5, -0.5],
                                                    [-0.5, -0.5, height - 0.5, height - 0.5], [1, 1, 1, 1]])
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
