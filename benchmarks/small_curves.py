"""Does DPO on a base in 16, 8 or 4 bits learn what it learns in float32? Loss curves of the starter, step by step on the same pairs.

python benchmarks/small_curves.py             # seven runs of forty steps, twenty minutes on two cores
python benchmarks/small_curves.py --model gemma3-270m
python benchmarks/small_curves.py --write     # puts table and chart into docs/small-weights.md, where a test compares them with the results

`accord dpo` with LoRA on packaged pairs: the same rows in the same order, the same start of the adapter; only the base differs. The margin is
stated beforehand: a curve follows the float32 one where the mean of its distance, step by step, is below a tenth of what the float32 loss falls
from its first five steps to its last five, and the loss on pairs that are not trained on below the same tenth from the float32 one. nf4-as-fp32 is an
ordinary float32 model with the numbers that nf4 stands for: what it is away from float32 is the rounding's, what nf4 is away from it is ours. gguf
holds the four-bit blocks of the file that the starter is packaged in, which float32 widened. fp32-other-start begins at another draw of the
adapter: what any two runs are apart that nobody would tell from one another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from kept import alone, put, standing

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "small_curves.json", ROOT / "docs" / "small-weights.md"
CHART = ROOT / "docs" / "images" / "small-curves.svg"
WAYS = ("fp32", "bf16", "int8", "gguf", "nf4", "nf4-as-fp32", "fp32-other-start")
CHARTED = ("fp32", "bf16", "int8", "nf4", "fp32-other-start")
"""The others lie on one of these."""
STEPS, PAIRS, EVERY, RATE = 40, 8, 5, 1e-4
START, OTHER_START = 1, 2
"""Seeds: of the rows' order and the adapter, and of the adapter alone."""
MARGIN = 0.1
"""Of the fall of the float32 loss: stated before anything was run."""
HEADER = (
    "| model | weights | loss, first and last five steps | distance from fp32, mean and largest step | held-out loss | accuracy | follows | peak memory GB | tokens/s |",
    "|---|---|---|---|---|---|---|---|---|",
)


def child(model: str, weights: str) -> dict[str, Any]:
    """Train and measure, in a process of its own."""
    from accord import DPOConfig, DPOTrainer
    from accord.models.lora import lora_config
    from accord.models.opened import open_model
    from accord.models.registry import PINNED, fetch_weights
    from accord.recipes.demo_rows import pairs
    from accord.recipes.stages import peak_rss_gb

    with tempfile.TemporaryDirectory() as folder:
        if weights == "nf4-as-fp32":
            model, weights = widened(model, Path(folder) / "widened"), "fp32"
        if weights == "gguf":
            model = str(fetch_weights(PINNED[model], Path(folder)))
        start, weights = (OTHER_START, "fp32") if weights == "fp32-other-start" else (START, weights)
        opened = open_model(model, dtype="float32", weights=weights)
        opened.policy.add_adapter("dpo", lora_config(opened.policy, rank=16), seed=start)
        config = DPOConfig(
            output_dir=f"{folder}/run",
            weights=weights,
            max_steps=STEPS,
            per_device_train_batch_size=PAIRS,
            learning_rate=RATE,
            eval_strategy="steps",
            eval_steps=STEPS,
            seed=START,
        )
        trainer = DPOTrainer(
            opened.policy,
            args=config,
            train_dataset=pairs("train"),
            eval_dataset=pairs("heldout"),
            processing_class=opened.tokenizer,
        )
        trainer.train()
        rows = trainer.log_history
        steps = [row for row in rows if "loss" in row]
        last = next(row for row in reversed(rows) if "eval_loss" in row)
        return {
            "loss": [round(row["loss"], 6) for row in steps],
            "accuracies": [round(row["rewards/accuracies"], 4) for row in steps],
            "rewards": {side: [round(row[f"rewards/{side}"], 4) for row in steps] for side in ("chosen", "rejected")},
            "held-out loss": round(last["eval_loss"], 5),
            "accuracy": round(last["eval_rewards/accuracies"], 4),
            "tokens": trainer.num_tokens,
            "tokens/s": round(trainer.num_tokens / sum(row["step_seconds"] for row in steps), 1),
            "peak GB": round(peak_rss_gb(), 3),
        }


