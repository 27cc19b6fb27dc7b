"""docs/small-weights.md shows what the benchmark kept, failures too."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_weights", ROOT / "benchmarks" / "small_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_was_measured() -> None:
    module = benchmark()
    results = json.loads(module.RESULTS.read_text(encoding="utf-8")) if module.RESULTS.exists() else {}
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.written(page, results) == page, "run python benchmarks/small_weights.py --write"
    found = {"longest": 1024, "peak GB": 3.456, "loading s": 12.3, "tokens/s": 21.04, "foreign share": 0.2}
    assert module.line("llama-3.2-1b nf4", found) == "| llama-3.2-1b, 1024 | nf4 | 3.46 | 12 | 21.0 | 20% |"
    assert module.line("llama-3.2-1b fp32", {"failed": "> 60 s"}) == "| llama-3.2-1b | fp32 | > 60 s | | | |"


def test_every_run_is_named_once() -> None:
    names = [run.name for run in benchmark().RUNS]
    assert len(names) == len(set(names)) and {"llama-3.2-1b nf4", "qwen2.5-3b bf16", "llama-3.2-3b bitsandbytes", "mistral-7b nf4"} <= set(
        names
    )
