"""Weak-to-strong training of reward models: a weak one labels what a strong one learns from, beside a strong one that learned the truth.

It asks in small what overseeing a stronger model comes to: does it only copy its supervisor's errors, or get back some of the gap?
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.ai_feedback.labels import judge_rows
from accord.ai_feedback.scoring import reward_model_judge
from accord.config.reward import RewardConfig
from accord.data.read import read_examples
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError
from accord.evaluation.accuracy import accuracy_table
from accord.evaluation.intervals import Interval, paired_bootstrap
from accord.methods.reward import RewardTrainer
from accord.models.opened import open_model
from accord.objectives.weak_to_strong import gap_recovered
from accord.recipes.stages import Stages
from accord.training.setup import say
from accord.types import Example, content_hash

ARMS = ("weak", "strong", "ceiling")
"""The supervisor; the strong model on its labels; the strong model on the truth, on the same rows."""
DRAWS = 2000


@dataclass(frozen=True)
class Recovered:
    """What came of it, on comparisons that nobody trained on."""

    accuracy: dict[str, Interval]
    """Of each arm."""
    gap: float | None
    """Performance gap recovered. None: weak and ceiling are equally good."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over test pairs. None where in more than a tenth of the draws the ceiling is not above the weak model."""
    supervisor_right: float
    """Share of the transfer rows in which the weak label prefers the right answer."""


def weak_to_strong(
    pairs: Sequence[Example],
    weak: str,
    strong: str,
    folder: str | Path,
    *,
    weak_options: Mapping[str, Any] | None = None,
    strong_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Recovered:
    """Train the three arms and compare them. What is done in the folder is not done again.

    A third of the prompts is for the weak model, a third is labelled by it, the rest is for the test.

    Args:
        pairs: comparisons whose labels are the truth.
        weak, strong: models by name, folder or hub id. They may be one, with options that differ.
        folder: where the three run folders and `transfer.jsonl` (the weak labels) go.
        weak_options, strong_options: fields of `RewardConfig`; `confidence` is for the strong model on weak labels alone.
    Raises:
        ConfigError: if an option is none.
        DataError: if there are too few comparisons.
    """
    folder = Path(folder)
    options = {"weak": dict(weak_options or {}), "ceiling": dict(strong_options or {}), "strong": dict(strong_options or {})}
    options["ceiling"].pop("confidence", None)
    if "confidence" in options["weak"]:
        raise ConfigError("weak_options: the weak model learns from the truth; confidence belongs into strong_options.")
    gold, transfer, test = thirds(pairs, seed)
    stages = Stages(folder, say)
    about = {"pairs": [row.id for row in (*gold, *transfer, *test)], "seed": seed}
    models = {"weak": weak, "strong": strong, "ceiling": strong}

    def train(arm: str, rows: Sequence[Example], more: object) -> list[float]:
        given = {**about, "model": models[arm], "options": options[arm], "more": more}
        return stages.run(arm, given, lambda place, _: {"gaps": _trained(models[arm], rows, test, place, options[arm], seed)})["gaps"]

    gaps = {"weak": train("weak", gold, None)}
    labelled = stages.run(
        "labels", {**about, "weak": models["weak"], "options": options["weak"]}, lambda place, _: _labels(folder, transfer, place)
    )
    soft = list(read_examples(folder / "labels" / "transfer.jsonl"))
    gaps["strong"] = train("strong", soft, options["weak"])
    gaps["ceiling"] = train("ceiling", transfer, None)
    return compared(gaps, labelled["right"], seed=seed)


def thirds(pairs: Sequence[Example], seed: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Rows for the weak model, for its labels and for the test: by prompt, so that no prompt is in two of them.

    Raises:
        DataError: if one of them would be empty.
    """
    found: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    for row in pairs:
        if row.probability != 0.5:
            found[int(content_hash(["weak to strong", seed, row.prompt_id], 8), 16) % 3].append(row)
    if not all(found):
        raise DataError(f"{len(pairs)} comparisons are too few for three parts: give more prompts.")
    return found


def compared(gaps: Mapping[str, Sequence[float]], supervisor_right: float, *, seed: int = 0) -> Recovered:
    """The arms by the score gaps that they give to the same test pairs, the better answer's score minus the worse one's."""
    right = {arm: [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps[arm]] for arm in ARMS}
    count = len(right["weak"])
    mean = {arm: sum(values) / count for arm, values in right.items()}
    generator, drawn = random.Random(seed), list[float]()
    for _ in range(DRAWS):
        places = generator.choices(range(count), k=count)
        sums = [sum(right[arm][place] for place in places) for arm in ARMS]
        share = gap_recovered(*sums) if sums[2] > sums[0] else None
        drawn += [] if share is None else [share]
    drawn.sort()
    ends = (drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn))]) if len(drawn) > 0.9 * DRAWS else (None, None)
    accuracy = {arm: paired_bootstrap(values, seed=seed) for arm, values in right.items()}
    return Recovered(accuracy, gap_recovered(*(mean[arm] for arm in ARMS)), *ends, supervisor_right)


def _trained(
    model: str, rows: Sequence[Example], test: Sequence[Example], folder: Path, options: Mapping[str, Any], seed: int
) -> list[float]:
    """Train one reward model into a folder; its score gaps on the test pairs."""
    opened = open_model(model)
    config = RewardConfig(output_dir=str(folder), **{"backbone": "heads", "normalise_on": "training", "seed": seed, **options})
    trainer = RewardTrainer(opened.policy, config, list(rows), processing_class=opened.tokenizer)
    trainer.train()
    trainer.save_model()
    return list(accuracy_table(trainer.reward_model, trainer.renderer, test)["gaps"])


def _labels(folder: Path, transfer: Sequence[Example], place: Path) -> dict[str, Any]:
    """The weak model's soft labels of rows whose own labels it does not see."""
    labels = judge_rows(transfer, reward_model_judge(str(folder / "weak")), tell=say)
    write_examples(labels.rows, place / "transfer.jsonl", "preference")
    right = [row.completions[0].text == old.completions[0].text for row, old in zip(labels.rows, transfer, strict=True)]
    return {"right": sum(right) / len(right)}
