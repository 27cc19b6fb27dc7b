"""`accord align`: the demo's pipeline on your own comparisons. SFT on the chosen answers, RL on the prompts, 20 % of the prompts held out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.config.options import AlignOptions
from accord.data.read import read_examples
from accord.errors import DataError
from accord.recipes.demo import QUICK, say
from accord.recipes.look import answers_table, difference, interval_text, tax_of
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.report_page import NAMES, base_report
from accord.recipes.stages import Stages, peak_rss_gb
from accord.reporting.report import write
from accord.types import Completion, Example, content_hash

FEW_PAIRS = 200
MIN_PROMPTS = 10


def run_align(options: AlignOptions) -> Path:
    """Align a model with a file of comparisons; returns the path of the report.

    Raises:
        DataError: if the rows are not comparisons, or there are too few prompts to hold any out.
    """
    rows = list(read_examples(options.data, columns=options.columns))
    data = split(rows, options.data)
    folder = Path(options.output_dir or Path("runs") / f"align-{re.sub(r'[^a-z0-9]+', '-', Path(options.data).stem.lower())}")
    settings = Settings(
        sft=dict(QUICK.sft),
        reward=dict(QUICK.reward),
        ppo={**QUICK.ppo, "num_iterations": options.iterations},
        dpo=dict(QUICK.dpo),
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    pairs = len(data.comparisons) + len(data.heldout_comparisons)
    say(f"{pairs} comparisons on {len({row.prompt_id for row in rows})} prompts; {len(data.heldout_comparisons)} held out by prompt.")
    if pairs < FEW_PAIRS:
        say(
            f"Under {FEW_PAIRS} comparisons a reward model mostly learns style and length: expect the form of answers to change, not their knowledge, "
            "and read the held-out accuracy below before you trust the reward."
        )
    pipeline = Pipeline(options.model, data, settings, Stages(folder, say, force=options.force), say)
    say(str(pipeline.resolved))
    pipeline.sft()
    reward, heldout = pipeline.reward(), pipeline.reward("heldout_reward", heldout=True)
    final = options.method
    if final == "ppo":
        pipeline.ppo(reward)
    else:
        pipeline.dpo()
    who = ["starter", "sft", final]
    prompts = heldout_prompts(data)

    def look(_: Path, resume: bool) -> dict[str, Any]:
        table = answers_table(pipeline, who, prompts, check=None, reward=reward, heldout=heldout)
        return {"answers": table, "tax": {name: tax_of(pipeline, name) for name in who}}

    inputs = {"who": [pipeline.key(name) for name in who], "prompts": [row.prompt_id for row in prompts], "seed": options.seed}
    result = pipeline.stages.run("look", inputs, look)
    report = base_report(pipeline, result, who, titles={})
    accuracy = next(record["result"]["test"]["accuracy"]["all"] for record in pipeline.stages.records if record["name"] == "reward")
    change = difference(result["answers"]["sft"], result["answers"][final], "heldout_reward")
    report.title = f"accord align {Path(options.data).name}"
    report.sentence = f"{NAMES[final]} moves a reward it never saw by {interval_text(change)}."
    report.notes = [
        f"The reward model is right on {100 * accuracy:.0f} % of the comparisons held out by prompt (a coin: 50 %; people agree with each other on 60 to 80 %).",
        *([f"Under {FEW_PAIRS} comparisons: expect a change of form, not of knowledge."] if pairs < FEW_PAIRS else []),
    ]
    report.next_steps = [
        (f"accord chat {folder / final}", "talk to it"),
        (f"accord export {folder / final} --to my-model", "one ordinary model folder"),
    ]
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path


def split(rows: Sequence[Example], source: str) -> PipelineData:
    """Hold out a fifth of the prompts by a hash of the prompt; the chosen answers of the rest are the demonstrations."""
    comparisons = [row for row in rows if row.kind in ("preference", "ranking")]
    if not comparisons:
        raise DataError(
            f"{source} has no comparisons. accord align needs rows with prompt, chosen and rejected (or a winner column). See: accord data check {source}"
        )
    prompts = sorted({row.prompt_id for row in comparisons}, key=lambda prompt: content_hash(["held out", prompt]))
    if len(prompts) < MIN_PROMPTS:
        raise DataError(
            f"{source} has {len(prompts)} different prompts; accord align needs {MIN_PROMPTS} or more to hold a fifth of them out."
        )
    held = set(prompts[: max(2, len(prompts) // 5)])
    train = [row for row in comparisons if row.prompt_id not in held]
    demonstrations = [
        Example("demonstration", row.prompt, (best(row),), plain=row.plain, columns=row.columns, where=row.where)
        for row in train
        if row.probability != 0.5
    ]
    return PipelineData(demonstrations, train, [row for row in comparisons if row.prompt_id in held], train)


def best(row: Example) -> Completion:
    """The preferred answer."""
    if row.ranks is None:
        return row.completions[0]
    return row.completions[min(range(len(row.ranks)), key=lambda index: row.ranks[index] if row.ranks else 0)]


def heldout_prompts(data: PipelineData) -> list[Example]:
    """Each held-out prompt once."""
    found = {
        row.prompt_id: Example("prompt", row.prompt, plain=row.plain, columns={"slice": "held-out prompts"}, where=row.where)
        for row in data.heldout_comparisons
    }
    return list(found.values())
