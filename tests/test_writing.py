"""Nothing half-written: folders and files that fail in the middle, and whole commands on a disk that is full.

A full disk is a limit on file sizes (RLIMIT_FSIZE): every write beyond it fails in the kernel, for Python and for Rust code, without
privileges.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord.errors import MachineError
from accord.training import checkpoint
from accord.writing import append_text, no_room, whole_folder, write_text

needs_limits = pytest.mark.skipif(os.name != "posix", reason="file size limits are a POSIX feature")
COMMANDS = """
import contextlib, io, json, os, resource, sys
from accord.cli import main
for limit, *arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    print(json.dumps([code, said.getvalue()]), flush=True)
"""
"""Runs commands one after the other in one process, each under its own limit in bytes (0 is none)."""


def run_limited(commands: list[list[Any]]) -> list[tuple[int, str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- folders ---------------------------------------------------------------------------------------------------------------------------


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with pytest.raises(KeyError), whole_folder(target) as folder:
        (folder / "a").write_text("half", encoding="utf-8")
        raise KeyError
    assert not list(target.parent.iterdir())
    with whole_folder(target) as folder:
        (folder / "a").write_text("new", encoding="utf-8")
        assert not target.exists()
    assert contents(tmp_path) == {"deep/run/a": b"new"}


def test_files_enter_a_folder_that_is_there_beside_its_others(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("kept", encoding="utf-8")
    (tmp_path / "a").write_text("old", encoding="utf-8")
    with (
        pytest.raises(MachineError, match="Could not write .*: No space left on device. Nothing half-written"),
        whole_folder(tmp_path) as f,
    ):
        (f / "a").write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert contents(tmp_path) == {"metrics": b"kept", "a": b"old"}
    with whole_folder(tmp_path) as folder:
        (folder / "a").write_text("new", encoding="utf-8")
        (folder / "stack" / "0").mkdir(parents=True)
        (folder / "stack" / "0" / "b").write_text("b", encoding="utf-8")
    assert contents(tmp_path) == {"metrics": b"kept", "a": b"new", "stack/0/b": b"b"}
    with whole_folder(tmp_path / "stack", replace=True) as folder:
        (folder / "c").write_text("c", encoding="utf-8")
    assert contents(tmp_path) == {"metrics": b"kept", "a": b"new", "stack/c": b"c"}


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / ".checkpoint-1.partial"
    left.mkdir()
    (left / "half").write_text("half", encoding="utf-8")
    checkpoint.write(tmp_path / "checkpoint-1", {"a": torch.ones(2)}, {"global_step": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert sorted(path.name for path in (tmp_path / "checkpoint-1").iterdir()) == ["trainer_state.json", "training.safetensors"]


def test_errors_of_every_library_are_one_line() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.jsonl")
    assert str(no_room(full)).startswith("Could not write out.jsonl: No space left on device.")
    rust = no_room(Exception(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})"))
    assert str(rust).startswith("Could not write: No space left on device.")
    assert no_room(OSError(errno.EACCES, "no")) is None and no_room(KeyError("bug")) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"metrics.jsonl cannot be written: No space left on device"):
        append_text(log, "{}\n")
    write_text(tmp_path / "a", "x\n")
    append_text(tmp_path / "a", "y\n")
    assert (tmp_path / "a").read_bytes() == b"x\ny\n"


@needs_limits
def test_an_append_that_does_not_fit_leaves_no_half_row(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom accord.writing import append_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "append_text(Path(sys.argv[1]), 'first\\n')\nappend_text(Path(sys.argv[1]), 'second\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], capture_output=True, text=True, check=False)
    assert "MachineError" in done.stderr and (tmp_path / "a").read_bytes() == b"first\n"


# -- whole commands --------------------------------------------------------------------------------------------------------------------


@needs_limits
def test_commands_on_a_full_disk(tmp_path: Path) -> None:
    """One line and exit code 4 wherever the disk fills; the run folder is as it was, its checkpoint goes on."""
    base, run, reward = tmp_path / "base", tmp_path / "run", tmp_path / "reward"
    tiny.model().save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    for name, row in (
        ("shown", {"prompt": "Say red", "completion": "red"}),
        ("pairs", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("asked", {"prompt": "a"}),
    ):
        rows = [{**row, "prompt": f"{row['prompt']} {i}"} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "score.py").write_text("def length(completions):\n    return [float(len(str(c))) for c in completions]\n", encoding="utf-8")
    shared = ["--model", str(base), "--dtype", "float32", "--max_length", "64"]
    sft = ["sft", str(tmp_path / "shown.jsonl"), *shared, "--lora_r", "64"]
    ppo = ["ppo", str(tmp_path / "asked.jsonl"), *shared, "--reward", f"{tmp_path / 'score.py'}:length", "--max_new_tokens", "24"]
    ppo += ["--num_iterations", "9", "--prompts_per_iteration", "2", "--num_generations", "2", "--output_dir", str(tmp_path / "ppo")]
    resume = [*sft, "--output_dir", str(run), "--max_steps", "2", "--resume_from_checkpoint", "true"]
    weights, words, little = 150_000, 4_000, 300
    first = run_limited([[0, *sft, "--output_dir", str(run), "--max_steps", "1", "--save_steps", "1"]])
    assert first[0][0] == 0, first
    saved = contents(run)
    assert len(saved["adapter_model.safetensors"]) > weights > len(saved["tokenizer.json"]) > words
    full = run_limited(
        [
            [weights, *resume],
            [words, *resume],
            [weights, *resume, "--save_steps", "1"],
            [weights, *sft, "--output_dir", str(tmp_path / "fresh"), "--max_steps", "1"],
            [little, *sft, "--output_dir", str(tmp_path / "early"), "--max_steps", "1"],
            [weights, "reward", str(tmp_path / "pairs.jsonl"), *shared, "--lora_r", "64", "--max_steps", "1", "--output_dir", str(reward)],
            [3 * words, *ppo],
            [weights // 10, "export", str(run), "--to", str(tmp_path / "merged")],
            [weights // 10, "export", str(run), "--to", str(tmp_path / "copied"), "--merged", "false"],
        ]
    )
    for code, said in full:
        errors = [line for line in said.splitlines() if "Error" in line]
        assert code == 4 and len(errors) == 1 and "File too large" in errors[0] and "Traceback" not in said, said
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    logs = {"metrics.jsonl", "run.json", "README.md"}
    now = contents(run)
    assert now.keys() == saved.keys() and all(now[name] == saved[name] for name in saved if name not in logs)
    assert checkpoint.read(run / "checkpoint-1")[1]["global_step"] == 1
    for folder in (tmp_path / "fresh", tmp_path / "early", reward):
        assert contents(folder).keys() <= logs
    assert not (tmp_path / "merged").exists() and not (tmp_path / "copied").exists()
    rollouts = [json.loads(line) for line in (tmp_path / "ppo" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rollouts and len(rollouts) % 4 == 0  # whole rounds of two prompts with two answers
    assert run_limited([[0, *resume]])[0][0] == 0
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] == [1, 2]
