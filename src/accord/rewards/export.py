"""A reward model as a transformers sequence classifier, for tools that expect one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from accord.errors import ConfigError
from accord.models.export import export_merged
from accord.rewards.learned import RewardModel
from accord.writing import whole_folder

PER_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""What a config says of each layer in a list."""


@contextmanager
def _quiet() -> Generator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _cut_config(folder: Path, layers: int, pad: int | None) -> Any:
    """The config of a classifier that ends after so many layers; what it says of each layer ends there, too."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    whole = config.num_hidden_layers
    said = {
        name: value[:layers] if isinstance(value, list) and len(value) == whole and name in PER_LAYER else value
        for name, value in config.to_dict().items()
    }
    return type(config).from_dict({**said, "num_hidden_layers": layers, "num_labels": 1, "pad_token_id": pad})


@torch.no_grad()
def export_classifier(reward: RewardModel, tokenizer: Any, folder: Path) -> float:
    """Write a reward model as `AutoModelForSequenceClassification` with one label.

    Its logit is the score up to a constant (these classifiers have no bias); the constant is returned and stored in the config as
    `accord_score_constant`. Heads that read a middle layer give a model cut after that layer.

    Raises:
        ConfigError: if transformers has no such classifier for this architecture, or the heads are none (see `RewardHeads.folded`).
        MachineError: if the folder cannot be written; nothing is left of it then.
    """
    from transformers import AutoModelForSequenceClassification

    policy = reward.policy
    weight, constant = reward.heads.folded()
    layers = reward.heads.layer or policy.num_layers
    with whole_folder(folder) as target:
        merged = export_merged(policy, reward.stack, tokenizer, target / "merged")
        try:
            with _quiet():  # transformers would advise to train the head that is written below
                model = AutoModelForSequenceClassification.from_pretrained(
                    merged, config=_cut_config(merged, layers, tokenizer.pad_token_id), dtype=policy.model.dtype
                )
        except ValueError as error:
            raise ConfigError(f"transformers has no sequence classifier for {type(policy.model).__name__}.") from error
        model.score.weight.copy_(weight[None].to(model.score.weight))
        model.config.accord_score_constant = constant
        model.save_pretrained(target, safe_serialization=True)
        tokenizer.save_pretrained(target)
        shutil.rmtree(merged)
        if json.loads((target / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers") != layers:
            raise ConfigError(f"The classifier was not cut at layer {layers}. Please report this with the model's name.")
    return constant
