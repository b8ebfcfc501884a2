"""ResNet and feature pyramid: six images in, one or several maps of `channels` out.

Module names are those of torchvision's ResNet, so that its weights and the published BEVFormer
weights fit by name.  `DeformableConv` is DCNv2 (Zhu et al., CVPR 2019) written with grid_sample.
"""

import torch
from torch import nn
from torch.nn import functional


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm that never changes: stored statistics also in training."""

    def __init__(self, channels):
        super().__init__(channels)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)

    def train(self, mode=True):
        """Stays in evaluation mode."""
        del mode
        return super().train(False)


class DeformableConv(nn.Module):
    """3x3 convolution, stride 1, whose nine taps move and fade as the input says (DCNv2)."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity='relu')
        self.conv_offset = nn.Conv2d(channels, 27, 3, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x):
        """(N, C, h, w) -> (N, C_out, h, w)."""
        out = self.conv_offset(x).float()
        offset = out[:, :18].unflatten(1, (9, 2))  # y, x of each tap
        fade = out[:, 18:].sigmoid()
        height, width = x.shape[-2:]
        rows = torch.arange(height, device=x.device, dtype=offset.dtype).view(-1, 1)
        columns = torch.arange(width, device=x.device, dtype=offset.dtype).view(1, -1)
        total = 0.0
        for tap in range(9):
            y = rows + (tap // 3 - 1) + offset[:, tap, 0]
            x_at = columns + (tap % 3 - 1) + offset[:, tap, 1]
            grid = torch.stack([(2 * x_at + 1) / width - 1, (2 * y + 1) / height - 1], -1)
            seen = functional.grid_sample(x.float(), grid, align_corners=False)
            kernel = self.weight[:, :, tap // 3, tap % 3, None, None]
            total = total + functional.conv2d((seen * fade[:, tap : tap + 1]).to(x.dtype), kernel)
        return total


class Block(nn.Module):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) residual block."""

    def __init__(self, in_channels, width, stride, config, deformable):
        super().__init__()
        norm = FrozenNorm if config.frozen_norm else nn.BatchNorm2d
        out_channels = width * (4 if config.bottleneck else 1)
        first, second = (stride, 1) if config.stride_in_first else (1, stride)
        if config.bottleneck:
            self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
            self.conv2 = (
                DeformableConv(width, width)
                if deformable
                else nn.Conv2d(width, width, 3, second, 1, bias=False)
            )
            self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
            self.bn3 = norm(out_channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = norm(width), norm(width)
        self.bottleneck, self.downsample = config.bottleneck, None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels)
            )
        if not config.frozen_norm:  # starts as the identity (Goyal et al. 2017)
            nn.init.zeros_((self.bn3 if config.bottleneck else self.bn2).weight)

    def forward(self, x):
        """(N, C_in, h, w) -> (N, C_out, h / stride, w / stride)."""
        out = functional.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.bottleneck:
            out = self.bn3(self.conv3(functional.relu_(out)))
        return functional.relu_(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The four stages; returns the outputs of `config.out_stages`."""

    def __init__(self, config):
        super().__init__()
        self.out_stages = config.out_stages
        norm = FrozenNorm if config.frozen_norm else nn.BatchNorm2d
        self.conv1 = nn.Conv2d(3, config.width, 7, 2, 3, bias=False)
        self.bn1 = norm(config.width)
        in_channels = config.width
        for stage, count in enumerate(config.blocks):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(
                    Block(
                        in_channels,
                        config.width * 2**stage,
                        stride,
                        config,
                        config.deformable_stages[stage],
                    )
                )
                in_channels = config.channels[stage]
            setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))

    def forward(self, images):
        """(N, 3, H, W) -> list of (N, C, H / stride, W / stride)."""
        x = functional.max_pool2d(functional.relu_(self.bn1(self.conv1(images))), 3, 2, 1)
        outputs = []
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            x = layer(x)
            if stage in self.out_stages:
                outputs.append(x)
        return outputs


class FeaturePyramid(nn.Module):
    """Top-down pyramid (Lin et al., CVPR 2017); levels beyond the inputs halve the coarsest."""

    def __init__(self, in_channels, channels, levels):
        super().__init__()
        inputs = min(len(in_channels), levels)
        self.levels = levels
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.output = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(inputs)]
            + [nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(levels - inputs)]
        )

    def forward(self, features):
        """List of (N, C_i, h_i, w_i), finest first -> `levels` of (N, C, h_i, w_i)."""
        merged = [layer(feature) for layer, feature in zip(self.lateral, features)]
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + functional.interpolate(
                merged[level], size=merged[level - 1].shape[-2:], mode='nearest'
            )
        outputs = []
        for level, layer in enumerate(self.output):
            outputs.append(layer(merged[level] if level < len(merged) else outputs[-1]))
        return outputs
