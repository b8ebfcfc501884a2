"""What maps should show: objects as peaks of heat, in the BEV and in the images, all at once.

A batch's objects are padded to the same number, so that one call makes the maps of all frames on
the device where they are compared (a loop over objects cost more than a GPU's whole step).
"""

from typing import NamedTuple

import torch

from mta_perception.contract import CLASSES
from mta_perception.model.grid import metres_to_cells
from mta_perception.model.nano.detection_decoder import codes_from_boxes
from mta_perception.model.nano.projection import project_points

_SMALL = ('barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone')
_SIGMA_CELLS = tuple(0.55 if name in _SMALL else 0.9 for name in CLASSES)
_WINDOW = 3  # cells around a centre that its heat reaches
_BESIDE_WEIGHT = 0.3  # of a box told by the eight cells around its centre's
_NEAR_HEAT = 0.6  # of a place in the image that tells an object's depth


class Objects(NamedTuple):
    """The objects of B frames, M to each; what is beyond a frame's own is not `real`."""

    boxes: torch.Tensor  # (B, M, 10) contract.BoxCode
    labels: torch.Tensor  # (B, M) int64
    real: torch.Tensor  # (B, M) bool


class BevTargets(NamedTuple):
    """What the dense head should say."""

    heat: torch.Tensor  # (B, K, Y, X), 1.0 at the cell of each centre
    codes: torch.Tensor  # (B, 10, Y, X) of the nearest object, in its cell and the eight around
    weights: torch.Tensor  # (B, Y, X) 1 in the cell, 0.3 around, else 0


class ImageTargets(NamedTuple):
    """What a head in the image should say."""

    heat: torch.Tensor  # (B, N, K, h, w)
    depth: torch.Tensor  # (B, N, h, w) metres of the nearest object there, 0 = none


def pad_objects(targets, device):
    """Objects of a list of Targets, at least one row long."""
    most = max(1, *(len(frame.labels) for frame in targets), 1)
    boxes = torch.zeros(len(targets), most, 10)
    labels = torch.zeros(len(targets), most, dtype=torch.int64)
    real = torch.zeros(len(targets), most, dtype=torch.bool)
    for index, frame in enumerate(targets):
        count = len(frame.labels)
        boxes[index, :count], labels[index, :count] = frame.boxes, frame.labels
        real[index, :count] = True
    return Objects(boxes.to(device), labels.to(device), real.to(device))


def bev_targets(objects, bev):
    """BevTargets of Objects on a BevGrid."""
    cells, device = bev.cells, objects.boxes.device
    place = metres_to_cells(objects.boxes[..., :2], bev)  # (B, M, 2)
    cell = place.round()
    inside = objects.real & ((cell >= 0) & (cell < cells)).all(-1)
    line = torch.arange(cells, device=device)
    offset = line - place.unsqueeze(-1)  # (B, M, 2, cells)
    steps = (line - cell.unsqueeze(-1)).abs()
    sigma = torch.tensor(_SIGMA_CELLS, device=device)[objects.labels]
    bell = torch.exp(-offset.square() / (2.0 * sigma.square())[..., None, None])
    bell = bell * (steps <= _WINDOW) * inside[..., None, None]
    patches = bell[:, :, 1, :, None] * bell[:, :, 0, None, :]  # (B, M, Y, X)
    heat = _by_class(patches, objects.labels)
    frame, index = torch.nonzero(inside, as_tuple=True)
    ix, iy = cell[frame, index].long().unbind(-1)
    heat[frame, objects.labels[frame, index], iy, ix] = 1.0

    near = (steps <= 1) & inside[..., None, None]
    near = near[:, :, 1, :, None] & near[:, :, 0, None, :]
    square = offset[:, :, 1, :, None].square() + offset[:, :, 0, None, :].square()
    distance, nearest = torch.where(near, square, torch.inf).min(1)  # (B, Y, X)
    some = torch.isfinite(distance)
    codes = codes_from_boxes(objects.boxes).transpose(1, 2)  # (B, 10, M)
    chosen = nearest.flatten(1).unsqueeze(1).expand(-1, 10, -1)
    codes = codes.gather(2, chosen).unflatten(2, (cells, cells))
    own = (steps == 0)[:, :, 1, :, None] & (steps == 0)[:, :, 0, None, :]
    own = own.gather(1, nearest.unsqueeze(1))[:, 0]
    weights = torch.where(own, 1.0, _BESIDE_WEIGHT) * some
    return BevTargets(heat, torch.where(some.unsqueeze(1), codes, 0.0), weights)


def image_targets(objects, image_from_ego, camera_mask, image, stride):
    """ImageTargets of Objects; image_from_ego (B, N, 3, 4), camera_mask (B, N), an ImageConfig."""
    height, width = image.height // stride, image.width // stride
    device = image_from_ego.device
    seen = project_points(
        objects.boxes[:, :, None, :3],
        image_from_ego,
        camera_mask,
        (image.width, image.height),
        stride,
    )
    visible = seen.visible[..., 0] & objects.real.unsqueeze(1)  # (B, N, M)
    place, depth = seen.xy[..., 0, :], seen.depth[..., 0]
    apparent = (
        objects.boxes[..., 5].unsqueeze(1) * 1266.0 * image.scale / depth.clamp(min=0.1) / stride
    )
    sigma = (0.2 * apparent).clamp(0.5, 2.0)
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)
    spread = 2.0 * sigma.square().unsqueeze(-1)
    bell_x = torch.exp(-(x - place[..., 0:1]).square() / spread)  # (B, N, M, w)
    bell_y = torch.exp(-(y - place[..., 1:2]).square() / spread)
    patches = (bell_y.unsqueeze(-1) * bell_x.unsqueeze(-2)) * visible[..., None, None]
    labels = objects.labels.unsqueeze(1).expand(visible.shape)
    heat = _by_class(patches.flatten(0, 1), labels.flatten(0, 1)).unflatten(0, visible.shape[:2])
    ix = place[..., 0].round().clamp(0, width - 1).long()
    iy = place[..., 1].round().clamp(0, height - 1).long()
    frame, camera, index = torch.nonzero(visible, as_tuple=True)
    row, column = iy[frame, camera, index], ix[frame, camera, index]
    heat[frame, camera, labels[frame, camera, index], row, column] = 1.0
    near = patches > _NEAR_HEAT
    near[frame, camera, index, row, column] = True
    # Where two share a place, the nearer one is what the image shows.
    metres = torch.where(near, depth[..., None, None], torch.inf).amin(2)
    return ImageTargets(heat, torch.where(torch.isfinite(metres), metres, 0.0))


def _by_class(patches, labels):
    """(F, M, h, w) heat of single objects -> (F, K, h, w), the highest of each class."""
    frames, _, height, width = patches.shape
    heat = torch.zeros(frames, len(CLASSES), height, width, device=patches.device)
    index = labels[..., None, None].expand(patches.shape)
    return heat.scatter_reduce(1, index, patches, 'amax')
