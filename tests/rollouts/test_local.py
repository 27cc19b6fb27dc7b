"""The local sampler: what it draws, from what distribution, and that nothing else changes the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.rollouts import local
from accord.rollouts.local import LocalSampler, draw
from accord.rollouts.random import fraction, shuffled, uniform
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout

ENDS = list(range(2, 24))
"""Many ids end an answer here, so that answers differ in length."""


def sampler(policy: PolicyModel, *, ends: Sequence[int] = ENDS, merge: bool = True) -> LocalSampler:
    return LocalSampler(policy, Renderer(tiny.tokenizer(), end_ids=ends), tuple(policy.adapters), merge=merge)


def prompts(count: int = 5) -> list[Prompt]:
    """Prompts of different lengths, one longer than the tiny sliding window."""
    return [Prompt(f"p{i}", tuple(30 + (7 * i + 3 * k) % 200 for k in range(2 + 4 * i))) for i in range(count)]


def adapted(**changes: Any) -> PolicyModel:
    policy = tiny.policy(**changes)
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft")
    return policy


def drawn(rollouts: Sequence[Rollout]) -> dict[tuple[str, int], tuple[int, ...]]:
    return {(rollout.prompt_id, rollout.sample_index): rollout.completion_ids for rollout in rollouts}


# -- draw: the inverse of the cumulative distribution --------------------------------------------------------------------------------

LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0, -3.0, 1.0]])
GRID = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000


def frequencies(config: SamplingConfig, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """Share of an even grid of uniforms that goes to each token: the distribution drawn from, to 1e-5."""
    tokens, _ = draw(logits.expand(len(GRID), -1), GRID, config)
    return torch.bincount(tokens, minlength=logits.shape[1]).double() / len(GRID)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draw_follows_the_tempered_softmax(temperature: float) -> None:
    config = SamplingConfig(temperature=temperature)
    expected = Categorical(logits=LOGITS[0].double() / temperature)
    assert torch.allclose(frequencies(config), expected.probs, atol=2e-5)
    tokens, logprobs = draw(LOGITS.expand(6, -1), torch.tensor([0.01, 0.2, 0.4, 0.6, 0.8, 0.999]).double(), config)
    assert torch.allclose(logprobs.double(), expected.log_prob(tokens), atol=1e-6)


def test_top_k_and_top_p_by_hand() -> None:
    """exp is 1.649, .368, 7.389, 1, .050, 2.718, sum 13.174: probabilities .125, .028, .561, .076, .004, .206."""
    probs = LOGITS[0].double().softmax(-1)
    order = [2, 5, 0, 3, 1, 4]
    assert probs.tolist() == pytest.approx([0.1252, 0.0279, 0.5609, 0.0759, 0.0038, 0.2063], abs=1e-4)
    assert probs.argsort(descending=True).tolist() == order
    for keep in (1, 2, 4):
        expected = torch.zeros(6, dtype=torch.float64)
        expected[order[:keep]] = probs[order[:keep]] / probs[order[:keep]].sum()
        assert torch.allclose(frequencies(SamplingConfig(top_k=keep)), expected, atol=2e-5)
        # the smallest set with this much probability: a little below the cumulated mass of `keep` tokens needs exactly them
        mass = float(probs[order[:keep]].sum())
        assert torch.allclose(frequencies(SamplingConfig(top_p=mass - 1e-3)), expected, atol=2e-5)
    assert torch.allclose(frequencies(SamplingConfig(top_k=99)), probs, atol=2e-5)
    tokens, logprobs = draw(LOGITS, torch.tensor([0.0]).double(), SamplingConfig(top_k=2))
    kept = probs[2] + probs[5]
    assert float(logprobs) == pytest.approx(float((probs[int(tokens)] / kept).log()), abs=1e-6)


def test_temperature_0_is_greedy() -> None:
    tokens, logprobs = draw(LOGITS.expand(3, -1), torch.tensor([0.0, 0.5, 0.99]).double(), SamplingConfig(temperature=0.0))
    assert tokens.tolist() == [2, 2, 2]
    assert torch.allclose(logprobs, LOGITS.log_softmax(-1)[0, 2].expand(3))


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
@settings(max_examples=200, deadline=None)
def test_draw_is_the_exact_inverse(values: list[float], number: float) -> None:
    """The token is the first whose cumulated probability exceeds the uniform; never one of probability 0."""
    logits = torch.tensor([values], dtype=torch.float32)
    tokens, logprobs = draw(logits, torch.tensor([number], dtype=torch.float64), SamplingConfig())
    cumulative = logits.double().softmax(-1)[0].cumsum(0)
    token = int(tokens)
    assert number < float(cumulative[token]) + 1e-6
    assert token == 0 or float(cumulative[token - 1]) <= number + 1e-6
    assert torch.isfinite(logprobs).all()


@pytest.mark.parametrize("vocabulary", [255, 256, 257, 1000])
def test_draw_over_blocks_of_the_vocabulary(vocabulary: int) -> None:
    """Token by token what one search through the whole cumulative distribution finds, rounding at its borders apart."""
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    logits[0, ::7] = float("-inf")
    tokens, logprobs = draw(logits.expand(len(GRID), -1), GRID, SamplingConfig())
    expected = logits[0].double().log_softmax(0)
    assert float((tokens != torch.searchsorted(expected.exp().cumsum(0), GRID, right=True)).float().mean()) < 1e-3
    assert len(tokens.unique()) > vocabulary // 2 and torch.allclose(logprobs.double(), expected[tokens], atol=1e-5)


def test_the_last_uniform_does_not_fall_off_the_end() -> None:
    logits = torch.full((1, 50_000), 0.0)
    logits[:, -100:] = float("-inf")
    tokens, logprobs = draw(logits, torch.tensor([1 - 2.0**-53], dtype=torch.float64), SamplingConfig())
    assert int(tokens) < 49_900 and torch.isfinite(logprobs).all()


# -- uniforms -----------------------------------------------------------------------------------------------------------------------


def test_uniforms_are_a_function_of_their_key() -> None:
    keys = [
        (seed, step, f"p{p}", sample, position)
        for seed in (0, 1)
        for step in (0, 1)
        for p in range(5)
        for sample in range(5)
        for position in range(20)
    ]
    values = [uniform(*key) for key in keys]
    assert values == [uniform(*key) for key in keys] and len(set(values)) == len(values)
    assert all(0 <= value < 1 for value in values)
    found = torch.tensor(values).sort().values
    # Kolmogorov-Smirnov distance of 2000 uniforms stays below 1.95 / sqrt(n) but once in a thousand; the keys are fixed.
    assert float((found - (torch.arange(len(found)) + 0.5) / len(found)).abs().max()) < 1.95 / len(found) ** 0.5


def test_no_bytes_give_1() -> None:
    assert [fraction(value.to_bytes(8, "little")) for value in (0, 1 << 63)] == [0.0, 0.5]
    assert fraction(b"\xff" * 8) == 1 - 2.0**-53


def test_shuffled_is_a_permutation_of_its_key() -> None:
    assert sorted(shuffled(50, "rows", 1, 0)) == list(range(50))
    assert shuffled(50, "rows", 1, 0) == shuffled(50, "rows", 1, 0) != shuffled(50, "rows", 1, 1)
    assert shuffled(50, "rows", 1, 0) != list(range(50))


# -- the sampler --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gemma2"])
def test_batch_order_and_size_change_nothing(architecture: str) -> None:
    policy = adapted(architecture=architecture)
    config = SamplingConfig(max_new_tokens=12, num_samples=3, seed=4)
    whole = drawn(sampler(policy).sample(prompts(), config))
    assert len({len(ids) for ids in whole.values()}) > 3 and len(set(whole.values())) > 10
    for size in (1, 2, 4):
        assert drawn(sampler(policy).sample(prompts(), replace(config, max_batch=size))) == whole
    assert drawn(sampler(policy).sample(prompts()[::-1], config)) == whole
    assert drawn(sampler(policy).sample(prompts()[2:3], config)) == {key: ids for key, ids in whole.items() if key[0] == "p2"}
    assert drawn(sampler(policy).sample(prompts(), replace(config, num_samples=2))) == {
        key: ids for key, ids in whole.items() if key[1] < 2
    }
    assert drawn(sampler(policy, merge=False).sample(prompts(), config)) == whole
    for other in (replace(config, seed=5), replace(config, step=1)):
        assert drawn(sampler(policy).sample(prompts(), other)) != whole


def test_packed_and_row_by_row_draw_the_same() -> None:
    config = SamplingConfig(max_new_tokens=8, num_samples=2, seed=4)
    packed = sampler(adapted()).sample(prompts(), config)
    rows = sampler(adapted(packed=False)).sample(prompts(), config)
    assert drawn(packed) == drawn(rows)
    for ours, theirs in zip(packed, rows, strict=True):
        assert torch.allclose(torch.tensor(ours.sampler_logprobs), torch.tensor(theirs.sampler_logprobs), atol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_a_watcher_sees_each_answer_a_token_at_a_time(packed: bool) -> None:
    policy = adapted(packed=packed)
    seen: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    config = SamplingConfig(12, 3, seed=4, max_batch=4)
    found = sampler(policy).sample(prompts(), config, watch=lambda name, index, ids: seen.setdefault((name, index), []).append(tuple(ids)))
    assert seen == {key: [ids[: end + 1] for end in range(len(ids))] for key, ids in drawn(found).items()}
    assert drawn(found) == drawn(sampler(policy).sample(prompts(), config))


def test_siblings_stand_together_in_prompt_order() -> None:
    found = sampler(adapted()).sample(prompts(), SamplingConfig(max_new_tokens=4, num_samples=3, max_batch=4))
    assert [(rollout.prompt_id, rollout.sample_index) for rollout in found] == [(f"p{i}", k) for i in range(5) for k in range(3)]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi3"])
def test_sampler_logprobs_are_the_trainers(architecture: str, temperature: float) -> None:
    policy = adapted(architecture=architecture)
    found = sampler(policy).sample(prompts(), SamplingConfig(max_new_tokens=14, num_samples=2, temperature=temperature))
    units = [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),)) for rollout in found]
    with torch.no_grad():
        logprobs = policy.forward(pack(units), ("sft",), temperature=temperature).logprobs
    assert torch.allclose(logprobs, torch.tensor([value for rollout in found for value in rollout.sampler_logprobs]), atol=1e-4)


def test_answers_end_at_the_end_token_and_keep_it() -> None:
    found = sampler(adapted()).sample(prompts(), SamplingConfig(max_new_tokens=12, num_samples=4))
    reasons = {rollout.finish_reason for rollout in found}
    assert reasons == {"stop", "length"}
    for rollout in found:
        ids = rollout.completion_ids
        assert not any(token in ENDS for token in ids[:-1])
        assert len(ids) == len(rollout.sampler_logprobs) <= 12
        if rollout.finish_reason == "stop":
            assert ids[-1] in ENDS
            assert rollout.text == tiny.tokenizer().decode(ids[:-1], skip_special_tokens=True).strip()
        else:
            assert len(ids) == 12 and ids[-1] not in ENDS


def test_finished_rows_leave_the_batch() -> None:
    """Token positions run through the backbone after the prompts: one for each kept token that is followed by another."""
    policy = adapted()
    seen: list[int] = []
    policy.backbone.register_forward_hook(
        lambda module, arguments, keywords, output: seen.append(keywords["input_ids"].shape[1]), with_kwargs=True
    )
    found = sampler(policy).sample(prompts(), SamplingConfig(max_new_tokens=12, num_samples=3))
    assert seen[0] == sum(len(prompt.ids) for prompt in prompts())  # each prompt once, not once a sample
    assert sum(seen[1:]) == sum(len(rollout.completion_ids) - 1 for rollout in found)
    assert seen[-1] < seen[1]


def test_prompts_are_encoded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit into a number of tokens, a longer one alone, and what is drawn stays the same."""
    config, seen = SamplingConfig(max_new_tokens=6, num_samples=3), []
    whole = drawn(sampler(adapted()).sample(prompts(), config))
    monkeypatch.setattr(local, "PROMPT_TOKENS", 17)
    policy = adapted()
    policy.backbone.register_forward_hook(
        lambda module, arguments, keywords, output: seen.append(keywords["input_ids"].shape[1]), with_kwargs=True
    )
    assert drawn(sampler(policy).sample(prompts(), config)) == whole
    assert [len(prompt.ids) for prompt in prompts()] == [2, 6, 10, 14, 18] and seen[:4] == [8, 10, 14, 18]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen2"])
def test_greedy_equals_transformers_generate(architecture: str) -> None:
    policy = tiny.policy(architecture)
    found = sampler(policy, ends=[2]).sample(prompts(), SamplingConfig(max_new_tokens=10, temperature=0.0))
    model = tiny.model(architecture)
    for rollout, prompt in zip(found, prompts(), strict=True):
        ids = torch.tensor([prompt.ids])
        with torch.no_grad():
            expected = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, eos_token_id=2, pad_token_id=0
            )
        assert rollout.completion_ids == tuple(expected[0, ids.shape[1] :].tolist())


def test_sampling_leaves_the_weights() -> None:
    policy = adapted()
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    sampler(policy).sample(prompts(), SamplingConfig(max_new_tokens=4))
    after = policy.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_nothing_asked_is_nothing_answered() -> None:
    """Where there are fewer prompts than processes, one of them has none."""
    assert sampler(adapted()).sample([], SamplingConfig()) == []
