"""What a correct trainer must reach: over-fitting four answers and stopping, the right shift, true scores recovered from comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from accord import SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack
from accord.models.adapters import PolicyModel, Want
from accord.objectives.preference import PREFERENCE_LOSSES, PairLogprobs
from accord.objectives.ranking import bradley_terry, robust_bradley_terry
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig

FIRST, COUNT = 40, 60
"""Tokens of the counting models: FIRST, FIRST + 1, ... and round again."""


def test_four_answers_are_learned_by_heart_with_their_ends(tmp_path: Path) -> None:
    """Loss below 0.01 in 300 steps, and greedy sampling gives each answer back and stops after it."""
    rows = tiny.demonstrations(4)
    model = tiny.model(scale=0.05, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=8, head_dim=16)
    args = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=300,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        skip_step0_checks=True,
    )
    trainer = SFTTrainer(model, args, rows, None, tiny.tokenizer())
    last = trainer.train()
    assert last["loss"] < 0.01
    sampler = LocalSampler(trainer.policy, trainer.renderer, ())
    prompts = [Prompt(row.prompt_id, tuple(trainer.renderer.prompt_ids(row.prompt)), row.prompt) for row in rows]
    answers = sampler.sample(prompts, SamplingConfig(max_new_tokens=64, num_samples=1, temperature=0.0, seed=0))
    assert [answer.text for answer in answers] == [row.completions[0].text for row in rows]
    assert {answer.finish_reason for answer in answers} == {"stop"}


def counting_model(step: int) -> PolicyModel:
    """Attention and MLPs silenced, one-hot embeddings, and a head that says: after token t comes token t + step."""
    made = tiny.model(
        hidden_size=tiny.VOCAB, num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=8, tie_word_embeddings=False
    )
    with torch.no_grad():
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        made.model.embed_tokens.weight.copy_(torch.eye(tiny.VOCAB))
        follows = torch.arange(tiny.VOCAB)
        follows[FIRST : FIRST + COUNT] = FIRST + (torch.arange(COUNT) + step) % COUNT
        made.lm_head.weight.copy_(2.0 * F.one_hot(follows, tiny.VOCAB).float().T)
    return PolicyModel(made)


@pytest.mark.parametrize("packed", [True, False])
def test_the_token_that_is_predicted_is_the_next_one(packed: bool) -> None:
    """A model that repeats its input must look terrible, one that counts must look perfect: an off-by-one swaps the two."""
    ids = tuple(range(FIRST + 3, FIRST + 20))
    units = [Unit(ids[:5], (Branch(ids[5:9]), Branch(ids[5:])), "a"), Unit(ids[:2], (Branch(ids[2:]),), "b")]
    for step, low, high in ((1, 0.0, 1e-3), (0, 20.0, 60.0), (2, 20.0, 60.0)):
        model = counting_model(step)
        model.packed = packed
        found = model.forward(pack(units), (), Want(logprobs=True)).logprobs
        assert found is not None and len(found) == 4 + 12 + 15
        assert bool(((-found >= low) & (-found <= high)).all()), step


# -- scores from comparisons ------------------------------------------------------------------------------------------------------------


def games(count: int, scores: Tensor, flips: float = 0.0) -> tuple[Tensor, Tensor]:
    """Winner and loser of random games among items with these Bradley-Terry scores, a share of them recorded the wrong way round."""
    generator = torch.Generator().manual_seed(4)
    first = torch.randint(len(scores), (count,), generator=generator)
    second = (first + torch.randint(1, len(scores), (count,), generator=generator)) % len(scores)
    won = torch.rand(count, generator=generator, dtype=torch.float64) < torch.sigmoid(scores[first] - scores[second])
    won ^= torch.rand(count, generator=generator) < flips
    return torch.where(won, first, second), torch.where(won, second, first)


def fitted(winner: Tensor, loser: Tensor, items: int, flip_rate: float | None = None) -> Tensor:
    """Scores that minimise our loss, mean 0."""
    scores = torch.zeros(items, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores], lr=1.0, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        gap = scores[winner] - scores[loser]
        losses = bradley_terry(scores[winner], scores[loser]) if flip_rate is None else robust_bradley_terry(gap, flip_rate=flip_rate)
        loss = losses.mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (scores - scores.mean()).detach()


def by_newton(winner: Tensor, loser: Tensor, items: int) -> Tensor:
    """The maximum-likelihood scores by Newton's method on win counts: gradient and Hessian written out, no autograd, no loss of ours."""
    wins = torch.zeros(items, items, dtype=torch.float64)
    wins.index_put_((winner, loser), torch.ones(len(winner), dtype=torch.float64), accumulate=True)
    played = wins + wins.T
    scores = torch.zeros(items, dtype=torch.float64)
    for _ in range(50):
        chance = torch.sigmoid(scores[:, None] - scores[None, :])
        gradient = wins.sum(1) - (played * chance).sum(1)
        weight = played * chance * (1 - chance)
        hessian = torch.diag(weight.sum(1)) - weight
        scores = scores + torch.linalg.solve(hessian + torch.full_like(hessian, 1.0 / items), gradient)
    return scores - scores.mean()


def test_scores_are_recovered_from_comparisons() -> None:
    truth = torch.linspace(-2, 2, 20, dtype=torch.float64)
    winner, loser = games(2000, truth)
    found = fitted(winner, loser, 20)
    assert torch.allclose(found, by_newton(winner, loser, 20), atol=1e-6)
    assert float(torch.corrcoef(torch.stack([found.argsort().argsort().double(), torch.arange(20).double()]))[0, 1]) > 0.97


def test_flipped_labels_shrink_plain_scores_and_not_robust_ones() -> None:
    truth = torch.linspace(-1.5, 1.5, 20, dtype=torch.float64)
    winner, loser = games(40_000, truth, flips=0.25)
    plain, robust = fitted(winner, loser, 20), fitted(winner, loser, 20, flip_rate=0.25)
    scale = [float((scores @ truth) / (truth @ truth)) for scores in (plain, robust)]
    assert scale[0] < 0.6
    assert scale[1] == pytest.approx(1.0, abs=0.1)


# -- gradients --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_preference_gradients_in_double_precision(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values = [-3 * torch.rand(4, generator=generator, dtype=torch.float64) - 2 for _ in range(4)]
    lengths = [torch.tensor([3.0, 5, 2, 7], dtype=torch.float64), torch.tensor([4.0, 2, 6, 1], dtype=torch.float64)]
    extra = {"robust": {"label_smoothing": 0.1}, "simpo": {"gamma": 0.5}}.get(name, {})

    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return PREFERENCE_LOSSES[name](PairLogprobs(chosen, rejected, values[2], values[3], *lengths), beta=0.3, **extra)

    assert torch.autograd.gradcheck(loss, tuple(value.requires_grad_() for value in values[:2]), atol=1e-7)
