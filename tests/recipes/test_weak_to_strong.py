"""Weak-to-strong training of reward models on a tiny model: who trains on what, and how the gap is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import tiny
import tiny_demo
from accord.config.reward import RewardConfig
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.methods.reward import RewardTrainer
from accord.recipes.weak_to_strong import compared, thirds, weak_to_strong
from accord.types import Completion, Example, Message

WORDS = ("red", "blue", "green", "one", "two", "yes")


def pairs(count: int) -> list[Example]:
    """The better answer ends with an exclamation mark."""
    return [
        Example(
            "preference",
            (Message("user", f"Say {WORDS[i % 6]} {i}"),),
            tuple(Completion((Message("assistant", f"{WORDS[(i * 5) % 6]} {i % 7}{end}"),)) for end in ("!", "?")),
            plain=True,
        )
        for i in range(count)
    ]


def test_three_parts_share_no_prompt() -> None:
    rows = pairs(90)
    parts = thirds([*rows, *rows], seed=0)
    prompts = [{row.prompt_id for row in part} for part in parts]
    assert sum(map(len, parts)) == 180 and not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    assert all(15 < len(part) < 45 for part in prompts) and thirds(rows, seed=1)[0] != thirds(rows, seed=0)[0]
    with pytest.raises(DataError, match="too few for three parts"):
        thirds(rows[:1], seed=0)


def test_the_gap_and_its_interval_by_hand() -> None:
    """60, 70 and 80 right of 100: half of the gap; equal arms have none; without a gap there is nothing to recover."""
    gaps = {name: [1.0] * right + [-1.0] * (100 - right) for name, right in (("weak", 60), ("strong", 70), ("ceiling", 80))}
    found = compared(gaps, 0.6)
    assert found.gap == pytest.approx(0.5) and found.low is not None and found.high is not None and 0.2 < found.low < 0.5 < found.high < 0.8
    assert found.accuracy["strong"].mean == pytest.approx(0.7) and found.supervisor_right == 0.6
    same = compared({"weak": gaps["weak"], "strong": gaps["weak"], "ceiling": gaps["weak"]}, 0.6)
    assert same.gap is None and same.low is None
    assert compared({**gaps, "weak": [0.0] * 100}, 0.5).accuracy["weak"].mean == 0.5


def test_from_end_to_end(tmp_path: Path) -> None:
    """The strong model learns soft labels of the weak one on rows that the weak one never saw; the ceiling learns the truth of the same rows."""
    model = tiny_demo.model_folder(tmp_path / "tiny")
    rows = pairs(60)
    weak = {"feature_layer": 1, "num_heads": 1, "max_steps": 2, "per_device_train_batch_size": 8}
    strong = {"num_heads": 1, "max_steps": 60, "per_device_train_batch_size": 8, "confidence": 0.3}
    found = weak_to_strong(rows, model, model, tmp_path / "run", weak_options=weak, strong_options=strong)
    gold, transfer, test = thirds(rows, 0)
    labelled = list(read_examples(tmp_path / "run" / "labels" / "transfer.jsonl"))
    assert {row.prompt_id for row in labelled} == {row.prompt_id for row in transfer}
    assert all(0.5 <= (row.probability or 0) < 1 and row.columns["label_source"] == "ai" for row in labelled)
    right = sum(row.completions[0].text.endswith("!") for row in labelled) / len(labelled)
    assert found.supervisor_right == pytest.approx(right) and found.accuracy["ceiling"].count == len(test) and gold
    assert found.accuracy["ceiling"].mean >= 0.9 > 0.5  # one mark decides, and 60 steps on the truth find it
    stage = tmp_path / "run" / "strong" / "stage.json"
    before = stage.stat().st_mtime_ns
    assert weak_to_strong(rows, model, model, tmp_path / "run", weak_options=weak, strong_options=strong) == found
    assert stage.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="confidence belongs into strong_options"):
        weak_to_strong(rows, model, model, tmp_path / "run", weak_options={"confidence": 0.5})


def test_confidence_draws_labels_towards_what_the_heads_prefer(tmp_path: Path) -> None:
    """At the end of the warm-up the loss is that of the target (1 - c) p + c [gap > 0], by hand."""
    rows = [Example(row.kind, row.prompt, row.completions, probability=0.4, plain=True) for row in pairs(8)]
    losses: dict[float, float] = {}
    for confidence in (0.0, 0.5):
        config = RewardConfig(
            output_dir=str(tmp_path / f"c{confidence}"), backbone="heads", num_heads=1, max_steps=4, confidence=confidence,
            confidence_warmup=0.0, normalise=False, per_device_train_batch_size=8,
        )  # fmt: skip
        trainer = RewardTrainer(tiny.policy(), config, rows, processing_class=tiny.tokenizer())
        trainer.train()
        scores = trainer.raw(trainer.train_units).detach()
        gaps = (scores[0::2, 0] - scores[1::2, 0]).tolist()
        targets = [(1 - confidence) * 0.4 + confidence * (gap > 0) for gap in gaps]
        by_hand = sum(
            -p * math.log(1 / (1 + math.exp(-gap))) - (1 - p) * math.log(1 / (1 + math.exp(gap)))
            for p, gap in zip(targets, gaps, strict=True)
        )
        loss, _ = trainer.loss(trainer.train_units, trainer.totals(trainer.train_units))
        losses[confidence] = float(loss.detach())
        assert losses[confidence] == pytest.approx(by_hand / 8, rel=1e-5)
    assert losses[0.0] != pytest.approx(losses[0.5], rel=1e-3)
    with pytest.raises(ConfigError, match="bradley_terry alone uses it"):
        RewardConfig(loss="robust", confidence=0.5)
