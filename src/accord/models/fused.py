"""Pieces of a decoder layer as single functions: fewer passes over memory and fewer saved tensors than the same steps one by one.

Each has its own backward, checked by finite differences; `fuse` puts them into a model wherever they give the model's own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from accord.models.allocator import fresh
from accord.models.small import SmallLinear


class Origin(NamedTuple):
    """How a tensor is made again, bit for bit, from tensors that are kept for the backward pass anyway: then it need not be kept itself."""

    make: Callable[..., Tensor]
    parts: tuple[Tensor, ...]
    version: int
    """Of the tensor when it was made: one that was changed in place since is not made again from its parts."""

    @staticmethod
    def note(made: Tensor, make: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """`made` itself, which now knows its origin. Without gradients nothing is kept, so nothing is noted."""
        if torch.is_grad_enabled():
            made.origin = Origin(make, parts, made._version)  # type: ignore[attr-defined]
        return made

    @staticmethod
    def of(tensor: Tensor) -> Origin | None:
        found: Origin | None = getattr(tensor, "origin", None)
        return found if found is not None and found.version == tensor._version else None


def rms_norm(inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`RmsNorm`, whose result is made again in the backward pass where a linear layer reads it."""
    made: Tensor = RmsNorm.apply(inputs, weight, eps)
    return Origin.note(made, lambda x, w: _scaled(x, w, eps)[0], inputs, weight)


