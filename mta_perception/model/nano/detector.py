"""nano, the detector for two CPU cores: backbone, pyramid, BEV encoder, decoder.

Inputs and outputs are those of `model.detector.Detector`.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.deformable import sample_map
from mta_perception.model.detector import DetectorResult
from mta_perception.model.nano.backbone import SmallResNet
from mta_perception.model.nano.bev_encoder import BevEncoder
from mta_perception.model.nano.detection_decoder import (
    DecoderOutputs,
    DetectionDecoder,
    boxes_from_codes,
)
from mta_perception.model.nano.lite0 import EfficientNetLite0
from mta_perception.model.nano.projection import project_points, tall_map, tall_xy
from mta_perception.model.nano.pyramid import Pyramid


class NanoStages(NamedTuple):
    """`DetectorResult.stages` of nano."""

    image_features: torch.Tensor  # (B, N, C, h, w), zero where a camera is masked
    depth_logits: torch.Tensor | None  # (B, N, D, h, w)
    decoder: DecoderOutputs


class NanoDetector(nn.Module):
    """Backbone, pyramid, BEV encoder, decoder; `config` is an MtaConfig."""

    wants_pairs = False

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.memory_shape = config.bev.shape
        self.object_feature_width = 2 * config.bev.channels  # the query, what the image shows
        seen, channels = config.backbone, config.bev.channels
        self.backbone = EfficientNetLite0() if seen.kind == 'lite0' else SmallResNet(seen)
        self.pyramid = Pyramid(
            self.backbone.widths, channels, seen.stride, seen.refine, seen.depth_bins
        )
        self.bev_encoder = BevEncoder(config.bev, config.image, seen.stride, bool(seen.depth_bins))
        fine_channels = self.backbone.widths[0] + 3 if seen.fine else 0
        self.decoder = DetectionDecoder(config.bev, config.decoder, fine_channels)

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
        levels = self.backbone(images.flatten(0, 1))
        present = camera_mask[:, :, None, None, None]
        features, depth = self.pyramid(levels)
        features = features.unflatten(0, images.shape[:2]) * present  # (B, N, C, h, w)
        if depth is not None:
            depth = depth.unflatten(0, images.shape[:2]).float()
        bev = self.bev_encoder(
            features,
            image_from_ego,
            camera_mask,
            history_bev,
            history_valid,
            ego_prev_from_ego_now,
            None if depth is None else depth.softmax(2) * present,
        )  # (B, C, Y, X)
        stride, view = self.config.backbone.stride, (image_from_ego, camera_mask)
        readers = [self._image_reader(features, stride, *view)]
        if self.config.backbone.fine:
            readers.append(self._image_reader(_fine(images, levels[0], present), 4, *view))
        found = self.decoder(bev, *readers)
        object_features = torch.cat([found.queries, found.appearance], dim=-1)
        class_logits, codes = found.layer_logits[-1], found.layer_codes[-1]
        return DetectorResult(
            class_logits,
            boxes_from_codes(codes),
            object_features,
            bev,
            codes,
            NanoStages(features, depth, found),
        )

    def _image_reader(self, features, stride, image_from_ego, camera_mask):
        """A function that reads features at ego points (B, Q, Z, 3) -> (B, Q, Z, C).

        Each point is read in the camera nearest whose axis it lies; zero where none sees it.
        """
        image, height = self.config.image, features.shape[-2]
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


def _fine(images, level, present):
    """Maps (B, N, C + 3, H / 4, W / 4) of what things look like: features, and their colours."""
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 128.0 - 1.0
    colours = functional.avg_pool2d(pixels, 4).to(level.dtype)
    return torch.cat([level, colours], dim=1).unflatten(0, images.shape[:2]) * present
