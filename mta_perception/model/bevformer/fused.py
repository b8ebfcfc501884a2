"""Deformable attention on a CPU as one loop, forwards and backwards, with nothing stored between.

Forwards threads take neighbouring queries, which read neighbouring places.  Backwards they take
heads, so that no two of them add to the same gradient of a map.
"""

from numba import njit, prange
import numpy as np
import torch
from torch.autograd.function import once_differentiable

# Not all of fast maths: a NaN must stay one.
_LOOPS = {
    'parallel': True,
    'nogil': True,
    'cache': True,
    'error_model': 'numpy',
    'fastmath': {'reassoc', 'contract', 'arcp', 'nsz'},
}

_PARTS = 64  # of the queries; enough for threads that are not equally fast


def can_be_fused(x):
    """Whether `sampled` can do it here and now: on a CPU, and nobody traces a graph."""
    return x.device.type == 'cpu' and not torch.compiler.is_compiling()


def sampled(value, pairs, x, y, weights, levels):
    """As attention.deformable; all but maps and queries of one dtype, float32 or float64."""
    return _Sampled.apply(levels.sizes, *pairs, x, y, weights, *value)


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sizes, *tensors):
        ctx.sizes = sizes
        ctx.save_for_backward(*tensors)
        *pairs, x, y, weights = tensors[:7]
        value = tensors[7:]
        total = value[0].new_zeros(len(x), *value[0].shape[2:])
        for level, (size, part) in enumerate(zip(sizes, value)):
            _add_samples(
                _lanes(part), *_numpy(part, *pairs, x, y, weights), level, *size, total.numpy()
            )
        return total.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        maps, queries, shares, cells, x, y, weights, *value = ctx.saved_tensors
        gradient = gradient.contiguous().view(len(x), *value[0].shape[2:])
        of_x, of_y, of_weights = (x.new_zeros(x.shape) for _ in range(3))
        # Head by head, because heads are what the threads share out.
        of_cells = cells.new_zeros(x.shape[1], *cells.shape)
        of_value = [part.new_zeros(part.shape) for part in value]
        one = np.ones((), _numpy(x)[0].dtype)[()]
        for level, (size, part, of_part) in enumerate(zip(ctx.sizes, value, of_value)):
            _add_gradients(
                _lanes(part),
                *_numpy(gradient, part, maps, queries, shares, cells, x, y, weights),
                level,
                *size,
                one,
                *_numpy(of_part, of_cells, of_x, of_y, of_weights),
            )
        return None, None, None, None, of_cells.sum(0), of_x, of_y, of_weights, *of_value


def _lanes(value):
    """As many zeros as a head has channels: a tuple's length is part of its type, so the loop over
    channels is compiled for it, twice as fast as for any length."""
    return (0,) * value.shape[3]


