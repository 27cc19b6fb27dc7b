"""`accord doctor`: what it says of this machine, and of models whose templates are right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from accord.cli import main
from accord.planning import checkup
from accord.planning.checkup import machine_findings, model_findings, slow_findings


def saved(folder: Path, **changes: Any) -> str:
    """A model folder whose tokenizer has these changes."""
    tokenizer = tiny.tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tiny.model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "not there yet"))
    found = [str(finding) for finding in machine_findings()]
    assert any("threads on" in line and "instructions" in line for line in found)
    assert any(line.startswith("memory ") and "the demo needs 4 GB" in line for line in found)
    assert sum(line.startswith("disk ") for line in found) == 2 and any(str(tmp_path) in line for line in found)


def test_too_little_memory_and_disk_have_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "available_memory", lambda _device: int(1e9))
    monkeypatch.setattr(checkup, "STARTER_BYTES", 1e18)
    found = "\n".join(map(str, machine_findings()))
    assert "1.0 GB free; the demo needs 4 GB; close programs" in found and "set ACCORD_CACHE to another disk" in found


def test_what_will_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = [str(finding) for finding in slow_findings(measure=False)]
    assert any("OMP_NUM_THREADS=1 limits the threads" in line for line in found)
    monkeypatch.setattr(checkup, "gemm_gflops", lambda *_: 10.0)
    assert "several times as long" in str(slow_findings()[-1])


def test_a_model_that_is_right(tmp_path: Path) -> None:
    (finding,) = model_findings(saved(tmp_path))
    assert "template of its own" in str(finding) and "'<|end|>' (2)" in str(finding)


def test_a_base_model_gets_the_plain_template(tmp_path: Path) -> None:
    assert "template accord-plain" in str(model_findings(saved(tmp_path, chat_template=None))[0])


def test_a_template_that_writes_another_prompt_with_an_answer(tmp_path: Path) -> None:
    moody = "{% if messages|length > 1 %}{{ 'Again. ' }}{% endif %}" + tiny.TEMPLATE
    assert "does not keep the prompt as a prefix" in str(model_findings(saved(tmp_path, chat_template=moody))[-1])


def test_a_model_that_cannot_be_opened_is_a_line() -> None:
    (finding,) = model_findings("no-such-model")
    assert "no-such-model" in str(finding) and "nothing more can be checked" in str(finding)


def test_a_model_that_was_named_and_is_not_there_is_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "no-such-model", saved(tmp_path), "--quick"]) == 4
    said = capsys.readouterr()
    assert (
        said.err.splitlines()[-1] == "Not ready: no-such-model"
        and "Ready" not in said.out
        and f"{tmp_path}: template of its own" in said.out
    )


def test_the_command_names_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", saved(tmp_path), "--quick"]) == 0
    said = capsys.readouterr().out
    assert "What will be slow:" in said and f"{tmp_path}: template of its own" in said and "GF/s" not in said
