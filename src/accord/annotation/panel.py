"""Whether to trust the labels of a round: agreement, each annotator's habits, what to look at together. From the store to the statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from accord.annotation.agreement import Agreement, krippendorff_alpha, percent_agreement
from accord.annotation.copying import CommonAnswers, suspects
from accord.annotation.dawid_skene import fit_dawid_skene, majority_accuracy
from accord.annotation.disputes import Dispute, disputes
from accord.annotation.judgements import TIE, Judgement, Value
from accord.annotation.measures import Measures, measures
from accord.annotation.people import UNSIGNED
from accord.annotation.quality import AnnotatorReport, annotator_report, annotator_reports, key_chances
from accord.annotation.store import Store
from accord.data.annotation_values import ERASED
from accord.types import Annotation, Task

LEAST_FOR_MODEL = 20
"""Items judged by two or more before annotators' accuracies are estimated."""
COMPARISONS = ("pair", "ranking")


@dataclass(frozen=True)
class Reported:
    """A task that somebody says nobody should judge."""

    task: str
    reasons: tuple[str, ...]
    retired: bool
    """Whether it is given to nobody any more."""


@dataclass(frozen=True)
class Panel:
    """What a round's labels are worth."""

    round: int
    judgements: int
    alpha: Agreement
    """Krippendorff's, ties a value of their own."""
    same: Agreement
    """Share of pairs of judgements that say the same."""
    same_decided: Agreement
    """The same without ties."""
    annotators: tuple[AnnotatorReport, ...]
    accuracies: dict[str, float]
    """Estimated by Dawid and Skene's model, gold items known; empty where too few items were judged twice."""
    copying: tuple[CommonAnswers, ...]
    """Pairs of annotators who give the same answers more often than both being good explains."""
    queue: tuple[Dispute, ...]
    """Tasks that nobody has settled, the furthest apart first."""
    reported: tuple[Reported, ...]
    """In the order in which they were reported; those that somebody settled are left out."""
    words: tuple[str, ...]
    measures: Measures


def judgements_of(annotations: Iterable[Annotation], tasks: Mapping[str, Task]) -> list[Judgement]:
    """Comparisons as judgements, in the order given. Other kinds are left out; a ranking gives one for each two of its answers, and two conversations
    one for each turn that was judged.

    Args:
        annotations: valid ones.
        tasks: by id.
    """
    found: list[Judgement] = []
    for one in annotations:
        task = tasks[one.task]
        if one.kind == "pair":
            found.append(_judgement(one, task, _choice(one.value), (0, 1), ""))
        elif one.kind == "ranking":
            ranks = cast("list[int]", one.value["ranks"])
            for first in range(len(ranks)):
                for second in range(first + 1, len(ranks)):
                    value: Value = TIE if ranks[first] == ranks[second] else int(ranks[second] < ranks[first])
                    found.append(_judgement(one, task, value, (first, second), f":{first}-{second}"))
        elif one.kind == "chat" and len(task.completions) == 2:
            for turn in cast("list[dict[str, object]]", one.value["turns"]):
                found.append(_judgement(one, task, _choice(turn), (0, 1), f":turn{turn['turn']}"))
        elif one.kind == "skip" and task.kind in COMPARISONS:
            found.append(_judgement(one, task, None, (0, 1), ""))
    return found


def _choice(value: Mapping[str, object]) -> Value:
    choice = value["choice"]
    return TIE if choice == "both_bad" else cast("Value", choice)


def _judgement(one: Annotation, task: Task, value: Value | None, of: tuple[int, int], suffix: str) -> Judgement:
    """What was said of two of the task's answers, which become 0 and 1."""
    item = f"{one.task}{suffix}"
    gold = None
    if task.gold is not None and task.kind in COMPARISONS:
        gold = _choice(task.gold) if task.kind == "pair" else _of_ranks(cast("list[int]", task.gold["ranks"]), of)
    order = [of.index(index) for index in one.shown_order if index in of]
    return Judgement(
        item=f"{item}:repeat" if one.purpose == "repeat" else item,
        annotator=one.annotator,
        value=value,
        seconds=one.seconds,
        shown_order=tuple(order) if len(order) == 2 else None,
        lengths=tuple(len(task.completions[index].text) for index in of),
        gold=gold,
        repeat_of=item if one.purpose == "repeat" else None,
    )


