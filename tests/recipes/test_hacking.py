"""The demo of a flawed reward, on a tiny model that may stop at many tokens: the flaw is found, named and shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_demo
from accord.config.options import DemoOptions
from accord.errors import ConfigError
from accord.recipes.alarms_page import evidence, monitor_alarms
from accord.recipes.hacking import BONUS, HACKING, borrow, long_is_good, run_hacking

LEARNS = {
    "num_iterations": 10,
    "prompts_per_iteration": 10,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
}
SETTINGS = replace(tiny_demo.small(HACKING), lora_r=8, lora_alpha=16, lora_layers=1.0, max_new_tokens=32, ppo={**HACKING.ppo, **LEARNS})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    place = tmp_path_factory.mktemp("hacking")
    model = Path(tiny_demo.model_folder(place / "model"))
    generation = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    (model / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": list(range(2, 20))}), encoding="utf-8")
    path = run_hacking(DemoOptions(route="hacking", probes=1, output_dir=str(place / "run")), SETTINGS, str(model))
    return place / "run", path.read_text(encoding="utf-8")


def test_the_page_says_what_is_exploited_and_shows_it(page: tuple[Path, str]) -> None:
    folder, text = page
    sentence = re.search(r'<p class="sentence">(.*?)</p>', text)
    assert sentence is not None and sentence[1].startswith("ALARM, length: ") and "is explained by form, most by length" in sentence[1]
    assert re.findall(r"<h2>(.*?)</h2>", text)[:3] == ["What training saw", "Before and after", "Alarms"]
    assert "ALARM <span" in text and "<h3>length (explained gain)</h3>" in text and "<h3>Then and now</h3>" in text
    record = json.loads((folder / "ppo" / "stage.json").read_text(encoding="utf-8"))["result"]
    explained = next(row for row in record["alarms"] if row["name"] == "explained gain")
    assert explained["level"] == "alarm" and explained["cause"] == "length" and len(explained["samples"]) == 3
    lengths = [row["completions/mean_length"] for row in record["iterations"]]
    assert max(lengths) > 1.3 * lengths[0]
    assert record["iterations"][-1]["objective/kl_coef"] == 0.0
    assert f"Planted: {BONUS:g} reward for every token" in text and "on-alarm rollback" in text


def test_the_bonus_is_a_bonus() -> None:
    assert long_is_good([[1, 2, 3], []]) == pytest.approx([0.6, 0.0])


def test_the_sft_model_of_the_demo_is_taken_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "rlhf").mkdir()
    borrow(tmp_path / "rlhf", tmp_path / "sft")
    assert not (tmp_path / "sft").exists()
    for done in (False, True):
        (tmp_path / "rlhf" / "stage.json").write_text(json.dumps({"done": done}), encoding="utf-8")
        borrow(tmp_path / "rlhf", tmp_path / "sft")
        assert (tmp_path / "sft" / "stage.json").exists() is done
    with pytest.raises(ConfigError, match="hacking has no --full"):
        DemoOptions(route="hacking", full=True)


def row(name: str, level: str, **changes: Any) -> dict[str, Any]:
    samples = [{"prompt_id": "p", "prompt": "Why?", "text": "<b>because</b>", "finished": True, "reward": 1.5, "shows": 2.0}]
    plain = {"name": name, "cause": "length", "value": 0.9, "baseline": 0.0, "z": 5.0, "threshold": 0.6, "level": level, "words": "Longer."}
    return {**plain, "samples": samples, **changes}


def test_red_rows_come_first_and_quiet_ones_are_counted() -> None:
    stage = {
        "monitors": [row("ends", "quiet"), row("hedging", "quiet"), row("length", "watch"), row("explained gain", "alarm")],
        "alarms": [{"name": "explained gain", "iteration": 4}],
        "drift": [{"iteration": 8, "prompt": "Why?", "start": "So.", "now": "So, so."}],
    }
    alarms = monitor_alarms(stage)
    assert [alarm["name"] for alarm in alarms] == ["explained gain: length", "length", "ends", "1 other monitor"]
    assert [alarm["ok"] for alarm in alarms] == [False, True, True, True] and alarms[1]["watch"]
    assert alarms[0]["words"] == "Longer. Since round 4."
    shown = evidence(stage)
    assert [one.title for one in shown] == ["length (explained gain)", "Then and now"]
    assert shown[0].samples[0].slice == "reward 1.50" and [a["text"] for a in shown[1].samples[0].answers] == ["So.", "So, so."]
    past = {**stage, "monitors": [row("ends", "quiet")], "alarms": [row("refusal", "alarm", iteration=3, rollback=1)]}
    assert [(alarm["name"], alarm["ok"]) for alarm in monitor_alarms(past)] == [("refusal: length", True), ("ends", True)]
    assert monitor_alarms(past)[0]["words"] == "Longer. In round 3, and rolled back; not in the last one."
    assert [one.title for one in evidence(past)] == ["length (refusal)", "Then and now"]
    assert monitor_alarms({}) == [] and evidence({"monitors": [row("ends", "quiet")], "drift": stage["drift"]}) == []
