"""Is a judge worth asking: its verdicts against those of people, in both orders, before anybody uses it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accord.ai_feedback.calibration import Calibration, best_calibration, calibration_error, cross_fitted
from accord.ai_feedback.judges import Judge
from accord.ai_feedback.verdicts import Comparison, Verdict, comparison_of
from accord.annotation.agreement import cohen_kappa
from accord.annotation.judgements import TIE, Judgement
from accord.data.read import read_located, read_source
from accord.errors import DataError
from accord.evaluation.intervals import Interval, paired_bootstrap, wilson
from accord.types import Example, content_hash

LOWEST_ACCURACY = 0.65
"""Both-order accuracy below which a judge is called noise, whatever its interval."""
HIGHEST_INVALID = 0.1
"""Share of comparisons without a valid verdict above which its accuracy on the others says little."""
NOISE, USABLE = "noise", "usable"


@dataclass(frozen=True)
class Labelled:
    """A comparison that people judged."""

    comparison: Comparison
    human: float
    """Share of people who prefer the first answer; 0.5 is a tie."""


@dataclass(frozen=True)
class Measured:
    """A judge on one data set."""

    data: str
    count: int
    invalid: dict[str, int]
    """How often there was no valid verdict, by reason."""
    accuracy: Interval | None
    """Both-order accuracy on pairs of which people preferred one: right 1, wrong 0, a tie or an inconsistent verdict 0.5, which is the mean
    of the two orders'. None: there are no such verdicts."""
    consistency: Interval | None
    """Share with the same winner in both orders (Wilson). None where order plays no part, or there is no verdict."""
    first_bias: float | None
    """Mean probability that the answer shown first is better; 0.5 is no bias."""
    prefers_longer: float | None
    """Share of its choices that are the longer answer."""
    longer_accuracy: float | None
    """Accuracy of always choosing the longer answer, on the pairs of `accuracy`: what length alone explains."""
    kappa: float | None
    """Cohen's kappa with people over first, second and tie."""
    kappa_low: float | None
    kappa_high: float | None
    calibration_error: float | None
    """Expected calibration error of its probabilities on the pairs of `accuracy`."""
    calibrated_error: float | None
    """The same after the calibration, fitted on other folds."""
    calibration: Calibration
    mass: float | None
    """Mean probability of saying one of the options at all; None where verdicts were read from text or by rule."""
    tokens: int
    cost: float
    seconds: float

    @property
    def doubts(self) -> list[str]:
        """Why the judge is noise, in words; none where it is usable."""
        if self.accuracy is None:
            return ["it has no valid verdict on a pair of which people preferred one answer"]
        failed, right = sum(self.invalid.values()), f"{100 * self.accuracy.mean:.0f} %"
        found = [
            (self.accuracy.low <= 0.5, f"its interval reaches down to chance ({self.accuracy.low:.3f})"),
            (self.accuracy.mean < LOWEST_ACCURACY, f"over both orders it is right in {right}, under {100 * LOWEST_ACCURACY:.0f} %"),
            (failed > HIGHEST_INVALID * self.count, f"{failed} of {self.count} comparisons have no valid verdict"),
        ]
        return [words for holds, words in found if holds]

    @property
    def word(self) -> str:
        """noise, or usable."""
        return NOISE if self.doubts else USABLE

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {**dataclasses.asdict(self), "calibration": self.calibration.to_dict(), "word": self.word}


def readable(source: str, columns: Mapping[str, str] | None = None) -> tuple[list[Example], list[DataError]]:
    """The rows of a file that can be read, and why the others cannot: PandaLM's test set has answers that are no text.

    Raises:
        DataError: if there is no file, or none of its rows can be read.
    """
    errors: list[DataError] = []
    found = [row for _, row in read_located(read_source(source, on_error=errors.append), columns=columns, on_error=errors.append)]
    if not found and errors:
        raise errors[0]
    return found, errors


def labelled(rows: Sequence[Example]) -> list[Labelled]:
    """Preferences as comparisons, the better answer first in about half of them: which, follows from the row's content."""
    found: list[Labelled] = []
    for row in rows:
        comparison, human = comparison_of(row), 1.0 if row.probability is None else row.probability
        turned = int(content_hash(["side", row.id], 2), 16) % 2
        found.append(Labelled(comparison.swapped, 1 - human) if turned else Labelled(comparison, human))
    return found


def measure(
    judge: Judge, rows: Sequence[Labelled], data: str, *, seed: int = 0, together: int = 64, tell: Callable[[str], None] | None = None
) -> Measured:
    """Ask the judge about comparisons that people judged, and compare.

    Args:
        together: comparisons that are asked at a time.
        tell: called with a line on how far it is.
    """
    begun, verdicts = time.monotonic(), list[Verdict]()
    for start in range(0, len(rows), together):
        verdicts += judge.compare([row.comparison for row in rows[start : start + together]])
        if tell is not None:
            tell(f"{data}: {len(verdicts)} of {len(rows)} comparisons judged.")
    return summarised(verdicts, rows, data, seconds=time.monotonic() - begun, seed=seed)


