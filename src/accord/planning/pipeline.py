"""Memory of a pipeline, which trains one adapter after the other on a base that it keeps: `accord demo`, `accord align`, `accord constitution`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accord.models.size import SMALLEST_BUDGET, ModelSize
from accord.planning.memory import MemoryNeed, Way, predict
from accord.planning.plan import Place
from accord.planning.work import SAMPLED_TOGETHER

BUDGETS = (1024, 512, SMALLEST_BUDGET)
"""Tokens at once that memory is planned for, the first that fits."""
PROMPT_TOKENS = 128
"""Of a sampled row, likewise."""
DEMO: Mapping[str, Any] = {"rank": 16, "rows": 96, "answer_tokens": 48}
"""What `pipeline_need` is told of the quick demo."""


def pipeline_need(
    size: ModelSize, place: Place, *, rank: int, rows: int, answer_tokens: int, adapters: int = 2, budget: int = BUDGETS[0]
) -> MemoryNeed:
    """Bytes of its largest stage, which trains all of its adapters but the lowest and samples.

    Args:
        rows: answers to a round's prompts.
        adapters: that are there at once.
        budget: tokens at once.
    """
    return predict(
        size,
        rank=rank,
        adapters=adapters,
        trained_adapters=adapters - 1,
        token_budget=budget,
        context=1024,
        sample_rows=min(SAMPLED_TOGETHER, rows),
        sample_tokens=PROMPT_TOKENS + answer_tokens,
        weight_bytes=place.weight_bytes,
        compute_bytes=place.compute_bytes,
        held=place.held,
    )


def smaller_ways(needs: Mapping[str, float], have: float, *, half: bool) -> tuple[Way, ...]:
    """How else the base could be held so that a pipeline fits, the most exact first.

    Args:
        needs: bytes that it takes with the base held in bf16, int8 and nf4.
        half: True where the checkpoint is in bfloat16. False where holding it so rounds it.
    """
    said = {
        "bf16": "the base held in bf16, " + ("as the checkpoint is" if half else "which keeps 8 bits of a number's digits"),
        "int8": "the base held in eight bits",
        "nf4": "the base held in four bits",
    }
    return tuple(Way(text, f"--weights {name}") for name, text in said.items() if needs[name] <= have)
