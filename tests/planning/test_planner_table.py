"""docs/planner.md shows every kept row of the benchmark, failures too: `python benchmarks/planner.py --write`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("planner_benchmark", ROOT / "benchmarks" / "planner.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_was_measured() -> None:
    module = benchmark()
    results = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.written(page, results) == page, "run python benchmarks/planner.py --write"


def test_a_row_says_how_far_off_the_plan_was() -> None:
    found = {"planned GB": 2.2, "measured GB": 2.0, "planned s": 90.0, "measured s": 100.0, "foreign share": 0.01}
    line = benchmark().line("smollm2-135m dpo 512 lora_layers=0.5", found)
    assert line == "| smollm2-135m dpo 512 | lora_layers=0.5 | 2.20, 2.00 | +10% | 90, 100 | -10% |  |"
    assert "31%" in benchmark().line("a b 1", {**found, "foreign share": 0.31})
    assert "> 900 s" in benchmark().line("a b 1", {"failed": "> 900 s"})


def test_there_are_enough_runs_of_every_method_and_several_models() -> None:
    runs = benchmark().RUNS
    assert len(runs) >= 12 and len({run.name for run in runs}) == len(runs)
    assert {run.method for run in runs} == {"sft", "reward", "prm", "dpo", "kto", "ppo", "grpo"}
    assert len({run.model for run in runs}) >= 4


def test_rows_of_every_method_are_rows() -> None:
    from accord.training.setup import examples

    kinds = {
        "sft": "demonstration",
        "dpo": "preference",
        "reward": "preference",
        "kto": "labelled",
        "prm": "steps",
        "ppo": "prompt",
        "grpo": "prompt",
    }
    module = benchmark()
    for run in module.RUNS:
        rows = examples(module.rows_of(run), kinds=(kinds[run.method],), what="rows")
        assert len(rows) == run.rows
