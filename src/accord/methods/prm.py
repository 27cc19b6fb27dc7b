"""Process reward models: learn from a label a step where a solution goes wrong (Lightman et al. 2023, arXiv:2305.20050)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.config.prm import PRMConfig
from accord.data.packing import Unit
from accord.data.render_steps import StepRenderer
from accord.errors import DataError
from accord.methods.heads import HeadsTrainer
from accord.models.heads import SURPRISE, StepHead
from accord.objectives.process import step_accuracy, step_cross_entropy
from accord.rewards.process import ProcessRewardModel
from accord.training.metrics import Metrics
from accord.types import Example

WRONG = 0
"""The class of wrong steps."""
CLASSES = {"positive": ("wrong", "right"), "negative": ("wrong", "right"), "class": ("wrong", "neutral", "right")}
"""The classes of a step, by what neutral labels mean (`PRMConfig.neutral`)."""


def step_targets(labels: Sequence[int | None], config: PRMConfig, probabilities: Sequence[float | None] | None = None) -> list[int | None]:
    """The class of each step, None where there is nothing to learn.

    Args:
        labels: 1 right, 0 neutral, -1 wrong, None not judged.
        probabilities: that each step is right, where `config.soft_labels` says to learn them: the class is then the likelier one.
    """
    last_class = len(CLASSES[config.neutral]) - 1
    classes = {-1: WRONG, 0: {"positive": last_class, "negative": WRONG, "class": 1}[config.neutral], 1: last_class}
    targets = [None if label is None else classes[label] for label in labels]
    for index, probability in enumerate(probabilities or ()):
        if probability is not None:
            targets[index] = last_class if probability >= 0.5 else WRONG
    if config.masks_after_first_error and -1 in labels:
        after = labels.index(-1) + 1
        targets[after:] = [None] * (len(labels) - after)
    if config.train_on_last_step_only:
        targets[:-1] = [None] * (len(labels) - 1)
    return targets


class PRMTrainer(HeadsTrainer):
    """Trains a step head at the end of every labelled step; arguments and backbones are those of `HeadsTrainer`.

    The loss is the mean cross-entropy over the labelled steps of the whole optimizer step.
    """

    method = "prm"
    adapter = "prm"
    kinds = ("steps",)
    config_class = PRMConfig
    config: PRMConfig
    heads: StepHead
    heads_name = "step_head"
    metric_names = ("loss", "accuracy", "accuracy_error_steps")

    def make_heads(self, hidden_size: int) -> StepHead:
        config = self.config
        return StepHead(
            hidden_size + SURPRISE * config.head_surprise,
            CLASSES[config.neutral],
            width=config.head_width,
            layer=config.feature_layer,
            surprise=config.head_surprise,
            seed=config.seed,
        )

    @property
    def process_reward_model(self) -> ProcessRewardModel:
        """The object that trained, ready to score: the same tokens, the same features, the same head."""
        return ProcessRewardModel(self.policy, self.prepared.stack, self.heads, self.step_renderer)

    @property
    def scorer(self) -> ProcessRewardModel:
        return self.process_reward_model

    @cached_property
    def step_renderer(self) -> StepRenderer:
        return StepRenderer(self.renderer, self.config.step_separator)

    def make_units(self, rows: Sequence[Example]) -> list[Unit]:
        """Raises DataError if no row has a step to learn from; single rows that have none are left out and counted."""
        made = [self.step_renderer.labelled(row, step_targets(row.step_labels or (), self.config, self._soft(row))) for row in rows]
        units = [unit for unit in made if unit is not None]
        if not units:
            why = ", ".join(f"{count} {name}" for name, count in sorted(self.renderer.report.items()))
            raise DataError(f"There is no step to learn from ({why}). Step rows need a label (1, 0 or -1) that max_length leaves.")
        return units

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        return {"steps": float(sum(target is not None for unit in units for target in unit.data["targets"]))}

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        logits = self.raw(units)
        found: list[int | None] = [target for unit in units for target in unit.data["targets"]]
        learned = [index for index, target in enumerate(found) if target is not None]
        logits = logits[torch.tensor(learned, dtype=torch.int64, device=logits.device)]
        targets = torch.tensor([found[index] for index in learned], dtype=torch.int64, device=logits.device)
        soft = self._soft_targets(units, targets, logits.shape[1]) if self.config.soft_labels else targets
        loss = step_cross_entropy(logits, soft).sum() / max(totals["steps"], 1.0)
        return loss, self._metrics(logits.detach(), targets)

    def _soft(self, row: Example) -> tuple[float | None, ...] | None:
        return row.step_probabilities if self.config.soft_labels else None

    def _soft_targets(self, units: Sequence[Unit], targets: Tensor, classes: int) -> Tensor:
        """The probability of each class of each learned step: wrong and right share it where it is stated, else the label has it all. (S, K)"""
        soft = F.one_hot(targets, classes).double()
        learned = (
            (unit.data["example"].step_probabilities or ())[index : index + 1]
            for unit in units
            for index, target in enumerate(unit.data["targets"])
            if target is not None
        )
        for step, stated in enumerate(learned):
            if stated and stated[0] is not None:
                soft[step] = 0.0
                soft[step, -1], soft[step, WRONG] = stated[0], 1.0 - stated[0]
        return soft

    def _metrics(self, logits: Tensor, targets: Tensor) -> Metrics:
        metrics = Metrics()
        accuracy, wrong, right = step_accuracy(logits, targets), targets == WRONG, targets == logits.shape[1] - 1
        metrics.mean("accuracy", accuracy)
        metrics.mean("accuracy_error_steps", accuracy[wrong])
        metrics.mean("accuracy_right_steps", accuracy[right])
        metrics.mean("error_share", wrong)
        return metrics
