"""The planner against reality: predicted and measured peak memory and time of whole runs, each in a process of its own.

python benchmarks/planner.py                           # every run: about half an hour on two quiet cores, up to 7 GB
python benchmarks/planner.py --only "smollm2-135m dpo 512" "smollm2-135m grpo 128"
python benchmarks/planner.py --again-planned          # plans again, with the planner of now, what was measured before: five minutes
python benchmarks/planner.py --write                   # puts the table into docs/planner.md, where a test compares it with the results

A run is what the command line does after reading its rows: the model is made (random weights of the real shape, the starter excepted),
the plan is made as the first lines of every run are, then it trains. The peak is what the kernel saw, loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kept import alone, put

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "planner.json", ROOT / "docs" / "planner.md"
HEADER = (
    "| model, method, tokens of a row | settings | memory GB: planned, measured | off by | seconds: planned, measured | off by | other programs |",
    "|---|---|---|---|---|---|---|",
)
DISTURBED = 0.05
"""Share of the processors' time that other programs had, above which a time says little."""


@dataclass(frozen=True)
class Run:
    """One run."""

    model: str
    method: str
    prompt: int
    answer: int
    """Tokens, about."""
    rows: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the command, beyond model and data."""

    @property
    def name(self) -> str:
        return f"{self.model} {self.method} {self.prompt + self.answer}" + "".join(
            f" {key}={value}" for key, value in self.options.items() if key in NAMED
        )


NAMED = ("gradient_checkpointing", "lora_r", "lora_layers", "backbone", "optim")
ROUNDS = {"num_iterations": 2, "prompts_per_iteration": 8, "num_generations": 8, "max_new_tokens": 64}
GROUPS = {"per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 64, "max_steps": 2}
RUNS = (
    Run("smollm2-135m", "sft", 56, 200, 48),
    Run("smollm2-135m", "sft", 56, 200, 32, {"lora_r": 0}),
    Run("smollm2-135m", "sft", 56, 200, 32, {"lora_r": 0, "optim": "adamw_8bit"}),
    Run("smollm2-135m", "dpo", 112, 400, 24),
    Run("smollm2-135m", "dpo", 224, 800, 8, {"gradient_checkpointing": True}),
    Run("smollm2-135m", "dpo", 112, 400, 24, {"lora_layers": 0.5}),
    Run("smollm2-135m", "kto", 56, 200, 48),
    Run("smollm2-135m", "reward", 56, 200, 24),
    Run("smollm2-135m", "reward", 56, 200, 48, {"backbone": "heads"}),
    Run("smollm2-135m", "prm", 56, 200, 32),
    Run("smollm2-135m", "ppo", 64, 64, 16, ROUNDS),
    Run("smollm2-135m", "grpo", 64, 64, 16, GROUPS),
    Run("gemma3-270m", "dpo", 56, 200, 16),
    Run("qwen2.5-0.5b", "sft", 112, 400, 16),
    Run("qwen2.5-0.5b", "dpo", 56, 200, 12),
    Run("qwen2.5-0.5b", "grpo", 64, 64, 16, GROUPS),
    Run("llama-3.2-1b", "dpo", 112, 400, 4, {"gradient_checkpointing": True}),
)
STARTER = "smollm2-135m"


# -- in the run's own process --------------------------------------------------------------------------------------------------------


def text(generator: random.Random, tokens: int) -> str:
    """Plain words, about one token each."""
    words = "the a cat dog house tree river stone light night day man child book road door water fire wind hill".split()
    return " ".join(generator.choice(words) for _ in range(max(1, tokens)))


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Rows of the run's kind; lengths vary by a fifth."""
    generator = random.Random(7)
    found: list[dict[str, Any]] = []
    for index in range(run.rows):
        prompt, *answers = (
            text(generator, round(size * generator.uniform(0.8, 1.2))) for size in (run.prompt - 12, run.answer, run.answer)
        )
        row: dict[str, Any] = {"prompt": f"{index} {prompt}"}
        if run.method == "sft":
            row["completion"] = answers[0]
        elif run.method in ("dpo", "reward"):
            row |= {"chosen": answers[0], "rejected": answers[1]}
        elif run.method == "kto":
            row |= {"completion": answers[0], "label": index % 2 == 0}
        elif run.method == "prm":
            middle = len(answers[0]) // 2
            row |= {"completions": [answers[0][:middle], answers[0][middle:]], "labels": [True, index % 2 == 0]}
        found.append(row)
    return found


