"""A killed run resumes, in a new process, to the same weights and the same metrics, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("run_training.py")
METHODS = ("reward_heads", "sft", "reward", "prm", "dpo", "kto", "ppo", "grpo", "sft_8bit")
STEPS = 10
SETTINGS = {"max_steps": STEPS, "save_steps": 2, "save_total_limit": 2}


def start(folder: Path, methods: list[str], **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps({**SETTINGS, **settings}), *methods]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def wait_for_rows(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text(encoding="utf-8").count("\n") < count:
        assert process.poll() is None, f"the run ended before {count} rows: {process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n") if line]
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in found]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{STEPS}" / "training.safetensors")


def assert_same(found: Path, expected: Path) -> None:
    ours, theirs = tensors(found), tensors(expected)
    assert ours.keys() == theirs.keys()
    different = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert rows(found) == rows(expected)
    assert [row["step"] for row in rows(found) if "grad_norm" in row] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    finish(start(folder, list(METHODS)))
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Every method killed at a random step (the first one stopped by Ctrl-C), then all of them resumed in one new process."""
    folder = tmp_path_factory.mktemp("resumed")
    with ThreadPoolExecutor(2) as two:
        done = [two.submit(killed, folder, method) for method in METHODS[1:]] + [two.submit(interrupted, folder, METHODS[0])]
        for stopped in done:
            stopped.result()
    return folder, finish(start(folder, list(METHODS), resume=True))


def killed(folder: Path, method: str) -> None:
    step, delay = random.randint(3, STEPS - 2), random.uniform(0, 0.1)
    print(f"{method}: killed {delay:.3f} s after row {step}")
    process = start(folder, [method], pause=0.1)
    try:
        wait_for_rows(folder / method / "metrics.jsonl", step, process)
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    assert not (folder / method / f"checkpoint-{STEPS}").exists()


def interrupted(folder: Path, method: str) -> None:
    """Ctrl-C saves even where no checkpoints were asked for, says where, and ends with 130."""
    if sys.platform == "win32":  # a signal to another process ends it at once there
        return killed(folder, method)
    process = start(folder, [method], pause=0.1, save_steps=0)
    wait_for_rows(folder / method / "metrics.jsonl", 3, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Stopping after this step and saving" in output
    saved = Path(output.split("interrupted: saved ")[1].strip())
    assert saved.parent == folder / method and (saved / "training.safetensors").exists()
    return None


@pytest.mark.parametrize("method", METHODS)
def test_stopped_run_resumes_bit_for_bit(method: str, straight: Path, resumed: tuple[Path, str]) -> None:
    folder, output = resumed
    assert output.count("(bit for bit)") == len(METHODS)
    assert_same(folder / method, straight / method)
    if method in ("ppo", "grpo"):
        assert (folder / method / "rollouts.jsonl").read_bytes() == (straight / method / "rollouts.jsonl").read_bytes()


def test_run_learned_something(straight: Path) -> None:
    """Bit-equality would be cheap if no weight moved."""
    for method in METHODS:
        moments = [value for name, value in tensors(straight / method).items() if name.startswith("exp_avg/")]
        assert moments and all(value.any() for value in moments if value.numel() > 1)
