"""Process reward models: labels stand at the ends of steps and nowhere else, what is masked or cut, and a model that finds planted errors."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import PRMConfig, PRMTrainer
from accord.data.packing import pack
from accord.data.render import Renderer
from accord.data.render_steps import StepRenderer
from accord.errors import ConfigError, DataError
from accord.evaluation.process import process_bench
from accord.methods.prm import step_targets
from accord.models.adapters import Want
from accord.models.heads import SURPRISE, Reading
from accord.rewards.process import ProcessRewardModel
from accord.types import Completion, Example, Message, Rollout


def solution(steps: list[str], labels: list[int | None], prompt: str = "Add") -> Example:
    turns = tuple(Message("assistant", step) for step in steps)
    return Example("steps", (Message("user", prompt),), (Completion(turns),), step_labels=tuple(labels), where="rows.jsonl line 7")


def renderer(separator: str = "\n", **limits: Any) -> StepRenderer:
    return StepRenderer(Renderer(tiny.tokenizer(), **limits), separator)


def trainer(folder: Path, rows: Any, **options: Any) -> PRMTrainer:
    args = PRMConfig(**{"output_dir": str(folder), "learning_rate": 1e-3, "max_steps": 2, **options})
    return PRMTrainer(tiny.policy(), args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())


# -- targets ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 1, None, 0, None, None]),
        ({"neutral": "negative"}, [1, 0, None, 0, None, None]),
        ({"neutral": "class"}, [2, 1, None, 0, None, None]),
        ({"mask_after_first_error": False}, [1, 1, None, 0, 1, 0]),
        ({"train_on_last_step_only": True}, [None, None, None, None, None, 0]),
    ],
)
def test_what_labels_mean(options: dict[str, Any], expected: list[int | None]) -> None:
    """A neutral step is no error: with neutral='negative' what follows it is still learned. None is never a class."""
    assert step_targets([1, 0, None, -1, 1, -1], PRMConfig(**options)) == expected


def test_the_last_step_alone_and_the_mask_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="mask_after_first_error=True must be False or None with train_on_last_step_only"):
        PRMConfig(train_on_last_step_only=True, mask_after_first_error=True)
    with pytest.raises(ConfigError, match="step_separator='' must be some text"):
        PRMConfig(step_separator="")


# -- tokens -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\n", " ###\n", "in the"])
def test_labels_stand_at_the_ends_of_steps(separator: str) -> None:
    """Also where the separator is several tokens, or would merge with its neighbours ("th" + "in" and "the" are tokens of this tokenizer)."""
    steps = renderer(separator)
    unit = steps.labelled(solution(["4 + 3 is 7, th", "er 7 - 5 is 2", "the end"], [1, None, -1]), [1, None, 0])
    assert unit is not None
    (branch,), decode = unit.branches, tiny.tokenizer().decode
    assert branch.counted is not None and branch.ends is not None
    assert [i for i, counted in enumerate(branch.counted) if counted] == [branch.ends[0] - 1, branch.ends[2] - 1]
    assert [decode(branch.ids[start:end]) for start, end in zip((0, *branch.ends), branch.ends, strict=False)] == [
        f"4 + 3 is 7, th{separator}", f"er 7 - 5 is 2{separator}", f"the end{separator}",
    ]  # fmt: skip
    assert unit.data["targets"] == (1, None, 0) and branch.ends[-1] == len(branch.ids)


@pytest.mark.parametrize("separator", ["\n", " ###\n", "in the"])
def test_a_partial_solution_begins_the_whole_one(separator: str) -> None:
    """Ids are prefix-stable, and the same from steps, from text, and from a sampled answer."""
    steps = renderer(separator)
    words = ["4 + 3 is 7, th", "er 7 - 5 is 2", "the end"]
    whole = steps.branch(words)
    for count in (1, 2):
        part = steps.branch(words[:count])
        assert whole.ids[: len(part.ids)] == part.ids and whole.places[:count] == part.ends
    text = separator.join(words)
    prompt = tuple(steps.renderer.prompt_ids([Message("user", "Add")]))
    rollout = Rollout("p", (Message("user", "Add"),), prompt, (5, 6), text + separator, (0.0, 0.0), "stop")
    trained = steps.labelled(solution(words, [1, 1, 1]), [1, 1, 1])
    assert trained is not None
    for unit in (steps.unit("Add", words), steps.unit("Add", text), steps.rollout(rollout)):
        assert (unit.prompt_ids, unit.branches[0].ids, unit.branches[0].ends) == (prompt, whole.ids, whole.ends)
        assert (trained.prompt_ids, trained.branches[0].ids) == (unit.prompt_ids, unit.branches[0].ids)


def test_blank_lines_are_no_steps() -> None:
    assert renderer().split("\n one \n\n  \ntwo\r\n") == ["one", "two"]
    assert renderer("\n\n").split("a\nb\n\nc") == ["a\nb", "c"]
    with pytest.raises(DataError, match="without a step cannot be scored"):
        renderer().unit("Add", " \n")


def test_what_follows_the_last_label_is_not_read() -> None:
    unit = renderer().labelled(solution(["a", "b", "c", "d"], [1, -1, 1, 1]), [1, 0, None, None])
    assert unit is not None and unit.data["targets"] == (1, 0) and len(unit.branches[0].places) == 2
    assert tiny.tokenizer().decode(unit.branches[0].ids) == "a\nb\n"


def test_whole_steps_are_cut_with_their_labels_and_said() -> None:
    row, targets = solution(["aaaa", "bbbb", "cccc"], [1, 1, -1]), [1, 1, 0]
    prompt = len(renderer().renderer.prompt_ids(row.prompt))
    for limit, kept in ((prompt + 15, 3), (prompt + 14, 2), (prompt + 10, 2), (prompt + 9, 1), (prompt + 5, 1)):
        steps = renderer(max_length=limit)
        unit = steps.labelled(row, targets)
        assert unit is not None and unit.num_tokens <= limit and len(unit.prompt_ids) == prompt
        assert unit.data["targets"] == tuple(targets[:kept]) and unit.branches[0].ends == (5, 10, 15)[:kept]
        said = {"solutions cut after a whole step": 1, "steps cut off with their labels": 3 - kept} if kept < 3 else {}
        assert steps.renderer.report == said
    steps = renderer(max_length=prompt + 4)
    assert steps.labelled(row, targets) is None
    assert steps.renderer.report == {"solutions left out: no labelled step within max_length": 1}
    steps = renderer(max_length=prompt + 10)  # the one label is cut: nothing is left to learn
    assert steps.labelled(row, [None, None, 0]) is None


def test_a_solution_of_one_step(tmp_path: Path) -> None:
    made = trainer(tmp_path, [solution(["4 + 3 is 7"], [1]), solution(["4 + 3 is 8"], [-1])])
    assert [unit.branches[0].places for unit in made.train_units] == [(11,), (11,)]
    assert made.train()["error_share"] == 0.5


# -- features -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("reading", [Reading(), Reading(1), Reading(None, True)], ids=["last", "middle", "context"])
def test_every_step_is_read_as_if_it_were_the_last(packed: bool, reading: Reading) -> None:
    """The rows of a solution are what the ends of its beginnings, alone, would be: packed, and through the model's own attention."""
    policy, steps = tiny.policy(packed=packed), renderer()
    words = [["4 + 3 is 7", "7 - 5 is 2", "the end"], ["one"], ["two", "three"]]
    want = Want(logprobs=False, ends=(reading,))
    with torch.no_grad():
        (together,) = policy.forward(pack([steps.unit("Add", solution) for solution in words]), (), want).ends
        alone = []
        for solution in words:
            for count in range(1, len(solution) + 1):
                unit = steps.unit("Add", solution[:count])
                plain = replace(unit, branches=(replace(unit.branches[0], ends=None),))
                alone.append(policy.forward(pack([plain]), (), want).ends[0])
    assert together.shape[0] == 6 and torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_a_head_can_read_how_likely_each_step_is() -> None:
    """Six numbers behind the state: sum, least and mean of the step's log-probabilities, and of the solution's up to there."""
    policy, steps = tiny.policy(), StepRenderer(Renderer(tiny.tokenizer()), "\n")
    solutions = [["4 + 3 is 7", "7 - 5 is 2"], ["4 + 3 is 8"]]
    want = Want(logprobs=True, ends=(Reading(1), Reading(1, surprise=True)))
    batch = pack([steps.unit("Add", solution) for solution in solutions])
    out = policy.forward(batch, (), want)
    state, both = out.ends
    assert out.logprobs is not None and both.shape == (3, state.shape[1] + SURPRISE) and torch.equal(both[:, :-SURPRISE], state)
    first, second = out.logprobs.split([len(branch.ids) for unit in batch.units for branch in unit.branches])
    cut = batch.units[0].branches[0].places[0]
    for row, part, all_of_it in ((0, first[:cut], first[:cut]), (1, first[cut:], first), (2, second, second)):
        numbers = [way(text) for text in (part, all_of_it) for way in (torch.sum, torch.min, torch.mean)]
        assert torch.allclose(both[row, -SURPRISE:], torch.stack(numbers), atol=1e-5)
    alone = policy.forward(batch, (), Want(logprobs=False, ends=(Reading(1, surprise=True),))).ends[0]
    assert torch.allclose(alone, both, atol=1e-6)


