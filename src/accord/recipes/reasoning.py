"""`accord demo reasoning`: a small model learns to work a sum out step by step, from nothing but whether its answers are right.

SFT on a few worked solutions teaches the form; GRPO does the rest; a second run of it whose rewards are coins is the control.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import accord
from accord.config.grpo import GRPOConfig
from accord.config.options import DemoOptions
from accord.config.sft import SFTConfig
from accord.data.arithmetic import arithmetic_prompts, arithmetic_solutions, chains
from accord.evaluation.intervals import Interval, paired_bootstrap, wilson
from accord.methods.grpo import GRPOTrainer
from accord.methods.prompts import as_prompt
from accord.methods.sft import SFTTrainer
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.recipes.stages import Stages, peak_rss_gb
from accord.reporting.charts import Line
from accord.reporting.report import Report, Sample, Who, write
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.combine import RewardSource
from accord.rewards.format import FormatReward
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.training.lineage import load_lines
from accord.training.setup import say
from accord.types import Example

FORM = "{work}#### {answer}"
"""How an answer is written: lines of working, then the number behind ####."""
NAMES = {"starter": "starter", "sft": "SFT", "random": "random rewards", "grpo": "GRPO"}


@dataclass(frozen=True)
class Settings:
    """Sizes and rates."""

    model: str = "smollm2-135m"
    weights: str = "auto"
    """How its weights are held, as in `load_model`."""
    task: dict[str, Any] = field(default_factory=lambda: {"steps": (2, 2), "largest": 9, "largest_factor": 3, "limit": 30})
    worked: int = 72
    """Worked solutions that SFT imitates: enough to see the form, too few to keep to it."""
    practice: int = 1500
    """Problems that GRPO practises on."""
    held_out: int = 100
    """Problems that nobody trains on, in the report."""
    longest: int = 40
    """Tokens an answer at most."""
    lora_layers: float = 0.5
    sft: dict[str, Any] = field(
        default_factory=lambda: {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 5e-4, "logging_steps": 4}
    )
    grpo: dict[str, Any] = field(
        default_factory=lambda: {
            "num_generations": 8,
            "per_device_train_batch_size": 64,
            "learning_rate": 5e-4,
            "loss_type": "token_mean",
            "scale_rewards": "batch",
            "max_steps": 32,
            "save_steps": 10,
            "save_total_limit": 1,
        }
    )
    seed: int = 42
    ignore_memory: bool = False
    """True loads models that may not fit. False refuses. It changes no result, so no stage depends on it."""


def problems(settings: Settings, *, held_out: bool) -> list[Example]:
    """Problems to practise on, or ones that share none with them, with their answers as a column."""
    split, count, seed = ("heldout", settings.held_out, 3) if held_out else ("train", settings.practice, 2)
    return arithmetic_prompts(chains(count, seed=seed, split=split, **settings.task))  # type: ignore[arg-type]


def rewards() -> list[RewardSource]:
    """1 for a right answer, 0.1 for one in the form that can be read."""
    return [AccuracyReward("numeric"), FormatReward(FORM, readable="number", weight=0.1)]


def run_reasoning(options: DemoOptions, given: Settings | None = None) -> Path:
    """The demo; returns the path of its report (of its folder, for a dry run). Stages whose inputs have not changed are skipped."""
    settings = (
        given
        if given is not None
        else Settings(weights=options.weights, seed=options.seed, held_out=(options.probes or 25) * 4, ignore_memory=options.ignore_memory)
    )
    folder = Path(options.output_dir or Path("runs") / "demo-reasoning")
    if options.dry_run:
        print(described(settings))
        return folder
    stages = Stages(folder, say, force=options.force)
    about = {"settings": {name: value for name, value in settings.__dict__.items() if name != "ignore_memory"}}
    stages.run("sft", about, lambda place, _: imitate(settings, place))
    start = str(folder / "sft")
    arms = {"random": "random", "grpo": "none"}
    curves = {
        name: stages.run(name, {**about, "arm": name}, lambda place, resume, arm=arm: practise(settings, start, place, arm, resume=resume))
        for name, arm in arms.items()
    }
    models = {"starter": settings.model, "sft": start, **{name: str(folder / name) for name in arms}}
    looks = stages.run(
        "look", {**about, "who": list(models)}, lambda *_: {name: answers(settings, model) for name, model in models.items()}
    )
    report = page(settings, looks, curves, stages, folder)
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path


