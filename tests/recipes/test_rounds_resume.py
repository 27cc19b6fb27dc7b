"""`accord align --rounds` stopped at the end of every stage, whoever judges: given again it ends as if nobody had stopped it, and its page says who judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_demo
from accord.annotation.accuracies import kept
from accord.cli import main
from accord.recipes import align
from accord.recipes.demo import QUICK
from accord.recipes.sittings import still_wanted
from accord.recipes.stages import Stages
from tiny_rounds import command, opened, prefer_e, stage, weights, write_place

LETTERS = ("--reward", "truth.py:letters")
WAYS: dict[str, tuple[int, str, tuple[str, ...], set[str]]] = {
    "simulated": (
        2,
        "grpo",
        ("--feedback", "simulated", *LETTERS, "--noise", "0.2", "--select", "active"),
        {"ask", "reward", "heldout_reward", "grpo", "look", "older_rewards", "arm_random", "arm_selected"},
    ),
    "judge": (1, "dpo", ("--feedback", "judge", *LETTERS), {"ask", "reward", "heldout_reward", "dpo", "look"}),
    "people": (1, "ppo", ("--feedback", "people", "--no-serve"), {"ask", "reward", "ppo", "look"}),
}
"""Who judges: rounds, method, options, and every stage that has."""
SAID = {
    "simulated": "Labels come from a simulated panel: truth.py:letters, 20 % of its labels turned round.",
    "judge": "Labels come from a judge: truth.py:letters.",
    "people": "Labels come from people.",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands; fewer steps of everything, and reward models that watch from three labels on."""
    write_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))
    for name in ("AUDIT_LEAST", "ARM_LEAST"):
        monkeypatch.setattr(f"accord.recipes.rounds.{name}", 3)
    return tmp_path


def cut_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ctrl-C comes once in each stage, after its work and before it is written down as done; returns the stages as they are cut."""
    cut: list[str] = []
    run = Stages.run

    def stopped(self: Stages, name: str, inputs: Any, work: Callable[[Path, bool], dict[str, Any]], **more: Any) -> dict[str, Any]:
        def broken(folder: Path, resume: bool) -> dict[str, Any]:
            result = work(folder, resume)
            if f"{self.folder.name}/{name}" not in cut:
                cut.append(f"{self.folder.name}/{name}")
                raise KeyboardInterrupt
            return result

        return run(self, name, inputs, broken, **more)

    monkeypatch.setattr(Stages, "run", stopped)
    return cut


def label_what_is_asked(project: str) -> int:
    """What people do between two commands; returns how many labels they gave."""
    with opened(project) as store:
        if not still_wanted(store, store.progress().round):
            return 0
        ada = next((person.id for person in store.annotators() if person.id == "ada"), None) or store.add_annotator("Ada", id="ada").id
        return prefer_e(store, ada)


def given_until_done(given: list[str], project: str, who: str) -> int:
    """The same command again and again, and in between the people whom it asks; returns how often it was stopped."""
    stopped = 0
    for _ in range(40):
        code = main(given)
        assert code in (0, 130)
        stopped += code == 130
        if code == 0 and not (who == "people" and label_what_is_asked(project)):
            return stopped
    raise AssertionError("it never ends")


def parts_of(page: str, names: tuple[str, ...]) -> dict[str, str]:
    """Sections of a page by their headings."""
    return {title: body for title, body in re.findall(r"<h2>([^<]*)</h2>(.*?)(?=<h2>|$)", page, re.DOTALL) if title in names}


@pytest.mark.parametrize("who", list(WAYS))
def test_stopped_in_every_stage_it_ends_as_if_left_alone(who: str, model: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, method, options, stages = WAYS[who]
    given = command(model, *options, "--method", method, "--seed", "3", rounds=rounds)
    assert given_until_done([*given, "--project", "whole"], "whole", who) == 0
    cut = cut_once(monkeypatch)
    assert given_until_done([*given, "--project", "cut"], "cut", who) == len(cut)
    names = {name.partition("/")[2] for name in cut}
    assert stages <= names <= stages | {"heldout_reward"}  # which needs held-out labels that are no ties
    assert {name.partition("/")[0] for name in cut} == {f"round-{number + 1}" for number in range(rounds)}

    with opened("whole") as one, opened("cut") as other:
        tasks = list(one.tasks())
        assert list(other.tasks()) == tasks and len({task.id for task in tasks}) == len(tasks)
        said = [
            Counter((a.task, a.kind, str(a.value), a.source, a.arm, a.annotator) for a in store.annotations()) for store in (one, other)
        ]
    assert said[0] == said[1] and len(said[0]) == len(tasks)  # each task, whatever was done again
    assert max(said[0].values()) == (2 if who == "people" else 1)  # people see some pairs again with the sides swapped
    for number in range(1, rounds + 1):
        one, other = (weights(Path(f"runs/rounds-{name}/round-{number}/{method}")) for name in ("whole", "cut"))
        assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
        assert any(bool((value != 0).any()) for name, value in one.items() if "lora_B" in name)
        looked = [stage(f"rounds-{name}", number, "look")["result"] for name in ("whole", "cut")]
        assert looked[0] == looked[1]

    pages = [Path(f"{name}/rounds.html").read_text(encoding="utf-8") for name in ("whole", "cut")]
    shown = ("Rounds", "New against old", "Can the reward models be trusted?", "Policies", "What they say")
    assert parts_of(pages[0], shown) == parts_of(pages[1], shown) and parts_of(pages[0], shown).keys() == set(shown)
    assert all(SAID[who] in page and f"Round {rounds} wins" in page for page in pages)
    assert ("accord annotate cut" in pages[1]) == (who == "people") and ("What choosing the pairs brought" in pages[1]) == (
        who == "simulated"
    )


def test_what_the_rounds_measured_is_kept_for_the_page_quality(model: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both reward models on the same held-out pairs, with the labels they learned from: as the matrix of the page has them."""
    given = command(model, "--feedback", "simulated", *LETTERS, "--noise", "0.2", "--method", "dpo")
    assert main(given) == 0
    found = kept(Path("labels"))
    assert [one.by for one in found] == ["runs/rounds-labels/round-1/reward", "runs/rounds-labels/round-2/reward"]
    learned = [stage("rounds-labels", number, "reward")["result"]["pairs"] for number in (1, 2)]
    first, second = (stage("rounds-labels", number, "reward")["result"]["test"]["gaps"] for number in (1, 2))
    gaps = [[*first, *stage("rounds-labels", 2, "older_rewards")["result"]["gaps"][0]], second]
    assert [one.labels for one in found] == learned and [one.pairs for one in found] == [len(part) for part in gaps] == [len(second)] * 2
    assert [one.accuracy for one in found] == pytest.approx(
        [sum((gap > 0) + 0.5 * (gap == 0) for gap in part) / len(part) for part in gaps]
    )
    capsys.readouterr()
    assert main(["project", "quality", "labels", "--round", "2"]) == 0
    told = capsys.readouterr().out
    assert f"Reward accuracy {found[1].accuracy:.2f}; how often annotators agree is not known." in told
    page = Path("labels/rounds.html").read_text(encoding="utf-8")
    assert "fewer than four numbers of labels were measured" in told and "fewer than four numbers of labels were measured" in page
