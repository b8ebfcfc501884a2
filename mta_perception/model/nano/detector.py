"""nano, the detector for two CPU cores: backbone, BEV encoder, decoder.

Inputs and outputs are those of `model.detector.Detector`.
"""

from typing import NamedTuple

import torch
from torch import nn

from mta_perception.model.deformable import sample_map
from mta_perception.model.detector import DetectorResult
from mta_perception.model.nano.backbone import Backbone
from mta_perception.model.nano.bev_encoder import BevEncoder
from mta_perception.model.nano.detection_decoder import (
    DecoderOutputs,
    DetectionDecoder,
    boxes_from_codes,
)
from mta_perception.model.nano.projection import project_points, tall_map, tall_xy


class NanoStages(NamedTuple):
    """`DetectorResult.stages` of nano."""

    image_features: torch.Tensor  # (B, N, C, h, w), zero where a camera is masked
    decoder: DecoderOutputs


class NanoDetector(nn.Module):
    """Backbone, BEV encoder, decoder; `config` is an MtaConfig."""

    has_graph = True

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.memory_shape = config.bev.shape
        self.object_feature_width = 2 * config.bev.channels  # the query, what the image shows
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
        """As Detector -> DetectorResult."""
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
        found = self.decoder(bev, self._image_reader(features, image_from_ego, camera_mask))
        object_features = torch.cat([found.queries, found.appearance], dim=-1)
        class_logits, codes = found.layer_logits[-1], found.layer_codes[-1]
        return DetectorResult(
            class_logits,
            boxes_from_codes(codes),
            object_features,
            bev,
            codes,
            NanoStages(features, found),
        )

    def _image_reader(self, features, image_from_ego, camera_mask):
        """A function that reads the image at ego points (B, Q, Z, 3) -> (B, Q, Z, C).

        Each point is read in the camera nearest whose axis it lies; zero where none sees it.
        """
        image, stride, height = self.config.image, self.config.backbone.stride, features.shape[-2]
        tall = tall_map(features.float())

        def read(points):
            seen = project_points(
                points, image_from_ego, camera_mask, (image.width, image.height), stride
            )
            off_axis = (seen.xy[..., 0] - (image.width / stride - 1.0) / 2.0).abs()
            camera = torch.where(seen.visible, -off_axis, -1e6).argmax(1, keepdim=True)
            xy = seen.xy.gather(1, camera.unsqueeze(-1).expand(-1, -1, -1, -1, 2))[:, 0]
            visible = seen.visible.gather(1, camera)[:, 0].float()  # (B, Q, Z)
            samples = sample_map(tall, tall_xy(camera[:, 0], xy, height))  # (B, C, Q, Z)
            return samples.permute(0, 2, 3, 1) * visible.unsqueeze(-1)

        return read
