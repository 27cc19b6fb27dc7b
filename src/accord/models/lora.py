"""The adapter that accord trains: LoRA on the linear layers of all or of the upper decoder layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.models.size import upper_layers


def lora_config(
    policy: PolicyModel, *, rank: int = 16, alpha: int = 32, target: str = "all-linear", layers: float = 1.0, dropout: float = 0.0
) -> Any:
    """A peft LoraConfig.

    Args:
        policy: the model it is for.
        rank, alpha: alpha / rank multiplies the adapter's output.
        target: all-linear, or last parts of module names separated by commas.
        layers: share of the decoder layers, from the top, that get adapters. Below 1 the layers under them stay frozen: their output is
            kept, and no gradient runs through them, so a step of LoRA on the upper half costs about half.
        dropout: share of the adapter's inputs set to 0; trainers switch it off (`disable_dropout`).
    Raises:
        ConfigError: if `layers` is not in (0, 1], or the model has no module of a name in `target`.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    if not 0 < layers <= 1:
        raise ConfigError(f"lora_layers={layers} must be above 0 and at most 1: the share of the layers, from the top, that get adapters.")
    names: Any = target if target == "all-linear" else [name.strip() for name in target.split(",")]
    if names != "all-linear":
        modules = [
            key for key, module in policy.model.named_modules() if isinstance(module, (nn.Linear, Conv1D, nn.Embedding, BaseTunerLayer))
        ]
        for name in names:
            if not any(key == name or key.endswith(f".{name}") for key in modules):
                raise ConfigError(f"lora_target: this model has no module {name!r}. Its layers have {', '.join(linear_names(policy))}.")
    options: dict[str, Any] = {}
    if policy.text_config is not policy.model.config:  # a model that sees or hears: the text alone is trained
        known = linear_names(policy)
        if names != "all-linear" and (other := sorted(set(names) - set(known))):
            raise ConfigError(
                f"lora_target: of a model that sees, its layers of text are trained: {', '.join(known)}; not {', '.join(other)}."
            )
        names = _in_text_layers(policy, known if names == "all-linear" else names, upper_layers(policy.num_layers, layers))
    elif layers < 1:
        if names == "all-linear":
            names = linear_names(policy)
        options["layers_to_transform"] = list(upper_layers(policy.num_layers, layers))
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, task_type="CAUSAL_LM", **options)


def _in_text_layers(policy: PolicyModel, names: list[str], layers: Iterable[int]) -> str:
    """A pattern of the modules with these last names in these decoder layers: those that see have modules of the same names."""
    stem = next(key for key, module in policy.model.named_modules() if module is policy.layers)
    return rf"{re.escape(stem)}\.({'|'.join(map(str, layers))})\.(.*\.)?({'|'.join(map(re.escape, names))})"


def linear_names(policy: PolicyModel) -> list[str]:
    """Last parts of the names of the decoder layers' linear modules, adapted ones too: q_proj, up_proj ..."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: set[str] = set()
    adapted: list[str] = []
    for key, module in policy.layers.named_modules():
        inside = any(key.startswith(prefix) for prefix in adapted)
        if isinstance(module, BaseTunerLayer):
            adapted.append(f"{key}.")
        if isinstance(module, (nn.Linear, BaseTunerLayer)) and not inside:
            found.add(key.rsplit(".", 1)[-1])
    return sorted(found)