def described(settings: Settings) -> str:
    """What a dry run prints: settings, three worked rows, three problems."""
    rows = arithmetic_solutions(chains(settings.worked, seed=1, split="train", **settings.task))
    shown = [f"--- worked\n{row.prompt[-1].content}\n{row.completions[0].text}" for row in rows[:3]]
    asked = [f"--- problem\n{row.prompt[-1].content}   (answer {row.columns['answer']})" for row in problems(settings, held_out=False)[:3]]
    return "\n".join([json.dumps(settings.__dict__, indent=1), *shown, *asked])


def imitate(settings: Settings, folder: Path, *, worked: bool = True) -> dict[str, Any]:
    """SFT on a few solutions. worked: True shows the steps, False the answer alone."""
    opened = open_model(settings.model, weights=settings.weights, force=settings.ignore_memory)
    rows = arithmetic_solutions(chains(settings.worked, seed=1, split="train", **settings.task), worked=worked)
    config = SFTConfig(output_dir=str(folder), seed=settings.seed, **settings.sft)
    trainer = SFTTrainer(opened.policy, config, rows, processing_class=opened.tokenizer, peft_config=adapter(settings, opened))
    last = trainer.train()
    trainer.save_model()
    return {"loss": last["loss"], "rows": len(rows), "tokens": trainer.num_tokens}


def practise(settings: Settings, start: str, folder: Path, control: str, *, resume: bool = False) -> dict[str, Any]:
    """GRPO from the model after SFT; what it earned step by step, and how many tokens it wrote."""
    opened = open_model(start, weights=settings.weights, force=settings.ignore_memory)
    config = GRPOConfig(
        output_dir=str(folder), seed=settings.seed, max_completion_length=settings.longest, control=control, **settings.grpo
    )
    rows = problems(settings, held_out=False)
    trainer = GRPOTrainer(opened.policy, rewards(), config, rows, processing_class=opened.tokenizer, peft_config=adapter(settings, opened))
    trainer.train(resume_from_checkpoint=True if resume and any(folder.glob("checkpoint-*")) else None)
    trainer.save_model()
    history = [row for row in trainer.log_history if "reward" in row]
    right = "rewards/accuracy/mean" if control == "none" else f"rewards/{control}/accuracy/mean"
    lines = (folder / "rollouts.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return {
        "right": [row[right] for row in history],
        "reward": [row["reward"] for row in history],
        "length": [row["completions/mean_length"] for row in history],
        "no signal": [row["frac_reward_zero_std"] for row in history],
        "sampled tokens": sum(len(json.loads(line)["completion_ids"]) for line in lines),
    }


def adapter(settings: Settings, opened: Opened) -> Any:
    return lora_config(opened.policy, rank=16, alpha=32, layers=settings.lora_layers)


def answers(
    settings: Settings, model: str, rows: Sequence[Example] | None = None, longest: int | None = None, begin: str = ""
) -> list[dict[str, Any]]:
    """The likeliest answer of a model to each held-out problem (or to other rows), and whether it is right.

    Args:
        begin: how every answer begins: "####" leaves no room for working, a forced direct answer.
    """
    opened = open_model(model, weights=settings.weights, force=settings.ignore_memory)
    rows = problems(settings, held_out=True) if rows is None else rows
    start = tuple(opened.tokenizer(begin, add_special_tokens=False)["input_ids"])
    prompts = [replace(prompt, ids=(*prompt.ids, *start)) for prompt in (as_prompt(row, opened.renderer) for row in rows)]
    rollouts = LocalSampler(opened.policy, opened.renderer, opened.stack).sample(
        prompts, SamplingConfig(longest or settings.longest, 1, temperature=0.0)
    )
    rollouts = [replace(rollout, text=f"{begin} {rollout.text}".strip()) for rollout in rollouts]
    accuracy, form = rewards()
    graded = zip(rollouts, accuracy.score(rollouts), form.score(rollouts), strict=True)
    return [
        {
            "prompt": rollout.prompt[-1].content,
            "text": rollout.text,
            "finished": rollout.finish_reason == "stop",
            "tokens": len(rollout.completion_ids),
            "right": bool(right.value),
            "form": bool(kept.value),
        }
        for rollout, right, kept in graded
    ]


