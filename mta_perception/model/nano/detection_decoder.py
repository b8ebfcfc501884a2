"""Objects from the BEV: peaks of a dense centre heatmap become queries, refined layer by layer.

in   bev            (B, C, Y, X)
out  class_logits   (B, Q, K)    sigmoid scores
     boxes          (B, Q, 10)   contract.BoxCode, ego frame
     queries        (B, Q, C)    what a query knows at the end

Internally a box is metres and log sizes in float32 (bfloat16 would round 0.2 m at 51 m).  A query
starts with the dense head's box and score, each layer adds a correction (TransFusion, Bai et al.,
CVPR 2022; iterative refinement as in Deformable DETR).
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.model.deformable import DeformableAttention
from mta_perception.model.grid import cell_centres, fourier, metres_to_cells
from mta_perception.model.nano.backbone import BasicBlock

# Big classes leave one peak in 3x3 cells; small ones may stand in neighbouring cells of 2 m.
_ONE_PEAK = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer')
_PRIOR_LOGIT = -4.595  # sigmoid = 0.01
_OTHER_CLASS_LOGIT = -6.0  # a query starts as one of the class it was picked for
_NOT_A_PEAK_LOGIT = -1.5  # and doubts itself beside a higher peak of that class
_FINE_POINTS = 9  # where an object's look is read at stride 4


class DecoderOutputs(NamedTuple):
    """All stages, for the losses; the last one is the result."""

    heat_logits: torch.Tensor  # (B, K, Y, X)
    dense_codes: torch.Tensor  # (B, 10, Y, X) internal code: metres, log sizes
    layer_logits: torch.Tensor  # (layers, B, Q, K)
    layer_codes: torch.Tensor  # (layers, B, Q, 10) internal code
    queries: torch.Tensor  # (B, Q, C)
    appearance: torch.Tensor  # (B, Q, C) what the image shows at the box


def boxes_from_codes(codes):
    """Internal code (..., 10) -> contract.BoxCode: sizes in metres, heading of length 1."""
    heading = codes[..., 6:8]
    heading = heading / (heading.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    size = codes[..., 3:6].clamp(-4.0, 4.0).exp()
    return torch.cat([codes[..., 0:3], size, heading, codes[..., 8:10]], dim=-1)


def codes_from_boxes(boxes):
    """contract.BoxCode (..., 10) -> internal code with log sizes."""
    size = boxes[..., BoxCode.SIZE].clamp(min=0.02).log()
    return torch.cat([boxes[..., BoxCode.CENTER], size, boxes[..., 6:]], dim=-1)


class DenseHead(nn.Module):
    """A score per class and a box at every cell."""

    def __init__(self, config):
        super().__init__()
        channels = config.channels
        self.shared = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.heat = nn.Conv2d(channels, len(CLASSES), 1)
        self.box = nn.Conv2d(channels, BoxCode.WIDTH, 1)
        nn.init.constant_(self.heat.bias, _PRIOR_LOGIT)
        nn.init.normal_(self.heat.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.01)
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor([0, 0, 0.9, 0.7, 0.1, 0.4, 0, 0, 0, 0.0]))
        self.cell_m = config.cell_m
        centres = cell_centres(config).t().reshape(2, config.cells, config.cells)
        self.register_buffer('centres', centres, persistent=False)

    def forward(self, bev):
        """bev (B, C, Y, X) -> heat_logits (B, K, Y, X), dense_codes (B, 10, Y, X)."""
        shared = self.shared(bev)
        heat = self.heat(shared).float()
        with torch.autocast(bev.device.type, enabled=False):
            raw = self.box(shared.float())
            centre = self.centres + raw[:, :2] * self.cell_m
        return heat, torch.cat([centre, raw[:, 2:]], dim=1)


class DecoderLayer(nn.Module):
    """Queries look at each other, at the BEV, and correct their box and score."""

    def __init__(self, channels, config):
        super().__init__()
        self.heads = config.heads
        self.qk = nn.Linear(channels, 2 * channels)
        self.v = nn.Linear(channels, channels)
        self.mixed = nn.Linear(channels, channels)
        self.cross = DeformableAttention(channels, config.heads, config.points)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, config.feedforward),
            nn.ReLU(),
            nn.Linear(config.feedforward, channels),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.score = nn.Sequential(
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, len(CLASSES)),
        )
        self.box = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, BoxCode.WIDTH)
        )
        for last in (self.score[-1], self.box[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, query, position, reference, bev):
        """query, position (B, Q, C), reference (B, Q, 2) in cells -> query (B, Q, C)."""
        placed = query + position
        q, k = self.qk(placed).chunk(2, dim=-1)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, self.v(query))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        query = self.norms[0](query + self.mixed(mixed))
        query = self.norms[1](query + self.cross(query + position, bev, reference))
        return self.norms[2](query + self.feedforward(query))


class DetectionDecoder(nn.Module):
    """Neck, dense head, query selection and refinement."""

    def __init__(self, bev, config, fine_channels=0):
        super().__init__()
        channels = bev.channels
        self.bev, self.queries = bev, config.queries
        self.neck = nn.Sequential(
            *[BasicBlock(channels, channels) for _ in range(bev.neck_blocks)]
        )
        self.dense = DenseHead(bev)
        self.class_embedding = nn.Embedding(len(CLASSES), channels)
        self.position = nn.Sequential(
            nn.Linear(32, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        self.appearance = nn.Linear(3 * channels, channels)
        self.look = None
        if fine_channels:
            self.look = nn.Sequential(
                nn.Linear(_FINE_POINTS * fine_channels, channels),
                nn.ReLU(),
                nn.Linear(channels, channels),
            )
        self.layers = nn.ModuleList(DecoderLayer(channels, config) for _ in range(config.layers))
        one_peak = torch.tensor([name in _ONE_PEAK for name in CLASSES]).view(1, -1, 1, 1)
        self.register_buffer('one_peak', one_peak, persistent=False)
        self.register_buffer(
            'step', torch.tensor([bev.cell_m, bev.cell_m] + [1.0] * 8), persistent=False
        )

    def forward(self, bev, read_image, read_fine=None):
        """bev (B, C, Y, X); read_image(points (B, Q, Z, 3)) -> image features (B, Q, Z, C).

        read_fine: the same of finer features, of which an object's look is told too.
        """
        bev = self.neck(bev)
        heat, dense = self.dense(bev)
        with torch.autocast(bev.device.type, enabled=False):
            return self._refine(bev.float(), heat, dense, read_image, read_fine)

    def select(self, heat):
        """Cells, classes and logits (B, Q) of the highest peaks of heat (B, K, Y, X)."""
        highest = heat >= functional.max_pool2d(heat, 3, 1, 1)
        beside = torch.where(self.one_peak, -1e4, heat + _NOT_A_PEAK_LOGIT)
        heat = torch.where(highest, heat, beside)
        logits, best = heat.flatten(1).topk(self.queries, dim=1)
        cells = heat.shape[-1] * heat.shape[-2]
        return best % cells, best // cells, logits.clamp(min=_OTHER_CLASS_LOGIT)

    def _refine(self, bev, heat, dense, read_image, read_fine):
        cell, label, logits = self.select(heat.detach())
        take = _taker(cell)
        own = functional.one_hot(label, len(CLASSES)).bool()
        logits_start = torch.where(own, logits.unsqueeze(-1), _OTHER_CLASS_LOGIT)
        code = take(dense).detach()  # (B, Q, 10)
        seen = self.appearance(read_image(_probe_points(code)).flatten(2))
        query = take(bev) + self.class_embedding(label) + seen  # (B, Q, C)
        layer_logits, layer_codes = [], []
        for layer in self.layers:
            position = self.position(fourier(code[..., :2] / self.bev.half_extent_m, 8))
            reference = metres_to_cells(code[..., :2], self.bev)
            query = layer(query, position, reference, bev)
            code = code + layer.box(query) * self.step
            layer_codes.append(code)
            layer_logits.append(logits_start + layer.score(query))
            code = code.detach()
        appearance = self.appearance(read_image(_probe_points(code)).flatten(2))
        if self.look is not None:
            appearance = appearance + self.look(read_fine(_face_points(code)).flatten(2))
        return DecoderOutputs(
            heat, dense, torch.stack(layer_logits), torch.stack(layer_codes), query, appearance
        )


def _taker(cell):
    """A function that reads a map (B, D, Y, X) at cells (B, Q) -> (B, Q, D)."""

    def take(grid):
        flat = grid.flatten(2)
        index = cell.unsqueeze(1).expand(-1, flat.shape[1], -1)
        return flat.gather(2, index).transpose(1, 2)

    return take


def _face_points(code):
    """A grid of points (B, Q, 9, 3) over the face that an object shows: a quarter of its apparent
    width aside, a quarter of its height up and down."""
    centre, size = code[..., :3], code[..., 3:6].clamp(-4.0, 4.0).exp()
    ahead = centre[..., :2] / (centre[..., :2].norm(dim=-1, keepdim=True) + 1e-3)
    aside = torch.stack([-ahead[..., 1], ahead[..., 0]], dim=-1)
    heading = code[..., [7, 6]]  # cos, sin
    heading = heading / (heading.norm(dim=-1, keepdim=True) + 1e-3)
    across = (heading * aside).sum(-1).abs()  # of the length that is seen from the side
    along = (heading * ahead).sum(-1).abs()
    quarter = (size[..., 0] * across + size[..., 1] * along).unsqueeze(-1) / 4.0
    sideways = torch.cat([aside * quarter, torch.zeros_like(quarter)], dim=-1)
    upwards = torch.cat([torch.zeros_like(aside), size[..., 2:3] / 4.0], dim=-1)
    return torch.stack(
        [centre + i * sideways + j * upwards for j in (1.0, 0.0, -1.0) for i in (-1.0, 0.0, 1.0)],
        dim=2,
    )


def _probe_points(code):
    """Where the image shows an object (B, Q, 3, 3): its centre, and a quarter up and down."""
    quarter = code[..., 5:6].clamp(-4.0, 4.0).exp() / 4.0
    up = torch.cat([torch.zeros_like(code[..., :2]), quarter], dim=-1)
    return torch.stack([code[..., :3], code[..., :3] + up, code[..., :3] - up], dim=2)
