"""Several processes as one: sums, gathered objects and one all-reduce of the gradients. With one process all of it is free."""

from __future__ import annotations

import atexit
import gc
import math
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from accord.errors import MachineError
from accord.models.sharding import is_part, local

T = TypeVar("T")

LET_GO_SECONDS = 0.1
"""Gloo's threads may hold the tensors of the last collective for a moment after it has returned."""


def start() -> None:
    """Join the process group when torchrun or `accelerate launch` (on a CPU with MPI) started several processes.

    Raises:
        MachineError: if several were asked for and this one stands alone: each would train on everything, and write over the others.
    """
    from accelerate import PartialState

    joined = active()
    PartialState(cpu=not torch.accelerator.is_available())
    if active() and not joined:
        atexit.register(leave)
    if not active() and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise MachineError("Several processes were started and could not join: torch has no backend for this device. Start one process.")
    if not active() and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise MachineError(
            "accelerate launch starts one process on a CPU unless it is given MPI and --mpirun_hostfile. "
            "Without MPI, start several with: python -m torch.distributed.run --nproc_per_node 2 -m accord ..."
        )


def leave() -> None:
    """Leave the process group while the interpreter still lives: one of gloo's threads that drops a tensor after its end aborts the
    process (pytorch issue 179291; without this, 1 process in 100 on a busy machine). Called by itself when a process ends."""
    if not active():
        return
    gc.collect()
    dist.destroy_process_group()
    gc.collect()
    time.sleep(LET_GO_SECONDS)  # split weights keep their group alive in torch's caches, and with it the threads


def active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if active() else 0


def world() -> int:
    return dist.get_world_size() if active() else 1


def on_this_machine() -> int:
    """How many of the processes share this machine's memory, as their launcher says; without its word, all of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world())


def is_main() -> bool:
    return rank() == 0


def is_local_main() -> bool:
    """True on one process of each machine."""
    from accelerate import PartialState

    return PartialState().is_local_main_process


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a list that all processes hold."""
    return list(items[rank() :: world()])


def gather(local: list[T]) -> list[T]:
    """The inverse of `share`: the parts of all processes in the original order, on every process."""
    if not active():
        return local
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, local)
    whole: list[T] = []
    for index in range(max((len(part) for part in parts), default=0)):
        whole += [part[index] for part in parts if index < len(part)]
    return whole


def gather_objects(value: T) -> list[T]:
    """One object from each process, on every process."""
    if not active():
        return [value]
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, value)
    return parts


def total(sums: dict[str, float]) -> dict[str, float]:
    """Add up dictionaries of local sums over processes (missing keys are 0)."""
    if not active():
        return sums
    whole: dict[str, float] = {}
    for part in gather_objects(sums):
        for name, value in part.items():
            whole[name] = whole.get(name, 0.0) + value
    return whole


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """One all-reduce of all gradients, flattened. Every loss is a local sum over a global total, so gradients add. Those of parameters
    that are split over processes were added up in backward."""
    if not active():
        return
    parameters = [parameter for parameter in parameters if not is_part(parameter)]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if not parameters:
        return
    flat = torch.cat([parameter.grad.reshape(-1).float() for parameter in parameters if parameter.grad is not None])
    dist.all_reduce(flat)
    offset = 0
    for parameter in parameters:
        assert parameter.grad is not None
        count = parameter.numel()
        parameter.grad.copy_(flat[offset : offset + count].view_as(parameter))
        offset += count


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """L2 norm of all gradients, those split over processes included."""
    norms: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in parameters:
        if parameter.grad is not None:
            norms[is_part(parameter)].append(local(parameter.grad).float().norm())
    mine, parts = (float(torch.stack(found).norm()) if found else 0.0 for found in (norms[False], norms[True]))
    if active() and norms[True]:
        parts = math.sqrt(total({"squares": parts**2})["squares"])
    return math.hypot(mine, parts) if norms[True] else mine


def wait() -> None:
    if active():
        dist.barrier()
