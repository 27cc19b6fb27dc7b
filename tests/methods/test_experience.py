"""From scores to token rewards: what clipping and siblings change, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import enumeration
import tiny
from accord import PPOConfig, PPOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError
from accord.methods.experience import advantages_and_returns
from accord.models.adapters import PolicyModel, Want
from accord.models.heads import RewardHeads, ValueHead
from accord.models.save import adapter_hash
from accord.rewards.combine import LearnedReward
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import Prompt
from accord.types import Rollout, Score


def unit(scores: list[float], lengths: list[int], name: str) -> Unit:
    total = sum(lengths)
    rollouts = [Rollout(name, (), (1,), tuple(range(n)), "", tuple([0.0] * n), "stop", i, 0) for i, n in enumerate(lengths)]
    data = {
        "rollouts": rollouts,
        "scores": [Score(value) for value in scores],
        "old_logprobs": torch.zeros(total),
        "ref_logprobs": torch.zeros(total),
        "states": torch.zeros(total, 4),
    }
    return Unit((1,), tuple(Branch(tuple(range(n))) for n in lengths), name, data)


def ends(found: list[Unit]) -> list[float]:
    """Return at the last token of each answer: with no value and no KL it is the token reward itself."""
    values = []
    for row in found:
        parts = row.data["returns"].split([branch.num_counted for branch in row.branches])
        values += [float(part[-1]) for part in parts]
    return values


def run(**options: Any) -> tuple[list[Unit], dict[str, float]]:
    config = PPOConfig(missing_eos_penalty=None, whiten_advantages=False, **options)
    return advantages_and_returns(
        [unit([5.0, -1.0, 2.0], [2, 3, 1], "a"), unit([0.5, -9.0, 1.0], [1, 2, 2], "b")], ValueHead(4), config, 0.0
    )


def test_plain_scores() -> None:
    found, metrics = run()
    assert ends(found) == [5.0, -1.0, 2.0, 0.5, -9.0, 1.0]
    assert metrics["objective/scores_clipped"] == 0.0


def test_clipped_scores() -> None:
    found, metrics = run(score_clip=3.0)
    assert ends(found) == [3.0, -1.0, 2.0, 0.5, -3.0, 1.0]
    assert metrics["objective/scores_clipped"] == pytest.approx(2 / 6)
    assert metrics["objective/scores"] == pytest.approx((5 - 1 + 2 + 0.5 - 9 + 1) / 6)  # what the reward said, not what was used


def test_scores_against_siblings() -> None:
    """Each minus the mean of the two others: 5 - 0.5, -1 - 3.5, 2 - 2 and so on. Sums to zero in each group."""
    found, metrics = run(compare_siblings=True)
    assert ends(found) == pytest.approx([4.5, -4.5, 0.0, 4.5, -9.75, 5.25])
    assert metrics["objective/rlhf_reward"] == pytest.approx((5 - 1 + 2 + 0.5 - 9 + 1) / 6)  # the comparison is no part of the objective


def returns(found: list[Unit], gamma: float, **options: Any) -> list[list[float]]:
    rows, _ = advantages_and_returns(found, ValueHead(4), PPOConfig(whiten_advantages=False, gamma=gamma, lam=1.0, **options), 0.0)
    return [part.tolist() for row in rows for part in row.data["returns"].split([branch.num_counted for branch in row.branches])]


def test_the_score_lands_on_the_last_token_alone() -> None:
    """With gamma = 1/2 a return says how far away its reward is. A score of 0 is a score; an answer that did not end pays the penalty."""
    row = unit([4.0, 0.0, 2.0], [3, 2, 2], "a")
    row.data["rollouts"][2] = replace(row.data["rollouts"][2], finish_reason="length")
    assert returns([row], 0.5, missing_eos_penalty=1.0) == [[1.0, 2.0, 4.0], [0.0, 0.0], [0.5, 1.0]]
    assert returns([row], 0.5, missing_eos_penalty=None) == [[1.0, 2.0, 4.0], [0.0, 0.0], [1.0, 2.0]]


def test_training_moves_the_policy_and_never_the_reference(tmp_path: Path) -> None:
    """The reference is the policy with its own adapter off, bit for bit, before and after 100 steps."""
    policy, tokenizer = tiny.policy(), tiny.tokenizer()
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft")
    config = PPOConfig(
        output_dir=str(tmp_path),
        num_iterations=25,
        num_ppo_epochs=4,
        prompts_per_iteration=3,
        num_generations=2,
        max_new_tokens=5,
        learning_rate=1e-3,
    )
    trainer = PPOTrainer(
        config,
        tokenizer,
        policy,
        lambda completions: [float(len(c[0]["content"])) for c in completions],
        tiny.prompts(6),
        peft_config=tiny.lora(),
    )
    assert trainer.stack == ("sft", *trainer.stack[1:]) and trainer.prepared.reference == ("sft",)
    batch = pack([Unit((5, 6, 7), (Branch((8, 9, 10)),))])

    def read(stack: tuple[str, ...]) -> torch.Tensor:
        with torch.no_grad():
            return policy.forward(batch, stack, Want(logprobs=True)).logprobs

    before, frozen = (
        read(("sft",)),
        (adapter_hash(policy, "sft"), [float(p.double().sum()) for p in policy.model.parameters() if not p.requires_grad]),
    )
    assert torch.equal(read(trainer.stack), before)  # a fresh adapter changes nothing
    trainer.train()
    assert trainer.global_step == 100
    assert torch.equal(read(("sft",)), before)
    assert (adapter_hash(policy, "sft"), [float(p.double().sum()) for p in policy.model.parameters() if not p.requires_grad]) == frozen
    assert not torch.allclose(read(trainer.stack), before, atol=1e-3)


def test_a_process_without_a_prompt_scores_nothing(tmp_path: Path) -> None:
    """One prompt and two processes: the second has no answers to score, by a reward model on the policy's base or on another."""
    policy = tiny.policy()
    policy.add_adapter("sft", tiny.lora())
    config = PPOConfig(output_dir=str(tmp_path), max_new_tokens=4, prompts_per_iteration=1)
    trainer = PPOTrainer(config, tiny.tokenizer(), policy, lambda completions: [1.0], tiny.prompts(1), peft_config=tiny.lora())
    heads = RewardHeads(policy.hidden_size, 2)
    for base, stack in ((policy, ("sft",)), (policy, ()), (tiny.policy(), ())):
        trainer.experience.rewards = [LearnedReward(RewardModel(base, stack, heads, trainer.renderer))]
        assert trainer.experience.make([], 64, exact=True, stack=trainer.stack, temperature=1.0) == []


