"""Training-only supervision in the image: where objects' centres are, of what class, how far away.

A backbone that starts from nothing learns slowly through the BEV; told directly what its own
features show, it learns several times faster (perspective supervision, BEVFormer v2, Yang et al.,
CVPR 2023). Nothing of this is exported.
"""

import torch
from torch import nn

from mta_perception.contract import CLASSES
from mta_perception.model.nano.pyramid import bin_positions, focal_lengths, share_of_bins
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


def perspective_loss(head, features, goals, processes=_ALONE):
    """Heat and depth loss of features (B, N, C, h, w), given dense_targets.ImageTargets."""
    heat_logits, log_depth = head(features)
    told = goals.depth > 0
    peaks, cells = processes.divisors([heat_positives(goals.heat), told.sum()])
    error = (log_depth[told] - goals.depth[told].log()).abs().sum() / cells
    return heat_loss(heat_logits, goals.heat) / peaks + error


def depth_loss(logits, metres, image_from_ego, image, processes=_ALONE):
    """Cross entropy of the depth's bins where it is known.

    logits (B, N, D, h, w), metres (B, N, h, w) with 0 = unknown, image_from_ego (B, N, 3, 4)
    """
    bins = logits.shape[2]
    known = metres > 0
    focal = focal_lengths(image_from_ego)[..., None, None].expand(metres.shape)
    place = bin_positions(metres[known].float(), focal[known], image.width, bins)
    told = logits.permute(0, 1, 3, 4, 2)[known].float().log_softmax(-1)
    (count,) = processes.divisors([known.sum()])
    return -(share_of_bins(place, bins) * told).sum() / count
