"""Captioner: one object becomes a few soft words that a language model can be steered with.

in   object_features  (N, F)        from the detector
     boxes            (N, 10)       contract.BoxCode, ego frame
     class_logits     (N, K)
     bev              (C, Y, X)     the frame's BEV
out  prefix           (N, P, D)     P tokens as wide as the language model

An object reads the BEV in one of three ways (`qformer.bev`):

around   at n x n points around itself; what a small model learns fastest, and nano's default
shared   as tokens of the whole BEV, made once a frame: d_i = Q_i([d_{i-1}, F_BEV]) of MTA
         (arXiv 2411.10639) as cross-attention, so that the BEV is encoded once for all objects
joint    the same tokens beside the object's own in one self-attention, for each object anew, as
         TOD3Cap's released code (transformer blocks over [object, BEV])

What its own token is made of (`qformer.told`), d_0 of the paper:

query      the detector's features of the object alone
detection  these, its class logits and its box as the network says them: what MTA's Phi_cls and
           Phi_box read, and no more
all        these, class scores and Fourier features of polar coordinates: from raw metres a small
           model learns neither distance nor sector (docs/training.md); nano's default

With `prefix_object` that token, which BLA aligns, is the first of the prefix; otherwise only the
learned tokens, which read it, are.
"""

import torch
from torch import nn
from torch.nn import functional

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.model.deformable import sample_map
from mta_perception.model.grid import fourier, metres_to_cells

GEOMETRY_WIDTH = 59
_TOLD_WIDTH = {
    'query': 0,
    'detection': len(CLASSES) + BoxCode.WIDTH,
    'all': len(CLASSES) + GEOMETRY_WIDTH,
}
# Class logits start at -4.6 (focal loss's prior of 0.01).  As they are, that constant rules what
# is projected.
LOGIT_CENTRE, LOGIT_SPREAD = -4.6, 2.0
# Metres and m/s that become about one.  Sizes are logarithms already, headings a unit vector.
CODE_SCALE = (51.2, 51.2, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 10.0)


def detection_numbers(boxes, class_logits):
    """Boxes (N, 10) and logits (N, K) as MTA's Phi reads them, of order one -> (N, K + 10)."""
    sizes = boxes[..., 3:6].clamp(min=0.02).log()
    codes = torch.cat([boxes[..., :3], sizes, boxes[..., 6:]], dim=-1)
    scores = (class_logits - LOGIT_CENTRE) / LOGIT_SPREAD
    return torch.cat([scores, codes / codes.new_tensor(CODE_SCALE)], dim=-1)


def geometry_features(boxes):
    """What words about place, size and motion are made of: (N, 10) boxes -> (N, 59)."""
    x, y, z = boxes[..., 0], boxes[..., 1], boxes[..., 2]
    distance = (x.square() + y.square() + 1e-6).sqrt()
    azimuth = torch.stack([x, y], dim=-1) / distance.unsqueeze(-1)  # cos, sin
    multiples = [azimuth]
    for _ in range(2):  # 2 and 4 x the angle
        c, s = multiples[-1].unbind(-1)
        multiples.append(torch.stack([c * c - s * s, 2.0 * s * c], dim=-1))
    speed = (boxes[..., 8:10].square().sum(-1) + 1e-6).sqrt()
    return torch.cat(
        [
            fourier((distance / 64.0).unsqueeze(-1), 6),
            fourier((distance / 8.0).unsqueeze(-1), 2),
            fourier((distance.clamp(min=0.5).log() / 4.0).unsqueeze(-1), 6),
            torch.cat(multiples, dim=-1),
            z.unsqueeze(-1),
            z.unsqueeze(-1).abs(),
            boxes[..., 3:6].clamp(min=0.02).log(),
            boxes[..., 3:6] / 5.0,
            fourier((speed / 16.0).clamp(max=1.0).unsqueeze(-1), 4),
            speed.unsqueeze(-1) / 5.0,
            boxes[..., 8:10] / 5.0,
            (speed + 0.1).log().unsqueeze(-1),
            (boxes[..., 6:8]),
            distance.unsqueeze(-1) / 50.0,
            x.unsqueeze(-1) / 50.0,
            y.unsqueeze(-1) / 50.0,
        ],
        dim=-1,
    )