def _of_ranks(ranks: list[int], of: tuple[int, int]) -> Value:
    first, second = (ranks[index] for index in of)
    return TIE if first == second else int(second < first)


def panel(store: Store, round: int | None = None) -> Panel:
    """The panel of a round's valid annotations by people who are known apart. round: None is the newest."""
    number = store.progress(round).round
    tasks = {task.id: task for task in store.tasks(round=number)}
    annotations = [one for one in store.annotations(round=number) if one.source in ("human", "simulated")]
    settled = {one.task for one in annotations if one.purpose == "adjudication"}
    usable = [one for one in annotations if one.purpose != "adjudication" and one.value != ERASED]
    judged = [one for one in usable if not one.annotator.startswith(UNSIGNED)]
    judgements = judgements_of(judged, tasks)
    alpha, same, decided = krippendorff_alpha(judgements), percent_agreement(judgements), percent_agreement(judgements, without={TIE})
    accuracies: dict[str, float] = {}
    fitted = None
    if alpha.items >= LEAST_FOR_MODEL and alpha.reason is None:
        known = {one.item: one.gold for one in judgements if one.gold is not None}
        fitted = fit_dawid_skene(judgements, known=known)
        accuracies = fitted.accuracy
    return Panel(
        round=number,
        judgements=sum(one.value is not None for one in judgements),
        alpha=alpha,
        same=same,
        same_decided=decided,
        annotators=tuple(annotator_reports(judgements)) if judgements else (),
        accuracies=accuracies,
        copying=tuple(suspects(judgements)) if judgements else (),
        queue=tuple(disputes(judgements, judged, tasks, settled=settled)),
        reported=tuple(
            reports([one for one in usable if one.task not in settled], {task.id for task in store.tasks(round=number, state="retired")})
        ),
        words=(*said(alpha, decided), *_unsigned(len(usable) - len(judged))),
        measures=measures(judgements, judged, tasks, fitted),
    )


def reports(annotations: Iterable[Annotation], retired: Collection[str]) -> list[Reported]:
    """The tasks that somebody reported, with every reason that was given.

    Args:
        annotations: valid ones, none erased.
        retired: ids of tasks that are given to nobody.
    """
    reasons: dict[str, list[str]] = {}
    for one in annotations:
        if one.kind == "flag":
            reasons.setdefault(one.task, []).append(str(one.value["reason"]))
    return [Reported(task, tuple(said), task in retired) for task, said in reasons.items()]


def _unsigned(count: int) -> list[str]:
    them = "imported label names nobody, and is" if count == 1 else "imported labels name nobody, and are"
    return [f"{count} {them} in none of these numbers."] if count else []


def report_of(store: Store, annotator: str) -> AnnotatorReport | None:
    """One annotator's report of the newest round, as if they were the whole team; None where they have compared nothing in it."""
    found = [one for one in store.annotations(round=store.progress().round, annotator=annotator) if one.purpose != "adjudication"]
    judgements = judgements_of(found, {one.task: store.task(one.task) for one in found})
    return annotator_report(judgements, key_chances(judgements)) if judgements else None


def said(alpha: Agreement, decided: Agreement) -> list[str]:
    """What the agreement means, in words."""
    if alpha.value is None:
        return [f"No agreement yet: {alpha.reason}. Have two people judge the same 50 tasks (overlap: 2 in project.yaml)."]
    span = f" ({alpha.low:.2f} to {alpha.high:.2f})" if alpha.low is not None and alpha.high is not None else ""
    words = [f"Krippendorff's alpha is {alpha.value:.2f}{span} on {alpha.items} comparisons judged by two or more."]
    if alpha.high is not None and alpha.high < 0.4:
        words.append("People hardly agree: talk about the tasks below and make the guideline clearer before more are judged.")
    elif alpha.low is not None and alpha.low > 0.67:
        words.append("People agree well: judging each task once is enough, with some judged twice to keep watch.")
    if decided.value is not None and decided.value > 0.5:
        right = (1 + (2 * decided.value - 1) ** 0.5) / 2
        words.append(
            f"Where both chose, two people say the same {100 * decided.value:.0f} % of the time. If all are equally good each is right about {100 * right:.0f} %, "
            f"and the majority of three {100 * majority_accuracy(right, 3):.0f} %."
        )
    return words
