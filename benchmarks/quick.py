"""Did anything get slower? accord's fast paths against its own plain ones, interleaved in one run: under five minutes on two cores.

python benchmarks/quick.py            # or: make bench-quick

Training: one update on packaged preference pairs, plain transformers + peft modules on the packed layout against the fused functions.
Sampling: eight answers to each of eight prompts, merged plain weights against reordered ones. Both sides must agree before a time is shown.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peak import gemm_gflops

from accord.data.packing import Unit, pack, split_by_budget
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel, Want
from accord.models.load import load_model, load_tokenizer, resolve
from accord.models.lora import lora_config
from accord.models.tokens import stop_token_ids
from accord.recipes import demo_rows
from accord.recipes.stages import peak_rss_gb
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig

ROUNDS = 5
PAIRS = 16


def opened(fused: bool) -> tuple[PolicyModel, Renderer]:
    """The starter with one LoRA adapter on every linear layer, B != 0."""
    resolved = resolve("smollm2-135m")
    policy = PolicyModel(load_model(resolved, dtype="float32"), packed=True, fused=fused)
    tokenizer = load_tokenizer(resolved)
    policy.add_adapter("bench", lora_config(policy), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in sorted(policy.adapter_parameters("bench").items()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return policy, Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, policy.model.generation_config))


def update(policy: PolicyModel, units: list[Unit]) -> float:
    """Loss and gradients of one update; returns the loss."""
    policy.peft.zero_grad()
    loss = 0.0
    for part in split_by_budget(units, 1024):
        batch = pack(part, policy.device)
        out = policy.forward(batch, policy.adapters, Want(logprobs=True))
        assert out.logprobs is not None
        part_loss = -out.logprobs.mean()
        part_loss.backward()
        loss += part_loss.item()
    return loss


def gradient(policy: PolicyModel) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for _, p in sorted(policy.adapter_parameters("bench").items()) if p.grad is not None])


def interleaved(plain: Callable[[], Any], fast: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """A B A B ...: seconds of each, after one warm-up of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_index in range(ROUNDS + 1):
        for index, work in enumerate((plain, fast)):
            started = time.perf_counter()
            work()
            if round_index:
                times[index].append(time.perf_counter() - started)
    return times


def row(name: str, plain: list[float], fast: list[float], gflop: float, tokens: int, peak: float) -> dict[str, Any]:
    middle = statistics.median(fast)
    return {
        "name": name,
        "plain s": round(statistics.median(plain), 2),
        "fast s": round(middle, 2),
        "ratio": round(statistics.median(a / b for a, b in zip(plain, fast, strict=True)), 2),
        "tokens": tokens,
        "tokens/s": round(tokens / middle),
        "GF": round(gflop),
        "share of peak": round(gflop / middle / peak, 2),
    }


def main() -> None:
    before = gemm_gflops()
    (plain, renderer), (fast, _) = opened(False), opened(True)
    units = renderer.units(demo_rows.pairs("train")[:PAIRS])
    losses = [update(policy, units) for policy in (plain, fast)]
    one, two = gradient(plain), gradient(fast)
    loss_gap, gradient_gap = abs(losses[0] - losses[1]) / abs(losses[0]), float((one - two).norm() / one.norm())
    assert loss_gap < 1e-5 and gradient_gap < 1e-4, f"the paths disagree: loss {loss_gap:.1e}, gradient {gradient_gap:.1e}"

    layers = sum(p.numel() for name, p in fast.layers.named_parameters() if p.dim() == 2 and "lora" not in name)
    adapters = sum(p.numel() for p in fast.adapter_parameters("bench").values())
    head = fast.model.get_output_embeddings().weight.numel()
    tokens, counted = sum(unit.num_tokens for unit in units), sum(unit.num_counted for unit in units)
    training = interleaved(lambda: update(plain, units), lambda: update(fast, units))

    prompts = [Prompt(r.prompt_id, tuple(renderer.prompt_ids(r.prompt)), r.prompt, {}) for r in demo_rows.pairs("train")[:8]]
    config = SamplingConfig(max_new_tokens=32, num_samples=8, seed=3)
    drawn: list[list[Any]] = [[], []]

    def sample(index: int, prepack: bool) -> None:
        drawn[index] = LocalSampler(fast, renderer, fast.adapters, prepack=prepack).sample(prompts, config)

    sampling = interleaved(lambda: sample(0, False), lambda: sample(1, True))
    sampled = sum(len(rollout.completion_ids) for rollout in drawn[1])
    prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
    peak = (before + gemm_gflops()) / 2
    rows = [
        row("update", *training, (tokens * (4 * layers + 6 * adapters) + counted * 4 * head) / 1e9, tokens, peak),
        row("sampling", *sampling, (2 * (sampled + prompt_tokens) * layers + 2 * sampled * head) / 1e9, sampled, peak),
    ]
    result = {
        "gemm GF/s": round(peak, 1),
        "loss difference": loss_gap,
        "gradient difference": gradient_gap,
        "peak GB": round(peak_rss_gb(), 2),
        "rows": rows,
    }
    print(json.dumps(result))
    for found in rows:
        print("  ".join(f"{key} {value}" for key, value in found.items()))
    print(f"GEMM peak {peak:.0f} GF/s, peak memory {peak_rss_gb():.1f} GB")


if __name__ == "__main__":
    main()