def gated_unit(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """`GatedUnit`, whose result is made again in the backward pass where a linear layer reads it."""
    made: Tensor = GatedUnit.apply(gate, up, activation)
    return Origin.note(made, lambda g, u: _activate(g, activation).mul_(u), gate, up)


class RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis. Zhang & Sennrich (2019)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
        output, scale = _scaled(inputs, weight, eps)
        ctx.save_for_backward(inputs, weight, scale)
        return output

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


def _scaled(inputs: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    output = torch.square(inputs, out=fresh(inputs.shape, inputs))
    scale = output.mean(-1, keepdim=True).add_(eps).rsqrt_()
    return torch.mul(inputs, scale, out=output).mul_(weight), scale


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
    aten, output = torch.ops.aten, fresh(gate.shape, gate)
    if activation == "silu":
        return aten.silu.out(gate, out=output)  # type: ignore[no-any-return]
    return aten.gelu.out(gate, approximate=_APPROXIMATE[activation], out=output)  # type: ignore[no-any-return]


class LoraLinears(torch.autograd.Function):
    """Linear layers that read one input: y_j = x W_j^T + b_j + sum_i s_ij (x A_ij^T) B_ij^T, with W and b frozen. Hu et al. (2021).

    One input is kept for all layers and adapters, or none where it can be made again (`Origin`). The narrow products x A^T of one slot (the first adapter of every layer, the second,
    ...) are one product, and so are the gradients of its A. Products are added where they belong instead of being made and summed. A
    slot never changes another's numbers: under a fresh adapter (B = 0) the outputs are those without it, bit for bit.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, origin: Origin | None, scales: tuple[tuple[float, ...], ...], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Outputs y_1, y_2, ...

        Args:
            inputs: x, (..., d).
            origin: how x is made again for the backward pass. None keeps it.
            scales: for each layer the scale of each of its adapters.
            tensors: for each layer W (or the `SmallLinear` that holds it), b (or None), then A and B of each adapter.
        """
        flat = inputs.reshape(-1, inputs.shape[-1])
        layers, slots = _by_slot(scales, tensors)
        narrow = [flat @ _downs(slot).T for slot in slots]
        outputs = [_product(flat, weight, bias) for weight, bias in layers]
        for slot, product in zip(slots, narrow, strict=True):
            for adapter in slot:
                outputs[adapter.layer].addmm_(product[:, adapter.columns], adapter.up.T, alpha=adapter.scale)
        ctx.scales, ctx.shape, ctx.make = scales, inputs.shape, origin.make if origin else None
        kept = origin.parts if origin else (inputs,)
        ctx.kept = len(kept)
        ctx.small = {place: one for place, one in enumerate(tensors) if isinstance(one, SmallLinear)}
        ctx.save_for_backward(*kept, *narrow, *(None if place in ctx.small else one for place, one in enumerate(tensors)))
        return tuple(output.view(*inputs.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # read once: under checkpointing a second reading is an error
        kept, rest = saved[: ctx.kept], saved[ctx.kept :]
        count = max(map(len, ctx.scales))
        narrow, tensors = rest[:count], [ctx.small.get(place, one) for place, one in enumerate(rest[count:])]
        need_input, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        layers, slots = _by_slot(ctx.scales, tensors)
        rows = ctx.shape[:-1].numel()
        some = next(one for one in given if one is not None)
        gradients = [
            some.new_zeros(rows, _outputs(weight)) if one is None else one.reshape(rows, -1)
            for one, (weight, _) in zip(given, layers, strict=True)
        ]
        grad_input: Tensor | None = None
        if need_input:
            for gradient, (weight, _) in zip(gradients, layers, strict=True):
                grad_input = _product_back(gradient, weight, grad_input)
        inputs = None
        found: list[Tensor | None] = [None] * len(tensors)
        for slot, product in zip(slots, narrow, strict=True):
            for adapter in slot:
                if needs[adapter.place + 1]:
                    found[adapter.place + 1] = (product[:, adapter.columns].T @ gradients[adapter.layer]).mul_(adapter.scale).T
            wanted = [adapter for adapter in slot if needs[adapter.place]]
            if not wanted and not need_input:
                continue
            grad_narrow = torch.cat([(gradients[adapter.layer] @ adapter.up).mul_(adapter.scale) for adapter in slot], dim=1)
            if grad_input is not None:
                grad_input.addmm_(grad_narrow, _downs(slot))
            if wanted:
                if inputs is None:
                    inputs = (ctx.make(*kept) if ctx.make else kept[0]).reshape(rows, -1)
                slopes = grad_narrow.T @ inputs
                for adapter in wanted:
                    found[adapter.place] = slopes[adapter.columns]
        return (grad_input.view(ctx.shape) if grad_input is not None else None), None, None, *found


def _outputs(weight: Tensor | SmallLinear) -> int:
    return weight.out_features if isinstance(weight, SmallLinear) else len(weight)


def _product(inputs: Tensor, weight: Tensor | SmallLinear, bias: Tensor | None) -> Tensor:
    if isinstance(weight, SmallLinear):
        return weight.times(inputs)
    output = fresh((len(inputs), len(weight)), inputs)
    return torch.mm(inputs, weight.T, out=output) if bias is None else torch.addmm(bias, inputs, weight.T, out=output)


def _product_back(gradient: Tensor, weight: Tensor | SmallLinear, into: Tensor | None) -> Tensor:
    """gradient W, added to `into` where there is one."""
    if isinstance(weight, SmallLinear):
        return weight.back(gradient, into)
    return gradient @ weight if into is None else into.addmm_(gradient, weight)


class _Adapter(NamedTuple):
    """One adapter of one layer."""

    layer: int
    down: Tensor
    up: Tensor
    scale: float
    columns: slice
    """Of its slot's narrow product."""
    place: int
    """Of `down` among the given tensors; `up` follows."""


def _by_slot(
    scales: Sequence[Sequence[float]], tensors: Sequence[Any]
) -> tuple[list[tuple[Tensor | SmallLinear, Tensor | None]], list[list[_Adapter]]]:
    """The tensors of `LoraLinears`: (weight, bias) by layer, and adapters by slot."""
    layers: list[tuple[Tensor | SmallLinear, Tensor | None]] = []
    slots: list[list[_Adapter]] = [[] for _ in range(max(map(len, scales)))]
    place = 0
    for index, mine in enumerate(scales):
        layers.append((tensors[place], tensors[place + 1]))
        place += 2
        for slot, scale in zip(slots, mine, strict=False):
            down, up = tensors[place], tensors[place + 1]
            start = slot[-1].columns.stop if slot else 0
            slot.append(_Adapter(index, down, up, scale, slice(start, start + len(down)), place))
            place += 2
    return layers, slots


def _downs(slot: Sequence[_Adapter]) -> Tensor:
    """(R, d): the A of every adapter of a slot, in the order of its columns."""
    return slot[0].down if len(slot) == 1 else torch.cat([adapter.down for adapter in slot])


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
    output = torch.mul(inputs, cos, out=fresh(inputs.shape, inputs))
    output[..., :half].addcmul_(inputs[..., half:], sin[..., :half], value=-sense)
    output[..., half:].addcmul_(inputs[..., :half], sin[..., half:], value=sense)
    return output