def test_the_trainers_own_loss_has_the_exact_gradient(tmp_path: Path) -> None:
    """All 27 answers of three tokens over three, each weighted by its probability, through token rewards, advantages and the policy loss
    of the trainer itself, on a transformer of three tokens: the gradient of E[r] - beta KL, to 1e-6, in every tensor."""
    beta = 0.5
    policy, reference = (PolicyModel(tiny.model(vocab_size=3, pad_token_id=None, eos_token_id=None, seed=seed).double()) for seed in (0, 1))
    policy.model.requires_grad_(True)
    config = PPOConfig(
        output_dir=str(tmp_path),
        kl_coef=beta,
        lam=1.0,
        gamma=1.0,
        whiten_advantages=False,
        missing_eos_penalty=None,
        skip_step0_checks=True,
    )
    trainer = PPOTrainer(config, tiny.tokenizer(), tiny.policy(), lambda completions: [0.0], tiny.prompts(2), peft_config=tiny.lora())
    trainer.policy, trainer.stack = policy, ()
    answers = [tuple(row) for row in enumeration.SEQUENCES.tolist()]
    rewards = (torch.randn(27, generator=torch.Generator().manual_seed(2)) * 8).round() / 8

    def logprobs(model: PolicyModel) -> torch.Tensor:
        found = model.forward(pack([Unit((0,), (Branch(answer),)) for answer in answers]), (), Want()).logprobs
        assert found is not None
        return found

    now, ref = logprobs(policy), logprobs(reference).detach()
    assert now.dtype == torch.float64
    sums, weights = now.view(27, 3).sum(1), now.detach().view(27, 3).sum(1).exp()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-10)
    objective = (sums.exp() * (rewards - beta * (sums - ref.view(27, 3).sum(1)))).sum()
    parameters = dict(policy.model.named_parameters())
    exact = dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values()), allow_unused=True), strict=True))

    units = []
    for index, answer in enumerate(answers):
        part = slice(3 * index, 3 * index + 3)
        rollout = Rollout("p", (), (0,), answer, "", tuple(now[part].tolist()), "stop")
        data = {"rollouts": [rollout], "scores": [Score(float(rewards[index]))], "states": torch.zeros(3, 4)}
        data |= {"old_logprobs": now[part].detach(), "sampler_logprobs": now[part].detach(), "ref_logprobs": ref[part]}
        units.append(Unit((0,), (Branch(answer),), "p", data))
    units, _ = advantages_and_returns(units, ValueHead(4), config, beta)
    policy.model.zero_grad()
    for unit, weight in zip(units, weights, strict=True):
        loss, _ = trainer._policy_loss([unit], {"tokens": 1.0})
        (weight * loss).backward()
    assert len([name for name, gradient in exact.items() if gradient is not None]) > 10
    for name, gradient in exact.items():
        if gradient is not None:
            found = parameters[name].grad
            assert found is not None and torch.allclose(-found, gradient, atol=1e-6), name


