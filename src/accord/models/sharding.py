"""One model split over processes by torch's `fully_shard`: each holds a part of every weight, its gradient and its moments.

A layer's weights are put together when it runs and let go after it. A forward is therefore something all processes do together, in the
same order; within `gathered` the weights are whole, and each process runs as much as it likes (sampling, evaluating, saving).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from accord.errors import ConfigError


class Sharding:
    """A model whose layers, and what is outside of them, are FSDP modules of all processes.

    Args:
        model: parameters become DTensors; its modules, and their names, stay.
        layers: the decoder layers, in the order they run.
    Raises:
        ConfigError: if this torch cannot add gradients up instead of averaging them.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], device: torch.device) -> None:
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise ConfigError(f"fully_shard needs torch 2.8 or newer and this is {torch.__version__}. Upgrade torch, or leave it False.")
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.root: Any = _Root(model)
        self.modules: list[Any] = [*layers, self.root]
        for module in self.modules:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            # Every loss is a local sum over a global total: gradients add up. gloo knows no other reduction that would.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        # torch would prefetch in the order that it saw forwards in, which differs between processes after they sampled.
        for before, module in zip((self.root, *layers), self.modules, strict=True):
            module.set_modules_to_backward_prefetch([before])
        self._whole = False
        self.root(lambda: None)  # torch takes the module that first runs for the root

    def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns (tensors, in tuples), with the weights outside the layers put together while it runs."""
        return self.root(function)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Weights are whole and plain, and no process waits for another, until this context ends. Entering is for all processes together."""
        if self._whole:
            yield
            return
        try:
            self._whole = True
            for module in self.modules:
                module.unshard()
                module.set_reshard_after_forward(False, recurse=False)
            yield
        finally:
            self._whole = False
            for module in self.modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()


class _Root(nn.Module):
    """Runs a function of the model as its forward: what we need of a model is not what its own forward returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is this process's part of one that is split over processes."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Any) -> Tensor:
    """What of a tensor is on this process."""
    return tensor.to_local() if is_part(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """The whole tensor, on every process: all of them ask together."""
    return tensor.detach().full_tensor() if is_part(tensor) else tensor.detach()


def part_like(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor, known to every process, split (or not) as `like` is, of its type and on its device."""
    if not is_part(like):
        return tensor.to(like)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements, src_data_rank=None)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` within `gathered`, where the real one would split the weights again."""
    found: dict[str, Tensor] = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found