def gain(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> Interval:
    """How many more are right, as a share, with its paired interval."""
    return paired_bootstrap([float(b["right"]) - float(a["right"]) for a, b in zip(before, after, strict=True)])


def in_points(interval: Interval) -> str:
    return f"{100 * interval.mean:+.0f} points ({100 * interval.low:+.0f} to {100 * interval.high:+.0f})"


def page(settings: Settings, looks: dict[str, Any], curves: dict[str, Any], stages: Stages, folder: Path) -> Report:
    """The page people read."""
    total = len(looks["sft"])
    counts = {name: sum(row["right"] for row in rows) for name, rows in looks.items()}
    change, control = gain(looks["sft"], looks["grpo"]), gain(looks["sft"], looks["random"])
    said = ", ".join(f"{NAMES[name]} {count}" for name, count in counts.items())
    report = Report(
        title="accord demo reasoning: sums in steps",
        sentence=f"Right answers: {said} of {total}. GRPO minus SFT: {in_points(change)}; random rewards minus SFT: {in_points(control)}.",
    )
    report.notes = [
        f"{settings.model} saw {settings.worked} worked solutions, then {len(curves['grpo']['reward'])} times {settings.grpo['per_device_train_batch_size']} of its own answers to other problems, each with one bit: right or not (and a tenth for the form). No problem on this page was in training.",
        "Random rewards are the control: the same start, the same number of answers, a coin in place of the grader. What they gain too is not owed to the rewards.",
    ]
    for name, rows in looks.items():
        right = wilson(counts[name] / total, total)
        measures = {
            "right": f"{counts[name]} of {total}",
            "95 % interval": f"{100 * right.low:.0f} to {100 * right.high:.0f} %",
            "in the asked form": f"{100 * sum(row['form'] for row in rows) / total:.0f} %",
            "tokens an answer": f"{sum(row['tokens'] for row in rows) / total:.0f}",
        }
        report.who.append(Who(name, NAMES[name], counts[name], total, measures))
    report.intervals = [
        {"name": "Right answers, GRPO minus SFT", "text": in_points(change), "clear": change.excludes_zero},
        {"name": "Right answers, random rewards minus SFT", "text": in_points(control), "clear": control.excludes_zero},
    ]
    report.practice_lines = [
        Line(NAMES[name], range(1, len(curves[name]["right"]) + 1), curves[name]["right"], dashed=name == "random")
        for name in ("grpo", "random")
    ]
    report.length_lines = [
        Line(f"{NAMES[name]}, mean tokens", range(1, len(curves[name]["length"]) + 1), curves[name]["length"], dashed=name == "random")
        for name in ("grpo", "random")
    ]
    report.samples = [
        Sample(
            "",
            looks["sft"][index]["prompt"],
            [
                {"who": NAMES[name], "text": rows[index]["text"], "passed": rows[index]["right"], "finished": rows[index]["finished"]}
                for name, rows in looks.items()
            ],
        )
        for index in range(min(6, total))
    ]
    report.stages = stages.records
    report.lineage = [
        ("model", settings.model),
        ("weights", settings.weights),
        ("accord", accord.__version__),
        ("seed", str(settings.seed)),
    ]
    report.next_steps = [
        (
            "accord grpo --data problems.jsonl --reward accuracy --model " + str(folder / "sft"),
            "the same on your own problems (a column answer)",
        ),
        (f"accord chat {folder / 'grpo'}", "ask it a sum"),
        ("accord demo", "the other half of the field: what people prefer"),
    ]
    report.load_lines = load_lines((folder / "grpo").as_posix(), adapters=True)
    return report