def test_siblings_need_company() -> None:
    with pytest.raises(ConfigError, match="num_generations=1"):
        PPOConfig(num_generations=1, compare_siblings=True)


def test_rewards_read_along_with_the_reference_are_the_same(tmp_path: Path) -> None:
    """The reference pass gives a reward model on the same adapters its features; another stack is read on its own. Same scores."""
    policy, tokenizer = tiny.policy(), tiny.tokenizer()
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft")
    heads = RewardHeads(policy.hidden_size, 3, seed=5)
    trainer = PPOTrainer(
        PPOConfig(output_dir=str(tmp_path), num_generations=3, max_new_tokens=5),
        tokenizer,
        policy,
        lambda completions: [0.0] * len(completions),
        tiny.prompts(4),
        peft_config=tiny.lora(),
    )
    model = RewardModel(policy, ("sft",), heads, trainer.renderer)
    rollouts = trainer.sampler.sample([Prompt(f"p{i}", tuple(range(5, 9 + i))) for i in range(3)], _sampling())
    groups = [rollouts[i : i + 3] for i in range(0, 9, 3)]
    alone = LearnedReward(model).score(rollouts)
    trainer.experience.rewards = [LearnedReward(model, 0.5), LearnedReward(RewardModel(policy, (), heads, trainer.renderer), 2.0, "other")]
    assert trainer.experience._readers() == [model]
    units = trainer.experience.make(groups, 1024, exact=True, stack=trainer.stack, temperature=1.0)
    found = [score for row in units for score in row.data["scores"]]
    assert [score.parts["reward_model"] for score in found] == pytest.approx([score.value for score in alone], abs=1e-4)
    assert len({round(score.parts["other"], 3) for score in found}) > 1
    assert [score.value for score in found] == pytest.approx(
        [0.5 * s.parts["reward_model"] + 2 * s.parts["other"] for s in found], abs=1e-5
    )
    other = trainer.experience.rewards[1].model
    both = LearnedReward(model, others=(other,), ensemble="worst")
    trainer.experience.rewards = [both]
    units = trainer.experience.make(groups, 1024, exact=True, stack=trainer.stack, temperature=1.0)
    members = [score.value for row in units for score in row.data["scores"]]
    assert members == pytest.approx([min(s.parts["reward_model"], s.parts["other"]) for s in found], abs=1e-4)
    assert trainer.experience.make([], 1024, exact=True, stack=trainer.stack, temperature=1.0) == []  # fewer prompts than processes


def _sampling() -> Any:
    from accord.rollouts.sampler import SamplingConfig

    return SamplingConfig(max_new_tokens=5, num_samples=3, seed=1)
