"""The whole fast path against plain transformers and peft, one row at a time, on models and rows drawn at random.

In double precision, so that a wrong term cannot pass for rounding. (transformers computes RMSNorm in single precision all the same: what
is left of the two is about 1e-6 apart.)
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny
from accord.data.packing import SHORTEST_PREFIX, Branch, Unit, pack
from accord.models.adapters import PolicyModel, Want
from accord.objectives.segments import segment_sum

SIZES = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}}
WINDOWED = ("mistral", "qwen2", "gemma2", "gemma3_text", "phi3")
ATTENTION, UPPER = {"phi3": ["qkv_proj"], "gpt2": ["c_attn"]}, {"phi3": ["gate_up_proj", "down_proj"], "gpt2": ["c_fc", "mlp.c_proj"]}


@st.composite
def models(draw: Any) -> dict[str, Any]:
    """An architecture and its sizes; adapters by rank and place, or none: then all weights are trained."""
    architecture = draw(st.sampled_from([*tiny.ARCHITECTURES, "gpt2"]))
    changes: dict[str, Any] = dict(SIZES.get(architecture, {}))
    if architecture != "gpt2":
        changes["num_attention_heads"], changes["num_key_value_heads"] = draw(st.sampled_from([(4, 2), (4, 1), (4, 4)]))
        changes["tie_word_embeddings"] = draw(st.booleans())
    if architecture in WINDOWED:
        changes["sliding_window"] = draw(st.sampled_from([1, 3, 8, 100]))
    places = [
        "all-linear",
        ATTENTION.get(architecture, ["q_proj", "v_proj", "o_proj"]),
        [*UPPER.get(architecture, ["gate_proj", "down_proj"]), "lm_head"],
    ]
    adapters = draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(places), st.booleans()), max_size=2))
    return {"architecture": architecture, "changes": changes, "adapters": adapters, "seed": draw(st.integers(0, 5))}


@st.composite
def batches(draw: Any) -> list[Unit]:
    """Prompts with one to four answers, some tokens uncounted; all prompts begin alike, or not."""
    header = tuple(range(40, 40 + SHORTEST_PREFIX + draw(st.integers(0, 4)))) if draw(st.booleans()) else ()
    token = st.integers(3, tiny.VOCAB - 1)
    units = []
    for index in range(draw(st.integers(1, 3))):
        prompt = (*header, *draw(st.lists(token, min_size=1, max_size=14)))
        branches = []
        for ids in draw(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=4)):
            counted = draw(st.none() | st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)).map(lambda kept: (True, *kept[1:])))
            branches.append(Branch(tuple(ids), counted))
        units.append(Unit(prompt, tuple(branches), str(index)))
    return units


def adapted(case: dict[str, Any], **kind: Any) -> PolicyModel:
    policy = PolicyModel(tiny.model(case["architecture"], seed=case["seed"], **case["changes"]), **kind)
    for index, (rank, target, rslora) in enumerate(case["adapters"]):
        config = tiny.lora(rank, use_rslora=rslora, fan_in_fan_out=case["architecture"] == "gpt2")
        config.target_modules = target if isinstance(target, str) else set(target)
        policy.add_adapter(f"a{index}", config, seed=index)
    tiny.shake(policy, *policy.adapters)
    policy.model.double()
    if policy.adapters:
        policy.train_only(*policy.adapters)
    else:
        policy.model.requires_grad_(True)
    return policy


def plain(policy: PolicyModel, units: list[Unit], temperature: float) -> Tensor:
    """Log-probs of the counted tokens by peft's model, or transformers', row by row. None of accord's functions is in it."""
    model = policy.model if policy.peft is None else policy.peft
    if policy.peft is not None:
        policy.peft.base_model.set_adapter(policy.adapters)
    found = []
    for unit in units:
        for branch in unit.branches:
            ids = torch.tensor([[*unit.prompt_ids, *branch.ids]], device=policy.device)
            table = (model(input_ids=ids, use_cache=False).logits[0] / temperature).log_softmax(-1)
            kept = [i for i in range(len(branch.ids)) if branch.counted is None or branch.counted[i]]
            found.append(table[len(unit.prompt_ids) - 1 + torch.tensor(kept), torch.tensor([branch.ids[i] for i in kept])])
    return torch.cat(found)


def differentiated(policy: PolicyModel, logprobs: Tensor) -> dict[str, Tensor]:
    policy.model.zero_grad()
    (logprobs * torch.linspace(0.5, 1.5, len(logprobs), dtype=logprobs.dtype, device=logprobs.device)).sum().backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning")
@settings(max_examples=60, deadline=None)
@given(case=models(), units=batches(), temperature=st.sampled_from([1.0, 0.7]))
def test_equals_transformers_and_peft(case: dict[str, Any], units: list[Unit], temperature: float) -> None:
    compare(case, units, temperature)


def compare(case: dict[str, Any], units: list[Unit], temperature: float) -> None:
    """Log-probabilities, loss and gradients of accord's path and of the plain one, on the device that `tiny` makes models on."""
    fast, slow = adapted(case, packed=True), adapted(case, packed=False, fused=False)
    assert not any("forward" in module.__dict__ for module in slow.model.modules())
    batch = pack(units, fast.device)
    found = fast.forward(batch, fast.adapters, Want(), temperature=temperature).logprobs
    expected = plain(slow, units, temperature)
    assert found is not None and found.dtype == torch.float64
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    loss, expected_loss = (segment_sum(values, batch.completion, batch.num_completions).square().sum() for values in (found, expected))
    assert torch.allclose(loss, expected_loss, rtol=1e-5)
    slopes, expected_slopes = differentiated(fast, found), differentiated(slow, expected)
    assert slopes.keys() == expected_slopes.keys() and slopes
    whole = float(torch.cat([slope.flatten() for slope in expected_slopes.values()]).norm())
    for name, slope in expected_slopes.items():
        # A key bias shifts every score of a query alike: its gradient is 0, and what is computed is rounding.
        assert float((slopes[name] - slope).norm()) <= 1e-5 * float(slope.norm()) + 1e-6 * whole + 1e-9, name