def summarised(verdicts: Sequence[Verdict], rows: Sequence[Labelled], data: str, *, seconds: float = 0.0, seed: int = 0) -> Measured:
    """Verdicts against what people said of the same comparisons."""
    valid = [(verdict, row) for verdict, row in zip(verdicts, rows, strict=True) if verdict.probability is not None]
    decided = [(verdict, row) for verdict, row in valid if row.human != 0.5]
    towards = [_towards_human(verdict, row) for verdict, row in decided]
    calibration = best_calibration(towards)
    kappa = cohen_kappa(_judgements(valid), seed=seed)
    readings = [reading for verdict in verdicts for reading in verdict.readings]
    masses = [reading.mass for reading in readings if reading.mass is not None]
    return Measured(
        data,
        len(rows),
        dict(Counter(verdict.invalid for verdict in verdicts if verdict.invalid)),
        paired_bootstrap([_right(verdict, row) for verdict, row in decided], seed=seed) if decided else None,
        position_consistency(verdicts),
        first_bias(verdicts),
        _longer_share([(verdict.choice, row) for verdict, row in valid if verdict.choice is not None]),
        _longer_share([(0 if row.human > 0.5 else 1, row) for _, row in decided]),
        kappa.value,
        kappa.low,
        kappa.high,
        calibration_error(towards) if towards else None,
        calibration_error(cross_fitted(calibration.kind, towards)) if towards and calibration.kind != "none" else None,
        calibration,
        sum(masses) / len(masses) if masses else None,
        sum(reading.prompt_tokens + reading.completion_tokens for reading in readings),
        sum(reading.cost for reading in readings),
        seconds,
    )


def position_consistency(verdicts: Sequence[Verdict]) -> Interval | None:
    """Share of verdicts with the same winner in both orders; None where there are none that were asked in both."""
    asked = [verdict for verdict in verdicts if verdict.probability is not None and _in_both_orders(verdict)]
    return wilson(sum(verdict.consistent for verdict in asked) / len(asked), len(asked)) if asked else None


def first_bias(verdicts: Sequence[Verdict]) -> float | None:
    """Mean probability that the answer shown first is better, over both orders of all comparisons; None as for `position_consistency`."""
    shown = [
        reading.value
        for verdict in verdicts
        if verdict.probability is not None and _in_both_orders(verdict)
        for reading in verdict.readings
        if reading.value is not None
    ]
    return sum(shown) / len(shown) if shown else None


def table(found: Sequence[Measured]) -> str:
    """The measurements for people, a line a data set."""
    header = ("data", "pairs", "invalid", "accuracy (95 %)", "consistent", "p(first)", "longer", "length alone", "kappa", "ECE", "verdict")
    lines = [header, *(_cells(one) for one in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(one: Measured) -> tuple[str, ...]:
    accuracy = "none" if one.accuracy is None else f"{one.accuracy.mean:.3f} ({one.accuracy.low:.3f} to {one.accuracy.high:.3f})"
    error = _number(one.calibration_error) + (
        "" if one.calibrated_error is None else f", {one.calibration.kind} {one.calibrated_error:.3f}"
    )
    return (
        one.data,
        str(one.count),
        str(sum(one.invalid.values())),
        accuracy,
        _number(one.consistency and one.consistency.mean),
        _number(one.first_bias),
        _number(one.prefers_longer),
        _number(one.longer_accuracy),
        _number(one.kappa),
        error,
        one.word,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _in_both_orders(verdict: Verdict) -> bool:
    return [reading.asked for reading in verdict.readings] == ["first, second", "second, first"]


def _towards_human(verdict: Verdict, row: Labelled) -> float:
    """The probability that the judge gives to the answer that people preferred."""
    assert verdict.probability is not None
    return verdict.probability if row.human > 0.5 else 1 - verdict.probability


def _right(verdict: Verdict, row: Labelled) -> float:
    return 0.5 if verdict.choice is None else float((verdict.choice == 0) == (row.human > 0.5))


def _longer_share(choices: Sequence[tuple[int | None, Labelled]]) -> float | None:
    """Share of choices that are the longer answer; None where lengths never differ."""
    unequal = [(choice, row.comparison) for choice, row in choices if len(row.comparison.first) != len(row.comparison.second)]
    longer = [(choice == 0) == (len(one.first) > len(one.second)) for choice, one in unequal]
    return sum(longer) / len(longer) if longer else None


def _judgements(valid: Sequence[tuple[Verdict, Labelled]]) -> list[Judgement]:
    found: list[Judgement] = []
    for index, (verdict, row) in enumerate(valid):
        human = TIE if row.human == 0.5 else 0 if row.human > 0.5 else 1
        said = TIE if verdict.choice is None else verdict.choice
        found += [Judgement(str(index), "people", human), Judgement(str(index), "judge", said)]
    return found
