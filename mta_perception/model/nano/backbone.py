"""Image features that start at random: a ResNet of basic blocks.

in   images  (N, H, W, 3) uint8 RGB
out  levels  four maps (N, C_i, H / s, W / s), s = 4, 8, 16, 32
Normalised inside (ImageNet mean and deviation), so that bytes can enter the exported graph.
"""

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.camera_image import RGB_MEAN, RGB_STD


def _conv_bn(in_channels, out_channels, kernel, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = _conv_bn(in_channels, out_channels, 3, stride)
        self.conv2 = _conv_bn(out_channels, out_channels, 3)
        # A block that starts as the identity trains faster from scratch (Goyal et al. 2017).
        nn.init.zeros_(self.conv2[1].weight)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, x):
        """(N, C_in, h, w) -> (N, C_out, h / stride, w / stride)."""
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + self.shortcut(x))


class SmallResNet(nn.Module):
    """Four stages of basic blocks; each doubles the channels of the one before."""

    def __init__(self, config):
        super().__init__()
        self.widths = [config.width * 2**stage for stage in range(4)]
        self.stem = _conv_bn(3, self.widths[0], 7, stride=2)
        stages, in_channels = [], self.widths[0]
        for stage, (width, blocks) in enumerate(zip(self.widths, config.blocks)):
            stride = 1 if stage == 0 else 2
            stages.append(
                nn.Sequential(
                    *[
                        BasicBlock(
                            in_channels if i == 0 else width, width, stride if i == 0 else 1
                        )
                        for i in range(blocks)
                    ]
                )
            )
            in_channels = width
        self.stages = nn.ModuleList(stages)
        self.register_buffer('mean', torch.tensor(RGB_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(RGB_STD).view(3, 1, 1), persistent=False)

    def forward(self, images):
        """(N, H, W, 3) uint8 RGB -> the maps at strides 4, 8, 16 and 32."""
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2, 1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels
