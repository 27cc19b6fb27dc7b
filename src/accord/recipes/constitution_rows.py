"""What Constitutional AI begins with: prompts to practise on, prompts that are held out, helpful demonstrations to mix in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accord.ai_feedback.constitution import HARMFUL, is_harmful
from accord.config.constitution import ConstitutionOptions
from accord.errors import DataError
from accord.methods.prompts import KINDS
from accord.recipes import demo_rows
from accord.recipes.align import MIN_PROMPTS
from accord.rollouts.random import shuffled
from accord.training.setup import examples, say
from accord.types import Example, content_hash

HELPFUL_SLICES = ("plain", "flattery", "safe")
"""Of the packaged demonstrations: those that ask for nothing harmful."""
HARM, SAFE = "harmful", "safe"
"""Slices of the prompts, as the packaged data and the report call them."""


@dataclass(frozen=True)
class ConstitutionRows:
    """The rows of one run. Prompts say in `harmful` whether they ask for harm."""

    practice: list[Example]
    heldout: list[Example]
    helpful: list[Example]

    @property
    def red_team(self) -> list[Example]:
        """Prompts whose answers are criticised."""
        return [row for row in self.practice if row.columns[HARMFUL]]

    def compared(self, seed: int) -> list[Example]:
        """Prompts whose answers are compared: all to practise on, and prompts of helpful demonstrations until as many are harmless as not."""
        harmless = len(self.practice) - len(self.red_team)
        missing = max(0, len(self.red_team) - harmless)
        there = {row.prompt_id for row in self.practice}
        others = [row for row in {row.prompt_id: row for row in self.helpful}.values() if row.prompt_id not in there]
        added = [others[index] for index in shuffled(len(others), "harmless prompts", seed)[:missing]]
        return [*self.practice, *(as_asked(row, harmful=False) for row in added)]


def as_asked(row: Example, *, harmful: bool | None = None) -> Example:
    """The prompt of a row, with `harmful` and its slice in its columns.

    Args:
        harmful: True or False says it of the row. None reads the row's column; a row that says nothing asks for harm.
    Raises:
        DataError: naming the row, if its column holds something else.
    """
    said = is_harmful(row.columns, row.where) if harmful is None else harmful
    said = True if said is None else said
    columns = {"slice": HARM if said else SAFE, **row.columns, HARMFUL: said}
    return Example("prompt", row.prompt, plain=row.plain, columns=columns, where=row.where)


def rows_of(options: ConstitutionOptions) -> ConstitutionRows:
    """The user's prompts, a fifth of them held out by a hash of the prompt, beside the harmless ones on which refusals are counted.

    Raises:
        DataError: if there are too few prompts, or none asks for harm.
    """
    read = examples(options.data, kinds=KINDS, what="--data", columns=options.columns)[: options.limit]
    prompts = list({row.prompt_id: as_asked(row) for row in read}.values())
    if len(prompts) < MIN_PROMPTS:
        raise DataError(
            f"{options.data} has {len(prompts)} different prompts; accord constitution needs {MIN_PROMPTS} or more to hold a fifth of them out."
        )
    ordered = sorted((row.prompt_id for row in prompts), key=lambda name: content_hash(["held out", name]))
    held = set(ordered[: max(2, len(prompts) // 5)])
    practice, heldout = ([row for row in prompts if (row.prompt_id in held) is side] for side in (False, True))
    if not any(row.columns[HARMFUL] for row in practice) or not any(row.columns[HARMFUL] for row in heldout):
        raise DataError(
            f"{options.data}: too few prompts ask for harm (column {HARMFUL}: true, or no such column) to practise and to test."
        )
    found = ConstitutionRows(practice, _unseen([*heldout, *_safe(options.safe)], practice), _helpful(options.helpful))
    return replace(found, helpful=_unseen(found.helpful, found.heldout))


def packaged(probes: int) -> ConstitutionRows:
    """The rows of the demo, with so many held-out prompts of each slice."""
    held = [row for row in demo_rows.heldout_prompts(probes) if row.columns["slice"] in (HARM, SAFE, "plain")]
    heldout = [as_asked(row, harmful=row.columns["slice"] == HARM) for row in held]
    return ConstitutionRows([as_asked(row) for row in demo_rows.constitution_prompts()], heldout, _helpful(None))


def _safe(source: str | None) -> list[Example]:
    if source is not None:
        return [as_asked(row, harmful=False) for row in examples(source, kinds=KINDS, what="--safe")]
    return [as_asked(row, harmful=False) for row in demo_rows.heldout_prompts() if row.columns["slice"] == SAFE]


def _helpful(source: str | None) -> list[Example]:
    if source is not None:
        return examples(source, kinds=("demonstration",), what="--helpful")
    return [row for row in demo_rows.demonstrations() if row.columns["slice"] in HELPFUL_SLICES]


def _unseen(rows: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """The rows whose prompt is not among the others'; how many are left out is said."""
    there = {row.prompt_id for row in others}
    kept = [row for row in rows if row.prompt_id not in there]
    if len(kept) < len(rows):
        say(f"{len(rows) - len(kept)} rows are left out: their prompts would be both practised and held out.")
    return kept
