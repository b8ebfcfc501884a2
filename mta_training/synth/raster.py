"""Compiled inner loops: shading and filling triangles, and the ground and sky behind them.

Buffers of one image: `nearness` (H, W) float32 holds 1 / depth, 0 where nothing was drawn; `light`
(H, W, 3) float32 linear RGB; `owner` (H, W) int32.  Pixel (u, v) has its centre at (u, v).
"""

from numba import njit
import numpy as np

NEAR_M = 0.12
NO_TEXTURE = -1


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy', inline='always')
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


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _fill(p, nearness, light, owner, ident, facade, cell_seed, style, lit_share):
    """Fill one triangle.  p (3, 8): u, v, 1/depth, r, g, b, s/depth, t/depth."""
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
            if style == NO_TEXTURE:
                light[v, u, 0] = r
                light[v, u, 1] = g
                light[v, u, 2] = b
            else:
                s, t = (s0 + b1 * s1 + b2 * s2) / w, (t0 + b1 * t1 + b2 * t2) / w
                _facade_texel(light[v, u], facade, style, cell_seed, s, t, r, g, b, lit_share)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy', inline='always')
def _facade_texel(pixel, facade, style, cell_seed, s, t, r, g, b, lit_share):
    """One pixel of a wall: facade (N, 64, 64, 4) holds albedo and how much of it is window pane."""
    column, floor = int(np.floor(s)), int(np.floor(t))
    x, y = int((s - column) * 64), int((t - floor) * 64)
    tile = facade[style * 2 + (1 if floor > 0 else 0)]
    texel = tile[min(y, 63), min(x, 63)]
    pane = texel[3]
    wall = 1.0 - pane
    h = (column * 73856093 ^ floor * 19349663 ^ cell_seed * 83492791) & 0xffff
    tint = 0.35 + 0.65 * (h & 255) / 255.0
    pixel[0] = texel[0] * r * (wall + pane * tint)
    pixel[1] = texel[1] * g * (wall + pane * tint)
    pixel[2] = texel[2] * b * (wall + pane * tint)
    if pane > 0.3 and (h >> 8) < lit_share * 256:
        glow = (0.05 + 0.22 * (h & 31) / 31.0) * (0.55 + 0.6 * (t - floor))
        cool = (h >> 5 & 7) / 7.0
        pixel[0] += pane * glow
        pixel[1] += pane * glow * (0.66 + 0.22 * cool)
        pixel[2] += pane * glow * (0.30 + 0.45 * cool)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _clip_and_fill(corners, k, nearness, light, owner, ident, facade, cell_seed, style, lit_share, scratch):
    """Cut a triangle (3, 8: x, y, z in the camera, r, g, b, s, t) at the near plane and fill what is left."""
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
        _fill(triangle, nearness, light, owner, ident, facade, cell_seed, style, lit_share)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy', inline='always')
