"""Data-parallel training with one process a core.

On a machine with other work, threads of one process wait for each other at every layer; processes
meet once a step.  Each has its own stream of scenes; gradients are averaged; process 0 keeps the
files.
"""

from contextlib import closing
from datetime import timedelta
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class Team:
    """This process and the others; alone (`size` 1) every method returns what it was given."""

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    def average_gradients(self, parameters):
        """Replace every gradient by its mean over the team."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        flat = torch.cat([torch.zeros(parameter.numel()) if parameter.grad is None
                          else parameter.grad.flatten() for parameter in parameters])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for parameter in parameters:
            part = flat[start:start + parameter.numel()]
            parameter.grad = part.view_as(parameter)
            start += parameter.numel()

    def first(self, value):
        """Process 0's value of a picklable object."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value):
        """The values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def run_team(size, work, *arguments):
    """Call work(team, *arguments) in `size` processes and wait; an error in one ends all."""
    if size == 1:
        work(Team(), *arguments)
        return
    with closing(socket.socket()) as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(_member, (size, port, work, arguments), nprocs=size)


def _member(rank, size, port, work, arguments):
    # Process 0 alone evaluates and saves; the others wait for it in the next exchange.
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank,
                            world_size=size, timeout=timedelta(minutes=30))
    try:
        work(Team(rank, size), *arguments)
    finally:
        dist.destroy_process_group()
