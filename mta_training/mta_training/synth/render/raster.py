"""Compiled inner loops that shade and fill triangles.  Pixel (u, v) has its centre at (u, v)."""

from typing import NamedTuple

from numba import njit
import numpy as np

from mta_training.synth.render.light import BOUNCE, HORIZON, LAMP, SKY, SUN, TO_SUN, ZENITH

COMPILED = {'cache': True, 'fastmath': True, 'nogil': True, 'error_model': 'numpy'}
INLINED = {**COMPILED, 'forceinline': True}  # small and called per pixel
NEAR_M = 0.12
NO_TEXTURE = -1


class Buffers(NamedTuple):
    """One image in the making."""

    nearness: np.ndarray  # (H, W) float32, 1 / depth, 0 where nothing was drawn
    light: np.ndarray  # (H, W, 3) float32, linear RGB
    owner: np.ndarray  # (H, W) int32, instance


class Eye(NamedTuple):
    """A camera as the inner loops want it; float64."""

    camera_from_world: np.ndarray  # (4, 4)
    place: np.ndarray  # (3,) world
    intrinsics: np.ndarray  # (3, 3)


class Lighting(NamedTuple):
    """The light at one object."""

    env: np.ndarray  # (7, 3), `Light.matrix`
    sun_share: float  # how much of the sun arrives
    lamp_share: float  # the same of the street lamps
    headlights: np.ndarray  # (5,) of the ego: x, y, cos yaw, sin yaw, strength


class Facades(NamedTuple):
    """Textures of walls."""

    tiles: np.ndarray  # (2 N, 64, 64, 4) float32 albedo and share of window pane
    lit_share: float  # of the windows


class Work(NamedTuple):
    """Memory that the loops write to and that means nothing between calls."""

    corners: np.ndarray  # (16, 8)
    world: np.ndarray  # (>= V, 3)
    camera: np.ndarray  # (>= V, 3)


@njit(**INLINED)
def _edge(ax, ay, bx, by, y, low, high):
    """Narrow the span [low, high] of a row to the inner side of the edge a -> b."""
    a = ay - by
    c = (bx - ax) * (y - ay) + a * -ax
    if a > 1e-9:
        bound = -c / a
        if bound > low:
            low = bound
    elif a < -1e-9:
        bound = -c / a
        if bound < high:
            high = bound
    elif c < 0.0:
        high = low - 1.0
    return low, high


@njit(**COMPILED)
def _fill(p, buffers, ident, facades, wall, style):
    """Fill one triangle.  p (3, 8): u, v, 1/depth, r, g, b, s/depth, t/depth."""
    nearness, light, owner = buffers
    tiles, lit_share = facades
    height, width = nearness.shape
    ax, ay, bx, by, cx, cy = p[0, 0], p[0, 1], p[1, 0], p[1, 1], p[2, 0], p[2, 1]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area > -1e-9 and area < 1e-9:
        return
    if area < 0.0:
        bx, by, cx, cy = cx, cy, bx, by
        i1, i2 = 2, 1
        area = -area
    else:
        i1, i2 = 1, 2
    top = max(0, int(np.ceil(min(ay, min(by, cy)))))
    bottom = min(height - 1, int(np.floor(max(ay, max(by, cy)))))
    inverse = 1.0 / area
    # Barycentric weights are linear in u and v.
    b1u, b1v = (cy - ay) * inverse, -(cx - ax) * inverse
    b2u, b2v = -(by - ay) * inverse, (bx - ax) * inverse
    w0, w1, w2 = p[0, 2], p[i1, 2] - p[0, 2], p[i2, 2] - p[0, 2]
    r0, r1, r2 = p[0, 3], p[i1, 3] - p[0, 3], p[i2, 3] - p[0, 3]
    g0, g1, g2 = p[0, 4], p[i1, 4] - p[0, 4], p[i2, 4] - p[0, 4]
    k0, k1, k2 = p[0, 5], p[i1, 5] - p[0, 5], p[i2, 5] - p[0, 5]
    s0, s1, s2 = p[0, 6], p[i1, 6] - p[0, 6], p[i2, 6] - p[0, 6]
    t0, t1, t2 = p[0, 7], p[i1, 7] - p[0, 7], p[i2, 7] - p[0, 7]
    for v in range(top, bottom + 1):
        low, high = 0.0, float(width - 1)
        low, high = _edge(ax, ay, bx, by, v, low, high)
        low, high = _edge(bx, by, cx, cy, v, low, high)
        low, high = _edge(cx, cy, ax, ay, v, low, high)
        if low > high:
            continue
        first, last = int(np.ceil(low)), int(np.floor(high))
        for u in range(first, last + 1):
            b1 = (u - ax) * b1u + (v - ay) * b1v
            b2 = (u - ax) * b2u + (v - ay) * b2v
            w = w0 + b1 * w1 + b2 * w2
            if w <= nearness[v, u]:
                continue
            nearness[v, u] = w
            owner[v, u] = ident
            r, g, b = r0 + b1 * r1 + b2 * r2, g0 + b1 * g1 + b2 * g2, k0 + b1 * k1 + b2 * k2
            if style != NO_TEXTURE:
                s, t = (s0 + b1 * s1 + b2 * s2) / w, (t0 + b1 * t1 + b2 * t2) / w
                r, g, b = _facade_texel(tiles, style, wall, s, t, r, g, b, lit_share)
            light[v, u, 0] = r
            light[v, u, 1] = g
            light[v, u, 2] = b


