"""Training-only supervision in the image: where objects' centres are, of what class, how far away.

A backbone that starts from nothing learns slowly through the BEV; told directly what its own
features show, it learns several times faster (perspective supervision, BEVFormer v2, Yang et al.,
CVPR 2023). Nothing of this is exported.
"""

import torch
from torch import nn

from mta_perception.contract import CLASSES
from mta_perception.model.nano.projection import project_points
from mta_training.losses.nano import heat_loss, heat_positives
from mta_training.process_group import ProcessGroup

_ALONE = ProcessGroup.alone()


class PerspectiveHead(nn.Module):
    """Class heatmap and log depth at every cell of the image features."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, len(CLASSES) + 1, 1)
        )
        nn.init.normal_(self.layers[-1].weight, std=0.01)
        with torch.no_grad():
            self.layers[-1].bias.copy_(torch.tensor([-4.595] * len(CLASSES) + [3.0]))

    def forward(self, features):
        """(B, N, C, h, w) -> heat logits (B, N, K, h, w), log depth (B, N, h, w)."""
        out = self.layers(features.flatten(0, 1)).float().unflatten(0, features.shape[:2])
        return out[:, :, :-1], out[:, :, -1]


def perspective_targets(targets, image_from_ego, camera_mask, image, stride):
    """Heat (N, K, h, w), log depth and its weight (N, h, w) of one frame.

    image_from_ego (N, 3, 4), camera_mask (N,), image an ImageConfig.
    """
    cameras = len(camera_mask)
    height, width = image.height // stride, image.width // stride
    heat = torch.zeros(cameras, len(CLASSES), height, width)
    depth, weight = torch.zeros(cameras, height, width), torch.zeros(cameras, height, width)
    if not len(targets.labels):
        return heat, depth, weight
    seen = project_points(
        targets.boxes[None, :, None, :3],
        image_from_ego[None],
        camera_mask[None],
        (image.width, image.height),
        stride,
    )
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    # Far ones first: where two share a cell, the nearer one is what the image shows.
    for index in torch.argsort(-targets.boxes[:, :2].norm(dim=-1)).tolist():
        for camera in torch.nonzero(seen.visible[0, :, index, 0]).flatten().tolist():
            x, y = seen.xy[0, camera, index, 0].tolist()
            metres = float(seen.depth[0, camera, index, 0])
            apparent = float(targets.boxes[index, 5]) * 1266.0 * image.scale / metres / stride
            sigma = min(max(0.2 * apparent, 0.5), 2.0)
            patch = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * sigma * sigma))
            label = int(targets.labels[index])
            heat[camera, label] = torch.maximum(heat[camera, label], patch)
            near = patch > 0.6
            ix, iy = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
            heat[camera, label, iy, ix] = 1.0
            near[iy, ix] = True
            depth[camera][near], weight[camera][near] = torch.tensor(metres).log(), 1.0
    return heat, depth, weight


def perspective_loss(head, features, batch, image, stride, processes=_ALONE):
    """Heat and depth loss of a Batch, given its features (B, N, C, h, w)."""
    heat_logits, log_depth = head(features)
    frames = zip(batch.targets, batch.image_from_ego.cpu(), batch.camera_mask.cpu())
    goals = [perspective_targets(*frame, image, stride) for frame in frames]
    heat, depth, weight = (torch.stack(part) for part in zip(*goals))
    peaks, cells = processes.divisors([heat_positives(heat), weight.sum()])
    heat, depth, weight = (part.to(features.device) for part in (heat, depth, weight))
    error = ((log_depth - depth).abs() * weight).sum() / cells
    return heat_loss(heat_logits, heat) / peaks + error
