"""Rows taken more than once: their gradients are those of indexing, and the same to the last bit each time, on several threads too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from accord.models.take import take


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def slope(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    rows = rows.clone().requires_grad_(True)
    (take(rows, index) * weights).sum().backward()
    assert rows.grad is not None
    return rows.grad


@pytest.mark.parametrize("shape", [(6,), (2, 3), (0,)])
def test_is_indexing(shape: tuple[int, ...]) -> None:
    rows = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(1))
    found, expected = take(rows, index), rows[index]
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    assert torch.allclose(*(torch.autograd.grad((each * weights).sum(), rows)[0] for each in (found, expected)))


def test_adds_up_in_one_order(two_threads: None) -> None:
    """A thousand answers that begin behind one of four prompts: each prompt's state collects hundreds of gradients."""
    generator = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(4, 576, generator=generator), torch.randn(1000, 576, generator=generator)
    index = torch.randint(0, 4, (1000,), generator=generator)
    first = slope(rows, index, weights)
    assert all(torch.equal(slope(rows, index, weights), first) for _ in range(50))
