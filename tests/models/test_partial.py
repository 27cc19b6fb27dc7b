"""Starting above the frozen layers changes nothing: states, gradients and whole runs are those of the full pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

import tiny
from accord import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack
from accord.models.adapters import PolicyModel, Want
from accord.models.heads import Reading
from accord.models.lora import lora_config
from accord.models.partial import Skipped, keep_lower_states, kept_states

ALL = Want(logprobs=True, entropy=True, states=True, ends=(Reading(),))


def upper(policy: PolicyModel) -> Any:
    return lora_config(policy, rank=4, alpha=8, layers=0.5)


def units() -> list[Unit]:
    generator = torch.Generator().manual_seed(3)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, tiny.VOCAB, (count,), generator=generator).tolist())

    return [Unit(ids(13), (Branch(ids(7)), Branch(ids(6)))), Unit(ids(2), (Branch(ids(15)),))]


def stacked(architecture: str = "llama") -> PolicyModel:
    """A frozen adapter on all layers below a trained one on the upper two of four."""
    policy = tiny.policy(architecture, num_hidden_layers=4, **({"no_rope_layers": [1, 0, 1, 0]} if architecture == "smollm3" else {}))
    policy.add_adapter("sft", tiny.lora())
    policy.add_adapter("top", upper(policy))
    tiny.shake(policy, "sft", "top")
    return policy


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_kept_states_give_the_full_pass(architecture: str) -> None:
    policy = stacked(architecture)
    assert policy.frozen_depth(("sft", "top")) == 2 and policy.can_start_midway
    found = []
    for keep in (False, True):
        rows = units()
        if keep:
            assert keep_lower_states(policy, rows, ("sft", "top"), 1000) == 2
        calls: list[int] = []
        hook = policy.layers[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        out = policy.forward(pack(rows), ("sft", "top"), ALL)
        hook.remove()
        assert len(calls) == (0 if keep else 1)
        policy.model.zero_grad()
        (out.logprobs.sum() + out.states.square().sum() + out.ends[0].sum()).backward()
        found.append((out, {name: p.grad.clone() for name, p in policy.trainable_parameters().items()}))
    (plain, gradients), (kept, kept_gradients) = found
    for name in ("logprobs", "entropy", "states"):
        assert torch.allclose(getattr(plain, name), getattr(kept, name), atol=1e-5), name
    assert torch.allclose(plain.ends[0], kept.ends[0], atol=1e-5)
    assert gradients.keys() == kept_gradients.keys() and gradients
    for name, expected in gradients.items():
        assert float((kept_gradients[name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-6, name


def test_states_of_another_stack_are_not_used() -> None:
    """Kept under (sft, top), they serve any stack with sft alone below, and no stack without it."""
    policy, rows = stacked(), units()
    keep_lower_states(policy, rows, ("sft", "top"), 1000)
    plain = policy.forward(pack(units()), ()).logprobs
    assert torch.allclose(policy.forward(pack(rows), ()).logprobs, plain, atol=1e-6)
    reference = policy.forward(pack(units()), ("sft",)).logprobs
    assert torch.allclose(policy.forward(pack(rows), ("sft",)).logprobs, reference, atol=1e-5)
    assert not torch.allclose(reference, plain, atol=1e-2)


def test_states_of_another_model_are_not_used(tmp_path: Path) -> None:
    """A reference of its own runs its own lower layers, whatever the policy's have put out for the same rows and adapters' names."""
    rows, policy = units(), stacked()
    keep_lower_states(policy, rows, ("sft", "top"), 1000)
    other = tiny.policy(num_hidden_layers=4, seed=5)
    expected = other.forward(pack(units()), ()).logprobs
    assert torch.equal(other.forward(pack(rows), ()).logprobs, expected)
    mixed, theirs = units(), stacked()
    keep_lower_states(policy, mixed[:1], ("sft", "top"), 1000)
    keep_lower_states(theirs, mixed[1:], ("sft", "top"), 1000)
    assert kept_states(pack(mixed[:1]), 4) is not None and kept_states(pack(mixed), 4) is None
    found = []
    for keep in (True, False):
        policy, args = tiny.policy(num_hidden_layers=4), DPOConfig(output_dir=str(tmp_path), cache_lower_layers=keep, cache_reference=False)
        trainer = DPOTrainer(policy, other, args, tiny.pairs(), None, tiny.tokenizer(), peft_config=upper(policy))
        trainer.before_training()
        assert all(("lower" in unit.data) is keep for unit in trainer.train_units)
        found.append(torch.tensor([unit.data["reference"] for unit in trainer.train_units]))
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_reward_features_of_a_middle_layer_stop_there() -> None:
    policy = stacked()
    want = Want(logprobs=False, ends=(Reading(3),))
    assert policy.can_start_midway
    calls: list[int] = []
    hook = policy.layers[3].register_forward_hook(lambda *_, calls=calls: calls.append(1))
    stopped = policy.forward(pack(units()), ("sft",), want).ends[0]
    assert not calls
    whole = policy.forward(pack(units()), ("sft",), Want(logprobs=True, ends=(Reading(3),))).ends[0]
    hook.remove()
    assert len(calls) == 1
    assert torch.allclose(stopped, whole, atol=1e-6)
    rows = units()
    assert keep_lower_states(policy, rows, ("sft", "top"), 1000) == 2
    assert torch.allclose(policy.forward(pack(rows), ("sft",), want).ends[0], whole, atol=1e-5)
    below = Want(logprobs=False, ends=(Reading(1),))
    assert torch.allclose(
        policy.forward(pack(rows), ("sft",), below).ends[0], policy.forward(pack(units()), ("sft",), below).ends[0], atol=1e-6
    )


def test_what_cannot_be_kept() -> None:
    policy = tiny.policy()
    rows = units()
    assert keep_lower_states(policy, rows, (), 1000) == 0  # full fine-tuning
    policy.add_adapter("sft", tiny.lora())
    assert keep_lower_states(policy, rows, ("sft",), 1000) == 0  # trained from the bottom
    assert all("lower" not in unit.data for unit in rows)
    assert not any(isinstance(module, Skipped) for module in policy.model.modules())


def test_a_model_that_adds_positions_to_given_states_runs_whole() -> None:
    """GPT-2 adds its position embeddings to whatever enters: starting midway would be wrong, is measured, and is not done."""
    policy = tiny.policy("gpt2", n_embd=32, num_hidden_layers=4, n_head=4, n_positions=512)
    policy.add_adapter(
        "top", LoraConfig(r=4, target_modules=["c_attn"], layers_to_transform=[2, 3], task_type="CAUSAL_LM", fan_in_fan_out=True)
    )
    assert policy.frozen_depth(("top",)) == 2 and not policy.can_start_midway
    assert keep_lower_states(policy, units(), ("top",), 1000) == 0


@pytest.mark.parametrize("method", ["sft", "dpo", "ppo"])
def test_training_ends_in_the_same_weights(method: str, tmp_path: Path) -> None:
    def score(completions: list[Any], **columns: Any) -> list[float]:
        return [len(completion[0]["content"]) / 10 for completion in completions]

    found = []
    for keep in (True, False):
        options = {"output_dir": str(tmp_path / str(keep)), "learning_rate": 1e-3, "cache_lower_layers": keep}
        policy = tiny.policy(num_hidden_layers=4)
        if method == "sft":
            trainer: Any = SFTTrainer(
                policy, SFTConfig(num_train_epochs=2, **options), tiny.demonstrations(), None, tiny.tokenizer(), peft_config=upper(policy)
            )
        elif method == "dpo":
            trainer = DPOTrainer(
                policy, None, DPOConfig(num_train_epochs=2, **options), tiny.pairs(), None, tiny.tokenizer(), peft_config=upper(policy)
            )
        else:
            args = PPOConfig(num_iterations=2, prompts_per_iteration=3, num_generations=2, max_new_tokens=6, **options)
            trainer = PPOTrainer(args, tiny.tokenizer(), policy, score, tiny.prompts(), peft_config=upper(policy))
        calls: list[int] = []
        policy.layers[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        found.append(({name: p.detach().clone() for name, p in trainer.parameters().items()}, len(calls)))
    (kept, few), (plain, many) = found
    assert few < many
    for name, expected in plain.items():
        assert torch.allclose(kept[name], expected, atol=2e-5), name
