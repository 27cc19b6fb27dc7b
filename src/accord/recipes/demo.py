"""The demo "Straight answers": SFT, reward model and PPO (or DPO) change a real model on the packaged data, with a report."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from accord.config.options import DemoOptions
from accord.planning.shapes import config_of
from accord.recipes import demo_rows
from accord.recipes.dry_run import describe_pipeline
from accord.recipes.look import look
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.pipeline_plan import PipelinePlan
from accord.recipes.report_page import demo_report
from accord.recipes.stages import Stages, peak_rss_gb
from accord.recipes.straight_answers import passes
from accord.reporting.report import write
from accord.types import Example

QUICK = Settings(
    lora_layers=0.5,
    feature_depth=0.8,
    rankings_in_dpo=False,
    sft={
        "num_train_epochs": 3,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.1,
        "save_steps": 5,
        "save_total_limit": 1,
    },
    reward={
        "backbone": "heads",
        "head_width": 64,
        "head_context": True,
        "num_train_epochs": 20,
        "per_device_train_batch_size": 32,
        "weight_decay": 10.0,
        "learning_rate": 1e-3,
        "logging_steps": 20,
    },
    ppo={
        "num_iterations": 14,
        "prompts_per_iteration": 12,
        "num_generations": 8,
        "lam": 1.0,
        "learning_rate": 1e-3,
        "num_ppo_epochs": 1,
        "num_mini_batches": 4,
        "kl_coef": 0.03,
        "score_clip": 3.0,
        "missing_eos_penalty": None,
        "compare_siblings": True,
        "save_steps": 2,
        "save_total_limit": 1,
    },
    dpo={
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-4,
        "beta": 0.3,
        "sft_coefficient": 0.2,
        "save_steps": 5,
        "save_total_limit": 1,
    },
    max_new_tokens=48,
    temperature=0.7,
)
FULL = Settings(
    lora_layers=0.5,
    feature_depth=0.8,
    sft={**QUICK.sft, "num_train_epochs": 2},
    reward={
        "backbone": "lora",
        "head_width": 64,
        "head_context": True,
        "center_rewards_coefficient": 0.01,
        "num_train_epochs": 3,
        "learning_rate": 1e-3,
        "weight_decay": 1.0,
        "per_device_train_batch_size": 16,
        "save_steps": 5,
        "save_total_limit": 1,
    },
    ppo={
        **QUICK.ppo,
        "num_iterations": 48,
        "value": "adapter",
        "kl_coef": 0.05,
        "kl_controller": "adaptive",
        "kl_target": 8.0,
        "kl_horizon": 300,
    },
    dpo=QUICK.dpo,
    max_new_tokens=48,
    temperature=0.7,
)
PLAN_SECONDS = {"sft": 130, "reward": 90, "heldout": 12, "ppo": 385, "dpo": 200, "look": 80}
"""What each stage of the quick demo with the starter model is budgeted on two cores."""

MODELS = {"rlhf": "smollm2-135m", "dpo": "smollm2-135m", "base": "gemma3-270m"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check(text: str, finished: bool, row: Example) -> bool:
    return passes(row.columns["slice"], text, finished, row.columns)


def demo_data(*, full: bool) -> PipelineData:
    """The packaged data, or the fixed subset of the quick demo."""
    limit = demo_rows.MAX_FULL if full else 40
    train, rankings = demo_rows.pairs("train"), demo_rows.rankings(demo_rows.MAX_FULL if full else 10)
    return PipelineData(
        demonstrations=demo_rows.demonstrations(limit),
        comparisons=[*train, *rankings],
        heldout_comparisons=demo_rows.pairs("heldout"),
        prompts=[*train, *rankings],
    )


def run_demo(options: DemoOptions) -> Path:
    """Run the demo; returns the path of its report (of its folder, for a dry run). Stages whose inputs have not changed are skipped."""
    if options.route == "reasoning":
        from accord.recipes.reasoning import run_reasoning

        demo_plan(options.route, MODELS["rlhf"], QUICK, options)
        return run_reasoning(options)
    if options.route == "hacking":
        from accord.recipes.hacking import run_hacking

        return run_hacking(options)
    if options.route == "constitution":
        from accord.recipes.constitution import run_demo as run_constitution

        return run_constitution(options)
    folder = Path(options.output_dir or Path("runs") / f"demo-{options.route}{'-full' if options.full else ''}")
    settings = replace(FULL if options.full else QUICK, seed=options.seed)
    plan = demo_plan(options.route, MODELS[options.route], settings, options)
    stages = Stages(folder, say, force=options.force)
    pipeline = Pipeline(
        MODELS[options.route],
        demo_data(full=options.full),
        settings,
        stages,
        say,
        accept_licence=options.accept_licence,
        weights=plan.weights,
        ignore_memory=options.ignore_memory,
    )
    if options.dry_run:
        print(describe_pipeline(pipeline, options, str(plan.need)))
        return folder
    return run_route(pipeline, options, folder)


def demo_plan(route: str, model: str, settings: Settings, options: DemoOptions) -> PipelinePlan:
    """Say what a route takes, before its model is fetched, and refuse what cannot fit. How long each stage takes is said as it begins.

    Raises:
        MachineError: if it does not fit in memory, and that was not to be ignored.
    """
    plan = PipelinePlan(f"demo {route}", model, settings, options.weights, ignore_memory=options.ignore_memory)
    plan(config_of(model))
    return plan


def run_route(pipeline: Pipeline, options: DemoOptions, folder: Path) -> Path:
    """The stages of one route, then the report."""
    plan = {} if options.full or options.route == "base" else PLAN_SECONDS
    per_slice = options.probes or (60 if options.full else 12)
    pipeline.sft(planned_seconds=plan.get("sft"))
    who = ["starter", "sft"]
    if options.route == "base":
        reward = heldout = None
    else:
        reward = pipeline.reward(planned_seconds=plan.get("reward"))
        heldout = pipeline.reward("heldout_reward", heldout=True, planned_seconds=plan.get("heldout"))
        final = "ppo" if options.route == "rlhf" else "dpo"
        if final == "ppo":
            pipeline.ppo(reward, planned_seconds=plan.get("ppo"))
        else:
            pipeline.dpo(planned_seconds=plan.get("dpo"))
        who.append(final)
    prompts = demo_rows.heldout_prompts(per_slice)
    result = look(pipeline, who, prompts, check=check, reward=reward, heldout=heldout, planned_seconds=plan.get("look"))
    report = demo_report(pipeline, result, who, route=options.route, full=options.full)
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path
