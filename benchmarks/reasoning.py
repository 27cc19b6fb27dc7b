"""Does GRPO teach a small model to reason, or would any reward have done it? Arithmetic in visible steps, with control arms.

    python benchmarks/reasoning.py --arms true:42 true:43 true:44 random:42 format-only:42 best-of:42
    python benchmarks/reasoning.py --arms true:42 --svamp ../shared/data/svamp

The start is the starter model after SFT on a few worked solutions: it knows the form, not the arithmetic. Every arm goes on from it with
the same prompts and the same number of sampled answers, and is judged on the same held-out problems, one greedy answer each. `best-of` is
rejection-sampling fine-tuning on as many sampled tokens. Stages already done are skipped, so an interrupted run goes on. Results go to
`benchmarks/results/reasoning.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord import SFTConfig, SFTTrainer
from accord.data.read import read_examples
from accord.evaluation.intervals import wilson
from accord.methods.prompts import as_prompt
from accord.models.opened import open_model
from accord.recipes.reasoning import Settings, adapter, answers, gain, imitate, in_points, practise, problems
from accord.recipes.rejection import best_answers, demonstrations
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.accuracy import AccuracyReward
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.types import Rollout

ARMS = ("true", "random", "format-only", "inverted", "shuffled", "best-of")
SVAMP_TOKENS = 160


def best_of(settings: Settings, start: str, folder: Path) -> dict[str, Any]:
    """Rejection-sampling fine-tuning on as many sampled answers: the right ones are learned, once."""
    opened = open_model(start)
    rows, group = problems(settings, held_out=False), settings.grpo["num_generations"]
    count = settings.grpo["per_device_train_batch_size"] * settings.grpo["max_steps"] // group
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    groups: list[list[Rollout]] = []
    for number, first in enumerate(range(0, count, 64)):
        prompts = [as_prompt(rows[i % len(rows)], opened.renderer) for i in range(first, min(first + 64, count))]
        rollouts = sampler.sample(prompts, SamplingConfig(settings.longest, group, seed=settings.seed, step=number))
        scored = [replace(r, score=s) for r, s in zip(rollouts, AccuracyReward("numeric").score(rollouts), strict=True)]
        groups += [scored[i : i + group] for i in range(0, len(scored), group)]
    sampled = sum(len(rollout.completion_ids) for rollouts in groups for rollout in rollouts)
    kept = demonstrations(best_answers(groups), {"kind": "sample"})
    config = SFTConfig(output_dir=str(folder), seed=settings.seed, **{**settings.sft, "num_train_epochs": 1})
    trainer = SFTTrainer(opened.policy, config, kept, processing_class=opened.tokenizer, peft_config=adapter(settings, opened))
    trainer.train()
    trainer.save_model()
    return {"kept": len(kept), "asked": count, "sampled tokens": sampled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["true:42", "true:43", "true:44", "random:42", "format-only:42", "best-of:42"])
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of 64 answers")
    parser.add_argument("--svamp", type=Path, help="folder with SVAMP: 300 of its problems before and after")
    parser.add_argument("--work", type=Path, default=Path("runs/reasoning"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "reasoning.json")
    given = parser.parse_args()
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    settings = Settings(held_out=500, seed=1)
    settings = replace(settings, grpo={**settings.grpo, "max_steps": given.steps})
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    looks: dict[str, list[dict[str, Any]]] = {}
    about = {"settings": settings.__dict__}

    def look(name: str, model: str, **key: Any) -> list[dict[str, Any]]:
        return stages.run(f"look-{name}", {**about, "model": model, **key}, lambda *_: {"answers": answers(settings, model)})["answers"]

    stages.run("start", about, lambda folder, _: imitate(settings, folder))
    stages.run("direct", {**about, "worked": False}, lambda folder, _: imitate(settings, folder, worked=False))
    base = str(given.work / "start")
    before = {
        name: look(name, model) for name, model in (("starter", settings.model), ("direct", str(given.work / "direct")), ("start", base))
    }
    results |= {name: share(rows) for name, rows in before.items()}
    for arm in given.arms:
        kind, _, number = arm.partition(":")
        mine = replace(settings, seed=int(number or 42))
        if kind not in ARMS:
            raise SystemExit(f"There is no arm {kind!r}: {', '.join(ARMS)}.")

        def work(folder: Path, resume: bool, kind: str = kind, mine: Settings = mine) -> dict[str, Any]:
            if kind == "best-of":
                return best_of(mine, base, folder)
            return practise(mine, base, folder, "none" if kind == "true" else kind, resume=resume)

        name = f"{kind}-{mine.seed}"
        curve = stages.run(name, {**about, "arm": kind, "seed": mine.seed}, work)
        seconds = round(stages.records[-1]["seconds"])
        after = looks[arm] = look(name, str(given.work / name), arm=arm)
        change = gain(before["start"], after)
        results[arm] = {**share(after), "gain": in_points(change), "clear of zero": change.excludes_zero, **curve, "seconds": seconds}
        keep(given.results, results)
        told = {key: value for key, value in results[arm].items() if not isinstance(value, list)}
        print(arm, json.dumps(told), flush=True)
    results |= against_controls(looks)
    if given.svamp:
        rows = [replace(row, kind="prompt", completions=()) for row in read_examples(str(given.svamp))][:300]
        models = {"start": base, "true-42": str(given.work / "true-42")}
        results["svamp"] = {
            name: share(
                stages.run(
                    f"look-svamp-{name}",
                    {**about, "svamp": name},
                    lambda *_, m=model: {"answers": answers(settings, m, rows, SVAMP_TOKENS)},
                )["answers"]
            )
            for name, model in models.items()
        }
    results["peak GB"] = round(peak_rss_gb(), 2)
    keep(given.results, results)


def share(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Right answers with their interval, those in the asked form where one is asked, mean length."""
    count = len(rows)
    right = wilson(sum(row["right"] for row in rows) / count, count)
    means = {name: round(sum(row[name] for row in rows) / count, 3) for name in ("form", "tokens") if name in rows[0]}
    return {"right": f"{100 * right.mean:.1f} % ({100 * right.low:.1f} to {100 * right.high:.1f}, {count})", **means}


def against_controls(looks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Right answers of each arm `true:SEED` minus those of every other arm to the same problems, from each arm's answers."""
    pairs = [(one, other) for one, other in itertools.product(looks, looks) if one.startswith("true:") and not other.startswith("true:")]
    changes = {f"{one} minus {other}": gain(looks[other], looks[one]) for one, other in pairs}
    return {name: {"gain": in_points(change), "clear of zero": change.excludes_zero} for name, change in changes.items()}


def keep(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
