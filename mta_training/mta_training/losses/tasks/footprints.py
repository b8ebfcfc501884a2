"""Boxes from above: overlap of rotated footprints with a gradient, and footprints as masks.

Boxes are contract.BoxCode (..., 10); footprints are rectangles of length x width about x, y.
evaluation/caption_matching.py has the overlap in shapely, which gives no gradient; a test holds
the two together.
"""

import torch

_EDGE = 1e-4  # of a corner that lies on the other's edge counts as inside, in half sizes


def corners(boxes):
    """Footprints (..., 4, 2) [m]: front left, front right, rear right, rear left."""
    signs = boxes.new_tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2.0
    local = signs * boxes[..., None, 3:5]
    s, c = boxes[..., None, 6], boxes[..., None, 7]
    x, y = local.unbind(-1)
    return torch.stack([c * x - s * y, s * x + c * y], dim=-1) + boxes[..., None, :2]


def _inside(points, boxes):
    """Which points (..., P, 2) lie within the footprints of boxes (..., 10)."""
    along, across = _in_axes(points - boxes[..., None, :2], boxes)
    half = boxes[..., None, 3:5] / 2.0 * (1.0 + _EDGE)
    return (along.abs() <= half[..., 0]) & (across.abs() <= half[..., 1])


def _in_axes(offsets, boxes):
    """Offsets (..., P, 2) along the length and the width of boxes (..., 10): (..., P) twice."""
    s, c = boxes[..., None, 6], boxes[..., None, 7]
    x, y = offsets.unbind(-1)
    return c * x + s * y, c * y - s * x


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _crossings(a, b):
    """Where the edges of outlines (..., 4, 2) cross: points (..., 16, 2), and which of them do."""
    start_a, start_b = a.unsqueeze(-2), b.unsqueeze(-3)  # (..., 4, 1, 2), (..., 1, 4, 2)
    edge_a = (a.roll(-1, dims=-2) - a).unsqueeze(-2)
    edge_b = (b.roll(-1, dims=-2) - b).unsqueeze(-3)
    area = _cross(edge_a, edge_b)
    parallel = area.abs() < 1e-6
    area = torch.where(parallel, 1.0, area)
    way_a = _cross(start_b - start_a, edge_b) / area  # 0..1 along the edge of a
    way_b = _cross(start_b - start_a, edge_a) / area
    cross = ~parallel & (way_a >= 0) & (way_a <= 1) & (way_b >= 0) & (way_b <= 1)
    points = start_a + way_a.unsqueeze(-1) * edge_a
    return points.flatten(-3, -2), cross.flatten(-2)


def overlap_area(boxes_a, boxes_b):
    """Common area (...) [m^2] of the footprints of boxes (..., 10) and (..., 10).

    The corners of the common polygon are corners of one inside the other and crossings of edges;
    sorted around their mean they give the area.
    """
    a, b = corners(boxes_a), corners(boxes_b)
    points, crossing = _crossings(a, b)
    points = torch.cat([a, b, points], dim=-2)  # (..., 24, 2)
    real = torch.cat([_inside(a, boxes_b), _inside(b, boxes_a), crossing], dim=-1)  # (..., 24)
    share = real.unsqueeze(-1).to(points.dtype)
    points = torch.where(real.unsqueeze(-1), points, 0.0)
    middle = points.sum(-2, keepdim=True) / share.sum(-2, keepdim=True).clamp(min=1.0)
    around = (points - middle) * share
    angle = torch.atan2(around[..., 1], around[..., 0]).detach()
    angle = torch.where(real, angle, 10.0)  # last
    order = angle.argsort(-1).unsqueeze(-1).expand_as(around)
    around = around.gather(-2, order)
    # What is no corner becomes the first one: no area between them.
    count = share.sum(-2)  # (..., 1)
    place = torch.arange(around.shape[-2], device=around.device)
    around = torch.where((place < count).unsqueeze(-1), around, around[..., :1, :])
    area = _cross(around, around.roll(-1, dims=-2)).sum(-1) / 2.0
    return torch.where(count.squeeze(-1) >= 3, area, 0.0)


def footprint_giou(boxes, goals):
    """Generalised IoU (...), -1 to 1, of footprints seen from above, with a gradient in `boxes`.

    The enclosing shape is the smallest rectangle with the heading of the goal: it is one with a
    simple gradient, and gIoU is 1 for equal boxes.
    """
    common = overlap_area(boxes, goals)
    area = boxes[..., 3] * boxes[..., 4]
    goal_area = goals[..., 3] * goals[..., 4]
    union = (area + goal_area - common).clamp(min=1e-6)
    both = torch.cat([corners(boxes), corners(goals)], dim=-2) - goals[..., None, :2]
    sides = [line.amax(-1) - line.amin(-1) for line in _in_axes(both, goals)]
    hull = (sides[0] * sides[1]).clamp(min=1e-6)
    return common / union - (hull - union) / hull


def footprint_masks(boxes, cells, half_extent_m=51.2):
    """Masks (n, cells, cells) bool, [iy, ix], of the footprints of n boxes (n, 10).

    A cell is covered where its centre is, and the one below the box's own centre always is (if it
    is on the grid): a pedestrian is smaller than a cell.
    """
    step = 2.0 * half_extent_m / cells
    line = (torch.arange(cells, device=boxes.device) + 0.5) * step - half_extent_m
    y, x = torch.meshgrid(line, line, indexing='ij')
    points = torch.stack([x, y], dim=-1).flatten(0, 1)  # (cells^2, 2)
    covered = _inside(points.expand(len(boxes), -1, -1), boxes)
    centre = (points - boxes[:, None, :2]).abs().amax(-1) <= step / 2.0
    return (covered | centre).unflatten(-1, (cells, cells))
