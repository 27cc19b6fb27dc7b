"""docs/small-weights.md shows what the benchmark kept, failures too."""

from __future__ import annotations

import json

import small_weights


def test_the_table_is_what_was_measured() -> None:
    results = json.loads(small_weights.RESULTS.read_text(encoding="utf-8")) if small_weights.RESULTS.exists() else {}
    page = small_weights.PAGE.read_text(encoding="utf-8")
    assert small_weights.written(page, results) == page, "run python benchmarks/small_weights.py --write"
    found = {"longest": 1024, "peak GB": 3.456, "loading s": 12.3, "tokens/s": 21.04, "foreign share": 0.2}
    assert small_weights.line("llama-3.2-1b nf4", found) == "| llama-3.2-1b, 1024 | nf4 | 3.46 | 12 | 21.0 | 20% |"
    assert small_weights.line("llama-3.2-1b fp32", {"failed": "> 60 s"}) == "| llama-3.2-1b | fp32 | > 60 s | | | |"


def test_every_run_is_named_once() -> None:
    names = [run.name for run in small_weights.RUNS]
    assert len(names) == len(set(names)) and {"llama-3.2-1b nf4", "qwen2.5-3b bf16", "llama-3.2-3b bitsandbytes", "mistral-7b nf4"} <= set(
        names
    )
