"""What debate is worth where evidence is hidden: judge accuracy by protocol, and reward models that learn from the verdicts.

    python benchmarks/debate.py                                  # every arm; those with language models take hours on two cores
    python benchmarks/debate.py --arms rules --tasks 300
    python benchmarks/debate.py --arms smollm2-short-verified --model-tasks 20
    python benchmarks/debate.py --arms reward --train 200 --test 200

Arms: `rules` (quoting and fabricating rules before a judge that verifies and one that trusts), `JUDGE-sees-rules` (a language model judges
what rules argue), `MODEL-short-verified` (language models argue, the rule judges), `MODEL-short-MODEL` (language models on both sides), and
`reward`: reward models from debate verdicts, direct verdicts and the truth, on the same rows in equal numbers, tested on the truth of
questions that none of them saw. Tasks are made (`accord.ai_feedback.debate.made_tasks`), so every number comes from its seed.

Answers of models lie in `runs/debate-bench`, so an interrupted run goes on where it was; each arm is written to
`benchmarks/results/debate.json` when it is done and skipped from then on at the same sizes (`--again` measures it anew).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accord.ai_feedback.debate.debaters import RULE
from accord.ai_feedback.debate.made_tasks import made_tasks
from accord.ai_feedback.debate.measures import accuracy_table, as_json, measured, ratings
from accord.ai_feedback.debate.protocols import PROTOCOLS, protocols_of
from accord.ai_feedback.debate.records import rows_of, truth_row
from accord.ai_feedback.debate.running import Decision, Rules, cases_of, decide
from accord.ai_feedback.debate.tasks import HiddenTask
from accord.ai_feedback.store import AnswerStore
from accord.commands.debate import aligned, opened
from accord.config.debate import DebateOptions
from accord.config.reward import RewardConfig
from accord.evaluation.accuracy import accuracy_table as reward_accuracy
from accord.evaluation.intervals import Interval, paired_bootstrap
from accord.methods.reward import RewardTrainer
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.types import Example

MODELS = {"smollm2": "smollm2-135m", "gemma3": "gemma3-270m"}
ARMS = [
    "rules",
    *(f"{model}-sees-rules" for model in MODELS),
    *(f"{model}-short-verified" for model in MODELS),
    *(f"{model}-short-{model}" for model in MODELS),
    "reward",
]
RESULTS = Path(__file__).parent / "results" / "debate.json"
TOGETHER = 32


def decisions_of(
    tasks: Sequence[HiddenTask], judge: str, debaters: Sequence[str], protocols: Sequence[str], options: argparse.Namespace
) -> list[Decision]:
    """Every protocol on every task."""
    rounds = 2 if all(name.startswith(RULE) for name in debaters) else 1
    given = DebateOptions(
        judge=judge, debaters=list(debaters), debater_prompt="debater_short", rounds=rounds, accept_licence=options.accept_licence
    )
    rules = Rules(given.rounds, given.words, given.excerpt, given.seed)
    cases = [case for task in tasks for protocol in protocols_of(protocols) for case in cases_of(task, protocol, debaters)]
    found: list[Decision] = []
    with AnswerStore(options.work / "answers.sqlite") as store:
        speakers, overseer = opened(given, debaters, store)
        for start in range(0, len(cases), TOGETHER):
            found += decide(cases[start : start + TOGETHER], speakers, overseer, rules)
            print(f"{judge}: {len(found)} of {len(cases)} decisions", flush=True)
    return found


def protocol_arm(judge: str, debaters: Sequence[str], count: int, options: argparse.Namespace) -> dict[str, Any]:
    """All protocols of one judge with some debaters."""
    tasks = made_tasks(count, seed=1)
    found = decisions_of(tasks, judge, debaters, list(PROTOCOLS), options)
    rows = measured(found)
    print(aligned(*accuracy_table(rows)), flush=True)
    return {"judge": judge, "debaters": list(debaters), "tasks": count, **as_json(rows, ratings(found))}


def arm(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One arm's record."""
    if name == "rules":
        both = ("rule:quote", "rule:fabricate")
        return {judge: protocol_arm(judge, both, options.tasks, options) for judge in ("rule:verified", "rule:trusting")}
    if name == "reward":
        return reward_arm(options)
    model, _, rest = name.partition("-")
    if rest == "sees-rules":
        return protocol_arm(MODELS[model], ("rule:quote", "rule:fabricate"), options.model_tasks, options)
    judge = "rule:verified" if rest == "short-verified" else MODELS[model]
    return protocol_arm(judge, (MODELS[model],), options.model_tasks, options)


