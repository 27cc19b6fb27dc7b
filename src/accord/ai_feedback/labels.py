"""Comparisons labelled by a judge: preference rows with soft labels, who said so and how, and what the verdicts look like together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accord.ai_feedback.asking import OUT_OF_BUDGET
from accord.ai_feedback.calibration import Calibration
from accord.ai_feedback.check import first_bias, position_consistency
from accord.ai_feedback.judges import Judge
from accord.ai_feedback.verdicts import Verdict, as_record, comparison_of
from accord.ai_feedback.win_rates import length_controlled, prediction_powered, win_rate
from accord.audit.detectors import word_count
from accord.errors import DataError
from accord.evaluation.intervals import Interval
from accord.types import Example

COLUMN = "judge"
"""Column of the rows written that says how the label came about."""
_OF_OTHER_LABELS = ("annotator", "label_source", "annotation_id", "task_id", "guideline_version", "arm", "strength_level", COLUMN)
"""Columns that belong to the label which a row had before."""


@dataclass
class Labels:
    """What a judge said of some rows."""

    rows: list[Example] = field(default_factory=list[Example])
    """Those with a valid verdict, the preferred answer first."""
    invalid: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The others: where the row stands, why, and all that was said."""
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    """One a row, in their order."""

    @property
    def unasked(self) -> int:
        """Rows that a budget left out."""
        return sum(verdict.invalid == OUT_OF_BUDGET for verdict in self.verdicts)


def judge_rows(
    rows: Sequence[Example],
    judge: Judge,
    *,
    calibration: Calibration = Calibration(),
    more: dict[str, Any] | None = None,
    together: int = 64,
    tell: Callable[[str], None] | None = None,
) -> Labels:
    """Ask a judge about preferences (whose labels it does not see).

    Args:
        calibration: applied to the averaged probability, before what is inconsistent is drawn to a tie.
        more: further things to note in every row.
        together: rows that are asked at a time.
        tell: called with a line on how far it is.
    """
    found = Labels()
    about = {**judge.about(), "calibration": calibration.kind, **(more or {})}
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        for row, verdict in zip(part, judge.compare([comparison_of(row) for row in part]), strict=True):
            found.verdicts.append(verdict)
            if verdict.probability is None:
                found.invalid.append(
                    {"row": row.where, "prompt_id": row.prompt_id, "why": verdict.invalid, COLUMN: {**about, **as_record(verdict)}}
                )
            else:
                found.rows.append(labelled_row(row, calibrated(verdict, calibration), {**about, **as_record(verdict)}))
        if tell is not None:
            tell(f"{len(found.verdicts)} of {len(rows)} comparisons judged, {len(found.invalid)} without a valid verdict.")
    return found


def calibrated(verdict: Verdict, calibration: Calibration) -> Verdict:
    """The verdict with its probability put through a calibration."""
    return verdict if verdict.probability is None else replace(verdict, probability=calibration(verdict.probability))


def labelled_row(row: Example, verdict: Verdict, record: dict[str, Any]) -> Example:
    """A preference with the judge's soft label in place of its own; the better answer stands first.

    Args:
        record: how the label came about; `first` is added: which answer of the row the record calls first.
    """
    label = verdict.soft_label
    assert label is not None
    turned = label < 0.5
    first, second = row.completions
    kept = {name: value for name, value in row.columns.items() if name not in _OF_OTHER_LABELS}
    said = {"annotator": verdict.judge, "label_source": verdict.source, COLUMN: {**record, "first": "rejected" if turned else "chosen"}}
    return replace(
        row,
        completions=(second, first) if turned else (first, second),
        probability=1 - label if turned else label,
        strength=None,
        columns={**kept, **said},
    )


# -- what the verdicts look like together ------------------------------------------------------------------------------------------


def summary(labels: Labels) -> list[tuple[str, str]]:
    """Lines for people: names and values."""
    verdicts = labels.verdicts
    readings = [reading for verdict in verdicts for reading in verdict.readings]
    found = [("comparisons judged", f"{len(labels.rows)} of {len(verdicts)}")]
    found += [
        (f"invalid: {reason}", str(count))
        for reason, count in Counter(verdict.invalid for verdict in verdicts if verdict.invalid).most_common()
    ]
    consistency, bias = position_consistency(verdicts), first_bias(verdicts)
    if consistency is not None and bias is not None:
        found.append(("same winner in both orders", _share(consistency)))
        found.append(("p(the answer shown first)", f"{bias:.3f} (0.5 is no bias)"))
    choices = [verdict.choice for verdict in verdicts if verdict.probability is not None]
    found.append(("ties", str(choices.count(None))))
    tokens, cost = sum(reading.prompt_tokens + reading.completion_tokens for reading in readings), sum(reading.cost for reading in readings)
    if tokens:
        found.append(("tokens of these answers", f"{tokens}" + (f", cost {cost:.4f}" if cost else "")))
    return found


@dataclass(frozen=True)
class Side:
    """A comparison between two models, seen from the first."""

    probability: float
    """That the first model's answer is better."""
    lengths: tuple[int, int]
    """Words of the first model's answer and of the second's."""


def models_of(rows: Sequence[Example]) -> tuple[str, str] | None:
    """The two models whose answers are compared in every row, by the answers' sources; None where there are others, or sources are missing."""
    found = {tuple(sorted(str(completion.source.get("model", "")) for completion in row.completions)) for row in rows}
    if len(found) != 1:
        return None
    first, second = found.pop()
    return (first, second) if first and first != second else None


def sides(rows: Sequence[Example], first: str) -> list[Side]:
    """Preferences between two models, seen from one of them."""
    made: list[Side] = []
    for row in rows:
        chosen = 1.0 if row.probability is None else row.probability
        is_first = row.completions[0].source.get("model") == first
        words = [word_count(completion.text) for completion in row.completions]
        made.append(Side(chosen, (words[0], words[1])) if is_first else Side(1 - chosen, (words[1], words[0])))
    return made


def win_rates(judged: Sequence[Example], both: Sequence[tuple[Example, Example]] = (), *, seed: int = 0) -> list[tuple[str, str]]:
    """Lines on how often one model's answer is better than the other's, where the rows compare two models; none elsewhere.

    Args:
        judged: rows that the judge labelled.
        both: rows that people labelled, and the same as the judge labels them; drawn at random from the same comparisons.
    """
    models = models_of([*judged, *(row for pair in both for row in pair)]) if judged else None
    if models is None:
        return []
    seen = sides(judged, models[0])
    name = f"{models[0]} beats {models[1]}"
    found = [(name, _share(win_rate([side.probability for side in seen], seed=seed)))]
    try:
        rate, used = length_controlled(
            [side.probability for side in seen], [side.lengths[0] for side in seen], [side.lengths[1] for side in seen], seed=seed
        )
        found.append(("  at equal length", f"{_share(rate)}, from {used} comparisons"))
    except DataError:
        found.append(("  at equal length", "unknown: one of them always answers at greater length"))
    if both:
        human, too = (sides(rows, models[0]) for rows in zip(*both, strict=True))
        powered = prediction_powered(*([side.probability for side in some] for some in (seen, too, human)))
        found.append(("  corrected by people", f"{_share(powered)}, who judged {len(both)}"))
    return found


def _share(interval: Interval) -> str:
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"