@njit(**INLINED)
def _facade_texel(tiles, style, wall, s, t, r, g, b, lit_share):
    """r, g, b of a wall at bay s, storey t under light r, g, b; `wall` seeds its windows."""
    column, floor = int(np.floor(s)), int(np.floor(t))
    x, y = min(int((s - column) * 64), 63), min(int((t - floor) * 64), 63)
    tile = style * 2 + (1 if floor > 0 else 0)
    pane = tiles[tile, y, x, 3]
    h = (column * 73856093 ^ floor * 19349663 ^ wall * 83492791) & 0xFFFF
    tint = 1.0 - pane + pane * (0.35 + 0.65 * (h & 255) / 255.0)
    r, g, b = (
        tiles[tile, y, x, 0] * r * tint,
        tiles[tile, y, x, 1] * g * tint,
        tiles[tile, y, x, 2] * b * tint,
    )
    if pane > 0.3 and (h >> 8) < lit_share * 256:
        glow = pane * (0.05 + 0.22 * (h & 31) / 31.0) * (0.55 + 0.6 * (t - floor))
        cool = (h >> 5 & 7) / 7.0
        return r + glow, g + glow * (0.66 + 0.22 * cool), b + glow * (0.30 + 0.45 * cool)
    return r, g, b


@njit(**COMPILED)
def _clip_and_fill(scratch, k, buffers, ident, facades, wall, style):
    """Cut a triangle at the near plane and fill what is left.

    scratch[12:15] holds its corners: x, y, z in the camera, r, g, b, s, t
    """
    corners = scratch[12:15]
    count = 0
    for i in range(3):
        j = (i + 1) % 3
        zi, zj = corners[i, 2], corners[j, 2]
        if zi > NEAR_M:
            for c in range(8):
                scratch[count, c] = corners[i, c]
            count += 1
        if (zi > NEAR_M) != (zj > NEAR_M):
            share = (NEAR_M - zi) / (zj - zi)
            for c in range(8):
                scratch[count, c] = corners[i, c] + share * (corners[j, c] - corners[i, c])
            scratch[count, 2] = NEAR_M
            count += 1
    if count < 3:
        return
    for i in range(count):
        w = 1.0 / scratch[i, 2]
        x, y = scratch[i, 0], scratch[i, 1]
        scratch[i, 0] = (k[0, 0] * x + k[0, 1] * y) * w + k[0, 2]
        scratch[i, 1] = k[1, 1] * y * w + k[1, 2]
        scratch[i, 2] = w
        scratch[i, 6] *= w
        scratch[i, 7] *= w
    triangle = scratch[8:11]
    for i in range(1, count - 1):
        for c in range(8):
            triangle[0, c] = scratch[0, c]
            triangle[1, c] = scratch[i, c]
            triangle[2, c] = scratch[i + 1, c]
        _fill(triangle, buffers, ident, facades, wall, style)


@njit(**INLINED)
def _looks_away(a, b, c):
    """Whether the triangle a, b, c (camera coordinates) shows the camera its back."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return (
        (uy * vz - uz * vy) * a[0] + (uz * vx - ux * vz) * a[1] + (ux * vy - uy * vx) * a[2]
    ) >= 0.0


@njit(**INLINED)
def headlight(x, y, z, lamps):
    """Light of the ego's headlights (`Lighting.headlights`) at a world point."""
    if lamps[4] <= 0.0:
        return 0.0
    dx, dy = x - lamps[0], y - lamps[1]
    ahead = dx * lamps[2] + dy * lamps[3]
    if ahead < 0.3:
        return 0.0
    aside = -dx * lamps[3] + dy * lamps[2]
    spread = aside / (0.9 + 0.32 * ahead)
    height = max(0.0, z - 1.0) / (0.15 + 0.03 * ahead)
    falloff = ahead / (ahead + 4.0) / (1.0 + (ahead / 15.0) ** 2)
    return lamps[4] * falloff * np.exp(-spread * spread - height * height * 0.5)


