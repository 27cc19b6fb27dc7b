"""Trainers on a fixed dataset: units in a seeded order, epochs, held-out evaluation. Methods add the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accord.config.base import TrainingConfig
from accord.data.packing import Unit
from accord.data.snapshots import snapshots_in
from accord.models.adapters import Stack
from accord.models.free_memory import available_memory
from accord.models.partial import keep_lower_states
from accord.models.save import save_policy
from accord.rollouts.random import shuffled
from accord.training import processes
from accord.training.known_arguments import explains_arguments
from accord.training.loop import Loop, StepBatch
from accord.training.metrics import Metrics
from accord.training.setup import Rows, accept_tokenizer, callbacks_list, examples, prepare, report_rendering, say

KEPT_SHARE = 0.25
"""Largest share of free memory for the kept output of frozen lower layers."""


class OfflineTrainer(Loop):
    """Shared by SFT, reward models, process reward models, DPO and KTO. The public arguments are TRL's.

    Args:
        model: name, path, transformers model, peft model or PolicyModel.
        args: the method's config; None takes its defaults.
        train_dataset, eval_dataset: a `datasets.Dataset`, a list of dicts, a path or `Example`s.
        processing_class: the tokenizer (`tokenizer=` is accepted). None loads the model's own.
        callbacks: transformers TrainerCallback objects.
        peft_config: adds a fresh adapter and trains it alone. None is full fine-tuning, or the model's own adapter.
        start: adapters of a PolicyModel that training starts from. None is all that it has.
    """

    method = ""
    adapter = ""
    kinds: tuple[str, ...] = ()
    config_class: type[TrainingConfig] = TrainingConfig

    @explains_arguments
    def __init__(
        self,
        model: Any,
        args: TrainingConfig | None = None,
        train_dataset: Rows = None,
        eval_dataset: Rows = None,
        processing_class: Any = None,
        callbacks: Iterable[Any] | None = None,
        peft_config: Any = None,
        *,
        tokenizer: Any = None,
        columns: dict[str, str] | None = None,
        start: Stack | None = None,
    ) -> None:
        args = args if args is not None else self.config_class()
        processes.start()
        prepared = prepare(
            model,
            args,
            tokenizer=accept_tokenizer(processing_class, tokenizer),
            peft_config=peft_config,
            adapter=self.adapter,
            method=self.method,
            max_prompt_length=getattr(args, "max_prompt_length", None),
            start=start,
        )
        super().__init__(args, prepared, callbacks_list(callbacks))
        self.columns = columns
        self.snapshots: dict[str, list[str]] = {}
        self.train_units = self._units(train_dataset, "train_dataset")
        self.eval_units = self._units(eval_dataset, "eval_dataset") if eval_dataset is not None else []
        if args.overfit:
            self.train_units = self.train_units[: args.overfit]
            self.eval_units = self.train_units
            say(
                f"Overfitting the first {len(self.train_units)} rows: the loss should go to (nearly) its floor. If it does not, the set-up is wrong."
            )

    def _units(self, rows: Rows, what: str) -> list[Unit]:
        found = examples(rows, kinds=self.kinds, what=what, columns=self.columns, seed=self.config.seed)
        self.snapshots[what] = snapshots_in(row.columns for row in found)
        units = self.make_units(found)
        report_rendering(self.renderer, what)
        return units

    def make_units(self, rows: Sequence[Any]) -> list[Unit]:
        """Render rows into units with what the loss needs on them."""
        return self.renderer.units(rows)

    def data_ids(self) -> dict[str, list[str]]:
        return {"train_dataset": [unit.id for unit in self.train_units], "eval_dataset": [unit.id for unit in self.eval_units]}

    def data_snapshots(self) -> dict[str, list[str]]:
        return self.snapshots

    # -- what the loop asks -------------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.policy.trainable_parameters()

    @property
    def batch_size(self) -> int:
        return self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_units) / self.batch_size)

    def total_steps(self) -> int:
        if self.config.max_steps > 0:
            return self.config.max_steps
        return math.ceil(self.steps_per_epoch * self.config.num_train_epochs)

    def batches(self, start: int) -> Iterator[StepBatch]:
        for step in range(start, self.total_steps()):
            yield StepBatch([self.train_units[i] for i in self.step_rows(step)], epoch=(step + 1) / self.steps_per_epoch)

    def step_rows(self, step: int) -> list[int]:
        """Rows of one optimizer step: a pure function of seed and step, so there is no data position to save."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = shuffled(len(self.train_units), "rows", self.config.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def rows_used(self) -> list[int]:
        """Every row that training will see, in dataset order: what must be precomputed, the same in a fresh and in a resumed run."""
        if self.total_steps() >= self.steps_per_epoch:
            return list(range(len(self.train_units)))
        return sorted({row for step in range(self.total_steps()) for row in self.step_rows(step)})

    def evaluate(self, eval_dataset: Rows = None) -> dict[str, float]:
        """The training metrics on held-out rows, as `eval_...`."""
        units = self.eval_units if eval_dataset is None else self._units(eval_dataset, "eval_dataset")
        if not units:
            return {}
        with self.policy.gathered():
            return self._evaluate(units)

    def _evaluate(self, units: Sequence[Unit]) -> dict[str, float]:
        self.keep_lower_states(units)
        self.prepare_units(units)
        mine = processes.share(units)
        totals = processes.total(self.totals(mine))
        metrics = Metrics()
        with torch.no_grad():
            totals |= processes.total(self.statistics(mine, totals))
            for part in self.micro_batches(mine):
                loss, part_metrics = self.loss(part, totals)
                metrics.total("loss", loss)
                metrics.merge(part_metrics)
        values = metrics.compute()
        return {f"eval_{name}": value for name, value in {**values, **self.derived(values)}.items()}

    def can_evaluate(self) -> bool:
        return bool(self.eval_units)

    def prepare_units(self, units: Sequence[Unit]) -> None:
        """Precompute what units need before the loss (reference log-probs); units that have it are left alone."""

    def keep_lower_states(self, units: Sequence[Unit]) -> None:
        """Run the layers below the first trained one once for these units, where that saves work and the result fits in memory."""
        depth = self.policy.frozen_depth(self.prepared.stack)
        if not depth or not self.config.cache_lower_layers:
            return
        needed = sum(unit.num_tokens for unit in units) * self.policy.hidden_size * 4
        if needed > KEPT_SHARE * available_memory():
            say(f"The output of the {depth} frozen lower layers would take {needed / 1e9:.1f} GB; it is computed at every pass instead.")
            return
        keep_lower_states(self.policy, units, self.prepared.stack, self.token_budget)

    def before_training(self) -> None:
        units = [self.train_units[i] for i in self.rows_used()]
        self.keep_lower_states(units)
        self.prepare_units(units)
        if self.eval_units:  # now, while the model still is its own reference
            self.keep_lower_states(self.eval_units)
            self.prepare_units(self.eval_units)

    def write_model(self, folder: Path) -> None:
        """A standard peft or transformers folder, the tokenizer, and the adapter stack."""
        save_policy(self.policy, self.prepared.stack, self.processing_class, folder)
