"""`accord annotate --select active`: a reward model's heads choose pairs among sampled answers, chance keeps its share and all that is evaluated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import tiny_demo
from accord.annotation.assign import arm_of, held_out
from accord.annotation.project import Project
from accord.cli import main
from accord.commands.annotate import fill
from accord.config.options import AnnotateOptions
from accord.data.read import read_examples
from accord.errors import AccordError, ConfigError, DataError
from accord.models.opened import open_model
from accord.recipes.selection import distinct
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import Prompt
from accord.types import Rollout, Task, from_json

PROMPTS = [{"prompt": f"Question number {number}?"} for number in range(30)]
PAIRS = [{"prompt": f"Which {number}?", "chosen": f"yes {number}", "rejected": f"no {number}"} for number in range(12)]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model"))


def trained(model: str, folder: Path, **options: int) -> str:
    """A reward model on a few pairs; its run folder."""
    folder.mkdir()
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    data, run = write(folder / "pairs.jsonl", PAIRS), folder / "run"
    assert (
        main(["reward", "--model", model, "--data", data, "--output_dir", str(run), "--backbone", "heads", "--max_steps", "4", *given]) == 0
    )
    return str(run)


@pytest.fixture(scope="module")
def reward(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(model, tmp_path_factory.mktemp("reward") / "pairs")


def options_of(project: Project, model: str, tmp_path: Path, **more: Any) -> AnnotateOptions:
    data = write(tmp_path / "prompts.jsonl", PROMPTS)
    return AnnotateOptions(str(project.folder), data=data, model=model, max_new_tokens=6, **more)


def tasks_of(project: Project) -> list[Task]:
    with project.open_store() as store:
        return list(store.tasks())


def sampled(path: Path) -> dict[str, list[Rollout]]:
    """The different answers that were drawn, by the prompt's id."""
    groups: dict[str, list[Rollout]] = {}
    for line in path.read_text("utf-8").splitlines()[1:]:
        rollout = from_json(json.loads(line), Rollout)
        groups.setdefault(rollout.prompt_id, []).append(rollout)
    return {name: distinct(group) for name, group in groups.items()}


def test_heads_choose_and_chance_keeps_its_share(model: str, reward: str, tmp_path: Path) -> None:
    """Held-out prompts and three tenths of the others are chance's: the first two answers drawn. The rule's pairs hold a head's favourite each."""
    project = Project.new(tmp_path / "labels", heldout=0.3)
    options = options_of(project, model, tmp_path, select="active", reward_model=reward, round=1)
    fill(project, options)
    tasks = tasks_of(project)
    assert {task.kind for task in tasks} == {"pair"} and {task.round for task in tasks} == {1}
    assert len({task.prompt_id for task in tasks}) == len(tasks) == len(PROMPTS)
    held = [task for task in tasks if held_out(task.prompt_id, 0.3)]
    others = [task for task in tasks if not held_out(task.prompt_id, 0.3)]
    assert held and {arm_of(task.columns) for task in held} == {"random"}
    selected = [task for task in others if arm_of(task.columns) == "selected"]
    assert len(others) - len(selected) == math.ceil(0.3 * len(others)) and selected

    answers = sampled(project.round_folder(1) / "samples-active.jsonl")
    opened = open_model(model)
    scorer = RewardModel.load(opened.policy, Path(reward), opened.renderer)
    for task in tasks:
        drawn = answers[task.prompt_id]
        texts = {completion.text for completion in task.completions}
        if arm_of(task.columns) == "random":
            assert texts == {one.text for one in drawn[:2]}
            continue
        favourites = {drawn[place].text for place in scorer.score_rollouts(drawn).argmax(0).tolist()}
        assert texts <= favourites or (len(favourites) == 1 and favourites < texts)
    fill(project, options)  # the same again: nothing is drawn or asked twice
    assert tasks_of(project) == tasks