@njit(**COMPILED)
def draw_mesh(
    solid, joints, size, world_from_object, palette, eye, lighting, facades, buffers, ident, work
):
    """Shade and draw one `Solid`.

    joints (J, 3, 4), size (3,) [m], palette (M, 5): see `meshes`; ident goes to buffers.owner
    """
    vertices, parts, triangles, normals, materials = solid
    world, camera, scratch = work.world, work.camera, work.corners
    camera_from_world = eye.camera_from_world
    for i in range(vertices.shape[0]):
        joint = joints[parts[i]]
        x, y, z = vertices[i, 0] * size[0], vertices[i, 1] * size[1], vertices[i, 2] * size[2]
        px = joint[0, 0] * x + joint[0, 1] * y + joint[0, 2] * z + joint[0, 3]
        py = joint[1, 0] * x + joint[1, 1] * y + joint[1, 2] * z + joint[1, 3]
        pz = joint[2, 0] * x + joint[2, 1] * y + joint[2, 2] * z + joint[2, 3]
        for r in range(3):
            world[i, r] = (
                world_from_object[r, 0] * px
                + world_from_object[r, 1] * py
                + world_from_object[r, 2] * pz
                + world_from_object[r, 3]
            )
        for r in range(3):
            camera[i, r] = (
                camera_from_world[r, 0] * world[i, 0]
                + camera_from_world[r, 1] * world[i, 1]
                + camera_from_world[r, 2] * world[i, 2]
                + camera_from_world[r, 3]
            )
    corners = scratch[12:15]
    for t in range(triangles.shape[0]):
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if camera[i0, 2] <= NEAR_M and camera[i1, 2] <= NEAR_M and camera[i2, 2] <= NEAR_M:
            continue
        if _looks_away(camera[i0], camera[i1], camera[i2]):
            continue
        joint = joints[parts[i0]]
        for c in range(3):
            i = triangles[t, c]
            nx, ny, nz = (
                normals[t, c, 0] / size[0],
                normals[t, c, 1] / size[1],
                normals[t, c, 2] / size[2],
            )
            qx = joint[0, 0] * nx + joint[0, 1] * ny + joint[0, 2] * nz
            qy = joint[1, 0] * nx + joint[1, 1] * ny + joint[1, 2] * nz
            qz = joint[2, 0] * nx + joint[2, 1] * ny + joint[2, 2] * nz
            nx = (
                world_from_object[0, 0] * qx
                + world_from_object[0, 1] * qy
                + world_from_object[0, 2] * qz
            )
            ny = (
                world_from_object[1, 0] * qx
                + world_from_object[1, 1] * qy
                + world_from_object[1, 2] * qz
            )
            nz = (
                world_from_object[2, 0] * qx
                + world_from_object[2, 1] * qy
                + world_from_object[2, 2] * qz
            )
            length = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
            _shade(
                corners[c],
                world[i],
                nx * length,
                ny * length,
                nz * length,
                eye.place,
                palette[materials[t]],
                lighting,
            )
            corners[c, 0], corners[c, 1], corners[c, 2] = camera[i, 0], camera[i, 1], camera[i, 2]
        _clip_and_fill(scratch, eye.intrinsics, buffers, ident, facades, 0, NO_TEXTURE)


@njit(**COMPILED)
def _shade(corner, point, nx, ny, nz, eye, material, lighting):
    """Light from a surface point towards the eye, into corner[3:6]; material is a palette row."""
    env, sun_share, lamp_share, lamps = lighting
    facing_sun = nx * env[TO_SUN, 0] + ny * env[TO_SUN, 1] + nz * env[TO_SUN, 2]
    direct = max(facing_sun, 0.0) * sun_share
    up = 0.5 + 0.5 * nz
    low = min(1.0, 0.5 + 0.5 * point[2] / 0.7)  # the road darkens what is near it
    vx, vy, vz = eye[0] - point[0], eye[1] - point[1], eye[2] - point[2]
    inverse = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz + 1e-12)
    vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
    cosine = nx * vx + ny * vy + nz * vz
    rx, ry, rz = 2 * cosine * nx - vx, 2 * cosine * ny - vy, 2 * cosine * nz - vz
    gloss = material[3]
    grazing = (1.0 - min(max(cosine, 0.0), 1.0)) ** 3
    fresnel = gloss * (0.06 + 0.55 * grazing)
    mirror_sun = max(rx * env[TO_SUN, 0] + ry * env[TO_SUN, 1] + rz * env[TO_SUN, 2], 0.0)
    mirror_sun = mirror_sun**8
    mirror_sun = mirror_sun**4 * gloss * 1.6 * sun_share
    head = headlight(point[0], point[1], point[2], lamps)
    if head > 0.0:
        away = (point[0] - lamps[0]) * nx + (point[1] - lamps[1]) * ny
        reach = np.sqrt((point[0] - lamps[0]) ** 2 + (point[1] - lamps[1]) ** 2) + 1e-6
        head *= max(-away / reach, 0.0) * (1.0 + gloss)
    lamp = lamp_share * (0.45 + 0.55 * max(nz, 0.0))
    for c in range(3):
        ambient = (env[BOUNCE, c] + (env[SKY, c] - env[BOUNCE, c]) * up) * low
        incoming = ambient + env[SUN, c] * direct + env[LAMP, c] * lamp + head
        if rz > 0.0:
            mirrored = env[HORIZON, c] + (env[ZENITH, c] - env[HORIZON, c]) * min(rz * 1.6, 1.0)
        else:
            mirrored = env[BOUNCE, c] * 0.4
        corner[3 + c] = (
            material[c] * (incoming + material[4]) + fresnel * mirrored + mirror_sun * env[SUN, c]
        )