def widened(model: str, folder: Path) -> str:
    """The folder of an ordinary model with the numbers that nf4 stands for."""
    from accord.models.opened import open_model
    from accord.models.small import widen

    opened = open_model(model, dtype="float32", weights="nf4")
    widen(opened.policy.model)
    opened.policy.model.save_pretrained(folder)
    opened.tokenizer.save_pretrained(folder)
    return str(folder)


def apart(found: dict[str, Any], plain: dict[str, Any]) -> tuple[float, float]:
    """Distance from the float32 curve: mean over steps, and the largest."""
    distances = [abs(one - other) for one, other in zip(found["loss"], plain["loss"], strict=True)]
    return statistics.mean(distances), max(distances)


def follows(found: dict[str, Any], plain: dict[str, Any]) -> bool:
    """Whether a curve is within the margin, on pairs trained on and on others."""
    losses = plain["loss"]
    allowed = MARGIN * (statistics.mean(losses[:EVERY]) - statistics.mean(losses[-EVERY:]))
    return max(apart(found, plain)[0], abs(found["held-out loss"] - plain["held-out loss"])) < allowed


def line(model: str, weights: str, found: dict[str, Any], plain: dict[str, Any]) -> str:
    """One row of the table."""
    first, last = (statistics.mean(part) for part in (found["loss"][:EVERY], found["loss"][-EVERY:]))
    mean, largest = apart(found, plain)
    distance = "" if weights == "fp32" else f"{mean:.4f}, {largest:.4f}"
    followed = "" if weights == "fp32" else "yes" if follows(found, plain) else "**no**"
    return (
        f"| {model} | {weights} | {first:.3f}, {last:.3f} | {distance} | {found['held-out loss']:.4f} | {found['accuracy']:.1%} | {followed} "
        f"| {found['peak GB']:.2f} | {found['tokens/s']:,.0f} |"
    )


def table(results: dict[str, Any]) -> str:
    """All rows, a model after the other."""
    rows = [line(model, weights, runs[weights], runs["fp32"]) for model, runs in results.items() for weights in WAYS if weights in runs]
    return "\n".join((*HEADER, *rows))


def chart(results: dict[str, Any]) -> str:
    """The curves of the first model, a mean of five steps a dot."""
    from accord.reporting.charts import Line, line_chart

    model, runs = next(iter(results.items()))
    starts = range(0, STEPS, EVERY)
    lines = [
        Line(f"{model} {weights}", [start + EVERY for start in starts], [statistics.mean(runs[weights]["loss"][start : start + EVERY]) for start in starts], dashed=weights != "fp32")
        for weights in CHARTED
        if weights in runs
    ]  # fmt: skip
    return standing(line_chart(lines, x_label="step", y_label="DPO loss, mean of five steps"))


def written(page: str, results: dict[str, Any]) -> str:
    """The page with the table of these results between its two marks."""
    return put(page, table(results), "small_curves.py", "curves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a name that accord fetches, or a folder")
    parser.add_argument("--weights", nargs="*", choices=WAYS, default=WAYS, help="which ways")
    parser.add_argument("--write", action="store_true", help="put the kept results into docs/small-weights.md")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        CHART.write_text(chart(results), encoding="utf-8")
        return
    from peak import machine

    for weights in given.weights:
        found = alone(__file__, [given.model, weights], 3600.0)
        if "failed" in found:
            print(f"{given.model} {weights}: {found['failed']}", flush=True)
            continue
        results.setdefault(given.model, {})[weights] = {**found, **machine()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if "fp32" in results[given.model]:
            print(line(given.model, weights, found, results[given.model]["fp32"]), flush=True)


if __name__ == "__main__":
    main()
