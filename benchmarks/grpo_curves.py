"""Does accord's GRPO learn as TRL's does? Forty steps of both on a 260 thousand weight story model with a counting reward, five seeds.

    python benchmarks/grpo_curves.py --stories ../shared/data/stories260k          # about ten minutes

All weights train from the same prompts, token for token; the samplers are each library's own, so curves differ by luck of the draw. The margin
is stated beforehand: in every ten of the forty steps the means over seeds differ by less than a quarter of TRL's rise, which must be one
that exceeds twice the seeds' own spread. A curve that is there is not made again. Results go to `benchmarks/results/grpo_curves.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from accord.models.load import load_model, load_tokenizer, resolve

STEPS, SEEDS, GROUP, PROMPTS, ANSWER, RATE = 40, (0, 1, 2, 3, 4), 8, 8, 24, 3e-4
MARGIN = 0.25
"""Of TRL's rise: stated before anything was run."""
STARTS = ("Once upon a time", "One day", "Lily and Tom", "The big dog", "A little boy", "There was a cat", "In the park", "Mom said")
SETTINGS: dict[str, Any] = {
    "num_generations": GROUP, "per_device_train_batch_size": GROUP * PROMPTS, "max_completion_length": ANSWER, "max_steps": STEPS,
    "learning_rate": RATE, "lr_scheduler_type": "constant", "logging_steps": 1, "beta": 0.0, "temperature": 1.0,
}  # fmt: skip


def count_e(completions: list[Any], **_: Any) -> list[float]:
    """How often the letter e stands in an answer, in tens."""
    return [(c if isinstance(c, str) else c[0]["content"]).count("e") / 10 for c in completions]


def ours(folder: Path, cache: Path, seed: int) -> list[float]:
    from accord import GRPOConfig, GRPOTrainer

    resolved = resolve("stories260k", cache=cache, files=folder)
    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(output_dir=out, seed=seed, loss_type="dr_grpo", scale_rewards="none", **SETTINGS)
        tokenizer = plain(load_tokenizer(resolved))
        trainer = GRPOTrainer(load_model(resolved, dtype="float32", trained=True), count_e, args, rows(), processing_class=tokenizer)
        if [list(prompt.ids) for prompt in trainer.prompts] != tokenizer(list(STARTS))["input_ids"]:
            raise SystemExit("The two libraries would read other prompts: their curves say nothing about each other.")
        trainer.train()
        return [row["reward"] for row in trainer.log_history]


def theirs(folder: Path, cache: Path, seed: int) -> list[float]:
    import trl
    from datasets import Dataset

    resolved = resolve("stories260k", cache=cache, files=folder)
    tokenizer = plain(load_tokenizer(resolved))
    with tempfile.TemporaryDirectory() as out:
        args = trl.GRPOConfig(
            output_dir=out, seed=seed, loss_type="dr_grpo", scale_rewards="none", bf16=False, use_cpu=True, report_to="none", save_strategy="no",
            gradient_checkpointing=False, disable_tqdm=True, optim="adamw_torch", weight_decay=0.0, **SETTINGS,
        )  # fmt: skip
        model = load_model(resolved, dtype="float32", trained=True)
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=count_e, args=args, train_dataset=Dataset.from_list(rows()), processing_class=tokenizer
        )
        trainer.train()
        return [float(row["reward"]) for row in trainer.state.log_history if "reward" in row]


def rows() -> list[dict[str, str]]:
    """Plain prompts, which both libraries tokenize as they stand where there is no chat template."""
    return [{"prompt": start} for start in STARTS]


def plain(tokenizer: Any) -> Any:
    """The tokenizer without a chat template: accord applies one to plain prompts too, TRL does not."""
    tokenizer.chat_template = None
    return tokenizer


def summary(curves: dict[str, list[list[float]]]) -> dict[str, Any]:
    """The two libraries' curves, of all seeds, against each other."""
    tens = {name: [[statistics.mean(curve[i : i + 10]) for i in range(0, STEPS, 10)] for curve in seeds] for name, seeds in curves.items()}
    means = {name: [statistics.mean(column) for column in zip(*found, strict=True)] for name, found in tens.items()}
    rise = means["trl"][-1] - statistics.mean(curve[0] for curve in curves["trl"])
    spread = statistics.stdev(found[-1] for found in tens["trl"])
    differences = [ours - theirs for ours, theirs in zip(means["accord"], means["trl"], strict=True)]
    return {
        "means of ten steps": {name: [round(value, 4) for value in values] for name, values in means.items()},
        "TRL's rise": round(rise, 4),
        "spread of TRL's seeds at the end": round(spread, 4),
        "differences": [round(value, 4) for value in differences],
        "margin": round(MARGIN * rise, 4),
        "within": rise > 2 * spread and max(map(abs, differences)) < MARGIN * rise,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, required=True, help="folder with stories260K.bin and tok512.bin")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "grpo_curves.json")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        for seed in SEEDS:
            for name, side in (("accord", ours), ("trl", theirs)):
                key = f"{name} {seed}"
                if key not in found:
                    started = time.perf_counter()
                    curve = side(given.stories, Path(cache), seed)
                    found[key] = {"reward": [round(value, 4) for value in curve], "seconds": round(time.perf_counter() - started, 1)}
                    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(key, found[key]["reward"][::8], found[key]["seconds"], "s", flush=True)
    found["summary"] = summary({name: [found[f"{name} {seed}"]["reward"] for seed in SEEDS] for name in ("accord", "trl")})
    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["summary"], indent=1))


if __name__ == "__main__":
    main()
