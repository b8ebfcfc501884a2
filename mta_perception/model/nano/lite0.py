"""Image features that have seen photographs: EfficientNet-Lite0 (Tan & Le 2019; Lite: 2020).

in   images  (N, H, W, 3) uint8 RGB
out  levels  four maps (N, C_i, H / s, W / s), s = 4, 8, 16, 32, C = 24, 40, 112, 320

Layers, order and names of the parameters are ours; the published ImageNet weights fit by position
(`mta_training.runs.photographs`).  As published: TensorFlow's 'same' padding (an odd pixel right
and below), batch norms with epsilon 1e-3, ReLU6, input (x - 127) / 128.
"""

import torch
from torch import nn
from torch.nn import functional

# Kernel, stride, expansion, channels, repeats (EfficientNet-B0 without squeeze and excitation).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LEVELS = (1, 2, 4, 6)  # the last stage at strides 4, 8, 16, 32
_EPSILON = 1e-3


class SameConv(nn.Module):
    """Convolution with TensorFlow's 'same' padding and a batch norm; `active`: then ReLU6."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, groups=1, active=True):
        super().__init__()
        # Of an even size: all of it before for stride 1, one pixel more after for stride 2.
        total = kernel - stride
        before = total // 2
        self.padding = before, total - before, before, total - before
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=_EPSILON)
        self.active = active

    def forward(self, x):
        """(N, C_in, h, w), h and w even -> (N, C_out, h / stride, w / stride)."""
        if any(self.padding):
            x = functional.pad(x, self.padding)
        x = self.norm(self.conv(x))
        return functional.relu6(x) if self.active else x


class InvertedResidual(nn.Module):
    """Widen, look around channel by channel, narrow (MobileNetV2); a shortcut where sizes stay."""

    def __init__(self, in_channels, out_channels, kernel, stride, expansion):
        super().__init__()
        wide = in_channels * expansion
        self.layers = nn.Sequential(
            *([SameConv(in_channels, wide, 1)] if expansion > 1 else []),
            SameConv(wide, wide, kernel, stride, groups=wide),
            SameConv(wide, out_channels, 1, active=False),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x):
        """(N, C_in, h, w) -> (N, C_out, h / stride, w / stride)."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class EfficientNetLite0(nn.Module):
    """All of the published network but its classifier."""

    widths = (24, 40, 112, 320)

    def __init__(self):
        super().__init__()
        self.stem = SameConv(3, 32, 3, stride=2)
        stages, channels = [], 32
        for kernel, stride, expansion, width, repeats in _STAGES:
            blocks = []
            for repeat in range(repeats):
                blocks.append(
                    InvertedResidual(
                        channels, width, kernel, stride if repeat == 0 else 1, expansion
                    )
                )
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, images):
        """(N, H, W, 3) uint8 RGB -> the maps at strides 4, 8, 16 and 32."""
        x = self.stem((images.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        levels = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _LEVELS:
                levels.append(x)
        return levels

    @torch.no_grad()
    def load_published(self, tensors):
        """Take the tensors of the published state dict, in its order; ValueError if they differ.

        tensors: dict name -> tensor; the head that follows the last stage is left out.
        """
        own = self.state_dict()
        theirs = [(name, value) for name, value in tensors.items()][: len(own)]
        for (name, mine), (given, value) in zip(own.items(), theirs):
            if mine.shape != value.shape:
                raise ValueError(
                    f'weights {given} have the shape {tuple(value.shape)}; expected '
                    f'{tuple(mine.shape)} for {name}: is this EfficientNet-Lite0?'
                )
        if len(theirs) < len(own):
            raise ValueError(f'{len(theirs)} tensors; expected {len(own)} of EfficientNet-Lite0.')
        self.load_state_dict({name: value for name, (_, value) in zip(own, theirs)})