def test_a_pair_of_another_round_is_not_asked_again(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed and step draw the same answers, so a round whose samples are copied brings nothing new."""
    project = Project.new(tmp_path / "labels")
    fill(project, options_of(project, model, tmp_path, limit=5))
    first = tasks_of(project)
    assert {arm_of(task.columns) for task in first} == {"random"}
    text = (project.round_folder(0) / "samples.jsonl").read_text("utf-8")
    project.round_folder(1).mkdir(parents=True)
    (project.round_folder(1) / "samples.jsonl").write_text(text.replace('"step": 0', '"step": 1', 1), encoding="utf-8")
    capsys.readouterr()
    fill(project, options_of(project, model, tmp_path, limit=5, round=1))
    assert "5 pairs were asked in another round and are not asked again." in capsys.readouterr().err
    assert tasks_of(project) == first


def test_what_is_missing_is_said_in_one_line(model: str, tmp_path: Path) -> None:
    project = Project.new(tmp_path / "labels")
    for error, words, more in (
        (ConfigError, "it is random or active", {"select": "clever"}),
        (ConfigError, "give --select active with it", {"reward_model": "runs/reward"}),
        (ConfigError, "needs a reward model, and so labels: .* accord reward --data", {"select": "active"}),
        (ConfigError, "leave --answers 4 out", {"select": "active", "reward_model": "runs/reward", "answers": 4}),
        (DataError, "holds no reward model .* accord reward --data", {"select": "active", "reward_model": str(tmp_path)}),
    ):
        with pytest.raises(error, match=words) as raised:
            fill(project, options_of(project, model, tmp_path, **more))
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="give --model, and prompts with --data"):
        AnnotateOptions("labels", data="pairs.jsonl", select="active", reward_model="runs/reward")
    assert tasks_of(project) == []


def test_a_reward_model_that_cannot_choose_is_refused(model: str, tmp_path: Path) -> None:
    project = Project.new(tmp_path / "labels")
    one_head = trained(model, tmp_path / "one", num_heads=1)
    with pytest.raises(ConfigError, match="has one. Train it with --num-heads 5"):
        fill(project, options_of(project, model, tmp_path, select="active", reward_model=one_head))
    stranger = tiny_demo.model_folder(tmp_path / "stranger", hidden_size=48)
    with pytest.raises(AccordError, match="base"):
        fill(project, options_of(project, stranger, tmp_path, select="active", reward_model=one_head))
    assert tasks_of(project) == []


def test_the_arms_can_be_learned_from_and_compared(model: str, reward: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From tasks to the page: as many labels of each arm, both measured on held-out pairs, which are chance's alone."""
    project = Project.new(tmp_path / "labels", heldout=0.3, gold_rate=0.0, repeat_rate=0.0)
    fill(project, options_of(project, model, tmp_path, select="active", reward_model=reward))
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        for number, _ in enumerate(PROMPTS):
            held = store.next_task("ann")
            store.submit("ann", held.task.id, held.token, f"s{number}", "pair", {"choice": "tie" if number == 0 else number % 2})  # type: ignore[union-attr]
        project.freeze(store)
    parts = {split: list(read_examples(f"{project.folder}@{split}")) for split in ("train", "heldout", "random", "selected")}
    assert {row.columns["arm"] for row in parts["heldout"]} == {"random"}
    for arm, other in (("random", "selected"), ("selected", "random")):
        assert {row.columns["arm"] for row in parts[arm]} == {arm} and len(parts[arm]) == len(parts[other])
        assert {row.prompt_id for row in parts[arm]} <= {row.prompt_id for row in parts["train"]}
    capsys.readouterr()
    for arm in ("random", "selected"):
        given = ["reward", "--model", model, "--data", f"{project.folder}@{arm}", "--eval_data", f"{project.folder}@heldout"]
        assert main([*given, "--output_dir", str(tmp_path / arm), "--backbone", "heads", "--max_steps", "2"]) == 0
    assert main(["project", "quality", str(project.folder)]) == 0
    told = capsys.readouterr().out
    for arm in ("Chance chose ", "The rule chose "):
        (line,) = [line for line in told.splitlines() if line.startswith(arm)]
        assert f"of {len(parts['heldout'])} pairs" in line and "ties" in line
    assert "No reward model was measured on these labels yet" in told  # on all of them


def test_prompts_are_known_by_one_id(model: str) -> None:
    """What a sampler calls a prompt is what splits go by."""
    opened = open_model(model)
    rows = list(read_examples([{"prompt": "One?"}]))
    from accord.recipes.sampled import prompts_to_answer

    (prompt,) = prompts_to_answer(rows, opened, 4)
    assert isinstance(prompt, Prompt) and prompt.id == Task("x", "pair", prompt.messages).prompt_id
