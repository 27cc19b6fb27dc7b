"""Puts the functions of `fused` into a model, by pattern, as replacements of single modules' forward.

Nothing else changes: modules, parameters, state dicts and saved adapters stay transformers' and peft's. What does not match a pattern
exactly (another norm, an unknown activation, LoRA with dropout, DoRA, a trainable base or one quantised by others) runs as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.fused import LoraLinears, Origin, Rotate, gated_unit, rms_norm
from accord.models.small import SmallLinear

ACTIVATIONS = {
    "SiLUActivation": "silu",
    "SiLU": "silu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
}
"""Activation modules by class name."""

NORMS = {
    **dict.fromkeys(("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "SmolLM3RMSNorm", "Phi3RMSNorm"), 0.0),
    **dict.fromkeys(("Gemma2RMSNorm", "Gemma3RMSNorm"), 1.0),
}
"""RMSNorm classes, and what they add to their weight."""


ATTENTIONS: dict[str, Callable[[Any], int | None]] = {
    "LlamaAttention": lambda layer: None,
    "MistralAttention": lambda layer: getattr(layer.config, "sliding_window", None),
    **dict.fromkeys(
        ("Qwen2Attention", "Qwen3Attention", "Gemma2Attention", "Gemma3Attention"), lambda layer: getattr(layer, "sliding_window", None)
    ),
}
"""Attention classes that project, normalise queries and keys (or not), rotate halves and attend; and the window of a layer of each."""


UNIT = ("gate_proj", "up_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj")


def fuse(model: nn.Module) -> None:
    """Replace the forward of every module that matches a pattern. Doing it again reaches modules that were added since."""
    from peft.tuners.lora import Linear as PeftLinear

    for module in model.modules():
        if "forward" in module.__dict__:
            continue
        name = type(module).__name__
        if name in NORMS:
            module.forward = MethodType(_norm_forward, module)
        elif name in ATTENTIONS:
            module.forward = MethodType(_attention_forward, module)
        elif type(module) is PeftLinear and not module.fan_in_fan_out:
            module.forward = MethodType(_lora_forward, module)
        elif set(dict(module.named_children())) == {"gate_proj", "up_proj", "down_proj", "act_fn"} and _activation(module):
            module.forward = MethodType(_mlp_forward, module)


def _activation(module: Any) -> str | None:
    return ACTIVATIONS.get(type(module.act_fn).__name__)


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    if hidden_states.dtype not in (torch.float32, torch.float64):
        return type(self).forward(self, hidden_states)
    offset = NORMS[type(self).__name__]
    weight = self.weight + offset if offset else self.weight
    eps = self.variance_epsilon if hasattr(self, "variance_epsilon") else self.eps
    return rms_norm(hidden_states, weight, eps)


def _mlp_forward(self: Any, hidden_states: Tensor) -> Tensor:
    gate, up = _together(self, hidden_states, UNIT)
    return self.down_proj(gated_unit(gate, up, ACTIVATIONS[type(self.act_fn).__name__]))  # type: ignore[no-any-return]


def _attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: Any = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Straight to the packed layout when one is given; every other call is the class's own."""
    layout = kwargs.get("packed")
    dropout = self.training and self.attention_dropout
    if layout is None or dropout or past_key_values is not None or position_embeddings is None or args:
        return type(self).forward(self, hidden_states, position_embeddings, attention_mask, past_key_values, *args, **kwargs)  # type: ignore[no-any-return]
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key, value = (part.view(shape) for part in _together(self, hidden_states, ATTENTION))
    if hasattr(self, "q_norm"):
        query, key = self.q_norm(query), self.k_norm(key)
    cos, sin = (part.unsqueeze(-2) for part in position_embeddings)
    query, key = Rotate.apply(query, cos, sin), Rotate.apply(key, cos, sin)
    output = layout.attend(
        self.layer_idx,
        *(part.transpose(1, 2) for part in (query, key, value)),
        scale=self.scaling,
        window=ATTENTIONS[type(self).__name__](self),
        softcap=getattr(self, "attn_logit_softcapping", None),
    )
    return self.o_proj(output.transpose(1, 2).reshape(*shape[:-2], -1)), None


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = _names(self)
    if not args and not kwargs and not self.merged:
        if not names:
            return self.base_layer(x)
        if _plain(self, x, names):
            return _apply(x, [self])[0]
    return type(self).forward(self, x, *args, **kwargs)


def read_together(module: Any, *, packed: bool) -> list[nn.Module]:
    """The linear layers that this module's fused forward runs on one input; none where it is not fused.

    Args:
        packed: True for passes in the packed layout; the fused attention runs in no others.
    """
    forward = getattr(module.__dict__.get("forward"), "__func__", None)
    names = UNIT if forward is _mlp_forward else ATTENTION if forward is _attention_forward and packed else ()
    return [getattr(module, name) for name in names]


def _together(parent: Any, x: Tensor, names: Sequence[str]) -> Sequence[Tensor]:
    """The outputs of linear layers that read the same input: one product while sampling, one function where all of them are plain LoRA."""
    if (joined := parent.__dict__.get("joined")) is not None:
        return joined(x)  # type: ignore[no-any-return]
    modules = [getattr(parent, name) for name in names]
    if all(_is_plain(module, x) for module in modules):
        return _apply(x, modules)
    return [module(x) for module in modules]


def _is_plain(module: Any, x: Tensor) -> bool:
    """Whether a module may be run by `LoraLinears` without being called itself."""
    from peft.tuners.lora import Linear as PeftLinear

    if type(module) is not PeftLinear or module.merged or module._forward_hooks or module._forward_pre_hooks:
        return False
    names = _names(module)
    return bool(names) and not module.fan_in_fan_out and _plain(module, x, names)


def _names(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A] if not layer.disable_adapters else []


def _apply(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    scales: list[tuple[float, ...]] = []
    tensors: list[Tensor | SmallLinear | None] = []
    for layer in layers:
        names = _names(layer)
        scales.append(tuple(layer.scaling[name] for name in names))
        base = layer.base_layer
        tensors += [base if isinstance(base, SmallLinear) else base.weight, base.bias]
        tensors += [part[name].weight for name in names for part in (layer.lora_A, layer.lora_B)]
    return LoraLinears.apply(x, Origin.of(x), tuple(scales), *tensors)  # type: ignore[no-any-return]


def _plain(layer: Any, x: Tensor, names: list[str]) -> bool:
    """Plain LoRA of one float type on a frozen linear layer that is nobody else's, without active dropout."""
    base = layer.base_layer
    if type(base) not in (nn.Linear, SmallLinear) or "forward" in base.__dict__ or base.weight.requires_grad:
        return False
    if (
        (type(base) is nn.Linear and base.weight.dtype != x.dtype)
        or x.dtype not in (torch.float32, torch.float64)
        or (base.bias is not None and base.bias.requires_grad)
    ):
        return False
    for name in names:
        dropout = layer.lora_dropout[name]
        if name in layer.lora_variant or not (isinstance(dropout, nn.Identity) or not layer.training):
            return False
        if any(part[name].bias is not None or part[name].weight.dtype != x.dtype for part in (layer.lora_A, layer.lora_B)):
            return False
    return True
