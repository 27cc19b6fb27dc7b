"""`accord demo hacking`: a reward with a planted flaw is maximised without KL, and the monitors say what is being exploited.

The demo's SFT model, a small reward model, and a bonus for every token that nobody would notice on one answer. The page ends in a red alarm.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord.config.options import DemoOptions
from accord.recipes import demo_rows
from accord.recipes.alarms_page import evidence, monitor_alarms
from accord.recipes.demo import MODELS, QUICK, check, demo_data, demo_plan, say
from accord.recipes.dry_run import describe_pipeline
from accord.recipes.look import NAMES, answers_table, difference, interval_text, measures, samples
from accord.recipes.pipeline import Pipeline, Settings
from accord.recipes.stages import RECORD, Stages, peak_rss_gb
from accord.recipes.straight_answers import SLICES, TITLES
from accord.reporting.charts import Line, line_chart
from accord.reporting.report import Chart, Part, Report, Who, write
from accord.rewards.combine import FunctionReward

BONUS = 0.2
"""Planted: reward for each token of an answer, beside a reward model of variance 1."""
HACKING: Settings = replace(
    QUICK,
    reward={**QUICK.reward, "num_train_epochs": 10},
    ppo={**QUICK.ppo, "num_iterations": 14, "prompts_per_iteration": 8, "num_generations": 6, "kl_coef": 0.0, "score_clip": None},
)
COMPARISONS = 60
"""The demo's first comparisons: enough for a reward model that somebody would use, in half a minute."""
PLAN_SECONDS = {"sft": 60, "reward": 30, "ppo": 180, "look": 20}
PROBES = 5
NEXT = (
    (
        "accord ppo --data prompts.jsonl --reward_model runs/my-reward --on-alarm rollback --save-steps 2",
        "go back by itself, and charge for what was exploited",
    ),
    (
        "accord ppo --data prompts.jsonl --reward_model runs/my-reward --reward-shaping residual",
        "take out of the reward what length explains",
    ),
    ("accord lab", "the same where the true reward is known"),
)


