"""Checkpoints compared blind: one base for all, the same turns for all, nothing that says who wrote what before the vote, votes that train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import live_ui
import tiny_demo
from accord.annotation.project import Project
from accord.annotation.refusals import Unknown
from accord.annotation.results import Assignment
from accord.data.packing import Branch, Unit, pack
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.models.adapters import Want
from accord.models.opened import Opened, open_model, open_models
from accord.recipes.blind import Comparison, open_comparison
from accord.recipes.seat import Wish
from accord.recipes.votes import AUTHORS
from accord.types import Message

ME = "me"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def runs(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The base and two runs on it whose adapters have the same name."""
    folder = tmp_path_factory.mktemp("runs")
    return [base, *(str(live_ui.write_policy(base, folder / name, seed=seed)) for seed, name in enumerate(("a", "b"), 1))]


@pytest.fixture
def compare(runs: list[str], tmp_path: Path) -> Iterator[Comparison]:
    found = open_comparison(Wish("compare", tuple(runs), ("base", "a", "b"), 8, 1.0), tmp_path / "votes")
    found.store.add_annotator("me", "admin", id=ME)
    yield found
    found.close()


def ask(compare: Comparison, text: str = "What?") -> Assignment:
    return compare.propose([Message("user", text)], ME)


def authors(assignment: Assignment) -> list[str]:
    """Who wrote the answer at each place, by the task."""
    return [assignment.task.completions[index].source["model"] for index in assignment.shown_order]


def logprobs(opened: Opened) -> torch.Tensor:
    ids = tuple(opened.renderer.prompt_ids([Message("user", "What?")]))
    batch = pack([Unit(ids, (Branch((40, 50, 60, 2)),))], opened.policy.device)
    with torch.no_grad():
        found = opened.policy.forward(batch, opened.stack, Want(logprobs=True)).logprobs
    assert found is not None
    return found


def test_models_on_one_base_share_it_and_are_what_they_are_alone(runs: list[str]) -> None:
    together = open_models(runs)
    assert len({id(one.policy) for one in together}) == 1 and len({one.stack for one in together}) == 3
    for one, name in zip(together, runs, strict=True):
        assert torch.equal(logprobs(one), logprobs(open_model(name)))
    assert not torch.allclose(logprobs(together[1]), logprobs(together[2]))


def test_models_on_other_bases_have_their_own(runs: list[str], tmp_path: Path) -> None:
    other = tiny_demo.model_folder(tmp_path / "other", hidden_size=16, head_dim=4)
    found = open_models([runs[1], other, runs[2]])
    assert found[0].policy is found[2].policy and found[1].policy is not found[0].policy


def test_each_answers_and_nothing_says_who(compare: Comparison) -> None:
    orders, shown = set(), set()
    for number in range(12):
        held = ask(compare, f"Question {number}?")
        assert held.task.kind == "ranking" and sorted(authors(held)) == ["a", "b", "base"]
        orders.add(tuple(authors(held)))
        shown.add(held.shown_order)
        said = json.dumps(held.shown())
        assert "authors" not in said and "sample" not in said and '"model"' not in said and "weights" not in said
        # The task's own order is that of the content, whoever wrote it.
        assert [one.id for one in held.task.completions] == sorted(one.id for one in held.task.completions)
    assert len(orders) >= 4 and len(shown) >= 3


def test_answers_grow_where_they_will_stand(compare: Comparison) -> None:
    texts = ["", "", ""]
    seen: list[int] = []

    def watch(place: int, text: str) -> None:
        texts[place] = text
        seen.append(place)

    held = compare.propose([Message("user", "What?")], ME, watch)
    written = [held.task.completions[index].text for index in held.shown_order]
    # The last token may be the end token, which is shown as nothing.
    assert all(text.startswith(answer) for text, answer in zip(texts, written, strict=True)) and seen == sorted(seen)


def test_who_wrote_what_is_told_after_the_vote_alone(compare: Comparison) -> None:
    held = ask(compare)
    with pytest.raises(Unknown, match="Vote first"):
        compare.revealed(held.task.id, ME)
    with pytest.raises(Unknown, match="Vote first"):
        compare.revealed("nothing", ME)
    ranks = [1, 2, 3]
    compare.store.submit(ME, held.task.id, held.token, "s1", "ranking", {"ranks": ranks})
    told = compare.revealed(held.task.id, ME)
    assert [[one["model"] for one in place] for place in told] == [[name] for name in authors(held)]
    assert all(1 <= place[0]["tokens"] <= 8 for place in told)
    (label,) = compare.store.annotations()
    assert label.shown_order == held.shown_order and label.value == {"ranks": ranks}
    best = held.task.completions[0].source["model"]
    for one in compare.tallies()[0]:
        if best in (one.first, one.second):
            assert (one.wins, one.losses) == ((1, 0) if one.first == best else (0, 1))
    compare.store.add_annotator("other", "annotator", id="other")
    with pytest.raises(Unknown, match="Vote first"):
        compare.revealed(held.task.id, "other")


