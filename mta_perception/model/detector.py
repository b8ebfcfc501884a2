"""What every detector is to those around it: the contract that nano and BEVFormer both meet.

Training, evaluation, export, captioner and losses know a detector by this file alone.  Which one a
configuration means is decided where it is built (`mta_model.build_detector`); what it is trained
with, which lives in `mta_training`, is chosen in `mta_training/losses/detection.py`.

Inputs, batch first; names and meaning are those of the detector graph (docs/architecture.md):
     images                 (B, 6, H, W, 3) RGB, cameras in contract.CAMERAS order; uint8, or
                                            float32 of that scale where training changed them
     image_from_ego         (B, 6, 3, 4)    pixels of `images` from metres in the ego frame
     camera_mask            (B, 6)          0 removes a camera
     history_bev            (B, *memory_shape) a `bev` it returned, in the ego frame of then
     history_valid          (B,)            0 = there is none
     ego_prev_from_ego_now  (B, 4, 4)       from that history to now
A detector works out for itself, from these, what else it wants: BEVFormer its visible (camera,
cell) pairs and the motion part of can_bus.  One that can use more than every car has takes it as a
further input with a default.  One whose graph wants the visible pairs ready-made says so
(`wants_pairs`).
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import nn


class DetectorResult(NamedTuple):
    """What the detector graph returns, then what only training reads."""

    class_logits: torch.Tensor  # (B, Q, K), sigmoid scores
    boxes: torch.Tensor  # (B, Q, 10) contract.BoxCode, ego frame
    object_features: torch.Tensor  # (B, Q, F), what the captioner reads
    bev: torch.Tensor  # (B, C, Y, X), the memory of the next frame
    codes: torch.Tensor  # (B, Q, 10) the boxes as its head says them: metres, log sizes
    stages: Any  # all its layers, in its own form, for its own losses

    def sample(self, index: int) -> 'DetectorResult':
        """One sample in float32, without the batch axis and without `stages`."""
        parts = self.class_logits, self.boxes, self.object_features, self.bev, self.codes
        return DetectorResult(*(part[index].float() for part in parts), None)


class Detector(Protocol):
    """A torch module that finds objects with six cameras and a memory."""

    memory_shape: tuple[int, int, int]  # (C, Y, X) of the BEV it returns and is given back
    object_feature_width: int  # F
    wants_pairs: bool  # whether its graph is given the visible (camera, cell) pairs

    @property
    def backbone(self) -> nn.Module:
        """What sees the images: a recipe may freeze it or slow it down."""

    def __call__(
        self,
        images: torch.Tensor,
        image_from_ego: torch.Tensor,
        camera_mask: torch.Tensor,
        history_bev: torch.Tensor,
        history_valid: torch.Tensor,
        ego_prev_from_ego_now: torch.Tensor,
    ) -> DetectorResult:
        """One frame of each sample of a batch."""
