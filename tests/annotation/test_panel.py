"""From the store to the statistics: who chose which answer, on which side, how long, and what that adds up to."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.annotation.agreement import Agreement, Reason
from accord.annotation.assign import Rules
from accord.annotation.judgements import TIE
from accord.annotation.panel import judgements_of, panel, said
from accord.annotation.store import Store
from accord.types import Annotation
from labelling import answer, given, pairs, say, submission, task


def annotation(value: dict[str, object], kind: str = "pair", **more: object) -> Annotation:
    return Annotation("a", "t", kind, value, "ada", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"), [({"choice": 0}, 0), ({"choice": 1}, 1), ({"choice": "tie"}, TIE), ({"choice": "both_bad"}, TIE)]
)
def test_a_pair_is_one_judgement(value: dict[str, object], expected: object) -> None:
    asked = task("pair", "q", answer("long answer"), answer("short"), gold={"choice": 1})
    (found,) = judgements_of([annotation(value, shown_order=(1, 0), seconds=3.0)], {"t": asked})
    assert (found.item, found.annotator, found.value, found.shown_order, found.lengths, found.gold, found.seconds) == (
        "t",
        "ada",
        expected,
        (1, 0),
        (11, 5),
        1,
        3.0,
    )


def test_a_ranking_is_a_judgement_for_each_two_answers() -> None:
    asked = task("ranking", "q", answer("a"), answer("bb"), answer("ccc"))
    found = judgements_of([annotation({"ranks": [2, 1, 2]}, "ranking", shown_order=(2, 0, 1))], {"t": asked})
    assert [(one.item, one.value, one.shown_order, one.lengths) for one in found] == [
        ("t:0-1", 1, (0, 1), (1, 2)),
        ("t:0-2", TIE, (1, 0), (1, 3)),
        ("t:1-2", 0, (1, 0), (2, 3)),
    ]


def test_a_repeat_is_measured_against_the_first_answer_and_a_skip_counts_nowhere() -> None:
    asked = task("pair", "q", answer("a"), answer("b"))
    first, again, skip = judgements_of(
        [annotation({"choice": 0}), annotation({"choice": 1}, purpose="repeat"), annotation({"reason": "?"}, "skip")], {"t": asked}
    )
    assert (again.item, again.repeat_of, again.value) == ("t:repeat", first.item, 1) and skip.value is None
    assert judgements_of([annotation({"reason": "?"}, "flag")], {"t": asked}) == []


def test_the_panel_of_a_round(tmp_path: Path) -> None:
    """Two agree on 30 of 40 pairs, a third always chooses the left answer; one disputed pair is settled."""
    with Store(tmp_path / "labels.sqlite", Rules(overlap=3, gold_rate=0.0, repeat_rate=0.0)) as store:
        store.add_tasks(pairs(40))
        for name in ("ada", "bob", "left"):
            store.add_annotator(name, id=name)
            for _ in range(40):
                held = given(store, name)
                number = int(held.task.prompt[0].content.split()[1].rstrip("?"))
                right = number % 2
                choice = held.shown_order[0] if name == "left" else 1 - right if name == "bob" and number < 10 else right
                say(store, name, held, choice, seconds=10.0)
        found = panel(store)
        assert found.judgements == 120 and found.alpha.items == 40
        rates = {one.annotator: one for one in found.annotators}
        assert rates["left"].left.share == 1.0 and rates["left"].left.p_value < 1e-9 and rates["ada"].median_seconds == 10.0
        assert rates["left"].streak.length == 40
        disputed = {one.task for one in found.queue}
        store.add_annotator("head", "admin", id="head")
        store.adjudicate("head", found.queue[0].task, submission(), {"choice": 0})
        assert {one.task for one in panel(store).queue} == disputed - {found.queue[0].task}


def test_a_round_that_nobody_has_judged(tmp_path: Path) -> None:
    with Store(tmp_path / "labels.sqlite") as store:
        store.add_tasks(pairs(2))
        found = panel(store)
        assert found.alpha.reason is Reason.NO_JUDGEMENTS and found.annotators == () and found.queue == ()
        assert "two people judge the same 50" in found.words[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.3, "hardly agree"), (0.7, 0.9, "once is enough"), (0.3, 0.8, "Krippendorff's alpha is")]
)
def test_what_agreement_means_in_words(low: float, high: float, expected: str) -> None:
    words = said(Agreement((low + high) / 2, low, high, 40, 80), Agreement(0.82, 0.7, 0.9, 40, 80))
    assert expected in " ".join(words)
    # Two who are each right with probability q agree with q^2 + (1 - q)^2 = 0.82 at q = 0.9; the majority of three is right with q^3 + 3 q^2 (1 - q) = 0.972.
    assert "right about 90 %" in words[-1] and "three 97 %" in words[-1]
