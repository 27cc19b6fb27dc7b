"""Every other measure of a round's labels: coefficients beside alpha, who confuses what with what, ratings and steps, and which model wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from accord.annotation.agreement import Agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha, percent_agreement
from accord.annotation.binomial import Rate, rate
from accord.annotation.dawid_skene import DawidSkene
from accord.annotation.judgements import TIE, Judgement, Value, counted, part_of
from accord.annotation.stopping import Decision, decide
from accord.data.annotation_examples import step_labels
from accord.types import Annotation, Arm, Task

PAIRS_OF_PEOPLE = 10
"""Pairs of annotators whose kappa is shown: those with most tasks in common."""
LEAST_IN_COMMON = 10
"""Tasks that two annotators need in common for a kappa."""
DRAWS = 500
"""Of the bootstraps here."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two annotators."""

    first: str
    second: str
    value: Agreement


@dataclass(frozen=True)
class Confusion:
    """What an annotator says where a value is true, as the model of Dawid and Skene has it."""

    annotator: str
    values: tuple[Value, ...]
    shares: tuple[tuple[float, ...], ...]
    """A row a true value, a column a value said; rows sum to 1."""


@dataclass(frozen=True)
class Contest:
    """Two models whose answers were compared, tasks that chance chose alone."""

    first: str
    second: str
    wins: int
    """Of the first."""
    ties: int
    losses: int
    decision: Decision


@dataclass(frozen=True)
class ArmLabels:
    """What people said of the pairs that chance chose, or of those that a rule chose."""

    arm: Arm
    judgements: int
    ties: Rate
    """Ties and both bad. A rule that asks what is hard to tell gets more of them."""
    same: Agreement
    """Share of pairs of judgements that say the same, ties included."""


@dataclass(frozen=True)
class Measures:
    """What the panel shows beside alpha."""

    fleiss: Agreement
    cohen: tuple[Kappa, ...]
    ratings: Agreement
    """Krippendorff's alpha of ratings, a step on the scale of seven as far as any other; those of single turns count each."""
    steps: Agreement
    """Krippendorff's alpha of step labels, wrong, neutral and right in that order; each step is an item."""
    confusions: tuple[Confusion, ...]
    contests: tuple[Contest, ...]
    arms: tuple[ArmLabels, ...]
    """Chance's and the rule's; empty where chance alone chose."""


def measures(
    judgements: Sequence[Judgement], annotations: Sequence[Annotation], tasks: Mapping[str, Task], fitted: DawidSkene | None
) -> Measures:
    """The measures of a round.

    Args:
        judgements: its comparisons.
        annotations: its valid annotations by people, without adjudications.
        tasks: by id.
        fitted: the model of its comparisons; None: there were too few.
    """
    return Measures(
        fleiss=fleiss_kappa(judgements, draws=DRAWS),
        cohen=tuple(kappas(judgements)),
        ratings=krippendorff_alpha(ratings_of(annotations), scale="interval", draws=DRAWS),
        steps=krippendorff_alpha(steps_of(annotations, tasks), scale="ordinal", draws=DRAWS),
        confusions=() if fitted is None else tuple(confusions(fitted)),
        contests=tuple(contests(annotations, tasks)),
        arms=tuple(arms(judgements, annotations)),
    )


def kappas(judgements: Sequence[Judgement]) -> list[Kappa]:
    """Cohen's kappa of the pairs of annotators with most tasks in common."""
    kept = counted(judgements)
    items: dict[str, set[str]] = {}
    for one in kept:
        items.setdefault(one.annotator, set()).add(one.item)
    common = [(len(items[first] & items[second]), first, second) for first, second in combinations(sorted(items), 2)]
    chosen = sorted((found for found in common if found[0] >= LEAST_IN_COMMON), key=lambda found: (-found[0], found[1:]))
    return [Kappa(first, second, cohen_kappa(kept, (first, second), draws=DRAWS)) for _, first, second in chosen[:PAIRS_OF_PEOPLE]]


def ratings_of(annotations: Iterable[Annotation]) -> list[Judgement]:
    """Ratings of answers, and of the turns of conversations, as judgements."""
    found: list[Judgement] = []
    for one in annotations:
        if one.kind == "rating":
            found.append(_numbered(one, one.task, one.value["rating"]))
        elif one.kind == "chat":
            rated = [turn for turn in cast("list[dict[str, Any]]", one.value.get("turns", ())) if "rating" in turn]
            found += [_numbered(one, f"{one.task}:turn{turn['turn']}", turn["rating"]) for turn in rated]
    return found


def steps_of(annotations: Iterable[Annotation], tasks: Mapping[str, Task]) -> list[Judgement]:
    """Labels of steps as judgements, a step an item; steps that were not judged are skipped."""
    found: list[Judgement] = []
    for one in annotations:
        if one.kind == "steps" and one.value.keys() & {"labels", "first_error"}:
            labels = step_labels(one.value, len(tasks[one.task].completions[0].messages))
            found += [_numbered(one, f"{one.task}:step{step}", label) for step, label in enumerate(labels)]
    return found


def _numbered(one: Annotation, item: str, value: int | None) -> Judgement:
    again = one.purpose == "repeat"
    return Judgement(f"{item}:repeat" if again else item, one.annotator, value, seconds=one.seconds, repeat_of=item if again else None)


def confusions(fitted: DawidSkene) -> list[Confusion]:
    """What each annotator says where each value is true."""
    table = fitted.table
    return [
        Confusion(name, table.values, tuple(tuple(float(share) for share in row) for row in fitted.confusion[index]))
        for index, name in enumerate(table.annotators)
    ]


def arms(judgements: Sequence[Judgement], annotations: Iterable[Annotation]) -> list[ArmLabels]:
    """What was said of each arm's pairs, repeats and pairs of known answer left out; empty where a rule chose none."""
    chosen: dict[tuple[str, str], Arm] = {
        (one.task, one.annotator): one.arm for one in annotations if one.purpose in ("work", "calibration")
    }
    said: dict[Arm, list[Judgement]] = {"random": [], "selected": []}
    for one in counted(judgements):
        arm = chosen.get((part_of(one.item).task, one.annotator))
        if arm is not None and one.gold is None:
            said[arm].append(one)
    if not said["selected"]:
        return []
    return [
        ArmLabels(arm, len(found), rate(sum(one.value == TIE for one in found), len(found)), percent_agreement(found, draws=DRAWS))
        for arm, found in said.items()
    ]


def contests(annotations: Iterable[Annotation], tasks: Mapping[str, Task]) -> list[Contest]:
    """How often each model's answer was preferred to another's, and whether that is enough to stop; most compared first."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for one in annotations:
        models = [str(completion.source.get("model", "")) for completion in tasks[one.task].completions]
        if one.kind != "pair" or one.arm != "random" or one.purpose not in ("work", "calibration") or "choice" not in one.value:
            continue
        if not all(models) or models[0] == models[1]:
            continue
        first, second = sorted(models)
        choice = one.value["choice"]
        won = "ties" if choice in ("tie", "both_bad") else "wins" if models[choice] == first else "losses"
        counts.setdefault((first, second), Counter())[won] += 1
    found = [
        Contest(first, second, one["wins"], one["ties"], one["losses"], decide(one["wins"], one["ties"], one["losses"]))
        for (first, second), one in counts.items()
    ]
    return sorted(found, key=lambda contest: -(contest.wins + contest.ties + contest.losses))
