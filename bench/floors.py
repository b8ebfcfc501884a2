"""What this machine can do at best, measured in the run itself: products and copies.

A floor is the larger of two times: the operations of the work at the speed of a large product in
float32 (numpy's BLAS, all cores), and its bytes at the speed of a large copy.  Nothing that runs
in float32 is faster; 8-bit products may be, on a CPU with VNNI.
"""

from functools import cache
import time
from typing import NamedTuple

import numpy as np
from report import Row, quick, report

SIDE = 1536  # of the product's matrices
COPIED_MB = 256  # larger than any cache


class Peaks(NamedTuple):
    """Of this machine, all cores."""

    flops: float  # a second, float32
    bytes_s: float  # read and written, a second


def samples():
    """([FLOP/s], [bytes/s]) of some tries each."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, SIDE, SIDE)).astype(np.float32)
    out = np.empty_like(a)
    source = np.zeros(COPIED_MB << 18, np.float32)
    target = np.ones_like(source)
    tries = quick(5, 15)
    products = [2 * SIDE**3 / _seconds(lambda: np.matmul(a, b, out=out)) for _ in range(tries)]
    copies = [
        2 * source.nbytes / _seconds(lambda: np.copyto(target, source)) for _ in range(tries)
    ]
    return products, copies


@cache
def peaks():
    """The best of some tries, once a process."""
    products, copies = samples()
    return Peaks(max(products), max(copies))


def floor_ms(flops=0.0, size=0.0, cores=1.0):
    """Least milliseconds of work of so many operations and bytes.

    cores: share of the machine's cores that the work may have
    """
    best = peaks()
    return 1e3 * max(flops / (best.flops * cores), size / best.bytes_s)


def graph_flops(path):
    """Operations of an ONNX graph's convolutions and products, at the shapes that it fixes.

    Other operators (attention's gathers, norms, activations) are not counted: a floor.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        shapes[value.name] = [dim.dim_value for dim in tensor.shape.dim]
    total = 0
    for node in model.graph.node:
        out = shapes.get(node.output[0], [])
        if not all(out):
            continue
        if node.op_type in ('Conv', 'ConvInteger', 'QLinearConv'):
            weight = shapes.get(node.input[3 if node.op_type == 'QLinearConv' else 1], [])
            total += 2 * int(np.prod(out)) * int(np.prod(weight[1:]))
        elif node.op_type in ('MatMul', 'MatMulInteger', 'Gemm'):
            left = shapes.get(node.input[0], [])
            inner = left[0] if _transposed(node) else (left[-1] if left else 0)
            total += 2 * int(np.prod(out)) * inner
    return total


def _transposed(node):
    return any(one.name == 'transA' and one.i for one in node.attribute)


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    products, copies = samples()
    report(
        'Peaks: products',
        [Row(f'{SIDE} x {SIDE} in float32', [value / 1e9 for value in products])],
        unit='GFLOP/s',
    )
    report(
        'Peaks: copies',
        [Row(f'{COPIED_MB} MB, read and written', [value / 1e9 for value in copies])],
        unit='GB/s',
    )


if __name__ == '__main__':
    main()
