"""docs/small-weights.md shows what the benchmark kept, failures too."""

from __future__ import annotations

import json

import libraries
import small_curves
import small_weights


def test_the_table_is_what_was_measured() -> None:
    results = json.loads(small_weights.RESULTS.read_text(encoding="utf-8")) if small_weights.RESULTS.exists() else {}
    page = small_weights.PAGE.read_text(encoding="utf-8")
    assert small_weights.written(page, results) == page, "run python benchmarks/small_weights.py --write"
    found = {
        "longest": 1024,
        "peak GB": 3.456,
        "loading s": 12.3,
        "tokens/s": 21.04,
        "training s": 99.6,
        "foreign share": 0.2,
        "capability": "AVX2",
    }
    assert small_weights.line("llama-3.2-1b nf4", found) == "| llama-3.2-1b, 1024 | nf4 | 3.46 |  | 12 | 21.0 | 100 |  | 20% | AVX2 |"
    planned = {**found, "planned GB": 3.4, "planned s": 90.2}
    assert (
        small_weights.line("llama-3.2-1b nf4", planned) == "| llama-3.2-1b, 1024 | nf4 | 3.46 | 3.40 | 12 | 21.0 | 100 | 90 | 20% | AVX2 |"
    )
    assert small_weights.line("llama-3.2-1b fp32", {"failed": "> 60 s"}) == "| llama-3.2-1b | fp32 | > 60 s | | | | | | | |"


def test_the_curves_are_what_was_measured() -> None:
    results = json.loads(small_curves.RESULTS.read_text(encoding="utf-8"))
    page = small_curves.PAGE.read_text(encoding="utf-8")
    assert small_curves.written(page, results) == page, "run python benchmarks/small_curves.py --write"
    assert small_curves.CHART.read_text(encoding="utf-8") == small_curves.chart(results), "run python benchmarks/small_curves.py --write"


def test_the_libraries_are_as_measured() -> None:
    page = libraries.PAGE.read_text(encoding="utf-8")
    results = json.loads(libraries.RESULTS.read_text(encoding="utf-8"))
    assert libraries.written(page, results) == page, "run python benchmarks/libraries.py --write"
    assert {part: set(rows) for part, rows in results.items()} == {part: set(libraries.WAYS) for part in libraries.HEADERS}


def test_a_curve_follows_within_a_tenth_of_the_fall() -> None:
    """Float32 falls by 0.1 a nat: 0.009 away follows, 0.011 does not, and neither does a held-out loss 0.011 away."""
    falls = [0.7] * 5 + [0.65] * 30 + [0.6] * 5
    plain = {"loss": falls, "held-out loss": 0.6}
    near, far = ({"loss": [loss + step for loss in falls], "held-out loss": 0.6} for step in (0.009, 0.011))
    assert small_curves.follows(near, plain) and not small_curves.follows(far, plain)
    assert not small_curves.follows({**near, "held-out loss": 0.611}, plain)


def test_every_run_is_named_once() -> None:
    names = [run.name for run in small_weights.RUNS]
    assert len(names) == len(set(names)) and {"llama-3.2-1b nf4", "qwen2.5-3b bf16", "llama-3.2-3b bitsandbytes", "mistral-7b nf4"} <= set(
        names
    )
