"""Every route of the demo from data to report, on a tiny model: nothing crashes, and the page says what is true of that route."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_demo
from accord.data.packing import pack
from accord.errors import ConfigError
from accord.models.adapters import Want
from accord.models.opened import open_model
from accord.recipes.demo import run_demo
from accord.recipes.look import CURVE_ROUNDS, some_of, spread
from accord.types import Rollout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def rlhf(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    return tiny_demo.run(model, tmp_path_factory.mktemp("runs") / "rlhf", "rlhf")


@pytest.fixture(scope="module")
def dpo(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str, list[str]]:
    said: list[str] = []
    return (*tiny_demo.run(model, tmp_path_factory.mktemp("runs") / "dpo", "dpo", said=said), said)


@pytest.fixture(scope="module")
def base(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    return tiny_demo.run(model, tmp_path_factory.mktemp("runs") / "base", "base")


def result(pipeline: Any, stage: str) -> dict[str, Any]:
    return next(record["result"] for record in pipeline.stages.records if record["name"] == stage)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_rlhf(rlhf: tuple[Any, str]) -> None:
    pipeline, page = rlhf
    assert [record["name"] for record in pipeline.stages.records] == ["sft", "reward", "heldout_reward", "ppo", "look"]
    assert pipeline.stacks == {"starter": (), "sft": ("sft",), "ppo": ("sft", "ppo")}
    assert re.search(
        r"Passes its checks: starter \d+, SFT \d+, PPO \d+ of 12 \(PPO minus SFT: [+-]\d+ points, 95 % interval [+-]\d+ to [+-]\d+\)\.",
        page,
    )
    assert "was already tuned by its makers" in page and "base model" not in page
    for heading in ("Before and after", "Reward and what it cost", "Alarms", "What they say", "Be the judge", "Alignment tax", "Load it"):
        assert heading in headings(page)
    assert "Did the preferences arrive?" not in headings(page) and headings(page)[-1] == "Load it"
    assert "is what training maximised" in page and "PPO minus SFT" in page and "PPO minus starter" in page


def test_the_last_lines_of_the_page_load_the_model(rlhf: tuple[Any, str]) -> None:
    """Pasted as they stand: three lines, and the model they give is the policy that the page is about."""
    pipeline, page = rlhf
    lines = html.unescape(page.split("<pre>")[-1].split("</pre>")[0])
    assert len(lines.splitlines()) == 3
    found: dict[str, Any] = {}
    exec(lines, found)
    row = pipeline.renderer.units(tiny_demo.data().demonstrations)[0]
    ids = [*row.prompt_ids, *row.branches[0].ids]
    assert found["tokenizer"].decode(ids) == pipeline.tokenizer.decode(ids)
    with torch.no_grad():
        logits = found["model"](torch.tensor([ids])).logits[0, len(row.prompt_ids) - 1 : -1]
        expected = pipeline.policy.forward(pack([row], pipeline.policy.device), pipeline.stacks["ppo"], Want()).logprobs
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(row.branches[0].ids)[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, atol=1e-4, rtol=1e-4)


def test_held_out_reward_is_drawn_over_training(rlhf: tuple[Any, str]) -> None:
    """Read again by hand: each point is the mean held-out reward of that iteration's answers as they lie on disk."""
    pipeline, page = rlhf
    curve = result(pipeline, "look")["heldout_curve"]
    assert [point["iteration"] for point in curve] == [1, 2, 3] and {point["count"] for point in curve} == {6}
    assert "held-out reward, 6 answers an iteration" in page and page.count("<polyline") >= 2
    heldout = pipeline.reward("heldout_reward", heldout=True)
    lines = (pipeline.stages.folder / "ppo" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    for step, point in enumerate(curve):
        rows = [row for row in map(json.loads, lines) if row["policy_step"] == step]
        texts = [Rollout("", (), tuple(row["prompt_ids"]), tuple(row["completion_ids"]), "", (), "stop") for row in rows]
        assert point["heldout_reward"] == pytest.approx(float(heldout.score_rollouts(texts).mean()), abs=1e-5)


def test_points_of_the_curve_are_spread() -> None:
    assert spread(list(range(12)), CURVE_ROUNDS) == [0, 2, 4, 7, 9, 11]
    assert spread([3, 4], 6) == [3, 4]
    rollouts = [Rollout(str(i // 8), (), (), (), "", (), "stop", sample_index=i % 8) for i in range(96)]
    chosen = some_of(rollouts, 24)
    assert len(chosen) == 24 and {row.prompt_id for row in chosen} == set("012345")


def test_a_second_look_runs_nothing(rlhf: tuple[Any, str], model: str) -> None:
    pipeline, page = rlhf
    said: list[str] = []
    again, same = tiny_demo.run(model, pipeline.stages.folder, "rlhf", said=said)
    assert all(record["skipped"] for record in again.stages.records)
    assert len([line for line in said if "skipped" in line]) == 5
    assert same.count("from an earlier run") == 5 and headings(same) == headings(page)


def test_the_look_is_taken_again_when_the_held_out_reward_changed(model: str, tmp_path: Path) -> None:
    """Its key names the rewards that it measures with, also on the route whose policy does not depend on them."""
    first = tiny_demo.run(model, tmp_path, "dpo", probes=1)[0]
    pipeline = tiny_demo.pipeline(model, tmp_path)
    pipeline.settings.reward["learning_rate"] = 2e-3
    tiny_demo.run_route(pipeline, tiny_demo.DemoOptions(route="dpo", probes=1), tmp_path)
    skipped = {record["name"]: record["skipped"] for record in pipeline.stages.records}
    assert skipped == {"sft": True, "reward": False, "heldout_reward": False, "dpo": True, "look": False}
    assert result(first, "look")["answers"]["dpo"][0]["reward"] != result(pipeline, "look")["answers"]["dpo"][0]["reward"]


def test_dpo(dpo: tuple[Any, str, list[str]]) -> None:
    pipeline, page, said = dpo
    stage = result(pipeline, "dpo")
    assert stage["pairs"] == 12 and stage["tested_on"] == 12
    assert "dpo: learns from 12 pairs; 4 rankings are left to the reward model." in said
    assert "Did the preferences arrive?" in headings(page)
    row = re.search(r"implicit reward of the DPO policy</td>(.*?)</tr>", page)
    assert row is not None
    accuracy, interval, count = re.findall(r">([^<>]+)</td>", row[1])
    assert float(accuracy) == pytest.approx(stage["heldout"]["eval_rewards/accuracies"], abs=0.005) and count == "12"
    low, high = map(float, interval.split(" to "))
    assert low <= float(accuracy) <= high and high - low > 0.1
    assert "Reward and what it cost" in headings(page) and "DPO uses no reward model" in page and "training maximised" not in page
    assert page.count(">DPO</text>") == 2 and page.count(">SFT</text>") == 2  # two rewards, two named points each
    assert "was already tuned by its makers" in page


def test_base_says_that_it_is_one(base: tuple[Any, str]) -> None:
    pipeline, page = base
    assert [record["name"] for record in pipeline.stages.records] == ["sft", "look"]
    assert "already tuned" not in page and "is a base model" in page
    assert "SFT minus starter" in page and "KL from SFT" not in page and "held-out reward" not in page
    assert "accord demo base --full" in page and "What comes after" not in headings(page)


@pytest.mark.parametrize("full", [False, True])
def test_base_on_its_own_kind_of_model(full: bool, tmp_path: Path) -> None:
    """Gemma 3's shape (sliding windows, tied head) without a chat template: one is given to it and saved with the run."""
    gemma = tiny_demo.model_folder(tmp_path / "gemma", "gemma3_text", template=False, tie_word_embeddings=True)
    pipeline, page = tiny_demo.run(gemma, tmp_path / "run", "base", full=full, probes=1)
    assert "is a base model" in page and pipeline.stacks["sft"] == ("sft",)
    assert (tmp_path / "run" / "sft" / "chat_template.jinja").stat().st_size > 0


@pytest.mark.parametrize("route", ["rlhf", "dpo", "base"])
def test_full(route: str, model: str, tmp_path: Path) -> None:
    """LoRA reward and value adapters lie beside the policy's, not under it."""
    pipeline, page = tiny_demo.run(model, tmp_path / "run", route, full=True, probes=1)
    assert "Load it" in headings(page) and f"accord demo {route} --full" not in page
    if route == "base":
        return
    final = "ppo" if route == "rlhf" else "dpo"
    assert pipeline.stacks[final] == ("sft", final)
    reward, heldout = pipeline.reward(), pipeline.reward("heldout_reward", heldout=True)
    assert reward.stack[0] == heldout.stack[0] == "sft" and len({*reward.stack, *heldout.stack}) == 3
    # What was saved is what ran: a fresh process (nothing in memory) scores and answers alike.
    fresh = tiny_demo.pipeline(model, tmp_path / "run", full=True)
    fresh.sft()
    units = pipeline.renderer.units(tiny_demo.data().heldout_comparisons)
    for name, model_then in (("reward", reward), ("heldout_reward", heldout)):
        now = fresh.reward(name, heldout=name != "reward")
        torch.testing.assert_close(now.score(units), model_then.score(units), atol=1e-4, rtol=1e-4)
    fresh.ppo(reward) if final == "ppo" else fresh.dpo()
    batch = pack(units[:2], pipeline.policy.device)
    now, then = (one.policy.forward(batch, one.stacks[final], Want()).logprobs for one in (fresh, pipeline))
    torch.testing.assert_close(now, then, atol=1e-4, rtol=1e-4)


def test_full_uses_rankings_in_dpo(model: str, tmp_path: Path) -> None:
    said: list[str] = []
    pipeline = tiny_demo.pipeline(model, tmp_path, full=True, said=said)
    pipeline.sft()
    pipeline.dpo()
    assert result(pipeline, "dpo")["pairs"] == 12 + 4 * 6
    assert "dpo: 4 rankings taken apart into 24 pairs." in said


def test_routes_in_one_pipeline_start_from_sft(model: str, tmp_path: Path) -> None:
    """DPO after PPO on the same pipeline: both are the SFT policy with one adapter, and DPO's reference is SFT."""
    pipeline = tiny_demo.pipeline(model, tmp_path)
    pipeline.sft()
    pipeline.ppo(pipeline.reward())
    assert pipeline.dpo() == ("sft", "dpo")
    assert result(pipeline, "dpo")["history"][0]["rewards/margins"] == pytest.approx(0.0, abs=1e-6)


def test_feature_depth_is_a_share_of_the_layers(tmp_path: Path) -> None:
    """0.8 is layer 24 of the demo's 30, layer 4 of 5, and never layer 0."""
    for layers, expected in ((30, 24), (5, 4), (1, 1)):
        model = tiny_demo.model_folder(tmp_path / f"model{layers}", num_hidden_layers=layers)
        pipeline = tiny_demo.pipeline(model, tmp_path / f"run{layers}")
        pipeline.sft()
        assert pipeline.reward().heads.layer == expected


@pytest.mark.parametrize("route", ["rlhf", "dpo"])
def test_a_base_held_in_four_bits(route: str, model: str, tmp_path: Path) -> None:
    """Every stage runs on it, its folders say so, and it is no earlier run's model."""
    plain = tiny_demo.pipeline(model, tmp_path / "none")
    pipeline, page = tiny_demo.run(model, tmp_path, route, weights="nf4")
    assert pipeline.policy.held == "nf4" and "<td>nf4</td>" in page.replace('<td class="wrap">', "<td>")
    final = "ppo" if route == "rlhf" else "dpo"
    for stage in ("sft", final):
        for record in ("run.json", "stack.json"):
            assert json.loads((tmp_path / stage / record).read_text(encoding="utf-8"))["weights"] == "nf4", (stage, record)
    for stage in ("reward", "heldout_reward"):
        assert json.loads((tmp_path / stage / "reward.json").read_text(encoding="utf-8"))["weights"] == "nf4"
    assert pipeline.key("starter") != plain.key("starter")
    assert open_model(str(tmp_path / final)).policy.held == "nf4"
    again, _ = tiny_demo.run(model, tmp_path, route, weights="nf4")
    assert all(record["skipped"] for record in again.stages.records)
    assert not any(record["skipped"] for record in tiny_demo.run(model, tmp_path, route, probes=1)[0].stages.records)


@pytest.mark.parametrize("route", ["rlhf", "dpo", "base", "hacking", "reasoning", "constitution"])
def test_the_command_passes_on_how_weights_are_held(route: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each route opens its model with what `--weights` says, and no other way."""
    from accord.models import opened
    from accord.recipes import constitution, pipeline, reasoning

    class Opened(Exception):
        pass

    def open_model(name: str, **given: Any) -> None:
        raise Opened(given["weights"])

    for module in (opened, pipeline, reasoning, constitution):
        monkeypatch.setattr(module, "open_model", open_model)
    with pytest.raises(Opened, match="int8"):
        run_demo(tiny_demo.DemoOptions(route, weights="int8", output_dir=str(tmp_path)))


def test_there_is_no_other_way_to_hold_them() -> None:
    with pytest.raises(ConfigError, match=r"accord demo --weights 'int4': it is auto, fp32, bf16, int8, nf4 or gguf"):
        tiny_demo.DemoOptions(weights="int4")
