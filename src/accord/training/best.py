"""The best evaluation of a run: which one, where it is saved, and how many have passed since without a better one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from accord.config.base import TrainingConfig
from accord.errors import ConfigError


@dataclass
class Best:
    """Compares evaluations by one metric.

    Args:
        name: `eval_loss`, or without `eval_`; names that end in loss are better when lower, all others when higher.
        patience: evaluations without a better value after which `exhausted` is True; None never is.
    """

    name: str
    patience: int | None = None
    value: float | None = None
    step: int | None = None
    checkpoint: str | None = None
    """Its folder's name within the run, or a whole path where the run was resumed from another folder; None when it was not saved."""
    without_improvement: int = 0

    def consider(self, values: dict[str, float], step: int) -> bool:
        """Take note of an evaluation. True: it is the best so far.

        Raises:
            ConfigError: naming the metrics there are, when this one is not among them.
        """
        name = self.name if self.name.startswith("eval_") else f"eval_{self.name}"
        if name not in values:
            near = difflib.get_close_matches(name, values, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"metric_for_best_model={self.name!r} is not evaluated. The metrics are {', '.join(sorted(values))}.{hint}")
        found = values[name]
        better = self.value is None or (found > self.value if self.higher else found < self.value)
        if better:
            self.value, self.step, self.checkpoint, self.without_improvement = found, step, None, 0
        else:
            self.without_improvement += 1
        return better

    @property
    def higher(self) -> bool:
        """True where larger values are better: everywhere but in losses."""
        return not self.name.endswith("loss")

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.without_improvement >= self.patience

    def state(self) -> dict[str, Any]:
        """JSON-able; `load` takes it back."""
        return {name: getattr(self, name) for name in ("value", "step", "checkpoint", "without_improvement")}

    def load(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def check_can_evaluate(config: TrainingConfig, *, has_rows: bool) -> None:
    """`eval_steps` without held-out rows would do nothing, and neither would what watches evaluations.

    Args:
        has_rows: True when there are held-out rows. False raises if evaluations were asked for.
    Raises:
        ConfigError: saying what is missing.
    """
    if config.eval_steps and not has_rows:
        raise ConfigError(
            f"eval_steps={config.eval_steps} needs held-out rows. Give an eval_dataset (--eval_data rows.jsonl), or leave eval_steps at 0."
        )
