"""`accord align`: the demo's pipeline on your own comparisons. SFT on the chosen answers, RL on the prompts, 20 % of the prompts held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord.config.options import AlignOptions
from accord.data.kinds import as_kind
from accord.errors import ConfigError, DataError
from accord.planning.here import counted
from accord.planning.work import Data
from accord.recipes.demo import QUICK, say
from accord.recipes.dry_run import describe_pipeline
from accord.recipes.look import NAMES, difference, interval_text, look
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.pipeline_plan import PipelinePlan, Run
from accord.recipes.report_page import base_report
from accord.recipes.stages import Stages, peak_rss_gb
from accord.reporting.report import Report, write
from accord.training.setup import read_rows
from accord.types import Example, content_hash

FEW_PAIRS = 200
MIN_PROMPTS = 10
LOOK_PROMPTS = 64
"""Held-out prompts that the report answers, at most: each costs an answer of three policies."""


def run_align(options: AlignOptions) -> Path:
    """Align a model with a file of comparisons; returns the path of the report (of the folder that it would be in, for a dry run).

    Raises:
        ConfigError: if the method needs rounds.
        DataError: if the rows are not comparisons, or there are too few prompts to hold any out.
        MachineError: if it cannot fit in memory.
    """
    if options.method == "grpo":
        raise ConfigError("accord align --method grpo goes with --rounds. On the comparisons of a file: --method ppo or dpo.")
    data = split(read_rows(options.data, options.columns, options.seed), options.data)
    folder = Path(options.output_dir or Path("runs") / f"align-{re.sub(r'[^a-z0-9]+', '-', Path(options.data).stem.lower())}")
    say(expectations(data))
    settings = settings_of(options)
    plan = PipelinePlan(
        "align",
        options.model,
        settings,
        options.weights,
        ignore_memory=options.ignore_memory,
        data=lambda run_of: learned_from(data, run_of, options.method),
        apart="the held-out reward model and the answers of the report",
    )
    pipeline = Pipeline(
        options.model,
        data,
        settings,
        Stages(folder, say, force=options.force),
        say,
        accept_licence=options.accept_licence,
        before_loading=plan,
        weights=lambda: plan.weights,
        ignore_memory=options.ignore_memory,
    )
    if options.dry_run:
        print(describe_pipeline(pipeline, options, str(plan.need)))
        return folder
    pipeline.sft()
    reward, heldout = pipeline.reward(), pipeline.reward("heldout_reward", heldout=True)
    if options.method == "ppo":
        pipeline.ppo(reward)
    else:
        pipeline.dpo()
    who = ["starter", "sft", options.method]
    prompts = heldout_prompts(data)
    if len(prompts) > LOOK_PROMPTS:
        say(f"look: the first {LOOK_PROMPTS} of {len(prompts)} held-out prompts.")
    result = look(pipeline, who, prompts[:LOOK_PROMPTS], reward=reward, heldout=heldout)
    report = align_report(pipeline, result, who, Path(options.data).name)
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path


def settings_of(options: AlignOptions) -> Settings:
    """The quick demo's settings, whose rates, share of layers and temperature were measured together, with the user's sizes."""
    return replace(
        QUICK,
        ppo={**QUICK.ppo, "num_iterations": options.iterations},
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        rankings_in_dpo=True,
    )


def learned_from(data: PipelineData, run_of: Callable[[str], Run], method: str) -> dict[str, Data]:
    """What each stage of `accord align` learns from, for the plan of its time; sampled answers are taken to be as long as they may be."""
    rows = {
        "sft": data.demonstrations,
        "reward": data.comparisons,
        "ppo": list({row.prompt_id: row for row in data.prompts}.values()),
        "dpo": [pair for row in data.comparisons for pair in as_kind(row, "preference")],
    }
    configs = {name: run_of(name).config for name in ("sft", "reward", method)}
    return {name: counted(config, rows[name], answer_tokens=getattr(config, "answer_tokens", 0)) for name, config in configs.items()}


def expectations(data: PipelineData) -> str:
    """How much there is, what ties are good for, and under 200 comparisons what that means."""
    ties = sum(not decided(row) for row in (*data.comparisons, *data.heldout_comparisons))
    pairs = len(data.comparisons) + len(data.heldout_comparisons)
    prompts = len({row.prompt_id for row in (*data.comparisons, *data.heldout_comparisons)})
    text = f"{pairs} comparisons on {prompts} prompts; {len(data.heldout_comparisons)} held out by prompt."
    if ties:
        text += f" {ties} {'are ties' if ties > 1 else 'is a tie'}: no demonstrations, and left out of the accuracy; rewards and DPO learn from them that neither is better."
    if pairs >= FEW_PAIRS:
        return text
    return (
        f"{text}\nUnder {FEW_PAIRS} comparisons a reward model mostly learns style and length: expect the form of answers to change, not their "
        "knowledge, and read the held-out accuracy in the report before you trust the reward."
    )


def align_report(pipeline: Pipeline, result: dict[str, Any], who: Sequence[str], name: str) -> Report:
    """The page of `accord align`."""
    report = base_report(pipeline, result, who, titles={})
    data, final = pipeline.data, who[-1]
    accuracy = next(record["result"]["test"]["accuracy"]["all"] for record in pipeline.stages.records if record["name"] == "reward")
    change = difference(result["answers"]["sft"], result["answers"][final], "heldout_reward")
    few = len(data.comparisons) + len(data.heldout_comparisons) < FEW_PAIRS
    report.title = f"accord align {name}"
    report.sentence = f"{NAMES[final]} moves a reward it never saw by {interval_text(change)}."
    report.notes = [
        f"The reward model is right on {100 * accuracy:.0f} % of the comparisons held out by prompt (a coin: 50 %; people agree with each other on 60 to 80 %).",
        *([f"Under {FEW_PAIRS} comparisons: expect a change of form, not of knowledge."] if few else []),
    ]
    folder = pipeline.stages.folder / final
    report.next_steps = [
        (f"accord chat {folder}", "talk to it"),
        (f"accord export {folder} --to my-model", "one ordinary model folder"),
    ]
    return report


def split(rows: Sequence[Example], source: str) -> PipelineData:
    """Hold out a fifth of the prompts by a hash of the prompt; the chosen answers of the rest are the demonstrations.

    Raises:
        DataError: if there are no comparisons, too few prompts, or only ties on one side of the split.
    """
    comparisons = [row for row in rows if row.kind in ("preference", "ranking")]
    if not comparisons:
        raise DataError(
            f"{source} has no comparisons. accord align needs rows with prompt, chosen and rejected (or a winner column). See: accord data check {source}"
        )
    if len(comparisons) < len(rows):
        say(f"{source}: {len(rows) - len(comparisons)} rows are no comparisons and are left out.")
    prompts = sorted({row.prompt_id for row in comparisons}, key=lambda prompt: content_hash(["held out", prompt]))
    if len(prompts) < MIN_PROMPTS:
        raise DataError(
            f"{source} has {len(prompts)} different prompt{'s' * (len(prompts) > 1)}; accord align needs {MIN_PROMPTS} or more to hold a fifth of them out."
        )
    held = set(prompts[: max(2, len(prompts) // 5)])
    train, test = ([row for row in comparisons if (row.prompt_id in held) is side] for side in (False, True))
    if not any(map(decided, comparisons)):
        raise DataError(f"{source}: all comparisons are ties. accord align needs rows that prefer one answer to another.")
    if not all(any(decided(row) for row in part) for part in (train, test)):
        raise DataError(
            f"{source}: all comparisons on one side of the split are ties. accord align needs rows that prefer one answer, on more prompts."
        )
    demonstrations = [made for row in train if decided(row) for made in as_kind(row, "demonstration")]
    return PipelineData(demonstrations, train, test, train)


def decided(row: Example) -> bool:
    """Whether the comparison prefers any answer to another."""
    return len(set(row.ranks)) > 1 if row.ranks is not None else row.probability != 0.5


def heldout_prompts(data: PipelineData) -> list[Example]:
    """Each held-out prompt once."""
    found = {
        row.prompt_id: Example("prompt", row.prompt, plain=row.plain, columns={"slice": "held-out prompts"}, where=row.where)
        for row in data.heldout_comparisons
    }
    return list(found.values())
