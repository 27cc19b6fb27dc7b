"""DPO on preferences that come one at a time: no dataset, no last step, and a run folder that can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.config.dpo import DPOConfig
from accord.data.packing import Unit
from accord.errors import ConfigError
from accord.methods.dpo import DPOTrainer
from accord.models.adapters import Stack
from accord.training import checkpoint
from accord.training.loop import StepBatch


class LiveDPO(DPOTrainer):
    """A trainer that whoever has labels calls, a step at a time. The rate should be constant: there is no end to decay towards.

    Args:
        model: a PolicyModel; the newest adapter on `start`, made from `peft_config`, is trained.
        made_of: what the run is started from, by name. A folder that holds a run made of something else is not gone on with.
    """

    def __init__(self, model: Any, args: DPOConfig, *, tokenizer: Any, peft_config: Any, start: Stack, made_of: dict[str, Any]) -> None:
        super().__init__(model, args=args, processing_class=tokenizer, peft_config=peft_config, start=start)
        self.made_of = made_of
        self.learned: list[str] = []
        """Ids of the labels that training has dealt with, in order."""
        self.rows: list[str] = []
        """Content hashes of the rows learned from, for the lineage."""
        self._build_optimizer()

    def _units(self, rows: Any, what: str) -> list[Unit]:
        return []  # they come while it trains

    def total_steps(self) -> int:
        return self.global_step

    def begin(self) -> bool:
        """Go on from the newest checkpoint of the run's folder, if there is one; returns whether there was. Writes the lineage so far.

        Raises:
            ConfigError: if the run was started from something else.
            DataError: if the checkpoint is damaged.
        """
        found = checkpoint.folders(self.folder)
        if found:
            self._check_made_of(found[-1])
            self._resume(found[-1])
        self._open_metrics()
        self._write_lineage()
        return bool(found)

    def _check_made_of(self, folder: Path) -> None:
        made_of = checkpoint.read_state(folder)["method"].get("made_of", {})
        for name, value in self.made_of.items():
            if made_of.get(name) != value:
                raise ConfigError(
                    f"{self.folder} was started with {name} {made_of.get(name)}, not {value}. Start it as before, or name another --output_dir."
                )

    def learn(self, units: Sequence[Unit], also: Mapping[str, float] | None = None) -> dict[str, float]:
        """One optimizer step on these pairs, logged; returns its metrics.

        Args:
            also: further metrics of the policy before the step. None: there are none.
        Raises:
            DivergedError: if loss or gradient are not finite, or the first step finds that policy and reference differ.
        """
        started = time.perf_counter()
        self.keep_lower_states(units)
        self.prepare_units(units)
        if self.global_step == 0:
            self.reference.check_start(self.policy, self.prepared.stack, self.compared(units))
        values = {**self.train_step(StepBatch(units)), **(also or {})}
        values["step_seconds"] = time.perf_counter() - started
        self._last = values
        self.log({"step": self.global_step, **values})
        return values

    def save(self) -> None:
        """A checkpoint to go on from, and in the run's folder the adapter with its lineage, for others to load."""
        self.save_checkpoint()
        self._last = self._last or (self.log_history[-1] if self.log_history else {})
        self.save_model()

    def method_state(self) -> dict[str, Any]:
        return {"made_of": self.made_of, "learned": self.learned}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.learned = list(state["learned"])

    def data_ids(self) -> dict[str, list[str]]:
        return {"train_dataset": self.rows}

    def surroundings(self) -> dict[str, Any]:
        return checkpoint.surroundings()
