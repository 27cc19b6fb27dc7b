"""Linear layers that run from int8 weights, while sampling: half the time of fp32 products on the CPU, and another distribution.

Weights have a scale for each output, inputs one for each row of their own, and sums are exact integers: what a row gets does not depend on
the rows beside it. The copies live as long as the context; the modules and their weights are not changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.prepacked import prepackable

INPUT_LEVELS = 63
"""Inputs are -63..63: with 7 bits no sum of two products overflows the 16 bits that processors without VNNI add them up in."""


def int8_problem(model: nn.Module) -> str | None:
    """None when this model can sample from int8 weights here, else why it cannot, in a few words."""
    if "fbgemm" not in torch.backends.quantized.supported_engines or not hasattr(torch.ops.quantized, _PRODUCT):
        return "this torch has no int8 products for this processor"
    if not any(prepackable(module) for module in model.modules()):
        return "the model has no plain linear layer in fp32 on the CPU"
    return None


def int8_linear(weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    """x -> x weight^T + bias from an int8 copy of `weight` (out, in), fp32 in and out."""
    product = getattr(torch.ops.quantized, _PRODUCT)
    packed = _packed(weight.detach())

    def forward(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        top = rows.abs().amax(-1, keepdim=True).clamp_min(1e-30)
        output = product(rows / top, 1.0 / INPUT_LEVELS, INPUT_LEVELS + 1, packed).mul_(top)
        return (output if bias is None else output.add_(bias)).view(*inputs.shape[:-1], -1)

    return forward


_PRODUCT = "linear_with_input_q_dq_qweight_dq_output_fp32"


def _packed(weight: Tensor) -> Any:
    scales = weight.abs().amax(1).clamp_min(1e-30).double() / 127
    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantized tensor creation.*")  # pytorch/pytorch#184982: int8 tensors will be others
        quantized = torch.quantize_per_channel(weight, scales, torch.zeros(len(scales), dtype=torch.int64), 0, torch.qint8)
    try:
        torch.backends.quantized.engine = "fbgemm"
        return torch.ops.quantized.linear_prepack(quantized, None)
    finally:
        torch.backends.quantized.engine = engine
