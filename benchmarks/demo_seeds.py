"""The demo over several seeds, judged on all held-out prompts: do its claims hold, and by how much?

    python benchmarks/demo_seeds.py --seeds 42 43 44             # SFT → reward → PPO, and SFT → DPO; about 20 minutes a seed
    python benchmarks/demo_seeds.py --seeds 42 --full            # all packaged data, LoRA reward and value

Stages already done are skipped, so an interrupted run goes on. Results go to `benchmarks/results/demo_seeds.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord.recipes import demo_rows
from accord.recipes.demo import FULL, QUICK, check, demo_data, say
from accord.recipes.look import answers_table, difference, interval_text
from accord.recipes.pipeline import Pipeline
from accord.recipes.stages import Stages, peak_rss_gb

SLICES = ("plain", "flattery", "safe", "harmful")


def one_seed(seed: int, folder: Path, routes: list[str], *, full: bool, per_slice: int) -> dict[str, Any]:
    """Run the stages of one seed and look at `per_slice` held-out prompts of each slice; returns what the demo claims, measured."""
    settings = replace(FULL if full else QUICK, seed=seed)
    stages = Stages(folder, say)
    pipeline = Pipeline("smollm2-135m", demo_data(full=full), settings, stages, say)
    pipeline.sft()
    reward, heldout = pipeline.reward(), pipeline.reward("heldout_reward", heldout=True)
    found: dict[str, Any] = {"seed": seed, "full": full, "routes": {}}
    for route in routes:
        pipeline.ppo(reward) if route == "ppo" else pipeline.dpo()
    prompts = demo_rows.heldout_prompts(per_slice)
    who = ["starter", "sft", *routes]

    def look(_: Path, resume: bool) -> dict[str, Any]:
        return answers_table(pipeline, who, prompts, check=check, reward=reward, heldout=heldout)

    inputs = {"who": [pipeline.key(name) for name in who], "prompts": [row.id for row in prompts], "seed": seed}
    table = stages.run(f"look-{'-'.join(routes)}", inputs, look)
    records = {record["name"]: record for record in stages.records}
    found["reward accuracy"] = records["reward"]["result"]["test"]["accuracy"]
    found["seconds"] = {name: round(record["seconds"]) for name, record in records.items()}
    found["passed"] = {name: passed(table[name]) for name in who}
    if "dpo" in routes:
        found["dpo held-out accuracy"] = records["dpo"]["result"]["heldout"]["eval_rewards/accuracies"]
    for route in routes:
        before, after = table["sft"], table[route]
        found["routes"][route] = {
            "checks": interval_text(difference(before, after, "passed"), percent=True),
            "held-out reward": interval_text(difference(before, after, "heldout_reward")),
            "held-out reward, SFT standard deviations": deviations(before, after),
            "reward": interval_text(difference(before, after, "reward")),
            "KL": round(sum(row["kl"] for row in after) / len(after), 2),
            "finished": round(sum(row["finished"] for row in after) / len(after), 3),
            "worst slice, points": min(passed(after)[name] - passed(before)[name] for name in SLICES) * 100 / per_slice,
        }
    return found | {"peak GB": round(peak_rss_gb(), 2)}


def passed(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = {name: sum(bool(row["passed"]) for row in rows if row["slice"] == name) for name in SLICES}
    return {"all": sum(counts.values()), **counts}


def deviations(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> float:
    """Rise of the held-out reward in standard deviations of the SFT policy's own answers to the same prompts."""
    values = [row["heldout_reward"] for row in before]
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return round((sum(row["heldout_reward"] for row in after) / len(after) - mean) / spread, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--routes", nargs="+", default=["ppo", "dpo"], choices=["ppo", "dpo"])
    parser.add_argument("--full", action="store_true", help="all packaged data, LoRA reward and value")
    parser.add_argument("--per-slice", type=int, default=60, help="held-out prompts of each slice")
    parser.add_argument("--work", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "demo_seeds.json")
    given = parser.parse_args()
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    for seed in given.seeds:
        name = f"{seed}{'-full' if given.full else ''}"
        found = one_seed(seed, given.work / name, given.routes, full=given.full, per_slice=given.per_slice)
        results[f"{name} {'+'.join(given.routes)}"] = found
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=1))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