def test_a_head_beside_lora_reads_no_likelihoods(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="head_surprise=True must be False, or backbone=heads"):
        trainer(tmp_path, tiny.solutions(), head_surprise=True)


# -- runs ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"neutral": "class", "step_separator": " ##\n"},
        {"backbone": "heads", "head_width": 4, "feature_layer": 1},
        {"backbone": "heads", "head_surprise": True},
    ],
)
def test_a_run_folder_scores_as_the_trainer_did(options: dict[str, Any], tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny.solutions(), **options)
    made.train()
    made.save_model()
    model = made.process_reward_model
    words = ["4 + 3 is 7", "7 - 5 is 2"]
    expected = model.score_solutions(["Add", "Add"], [words, words[:1]])
    assert [len(scores) for scores in expected] == [2, 1] and float(expected[0][0]) == pytest.approx(float(expected[1][0]), abs=1e-6)
    assert all(bool(((scores > 0) & (scores < 1)).all()) for scores in expected)
    classes = model.probabilities([model.renderer.unit("Add", words)])[0]
    assert torch.allclose(classes.sum(1), torch.ones(2)) and torch.allclose(1 - classes[:, 0], expected[0], atol=1e-6)
    loaded = ProcessRewardModel.load(tiny.policy(), tmp_path, Renderer(tiny.tokenizer()))
    assert loaded.heads.classes == (("wrong", "neutral", "right") if "neutral" in options else ("wrong", "right"))
    assert loaded.renderer.separator == made.config.step_separator
    found = loaded.score_solutions(["Add", "Add"], [made.config.step_separator.join(words), words[:1]])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    with pytest.raises(DataError, match="holds no process reward model .*accord prm"):
        ProcessRewardModel.load(tiny.policy(), tmp_path / "nowhere", Renderer(tiny.tokenizer()))


