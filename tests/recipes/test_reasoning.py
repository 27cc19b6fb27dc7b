"""`accord demo reasoning` from end to end on a tiny model: stages, their resumption, and what the page says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_demo
from accord.cli import main
from accord.config.options import DemoOptions
from accord.errors import ConfigError
from accord.recipes.reasoning import Settings, problems, rewards, run_reasoning
from accord.types import Message, Rollout

SMALL = Settings(
    worked=6,
    practice=12,
    held_out=8,
    longest=6,
    sft={"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    grpo={"num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-3, "save_steps": 1},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


def test_the_whole_demo(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(SMALL, model=model)
    path = run_reasoning(DemoOptions("reasoning", output_dir=str(tmp_path / "demo")), settings)
    text = path.read_text(encoding="utf-8")
    for words in (
        "Right answers: starter",
        "a coin in place of the grader",
        "share right",
        "tokens an answer",
        settings_question(settings),
    ):
        assert words in text
    rows = [json.loads(line) for line in (tmp_path / "demo" / "random" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 8 and all(row["score"]["value"] in (0, 1) and "random/accuracy" in row["score"]["parts"] for row in rows)
    true = [json.loads(line) for line in (tmp_path / "demo" / "grpo" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["prompt_id"] for row in true} <= {row.prompt_id for row in problems(settings, held_out=False)}
    capsys.readouterr()
    assert run_reasoning(DemoOptions("reasoning", output_dir=str(tmp_path / "demo")), settings) == path
    assert capsys.readouterr().err.count("skipped") == 4


def settings_question(settings: Settings) -> str:
    return str(problems(settings, held_out=True)[0].prompt[-1].content)


def test_practice_and_report_share_no_problem() -> None:
    settings = Settings()
    asked, held = ({row.prompt_id for row in problems(settings, held_out=flag)} for flag in (False, True))
    assert len(asked) == settings.practice and len(held) == settings.held_out and not asked & held


@pytest.mark.parametrize(
    ("text", "right", "form"),
    [
        ("3 + 4 = 7\n7 * 2 = 14\n#### 14", 1.0, 1.0),
        ("3 + 4 = 7\n7 * 2 = 15\n#### 15", 0.0, 1.0),
        ("#### 14", 1.0, 0.0),  # no working
        ("3 + 4 = 7, so it is 14", 1.0, 0.0),
        ("I do not know", 0.0, 0.0),
    ],
)
def test_what_earns_what(text: str, right: float, form: float) -> None:
    rollout = Rollout("p", (Message("user", "?"),), (1,), (5, 2), text, (0.0, 0.0), "stop", columns={"answer": "14"})
    accuracy, kept = (source.score([rollout])[0].value for source in rewards())
    assert (accuracy, kept) == (right, form)


def test_dry_run_and_refusals(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "reasoning", "--dry-run", "--output_dir", str(tmp_path / "none")]) == 0
    assert "--- worked" in capsys.readouterr().out and not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="has no --full"):
        DemoOptions("reasoning", full=True)
