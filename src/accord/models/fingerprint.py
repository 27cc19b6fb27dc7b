"""What a forward pass depends on, as a hash: every byte of the weights under a stack of adapters, the model's settings, the code that runs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

from accord import __version__
from accord.models.adapters import PolicyModel

LIBRARIES = ("torch", "transformers", "peft")
"""Whose releases may change what the same weights compute."""
NAMES = {"_name_or_path", "transformers_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules"}
"""Settings that say where weights came from or where they sit, which their names and bytes say better."""


def model_fingerprint(policy: PolicyModel, stack: Sequence[str]) -> str:
    """32 hex digits that change with any weight, buffer, dtype or setting of the base or of an adapter in `stack`, with their order, and
    with the releases that run them. Other adapters on the model, and what adapters and folders are called, do not matter."""
    digest = hashlib.sha256()
    _settings(digest, policy.model.config.to_dict())
    for name in stack:
        _settings(digest, policy.peft.peft_config[name].to_dict())
    others = set(policy.adapters) - set(stack)
    tensors = [*policy.model.named_parameters(), *policy.model.named_buffers()]
    for key, tensor in sorted(
        ((_plain(key, stack), tensor) for key, tensor in tensors if others.isdisjoint(key.split("."))), key=lambda pair: pair[0]
    ):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # Read as bytes: numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    run_by = [__version__, *(metadata.version(name) for name in LIBRARIES), policy.device.type, policy.packed, policy.fused]
    digest.update(json.dumps(run_by).encode())
    return digest.hexdigest()[:32]


def _plain(key: str, stack: Sequence[str]) -> str:
    """A tensor's name without what wrapping in adapters adds; an adapter's own name becomes its place in the stack."""
    parts = (part for part in key.split(".") if part not in ("base_layer", "original_module"))
    return ".".join(f"[{stack.index(part)}]" if part in stack else part for part in parts)


def _settings(digest: Any, settings: dict[str, Any]) -> None:
    kept = {name: value for name, value in settings.items() if name not in NAMES}
    digest.update(json.dumps(kept, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, set) else str(value)).encode())
