"""Flex attention over the same tree: its mask against the calls branch by branch, and whole models forward. Its gradient needs a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from accord import SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel, Want
from accord.models.flex_attention import FlexLayout
from accord.models.packed_attention import TreeLayout

HEADER = tuple(range(10))
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 8), max_size=3)), min_size=1, max_size=4),
    shared=st.booleans(),
    window=st.sampled_from([None, 1, 3, 11, 100]),
    softcap=st.sampled_from([None, 2.0]),
    kv_heads=st.sampled_from([1, 2, 4]),
)
def test_equals_the_branches(
    lengths: list[tuple[int, list[int]]], shared: bool, window: int | None, softcap: float | None, kv_heads: int
) -> None:
    units = [
        Unit((*(HEADER if shared else ()), *range(100 * i, 100 * i + prompt)), tuple(Branch(tuple(range(answer))) for answer in answers))
        for i, (prompt, answers) in enumerate(lengths, 1)
    ]
    batch = pack(units)
    generator = torch.Generator().manual_seed(batch.num_tokens)
    query, key, value = (torch.randn(1, heads, batch.num_tokens, 8, generator=generator) for heads in (4, kv_heads, kv_heads))
    found, expected = (
        layout.attend(0, query, key, value, scale=0.4, window=window, softcap=softcap) for layout in (FlexLayout(batch), TreeLayout(batch))
    )
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_whole_models_forward(architecture: str) -> None:
    units = [Unit((*HEADER, 41, 42, 43), (Branch((44, 45, 46)), Branch((47,)))), Unit((*HEADER, 48), (Branch(tuple(range(50, 170))),))]
    found = []
    for attention in ("branches", "flex"):
        policy = PolicyModel(tiny.model(architecture), packed=True)
        policy.attention = attention
        assert isinstance(policy.layout(pack(units)), FlexLayout if attention == "flex" else TreeLayout)
        with torch.no_grad():
            found.append(policy.forward(pack(units), (), Want()).logprobs)
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_on_a_cpu_it_cannot_be_trained_with(tmp_path: Path) -> None:
    args = SFTConfig(output_dir=str(tmp_path), attention="flex")
    with pytest.raises(ConfigError, match="attention='flex' is for GPUs"):
        SFTTrainer(tiny.policy(), args, tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    with pytest.raises(ConfigError, match="attention='varlen' must be one of branches, flex"):
        SFTConfig(attention="varlen")
