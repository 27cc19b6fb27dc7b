"""Ctrl-C prints a line to go on with, and that line does: pasted as it stands, twice interrupted, to the end of the same run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from accord.cli import resume_line

STEPS = 40


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["sft", "rows.jsonl"], "accord sft rows.jsonl --resume_from_checkpoint runs/x/checkpoint-7"),
        (
            ["sft", "--resume_from_checkpoint", "runs/x/checkpoint-3", "--data", "my rows.jsonl"],
            "accord sft --data 'my rows.jsonl' --resume_from_checkpoint runs/x/checkpoint-7",
        ),
        (
            ["sft", "--resume-from-checkpoint=old", "--reward", "r.py:f*0.5"],
            "accord sft --reward 'r.py:f*0.5' --resume_from_checkpoint runs/x/checkpoint-7",
        ),
        (["sft", "rows.jsonl", "--resume_from_checkpoint"], "accord sft rows.jsonl --resume_from_checkpoint runs/x/checkpoint-7"),
        (["sft", "--resume_from_checkpoint", "--seed", "3"], "accord sft --seed 3 --resume_from_checkpoint runs/x/checkpoint-7"),
        (["demo", "rlhf", "--seed", "3"], "accord demo rlhf --seed 3"),
        (["constitution", "red-team.jsonl", "--rl", "ppo"], "accord constitution red-team.jsonl --rl ppo"),
    ],
)
def test_line(given: list[str], expected: str) -> None:
    assert resume_line(given, "runs/x/checkpoint-7") == expected


def start(place: Path, arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "accord", *arguments]
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def interrupted(place: Path, arguments: list[str], after: int) -> tuple[list[str], Path]:
    """Ctrl-C once a run has logged `after` rows; the arguments of the printed line and the run's folder."""
    process = start(place, arguments)
    deadline = time.monotonic() + 120
    while True:
        logs = list(place.glob("runs/2*/metrics.jsonl"))
        if logs and logs[0].read_text(encoding="utf-8").count("\n") >= after:
            break
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    line = shlex.split(said.split("Go on with: ")[1].strip())
    assert line[0] == "accord" and line.count("--resume_from_checkpoint") == 1
    return line[1:], logs[0].parent


@pytest.mark.skipif(sys.platform == "win32", reason="a signal to another process ends it at once there")
def test_the_printed_line_resumes_the_run(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    tiny.model().save_pretrained(place / "my model")
    tiny.tokenizer().save_pretrained(place / "my model")
    rows = [{"prompt": f"Say {i}", "completion": f"It is {i}."} for i in range(32)]
    (place / "my rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--model", "my model", "--max_steps", str(STEPS), "--learning_rate", "1e-2", "--lora_r", "2"]
    options += ["--eval_data", "my rows.jsonl", "--eval_steps", "10", "--load_best_model_at_end"]
    command = ["sft", "my rows.jsonl", *options]
    again, folder = interrupted(place, command, 6)
    once_more, same = interrupted(place, again, 12)
    assert same == folder
    process = start(place, once_more)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said

    # One folder, one metrics file without a gap, and the best checkpoint found where it was saved. (Bit for bit: test_resume.py.)
    assert [path.name for path in (place / "runs").iterdir() if path.name != "last"] == [folder.name]
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in logged if "grad_norm" in row] == list(range(1, STEPS + 1))
    best = min(row["eval_loss"] for row in logged if "eval_loss" in row)
    assert f"eval_loss {best:.4g}" in said.split("held out: ")[1]