def _numpy(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


@njit(**_LOOPS)
def _add_samples(
    lanes, value, maps, queries, shares, cells, x, y, weights, level, height, width, total
):
    count = len(maps)
    parts = min(_PARTS, count)
    for part in prange(parts):
        first, end = count * part // parts, count * (part + 1) // parts
        # Pairs of one query stay with whoever has the first of them.
        while 0 < first < count and queries[first] == queries[first - 1]:
            first += 1
        while end < count and queries[end] == queries[end - 1]:
            end += 1
        for step in range((end - first) * x.shape[1]):
            pair, head = first + step // x.shape[1], step % x.shape[1]
            image, query = maps[pair], queries[pair]
            for place in range(x.shape[3]):
                spot = place % cells.shape[2]
                at_x = cells[pair, level, spot, 0] + x[query, head, level, place]
                at_y = cells[pair, level, spot, 1] + y[query, head, level, place]
                left, top = np.floor(at_x), np.floor(at_y)
                u, v = int(left), int(top)
                if u < -1 or v < -1 or u >= width or v >= height:
                    continue
                weight = shares[pair] * weights[query, head, level, place]
                right, low = at_x - left, at_y - top
                lower = low * weight
                upper = weight - lower
                share_01, share_11 = right * upper, right * lower
                share_00, share_10 = upper - share_01, lower - share_11
                # Cells beyond the edge: nothing of the one that stands in for them.
                nothing = weight - weight
                u_next, v_next = u + 1, v + 1
                if u < 0:
                    u, share_00, share_10 = 0, nothing, nothing
                if u_next >= width:
                    u_next, share_01, share_11 = u, nothing, nothing
                if v < 0:
                    v, share_00, share_01 = 0, nothing, nothing
                if v_next >= height:
                    v_next, share_10, share_11 = v, nothing, nothing
                row, row_next = v * width, v_next * width
                for k in range(len(lanes)):
                    total[query, head, k] += (
                        share_00 * value[image, row + u, head, k]
                        + share_01 * value[image, row + u_next, head, k]
                        + share_10 * value[image, row_next + u, head, k]
                        + share_11 * value[image, row_next + u_next, head, k]
                    )


@njit(**_LOOPS)
def _add_gradients(
    lanes,
    gradient,
    value,
    maps,
    queries,
    shares,
    cells,
    x,
    y,
    weights,
    level,
    height,
    width,
    one,
    of_value,
    of_cells,
    of_x,
    of_y,
    of_weights,
):
    for head in prange(x.shape[1]):
        for pair in range(len(maps)):
            image, query = maps[pair], queries[pair]
            for place in range(x.shape[3]):
                spot = place % cells.shape[2]
                at_x = cells[pair, level, spot, 0] + x[query, head, level, place]
                at_y = cells[pair, level, spot, 1] + y[query, head, level, place]
                left, top = np.floor(at_x), np.floor(at_y)
                u, v = int(left), int(top)
                if u < -1 or v < -1 or u >= width or v >= height:
                    continue
                weight = shares[pair] * weights[query, head, level, place]
                nothing = weight - weight
                # Per side: is there a cell, and its share.
                there_0 = one if u >= 0 else nothing
                there_1 = one if u + 1 < width else nothing
                down_0 = one if v >= 0 else nothing
                down_1 = one if v + 1 < height else nothing
                side_1, low_1 = (at_x - left) * there_1, (at_y - top) * down_1
                side_0, low_0 = (left - at_x + one) * there_0, (top - at_y + one) * down_0
                u, u_next = max(u, 0), min(u + 1, width - 1)
                v, v_next = max(v, 0), min(v + 1, height - 1)
                row, row_next = v * width, v_next * width
                share_00, share_01 = weight * low_0 * side_0, weight * low_0 * side_1
                share_10, share_11 = weight * low_1 * side_0, weight * low_1 * side_1
                pull_00, pull_01, pull_10, pull_11 = nothing, nothing, nothing, nothing
                for k in range(len(lanes)):
                    pull = gradient[query, head, k]
                    pull_00 += pull * value[image, row + u, head, k]
                    pull_01 += pull * value[image, row + u_next, head, k]
                    pull_10 += pull * value[image, row_next + u, head, k]
                    pull_11 += pull * value[image, row_next + u_next, head, k]
                    of_value[image, row + u, head, k] += share_00 * pull
                    of_value[image, row + u_next, head, k] += share_01 * pull
                    of_value[image, row_next + u, head, k] += share_10 * pull
                    of_value[image, row_next + u_next, head, k] += share_11 * pull
                of_weights[query, head, level, place] += shares[pair] * (
                    low_0 * (side_0 * pull_00 + side_1 * pull_01)
                    + low_1 * (side_0 * pull_10 + side_1 * pull_11)
                )
                pull_x = weight * (
                    low_0 * (there_1 * pull_01 - there_0 * pull_00)
                    + low_1 * (there_1 * pull_11 - there_0 * pull_10)
                )
                pull_y = weight * (
                    side_0 * (down_1 * pull_10 - down_0 * pull_00)
                    + side_1 * (down_1 * pull_11 - down_0 * pull_01)
                )
                of_x[query, head, level, place] += pull_x
                of_y[query, head, level, place] += pull_y
                of_cells[head, pair, level, spot, 0] += pull_x
                of_cells[head, pair, level, spot, 1] += pull_y
