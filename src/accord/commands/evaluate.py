"""`accord evaluate`: accuracy on held-out comparisons, of a reward model or of a policy's implicit reward; first errors found, of a process
reward model. With --best-of, what choosing among answers gains: `commands/best_of.py`."""

from __future__ import annotations

import json
from pathlib import Path

from accord.commands import best_of
from accord.config.options import EvaluateOptions
from accord.data.read import read_examples
from accord.errors import ConfigError
from accord.evaluation.accuracy import accuracy_table
from accord.evaluation.process import process_bench
from accord.models.opened import open_model
from accord.models.save import PROCESS, REWARD
from accord.recipes.pairs import pairs_of
from accord.rewards.learned import RewardModel
from accord.rewards.process import ProcessRewardModel
from accord.training.lineage import RECORD
from accord.training.setup import examples, say, usable


def run(options: EvaluateOptions) -> int:
    """Print the accuracy table of a run, or the curve of choosing the best of its answers."""
    if options.best_of:
        return best_of.run(options)
    if (Path(options.run) / PROCESS).exists():
        return _process(options)
    found = usable(list(read_examples(options.data, columns=options.columns)), ("preference", "ranking"), options.data)
    rows = pairs_of(found, say, options.data)
    opened = open_model(options.run, force=options.force)
    if (Path(options.run) / REWARD).exists():
        reward = RewardModel.load(opened.policy, Path(options.run), opened.renderer)
        table = accuracy_table(reward, opened.renderer, rows)
        values, counts = table["accuracy"], table["count"]
    else:
        from accord.config.dpo import DPOConfig
        from accord.methods.dpo import DPOTrainer

        start = None if opened.stack else open_model(_start_of(Path(options.run)), force=options.force).policy
        opened.policy.train_only(opened.stack[-1] if opened.stack else None)
        decided = [row for row in rows if row.probability != 0.5]
        trainer = DPOTrainer(opened.policy, start, DPOConfig(output_dir=options.run, learning_rate=0.0), decided, decided, opened.tokenizer)
        values, counts = {name: value for name, value in trainer.evaluate().items() if name != "eval_tokens"}, {}
    for name, value in values.items():
        print(f"{name:<28} {value:.4f}" + (f"  ({counts[name]} pairs)" if name in counts else ""))
    return 0


def _process(options: EvaluateOptions) -> int:
    rows = examples(options.data, kinds=("steps",), what="--data", columns=options.columns)
    opened = open_model(options.run, force=options.force)
    table = process_bench(ProcessRewardModel.load(opened.policy, Path(options.run), opened.renderer), rows)
    if table["unknown"]:
        say(f"{table['unknown']:.0f} of {len(rows)} solutions say too little to know their first error; left out.")
    for name, count in (("accuracy_erroneous", "erroneous"), ("accuracy_correct", "correct")):
        print(f"{name:<28} {table[name]:.4f}  ({table[count]:.0f} solutions)" if name in table else f"{name:<28} no {count} solutions")
    if "f1" in table:
        print(f"{'f1':<28} {table['f1']:.4f}")
    return 0


def _start_of(run: Path) -> str:
    """The model that a run of all weights started from: its implicit reward is measured against it.

    Raises:
        ConfigError: if the folder is no such run.
    """
    record = json.loads((run / RECORD).read_text(encoding="utf-8")) if (run / RECORD).exists() else {}
    if not record.get("base"):
        raise ConfigError(
            f"{run} is no run of accord, so there is nothing it learned to measure. accord evaluate takes a reward run, or a policy's run folder."
        )
    return str(record["base"])
