"""BEVFormer (Li et al., ECCV 2022) from images to boxes."""

from typing import NamedTuple

import torch
from torch import nn

from mta_perception.model.bevformer.decoder import DetectionDecoder
from mta_perception.model.bevformer.encoder import BevEncoder
from mta_perception.model.bevformer.official import to_our_names
from mta_perception.model.bevformer.resnet import FeaturePyramid, ResNet
from mta_perception.model.bevformer.visibility import find_visibility

_CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)


class Ego(NamedTuple):
    """How the car moves and which cameras it has."""

    can_bus: torch.Tensor  # (B, 18), see history.relative_can_bus
    camera_mask: torch.Tensor | None = None  # (B, N), 0 = no image from this camera


class Output(NamedTuple):
    """What BEVFormer found; layers = decoder layers, the last one is the answer."""

    bev: torch.Tensor  # (B, Q, C), cells in rows from behind to ahead
    class_logits: torch.Tensor  # (layers, B, queries, classes)
    box_codes: torch.Tensor  # (layers, B, queries, 10), see decoder.py
    queries: torch.Tensor  # (layers, B, queries, C)
    references: torch.Tensor  # (layers + 1, B, queries, 3), 0 to 1 over range_m


class Boxes(NamedTuple):
    """Objects of one sample, best first."""

    boxes: torch.Tensor  # (n, 9) x, y, z of the bottom [m], w, l, h [m], yaw, vx, vy
    scores: torch.Tensor  # (n,)
    labels: torch.Tensor  # (n,) int64
    index: torch.Tensor  # (n,) int64, query * classes + label


class BEVFormer(nn.Module):
    """Six cameras and the frame before in, bird's-eye view and boxes out."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.backbone = ResNet(backbone)
        self.neck = FeaturePyramid(
            [backbone.channels[stage] for stage in backbone.out_stages],
            config.channels,
            backbone.levels,
        )
        # Weights that lie pixel by pixel make all maps do so: convolutions and pooling are faster.
        self.backbone.to(memory_format=torch.channels_last)
        self.neck.to(memory_format=torch.channels_last)
        self.encoder = BevEncoder(config)
        self.decoder = DetectionDecoder(config)
        self.register_buffer('code_weights', torch.tensor(_CODE_WEIGHTS))

    @classmethod
    def from_official(cls, state_dict, config):
        """The network with published weights.

        state_dict has the names of the published checkpoint's `state_dict`.  Raises ValueError
        that lists what is missing, unexpected or of another shape.
        """
        model = cls(config)
        model.load_state_dict(to_our_names(state_dict, model.state_dict(), config))
        return model.eval()

    def forward(self, images, image_from_lidar, ego, history=None):
        """Detect.

        images            (B, N, 3, H, W) normalised, or (B, N, H, W, 3) RGB, 0 to 255
        image_from_lidar  (B, N, 4, 4)    pixels of the padded image, times depth
        ego               Ego
        history           History or None: `Output.bev` of the frame before
        Raises ValueError where a shape or a number does not fit.
        """
        images = self._checked(images, image_from_lidar, ego, history)
        features = self.features(images)
        visibility = find_visibility(self.config, image_from_lidar, ego.camera_mask)
        bev = self.encoder(features, visibility, ego.can_bus, history)
        return Output(bev, *self.decoder(bev))

    def features(self, images):
        """(B, N, 3, H, W) -> list of (B, N, C, h, w), finest first."""
        batch, cameras = images.shape[:2]
        maps = self.neck(self.backbone(images.flatten(0, 1)))
        return [feature.unflatten(0, (batch, cameras)) for feature in maps]

    def decode(self, output, layer=-1):
        """Output -> a Boxes per sample: the best (query, class) pairs, without suppression.

        The yaw is that of the published weights (mmdet3d before 1.0): nuScenes' yaw in the lidar
        frame is -yaw - pi / 2.
        """
        config = self.config
        found = []
        limits = output.box_codes.new_tensor(config.centre_range_m)
        for logits, codes in zip(output.class_logits[layer], output.box_codes[layer]):
            scores, index = (
                logits.sigmoid().flatten().topk(min(config.max_detections, logits.numel()))
            )
            code = codes[index // config.classes]
            centre = torch.cat([code[:, 0:2], code[:, 4:5]], -1)
            keep = ((centre >= limits[:3]) & (centre <= limits[3:])).all(-1)
            size = torch.cat([code[:, 2:4], code[:, 5:6]], -1).exp()
            bottom = centre - torch.nn.functional.pad(size[:, 2:] / 2.0, (2, 0))
            yaw = torch.atan2(code[:, 6:7], code[:, 7:8])
            boxes = torch.cat([bottom, size, yaw, code[:, 8:]], -1)
            found.append(
                Boxes(boxes[keep], scores[keep], (index % config.classes)[keep], index[keep])
            )
        return found

    def normalise(self, images):
        """(B, N, H, W, 3) RGB, 0 to 255 -> (B, N, 3, H, W) float32; what is padding becomes 0."""
        image = self.config.image
        x = (images.flip(-1) if image.bgr else images).movedim(-1, -3).float()
        mean, std = x.new_tensor(image.mean), x.new_tensor(image.std)
        x = (x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        x[..., image.content_height :, :] = 0.0
        return x

    def _checked(self, images, image_from_lidar, ego, history):
        config = self.config
        image, count = config.image, config.cameras
        batch = images.shape[0] if images.ndim else 0
        colours = (image.height, image.width, 3)
        if images.dtype == torch.uint8 or images.shape[-1:] == (3,):
            _expect('images', images, (batch, count, *colours))
            images = self.normalise(images)
        _expect('images', images, (batch, count, 3, image.height, image.width))
        _expect('image_from_lidar', image_from_lidar, (batch, count, 4, 4))
        _expect('ego.can_bus', ego.can_bus, (batch, 18))
        if ego.camera_mask is not None:
            _expect('ego.camera_mask', ego.camera_mask, (batch, count))
        if history is not None:
            _expect('history.bev', history.bev, (batch, config.bev_cells**2, config.channels))
            _expect('history.valid', history.valid, (batch,))
        if not torch.compiler.is_compiling():
            _check_calibration(image_from_lidar, ego)
        return images


def _expect(name, tensor, shape):
    if tuple(tensor.shape) != shape:
        raise ValueError(f'{name} has shape {tuple(tensor.shape)}; expected {shape}')


def _check_calibration(image_from_lidar, ego):
    there = torch.ones(image_from_lidar.shape[:2], dtype=torch.bool)
    if ego.camera_mask is not None:
        there = (ego.camera_mask > 0.5).cpu()
    used = image_from_lidar.detach().double().cpu()
    for sample, camera in there.nonzero().tolist():
        matrix = used[sample, camera]
        if not torch.isfinite(matrix).all():
            raise ValueError(
                f'image_from_lidar[{sample}, {camera}] {tuple(matrix.shape)} has '
                'values that are not finite; expected a projection matrix (4, 4)'
            )
        if abs(float(torch.linalg.det(matrix[:3, :3]))) < 1e-6:
            raise ValueError(
                f'image_from_lidar[{sample}, {camera}] {tuple(matrix.shape)} is '
                'singular; expected intrinsics times a rigid transform (4, 4)'
            )
    if not torch.isfinite(ego.can_bus).all():
        raise ValueError(
            f'ego.can_bus {tuple(ego.can_bus.shape)} has values that are not finite; '
            'expected 18 numbers a sample'
        )
