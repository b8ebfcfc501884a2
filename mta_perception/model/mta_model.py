"""The whole detector: six cameras and a memory in, objects and the next memory out.

`Detector.forward` has the inputs of `detector.onnx` (docs/architecture.md); `MtaModel` adds the
captioner.
"""

from typing import NamedTuple

import torch
from torch import nn

from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.model.deformable import sample_map
from mta_perception.model.nano.backbone import Backbone
from mta_perception.model.nano.bev_encoder import BevEncoder
from mta_perception.model.nano.detection_decoder import (
    DecoderOutputs,
    DetectionDecoder,
    boxes_from_codes,
)
from mta_perception.model.projection import project_points, tall_map, tall_xy
from mta_perception.model.qformer import QFormer


class DetectorResult(NamedTuple):
    """What the detector graph returns, then what only the losses read."""

    class_logits: torch.Tensor  # (B, Q, K)
    boxes: torch.Tensor  # (B, Q, 10) contract.BoxCode
    object_features: torch.Tensor  # (B, Q, F)
    bev: torch.Tensor  # (B, C, Y, X)
    image_features: torch.Tensor  # (B, N, C, h, w), zero where a camera is masked
    stages: DecoderOutputs

    @property
    def codes(self):
        """Boxes (B, Q, 10) as the network says them: metres, log sizes."""
        return self.stages.layer_codes[-1]


class Detector(nn.Module):
    """Backbone, BEV encoder, decoder."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.bev.channels)
        self.bev_encoder = BevEncoder(config.bev, config.image, config.backbone.stride)
        self.decoder = DetectionDecoder(config.bev, config.decoder)

    def forward(
        self,
        images,
        image_from_ego,
        camera_mask,
        history_bev,
        history_valid,
        ego_prev_from_ego_now,
    ):
        """Inputs and outputs as in docs/architecture.md, batch first -> DetectorResult."""
        features = self.backbone(images.flatten(0, 1))
        features = features.unflatten(0, images.shape[:2])  # (B, N, C, h, w)
        features = features * camera_mask[:, :, None, None, None]
        bev = self.bev_encoder(
            features,
            image_from_ego,
            camera_mask,
            history_bev,
            history_valid,
            ego_prev_from_ego_now,
        )  # (B, C, Y, X)
        stages = self.decoder(bev, self._looker(features, image_from_ego, camera_mask))
        object_features = torch.cat([stages.queries, stages.appearance], dim=-1)
        return DetectorResult(
            stages.layer_logits[-1],
            boxes_from_codes(stages.layer_codes[-1]),
            object_features,
            bev,
            features,
            stages,
        )

    def _looker(self, features, image_from_ego, camera_mask):
        """A function that reads the image at ego points (B, Q, Z, 3) -> (B, Q, Z, C).

        Each point is read in the camera nearest whose axis it lies; zero where none sees it.
        """
        image, stride, height = self.config.image, self.config.backbone.stride, features.shape[-2]
        tall = tall_map(features.float())

        def look(points):
            seen = project_points(
                points, image_from_ego, camera_mask, (image.width, image.height), stride
            )
            off_axis = (seen.xy[..., 0] - (image.width / stride - 1.0) / 2.0).abs()
            camera = torch.where(seen.visible, -off_axis, -1e6).argmax(1, keepdim=True)
            xy = seen.xy.gather(1, camera.unsqueeze(-1).expand(-1, -1, -1, -1, 2))[:, 0]
            visible = seen.visible.gather(1, camera)[:, 0].float()  # (B, Q, Z)
            samples = sample_map(tall, tall_xy(camera[:, 0], xy, height))  # (B, C, Q, Z)
            return samples.permute(0, 2, 3, 1) * visible.unsqueeze(-1)

        return look


class MtaModel(nn.Module):
    """Detector and captioner with the sizes of one MtaConfig; the language model is beside them.

    That one is frozen, and may be a foreign one: see `mta_training.language.frozen_llama`.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.detector = (Detector if config.detector == 'nano' else BevFormerDetector)(config)
        self.qformer = QFormer(config)
