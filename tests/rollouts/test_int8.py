"""Sampling from int8 weights: what the product is, what is drawn and noted, and how PPO corrects for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord import GRPOConfig, GRPOTrainer, PPOConfig, PPOTrainer
from accord.data.packing import pack
from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.methods.online import gathered
from accord.methods.reference_answers import rollout_units
from accord.models.adapters import PolicyModel
from accord.models.int8 import int8_linear, int8_problem
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout

pytestmark = pytest.mark.skipif(
    int8_problem(torch.nn.Linear(2, 2)) is not None, reason=f"int8 sampling: {int8_problem(torch.nn.Linear(2, 2))}"
)
CONFIG = SamplingConfig(max_new_tokens=16, num_samples=3, seed=5)


def adapted(**changes: Any) -> PolicyModel:
    policy = tiny.policy(**changes)
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft")
    return policy


def sampled(policy: PolicyModel, weights: str) -> list[Rollout]:
    prompts = [Prompt(f"p{i}", tuple(30 + (7 * i + 3 * k) % 200 for k in range(2 + 4 * i))) for i in range(5)]
    return LocalSampler(policy, Renderer(tiny.tokenizer(), end_ids=[2]), ("sft",), weights=weights).sample(prompts, CONFIG)


def noted(rollouts: list[Rollout]) -> Tensor:
    return torch.tensor([value for rollout in rollouts for value in rollout.sampler_logprobs])


# -- the product -----------------------------------------------------------------------------------------------------------------------


def test_the_product_is_integers_times_two_scales() -> None:
    """y = (round(63 x / top) . round(127 w / largest)) top / 63 largest / 127 + b, in fp64."""
    generator = torch.Generator().manual_seed(3)
    x, w, b = (torch.randn(shape, generator=generator) for shape in ((2, 5, 48), (24, 48), (24,)))
    x *= torch.tensor([1e-3, 1.0, 50.0, 1.0, 7.0])[None, :, None]
    top, largest = x.double().abs().amax(-1, keepdim=True), w.double().abs().amax(1)
    expected = ((63 * x / top).round() @ (127 * w / largest[:, None]).round().T) * top / 63 * largest / 127 + b
    found = int8_linear(w, b)(x)
    assert found.dtype == torch.float32 and found.shape == (2, 5, 24)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)
    exact = x @ w.T + b
    assert 1e-3 < float((found - exact).norm() / exact.norm()) < 0.03


def test_rows_do_not_see_each_other_and_zeros_are_zero() -> None:
    x, w = torch.randn(9, 40), torch.randn(16, 40)
    x[4] = 0.0
    product = int8_linear(w, None)
    whole = product(x)
    assert all(torch.equal(product(x[i : i + 1]), whole[i : i + 1]) for i in range(9))
    assert torch.equal(whole[4], torch.zeros(16))
    extremes = torch.ones(1, 64) * torch.tensor(3.0e4)
    assert torch.allclose(int8_linear(torch.ones(4, 64), None)(extremes), torch.full((1, 4), 64 * 3.0e4))  # nothing overflows


# -- the sampler -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_what_is_noted_is_the_int8_models(architecture: str) -> None:
    """Teacher forcing through the int8 weights, by the model's own attention. Where rounding of fp32 puts an input on the other side of a
    half, a token differs by an int8 step; nearly all agree. The exact policy is further away, everywhere, and not far."""
    policy = adapted(architecture=architecture)
    rollouts = sampled(policy, "int8")
    found: list[Tensor] = []
    with policy.merged(("sft",), packed=False, int8=True), torch.no_grad():
        for rollout in rollouts:
            row, start = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]]), len(rollout.prompt_ids)
            logits = policy.logits(policy.backbone(row).last_hidden_state[0, start - 1 : -1])
            found.append(logits.log_softmax(-1).gather(1, row[0, start:, None])[:, 0])
    apart = (torch.cat(found) - noted(rollouts)).abs()
    assert float((apart < 1e-4).float().mean()) > 0.8
    with torch.no_grad():
        exact = policy.forward(pack(rollout_units(rollouts)), ("sft",)).logprobs
    assert exact is not None
    mismatch = (exact - noted(rollouts)).abs()
    assert float((mismatch > 1e-4).float().mean()) > 0.9 and 1e-3 < float(mismatch.mean()) < 0.2
    assert float(apart.mean()) < 0.3 * float(mismatch.mean())


def test_training_weights_are_left_alone() -> None:
    policy = adapted()
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    exact = sampled(policy, "exact")
    sampled(policy, "int8")
    after = policy.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert sampled(policy, "exact") == exact  # nor does anything of it stay in the modules


def test_where_it_cannot_be_done_sampling_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    policy = adapted()
    policy.model.to(torch.float64)
    assert sampled(policy, "int8") == sampled(policy, "exact")
    assert "no plain linear layer in fp32 on the CPU, so int8 weights are not used" in capsys.readouterr().err


def test_bad_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of exact, int8"):
        sampled(adapted(), "int4")
    with pytest.raises(ConfigError, match="must be one of exact, int8"):
        PPOConfig(sampler_weights="int4")
    trainer = ppo(tmp_path, "exact")
    with pytest.raises(ConfigError, match="sampling in this process"):
        ppo(tmp_path, "int8", sampler=trainer.sampler)


# -- PPO -------------------------------------------------------------------------------------------------------------------------------


def length(completions: list[Any]) -> list[float]:
    return [len(completion[0]["content"]) / 10 for completion in completions]


def ppo(folder: Path, weights: str, **keywords: Any) -> PPOTrainer:
    sizes: dict[str, Any] = {"prompts_per_iteration": 4, "num_generations": 3, "max_new_tokens": 8, "num_iterations": 2}
    config = PPOConfig(output_dir=str(folder), learning_rate=1e-3, eval_steps=2, sampler_weights=weights, **sizes)
    rows: dict[str, Any] = {"train_dataset": tiny.prompts(), "eval_dataset": tiny.prompts(9)[6:]}
    return PPOTrainer(
        config, model=tiny.policy(), reward=length, processing_class=tiny.tokenizer(), peft_config=tiny.lora(), **rows, **keywords
    )


@pytest.mark.parametrize("how", ["truncate", "mask", "sequence"])
def test_ppo_corrects_for_int8_samples(how: str, tmp_path: Path) -> None:
    """The old policy is the exact one, read again. At the first update its ratio is 1, so that the policy's loss is
    - sum over tokens of advantage times weight, over their number: min(pi_old / pi_int8, cap) and its two variants."""
    trainer = ppo(tmp_path, "int8")
    units, _ = trainer._collect()
    old, sampler, advantages = (gathered(units, name, torch.device("cpu")) for name in ("old_logprobs", "sampler_logprobs", "advantages"))
    with torch.no_grad():
        exact = trainer.policy.forward(pack(units), trainer.stack).logprobs
    assert exact is not None and torch.allclose(old, exact, atol=1e-5)
    ratio = (old - sampler).exp()
    cap = float(ratio.max()) ** 0.5  # some tokens are above it: the three differ
    trainer.config.importance_weights, trainer.config.truncated_importance_cap = how, cap
    parts = ratio.split([branch.num_counted for unit in units for branch in unit.branches])
    weights = {
        "truncate": ratio.clamp_max(cap),
        "mask": torch.where((ratio > cap) | (ratio < 1 / cap), torch.zeros_like(ratio), ratio),
        "sequence": torch.cat([part.prod().clamp_max(cap).expand(len(part)) for part in parts]),
    }[how]
    assert float((weights - 1).abs().mean()) > 1e-3
    totals = trainer.totals(units)
    with torch.no_grad():
        loss, metrics = trainer._policy_loss(units, totals)
    assert float(loss) == pytest.approx(-float((advantages * weights).sum()) / totals["tokens"], abs=1e-6)
    assert float(loss) != pytest.approx(-float(advantages.sum()) / totals["tokens"], abs=1e-6)
    values = metrics.compute()
    assert values["sampling/importance_weight"] == pytest.approx(float(weights.mean()), abs=1e-6)
    difference = (old - sampler).double()
    assert values["sampling/mismatch_kl"] == pytest.approx(float((difference.exp() - 1 - difference).mean()), rel=1e-3)
    assert values["sampling/logprob_difference_max"] == pytest.approx(float(difference.abs().max()), abs=1e-4)


def test_grpo_corrects_for_int8_samples(tmp_path: Path) -> None:
    """The gradient of - sum of advantage w, over G max_completion_length a group, w the truncated weights of an exact policy that was read again."""
    options: dict[str, Any] = {"per_device_train_batch_size": 12, "num_generations": 3, "max_completion_length": 8, "learning_rate": 1e-3}
    config = GRPOConfig(output_dir=str(tmp_path), sampler_weights="int8", max_steps=2, **options)
    trainer = GRPOTrainer(tiny.policy(), length, config, tiny.prompts(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    units, _ = trainer._collect()
    old, sampled, advantages = (gathered(units, name, torch.device("cpu")) for name in ("old_logprobs", "sampler_logprobs", "advantages"))
    weights = (old - sampled).exp().clamp_max(config.truncated_importance_cap)
    with torch.no_grad():
        exact = trainer.policy.forward(pack(units), trainer.stack).logprobs
        loss, metrics = trainer.loss(units, trainer.totals(units))
    assert exact is not None and torch.allclose(old, exact, atol=1e-5) and float((weights - 1).abs().mean()) > 1e-3
    answers = sum(len(unit.branches) for unit in units)
    assert float(loss) == pytest.approx(-float((advantages * weights).sum()) / (answers * 8), abs=1e-6)
    assert float(loss) != pytest.approx(-float(advantages.sum()) / (answers * 8), abs=1e-6)
    assert metrics.compute()["sampling/importance_weight"] == pytest.approx(float(weights.mean()), abs=1e-6)
    trainer.train()
    rounds = [row for row in trainer.log_history if "sampling/mismatch_kl" in row]
    assert len(rounds) == 2 and all(row["sampling/mismatch_kl"] > 1e-7 for row in rounds)


def test_the_mismatch_is_logged_and_evaluation_is_exact(tmp_path: Path) -> None:
    int8, exact = ppo(tmp_path / "int8", "int8"), ppo(tmp_path / "exact", "exact")
    assert int8.evaluate() == exact.evaluate()
    int8.train()
    exact.train()
    rounds = [row for row in int8.log_history if "sampling/mismatch_kl" in row]
    assert len(rounds) == 2 and all(row["sampling/mismatch_kl"] > 1e-7 and row["sampling/importance_weight"] != 1.0 for row in rounds)
    assert all(row["sampling/mismatch_kl"] < 1e-7 for row in exact.log_history if "sampling/mismatch_kl" in row)
    assert not any("sampling/importance_weight" in row for row in exact.log_history)
