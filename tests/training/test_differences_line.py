"""The line that says what is different from TRL on purpose: once a config class, and only to who wrote a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LINE = "{}: unlike TRL's, on purpose: "


def stderr(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_it_is_said_once_for_each_class() -> None:
    """Two configs of a class are one line; PPOConfig, which TRL no longer has, says none."""
    names = ["SFTConfig", "RewardConfig", "DPOConfig", "KTOConfig"]
    code = f"import accord\nfor name in {[*names, 'PPOConfig']} * 2: getattr(accord, name)(learning_rate=1e-4)"
    lines = stderr(code).splitlines()
    assert [line.split(":")[0] for line in lines] == names
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(LINE.format(name)) and "the chat template is applied to plain strings too" in line
        assert line.endswith("Why: docs/from-trl.md")
    assert ["loss is averaged over the whole step" in line for line in lines] == [False, True, True, True]
    assert ["the reference is the model before its first step" in line for line in lines] == [False, False, True, True]


@pytest.mark.parametrize("command", ["sft", "reward", "dpo", "kto"])
def test_it_is_not_said_on_the_command_line(command: str, tmp_path: Path) -> None:
    """Where the same config is built from flags, up to the error of a missing file."""
    given = [command, "--data", str(tmp_path / "none.jsonl"), "--learning_rate", "1e-4", "--model", "stories260k"]
    said = stderr(f"from accord.cli import main\nassert main({given!r}) == 3")
    assert "does not exist" in said and "unlike TRL" not in said
