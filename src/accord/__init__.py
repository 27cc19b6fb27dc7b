"""accord: bring a language model into accord with what people want.

Importing this package is cheap: trainers and configs are resolved on first use, so that `accord --help` never pays for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "SFTConfig": "accord.config.sft",
    "RewardConfig": "accord.config.reward",
    "DPOConfig": "accord.config.dpo",
    "KTOConfig": "accord.config.kto",
    "PPOConfig": "accord.config.ppo",
    "PRMConfig": "accord.config.prm",
    "GRPOConfig": "accord.config.grpo",
    "RLOOConfig": "accord.config.grpo",
    "SFTTrainer": "accord.methods.sft",
    "RewardTrainer": "accord.methods.reward",
    "DPOTrainer": "accord.methods.dpo",
    "KTOTrainer": "accord.methods.kto",
    "PPOTrainer": "accord.methods.ppo",
    "PRMTrainer": "accord.methods.prm",
    "GRPOTrainer": "accord.methods.grpo",
    "RLOOTrainer": "accord.methods.grpo",
    "AccordError": "accord.errors",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'accord' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
