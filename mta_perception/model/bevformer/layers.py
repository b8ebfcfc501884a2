"""Linear layers and dropout as a CPU has them fastest; elsewhere, and in graphs, the library's.

The library gives a float32 product to MKL with the weights as they lie; oneDNN's, which
torch.compile takes for inference, is faster with weights in its own order, and has bias and ReLU
in it.  (With gradients it is no faster.)  And the library draws the numbers of dropout one after
the other on one core.  The slow copies of reference.py have the library's.
"""

from numba import njit, prange
import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Not public names: a torch without them does with the library's product.
_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ('_linear_pointwise', '_reorder_linear_weight')
)


class Kept(nn.Module):
    """What was computed of tensors, until one of them changes or training begins.

    Not copied with its owner.  A change that torch does not count (through `.data`) is not
    noticed before gradients are on again.
    """

    def __init__(self):
        super().__init__()
        self._drop()

    def _drop(self):
        self.kept = [], [], None

    def train(self, mode=True):
        """As nn.Module's."""
        self._drop()
        return super().train(mode)

    def may(self, tensors):
        """Whether what these decide may be kept: float32 on a CPU, no gradients, graphs,
        autocast."""
        if torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled():
            # A step of an optimiser may follow, and fused ones do not count as a change.
            self._drop()
            return False
        return not torch.is_autocast_enabled('cpu') and all(
            tensor.device.type == 'cpu'
            and tensor.dtype == torch.float32
            and not tensor.is_inference()
            for tensor in tensors
        )

    def get(self, tensors, compute):
        """compute(), or what it gave when the tensors were the same."""
        states = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        before, states_before, value = self.kept
        same = states == states_before and all(new is old for new, old in zip(tensors, before))
        if not same:
            value = compute()
            self.kept = tensors, states, value
        return value

    def __deepcopy__(self, memo):
        return Kept().train(self.training)

    def __reduce__(self):
        return Kept, ()


def multiply(x, tensors, join, kept, relu=False):
    """x (..., in) times the weight (out, in) plus the bias that join() makes of the tensors.

    For inference both are made once and kept, in the order in which oneDNN takes them.
    """

    def ordered():
        weight, bias = join()
        rows = x.numel() // x.shape[-1]
        return (
            torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows),
            None if bias is None else bias.detach(),
        )

    if _ONEDNN and kept.may(tensors) and x.dtype == torch.float32:
        weight, bias = kept.get(tensors, ordered)
        if x.shape[-1] == weight.shape[1]:
            return torch.ops.mkldnn._linear_pointwise(
                x, weight, bias, 'relu' if relu else 'none', [], ''
            )
    out = functional.linear(x, *join())
    return functional.relu_(out) if relu else out


class Linear(nn.Linear):
    """nn.Linear, with ReLU after it where wanted."""

    def __init__(self, in_channels, out_channels, relu=False):
        super().__init__(in_channels, out_channels)
        self.relu, self.kept = relu, Kept()

    def forward(self, x):
        """(..., in) -> (..., out)."""
        tensors = [self.weight, self.bias]
        return multiply(x, tensors, lambda: tensors, self.kept, self.relu)


class Dropout(nn.Dropout):
    """nn.Dropout whose numbers, for float32, are hashes of places: drawn by all cores, none kept.

    The seed of each call is torch's.
    """

    def forward(self, x):
        """Any shape -> the same."""
        if not self.training or not self.p:
            return x
        if (
            x.device.type != 'cpu'
            or x.dtype != torch.float32
            or self.p == 1.0
            or torch.compiler.is_compiling()
        ):
            return super().forward(x)
        return _Dropped.apply(x, self.p)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, share):
        ctx.share, ctx.seed = share, int(torch.randint(2**32, ()))
        return _dropped(x, ctx.share, ctx.seed)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return _dropped(gradient, ctx.share, ctx.seed), None


def _dropped(x, share, seed):
    x = x.contiguous()
    out = torch.empty_like(x)
    _drop(
        x.detach().view(-1).numpy(),
        out.view(-1).numpy(),
        np.uint32(seed),
        np.uint32(min(2**32 - 1, share * 2**32)),
        np.float32(1.0 / (1.0 - share)),
    )
    return out


@njit(parallel=True, nogil=True, cache=True)
def _drop(x, out, seed, limit, scale):
    word = np.uint32
    for i in prange(x.size):
        # The finaliser of MurmurHash3 (public domain); each step back to 32 bits.
        h = word(word(word(i) * word(0x9E3779B1)) ^ seed)
        h = word(word(h ^ (h >> word(16))) * word(0x85EBCA6B))
        h = word(word(h ^ (h >> word(13))) * word(0xC2B2AE35))
        h = word(h ^ (h >> word(16)))
        out[i] = x[i] * scale if h >= limit else x[i] * np.float32(0.0)
