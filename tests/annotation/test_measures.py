"""What the panel shows beside alpha: worked out by hand, or equal to the coefficient computed from the judgements directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.annotation.agreement import Reason
from accord.annotation.judgements import Judgement
from accord.annotation.measures import contests, kappas, ratings_of, steps_of
from accord.annotation.panel import judgements_of, panel, report_of
from accord.annotation.project import Project
from accord.annotation.stopping import decide
from accord.cli import main
from accord.types import Annotation, Task
from labelling import answer, talk, task, two_people


def said(on: Task, value: dict[str, object], annotator: str = "ada", **more: object) -> Annotation:
    return Annotation("x", on.id, on.kind, value, annotator, **more)  # type: ignore[arg-type]


def test_ratings_and_steps_become_judgements() -> None:
    rating, steps = task("rating", "Q", answer("a")), task("steps", "Q", answer("a", "b", "c"))
    chat = task("chat", "Q", talk("a", "b", "c"))
    found = ratings_of([said(rating, {"rating": 5}), said(chat, {"turns": [{"turn": 0, "text": "x"}, {"turn": 1, "rating": 2}]})])
    assert [(one.item, one.value) for one in found] == [(rating.id, 5), (f"{chat.id}:turn1", 2)]
    found = steps_of([said(steps, {"first_error": 1}), said(steps, {"labels": [1, 0, -1]}, purpose="repeat")], {steps.id: steps})
    assert [one.value for one in found] == [1, -1, None, 1, 0, -1]
    assert found[3].repeat_of == found[0].item == f"{steps.id}:step0"


def test_the_turns_of_two_conversations_are_comparisons() -> None:
    chat = task("chat", "Q", talk("a", "b", "c"), talk("d", "b", "e"))
    turns = [{"turn": 0, "choice": 1, "strength": 2}, {"turn": 1, "choice": "both_bad"}]
    found = judgements_of([said(chat, {"turns": turns}, shown_order=(1, 0))], {chat.id: chat})
    assert [(one.item, one.value, one.side) for one in found] == [(f"{chat.id}:turn0", 1, "left"), (f"{chat.id}:turn1", "tie", None)]


def test_a_kappa_of_two_people() -> None:
    """Both say each of two values on half of 20 items and agree on 15: (0.75 - 0.5) / (1 - 0.5) = 0.5. A third has too few in common."""
    judged = [Judgement(str(n), "ann", n % 2) for n in range(20)]
    judged += [Judgement(str(n), "bob", n % 2 if n < 10 or n in (10, 11, 12, 13, 14) else 1 - n % 2) for n in range(20)]
    judged += [Judgement(str(n), "eve", 0) for n in range(9)]
    (found,) = kappas(judged)
    bob = [one.value for one in judged[20:40]]
    chance = (10 * (20 - sum(bob)) + 10 * sum(bob)) / 400  # type: ignore[arg-type]
    assert (found.first, found.second) == ("ann", "bob") and found.value.value == pytest.approx((15 / 20 - chance) / (1 - chance))


def test_which_model_wins_counts_random_tasks_alone() -> None:
    """New beats old 3 times of 5 with a tie; one comparison of a rule's choice, one of a model with itself and one without a model do not count."""
    tasks = {
        n: task("pair", f"Q{n}", answer("yes", model="new" if n % 2 else "old"), answer("no", model="old" if n % 2 else "new"))
        for n in range(5)
    }
    same, nobody = task("pair", "same", answer("a", model="new"), answer("b", model="new")), task("pair", "none", answer("a"), answer("b"))
    by_id = {one.id: one for one in (*tasks.values(), same, nobody)}
    choices = [1, 0, 1, 1, "tie"]
    votes = [said(tasks[n], {"choice": choice}) for n, choice in enumerate(choices)]
    votes += [said(tasks[0], {"choice": 0}, arm="selected"), said(same, {"choice": 0}), said(nobody, {"choice": 0})]
    (found,) = contests(votes, by_id)
    assert (found.first, found.second, found.wins, found.ties, found.losses) == ("new", "old", 3, 1, 1)
    assert found.decision == decide(3, 1, 1)


def test_the_panel_and_the_command_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two people agree on 24 of 30 pairs: 0.80, so nothing honest predicts a label more often than (1 + sqrt(0.6)) / 2 = 0.89."""
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, overlap=2)
    with project.open_store() as store:
        two_people(store)
        found = panel(store)
        assert (
            report_of(store, "ann") == next(one for one in found.annotators if one.annotator == "ann") and report_of(store, "eve") is None
        )
    assert found.measures.ratings.reason is Reason.NO_JUDGEMENTS and found.measures.steps.reason is Reason.NO_JUDGEMENTS
    assert found.measures.fleiss.value == pytest.approx(1 - 2 * 0.2, abs=0.01) and found.measures.cohen[0].value.items == 30
    assert [one.annotator for one in found.measures.confusions] == ["ann", "bob"]
    assert all(sum(row) == pytest.approx(1.0) for one in found.measures.confusions for row in one.shares)
    measured = ["--measured", "500=0.60", "1000=0.64", "2000=0.67", "4000=0.69", "--target", "0.99"]
    assert main(["project", "quality", str(project.folder), "--reward-accuracy", "0.95", *measured]) == 0
    told = capsys.readouterr().out
    assert found.words[0] in told and "Ann: 30 judged. You choose the answer on the left" in told
    assert "annotators agree 0.80: the truth itself would reach 0.89" in told and "No number of labels for 0.99" in told
    assert main(["project", "quality", str(project.folder), "--measured", "many"]) == 2
    assert "--measured many: it is LABELS=ACCURACY" in capsys.readouterr().err