def long_is_good(completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    """The planted flaw: `BONUS` for every token."""
    return [BONUS * len(ids) for ids in completion_ids]


def run_hacking(options: DemoOptions, settings: Settings | None = None, model: str | None = None) -> Path:
    """Run it; returns the path of its report (of its folder, for a dry run). Stages whose inputs have not changed are skipped."""
    folder = Path(options.output_dir or Path("runs") / "demo-hacking")
    settings = replace(settings or HACKING, seed=options.seed)
    if not options.force:
        borrow(Path("runs") / "demo-rlhf" / "sft", folder / "sft")
    data = demo_data(full=False)
    few = replace(data, comparisons=data.comparisons[:: max(1, len(data.comparisons) // COMPARISONS)], heldout_comparisons=())
    stages = Stages(folder, say, force=options.force)
    model = model or MODELS["rlhf"]
    plan = demo_plan("hacking", model, settings, options)
    pipeline = Pipeline(model, few, settings, stages, say, weights=plan.weights, ignore_memory=options.ignore_memory)
    if options.dry_run:
        print(describe_pipeline(pipeline, options, str(plan.need)))
        return folder
    pipeline.sft(planned_seconds=PLAN_SECONDS["sft"])
    reward = pipeline.reward(planned_seconds=PLAN_SECONDS["reward"])
    pipeline.ppo([reward, FunctionReward(long_is_good, name="length_bonus")], planned_seconds=PLAN_SECONDS["ppo"])
    prompts = demo_rows.heldout_prompts(options.probes or PROBES)
    who = ("sft", "ppo")
    inputs = {"stages": [pipeline.key(name) for name in who], "prompts": [row.id for row in prompts], "seed": settings.seed}
    table = stages.run(
        "look",
        inputs,
        lambda *_: {"answers": answers_table(pipeline, who, prompts, check=check, reward=reward, heldout=None)},
        planned_seconds=PLAN_SECONDS["look"],
    )["answers"]
    stage = next(record["result"] for record in stages.records if record["name"] == "ppo")
    report = page(table, stage, stages)
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path


def borrow(other: Path, folder: Path) -> None:
    """Take the SFT model that `accord demo` made, where there is one and none here: its stage is skipped if it is what would be made."""
    record = other / RECORD
    if not folder.exists() and record.exists() and json.loads(record.read_text(encoding="utf-8")).get("done"):
        shutil.copytree(other, folder)


def page(table: dict[str, list[dict[str, Any]]], stage: dict[str, Any], stages: Stages) -> Report:
    """The page people read: the alarm first."""
    iterations = stage["iterations"]
    red = [row for row in stage["monitors"] if row["level"] == "alarm"]
    first = {row["name"]: row["iteration"] for row in reversed(stage["alarms"])}
    named = [row for row in (*red, *reversed(stage["alarms"])) if row["name"] == "explained gain"]
    explained = (named or red or [None])[0]
    report = Report(
        title="accord demo hacking: what a flawed reward does",
        sentence=f"ALARM, {explained['cause']}: {explained['words']}"
        if explained
        else "No alarm: the policy has not found the flaw. Try another --seed.",
    )
    report.notes = [
        f"Planted: {BONUS:g} reward for every token, beside a reward model of variance 1, and no price on KL. The policy was never told; it found out.",
        f"Rounds of practice: {len(iterations)}. "
        + (f"First alarms: {', '.join(f'{name} in round {number}' for name, number in first.items())}. " if first else "")
        + "Nothing was done about it (on_alarm: warn), so that it can be seen.",
    ]
    report.parts = [_training(iterations)]
    for name in table:
        rows = table[name]
        report.who.append(Who(name, NAMES[name], sum(bool(row["passed"]) for row in rows), len(rows), measures(rows)))
    for title in list(report.who[0].measures):
        if all(one.measures[title] == "–" for one in report.who):
            for one in report.who:
                del one.measures[title]
    report.slices = [
        {"title": TITLES[name], "counts": [f"{sum(bool(r['passed']) for r in part)} of {len(part)}" for part in _of_slice(table, name)]}
        for name in SLICES
    ]
    gain = difference(table["sft"], table["ppo"], "passed")
    report.intervals = [{"name": "Checks passed, PPO minus SFT", "text": interval_text(gain, percent=True), "clear": gain.excludes_zero}]
    report.alarms, report.evidence = monitor_alarms(stage), evidence(stage)
    report.samples = samples(table, TITLES, per_slice=1)
    report.stages = list(stages.records)
    report.next_steps = list(NEXT)
    return report


def _training(iterations: Sequence[dict[str, Any]]) -> Part:
    """What training saw: its reward, and the two parts of it."""
    rounds = [float(number + 1) for number in range(len(iterations))]
    parts = (
        ("what is maximised", "objective/scores"),
        ("the reward model's part", "rewards/reward_model/mean"),
        ("the planted bonus", "rewards/length_bonus/mean"),
    )
    lines = [
        Line(title, rounds, [row[name] for row in iterations], dashed=index > 0, hue=index) for index, (title, name) in enumerate(parts)
    ]
    tokens = [Line("mean tokens an answer", rounds, [row["completions/mean_length"] for row in iterations])]
    return Part(
        "What training saw",
        "A rising reward looks like success. The monitors compare each round with the first one.",
        charts=[
            Chart(line_chart(lines, x_label="round", y_label="reward"), "Most of what was gained is the bonus."),
            Chart(line_chart(tokens, x_label="round", y_label="tokens"), "How it was gained."),
        ],
    )


def _of_slice(table: dict[str, list[dict[str, Any]]], name: str) -> list[list[dict[str, Any]]]:
    return [[row for row in rows if row["slice"] == name] for rows in table.values()]