def opened(name: str) -> Any:
    """The starter as it is, or random weights of a shape with the starter's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from accord.data.render import Renderer
    from accord.models.adapters import PolicyModel
    from accord.models.allocator import keep_freed_memory
    from accord.models.load import load_tokenizer, resolve
    from accord.models.opened import Opened, open_model
    from accord.models.tokens import stop_token_ids
    from accord.planning.shapes import config_of

    if name == STARTER:
        return open_model(name)
    keep_freed_memory()
    resolved = resolve(STARTER, quiet=True)
    tokenizer = load_tokenizer(resolved)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32).eval()
    policy = PolicyModel(model)
    return Opened(policy, tokenizer, Renderer(tokenizer, end_ids=stop_token_ids(tokenizer)), (), name, resolved)


def child(run: Run, trains: bool) -> dict[str, Any]:
    """Plan, train, measure; without training, what was planned alone."""
    import psutil

    from accord.config.options import TrainOptions
    from accord.models.free_memory import available_memory
    from accord.models.lora import lora_config
    from accord.planning.here import trainer_plan
    from accord.planning.recipe_files import config_class
    from accord.recipes.stages import peak_rss_gb
    from accord.recipes.train import build, plan_memory

    have = available_memory()
    mine = {name: value for name, value in run.options.items() if name in TrainOptions.__dataclass_fields__}
    options = TrainOptions(model=run.model, **mine)
    its = {name: value for name, value in run.options.items() if name not in mine}
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(run.method)(output_dir=folder, seed=1, **its)
        if run.method in ("ppo", "grpo"):
            reward = Path(folder) / "length.py"
            reward.write_text("def score(completions):\n    return [len(c[0]['content']) / 100 for c in completions]\n", encoding="utf-8")
            options.reward = [f"{reward}:score"]
        if getattr(config, "cache_reference", False):
            config.cache_reference = False
        ready = opened(run.model)
        plan_memory(ready.policy.config, options, config)
        lora = lora_config(ready.policy, rank=options.lora_r, layers=options.lora_layers) if options.lora_r else None
        trainer = build(options, config, ready, rows_of(run), None, lora)
        plan = trainer_plan(trainer, options, have)
        assert plan.seconds is not None and plan.work is not None
        planned = {
            "planned GB": round(plan.need.total / 1e9, 3),
            "planned s": round(plan.seconds.total, 2),
            "planned steps": plan.work.steps,
            "memory": {name: round(value / 1e9, 3) for name, value in asdict(plan.need).items() if value},
            "time": {name: round(value, 2) for name, value in plan.seconds.parts.items()},
        }
        if not trains:
            return planned
        process, before = psutil.Process(), psutil.cpu_times()
        own, started = sum(process.cpu_times()[:2]), time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        after = psutil.cpu_times()
        own = sum(process.cpu_times()[:2]) - own
    busy = sum(getattr(after, name) - getattr(before, name) for name in ("user", "system", "nice"))
    return {
        **planned,
        "measured GB": round(peak_rss_gb(), 3),
        "measured s": round(seconds, 2),
        "steps": trainer.global_step,
        "foreign share": round(max(0.0, busy - own) / seconds / (os.cpu_count() or 1), 3),
    }


# -- the table -----------------------------------------------------------------------------------------------------------------------


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    if "failed" in found:
        return f"| {name} | | {found['failed']} | | | | |"
    memory, seconds = (found[f"planned {unit}"] / found[f"measured {unit}"] - 1 for unit in ("GB", "s"))
    model, method, tokens, *settings = name.split(" ")
    other = f"{found['foreign share']:.0%}" if found["foreign share"] > DISTURBED else ""
    return (
        f"| {model} {method} {tokens} | {' '.join(settings)} | {found['planned GB']:.2f}, {found['measured GB']:.2f} | {memory:+.0%} | "
        f"{found['planned s']:.0f}, {found['measured s']:.0f} | {seconds:+.0%} | {other} |"
    )


def table(results: dict[str, Any]) -> str:
    return "\n".join((*HEADER, *(line(name, found) for name, found in results.items())))


def written(page: str, results: dict[str, Any]) -> str:
    """The page with the table of these results between its two marks."""
    return put(page, table(results), "planner.py")


def measured(run: Run, at_most: float, trains: bool = True) -> dict[str, Any]:
    """The result of a run in a process of its own; what went wrong where something did."""
    return alone(__file__, [json.dumps({"run": asdict(run), "trains": trains})], at_most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of runs; none: all")
    parser.add_argument("--list", action="store_true", help="print their names")
    parser.add_argument("--at-most", type=float, default=900.0, help="seconds for each run")
    parser.add_argument("--again-planned", action="store_true", help="measure no run; plan those that are kept once more")
    parser.add_argument("--write", action="store_true", help="put the kept results into docs/planner.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        asked = json.loads(given.child)
        print(json.dumps(child(Run(**asked["run"]), asked["trains"])))
        return
    if given.list:
        print("\n".join(run.name for run in RUNS))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        print(table(results))
        return
    from peak import machine

    for run in RUNS:
        if given.only and run.name not in given.only:
            continue
        kept = results.get(run.name, {})
        if given.again_planned:
            if "measured s" not in kept:
                continue
            results[run.name] = {**kept, **measured(run, given.at_most, trains=False)}
        else:
            results[run.name] = {**measured(run, given.at_most), **machine()}
        print(line(run.name, results[run.name]), flush=True)
        ordered = {each.name: results[each.name] for each in RUNS if each.name in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
