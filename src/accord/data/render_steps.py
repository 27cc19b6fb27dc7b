"""Solutions to token ids, step by step, knowing at every step where a head reads it and whether it is learned.

Each step, and the separator that closes it, is tokenized apart: a step's tokens never depend on its neighbours, so the ids of a partial
solution begin those of the whole one and training, scoring and search read the same. A head reads a step at the last token of its separator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from accord.config.prm import PRMConfig
from accord.data.packing import Branch, Unit
from accord.data.render import Renderer
from accord.errors import ConfigError, DataError
from accord.types import Example, Message, Rollout


@dataclass
class StepRenderer:
    """Turns solutions into token ids.

    Args:
        renderer: for the prompts. Its `max_length` holds in training (`labelled`); what is scored is never cut.
        separator: closes every step, the last one too. Blanks around a step are no part of it.
    Raises:
        ConfigError: if the tokenizer has no token for the separator.
    """

    renderer: Renderer
    separator: str = PRMConfig.step_separator
    separator_ids: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        (ids,) = self._ids([self.separator])
        if not ids:
            raise ConfigError(f"step_separator={self.separator!r} has no token in this tokenizer. Choose a text that has one.")
        self.separator_ids = tuple(ids)

    def split(self, text: str) -> list[str]:
        """The steps of a text: what stands between separators and is not blank."""
        return [step.strip() for step in text.split(self.separator) if step.strip()]

    def branch(self, steps: Sequence[str]) -> Branch:
        """The steps as one completion, with the places where they end."""
        ids = [(*step, *self.separator_ids) for step in self._ids([step.strip() for step in steps])]
        return Branch(tuple(token for step in ids for token in step), ends=tuple(accumulate(len(step) for step in ids)))

    def unit(self, prompt: str | Sequence[Message], solution: str | Sequence[str]) -> Unit:
        """A solution to score.

        Args:
            prompt: text of the user, or a chat that ends with the question.
            solution: its steps, or a text that is split into them.
        Raises:
            DataError: if it has no step.
        """
        turns = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        return self._scored(tuple(self.renderer.prompt_ids(turns)), solution)

    def rollout(self, rollout: Rollout) -> Unit:
        """A sampled answer to score: its text, split into steps. Where it was cut off, so is its last step.

        Raises:
            DataError: if it has no step.
        """
        return self._scored(rollout.prompt_ids, rollout.text)

    def ends_in(self, rollout: Rollout) -> tuple[int, ...]:
        """After how many tokens of a sampled answer each of its steps ends, its separator included: the first that have written it.

        The last step ends with the answer. Ascending; steps that one token ends together share their place.
        """
        ids, written = rollout.completion_ids, [0]
        for count in range(1, len(ids) + 1):
            written.append(len(self.renderer.decode(list(ids[:count])).rstrip("\ufffd")))  # a character may take several tokens
        ends: list[int] = []
        position = 0
        for piece in rollout.text.split(self.separator):
            position += len(piece) + len(self.separator)
            if piece.strip():
                ends.append(next((count for count, length in enumerate(written) if length >= position), len(ids)))
        return (*ends[:-1], len(ids))

    def labelled(self, example: Example, targets: Sequence[int | None]) -> Unit | None:
        """A solution to learn from, its `targets` in `data`, ending with its last labelled step: nothing behind it can matter.

        Where prompt and steps exceed `max_length`, whole steps are cut from the end with their labels; the prompt never is. None: no
        labelled step is left. Both are counted in the renderer's report.

        Args:
            targets: the class of each step; None where there is nothing to learn.
        Raises:
            DataError: naming the row, if steps and targets differ in number or a step is blank.
        """
        report = self.renderer.report
        steps = [message.content for message in example.completions[0].messages]
        where = example.where or "row"
        if len(steps) != len(targets):
            raise DataError(f"{where} has {len(steps)} steps and {len(targets)} labels; it needs one label a step.")
        blank = next((number for number, step in enumerate(steps, start=1) if not step.strip()), None)
        if blank:
            raise DataError(f"{where}: step {blank} is empty. Remove it with its label, or fix its text.")
        inside = sum(self.separator in step.strip() for step in steps)
        if inside:
            report[f"steps have the separator {self.separator!r} inside (split from a text they would be several)"] += inside
        wanted = _last_labelled(targets)
        if not wanted:
            report["solutions left out: no labelled step"] += 1
            return None
        try:
            prompt_ids = self.renderer.prompt_ids(example.prompt, example.columns)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        branch = self.branch(steps[:wanted])
        fitting = sum(self.renderer.max_length is None or len(prompt_ids) + end <= self.renderer.max_length for end in branch.places)
        kept = _last_labelled(targets[:fitting])
        if not kept:
            report["solutions left out: no labelled step within max_length"] += 1
            return None
        if fitting < wanted:
            report["solutions cut after a whole step"] += 1
            report["steps cut off with their labels"] += wanted - fitting
        ends, targets = branch.places[:kept], tuple(targets[:kept])
        learned = {end - 1 for end, target in zip(ends, targets, strict=True) if target is not None}
        ids = branch.ids[: ends[-1]]
        counted = tuple(position in learned for position in range(len(ids)))
        data: dict[str, Any] = {"example": example, "targets": targets}
        # Solutions with the same text may end at different labels: an id is of the steps that are there.
        return Unit(tuple(prompt_ids), (Branch(ids, counted, ends),), f"{example.id}:{kept}", data)

    def _scored(self, prompt_ids: tuple[int, ...], solution: str | Sequence[str]) -> Unit:
        steps = self.split(solution) if isinstance(solution, str) else [step for step in solution if step.strip()]
        if not steps:
            raise DataError("A solution without a step cannot be scored. Leave it out, or look at what was sampled.")
        return Unit(prompt_ids, (self.branch(steps),))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.renderer.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def _last_labelled(targets: Sequence[int | None]) -> int:
    """How many steps there are up to the last labelled one, that one included; 0 if there is none."""
    return max((number for number, target in enumerate(targets, start=1) if target is not None), default=0)
