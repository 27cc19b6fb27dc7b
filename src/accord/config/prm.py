"""Process reward models: their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.heads import HeadsConfig
from accord.config.known_names import accepts_known_names


@accepts_known_names
@dataclass
class PRMConfig(HeadsConfig):
    """Learn to judge each step of a solution."""

    neutral: str = "positive"
    """What label 0 means. positive: right, as PRM800K's authors count it (Lightman et al. 2023). negative: wrong, as TRL's script did.
    class: a third class of its own."""
    mask_after_first_error: bool | None = None
    """True learns nothing from labels after the first -1: what follows rests on a mistake (Lightman et al. 2023). False learns
    every label there is. None: True, or False with train_on_last_step_only."""
    soft_labels: bool = False
    """True learns the probabilities of `step_probabilities` where a row has them (accord prm label writes them), labels elsewhere.
    False learns labels."""
    step_separator: str = "\n"
    r"""Closes every step, in training and when a text is split into steps to score; a line end if nothing is said. An empty line in a
    shell: $'\n\n'."""
    train_on_last_step_only: bool = False
    """True learns the last step's label alone, which makes an outcome reward model. False learns every step's."""

    head_surprise: bool = False
    """True lets the head also read how likely the frozen model finds the step's tokens, and the solution's up to there: a model that can do the
    sums is surprised by wrong ones. False reads hidden states alone."""

    method: ClassVar[str] = "prm"

    @property
    def masks_after_first_error(self) -> bool:
        """`mask_after_first_error`, with None resolved."""
        return not self.train_on_last_step_only if self.mask_after_first_error is None else self.mask_after_first_error

    def validate(self) -> None:
        super().validate()
        self.choice("neutral", ("positive", "negative", "class"))
        self.require(
            "head_surprise", not self.head_surprise or self.backbone == "heads", "False, or backbone=heads: no gradient goes through it"
        )
        self.require("step_separator", self.step_separator != "", "some text")
        self.require(
            "mask_after_first_error",
            not (self.mask_after_first_error and self.train_on_last_step_only),
            "False or None with train_on_last_step_only: the last step of most wrong solutions comes after their first error",
        )
