"""FLOP of passes against torch's own counter, on the packed, fused path that training runs; and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig

import tiny
from accord.data.packing import Branch, Unit, pack, pack_by_budget
from accord.models.adapters import PolicyModel, Want
from accord.models.lora import lora_config
from accord.models.size import ModelSize, model_size
from accord.planning.flops import Volume, forward_flops, packed_volume, training_flops, volume_of
from accord.planning.memory import count_lora

WIDER = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}
ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3_text", "olmo2", "phi3"]
UNITS = [Unit(tuple(range(1 + i, 33 + i)), (Branch(tuple(range(1, 40 + i))), Branch(tuple(range(1, 33))))) for i in range(5)]
"""Pairs whose prompts share nothing, two of which attend apart and joined."""


def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def attention_backward(slope: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_backward_flop_count(slope, query, key, value)


def addition(_: Any, left: Any, right: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return addmm_flop(None, left, right)


COUNTED = {  # torch 2.13's table has the flash kernels of GPUs and not the CPU's, addmm and not addmm in place: both multiply the same
    torch.ops.aten.addmm_: addition,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def counted(work: Any) -> int:
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        work()
    return counter.get_total_flops()


def update(policy: PolicyModel, stack: tuple[str, ...], *, head: bool = True) -> None:
    out = policy.forward(pack(UNITS), stack, Want(logprobs=head, states=not head))
    found = out.logprobs if head else out.states
    assert found is not None
    found.sum().backward()


def made(architecture: str) -> tuple[PolicyModel, ModelSize]:
    policy = tiny.policy(architecture, num_hidden_layers=6, **WIDER)
    return policy, model_size(policy.model.config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_forward_and_backward(architecture: str) -> None:
    policy, size = made(architecture)
    stack = policy.add_adapter("policy", tiny.lora(4))
    volume = volume_of(UNITS, 10**6)
    assert training_flops(size, volume, rank=4).total == pytest.approx(counted(lambda: update(policy, stack)), rel=0.02)
    with torch.no_grad():
        read = counted(lambda: policy.forward(pack(UNITS), stack))
    assert forward_flops(size, volume, lora=count_lora(size, 4)).total == pytest.approx(read, rel=0.02)


def test_adapters_on_the_upper_half() -> None:
    policy, size = made("llama")
    stack = policy.add_adapter("policy", lora_config(policy, rank=4, layers=0.5))
    found = training_flops(size, volume_of(UNITS, 10**6), rank=4, lora_layers=0.5).total
    assert found == pytest.approx(counted(lambda: update(policy, stack)), rel=0.02)


def test_checkpointing_runs_the_layers_again() -> None:
    policy, size = made("llama")
    stack = policy.add_adapter("policy", tiny.lora(4))
    policy.enable_checkpointing()
    found = training_flops(size, volume_of(UNITS, 10**6), rank=4, checkpointing=True).total
    assert found == pytest.approx(counted(lambda: update(policy, stack)), rel=0.02)


def test_all_weights() -> None:
    policy, size = made("llama")
    for parameter in policy.model.parameters():
        parameter.requires_grad_(True)
    found = training_flops(size, volume_of(UNITS, 10**6), rank=None).total
    assert found == pytest.approx(counted(lambda: update(policy, ())), rel=0.02)


def test_a_loss_on_hidden_states_has_no_lm_head() -> None:
    policy, size = made("llama")
    stack = policy.add_adapter("policy", tiny.lora(4))
    found = training_flops(size, volume_of(UNITS, 10**6), rank=4, head=False).total
    assert found == pytest.approx(counted(lambda: update(policy, stack, head=False)), rel=0.02)


def test_frozen_adapters_below_the_trained_one() -> None:
    policy, size = made("llama")
    policy.add_adapter("sft", tiny.lora(4))
    stack = policy.add_adapter("policy", tiny.lora(4))
    found = training_flops(size, volume_of(UNITS, 10**6), rank=4, below=count_lora(size, 4)).total
    assert found == pytest.approx(counted(lambda: update(policy, stack)), rel=0.02)


def test_experts_count_as_often_as_a_token_meets_them() -> None:
    """Mixtral by hand: a layer has four attention matrices, a router to 8 experts, and 3 matrices in each of the 2 experts that a token meets."""
    config = AutoConfig.for_model(
        "mixtral",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    attention_weights, router, met = 32 * (32 + 16 + 16 + 32), 32 * 8, 2 * 3 * 32 * 48
    assert model_size(config).layer_weights == pytest.approx(2 * (attention_weights + router + met), abs=2 * router)


def test_volume_by_hand() -> None:
    """A prompt of 600 tokens and two answers of 10 attend apart: 600 * 600 + 2 * 10 * 610 pairs; what is shared stands once."""
    apart = packed_volume(0, [(600, [10, 10], 20)])
    assert (apart.tokens, apart.counted, apart.pairs) == (620, 20, 600 * 600 + 2 * 10 * 610)
    joined = packed_volume(0, [(40, [40], 40)])
    assert joined.pairs == 80 * 80  # one call: cheaper than 40 * 40 + 40 * 80 on the CPU, and so counted by torch
    shared = packed_volume(10, [(30, [5], 5), (40, [5], 5)])
    assert shared.tokens == 10 + 20 + 5 + 30 + 5
    assert Volume(1, 2, 3) + Volume(1, 1, 1) * 2 == Volume(3, 4, 5)


def test_volume_is_what_is_packed() -> None:
    """Tokens of all micro-batches, with a shared beginning counted once in each."""
    units = [Unit((*range(1, 13), 20 + i, 21), (Branch((3, 4, 5 + i)), Branch((6,)))) for i in range(7)]
    in_order = volume_of(units, 60)
    parts = [pack(part) for part in pack_by_budget(units, 60)]
    assert in_order.counted == sum(len(part.targets) for part in parts) == 7 * 4
    assert in_order.tokens == sum(part.num_tokens for part in parts)
