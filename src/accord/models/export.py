"""Take it home: a run folder as one merged transformers model that needs neither peft nor accord."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from accord.errors import ConfigError
from accord.models.adapters import PolicyModel, Stack
from accord.models.tokens import set_stops
from accord.writing import whole_folder


@torch.no_grad()
def export_merged(policy: PolicyModel, stack: Stack, tokenizer: Any, folder: Path) -> Path:
    """Write base + adapters as an ordinary model folder: no peft, no accord needed to load it. The policy itself is not changed.

    The folder's generation config stops where this tokenizer and its template end an answer.

    Raises:
        ConfigError: if an adapter cannot be merged exactly (a quantised base, a variant of LoRA).
        MachineError: if the folder cannot be written; nothing is left of it then.
    """
    state = {}
    with policy.merged(stack):
        left = [name for name, layer in policy.model.named_modules() if getattr(layer, "_active_adapter", None)]
        if left:
            raise ConfigError(
                f"{len(left)} layers (first: {left[0]}) carry adapters that do not merge exactly. Load the run folder with peft instead."
            )
        for key, value in policy.model.state_dict().items():
            if ".lora_" in key or "lora_magnitude" in key:
                continue
            state[key.replace(".base_layer.", ".")] = value.detach().clone()
    model = type(policy.model)(policy.model.config).to(policy.model.dtype)
    model.load_state_dict(state)
    model.generation_config = copy.deepcopy(policy.model.generation_config)
    set_stops(model, tokenizer)
    with whole_folder(folder) as target:
        model.save_pretrained(target, safe_serialization=True)
        tokenizer.save_pretrained(target)
    return folder
