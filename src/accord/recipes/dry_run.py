"""`--dry-run`: everything a run would do, said before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import yaml

from accord.config.base import TrainingConfig
from accord.config.options import TrainOptions
from accord.models.opened import Opened
from accord.types import Example


def describe(opened: Opened, options: TrainOptions, config: TrainingConfig, rows: Sequence[Example], lora: Any) -> str:
    """Config, the first three rows as the model will see them, token counts, parameters and memory."""
    renderer = opened.renderer
    renderer.max_length = config.max_length
    renderer.max_prompt_length = getattr(config, "max_prompt_length", None)
    units = renderer.units(rows)
    lengths = [unit.num_tokens for unit in units]
    parameters = sum(parameter.numel() for parameter in opened.policy.model.parameters())
    if lora is not None:
        opened.policy.add_adapter("dry_run", lora)
        trained = sum(parameter.numel() for parameter in opened.policy.trainable_parameters().values())
    else:
        trained = parameters
    shown = []
    for unit in units[:3]:
        shown.append(f"--- {unit.data['example'].where}\n{renderer.tokenizer.decode(list(unit.prompt_ids))}")
        shown += [
            f"    [{index + 1}] {renderer.tokenizer.decode(list(branch.ids))!r} ({branch.num_counted} tokens counted)"
            for index, branch in enumerate(unit.branches)
        ]
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    memory = (parameters * opened.policy.model.dtype.itemsize + trained * 12) / 1e9
    cut = ", ".join(f"{count} {name}" for name, count in renderer.report.items()) or "nothing cut"
    return "\n".join(
        [
            yaml.safe_dump(
                {key: value for key, value in {**vars(options), **config.to_dict()}.items() if value is not None}, sort_keys=False
            ).rstrip(),
            *shown,
            f"rows {len(units)}, tokens {sum(lengths)} (median {median(lengths):.0f}, longest {max(lengths)} a row), {cut}",
            f"rows an optimizer step {per_step}, parameters {parameters / 1e6:.1f} M, trained {trained / 1e6:.2f} M",
            f"memory about {memory:.1f} GB for weights, gradients and Adam, and the activations of one micro-batch",
        ]
    )
