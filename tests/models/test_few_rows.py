"""Products for one or two rows: those of the plain linear layer, from the weight where it lies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tiny
from accord.models.few_rows import MOST_ROWS, few_rows_linear, runs_few_rows


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_the_linear_layer(shape: tuple[int, ...], with_bias: bool) -> None:
    weight, inputs = torch.randn(48, 40), torch.randn(*shape, 40)
    bias = torch.randn(48) if with_bias else None
    before = weight.clone()
    found = few_rows_linear(weight, bias)(inputs)
    assert torch.allclose(found, F.linear(inputs, weight, bias), atol=1e-5)
    assert found.is_contiguous() and torch.equal(weight, before)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the exchanged product is MKL's")
def test_few_rows_read_a_weight_that_no_adapter_changes_from_where_it_lies() -> None:
    """The head, whose weight is doubled meanwhile: a copy of it would not know."""
    policy = tiny.policy()
    policy.add_adapter("sft", tiny.lora())
    held = policy.holding(("sft",), prepack=True)
    assert held.prepacked and runs_few_rows(MOST_ROWS) and not runs_few_rows(MOST_ROWS + 1)
    head = policy.model.get_output_embeddings()
    states = torch.randn(MOST_ROWS, policy.hidden_size)
    for rows, factor in ((MOST_ROWS, 2.0), (MOST_ROWS + 1, 1.0)):
        with torch.no_grad(), policy.merged(("sft",), held, rows=rows):
            before = head(states)
            head.weight.mul_(2)
            assert torch.allclose(head(states), factor * before, atol=1e-5)
            head.weight.div_(2)
    assert "forward" not in head.__dict__
