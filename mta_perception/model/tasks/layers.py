"""Layers that the task heads share: attention with masks, MLPs, sine positions."""

import math

import torch
from torch import nn

# What is masked gets a weight of exactly zero, and a row that is masked as a whole no NaN.
MASKED = -1e4


def attention_weights(q, k, mask=None):
    """q (N, h, T, d), k (N, h, S, d), mask (N, S) True = may be read -> (N, h, T, S)."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], MASKED)
    return scores.softmax(-1)


def split_heads(x, heads):
    """(N, T, D) -> (N, heads, T, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x):
    """(N, heads, T, d) -> (N, T, heads d)."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention; `inner`: width between the projections (SAM2 halves it)."""

    def __init__(self, width, heads, dropout=0.0, inner=None):
        super().__init__()
        inner = inner or width
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query, key, value, mask=None):
        """query (N, T, D), key and value (N, S, D), mask (N, S) True = read -> (N, T, D)."""
        q, k, v = (
            split_heads(project(x), self.heads)
            for project, x in ((self.q, query), (self.k, key), (self.v, value))
        )
        weights = self.dropout(attention_weights(q, k, mask))
        return self.out(join_heads(weights @ v))


class Feedforward(nn.Module):
    """Linear, activation, dropout, Linear."""

    def __init__(self, width, inner, dropout=0.0, activation=nn.PReLU):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, inner), activation(), nn.Dropout(dropout), nn.Linear(inner, width)
        )

    def forward(self, x):
        """(..., D) -> (..., D)."""
        return self.layers(x)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, norms after the sum, positions on queries and keys."""

    def __init__(self, width, heads, feedforward, dropout):
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.feedforward = Feedforward(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, position, mask):
        """x, position (N, T, D), mask (N, T) True = valid -> (N, T, D)."""
        placed = x + position
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x, mask)))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


def mlp(*widths):
    """Linear layers with ReLU between them."""
    layers = []
    for inside, outside in zip(widths[:-1], widths[1:]):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sine(values, width):
    """Sines and cosines of values (...) in 0..1, wavelengths from 1 to 10,000 -> (..., width)."""
    powers = torch.arange(width // 2, device=values.device) / (width // 2)
    angle = (2.0 * math.pi * values.float()).unsqueeze(-1) * 10000.0**-powers
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def inverse_sigmoid(x, least=1e-3):
    """The logit of x in 0..1, kept finite."""
    x = x.clamp(least, 1.0 - least)
    return (x / (1.0 - x)).log()


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map (N, C, Y, X)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        """(N, C, Y, X) -> the same."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def enlarge(channels, width):
    """Four times as fine: ConvT to width / 4 (norm, GELU), ConvT to width / 8 (GELU)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, width // 4, 2, 2),
        ChannelNorm(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, 2, 2),
        nn.GELU(),
    )