@njit(**COMPILED)
def draw_static(first, last, walls, eye, headlights, facades, buffers, scratch):
    """Draw triangles [first, last) of `scenery.Walls`, whose light is known already."""
    vertices, triangles, colours, texture, styles, seeds = walls
    camera_from_world = eye.camera_from_world
    corners = scratch[12:15]
    for t in range(first, last):
        front = False
        for c in range(3):
            i = triangles[t, c]
            for r in range(3):
                corners[c, r] = (
                    camera_from_world[r, 0] * vertices[i, 0]
                    + camera_from_world[r, 1] * vertices[i, 1]
                    + camera_from_world[r, 2] * vertices[i, 2]
                    + camera_from_world[r, 3]
                )
            front = front or corners[c, 2] > NEAR_M
        if not front or _looks_away(corners[0], corners[1], corners[2]):
            continue
        # What the ego's headlights add: on walls it is still multiplied with their albedo.
        share = 0.155 if styles[t] != NO_TEXTURE else 0.03
        for c in range(3):
            i = triangles[t, c]
            head = share * headlight(vertices[i, 0], vertices[i, 1], vertices[i, 2], headlights)
            for r in range(3):
                corners[c, 3 + r] = colours[t, c, r] + head
            corners[c, 6], corners[c, 7] = texture[t, c, 0], texture[t, c, 1]
        _clip_and_fill(scratch, eye.intrinsics, buffers, 0, facades, seeds[t], styles[t])


@njit(**COMPILED)
def draw_leaves(centre, radius, tint, flip, leaves, eye, buffers):
    """One clump of leaves that faces the camera.

    centre (3,) world, radius [m], tint (3,) light, flip: mirrored
    leaves (S, S, 2): brightness, coverage
    """
    nearness, light, owner = buffers
    k, m = eye.intrinsics, eye.camera_from_world
    x = m[0, 0] * centre[0] + m[0, 1] * centre[1] + m[0, 2] * centre[2] + m[0, 3]
    y = m[1, 0] * centre[0] + m[1, 1] * centre[1] + m[1, 2] * centre[2] + m[1, 3]
    z = m[2, 0] * centre[0] + m[2, 1] * centre[1] + m[2, 2] * centre[2] + m[2, 3]
    if z <= 0.5:
        return
    height, width = nearness.shape
    size = leaves.shape[0]
    u, v = (k[0, 0] * x + k[0, 1] * y) / z + k[0, 2], k[1, 1] * y / z + k[1, 2]
    half_u, half_v = k[0, 0] * radius / z, k[1, 1] * radius / z
    if half_u < 0.3:
        return
    w = 1.0 / (z - 0.3 * radius)
    step_u, step_v = size / (2 * half_u), size / (2 * half_v)
    for row in range(
        max(0, int(np.ceil(v - half_v))), min(height - 1, int(np.floor(v + half_v))) + 1
    ):
        iy = min(max(int((row - v + half_v) * step_v), 0), size - 1)
        for column in range(
            max(0, int(np.ceil(u - half_u))), min(width - 1, int(np.floor(u + half_u))) + 1
        ):
            if w <= nearness[row, column]:
                continue
            ix = min(max(int((column - u + half_u) * step_u), 0), size - 1)
            if flip:
                ix = size - 1 - ix
            if leaves[iy, ix, 1] < 0.5:
                continue
            nearness[row, column] = w
            owner[row, column] = 0
            shade = leaves[iy, ix, 0]
            for c in range(3):
                light[row, column, c] = tint[c] * shade