class QFormerBlock(nn.Module):
    """Self-attention over an object's tokens, cross-attention to what it reads, MLP.

    Without `cross` the tokens are expected to hold what is read.
    """

    def __init__(self, width, heads, cross=True):
        super().__init__()
        self.heads = heads
        self.self_qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        if cross:
            self.cross_q = nn.Linear(width, width)
            self.cross_kv = nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if cross else 2))

    def forward(self, tokens, read=None):
        """tokens (N, T, D), read (N or 1, S, D) -> (N, T, D)."""
        q, k, v = self.self_qkv(self.norms[0](tokens)).chunk(3, dim=-1)
        tokens = tokens + self.self_out(self._attend(q, k, v))
        if read is not None:
            k, v = self.cross_kv(read).chunk(2, dim=-1)
            k, v = (x.expand(tokens.shape[0], -1, -1) for x in (k, v))
            q = self.cross_q(self.norms[1](tokens))
            tokens = tokens + self.cross_out(self._attend(q, k, v))
        return tokens + self.mlp(self.norms[-1](tokens))

    def _attend(self, q, k, v):
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class QFormer(nn.Module):
    """An object's token and learned ones; `prefix_tokens` of them, its own or not, are the prefix.

    Token 0 is the object's.
    """

    def __init__(self, config, object_feature_width):
        super().__init__()
        sizes, self.bev, self.reads = config.qformer, config.bev, config.qformer.bev
        width = sizes.width
        self.told, self.first = sizes.told, 0 if sizes.prefix_object else 1
        self.object = nn.Sequential(
            nn.Linear(object_feature_width + _TOLD_WIDTH[self.told], 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        learned = sizes.prefix_tokens - sizes.prefix_object
        self.tokens = nn.Parameter(torch.randn(learned, width) * 0.1)
        self.surroundings = nn.Linear(config.bev.channels, width)
        if self.reads == 'around':
            count = sizes.neighbourhood**2
        else:
            # TOD3Cap's convolution of kernel 1 and stride 5 reads every 25th cell and no other;
            # ours reads all of them.
            self.pool = nn.Conv2d(
                config.bev.channels, config.bev.channels, sizes.bev_stride, sizes.bev_stride
            )
            count = (config.bev.cells // sizes.bev_stride) ** 2
        self.place = nn.Parameter(torch.randn(count, width) * 0.1)
        self.blocks = nn.ModuleList(
            QFormerBlock(width, sizes.heads, cross=self.reads != 'joint')
            for _ in range(sizes.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.prefix = nn.Linear(width, config.language.hidden_size)
        steps = torch.arange(sizes.neighbourhood) - (sizes.neighbourhood - 1) / 2
        line = steps * sizes.spacing_m
        grid = torch.stack(torch.meshgrid(line, line, indexing='ij'), dim=-1).flatten(0, 1)
        self.register_buffer('grid', grid, persistent=False)

    def forward(self, object_features, boxes, class_logits, bev):
        """(N, F), (N, 10), (N, K), (C, Y, X) -> prefix (N, P, D)."""
        return self.prefix_of(self.states(object_features, boxes, class_logits, bev))

    def prefix_of(self, states):
        """The answer of `states` or `states_from` as a prefix (N, P, D)."""
        return self.prefix(self.norm(states[-1][:, self.first :]))

    def states(self, object_features, boxes, class_logits, bev):
        """Tokens (N, 1 + P, width) after each block, object token first."""
        return self.states_from(object_features, boxes, class_logits, self.read_bev(boxes, bev))

    def read_bev(self, boxes, bev):
        """What the boxes (N, 10) read of the BEV (C, Y, X): (N, S, C), or (1, S, C) for all."""
        if self.reads != 'around':
            return self.pool(bev[None]).flatten(2).transpose(1, 2)
        around = boxes[:, None, :2] + self.grid  # (N, S, 2) metres
        samples = sample_map(bev[None], metres_to_cells(around, self.bev)[None])[0]
        return samples.permute(1, 2, 0)

    def _known(self, object_features, boxes, class_logits):
        """What the object's token is made of (N, ...)."""
        if self.told == 'query':
            return object_features
        if self.told == 'detection':
            return torch.cat([object_features, detection_numbers(boxes, class_logits)], -1)
        return torch.cat([object_features, class_logits.sigmoid(), geometry_features(boxes)], -1)

    def states_from(self, object_features, boxes, class_logits, samples):
        """As `states`, with what `read_bev` gave (N or 1, S, C)."""
        known = self._known(object_features, boxes, class_logits)
        first = self.object(known).unsqueeze(1)  # (N, 1, D)
        tokens = first + torch.cat([torch.zeros_like(self.tokens[:1]), self.tokens])[None]
        own = tokens.shape[1]
        read = self.surroundings(samples) + self.place
        if self.reads == 'joint':
            tokens = torch.cat([tokens, read.expand(tokens.shape[0], -1, -1)], dim=1)
            read = None
        states = []
        for block in self.blocks:
            tokens = block(tokens, read)
            states.append(tokens[:, :own])
        return states
