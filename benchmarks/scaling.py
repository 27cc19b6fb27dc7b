"""How cost grows: time with tokens and length, with answers to one prompt, memory with batch size and with length.

    python benchmarks/scaling.py                          # every part, about 10 minutes on two cores
    python benchmarks/scaling.py --parts length long

Time is of loss and backward with LoRA r=16 on all linear layers of the starter in fp32, the median of three; memory is the peak of a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peak import gemm_gflops

from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.models.adapters import PolicyModel, Want
from accord.models.load import load_model, resolve
from accord.models.lora import lora_config
from accord.recipes.stages import peak_rss_gb

PARTS = ("length", "groups", "batch", "long")
LENGTHS = (256, 384, 512, 768, 1024, 1536, 2048)


def opened(*, checkpointing: bool = False) -> PolicyModel:
    policy = PolicyModel(load_model(resolve("smollm2-135m"), dtype="float32"), packed=True)
    policy.add_adapter("bench", lora_config(policy), seed=1)
    if checkpointing:
        policy.enable_checkpointing()
    return policy


def unit(prompt: int, answers: int, length: int, seed: int = 0) -> Unit:
    """A prompt and `answers` answers of random tokens."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1000, 40000, (count,), generator=generator).tolist())

    return Unit(ids(prompt), tuple(Branch(ids(length)) for _ in range(answers)), str(seed))


def step(policy: PolicyModel, units: list[Unit], budget: int = 1024) -> float:
    """Seconds of loss and backward."""
    started = time.perf_counter()
    for part in split_by_budget(units, budget):
        out = policy.forward(pack(part, policy.device), policy.adapters, Want(logprobs=True))
        assert out.logprobs is not None
        (-out.logprobs.mean()).backward()
    return time.perf_counter() - started


def median_seconds(policy: PolicyModel, units: list[Unit], repeats: int = 3) -> float:
    return statistics.median(step(policy, units) for _ in range(repeats))


def attended(one: Unit) -> int:
    """Query-key pairs of a unit's attention: prompt x prompt, each answer x (prompt + itself)."""
    prompt = len(one.prompt_ids)
    return prompt * prompt + sum(len(branch.ids) * (prompt + len(branch.ids)) for branch in one.branches)


def fitted(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    """Least squares of seconds = a tokens + b attended pairs, each row weighted by 1 / seconds; R^2 of the relative fit."""
    inputs = torch.tensor([[tokens / seconds, pairs / seconds] for tokens, pairs, seconds in rows], dtype=torch.float64)
    ones = torch.ones(len(rows), 1, dtype=torch.float64)
    weights = torch.linalg.lstsq(inputs, ones).solution
    seconds = torch.tensor([row[2] for row in rows], dtype=torch.float64)
    predicted = (inputs @ weights)[:, 0] * seconds
    residual = float(((seconds - predicted) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum())
    return {"seconds a token": float(weights[0]), "seconds a pair": float(weights[1]), "R2": round(1 - residual, 4)}


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log seconds over log tokens."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)


def length_part() -> dict[str, Any]:
    """One row of 256 to 2,048 tokens, a quarter of it prompt."""
    policy = opened()
    step(policy, [unit(64, 1, 64)])
    rows = []
    for length in LENGTHS:
        one = unit(length // 4, 1, length - length // 4)
        rows.append((float(length), float(attended(one)), median_seconds(policy, [one])))
    return {
        "seconds": {int(tokens): round(seconds, 2) for tokens, _, seconds in rows},
        "exponent": round(exponent([(tokens, seconds) for tokens, _, seconds in rows]), 3),
        "fit": fitted(rows),
    }


def groups_part() -> dict[str, Any]:
    """1 to 16 answers of 32 tokens to one prompt of 256: the prompt is paid once, so time is a constant plus a multiple of G."""
    policy = opened()
    step(policy, [unit(64, 1, 64)])
    counts = (1, 2, 4, 8, 16)
    found = {count: median_seconds(policy, [unit(256, count, 32)]) for count in counts}
    apart = {count: median_seconds(policy, [unit(256, 1, 32, seed) for seed in range(count)], 1) for count in counts}
    slope = (found[16] - found[1]) / 15
    return {
        "seconds shared": {count: round(value, 2) for count, value in found.items()},
        "seconds with the prompt repeated": {count: round(value, 2) for count, value in apart.items()},
        "seconds an answer": round(slope, 3),
        "seconds a prompt": round(found[1] - slope, 3),
    }


def peak_of(arguments: str) -> dict[str, float]:
    """Run one memory case in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--memory", arguments], capture_output=True, text=True, check=True, encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])


def memory_case(arguments: str) -> None:
    case = json.loads(arguments)
    policy = opened(checkpointing=case.get("checkpointing", False))
    before = peak_rss_gb()
    units = [unit(case["prompt"], case["answers"], case["length"], seed) for seed in range(case["rows"])]
    optimizer = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=1e-4)
    seconds = step(policy, units, case.get("budget", 1024))
    optimizer.step()
    print(json.dumps({"peak GB": round(peak_rss_gb(), 2), "before GB": round(before, 2), "seconds": round(seconds, 1)}))


def batch_part() -> dict[str, Any]:
    """4 to 64 pairs a step at a budget of 1,024 tokens."""
    return {str(rows): peak_of(json.dumps({"rows": rows, "prompt": 96, "answers": 2, "length": 48})) for rows in (4, 16, 64)}


def long_part() -> dict[str, Any]:
    """One pair of 4,096 tokens a side (2,048 of prompt) with checkpointing."""
    case = {"rows": 1, "prompt": 2048, "answers": 2, "length": 2048, "checkpointing": True}
    return peak_of(json.dumps(case))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    given = parser.parse_args()
    if given.memory:
        memory_case(given.memory)
        return
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    for part in given.parts:
        peak = gemm_gflops()
        found = {"length": length_part, "groups": groups_part, "batch": batch_part, "long": long_part}[part]()
        results[part] = {"peak GB": round(peak_rss_gb(), 2), **found, "gemm GF/s": round((peak + gemm_gflops()) / 2, 1)}
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(part, json.dumps(results[part]), flush=True)


if __name__ == "__main__":
    main()