def test_steps_that_are_not_labelled_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a", "completions": ["b", "c\nd"], "labels": [True, False]}, {"prompt": "a", "completions": ["b"], "labels": [None]}]
    made = trainer(tmp_path, rows)
    said = capsys.readouterr().err
    assert (
        len(made.train_units) == 1
        and "1 solutions left out: no labelled step" in said
        and "1 steps have the separator '\\n' inside" in said
    )
    made = trainer(tmp_path, rows[:1], train_on_last_step_only=True)
    assert made.train_units[0].data["targets"] == (None, 0)


BAD: list[tuple[str, Any, str]] = [
    ("labels of another number", [{"prompt": "a", "completions": ["b", "c"], "labels": [True]}], "2 steps and 1 labels"),
    ("the same, made in Python", [solution(["b", "c"], [1])], "rows.jsonl line 7 has 2 steps and 1 labels"),
    ("no labelled step", [solution(["b", "c"], [None, None])], r"no step to learn from \(1 solutions left out: no labelled step\)"),
    ("a blank step", [solution(["b", " \n"], [1, 1])], "rows.jsonl line 7: step 2 is empty"),
    ("a label that is none", [{"prompt": "a", "completions": ["b"], "labels": [2]}], "labels"),
    ("pairs", [{"prompt": "a", "chosen": "b", "rejected": "c"}], "needs steps rows"),
]


