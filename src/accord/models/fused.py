"""Pieces of a decoder layer as single functions: fewer passes over memory and fewer saved tensors than the same steps one by one.

Each has its own backward, checked by finite differences; `fuse` puts them into a model wherever they give the model's own numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis. Zhang & Sennrich (2019)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = inputs.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(inputs, weight, scale)
        return (inputs * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs, weight, scale = ctx.saved_tensors
        gradient = gradients[0]
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (gradient * inputs * scale).reshape(-1, inputs.shape[-1]).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        weighted = gradient * weight
        along = torch.einsum("...d,...d->...", weighted, inputs).unsqueeze(-1) * scale.pow(3) / inputs.shape[-1]
        return weighted.mul_(scale).addcmul_(inputs, along, value=-1.0), grad_weight, None


class GatedUnit(torch.autograd.Function):
    """act(gate) * up, act one of silu, gelu, gelu_tanh. Keeps gate and up only. Shazeer (2020)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _activate(gate, activation).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        gate, up = ctx.saved_tensors
        aten: Any = torch.ops.aten
        grad_up = _activate(gate, ctx.activation).mul_(gradients[0])
        grad_active = gradients[0] * up
        if ctx.activation == "silu":
            grad_gate = aten.silu_backward(grad_active, gate)
        else:
            grad_gate = aten.gelu_backward(grad_active, gate, approximate=_APPROXIMATE[ctx.activation])
        return grad_gate, grad_up, None


_APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}


def _activate(gate: Tensor, activation: str) -> Tensor:
    return F.silu(gate) if activation == "silu" else F.gelu(gate, approximate=_APPROXIMATE[activation])


class LoraLinear(torch.autograd.Function):
    """x W^T + b + sum_i s_i (x A_i^T) B_i^T with W and b frozen. Hu et al. (2021).

    One input is kept, for all adapters, and products are added where they belong instead of being made and summed. Arguments after
    the scales: A_1, B_1, A_2, B_2, ...
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, scales: tuple[float, ...], *factors: Tensor) -> Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        output = F.linear(flat, weight, bias)
        narrow = []
        for scale, down, up in zip(scales, factors[::2], factors[1::2], strict=True):
            narrow.append(flat @ down.T)
            output.addmm_(narrow[-1], up.T, alpha=scale)
        ctx.scales = scales
        ctx.save_for_backward(inputs, weight, *factors, *narrow)
        return output.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        count = len(ctx.scales)
        inputs, weight, *rest = ctx.saved_tensors
        factors, narrow = rest[: 2 * count], rest[2 * count :]
        needs = ctx.needs_input_grad
        flat = inputs.reshape(-1, inputs.shape[-1])
        gradient = gradients[0].reshape(-1, weight.shape[0])
        grad_input = gradient @ weight if needs[0] else None
        found: list[Tensor | None] = []
        for index, scale in enumerate(ctx.scales):
            down, up = factors[2 * index], factors[2 * index + 1]
            need_down, need_up = needs[4 + 2 * index], needs[5 + 2 * index]
            grad_narrow = gradient @ up if grad_input is not None or need_down else None
            if grad_input is not None and grad_narrow is not None:
                grad_input.addmm_(grad_narrow, down, alpha=scale)
            found.append((grad_narrow.T @ flat).mul_(scale) if need_down and grad_narrow is not None else None)
            found.append((gradient.T @ narrow[index]).mul_(scale) if need_up else None)
        return (grad_input.view_as(inputs) if grad_input is not None else None), None, None, None, *found


class Rotate(torch.autograd.Function):
    """Rotary position embedding in halves: x cos + rotate_half(x) sin, cos and sin broadcastable to x. Su et al. (2021)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(inputs, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        half = cos.shape[-1] // 2
        # The transpose of the map: the halves of sin change places and the rotation its sense.
        return _rotated(gradients[0], cos, torch.cat((sin[..., half:], sin[..., :half]), -1), -1.0), None, None


def _rotated(inputs: Tensor, cos: Tensor, sin: Tensor, sense: float) -> Tensor:
    half = cos.shape[-1] // 2
    output = inputs * cos
    output[..., :half].addcmul_(inputs[..., half:], sin[..., :half], value=-sense)
    output[..., half:].addcmul_(inputs[..., :half], sin[..., half:], value=sense)
    return output
