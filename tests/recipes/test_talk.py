"""Talking with a model: what is asked, drawn and shown becomes a pair whose prompt is the conversation, and none of it is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_demo
from accord.annotation.assign import held_out
from accord.annotation.project import Project
from accord.annotation.snapshot import OPENING
from accord.config.options import AnnotateOptions
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.models.fingerprint import model_fingerprint
from accord.recipes.talk import TURN, Talker, open_talker
from accord.types import Message

ME = "me"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model"))


def options_of(model: str, folder: Path, **more: Any) -> AnnotateOptions:
    return AnnotateOptions(str(folder), model=model, talk=True, max_new_tokens=8, **more)


@pytest.fixture
def talker(model: str, tmp_path: Path) -> Iterator[Talker]:
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.5)
    found = open_talker(options_of(model, project.folder, round=2), project)
    found.kept.store.add_annotator("Me", "admin", id=ME)
    yield found
    found.close()


def turns(*texts: str) -> list[Message]:
    return [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


def test_a_turn_becomes_a_pair_that_stands_as_it_was_watched(talker: Talker) -> None:
    """Either order comes up; what grew at a place stands there; model, draws, opening and turn are kept."""
    orders = set()
    for number in range(12):
        seen = ["", ""]

        def watch(place: int, text: str, seen: list[str] = seen) -> None:
            seen[place] = text

        held = talker.propose(turns("Hello", "An answer.", f"And {number}?"), ME, watch)
        task = held.task
        shown = [task.completions[index] for index in held.shown_order]
        assert [" ".join(answer.text.split()) for answer in shown] == [" ".join(text.split()) for text in seen]
        assert (task.kind, task.round, task.columns[TURN]) == ("pair", 2, 1)
        assert [message.content for message in task.prompt] == ["Hello", "An answer.", f"And {number}?"]
        for answer in task.completions:
            assert answer.source["kind"] == "sample" and answer.source["step"] == number
            assert answer.source["sha256"] == model_fingerprint(talker.opened.policy, talker.opened.stack)
        orders.add(held.shown_order)
    assert orders == {(0, 1), (1, 0)}


def test_the_same_question_is_answered_anew_and_stored_again(model: str, talker: Talker) -> None:
    """Each question has draws of its own, also after a restart, so no pair is taken for one that was judged."""
    first = talker.propose(turns("Why?"), ME)
    talker.kept.store.submit(ME, first.task.id, first.token, "s1", "pair", {"choice": "both_bad"})
    again = open_talker(talker.options, talker.kept.project)
    second = again.propose(turns("Why?"), ME)
    again.close()
    assert second.task.id != first.task.id and [c.source["step"] for c in second.task.completions] == [1, 1]
    assert {c.text for c in second.task.completions} != {c.text for c in first.task.completions}
    (label,) = talker.kept.store.annotations()
    assert (label.value, label.shown_order, label.source) == ({"choice": "both_bad"}, first.shown_order, "human")


def test_a_conversation_is_trained_on_or_held_out_whole(talker: Talker) -> None:
    """Eight conversations of three turns: what decides is the prompt that each began with, as it decides for other tasks of that prompt."""
    sides: dict[str, bool] = {}
    for number in range(8):
        said = [f"Opening {number}"]
        for turn in range(3):
            held = talker.propose(turns(*said), ME)
            talker.kept.store.submit(ME, held.task.id, held.token, f"s{number}-{turn}", "pair", {"choice": turn % 2}, strength=3)
            said += [held.task.completions[turn % 2].text or "nothing", f"More {turn}"]
            sides[held.task.id] = held_out(held.task.columns[OPENING], 0.5)
            assert turn or held.task.columns[OPENING] == held.task.prompt_id
    talker.kept.project.freeze(talker.kept.store)
    folder = talker.kept.project.folder
    for split, wanted in (("train", False), ("heldout", True)):
        rows = list(read_examples(f"{folder}@{split}"))
        assert {row.columns["task_id"] for row in rows} == {name for name, held in sides.items() if held is wanted} and rows
        assert all(row.kind == "preference" and len(row.prompt) == 2 * row.columns[TURN] + 1 for row in rows)


def test_old_turns_are_forgotten_and_the_opening_is_not(talker: Talker) -> None:
    """The tiny model has few positions: the prompt is the newest turns, the opening still the first one."""
    positions = talker.opened.policy.text_config.max_position_embeddings
    long = turns("First", "a" * 30, *(part for number in range(positions // 20) for part in (f"{number} " + "b" * 20, "c" * 20)), "Last?")
    held = talker.propose(long, ME)
    assert len(held.task.prompt) < len(long) and held.task.prompt[-1].content == "Last?"
    assert held.task.columns[OPENING] == replace(held.task, prompt=tuple(turns("First"))).prompt_id
    assert held.task.columns[TURN] == len(long) // 2


@pytest.mark.parametrize(
    ("said", "words"),
    [((), "by turns"), (("",), "say something"), (("Hello", "there"), "by turns"), (("a \ud800",), "half of a character")],
)
def test_no_question(talker: Talker, said: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        talker.propose(turns(*said), ME)
    assert list(talker.kept.store.tasks()) == []


def test_what_cannot_be_is_said(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--talk needs somebody to talk with"):
        AnnotateOptions("labels", talk=True)
    with pytest.raises(ConfigError, match="--temperature above 0"):
        options_of(model, tmp_path, temperature=0.0)
    project = Project.new(tmp_path / "labels", kinds=["rating"])
    with pytest.raises(ConfigError, match="talking makes pairs, and kinds in project.yaml has none"):
        open_talker(options_of(model, project.folder), project)
