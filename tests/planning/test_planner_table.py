"""docs/planner.md shows every kept row of the benchmark, failures too: `python benchmarks/planner.py --write`."""

from __future__ import annotations

import json

import planner


def test_the_table_is_what_was_measured() -> None:
    results = json.loads(planner.RESULTS.read_text(encoding="utf-8"))
    page = planner.PAGE.read_text(encoding="utf-8")
    assert planner.written(page, results) == page, "run python benchmarks/planner.py --write"


def test_a_row_says_how_far_off_the_plan_was() -> None:
    found = {"planned GB": 2.2, "measured GB": 2.0, "planned s": 90.0, "measured s": 100.0, "foreign share": 0.01}
    line = planner.line("smollm2-135m dpo 512 lora_layers=0.5", found)
    assert line == "| smollm2-135m dpo 512 | lora_layers=0.5 | 2.20, 2.00 | +10% | 90, 100 | -10% |  |"
    assert "31%" in planner.line("a b 1", {**found, "foreign share": 0.31})
    assert "> 900 s" in planner.line("a b 1", {"failed": "> 900 s"})


def test_there_are_enough_runs_of_every_method_and_several_models() -> None:
    runs = planner.RUNS
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
    for run in planner.RUNS:
        rows = examples(planner.rows_of(run), kinds=(kinds[run.method],), what="rows")
        assert len(rows) == run.rows
