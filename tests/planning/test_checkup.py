"""`accord doctor`: what it says of this machine, and of models whose templates are right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from accord.cli import main
from accord.config.options import DemoOptions
from accord.errors import MachineError
from accord.planning import checkup
from accord.planning.checkup import demo_bytes, machine_findings, model_findings, slow_findings
from accord.recipes.demo import QUICK, demo_plan


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
    assert any(line.startswith("memory ") and "the demo needs 2.5 GB" in line for line in found)
    assert sum(line.startswith("disk ") for line in found) == 2 and any(str(tmp_path) in line for line in found)


def test_too_little_memory_and_disk_have_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "available_memory", lambda _device: int(1e9))
    monkeypatch.setattr(checkup, "STARTER_BYTES", 1e18)
    found = "\n".join(map(str, machine_findings()))
    assert (
        "1.0 GB free; the demo needs 2.5 GB; close programs; even in four bits it takes" in found
        and "set ACCORD_CACHE to another disk" in found
    )


@pytest.mark.parametrize(("free", "weights"), [(1.5, None), (2.1, "nf4"), (3.0, "auto")])
def test_the_demo_runs_where_it_is_advised(
    free: float, weights: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the doctor says of the demo is what the demo decides, and what it advises is not refused."""
    for name in ("accord.planning.checkup", "accord.planning.here"):
        monkeypatch.setattr(f"{name}.available_memory", lambda _device: free * 1e9)
    said = next(str(finding) for finding in machine_findings() if str(finding).startswith("memory "))
    assert ("close programs" in said) is (weights != "auto") and ("or in four bits" in said) is (weights == "nf4")
    for one in ("auto", "nf4"):
        refused = one == "auto" if weights == "nf4" else weights is None
        options = DemoOptions(weights=one)
        if refused:
            with pytest.raises(MachineError, match=r"accord demo rlhf on smollm2-135m needs \d\.\d GB of memory") as error:
                demo_plan("rlhf", "smollm2-135m", QUICK, options)
            assert ("--weights " in str(error.value)) is (weights == "nf4")
        else:
            need = demo_plan("rlhf", "smollm2-135m", QUICK, options).need
            assert need is not None and need.total == demo_bytes(one, "cpu", free * 1e9)
            assert "Plan: demo rlhf on smollm2-135m fits: " in capsys.readouterr().err


@pytest.mark.parametrize("route", ["rlhf", "dpo", "hacking", "reasoning", "constitution"])
def test_every_route_asks_for_the_memory_of_its_weights(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three free GB, which once were refused whatever the weights; too few are refused before a model is fetched, unless that is to be ignored."""

    def reached(*_: Any, **__: Any) -> Any:
        raise MachineError("far enough")

    for name in ("demo.Pipeline", "hacking.Pipeline", "constitution.open_model", "reasoning.open_model"):
        monkeypatch.setattr(f"accord.recipes.{name}", reached)
    given = ["demo", route, "--output-dir", str(tmp_path), "--weights", "nf4"]
    for free, more, told in ((3.0, [], "far enough"), (1.0, [], "needs "), (1.0, ["--ignore-memory"], "far enough")):
        monkeypatch.setattr("accord.planning.here.available_memory", lambda _, free=free: free * 1e9)
        assert main([*given, *more]) == 4
        said = capsys.readouterr().err
        assert told in said and (f"Plan: demo {route} on smollm2-135m " in said) is (told == "far enough")


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
