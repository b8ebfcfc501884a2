"""Triangle solids: a builder of simple shapes and the mesh it makes.

A mesh fills the unit box: x in [-0.5, 0.5] (front = +x), y in [-0.5, 0.5] (left = +y), z in
[0, 1], so that a box of any size is filled exactly by scaling.
"""

from typing import NamedTuple

import numpy as np


class Joint(NamedTuple):
    """A part of a mesh that turns about its own pivot."""

    kind: str  # 'body' | 'roll' | 'steer' | 'leg' | 'counter_leg'
    pivot: tuple  # unit-box coordinates


class Solid(NamedTuple):
    """The triangles of one drawable thing in the unit box."""

    vertices: np.ndarray  # (V, 3) float32
    parts: np.ndarray  # (V,) int32, index into joints
    triangles: np.ndarray  # (T, 3) int32, counter-clockwise seen from outside
    normals: (
        np.ndarray
    )  # (T, 3, 3) float32, one per corner, to be divided by the size and normalised
    materials: np.ndarray  # (T,) int32, row of the palette


class Mesh(NamedTuple):
    """A solid and how its parts move."""

    solid: Solid
    joints: tuple  # Joint, the first is the body


def cross(a, b):
    """Cross product of two 3-vectors; numpy's own is many times slower on so few numbers."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def newell_normal(points):
    """Unit normal of a planar polygon (n, 3)."""
    x, y, z = 0.0, 0.0, 0.0
    corners = points.tolist()
    for (ax, ay, az), (bx, by, bz) in zip(corners, corners[1:] + corners[:1]):
        x += (ay - by) * (az + bz)
        y += (az - bz) * (ax + bx)
        z += (ax - bx) * (ay + by)
    length = (x * x + y * y + z * z) ** 0.5
    return np.array([x, y, z]) / length if length > 1e-12 else np.array([0.0, 0.0, 1.0])


class SolidBuilder:
    """Collects polygons in metres and turns them into a `Mesh`.

    Every polygon is turned to look away from the middle of the shape it belongs to, so that
    builders of shapes need not think about winding.
    """

    def __init__(self):
        self.polygons = []  # (points (n, 3), material, part, smoothing group)
        self.joints = [Joint('body', (0.0, 0.0, 0.0))]
        self._part = 0
        self._group = 0

    def joint(self, kind, pivot):
        """Start a moving part; what is added until the next call belongs to it."""
        self.joints.append(Joint(kind, tuple(pivot)))
        self._part = len(self.joints) - 1

    def body(self):
        """What is added from here on does not move against the box."""
        self._part = 0

    def polygon(self, points, material, away_from=None, group=0):
        """A convex planar polygon, looking away from a point (or as wound)."""
        points = np.asarray(points, dtype=np.float64)
        if away_from is not None:
            outwards = points.mean(0) - np.asarray(away_from)
            if newell_normal(points) @ outwards < 0:
                points = points[::-1]
        self.polygons.append((points, material, self._part, group))

    def loft(self, rings, materials, caps=None, smooth=True):
        """Skin over closed rings.

        rings      (S, P, 3) points, each ring closed from its last point to its first
        materials  (S - 1, P) palette rows or one row for all
        caps       palette rows of the first and last ring's faces, None = open
        """
        rings = np.asarray(rings, dtype=np.float64)
        stations, count = rings.shape[:2]
        materials = np.broadcast_to(materials, (stations - 1, count))
        self._group += 1
        group = self._group if smooth else 0
        for s in range(stations - 1):
            middle = rings[s : s + 2].mean((0, 1))
            for p in range(count):
                q = (p + 1) % count
                quad = [rings[s, p], rings[s, q], rings[s + 1, q], rings[s + 1, p]]
                self._quad(np.array(quad), materials[s, p], middle, group)
        if caps is not None:
            middle = rings.mean((0, 1))
            for ring, material in zip((rings[0], rings[-1]), caps):
                self.fan(ring, material, middle)

    def _quad(self, quad, material, middle, group):
        if np.abs(cross(quad[2] - quad[0], quad[3] - quad[1])).max() < 1e-9:
            return
        self.polygon(quad, material, middle, group)

    def fan(self, ring, material, away_from):
        """A ring of points filled from its middle."""
        centre = ring.mean(0)
        for a, b in zip(ring, np.roll(ring, -1, axis=0)):
            if np.abs(cross(a - centre, b - centre)).max() > 1e-9:
                self.polygon([centre, a, b], material, away_from)

    def box(self, low, high, material, taper=(1.0, 1.0)):
        """An upright box from corner to corner; `taper` scales its top in x and y."""
        low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        middle, half = (low + high) / 2, (high - low) / 2
        signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        bottom = np.c_[middle[:2] + signs * half[:2], np.full(4, low[2])]
        top = np.c_[middle[:2] + signs * half[:2] * taper, np.full(4, high[2])]
        self.loft([bottom, top], material, (material, material), smooth=False)

    def cylinder(self, start, end, radius, material, sides=10, cap=None, end_radius=None):
        """A round bar between two points; `cap` is the palette row of its ends."""
        start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        axis = (end - start) / np.linalg.norm(end - start)
        helper = np.array([0.0, 0.0, 1.0]) if abs(axis[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
        u = cross(axis, helper)
        u /= np.linalg.norm(u)
        v = cross(axis, u)
        angles = np.arange(sides) * 2 * np.pi / sides
        circle = np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * v
        far = radius if end_radius is None else end_radius
        cap = material if cap is None else cap
        self.loft([start + radius * circle, end + far * circle], material, (cap, cap))

    def ellipsoid(self, centre, radii, material, sides=10, rings=6):
        """A ball squeezed to three radii."""
        angles = np.arange(sides) * 2 * np.pi / sides
        levels = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
        unit = np.stack(
            [
                np.outer(np.cos(levels), np.cos(angles)),
                np.outer(np.cos(levels), np.sin(angles)),
                np.repeat(np.sin(levels)[:, None], sides, 1),
            ],
            -1,
        )
        self.loft(np.asarray(centre) + unit * np.asarray(radii), material)

    def patch(self, centre, along, up, material, away_from):
        """A flat rectangle given by its middle and its two half axes."""
        centre, along, up = (np.asarray(k, dtype=np.float64) for k in (centre, along, up))
        self.polygon(
            [centre + along + up, centre - along + up, centre - along - up, centre + along - up],
            material,
            away_from,
        )

    def extent(self):
        """Lowest and highest corner (3,) of everything added so far."""
        points = np.concatenate([polygon[0] for polygon in self.polygons])
        return points.min(0), points.max(0)

    def mesh(self, extent=None, crease=0.6):
        """The unit-box `Mesh`; corners whose faces differ by less than acos(crease) are smoothed.

        extent  low and high corner (3,) that become the unit box; None = what was added fills it
        """
        low, high = (np.asarray(k, dtype=np.float64) for k in extent or self.extent())
        size = high - low
        vertices, parts, triangles, normals, materials = [], [], [], [], []
        smooth = self._corner_normals(crease)
        for (polygon, material, part, _), corners in zip(self.polygons, smooth):
            base = len(vertices)
            vertices.extend((polygon - low) / size - (0.5, 0.5, 0.0))
            parts.extend([part] * len(polygon))
            for k in range(1, len(polygon) - 1):
                triangles.append((base, base + k, base + k + 1))
                normals.append(corners[[0, k, k + 1]] * size)
                materials.append(material)
        joints = tuple(
            Joint(j.kind, tuple((np.array(j.pivot) - low) / size - (0.5, 0.5, 0.0)))
            for j in self.joints
        )
        solid = Solid(
            np.array(vertices, np.float32),
            np.array(parts, np.int32),
            np.array(triangles, np.int32),
            np.array(normals, np.float32),
            np.array(materials, np.int32),
        )
        return Mesh(solid, joints)

    def _corner_normals(self, crease):
        """Per polygon (n, 3) normals: the mean over faces that meet at the corner in one group."""
        faces = [newell_normal(points) for points, *_ in self.polygons]
        meeting = {}
        for number, (points, _, _, group) in enumerate(self.polygons):
            if group:
                for point in np.round(points, 4):
                    meeting.setdefault((group, *point), []).append(faces[number])
        result = []
        for normal, (points, _, _, group) in zip(faces, self.polygons):
            corners = np.repeat(normal[None], len(points), 0)
            if group:
                for k, point in enumerate(np.round(points, 4)):
                    near = np.array(meeting[(group, *point)])
                    mean = near[near @ normal > crease].mean(0)
                    corners[k] = mean / np.linalg.norm(mean)
            result.append(corners)
        return result
