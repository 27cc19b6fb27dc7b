"""`accord lab`: a page and the numbers behind it; what it cannot do is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from accord.config.lab import LabOptions
from accord.errors import ConfigError
from accord.lab.model import World
from accord.recipes.lab import run, smoothed


def test_the_page_shows_the_numbers_it_keeps(tmp_path: Path) -> None:
    page = run(LabOptions(level="exact", seeds=2, output_dir=str(tmp_path))).read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "lab.json").read_text(encoding="utf-8"))
    assert set(numbers) == {"accord", "seeds", "exact"} and numbers["seeds"] == 2
    single = numbers["exact"]["single"]["tilt"]
    assert f">{max(single['gold']):+.2f}<" in page
    assert single["kl"] == sorted(single["kl"]) and len(single["gold"]) == len(single["kl"])
    assert f"R² = {numbers['exact']['single law']['r_squared']:.3f}" in page


def test_level_model_runs_its_arms_once_and_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Single and worst-case with both seeds, gold with one; asked again nothing is made again."""
    place = tmp_path / "tiny"
    tiny.model(scale=0.5, max_position_embeddings=256).save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    small = {"num_ppo_epochs": 1, "num_mini_batches": 1, "learning_rate": 1e-3, "compare_siblings": True, "missing_eos_penalty": None}
    world = World(
        str(place), labels=24, compared=8, prompts=8, group=4, answer=8, rounds=3, lora_layers=1.0, ppo={**small, "save_steps": 0}
    )
    options = LabOptions(level="model", seeds=2, arms="single; worst-case; gold", output_dir=str(tmp_path / "lab"))
    page = run(options, world).read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "lab" / "lab.json").read_text(encoding="utf-8"))["model"]
    assert {name: [one["seed"] for one in runs] for name, runs in numbers.items()} == {"single": [0, 1], "worst-case": [0, 1], "gold": [0]}
    ends = smoothed([one["gold"] for one in numbers["single"][1]["rounds"]])
    assert "single, seed 1" in page and f">{ends[-1]:+.2f}<" in page and f">{max(ends):+.2f}<" in page
    capsys.readouterr()
    run(options, world)
    assert capsys.readouterr().err.count("skipped") == 5


def test_an_arm_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'no arm "doubel"\. There are: single; worst-case; '):
        run(LabOptions(level="model", arms="single; doubel", output_dir=str(tmp_path)))


@pytest.mark.parametrize(("options", "words"), [(LabOptions(level="big"), "no level"), (LabOptions(seeds=0), "1 or more")])
def test_refused(options: LabOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(options)
