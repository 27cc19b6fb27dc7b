"""What must hold on a GPU as on a CPU: the same losses and weights in float32, learning in bfloat16, draws that teacher forcing confirms.

Skipped where there is none, so run them by hand on a machine that has one: pytest tests/gpu tests/test_commands.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file

import tiny
from accord import DPOConfig, DPOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel, Want
from accord.models.load import load_model, pick_device, pick_dtype, resolve
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from models.test_exactness import batches, compare, models
from training.run_training import GRPO, build

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning"),
]
METHODS = ("sft", "reward", "reward_heads", "prm", "dpo", "kto", "ppo", "grpo", *GRPO)
SETTINGS = {"max_steps": 4, "save_steps": 2, "tokens_per_microbatch": 64, "eval_steps": 0}
UNITS = [
    Unit(tuple(range(30, 30 + 9 + 5 * i)), (Branch(tuple(range(60, 66))), Branch(tuple(range(70, 70 + 3 + i))), Branch((80, 81))), str(i))
    for i in range(4)
] + [Unit(tuple(range(20, 45)), (Branch(tuple(range(50, 120))), Branch(tuple(range(90, 130)))), "long")]


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "DEVICE", "cuda")


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@settings(max_examples=60, deadline=None)
@given(case=models(), units=batches())
def test_equals_transformers_and_peft(case: dict[str, Any], units: list[Unit]) -> None:
    """In double precision, log-probabilities, loss and every gradient."""
    compare(case, units, 0.7)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_run_of_a_cpu(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32: the same rows, the same draws, the same weights to rounding."""
    build(method, tmp_path / "gpu", [], SETTINGS).train()
    monkeypatch.setattr(tiny, "DEVICE", "cpu")
    build(method, tmp_path / "cpu", [], SETTINGS).train()
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3, abs=1e-4)
    found, expected = (load_file(tmp_path / side / "checkpoint-4" / "training.safetensors") for side in ("gpu", "cpu"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert float((found[name].double() - tensor.double()).abs().max()) < 1e-4, name


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_goes_on(method: str, tmp_path: Path) -> None:
    build(method, tmp_path, [], SETTINGS).train()
    expected = load_file(tmp_path / "checkpoint-4" / "training.safetensors")
    build(method, tmp_path, [], SETTINGS).train(str(tmp_path / "checkpoint-2"))
    found = load_file(tmp_path / "checkpoint-4" / "training.safetensors")
    for name, tensor in expected.items():
        assert float((found[name].double() - tensor.double()).abs().max()) < 1e-5, name


def in_bfloat16(**changes: Any) -> PolicyModel:
    policy = PolicyModel(tiny.model(**changes).to(torch.bfloat16), packed=True)
    policy.add_adapter("own", tiny.lora())
    tiny.shake(policy, "own")
    return policy


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_bfloat16_is_near_float32(architecture: str) -> None:
    half, whole = in_bfloat16(architecture=architecture), tiny.policy(architecture)
    whole.add_adapter("own", tiny.lora())
    tiny.shake(whole, "own")
    found, expected = (policy.forward(pack(UNITS, policy.device), ("own",), Want()).logprobs for policy in (half, whole))
    assert float((found.detach().float() - expected.detach()).abs().mean()) < 0.1
    found.float().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in half.trainable_parameters().values() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen2"])
def test_sampled_logprobs_are_those_of_teacher_forcing(architecture: str, merge: bool, dtype: torch.dtype) -> None:
    policy = tiny.policy(architecture) if dtype == torch.float32 else in_bfloat16(architecture=architecture)
    if not policy.adapters:
        policy.add_adapter("own", tiny.lora())
        tiny.shake(policy, "own")
    sampler = LocalSampler(policy, Renderer(tiny.tokenizer(), end_ids=[2, 3, 4]), ("own",), merge=merge)
    prompts = [Prompt(f"p{i}", tuple(range(30, 34 + 5 * i))) for i in range(4)]
    rollouts = sampler.sample(prompts, SamplingConfig(max_new_tokens=12, num_samples=3, max_batch=5))
    assert len(rollouts) == 12
    units = [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),)) for rollout in rollouts]
    with torch.no_grad():
        forced = policy.forward(pack(units, policy.device), ("own",), Want()).logprobs
    sampled = torch.cat([torch.tensor(rollout.sampler_logprobs) for rollout in rollouts])
    gaps = (forced.float().cpu() - sampled).abs()
    assert float(gaps.max()) < 1e-4 if dtype == torch.float32 else float(gaps.mean()) < 0.1


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_flex_attention_has_the_gradients_of_the_branches(architecture: str) -> None:
    found = []
    for attention in ("branches", "flex"):
        policy = tiny.policy(architecture, head_dim=16)
        policy.add_adapter("own", tiny.lora())
        tiny.shake(policy, "own")
        policy.attention = attention
        logprobs = policy.forward(pack(UNITS, policy.device), ("own",), Want()).logprobs
        logprobs.square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for _, p in sorted(policy.trainable_parameters().items())])
        found.append((logprobs.detach(), gradient))
    (logprobs, gradient), (expected, expected_gradient) = found[1], found[0]
    assert torch.allclose(logprobs, expected, atol=2e-3)  # its kernels multiply float32 with 10 bits
    assert float((gradient - expected_gradient).norm()) < 0.02 * float(expected_gradient.norm())


@pytest.mark.parametrize("attention", ["branches", "flex"])
@pytest.mark.parametrize("weights", ["", "bf16", "int8", "nf4"])
def test_dpo_learns(attention: str, weights: str, tmp_path: Path) -> None:
    """On the device and in the precision that are chosen by themselves."""
    if weights in ("int8", "nf4"):
        pytest.importorskip("bitsandbytes")
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    tiny.model(**shape).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    config = DPOConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=5e-3,
        attention=attention,
        logging_steps=1,
        weights=weights or "auto",
    )
    trainer = DPOTrainer(str(tmp_path / "model"), args=config, train_dataset=tiny.pairs(8), peft_config=tiny.lora())
    assert trainer.policy.device.type == "cuda"
    trainer.train()
    found = losses(tmp_path / "run")
    assert found[0] == pytest.approx(0.693, abs=0.05) and found[-1] < 0.6


def test_chosen_by_itself(tmp_path: Path) -> None:
    assert pick_device() == "cuda" and pick_dtype("cuda") == torch.bfloat16
    tiny.model().cpu().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = load_model(resolve(str(tmp_path), quiet=True))
    assert model.device.type == "cuda" and model.dtype == torch.bfloat16