@pytest.mark.parametrize(("rows", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_rows_that_cannot_be_learned_from(rows: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        trainer(tmp_path, rows)
    assert len(str(caught.value).splitlines()) == 1


def test_metrics_by_hand(tmp_path: Path) -> None:
    """A head of zeros ties on every step: half right, on errors and on right steps alike, at a loss of log 2."""
    made = trainer(tmp_path, tiny.solutions(), max_steps=1, per_device_train_batch_size=9)
    with torch.no_grad():
        made.heads.weight.zero_()
    row = made.train()
    assert row["accuracy"] == row["accuracy_error_steps"] == row["accuracy_right_steps"] == 0.5
    assert row["loss"] == pytest.approx(0.6931472, abs=1e-6)
    # tiny.solutions: 1 -1 | 1 | 1 0 -1 | -1 | 1 1 1 | 0 1 | 1 -1 | -1 | 1 1 -1
    assert row["error_share"] == pytest.approx(6 / 18)


@pytest.mark.parametrize("backbone", ["lora", "heads"])
def test_soft_labels_by_hand(backbone: str, tmp_path: Path) -> None:
    """A head that says 3/4 right of every step: -q log 3/4 - (1 - q) log 1/4 for a step of probability q, -log 1/4 for one labelled wrong
    without a probability. What follows the first wrong step is masked as ever; with soft_labels off the probabilities are not read."""
    rows = [
        {"prompt": "Add", "completions": ["a", "b", "c"], "labels": [1, 1, -1], "step_probabilities": [0.2, 1.0, None]},
        {"prompt": "Add", "completions": ["d", "e"], "labels": [-1, 1], "step_probabilities": [0.0, 0.6]},
    ]
    right, wrong = -math.log(3 / 4), -math.log(1 / 4)
    soft = [0.2 * right + 0.8 * wrong, right, wrong, wrong]
    for options, expected in (({"soft_labels": True}, soft), ({}, [right, right, wrong, wrong])):
        made = trainer(tmp_path / str(len(options)), rows, max_steps=1, backbone=backbone, **options)
        with torch.no_grad():
            made.heads.weight.zero_()
            made.heads.bias.copy_(torch.tensor([0.0, math.log(3)]))
        assert made.train()["loss"] == pytest.approx(sum(expected) / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"soft_labels": True}, [0, 1, 1, 0, None]), ({"soft_labels": True, "mask_after_first_error": False}, [0, 1, 1, 0, 1])],
)
def test_the_class_of_a_soft_label_is_the_likelier_one(options: dict[str, Any], expected: list[int | None]) -> None:
    assert step_targets([1, None, 0, -1, 1], PRMConfig(**options), [0.4, 0.5, None, 0.1, 0.9]) == expected


# -- it learns ----------------------------------------------------------------------------------------------------------------------------


def arithmetic(count: int, seed: int) -> list[Example]:
    """Chains of small additions, each step right or, half the time, off by something: labels are exact and free."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        steps, labels = [], []
        for _ in range(draw.randint(1, 4)):
            a, b = draw.randint(0, 2), draw.randint(0, 2)
            wrong = draw.random() < 0.5
            steps.append(f"{a}+{b}={draw.choice([c for c in range(5) if c != a + b]) if wrong else a + b}")
            labels.append(-1 if wrong else 1)
        rows.append(solution(steps, labels))
    return rows


def test_planted_errors_are_found(tmp_path: Path) -> None:
    """On held-out solutions errors and right steps are both told far above chance, and so are the first errors of solutions (ProcessBench)."""
    settings: dict[str, Any] = {"max_steps": 150, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "lr_scheduler_type": "cosine"}
    made = PRMTrainer(
        tiny.model(hidden_size=64, intermediate_size=128, scale=0.08),
        PRMConfig(output_dir=str(tmp_path), mask_after_first_error=False, **settings),
        arithmetic(400, 0),
        arithmetic(100, 1),
        tiny.tokenizer(template=False),
    )
    made.train()
    held_out = made.evaluate()
    assert held_out["eval_accuracy_error_steps"] > 0.8 and held_out["eval_accuracy_right_steps"] > 0.8
    table = process_bench(made.process_reward_model, arithmetic(100, 1))
    assert table["erroneous"] + table["correct"] == 100 and table["f1"] > 0.7
