"""A policy that learns from each preference: what is stored, what a step sees, what survives a kill, and that short answers get short."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_demo
from accord.annotation.refusals import Conflict, Unknown
from accord.annotation.results import Assignment
from accord.config.options import ChatOptions, LearnOptions
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, DataError
from accord.models.adapters import Want
from accord.models.load import resolve
from accord.models.opened import open_model
from accord.objectives.segments import segment_sum
from accord.recipes.learn import Learner, open_learner
from accord.recipes.learn_thread import Background
from accord.reporting.curves import headline
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message

ME = "me"
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Opens a learner on a tiny model in the test's folder, with options of the chat and of learning."""
    model = tiny_demo.model_folder(tmp_path / "model")
    chat = ChatOptions(model, max_new_tokens=8, temperature=1.0)
    options = LearnOptions(True, str(tmp_path / "run"), learning_rate=1e-2, lora_r=4)

    @contextmanager
    def opened(**changes: Any) -> Iterator[Learner]:
        names = ChatOptions.__dataclass_fields__
        said = {name: value for name, value in changes.items() if name in names}
        learner = open_learner(replace(chat, **said), replace(options, **{k: v for k, v in changes.items() if k not in names}))
        learner.store.add_annotator("Me", "admin", id=ME) if not learner.store.annotators() else None
        yield learner
        learner.store.close()

    return opened


def asked(learner: Learner, text: str = "Why?") -> Assignment:
    return learner.propose([Message("user", text)], ME)


def clicked(learner: Learner, choice: int | str = 0, text: str = "Why?") -> Assignment:
    """Ask and prefer; nothing is learned yet."""
    found = asked(learner, text)
    learner.prefer(ME, found, f"submission-{found.task.id}", choice, seconds=1.5)
    return found


def gains(learner: Learner, assignment: Assignment) -> list[float]:
    """log pi - log ref of the two answers of a task, by a pass of its own."""
    ids = [tuple(completion.source["ids"]) for completion in assignment.task.completions]
    unit = Unit(tuple(learner.opened.renderer.prompt_ids(assignment.task.prompt)), tuple(map(Branch, ids)))
    batch = pack([unit])
    with torch.no_grad():
        one, two = (
            segment_sum(learner.opened.policy.forward(batch, stack, Want()).logprobs, batch.completion, 2)
            for stack in (learner.trainer.prepared.stack, learner.trainer.prepared.reference)
        )
    return (one - two).tolist()


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in learner.trainer.parameters().items()}


# -- asking ------------------------------------------------------------------------------------------------------------------------------


def test_answers_grow_where_they_will_stand_and_are_stored_with_what_was_sampled(start: Start) -> None:
    with start() as learner:
        orders = set()
        for number in range(8):
            grown: dict[int, list[str]] = {0: [], 1: []}
            found = learner.propose([Message("user", f"Q{number}")], ME, lambda place, text, grown=grown: grown[place].append(text))
            task = found.task
            assert learner.store.task(task.id) == task and task.kind == "pair"
            orders.add(found.shown_order)
            for place, index in enumerate(found.shown_order):
                answer = task.completions[index]
                assert grown[place][-1] == answer.text == learner.opened.renderer.decode(answer.source["ids"])
                assert len(grown[place]) == len(answer.source["ids"]) <= 8
                assert abs(answer.source["kl_nats"]) < 1e-3  # the policy is its own start
        assert orders == {(0, 1), (1, 0)}
        state = learner.state()
        assert state.clicks == state.steps == 0 and len(state.asked) == 8 and state.newest is not None


def test_a_preference_is_stored_field_by_field(start: Start) -> None:
    with start() as learner:
        found = clicked(learner, 1)
        (label,) = learner.store.annotations()
        assert (label.task, label.kind, label.value, label.annotator, label.source) == (found.task.id, "pair", {"choice": 1}, ME, "human")
        assert label.shown_order == found.shown_order and label.seconds == 1.5 and label.strength is None
        with pytest.raises((Conflict, DataError)):
            learner.prefer(ME, found, "another", 0)
        assert len(list(learner.store.annotations(valid=False))) == 1