def test_a_vote_that_was_taken_back_counts_no_more_and_is_not_asked_again(compare: Comparison) -> None:
    held = ask(compare)
    compare.store.submit(ME, held.task.id, held.token, "s1", "ranking", {"ranks": [1, 1, 2]})
    compare.take_back(ME, "undo-1")
    compare.take_back(ME, "undo-1")  # the same request once more
    assert list(compare.store.annotations()) == [] and all(one.wins + one.ties + one.losses == 0 for one in compare.tallies()[0])
    following = compare.store.next_task(ME)
    assert not isinstance(following, Assignment) or following.task.id != held.task.id
    with pytest.raises(Unknown):
        compare.take_back(ME, "undo-2")


def test_the_same_answer_is_shown_once(base: str, runs: list[str], tmp_path: Path) -> None:
    """The base under two names at temperature 0 says the same as itself; the run says something else."""
    wish = Wish("compare", (base, base, runs[1]), ("x", "y", "z"), 8, 0.0)
    found = open_comparison(wish, tmp_path / "votes")
    found.store.add_annotator("me", "admin", id=ME)
    held = ask(found)
    assert held.task.kind == "pair" and sorted(authors(held)) in (["x, y", "z"], ["y, x", "z"])
    choice = next(index for index, one in enumerate(held.task.completions) if len(one.source[AUTHORS]) == 2)
    found.store.submit(ME, held.task.id, held.token, "s", "pair", {"choice": choice})
    tallied = {(one.first, one.second): (one.wins, one.ties, one.losses) for one in found.tallies()[0]}
    found.close()
    assert tallied[("x", "z")] == tallied[("y", "z")] == (1, 0, 0)


def test_all_the_same_is_nothing_to_compare(base: str, tmp_path: Path) -> None:
    found = open_comparison(Wish("compare", (base, base), ("x", "y"), 4, 0.0), tmp_path / "votes")
    found.store.add_annotator("me", "admin", id=ME)
    with pytest.raises(DataError, match="All 2 models gave the same answer"):
        ask(found)
    assert list(found.store.tasks()) == []
    found.close()


def test_all_see_the_turns_that_the_shortest_has_room_for(runs: list[str], tmp_path: Path) -> None:
    short = tiny_demo.model_folder(tmp_path / "short", max_position_embeddings=128)
    found = open_comparison(Wish("compare", (runs[1], short), ("long", "short"), 8, 1.0), tmp_path / "votes")
    found.store.add_annotator("me", "admin", id=ME)
    turns = [Message("user", "a" * 60), Message("assistant", "b" * 20), Message("user", "And then?")]
    held = found.propose(turns, ME)
    assert [message.content for message in held.task.prompt] == ["And then?"]
    with pytest.raises(ConfigError, match="Shorten one of them"):
        ask(found, "x" * 200)
    found.close()


def test_votes_are_labels_that_train(compare: Comparison) -> None:
    for number in range(3):
        held = ask(compare, f"Question {number}?")
        compare.store.submit(ME, held.task.id, held.token, f"s{number}", "ranking", {"ranks": [2, 1, 3]})
    compare.project.freeze(compare.store)
    rows = list(read_examples(f"{compare.project.folder}@all"))
    assert len(rows) == 3 and all(len(row.completions) == 3 for row in rows)


def test_going_on_draws_anew(runs: list[str], tmp_path: Path) -> None:
    wish = Wish("compare", tuple(runs[1:]), ("a", "b"), 8, 1.0)
    texts = []
    for _ in range(2):
        found = open_comparison(wish, tmp_path / "votes")
        if not found.store.annotators():
            found.store.add_annotator("me", "admin", id=ME)
        texts.append([one.text for one in ask(found).task.completions])
        found.close()
    assert texts[0] != texts[1]
    with Project(tmp_path / "votes").open_store() as store:
        assert sum(1 for _ in store.tasks()) == 2


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (("compare", ("a",), ("a",)), "choose two to 4"),
        (("compare", tuple("abcde"), tuple("abcde")), "choose two to 4"),
        (("compare", ("a", "a"), ("a", "a")), "same model twice"),
        (("chat", ("a", "b"), ("a", "b")), "choose one model"),
        (("chat", ("a",), ("a",), 0), "1 to 4096 tokens"),
        (("learn", ("a",), ("a",), 8, 0.0), "above 0"),
    ],
)
def test_what_cannot_be_opened_is_one_line(wish: tuple[object, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Wish(*wish)  # type: ignore[arg-type]
