"""Heads share a backbone and its errors. Do three reward models with LoRA of their own disagree where heads do not? On answers of a hacking run.

    accord lab model --arms single --seeds 1               # makes the answers (a quarter of an hour on one core)
    python benchmarks/members.py [--run "runs/lab/model/single, seed 0/run"]     # a quarter of an hour on one core

The comparisons are those of that arm: answers of the start, judged by the lab's true reward, a quarter of the labels wrong. Both kinds learn from
all of them: five heads on frozen features, and three LoRA members with other seeds and orders. They then score the run's answers, every seventh
round, where the policy has gone ever further for the first head's reward. Results go to `benchmarks/results/members.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord import RewardConfig, RewardTrainer
from accord.lab.model import Proxy, World, gold_of
from accord.methods.reference_answers import rollout_units, sample_answers
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.recipes import demo_rows
from accord.recipes.stages import peak_rss_gb
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import SamplingConfig
from accord.types import Rollout, from_json

RESULTS = Path(__file__).parent / "results" / "members.json"
MEMBERS, EVERY, EPOCHS = 3, 7, 3


def comparisons(answers: Sequence[Rollout], proxy: Proxy) -> list[dict[str, Any]]:
    """The pairs that the heads learned from, as rows for a reward trainer."""
    rows = []
    for better, worse in proxy.pairs:
        one, other = answers[better], answers[worse]
        prompt = [{"role": "user", "content": one.prompt[-1].content}]
        chosen, rejected = ([{"role": "assistant", "content": answer.text}] for answer in (one, other))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def agreed(scores: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """Share of pairs (better, worse) by true reward that these scores put right."""
    return round(statistics.fmean(float(scores[better] > scores[worse]) for better, worse in pairs), 3)


def describe(scores: Tensor, rounds: Sequence[int], golds: Sequence[float]) -> list[dict[str, float]]:
    """For each round: means of the members' mean, least and standard deviation, and of the true reward."""
    found = []
    for number in sorted(set(rounds)):
        rows = [index for index, one in enumerate(rounds) if one == number]
        own = scores[rows]
        found.append(
            {
                "round": number + 1,
                "mean": round(float(own.mean(1).mean()), 3),
                "worst": round(float(own.min(1).values.mean()), 3),
                "disagreement": round(float(own.std(1).mean()), 3),
                "gold": round(statistics.fmean(golds[index] for index in rows), 3),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/lab/model/single, seed 0/run"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    world, seed = World(), 0
    lines = [json.loads(line) for line in (options.run / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = [from_json(line, Rollout) for line in lines if line["policy_step"] % EVERY == 0]
    rounds, golds = [one.policy_step for one in seen], [gold_of(one) for one in seen]
    opened = open_model(world.model)
    rows = [row for row in demo_rows.heldout_prompts() if row.columns["slice"] == "safe"]
    order = random.Random(seed).sample(rows, min(world.compared, len(rows)))
    proxy = Proxy(opened, world, seed)
    sampling = SamplingConfig(world.answer, world.group, 1.0, seed=seed, step=-2)
    answers = sample_answers(opened.policy, opened.renderer, (), order, sampling)
    proxy.learn(answers, world.labels)
    heads = describe(proxy.scores(seen), rounds, golds)
    print("heads", json.dumps(heads), flush=True)
    scores, accuracy = [], []
    pairs = comparisons(answers, proxy)
    for member in range(MEMBERS):
        with tempfile.TemporaryDirectory() as folder:
            config = RewardConfig(
                output_dir=folder, seed=member, num_heads=1, head_context=True, head_width=64, backbone="lora", num_train_epochs=EPOCHS, per_device_train_batch_size=16,
                learning_rate=1e-3, save_steps=0, normalise=False,
            )  # fmt: skip
            lora = lora_config(opened.policy, rank=16, alpha=32, layers=world.lora_layers)
            trainer = RewardTrainer(opened.policy, config, pairs, processing_class=opened.tokenizer, peft_config=lora)
            trainer.train()
            trainer.normalise(rollout_units(answers))
            model: RewardModel = trainer.reward_model
            scores.append(model.score_rollouts(seen).mean(1))
            accuracy.append(agreed(model.score_rollouts(answers).mean(1), proxy.right))
            print("member", member, "puts", accuracy[-1], "of the pairs right", flush=True)
    members = describe(torch.stack(scores, 1), rounds, golds)
    right = {"heads": agreed(proxy.scores(answers).mean(1), proxy.right), "members": accuracy}
    found = {"heads": heads, "LoRA members": members, "puts right": right, "peak GB": round(peak_rss_gb(), 2), "labels": len(pairs)}
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name in ("heads", "LoRA members"):
        first, last_row = found[name][0], found[name][-1]
        print(
            f"{name}: disagreement {first['disagreement']:.2f} to {last_row['disagreement']:.2f}, worst {first['worst']:+.2f} to {last_row['worst']:+.2f}"
        )


if __name__ == "__main__":
    main()