def headlight(x, y, z, lamps):
    """Light of the ego's headlights at a world point; lamps (4,): x, y, cos yaw, sin yaw, [4] strength."""
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


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def draw_mesh(vertices, parts, triangles, normals, materials, joints, size, world_from_object,
              camera_from_world, eye, k, palette, light_env, sun_share, lamp_share, lamps,
              nearness, light, owner, ident, scratch, world, camera, no_facade):
    """Shade and draw one mesh.  world, camera (>= V, 3) and scratch (16, 8) are work space."""
    for i in range(vertices.shape[0]):
        joint = joints[parts[i]]
        x, y, z = vertices[i, 0] * size[0], vertices[i, 1] * size[1], vertices[i, 2] * size[2]
        px = joint[0, 0] * x + joint[0, 1] * y + joint[0, 2] * z + joint[0, 3]
        py = joint[1, 0] * x + joint[1, 1] * y + joint[1, 2] * z + joint[1, 3]
        pz = joint[2, 0] * x + joint[2, 1] * y + joint[2, 2] * z + joint[2, 3]
        for r in range(3):
            world[i, r] = (world_from_object[r, 0] * px + world_from_object[r, 1] * py
                           + world_from_object[r, 2] * pz + world_from_object[r, 3])
        for r in range(3):
            camera[i, r] = (camera_from_world[r, 0] * world[i, 0] + camera_from_world[r, 1] * world[i, 1]
                            + camera_from_world[r, 2] * world[i, 2] + camera_from_world[r, 3])
    corners = scratch[12:15]
    for t in range(triangles.shape[0]):
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if camera[i0, 2] <= NEAR_M and camera[i1, 2] <= NEAR_M and camera[i2, 2] <= NEAR_M:
            continue
        ux, uy, uz = camera[i1, 0] - camera[i0, 0], camera[i1, 1] - camera[i0, 1], camera[i1, 2] - camera[i0, 2]
        vx, vy, vz = camera[i2, 0] - camera[i0, 0], camera[i2, 1] - camera[i0, 1], camera[i2, 2] - camera[i0, 2]
        facing = ((uy * vz - uz * vy) * camera[i0, 0] + (uz * vx - ux * vz) * camera[i0, 1]
                  + (ux * vy - uy * vx) * camera[i0, 2])
        if facing >= 0.0:
            continue
        joint = joints[parts[i0]]
        for c in range(3):
            i = triangles[t, c]
            nx, ny, nz = normals[t, c, 0] / size[0], normals[t, c, 1] / size[1], normals[t, c, 2] / size[2]
            qx = joint[0, 0] * nx + joint[0, 1] * ny + joint[0, 2] * nz
            qy = joint[1, 0] * nx + joint[1, 1] * ny + joint[1, 2] * nz
            qz = joint[2, 0] * nx + joint[2, 1] * ny + joint[2, 2] * nz
            nx = world_from_object[0, 0] * qx + world_from_object[0, 1] * qy + world_from_object[0, 2] * qz
            ny = world_from_object[1, 0] * qx + world_from_object[1, 1] * qy + world_from_object[1, 2] * qz
            nz = world_from_object[2, 0] * qx + world_from_object[2, 1] * qy + world_from_object[2, 2] * qz
            length = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
            _shade(corners[c], world[i], nx * length, ny * length, nz * length, eye, palette[materials[t]],
                   light_env, sun_share, lamp_share, lamps)
            corners[c, 0], corners[c, 1], corners[c, 2] = camera[i, 0], camera[i, 1], camera[i, 2]
        _clip_and_fill(corners, k, nearness, light, owner, ident, no_facade, 0, NO_TEXTURE, 0.0, scratch)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _shade(corner, point, nx, ny, nz, eye, material, env, sun_share, lamp_share, lamps):
    """Light from a surface point towards the eye, into corner[3:6].

    env (8, 3): to_sun, sun, sky, bounce, zenith, horizon, lamp, (night, wet, 0)
    """
    facing_sun = nx * env[0, 0] + ny * env[0, 1] + nz * env[0, 2]
    direct = max(facing_sun, 0.0) * sun_share
    up = 0.5 + 0.5 * nz
    low = min(1.0, 0.5 + 0.5 * point[2] / 0.7)                       # the road darkens what is near it
    vx, vy, vz = eye[0] - point[0], eye[1] - point[1], eye[2] - point[2]
    inverse = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz + 1e-12)
    vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
    cosine = nx * vx + ny * vy + nz * vz
    rx, ry, rz = 2 * cosine * nx - vx, 2 * cosine * ny - vy, 2 * cosine * nz - vz
    gloss = material[3]
    grazing = (1.0 - min(max(cosine, 0.0), 1.0)) ** 3
    fresnel = gloss * (0.06 + 0.55 * grazing)
    mirror_sun = max(rx * env[0, 0] + ry * env[0, 1] + rz * env[0, 2], 0.0)
    mirror_sun = mirror_sun ** 8
    mirror_sun = mirror_sun ** 4 * gloss * 1.6 * sun_share
    head = headlight(point[0], point[1], point[2], lamps)
    if head > 0.0:
        away = (point[0] - lamps[0]) * nx + (point[1] - lamps[1]) * ny
        reach = np.sqrt((point[0] - lamps[0]) ** 2 + (point[1] - lamps[1]) ** 2) + 1e-6
        head *= max(-away / reach, 0.0) * (1.0 + gloss)
    lamp = lamp_share * (0.45 + 0.55 * max(nz, 0.0))
    for c in range(3):
        ambient = (env[3, c] + (env[2, c] - env[3, c]) * up) * low
        incoming = ambient + env[1, c] * direct + env[6, c] * lamp + head
        if rz > 0.0:
            mirrored = env[5, c] + (env[4, c] - env[5, c]) * min(rz * 1.6, 1.0)
        else:
            mirrored = env[3, c] * 0.4
        corner[3 + c] = (material[c] * (incoming + material[4]) + fresnel * mirrored
                         + mirror_sun * env[1, c])


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def draw_static(first, last, vertices, triangles, colours, st, styles, seeds, camera_from_world, eye, k, lamps,
                lit_share, facade, nearness, light, owner, scratch):
    """Draw triangles [first, last) of the standing world; colours (T, 3, 3) are light already."""
    corners = scratch[12:15]
    for t in range(first, last):
        front = False
        for c in range(3):
            p = vertices[triangles[t, c]]
            for r in range(3):
                corners[c, r] = (camera_from_world[r, 0] * p[0] + camera_from_world[r, 1] * p[1]
                                 + camera_from_world[r, 2] * p[2] + camera_from_world[r, 3])
            if corners[c, 2] > NEAR_M:
                front = True
        if not front:
            continue
        ux, uy, uz = (corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1],
                      corners[1, 2] - corners[0, 2])
        vx, vy, vz = (corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1],
                      corners[2, 2] - corners[0, 2])
        if ((uy * vz - uz * vy) * corners[0, 0] + (uz * vx - ux * vz) * corners[0, 1]
                + (ux * vy - uy * vx) * corners[0, 2]) >= 0.0:
            continue
        for c in range(3):
            p = vertices[triangles[t, c]]
            head = headlight(p[0], p[1], p[2], lamps) * 0.5
            for r in range(3):
                corners[c, 3 + r] = colours[t, c, r] * (1.0 + 0.0 * head) + 0.25 * head * (styles[t] >= 0) \
                    + 0.06 * head
            corners[c, 6], corners[c, 7] = st[t, c, 0], st[t, c, 1]
        _clip_and_fill(corners, k, nearness, light, owner, 0, facade, seeds[t], styles[t], lit_share, scratch)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def draw_leaves(x, y, z, radius, tint, k, leaves, flip, nearness, light, owner):
    """One clump of leaves that faces the camera; leaves (S, S, 2): brightness, coverage."""
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
    for row in range(max(0, int(np.ceil(v - half_v))), min(height - 1, int(np.floor(v + half_v))) + 1):
        iy = min(max(int((row - v + half_v) * step_v), 0), size - 1)
        for column in range(max(0, int(np.ceil(u - half_u))), min(width - 1, int(np.floor(u + half_u))) + 1):
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
