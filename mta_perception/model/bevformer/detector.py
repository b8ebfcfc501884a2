"""BEVFormer behind the contract of `model.detector.Detector`, so that a captioner fits either.

Frames: outside all is in the ego frame, x forward, y left; inside, BEVFormer works in the frame
of nuScenes' lidar, x right, y forward, on the roof.  The memory is handed around as (B, C, Y, X),
cell [iy, ix] with ix growing forward and iy to the left, as everywhere; its centre is the lidar.
"""

import math

import torch
from torch import nn

from mta_perception.model.bevformer.config import BEVFormerConfig
from mta_perception.model.bevformer.history import History
from mta_perception.model.bevformer.network import BEVFormer, Ego, Output
from mta_perception.model.bevformer.visibility import Visibility
from mta_perception.model.detector import DetectorResult

# nuScenes' mounting: 0.94 m ahead of base_link and 1.84 m above it, turned by -90 degrees.
LIDAR_IN_EGO_M = (0.94, 0.0, 1.84)


class BevFormerDetector(nn.Module):
    """The published network as MtaModel's detector; `config` is an MtaConfig.

    `DetectorResult.stages` is the network's Output, whose codes are in the lidar frame as
    published; `codes` are the same in our order.
    """

    # Which cells a camera sees is a list whose length depends on the calibration: it is made
    # outside of the graph (runtime/visible_pairs.py).
    wants_pairs = True

    def __init__(self, config):
        super().__init__()
        self.config = config
        size = config.detector.removeprefix('bevformer_')
        self.network = BEVFormer(BEVFormerConfig.named(size))

    @classmethod
    def around(cls, network):
        """Of a BEVFormer that is there already, published weights say."""
        detector = cls.__new__(cls)
        nn.Module.__init__(detector)
        detector.network = network
        return detector

    @property
    def memory_shape(self):
        """(C, Y, X)."""
        sizes = self.network.config
        return sizes.channels, sizes.bev_cells, sizes.bev_cells

    @property
    def object_feature_width(self):
        """A row is the query alone."""
        return self.network.config.channels

    @property
    def backbone(self):
        """What a recipe may freeze."""
        return self.network.backbone

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
        ego = Ego(can_bus_of(ego_prev_from_ego_now, history_valid), camera_mask)
        history = History(lidar_tokens(history_bev), history_valid > 0.5)
        return _result(self.network(images, image_from_lidar(image_from_ego), ego, history))

    def with_pairs(
        self, images, history_bev, history_valid, ego_prev_from_ego_now, cell, camera, uv, share
    ):
        """The same of one sample whose visible pairs are at hand: what the graph computes.

        cell, camera (P,), uv (P, Z, 2), share (P,) as in visibility.Visibility
        """
        network = self.network
        bev = network.encoder(
            network.features(network.normalise(images)),
            Visibility(None, None, cell, camera, uv, share),
            can_bus_of(ego_prev_from_ego_now, history_valid),
            History(lidar_tokens(history_bev), history_valid > 0.5),
        )
        return _result(Output(bev, *network.decoder(bev)))


def _result(output):
    """Output -> DetectorResult."""
    output = Output(*(part.float() for part in output))  # of autocast
    codes = output.box_codes[-1]
    return DetectorResult(
        output.class_logits[-1],
        ego_boxes(codes),
        output.queries[-1],
        ego_grid(output.bev),
        our_order(codes),
        output,
    )


def image_from_lidar(image_from_ego):
    """(B, N, 3, 4) -> (B, N, 4, 4)."""
    x, y, z = LIDAR_IN_EGO_M
    ego_from_lidar = image_from_ego.new_tensor(
        [[0.0, 1.0, 0.0, x], [-1.0, 0.0, 0.0, y], [0.0, 0.0, 1.0, z], [0.0, 0.0, 0.0, 1.0]]
    )
    last = image_from_ego.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*image_from_ego.shape[:2], 1, 4)
    return torch.cat([image_from_ego @ ego_from_lidar, last], dim=2)


def can_bus_of(ego_prev_from_ego_now, valid):
    """(B, 18) as history.relative_can_bus, the frame before being the world.

    Acceleration, rates and velocity are 0: odometry does not give them.
    """
    moved = ego_prev_from_ego_now
    there = valid[:, None]
    yaw = torch.atan2(moved[:, 1, 0], moved[:, 0, 0])[:, None]  # (B, 1)
    nothing = torch.zeros_like(yaw)
    return torch.cat(
        [
            moved[:, :3, 3] * there,
            (yaw / 2).cos(),
            nothing,
            nothing,
            (yaw / 2).sin(),
            nothing.expand(-1, 9),
            yaw % (2 * math.pi),
            torch.rad2deg(yaw) * there,
        ],
        dim=1,
    )


def ego_grid(tokens):
    """Tokens (B, Q, C), rows from behind to ahead, from left to right -> (B, C, Y, X)."""
    cells = math.isqrt(tokens.shape[1])
    rows = tokens.transpose(1, 2).unflatten(2, (cells, cells))  # (B, C, ahead, right)
    return rows.flip(3).transpose(2, 3)


def lidar_tokens(grid):
    """The inverse of ego_grid."""
    return grid.transpose(2, 3).flip(3).flatten(2).transpose(1, 2)


def our_order(codes):
    """cx, cy, log w, log l, cz, log h, ... as published -> x, y, z, log l, log w, log h, ..."""
    return codes[..., [0, 1, 4, 3, 2, 5, 6, 7, 8, 9]]


def ego_boxes(codes):
    """Published codes (..., 10) in the lidar frame -> contract.BoxCode in the ego frame."""
    x, y, width, length, z, height, sin, cos, vx, vy = codes.unbind(-1)
    reach = (sin.square() + cos.square() + 1e-12).sqrt()
    dx, dy, dz = LIDAR_IN_EGO_M
    # The published yaw is t = -psi - pi / 2 of the yaw psi in the lidar frame, and that frame is
    # turned by -90 degrees: the yaw in the ego frame is -t - pi.
    return torch.stack(
        [
            y + dx,
            dy - x,
            z + dz,
            length.exp(),
            width.exp(),
            height.exp(),
            sin / reach,
            -cos / reach,
            vy,
            -vx,
        ],
        dim=-1,
    )
