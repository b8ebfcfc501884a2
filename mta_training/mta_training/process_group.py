"""What the processes of one training tell each other, in ways that keep gradients right.

Every process works on its own frames; a loss over all of them is a sum divided by a count over
all.  accelerate's DistributedDataParallel *averages* gradients over processes, so a process
divides its own sum by the *mean* count of a process: the average is then the gradient of the
whole.
"""

from contextlib import closing
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class ProcessGroup:
    """This process among those that train together; alone, everything is its own."""

    def __init__(self, device='cpu'):
        self.device = device
        ready = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)

    @classmethod
    def alone(cls):
        """This process by itself, whatever others there are."""
        one = cls()
        one.rank, one.size = 0, 1
        return one

    def divisors(self, counts):
        """What this process divides its own sums by, for counts of all: their mean over the
        processes, as if at least one thing had been counted by all together.
        """
        return (self._totals(counts).clamp(min=1.0) / self.size).tolist()

    def mean(self, number):
        """Mean of a number over the processes."""
        return float(self._totals([number])[0] / self.size)

    def _totals(self, numbers):
        totals = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        if self.size > 1:
            totals = totals.to(self.device)  # NCCL wants it on the GPU
            dist.all_reduce(totals)
        return totals

    def gather(self, value):
        """The picklable values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, value):
        """Process 0's value of a picklable object; also a place where all wait."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def gather_rows(rows, processes):
    """Rows (R, ...) of all processes, one below the other; gradients find their way back.

    Every process is expected to compute the same loss from the result: the gradient that a row
    gets is the sum of what all processes have for it, and the averaging of the parameters'
    gradients afterwards makes that one loss again.
    """
    if processes.size == 1:
        return rows
    counts = processes.gather(len(rows))
    return _GatherRows.apply(rows, processes, tuple(counts))


class _GatherRows(torch.autograd.Function):
    """all_gather of parts of unequal length, with a gradient on every backend."""

    @staticmethod
    def forward(context, rows, processes, counts):
        context.processes, context.counts = processes, counts
        longest = max(counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:count] for part, count in zip(parts, counts)])

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        start = sum(context.counts[: context.processes.rank])
        return gradient[start : start + context.counts[context.processes.rank]], None, None


def run_processes(size, work, *arguments):
    """Call work(*arguments) in `size` processes of this machine and wait for all.

    An error in one ends them. They find each other as under `accelerate launch`, by environment
    variables.
    """
    if size == 1:
        work(*arguments)
        return
    with closing(socket.socket()) as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(_member, (size, port, work, arguments), nprocs=size)


def _member(rank, size, port, work, arguments):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # else accelerate warns; see train.run
    try:
        work(*arguments)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
