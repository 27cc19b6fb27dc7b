"""What do the monitors cost? The same rounds of PPO with and without them, interleaved: a quarter of an hour on two cores.

python benchmarks/monitors.py [--rounds 14] [--pairs 1]

The starter model, the demo's adapter and sizes (12 prompts, 8 answers of up to 48 tokens), a rule as the reward: the cheapest step there is, so
the dearest share. Two numbers: seconds inside the guard over all seconds of the run, and processor time of the run with over that without.
Both must learn the same, bit for bit, or the script ends. The bound is 3 % (tests do not time; this does).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from accord import PPOConfig, PPOTrainer
from accord.methods.guard import Guard
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.recipes.demo import QUICK, demo_data

BOUND = 0.03


def by_length(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that costs nothing."""
    return [-abs(len(completion[0]["content"]) - 120) / 100 for completion in completions]


def run(rounds: int, *, monitors: bool) -> tuple[float, float, float, dict[str, torch.Tensor]]:
    """Seconds, processor seconds, seconds in the guard, and the last weights of one run."""
    opened = open_model("smollm2-135m")
    settings = replace(QUICK)
    spent = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        options = {**settings.ppo, "num_iterations": rounds, "save_steps": 0, "save_total_limit": None}
        config = PPOConfig(
            output_dir=folder, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, monitors=monitors, **options
        )
        lora = lora_config(opened.policy, rank=settings.lora_r, alpha=settings.lora_alpha, layers=settings.lora_layers)
        trainer = PPOTrainer(config, opened.tokenizer, opened.policy, by_length, list(demo_data(full=False).prompts), peft_config=lora)
        trainer.guard.look = timed(trainer.guard, spent)  # type: ignore[method-assign]
        started, worked = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        assert (Path(folder) / "monitors.json").exists() is (monitors and rounds > 1)
    return seconds, processor, spent[0], {name: value.detach().clone() for name, value in trainer.parameters().items()}


def timed(guard: Guard, spent: list[float]) -> Callable[[Any], dict[str, float]]:
    look = guard.look

    def measured(units: Any) -> dict[str, float]:
        started = time.perf_counter()
        try:
            return look(units)
        finally:
            spent[0] += time.perf_counter() - started

    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--pairs", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for pair in range(options.pairs):
        order = (True, False) if pair % 2 == 0 else (False, True)
        found = {monitors: run(options.rounds, monitors=monitors) for monitors in order}
        with_them, without = found[True], found[False]
        apart = max(float((value - without[3][name]).abs().max()) for name, value in with_them[3].items())
        assert apart == 0, "monitors changed what was learned"
        rows.append(
            {
                "seconds with": round(with_them[0], 2),
                "seconds without": round(without[0], 2),
                "processor time, with / without": round(with_them[1] / without[1], 4),
                "share of the seconds inside the guard": round(with_them[2] / with_them[0], 4),
            }
        )
        print(json.dumps(rows[-1]))
    share = max(row["share of the seconds inside the guard"] for row in rows)
    print(
        f"largest share {100 * share:.1f} % of {options.rounds} rounds (two panels of eight answers included); the bound is {100 * BOUND:.0f} %."
    )


if __name__ == "__main__":
    main()