def reward_arm(options: argparse.Namespace) -> dict[str, Any]:
    """Reward models from the same rows, labelled three ways: who argued and judged were rules, or the debaters a language model."""
    train, test = made_tasks(options.train, seed=2, split="train"), made_tasks(options.test, seed=2, split="heldout")
    labels: dict[str, list[Example]] = {"truth": [truth_row(task) for task in train]}
    for name, protocol, debater in (("debate", "debate", "rule:quote"), ("direct", "direct", "rule:quote"), (*options.model_labels,)):
        decided = decisions_of(train, "rule:verified", [debater], [protocol], options)
        labels[name] = rows_of(decided, {})
        options.right = {**getattr(options, "right", {}), name: _right(decided)}
    count = min(map(len, labels.values()))
    gaps: dict[str, list[float]] = {}
    learned: dict[tuple[Any, ...], str] = {}
    for name, rows in labels.items():  # where two say the same of every row, one model is trained: it would be the same twice
        first = learned.setdefault(_said(rows[:count]), name)
        gaps[name] = trained(rows[:count], test, name, options) if first == name else gaps[first]
    right = {name: [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in some] for name, some in gaps.items()}
    found = {name: paired_bootstrap(values) for name, values in right.items()}
    minus = {
        f"{name} minus direct": paired_bootstrap([a - b for a, b in zip(right[name], right["direct"], strict=True)])
        for name in right
        if name != "direct"
    }
    for name, interval in {**found, **minus}.items():
        print(f"{name:<24} {interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})", flush=True)
    return {
        "train": count,
        "test": options.test,
        "same labels": {name: first for name in gaps if (first := learned[_said(labels[name][:count])]) != name},
        "labels right": options.right,
        "accuracy": {name: asdict(interval) for name, interval in found.items()},
        "differences": {name: asdict(interval) for name, interval in minus.items()},
    }


def _said(rows: Sequence[Example]) -> tuple[Any, ...]:
    """What a reward model learns from: each prompt, its answers in their order, and how sure the label is."""
    return tuple(
        (row.prompt, tuple(answer.messages for answer in row.completions), row.probability in (None, 1.0) or row.probability)
        for row in rows
    )


def _right(decisions: Sequence[Decision]) -> dict[str, Any]:
    values = [one.correct for one in decisions if one.correct is not None]
    return asdict(paired_bootstrap(values)) if values else asdict(Interval(0.0, 0.0, 0.0, 0))


def trained(rows: Sequence[Example], test: Sequence[HiddenTask], name: str, options: argparse.Namespace) -> list[float]:
    """A reward model on SmolLM2-135M from these rows; its score gaps on the test's right answers."""
    folder, held_out = options.work / f"reward-{name.replace(' ', '-')}", [truth_row(task) for task in test]
    if options.backbone == "heads":  # features of the frozen model are read once for all label sets
        options.opened = getattr(options, "opened", None) or open_model(MODELS["smollm2"])
        options.features = getattr(options, "features", {})
        given: dict[str, Any] = {"backbone": "heads", "head_width": 64, "head_context": True, "num_train_epochs": 20}
        config = RewardConfig(output_dir=str(folder), normalise=False, **given)
        opened_model, adapter = options.opened, None
        more = {"known_features": options.features}
    else:
        opened_model, more = open_model(MODELS["smollm2"]), {}
        given = {"num_heads": 1, "num_train_epochs": options.epochs, "per_device_train_batch_size": 8, "learning_rate": 5e-4}
        config = RewardConfig(output_dir=str(folder), normalise=False, **given)
        adapter = lora_config(opened_model.policy, rank=16, alpha=32, layers=0.5)
    trainer = RewardTrainer(opened_model.policy, config, list(rows), processing_class=opened_model.tokenizer, peft_config=adapter, **more)
    trainer.train()
    known = options.features if options.backbone == "heads" else None
    return list(reward_accuracy(trainer.reward_model, trainer.renderer, held_out, known)["gaps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["rules", "smollm2-sees-rules", "smollm2-short-verified", "reward"])
    parser.add_argument("--tasks", type=int, default=300, help="of arms without language models")
    parser.add_argument("--model-tasks", type=int, default=60, help="of arms with them")
    parser.add_argument("--train", type=int, default=300, help="rows of each reward model")
    parser.add_argument("--test", type=int, default=300, help="held-out questions of each reward model")
    parser.add_argument("--backbone", choices=["heads", "lora"], default="lora", help="of the reward models")
    parser.add_argument("--epochs", type=int, default=3, help="with LoRA")
    parser.add_argument("--work", type=Path, default=Path("runs/debate-bench"))
    parser.add_argument("--accept-licence", action="store_true", help="Gemma's")
    parser.add_argument("--again", action="store_true", help="measure arms that were measured before")
    options = parser.parse_args()
    options.model_labels = ("debate by smollm2", "debate", MODELS["smollm2"])
    sizes = {name: getattr(options, name) for name in ("tasks", "model_tasks", "train", "test", "backbone", "epochs")}
    written: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in options.arms:
        if not options.again and written.get(name, {}).get("sizes") == sizes:
            continue
        begun = time.monotonic()
        found = arm(name, options)
        written[name] = {"date": time.strftime("%Y-%m-%d"), "sizes": sizes, "seconds": time.monotonic() - begun, **found}
        RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
