"""What the sampler draws on a real model: token frequencies, and the log-probabilities it notes while rows come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.models.load import ResolvedModel, load_model, load_tokenizer, resolve
from accord.objectives.logprobs import logprobs_from_logits
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig

DRAWS = 100_000
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day she saw"


@pytest.fixture(scope="module")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    """The 260K-parameter story model."""
    return resolve("stories260k", cache=tmp_path_factory.mktemp("cache"), files=shared_data / "stories260k")


def load(stories: ResolvedModel) -> Any:
    return load_model(stories, dtype="float32", device="cpu")


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """p-value of Pearson's test; cells that expect fewer than 5 are one cell.

    Args:
        counts, expected: draws of each cell, and how many are expected, of equal sums.
    """
    rare = expected < 5
    counts, expected = (torch.cat((cells[~rare], cells[rare].sum()[None])).double() for cells in (counts, expected))
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2))


def test_chi_square_by_hand() -> None:
    """Counts 30, 20 and a rare 3 where 25, 25 and 3 are expected: 1 + 1 + 0 = 2 on 2 degrees of freedom, p = exp(-1)."""
    assert chi_square(torch.tensor([30.0, 20.0, 3.0]), torch.tensor([25.0, 25.0, 3.0])) == pytest.approx(0.3679, abs=1e-4)
    assert chi_square(torch.tensor([30.0, 20.0, 1.0, 5.0]), torch.tensor([25.0, 25.0, 3.0, 3.0])) == pytest.approx(0.3679, abs=1e-4)


@torch.no_grad()
def first_two(model: Any, prompt: tuple[int, ...], end: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Probability of each first token (V,), and of each first and second one (V, V), by the model's own forward. After the end token
    nothing is drawn: its whole row stands in column 0."""
    vocabulary = model.config.vocab_size
    first = (model(torch.tensor([prompt])).logits[0, -1].double() / temperature).softmax(-1)
    rows = torch.cat((torch.tensor([prompt]).expand(vocabulary, -1), torch.arange(vocabulary)[:, None]), 1)
    second = (model(rows, logits_to_keep=1).logits[:, -1].double() / temperature).softmax(-1)
    joint = first[:, None] * second
    joint[end] = 0.0
    joint[end, 0] = first[end]
    return first, joint


def test_frequencies_are_the_models(stories: ResolvedModel) -> None:
    """100,000 draws of two tokens follow softmax(logits), the first alone and both jointly; a temperature of 1.05 would be noticed."""
    tokenizer = load_tokenizer(stories)
    prompt, end = tuple(tokenizer(STORY)["input_ids"]), tokenizer.eos_token_id
    drawn = LocalSampler(PolicyModel(load(stories), packed=True), Renderer(tokenizer, end_ids=[end]), ()).sample(
        [Prompt("story", prompt)], SamplingConfig(max_new_tokens=2, num_samples=DRAWS, seed=1, max_batch=4096)
    )
    assert len(drawn) == DRAWS
    pairs = torch.tensor([(*rollout.completion_ids, 0)[:2] for rollout in drawn])
    model = load(stories)
    vocabulary = model.config.vocab_size
    firsts = torch.bincount(pairs[:, 0], minlength=vocabulary)
    both = torch.bincount(pairs[:, 0] * vocabulary + pairs[:, 1], minlength=vocabulary**2)
    for temperature, passes in ((1.0, True), (1.05, False)):
        first, joint = first_two(model, prompt, end, temperature)
        for counts, probabilities, cells in ((firsts, first, 30), (both, joint.flatten(), 140)):
            assert int((probabilities * DRAWS >= 5).sum()) >= cells
            found = chi_square(counts, probabilities * DRAWS)
            assert found > 1e-3 if passes else found < 1e-9, (temperature, found)


def test_logprobs_are_teacher_forcings_while_rows_come_and_go(stories: ResolvedModel) -> None:
    """Prompts of six lengths, 5 places for 24 rows, answers of many lengths: each log-probability as drawn is that of the plain model
    with its adapter, run by transformers and peft over the finished text."""
    tokenizer = load_tokenizer(stories)
    ids = tokenizer(STORY)["input_ids"]
    prompts = [Prompt(f"p{length}", tuple(ids[:length])) for length in (1, 2, 5, 11, 20, len(ids))]
    dots = [token for text, token in tokenizer.get_vocab().items() if text.endswith((".", "!", "?", ","))]
    policy = PolicyModel(load(stories), packed=True)
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft", scale=0.05)
    sampler = LocalSampler(policy, Renderer(tokenizer, end_ids=[tokenizer.eos_token_id, *dots]), ("sft",))
    found = sampler.sample(prompts, SamplingConfig(max_new_tokens=24, num_samples=4, seed=2, max_batch=5))
    assert len({len(rollout.completion_ids) for rollout in found}) >= 8 and {rollout.finish_reason for rollout in found} == {
        "stop",
        "length",
    }
    plain = PolicyModel(load(stories), packed=False, fused=False)
    plain.add_adapter("sft", tiny.lora())
    tiny.shake(plain, "sft", scale=0.05)
    base = load(stories)
    moved = 0.0
    for rollout in found:
        row, start = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]]), len(rollout.prompt_ids)
        with torch.no_grad():
            expected, without = (logprobs_from_logits(model(row).logits[0, start - 1 : -1], row[0, start:]) for model in (plain.peft, base))
        assert torch.allclose(torch.tensor(rollout.sampler_logprobs), expected, atol=1e-4)
        moved = max(moved, float((expected - without).abs().max()))
    assert moved > 0.1  # the adapter is part of what was compared