def test_a_conversation_goes_on_and_forgets_its_oldest_turns(start: Start) -> None:
    with start(system="Be brief.") as learner:
        turns = [Message("user", "x" * 300), Message("assistant", "y"), Message("user", "z")]
        assert [m.content for m in learner.propose(turns, ME).task.prompt] == ["Be brief.", "x" * 300, "y", "z"]
        turns[0] = Message("user", "x" * 480)  # of 512 positions
        assert [m.content for m in learner.propose(turns, ME).task.prompt] == ["Be brief.", "z"]
        with pytest.raises(ConfigError, match="Shorten one of them"):
            asked(learner, "x" * 600)


@pytest.mark.parametrize(
    "turns",
    [[], [("assistant", "hi")], [("user", "a"), ("user", "b")], [("user", "a"), ("assistant", "b")], [("user", " ")], [("user", "\ud800")]],
    ids=str,
)
def test_what_is_no_question_is_refused(start: Start, turns: list[tuple[Any, str]]) -> None:
    with start() as learner:
        with pytest.raises(DataError):
            learner.propose([Message(*turn) for turn in turns], ME)
        assert list(learner.store.tasks()) == []


def test_the_same_answer_again_and_again_is_said(start: Start) -> None:
    with start(temperature=1e-6) as learner, pytest.raises(DataError, match="same answer 6 times"):
        asked(learner)


