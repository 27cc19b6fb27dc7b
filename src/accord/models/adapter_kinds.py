"""Which of peft's adapters a stack can hold: those in layers that are switched on and off from pass to pass. The others are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from accord.errors import ConfigError

BESIDE = ("modules_to_save", "trainable_token_indices")
"""What peft trains beside its layers, in copies that stand whatever adapters are active."""


def check_adapter(config: Any, held: str | None = None) -> None:
    """Refuse what would be no part of the stack: silently not read, or read by the reference too.

    Args:
        config: a peft config.
        held: how the base's weights are held (`models.small`). None: as ordinary weights.
    Raises:
        ConfigError: naming what it is and what can be had instead.
    """
    kind = type(config).__name__
    if held:
        _check_beside_codes(config, held)
    if getattr(config, "is_prompt_learning", False):
        raise ConfigError(f"{kind} puts learned tokens before the prompt, which no pass here would read. Use a LoraConfig.")
    for option in BESIDE:
        if getattr(config, option, None):
            raise ConfigError(
                f"{kind}: {option}={getattr(config, option)!r} trains copies of modules that the reference would read too. "
                "Name linear layers in target_modules instead, or train all weights without a peft_config."
            )


def _check_beside_codes(config: Any, held: str) -> None:
    """Refuse what would read the base's weights, of which there are only codes."""
    kind = type(config).__name__
    if kind != "LoraConfig":
        raise ConfigError(
            f"{kind} on a base held in {held} is not offered: it may read weights that are only held as codes. Use a LoraConfig."
        )
    if getattr(config, "use_dora", False):
        raise ConfigError(f"DoRA needs the norms of the base's weights, and this base is held in {held}. Set use_dora to False.")
    if config.init_lora_weights not in (True, False, "gaussian"):
        raise ConfigError(
            f"init_lora_weights={config.init_lora_weights!r} starts from the base's weights, and this base is held in {held}. Leave it at True."
        )


def check_head(head: Any) -> None:
    """Refuse adapters on the LM head other than plain LoRA: log-probs are computed from its weight, not by calling it.

    Raises:
        ConfigError: naming the adapter.
    """
    if not hasattr(head, "base_layer"):
        return
    names = list(getattr(head, "lora_A", {}))
    plain = [name for name in names if name not in head.lora_variant and head.lora_B[name].bias is None]
    if not names or len(plain) < len(names):
        raise ConfigError("An adapter on the LM head must be plain LoRA. Leave the head out of target_modules, or use a plain LoraConfig.")


def head_weight(head: Any, stack: Sequence[str]) -> Tensor:
    """The LM head's weight (V, d), with those adapters of a stack that are on it."""
    weight: Tensor = head.weight
    for name in stack:
        if name in getattr(head, "lora_A", {}):
            weight = weight + head.scaling[name] * (head.lora_B[name].weight @ head.lora_A[name].weight)
    return weight
