"""Two processes give the weights of one, and log each step once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("run_training.py")
METHODS = ("sft", "reward", "reward_heads", "dpo", "kto", "ppo")
STEPS = 5
SETTINGS = {"max_steps": STEPS, "save_steps": 2, "tokens_per_microbatch": 64, "eval_steps": 0}


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(SCRIPT), str(folder), json.dumps(SETTINGS), *METHODS],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    run([*launch, "--dynamo_backend", "no", "--main_process_port", str(port)], folder / "two")
    run([], folder / "one")
    return folder / "one", folder / "two"


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one(method: str, runs: tuple[Path, Path]) -> None:
    one, two = (load_file(run / method / f"checkpoint-{STEPS}" / "training.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert float((two[name].double() - expected.double()).abs().max()) < 1e-5, name
    # The last batch of an epoch is uneven: 9 rows, 4 a step.
    rows = [[json.loads(line) for line in (run / method / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] for run in runs]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == list(range(1, STEPS + 1))
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        for key in set(ours) - {"step_seconds"}:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-3, abs=1e-4), key


def test_each_rollout_is_written_once(runs: tuple[Path, Path]) -> None:
    one, two = ((run / "ppo" / "rollouts.jsonl").read_text(encoding="utf-8").count("\n") for run in runs)
    assert one == two > 0
