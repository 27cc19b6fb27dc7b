"""Pieces of a decoder layer as single functions: fewer passes over memory and fewer saved tensors than the same steps one by one.

Each has its own backward, checked by finite differences; `fuse` puts them into a model wherever they give the model's own numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class LoraLinears(torch.autograd.Function):
    """Linear layers that read one input: y_j = x W_j^T + b_j + sum_i s_ij (x A_ij^T) B_ij^T, with W and b frozen. Hu et al. (2021).

    One input is kept for all layers and adapters; the narrow products x A^T of all of them are one product, and so are the gradients of
    all A of one slot (the first adapter of every layer, the second, ...). Products are added where they belong instead of being made
    and summed.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scales: tuple[tuple[float, ...], ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Outputs y_1, y_2, ...

        Args:
            inputs: x, (..., d).
            scales: for each layer the scale of each of its adapters.
            tensors: for each layer W, b (or None), then A and B of each adapter.
        """
        flat = inputs.reshape(-1, inputs.shape[-1])
        layers = _LoraLayers(scales, tensors)
        down = layers.down()
        narrow = flat @ down.T if down is not None else None
        outputs = []
        for layer in layers:
            output = F.linear(flat, layer.weight, layer.bias)
            for adapter in layer.adapters:
                assert narrow is not None
                output.addmm_(narrow[:, adapter.columns], adapter.up.T, alpha=adapter.scale)
            outputs.append(output.view(*inputs.shape[:-1], -1))
        ctx.scales = scales
        ctx.save_for_backward(inputs, narrow, *tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        inputs, narrow, *tensors = ctx.saved_tensors
        need_input, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        layers = _LoraLayers(ctx.scales, tensors)
        flat = inputs.reshape(-1, inputs.shape[-1])
        grad_narrow = torch.empty_like(narrow) if narrow is not None else None
        grad_input: Tensor | None = None
        found: list[Tensor | None] = [None] * len(tensors)
        for layer, given in zip(layers, gradients, strict=True):
            gradient = given.reshape(-1, layer.weight.shape[0]) if given is not None else flat.new_zeros(len(flat), layer.weight.shape[0])
            if need_input:
                grad_input = gradient @ layer.weight if grad_input is None else grad_input.addmm_(gradient, layer.weight)
            for adapter in layer.adapters:
                assert narrow is not None and grad_narrow is not None
                if need_input or needs[adapter.place]:
                    grad_narrow[:, adapter.columns] = (gradient @ adapter.up).mul_(adapter.scale)
                if needs[adapter.place + 1]:
                    found[adapter.place + 1] = (narrow[:, adapter.columns].T @ gradient).mul_(adapter.scale).T
        if grad_narrow is not None:
            if grad_input is not None:
                grad_input.addmm_(grad_narrow, layers.down())
            for slot in layers.slots:
                wanted = [adapter for adapter in slot if needs[adapter.place]]
                if wanted:
                    first, last = slot[0].columns.start, slot[-1].columns.stop
                    slopes = grad_narrow[:, first:last].T @ flat
                    for adapter in wanted:
                        found[adapter.place] = slopes[adapter.columns.start - first : adapter.columns.stop - first]
        return (grad_input.view_as(inputs) if grad_input is not None else None), None, *found


class _Adapter(NamedTuple):
    down: Tensor
    up: Tensor
    scale: float
    columns: slice
    """Of the narrow product."""
    place: int
    """Of `down` among the given tensors; `up` follows."""


class _Layer(NamedTuple):
    weight: Tensor
    bias: Tensor | None
    adapters: list[_Adapter]


class _LoraLayers(list[_Layer]):
    """The tensors of `LoraLinears` by layer, and by slot: columns of one slot lie side by side."""

    def __init__(self, scales: Sequence[Sequence[float]], tensors: Sequence[Any]) -> None:
        super().__init__()
        places = []
        place = 0
        for mine in scales:
            self.append(_Layer(tensors[place], tensors[place + 1], []))
            places.append(place + 2)
            place += 2 + 2 * len(mine)
        self.slots: list[list[_Adapter]] = []
        column = 0
        for index in range(max(map(len, scales))):
            slot = []
            for layer, mine, start in zip(self, scales, places, strict=True):
                if index < len(mine):
                    down, up = tensors[start + 2 * index], tensors[start + 2 * index + 1]
                    slot.append(_Adapter(down, up, mine[index], slice(column, column + len(down)), start + 2 * index))
                    layer.adapters.append(slot[-1])
                    column += len(down)
            self.slots.append(slot)

    def down(self) -> Tensor | None:
        """(R, d): every A, in the order of the columns."""
        every = [adapter.down for slot in self.slots for adapter in slot]
        return None if not every else every[0] if len(every) == 1 else torch.cat(every)


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
