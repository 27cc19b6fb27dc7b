"""Linear layers for one or two rows, while sampling: the weight is read once from where it lies, nothing is reordered.

A row or two is what a chat or a page with two answers decodes. MKL's ordinary product of two rows reads 4 to 9 GB/s of weights; with the
operands exchanged 12 to 16, reordered weights 8 to 12 (LOG.md, 2026-11-29, noon).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 2
"""From three on reordered weights are as fast or faster."""


def runs_few_rows(rows: int) -> bool:
    """Whether steps of so many rows run best from weights as they lie."""
    return rows <= MOST_ROWS and torch.backends.mkl.is_available()


def few_rows_linear(weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    """x -> x weight^T + bias for a weight (out, in); any number of rows, fast for one or two."""

    def forward(inputs: Tensor, *_: object, **__: object) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        if len(rows) != MOST_ROWS:
            return F.linear(inputs, weight, bias)
        output = torch.mm(weight, rows.t()).t().contiguous().view(*inputs.shape[:-1], -1)
        return output if bias is None else output.add_(bias)

    return forward
