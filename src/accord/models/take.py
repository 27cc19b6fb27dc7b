"""Rows of a tensor whose gradients add up in one order."""

from __future__ import annotations

from torch import Tensor


def take(rows: Tensor, index: Tensor) -> Tensor:
    """`rows[index]` along the first axis; a row that is taken twice gets the same gradient, to the last bit, each time.

    On a CPU the gradient of indexing is added by several threads in the order in which they come, on a GPU that of `index_select` is: each
    device gets the other one.
    """
    return rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:]) if rows.device.type == "cpu" else rows[index]
