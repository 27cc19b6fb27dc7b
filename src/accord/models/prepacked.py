"""Linear layers that run from weights reordered for the processor (oneDNN), while sampling: faster for few rows than a plain product.

The reordered copies live as long as the context; the modules and their weights are not changed. Where torch has no such
operations, or memory is short, the plain layers run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.free_memory import available_memory
from accord.models.small import SmallLinear

SPARE_BYTES = 1e9


def can_prepack(model: nn.Module) -> bool:
    """Whether this machine has the operations, and memory for a second copy of the linear weights with some to spare."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and prepackable(module)]
    needed = sum(module.in_features * module.out_features * 4 for module in linears)
    return 0 < needed < available_memory() - SPARE_BYTES


def prepackable(module: nn.Module) -> bool:
    """A plain linear layer in fp32 on the CPU, or one whose weights are held smaller there (`models.small`)."""
    if type(module) is nn.Linear:
        return module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
    return isinstance(module, SmallLinear) and module.weight.device.type == "cpu"


def prepacked_linear(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[..., Tensor]:
    """x -> x weight^T + bias from a reordered copy of `weight` (out, in), laid out for about `rows` rows of x."""
    ops: Any = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight.detach().contiguous(), rows)

    def forward(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        return ops._linear_pointwise(inputs, packed, bias, "none", [], "")

    return forward