def test_options_that_cannot_be(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature above 0"), start(temperature=0.0):
        pass
    with pytest.raises(ConfigError, match="one --prompt"), start(prompt=["a", "b"]):
        pass
    with pytest.raises(ConfigError, match="--beta belongs to --learn"):
        LearnOptions(beta=0.3)
    for name in ("steps", "pairs", "lora_r", "beta", "lora_layers"):
        with pytest.raises(ConfigError, match=name):
            LearnOptions(True, **{name: 0})


# -- learning ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [0, 1])
def test_the_policy_moves_towards_what_was_preferred(start: Start, choice: int) -> None:
    """The first loss is log 2, policy and reference being one; then the chosen answer gains on the other, in a pass of its own too."""
    with start(steps=6) as learner:
        found = clicked(learner, choice)
        losses = [learner.step() for _ in range(6)]
        assert learner.step() is None and losses[0] is not None and losses[-1] is not None
        assert losses[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and losses[-1]["loss"] < losses[0]["loss"] - 0.05
        gain = gains(learner, found)
        assert gain[choice] - gain[1 - choice] > 1
        assert losses[-1]["rewards/margins"] < 0.1 * (gain[choice] - gain[1 - choice]) + 1e-4  # the margin before the last step


def test_answers_are_drawn_from_the_policy_as_it_is_and_leave_its_weights(start: Start) -> None:
    """Before and after steps, the log-probabilities noted in drawing are those of a pass with the adapter as it is then."""
    with start() as learner:
        stack, config = learner.trainer.prepared.stack, SamplingConfig(8, 2, learner.chat.temperature)
        noted = []
        for _ in range(2):
            before = {name: value.clone() for name, value in learner.opened.policy.model.state_dict().items()}
            ids = tuple(learner.opened.renderer.prompt_ids([Message("user", "Why?")]))
            pair = learner._sampler(stack).sample([Prompt("0", ids)], config)
            assert all(torch.equal(value, before[name]) for name, value in learner.opened.policy.model.state_dict().items())
            batch = pack([Unit(ids, tuple(Branch(rollout.completion_ids) for rollout in pair))])
            with torch.no_grad():
                logprobs = learner.opened.policy.forward(batch, stack, Want()).logprobs
            assert logprobs is not None
            noted.append([value for rollout in pair for value in rollout.sampler_logprobs])
            assert noted[-1] == pytest.approx(logprobs.tolist(), abs=1e-4)
            clicked(learner)
            while learner.step():
                pass
        assert noted[0][0] != pytest.approx(noted[1][0], abs=1e-3)


def test_a_tie_teaches_nothing_where_nothing_differs(start: Start) -> None:
    """-(ls(h) + ls(-h)) / 2 has its minimum at h = 0."""
    with start() as learner:
        clicked(learner, "tie")
        values = learner.step()
        assert values is not None and values["loss"] == pytest.approx(math.log(2), abs=1e-5) and values["grad_norm"] < 1e-4


def test_kl_is_what_the_weights_say(start: Start) -> None:
    """log pi - log ref that a question notes is that of a pass of the test's own, from the very tokens."""
    with start() as learner:
        clicked(learner)
        while learner.step():
            pass
        found = asked(learner)
        noted = [completion.source["kl_nats"] for completion in found.task.completions]
        assert noted == pytest.approx(gains(learner, found), abs=1e-3) and any(abs(value) > 1e-2 for value in noted)
        newest = learner.state().asked[-1]
        assert newest.kl_nats == pytest.approx(sum(noted) / 2, abs=1e-3) and newest.clicks == 1
        assert newest.tokens == sum(len(completion.source["ids"]) for completion in found.task.completions) / 2


def tokens_of(learner: Learner, assignment: Assignment) -> int:
    prompt = len(learner.opened.renderer.prompt_ids(assignment.task.prompt))
    return prompt + sum(len(completion.source["ids"]) for completion in assignment.task.completions)


@pytest.mark.parametrize(("options", "replayed"), [({}, 2), ({"pairs": 2}, 1), ({"replay": 1}, 1), ({"replay": 0}, 0), ({"pairs": 1}, 0)])
def test_a_step_is_the_new_pair_and_some_before_it(start: Start, options: dict[str, int], replayed: int) -> None:
    """Counted in tokens: prompts of different lengths tell the pairs apart."""
    with start(steps=1, **options) as learner:
        pairs = [clicked(learner, 0, "x" * (40 * number + 1)) for number in range(3)]
        for _ in range(2):
            learner.step()
        before = learner.trainer.num_tokens
        learner.step()
        sizes = [tokens_of(learner, pair) for pair in pairs]
        possible = {0: {0}, 1: {sizes[0], sizes[1]} if "replay" not in options else {sizes[1]}, 2: {sizes[0] + sizes[1]}}[replayed]
        assert learner.trainer.num_tokens - before - sizes[2] in possible


def test_every_option_changes_the_training(start: Start, tmp_path: Path) -> None:
    """The same clicks with another value give other weights, or another number of steps."""

    def after(**options: Any) -> tuple[int, float]:
        with start(output_dir=str(tmp_path / f"run-{options}"), **options) as learner:
            for number in range(3):
                clicked(learner, 0, f"Q{number}")
                while learner.step():
                    pass
            return learner.trainer.global_step, sum(float(value.double().pow(2).sum()) for value in weights(learner).values())

    found = [
        after(**options)
        for options in (
            {},
            {"learning_rate": 1e-3},
            {"beta": 0.5},
            {"steps": 1},
            {"pairs": 1},
            {"replay": 1},
            {"lora_r": 2},
            {"lora_layers": 1.0},
        )
    ]
    assert len(set(found)) == len(found)


def test_what_is_taken_back_is_not_used_again(start: Start) -> None:
    with start(steps=1) as learner:
        clicked(learner, 0, "x")
        learner.step()
        second = clicked(learner, 0, "y" * 50)
        learner.step()
        before = weights(learner)
        returned = learner.undo(ME, "take-it-back")
        assert returned is not None and returned.task == second.task and returned.draft is not None
        assert all(torch.equal(value, before[name]) for name, value in weights(learner).items())
        assert learner.state().clicks == 1 and learner.waiting() == []
        whole = list(learner.store.annotations(valid=False))
        assert [label.kind for label in whole] == ["pair", "pair", "undo"] and whole[2].supersedes == whole[1].id
        clicked(learner, 0, "z")
        before_step = learner.trainer.num_tokens
        learner.step()
        assert learner.trainer.num_tokens - before_step < tokens_of(learner, second) + 40
        learner.prefer(ME, returned, "changed-my-mind", 1)
        assert learner.state().clicks == 3 and len(learner.waiting()) == 1


# -- stopping and going on ---------------------------------------------------------------------------------------------------------------


def test_saved_and_gone_on_with(start: Start, tmp_path: Path) -> None:
    with start() as learner:
        for number in range(3):
            clicked(learner, number % 2, f"Q{number}")
            while learner.step():
                pass
        learner.look()
        folder, before, state = learner.save(), weights(learner), learner.state()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    frozen = json.loads((folder / "labels" / "rounds" / "0" / "snapshot.json").read_text(encoding="utf-8"))
    assert record["finished"] and record["method"] == "dpo" and record["steps"] == 6
    assert record["data"]["train_dataset"]["rows"] == 3 == frozen["rows"] and record["data"]["train_dataset"]["snapshots"] == [
        frozen["hash"]
    ]
    with start() as again:
        assert again.went_on and again.waiting() == []
        assert all(torch.equal(value, before[name]) for name, value in weights(again).items())
        again.look()
        assert again.state() == state
        clicked(again, 0, "one more")
        assert again.step() is not None and again.trainer.global_step == 7
    opened = open_model(str(folder))
    assert opened.stack == ("dpo",)
    assert torch.equal(next(iter(opened.policy.adapter_parameters("dpo").values())), next(iter(before.values())))


def test_an_ordinary_peft_folder(start: Start, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    with start() as learner:
        clicked(learner)
        while learner.step():
            pass
        folder = learner.save()
        found = asked(learner)
        ids = torch.tensor([[*learner.opened.renderer.prompt_ids(found.task.prompt), *found.task.completions[0].source["ids"]]])
        answer = len(found.task.completions[0].source["ids"])
        wanted, noted = gains(learner, found)[0], found.task.completions[0].source["kl_nats"]
    model: Any = AutoPeftModelForCausalLM.from_pretrained(folder)
    with torch.no_grad(), model.disable_adapter():
        reference = model(ids).logits.log_softmax(-1)
    with torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    gap = (logprobs - reference)[0, -answer - 1 : -1].gather(1, ids[0, -answer:, None]).sum()
    assert float(gap) == pytest.approx(wanted, abs=1e-3) == pytest.approx(noted, abs=1e-3)


def test_a_step_is_logged_with_how_far_the_policy_has_moved(start: Start, tmp_path: Path) -> None:
    """KL and length of the newest five questions stand in metrics.jsonl under the names of other runs, so `accord ui` draws them."""
    with start() as learner:
        for number in range(3):
            clicked(learner, text=f"Why {number}?")
            moved = learner.state().newest
            while learner.step():
                pass
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert moved is not None and len(rows) == 6 and abs(moved.kl_nats) > 1e-6
    numbers = headline(rows[-1])
    assert (numbers["kl"], numbers["length"]) == (pytest.approx(moved.kl_nats), pytest.approx(moved.tokens)) and numbers["loss"] is not None


def test_a_killed_learner_learns_again_what_its_checkpoint_lacks(start: Start) -> None:
    with start(steps=1) as learner:
        for number in range(12):  # a checkpoint after the tenth
            clicked(learner, 0, f"Q{number}")
            learner.step()
        labels = [label.id for label in learner.store.annotations()]
        asked_before = learner.state().asked
    with start(steps=1) as again:
        assert again.waiting() == labels[10:] and again.trainer.global_step == 10
        assert again.state().clicks == 12 and again.state().asked == asked_before
        while again.step():
            pass
        assert again.trainer.global_step == 12 and again.trainer.learned == labels


def test_another_start_is_refused(start: Start, tmp_path: Path) -> None:
    with start() as learner:
        learner.save()
    with pytest.raises(ConfigError, match="was started with lora_r 4, not 8"), start(lora_r=8):
        pass
    other = tiny_demo.model_folder(tmp_path / "other", architecture="qwen3")
    with pytest.raises(ConfigError, match="was started with model"), start(model=other):
        pass


def test_on_top_of_a_run(start: Start, tmp_path: Path) -> None:
    """The adapters of a run are the start: the reference, and named as parents."""
    with start(output_dir=str(tmp_path / "first")) as learner:
        clicked(learner)
        while learner.step():
            pass
        first = learner.save()
    with start(model=str(first)) as learner:
        assert learner.trainer.prepared.reference == ("dpo",) and learner.trainer.prepared.stack == ("dpo", "dpo_2")
        found = asked(learner)
        assert all(abs(completion.source["kl_nats"]) < 1e-3 for completion in found.task.completions)
        folder = learner.save()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["parents"] == [{"adapter": "dpo", "run": str(first)}]


# -- the thread --------------------------------------------------------------------------------------------------------------------------


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never was"
        time.sleep(0.01)
    return found


def test_the_thread_answers_and_learns(start: Start) -> None:
    with start() as learner, Background(learner) as background:
        for number in range(3):
            question = background.ask([Message("user", f"Q{number}")], ME)
            until(lambda question=question: question.done)
            assert question.assignment is not None
            assert question.texts == [question.assignment.task.completions[index].text for index in question.assignment.shown_order]
            learner.prefer(ME, question.assignment, f"s{number}", 0)
            background.sync()
        until(lambda: not learner.waiting() and learner.trainer.global_step == 6)
        until(lambda: learner.state().now)
        with pytest.raises(Unknown):
            background.question(question.id, "somebody else")
        refused = background.ask([Message("user", "x" * 600)], ME)
        until(lambda: refused.done)
        assert "Shorten one of them" in (refused.problem or "")


def test_who_never_pauses_sees_the_fixed_question_answered_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late look goes before the question that waits."""
    monkeypatch.setattr("accord.recipes.learn.LATEST_LOOK", 1)
    with start() as learner:
        learner.look()
        clicked(learner)
        while learner.step() is not None:
            pass
        background = Background(learner)
        question = background.ask([Message("user", "Q")], ME)
        with background:
            until(lambda: question.done)
            now = learner.state().now
        assert now is not None and now.step == learner.trainer.global_step > 0


def test_one_question_at_a_time_for_each_person(start: Start) -> None:
    with start() as learner:
        background = Background(learner)  # not started: nothing is answered
        background.ask([Message("user", "Q")], ME)
        with pytest.raises(Conflict, match="still being answered"):
            background.ask([Message("user", "Q")], ME)
        background.ask([Message("user", "Q")], "other")


def test_training_that_fails_stops_and_answers_go_on(start: Start) -> None:
    """A weight that is no number makes the loss none; the page says so."""
    with start() as learner, Background(learner) as background:
        question = background.ask([Message("user", "Q")], ME)
        until(lambda: question.done)
        assert question.assignment is not None
        with learner.model, torch.no_grad():
            for name, value in learner.trainer.parameters().items():
                if "lora_B" in name:
                    value.fill_(float("inf"))
            learner.trainer.config.skip_step0_checks = True
            learner.prefer(ME, question.assignment, "s", 0)
        background.sync()
        until(lambda: learner.problem)
        assert "differ" in learner.problem or "loss" in learner.problem
        assert learner.state().steps == 0


# -- it learns ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The 260K-parameter story model, which ends a story with the token that begins the next."""
    folder = tmp_path_factory.mktemp("stories")
    found = resolve("stories260k", cache=folder / "cache", files=shared_data / "stories260k")
    shutil.copytree(found.folder, folder / "model")
    config = folder / "model" / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), "eos_token_id": [1, 2]}), encoding="utf-8")
    return str(folder / "model")
