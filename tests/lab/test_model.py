"""The level of the lab that trains a language model: its true reward, its proxies, and one small run of each kind of arm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord.lab import model
from accord.lab.heads import Judged, agreement, fit_heads
from accord.lab.model import ARMS, Arm, World, first_of, gold
from accord.types import Example, Message

WORLD = World(
    labels=24, compared=8, prompts=8, group=4, answer=8, rounds=4, lora_layers=1.0, flips=0.0,
    ppo={"num_ppo_epochs": 1, "num_mini_batches": 1, "learning_rate": 1e-2, "compare_siblings": True, "missing_eos_penalty": None, "save_steps": 0},
)  # fmt: skip


def test_gold_by_hand() -> None:
    keys = ["egg", "flat", "tap", "shell"]
    assert gold("Tap the egg on a flat surface.", True, keys) == pytest.approx(2.0)
    assert gold("Tap the egg on a flat surface, and the shell opens.", False, keys) == pytest.approx(1.5)  # three things at most, no end
    assert gold("Great question! Tap the egg.", True, keys) == pytest.approx(0.5)
    assert gold("I can't help with that.", True, keys) == pytest.approx(-0.5)
    long = "Tap it. " + " ".join(f"one{chr(97 + n)}" for n in range(0, 26)) + " and then you will see what is inside of it"
    assert gold(long, True, keys) == pytest.approx(1.0 - 0.04 * (len(long.split()) - 30))
    assert gold("xqzv bdfgh tap qqxzt egg zxqvk", True, keys) < 1.0


def pairs(count: int, seed: int) -> Judged:
    """The first of six features decides, and noise in the others."""
    generator = torch.Generator().manual_seed(seed)
    better, worse = torch.randn(count, 6, generator=generator), torch.randn(count, 6, generator=generator)
    swap = better[:, 0] < worse[:, 0]
    better[swap], worse[swap] = worse[swap], better[swap].clone()
    return Judged(better, worse, [f"{seed}-{n}" for n in range(count)])


def test_heads_learn_what_decides_and_a_part_of_them_follows() -> None:
    data = pairs(256, 0)
    heads = fit_heads(data, seed=0)
    assert agreement(heads, pairs(500, 1)) > 0.85
    one = first_of(heads, 1)
    assert torch.equal(one(data.better)[:, 0], heads(data.better)[:, 0])
    heads.load_state_dict(fit_heads(data + pairs(64, 2), seed=0).state_dict())
    assert torch.equal(one(data.better)[:, 0], heads(data.better)[:, 0])
    assert one(data.better).shape == (256, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    tiny.model(scale=0.5).save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    return place


ROWS = [
    Example("prompt", (Message("user", f"say {letter}"),), columns={"keywords": [letter, "e", "o"]}, where=f"row {n}")
    for n, letter in enumerate("abcdfghijkl")
]


@pytest.mark.parametrize(
    "arm",
    [Arm(), Arm(5, options={"reward_ensemble": "worst"}), Arm(refits=1), Arm(0), Arm(options={"on_alarm": "rollback", "kl_alarm": 1e-4})],
    ids=["single", "worst", "fresh labels", "gold", "rollback"],
)
def test_an_arm(arm: Arm, folder: Path, tmp_path: Path) -> None:
    found = model.run(replace(WORLD, model=str(folder)), arm, 0, tmp_path, ROWS)
    again = model.run(replace(WORLD, model=str(folder)), arm, 0, tmp_path / "again", ROWS)
    assert found == again == json.loads(json.dumps(found))
    rounds: list[dict[str, Any]] = found["rounds"]
    assert [set(one) for one in rounds] == [{"gold", "proxy", "kl", "words"}] * len(rounds)
    assert abs(rounds[0]["kl"]) < 1e-3
    assert len(found["proxy agrees"]) == (arm.refits + 1 if arm.heads else 0)
    assert len(found["examples"]) == 4
    if "on_alarm" in arm.options:
        assert found["alarms"] and len(rounds) < WORLD.rounds  # it went back again and again, and ended there
    else:
        assert len(rounds) == WORLD.rounds
    if arm.heads == 0:
        assert [one["gold"] for one in rounds] == pytest.approx([one["proxy"] for one in rounds], abs=1e-3)


def test_fresh_labels_are_as_many_in_all(folder: Path, tmp_path: Path) -> None:
    """Five rounds and one refit: after the second round, and not after the fourth too."""
    found = model.run(replace(WORLD, model=str(folder), rounds=5), Arm(refits=1), 0, tmp_path, ROWS)
    assert len(found["proxy agrees"]) == 2 and len(found["rounds"]) == 5


def test_arms_are_what_they_are_called() -> None:
    assert ARMS["worst-case"].options == {"reward_ensemble": "worst"} and ARMS["worst-case"].heads > 1
    assert ARMS["gold"].heads == 0 and ARMS["single"] == Arm()
