"""`accord align`: the demo's settings on the user's own file, whatever kind of comparisons it holds."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

import tiny
import tiny_demo
from accord.cli import main
from accord.config.base import WEIGHTS, field_help
from accord.config.options import AlignOptions
from accord.data.kinds import as_kind
from accord.errors import DataError, MachineError
from accord.evaluation.accuracy import accuracy_table
from accord.planning.shapes import config_of
from accord.recipes import align
from accord.recipes.align import expectations, run_align, settings_of, split
from accord.recipes.demo import QUICK
from accord.recipes.look import look
from accord.recipes.pairs import pairs_of
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.pipeline_plan import PipelinePlan
from accord.recipes.stages import Stages
from accord.types import Completion, Example, Message


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


def csv_of_pairs(path: Path, count: int = 12) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "best", "worst"])
        writer.writerows(
            [f"What is {word} number {i}?", f"It is {i}.", "Well, who knows."] for i, word in enumerate((tiny.WORDS * 2)[:count])
        )
    return path


def rankings(count: int, *, ranks: tuple[int, ...] = (1, 2, 2, 3)) -> list[Example]:
    answers = tuple(Completion((Message("assistant", f"answer {k}"),)) for k in range(4))
    return [Example("ranking", (Message("user", f"Rank {i}"),), answers, ranks=ranks, where=f"r.jsonl line {i}") for i in range(count)]


def test_settings_are_the_demo_s() -> None:
    """All of them, apart from what the user chose: rates tuned for half of the layers train half, and temperature 0.7 stays 0.7."""
    mine = asdict(settings_of(AlignOptions(data="x.csv", iterations=5, max_new_tokens=20, seed=7)))
    demo = asdict(QUICK)
    changed = {key for key in demo if mine[key] != demo[key]}
    assert changed == {"ppo", "max_new_tokens", "seed", "rankings_in_dpo"}
    assert {key for key in demo["ppo"] if mine["ppo"][key] != demo["ppo"][key]} == {"num_iterations"}
    assert (mine["lora_layers"], mine["temperature"], mine["feature_depth"], mine["max_new_tokens"]) == (0.5, 0.7, 0.8, 20)


def test_help_tells_the_sizes_that_run() -> None:
    words = field_help(AlignOptions)["iterations"]
    assert f"{QUICK.ppo['prompts_per_iteration']} prompts with {QUICK.ppo['num_generations']} answers" in words
    assert AlignOptions(data="x").iterations == QUICK.ppo["num_iterations"]


@pytest.mark.parametrize("method", ["ppo", "dpo"])
def test_a_csv_end_to_end(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))  # sizes alone: the code is the command's own
    path, folder = csv_of_pairs(tmp_path / "pairs.csv"), tmp_path / "run"
    given = [
        "--method",
        method,
        "--columns",
        "prompt=question",
        "chosen=best",
        "rejected=worst",
        "--iterations",
        "2",
        "--max-new-tokens",
        "6",
    ]
    assert main(["align", "--data", str(path), "--model", model, "--output-dir", str(folder), *given]) == 0
    said = capsys.readouterr().err
    assert "12 comparisons on 12 prompts; 2 held out by prompt." in said and "Under 200 comparisons" in said
    page = (folder / "report.html").read_text(encoding="utf-8")
    final = method.upper()
    assert f"{final} moves a reward it never saw by" in page and "accord align pairs.csv" in page
    assert "expect a change of form, not of knowledge" in page and "passes its checks" not in page
    assert re.search(r"The reward model is right on \d+ % of the comparisons held out", page)
    assert ("Did the preferences arrive?" in page) == (method == "dpo")
    assert "already tuned" not in page  # nobody knows that of a user's own model
    records = {name: json.loads((folder / name / "stage.json").read_text(encoding="utf-8")) for name in ("sft", "reward", method, "look")}
    assert records["sft"]["result"]["rows"] == 10 and records["reward"]["result"]["test"]["count"]["all"] == 2
    assert {row["prompt"] for row in records["look"]["result"]["answers"][method]}.isdisjoint(
        row.prompt[-1].content for row in split_of(path).comparisons
    )


def split_of(path: Path) -> PipelineData:
    from accord.data.read import read_examples

    return split(list(read_examples(str(path), columns={"prompt": "question", "chosen": "best", "rejected": "worst"})), str(path))


@pytest.mark.parametrize("method", ["ppo", "dpo"])
def test_rankings_alone(method: str, model: str, tmp_path: Path) -> None:
    """No pair in the file: rankings of four are six pairs each, said with their count, and ties count for no accuracy."""
    said: list[str] = []
    data = split(rankings(12), "rankings.jsonl")
    settings = tiny_demo.small(settings_of(AlignOptions(data="rankings.jsonl", method=method)))
    pipeline = Pipeline(model, data, settings, Stages(tmp_path, said.append), said.append)
    pipeline.sft()
    reward, heldout = pipeline.reward(), pipeline.reward("heldout_reward", heldout=True)
    pipeline.ppo(reward) if method == "ppo" else pipeline.dpo()
    who = ["starter", "sft", method]
    result = look(pipeline, who, align.heldout_prompts(data), reward=reward, heldout=heldout)
    report = align.align_report(pipeline, result, who, "rankings.jsonl")
    stages = {record["name"]: record["result"] for record in pipeline.stages.records}
    assert stages["reward"]["test"]["count"]["all"] == 2 * 5  # of six pairs one is a tie
    assert "reward, tested: 2 rankings taken apart into 12 pairs." in said
    assert report.accuracy[0]["count"] == 10
    if method == "dpo":
        assert "dpo: 10 rankings taken apart into 60 pairs." in said
        assert stages["dpo"]["pairs"] == 60 and stages["dpo"]["tested_on"] == 10
        assert report.implicit[0]["count"] == 10


def test_pairs_of_keeps_pairs_and_counts_rankings() -> None:
    said: list[str] = []
    pairs = tiny.pairs(3)
    found = pairs_of([*pairs, *rankings(1)], said.append, "mine")
    assert found[:3] == pairs and len(found) == 9 and sum(row.probability == 0.5 for row in found) == 1
    assert said == ["mine: 1 ranking taken apart into 6 pairs."]
    assert pairs_of(pairs, said.append, "mine") == pairs and len(said) == 1
    with pytest.raises(DataError, match="tiny demonstration is a demonstration and a preference is needed"):
        pairs_of(tiny.demonstrations(1), said.append, "mine")


def test_accuracy_needs_a_preferred_answer(model: str, tmp_path: Path) -> None:
    pipeline = tiny_demo.pipeline(model, tmp_path)
    pipeline.sft()
    reward = pipeline.reward()
    ties = [pair for row in rankings(2, ranks=(1, 1, 1, 1)) for pair in as_kind(row, "preference")]
    for rows in (ties, []):
        with pytest.raises(DataError, match="No comparison has a preferred answer"):
            accuracy_table(reward, pipeline.renderer, rows)


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_evaluate_reads_rankings(stage: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = tiny_demo.pipeline(model, tmp_path / "run")
    pipeline.sft()
    pipeline.reward() if stage == "reward" else pipeline.dpo()
    path = tmp_path / "rankings.jsonl"
    rows = [{"prompt": f"Rank {i}", "completions": ["a b", "c", "d", "e f g"], "ranks": [1, 2, 2, 3]} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run" / stage), "--data", str(path)]) == 0
    out, error = capsys.readouterr()
    assert "3 rankings taken apart into 18 pairs." in error
    assert "(15 pairs)" in out if stage == "reward" else "eval_rewards/accuracies" in out


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (tiny.demonstrations(12), "has no comparisons"),
        (tiny.pairs(9), "has 9 different prompts; accord align needs 10"),
        (tiny.pairs(9)[:1] * 9, "has 1 different prompt; accord align needs 10"),
        (rankings(12, ranks=(1, 1, 1, 1)), "all comparisons are ties"),
        ([*rankings(11, ranks=(1, 1, 1, 1)), *rankings(1)], "all comparisons on one side of the split are ties"),
    ],
)
def test_split_refuses_what_cannot_be_learned(rows: list[Example], words: str) -> None:
    with pytest.raises(DataError, match=words):
        split(rows, "mine.jsonl")


def test_split_is_by_prompt_and_leaves_nothing_out_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*rankings(10), *tiny.pairs(10), *tiny.demonstrations(2)]
    data = split([*rows, *rows], "mine.jsonl")
    assert {row.prompt_id for row in data.comparisons}.isdisjoint({row.prompt_id for row in data.heldout_comparisons})
    assert len({row.prompt_id for row in data.heldout_comparisons}) == 4
    assert len(data.comparisons) + len(data.heldout_comparisons) == 40 and len(data.demonstrations) == len(data.comparisons)
    assert all(row.completions[0].text == "answer 0" for row in data.demonstrations if row.prompt[-1].content.startswith("Rank"))
    assert "4 rows are no comparisons and are left out" in capsys.readouterr().err


def test_ties_are_counted_before_anything_is_learned() -> None:
    rows = [*rankings(30), *rankings(20, ranks=(1, 1, 1, 1))]
    data = split(rows, "mine.jsonl")
    ties = len(data.comparisons) - len(data.demonstrations) + sum(not align.decided(row) for row in data.heldout_comparisons)
    assert ties == 20 and " 20 are ties: no demonstrations" in expectations(data)
    assert "tie" not in expectations(split(rankings(30), "mine.jsonl"))


def test_expectations_under_200() -> None:
    rows = tiny.pairs(10)
    assert "Under 200 comparisons" in expectations(PipelineData(comparisons=rows * 19, heldout_comparisons=rows[:9]))
    assert "Under 200" not in expectations(PipelineData(comparisons=rows * 19, heldout_comparisons=rows))


def test_memory_is_checked_before_loading(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_of_pairs(tmp_path / "pairs.csv")
    monkeypatch.setattr("accord.planning.here.available_memory", lambda _: 100_000_000)
    columns = {"prompt": "question", "chosen": "best", "rejected": "worst"}
    with pytest.raises(MachineError, match=r"accord align on .* needs \d.\d GB of memory and 0.1 GB are free"):
        run_align(AlignOptions(data=str(path), model=model, columns=columns, output_dir=str(tmp_path / "run")))
    assert not list((tmp_path / "run").glob("*"))


def test_a_base_held_in_four_bits(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is planned for in its size, and held so; where only that fits, the refusal names it."""
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))
    settings, config = settings_of(AlignOptions(data="x.csv", max_new_tokens=6, method="dpo")), AutoConfig.from_pretrained(model)
    needs = {weights: needed(config, settings, model, weights) for weights in WEIGHTS}
    assert needs["nf4"] < needs["int8"] < needs["bf16"] < needs["fp32"] == needs["auto"]
    path, folder = csv_of_pairs(tmp_path / "pairs.csv"), tmp_path / "run"
    given = ["align", "--data", str(path), "--model", model, "--columns", "prompt=question", "chosen=best", "rejected=worst"]
    given += ["--output-dir", str(folder), "--method", "dpo", "--max-new-tokens", "6", "--weights"]
    assert main([*given, "nf4"]) == 0
    assert json.loads((folder / "dpo" / "run.json").read_text(encoding="utf-8"))["weights"] == "nf4"
    assert ">nf4<" in (folder / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr("accord.planning.here.available_memory", lambda _: needs["nf4"] + 1)
    capsys.readouterr()
    assert main([*given, "fp32"]) == 4
    assert "--weights nf4" in capsys.readouterr().err


def needed(config: Any, settings: Settings, model: str, weights: str) -> int:
    """Bytes with as few tokens at once as can be."""
    plan = PipelinePlan("align", model, settings, weights, ignore_memory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accord.planning.here.available_memory", lambda _: 1)
        plan(config)
    assert plan.need is not None
    return plan.need.total


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_the_most_exact_way_that_fits_is_offered_first(
    stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint in bfloat16 is held as it is, in a line, where float32 does not fit; one in float32 is refused, and bf16 named first, then eight bits."""
    config = config_of("llama-3.2-1b")
    config.dtype = getattr(torch, stored)
    settings = settings_of(AlignOptions(data="x.csv"))
    needs = {weights: needed(config, settings, "one", weights) for weights in ("fp32", "bf16", "int8", "nf4")}
    for have, offered in ((needs["bf16"], ("bf16", "int8")), (needs["int8"], ("int8", "nf4")), (needs["nf4"], ("nf4",)), (1e9, ())):
        monkeypatch.setattr("accord.planning.here.available_memory", lambda _, have=have: have)
        plan = PipelinePlan("align", "one", settings)
        capsys.readouterr()
        if stored == "bfloat16" and offered and offered[0] == "bf16":
            plan(config)
            said = capsys.readouterr().err
            assert plan.weights == "bf16" and "weights bf16: the checkpoint is, and in float32 it does not fit" in said and "fits: " in said
            continue
        with pytest.raises(MachineError) as error:
            plan(config)
        found = re.findall(r"--weights (\w+)", str(error.value))
        assert tuple(found) == offered
        assert "Plan: " not in capsys.readouterr().err
    forced = PipelinePlan("align", "one", settings, ignore_memory=True)
    forced(config)
    assert "Plan: align on one does not fit: " in capsys.readouterr().err


def test_a_base_held_in_four_bits_already_is_planned_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose base was held in nf4 and a checkpoint of bitsandbytes fit where the same model in float32 does not."""
    config, settings = config_of("llama-3.2-1b"), settings_of(AlignOptions(data="x.csv"))
    (tmp_path / "stack.json").write_text(json.dumps({"base": "one", "weights": "nf4"}), encoding="utf-8")
    have = needed(config, settings, "one", "nf4") + 1
    monkeypatch.setattr("accord.planning.here.available_memory", lambda _: have)
    with pytest.raises(MachineError):
        PipelinePlan("align", "one", settings)(config)
    run = PipelinePlan("align", str(tmp_path), settings)
    run(config)
    config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    checkpoint = PipelinePlan("align", "one", settings)
    checkpoint(config)
    assert run.weights == checkpoint.weights == "nf4"


def test_the_plan_of_all_stages_is_said_first_and_can_be_ignored(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))
    path = csv_of_pairs(tmp_path / "pairs.csv")
    given = ["align", "--data", str(path), "--model", model, "--columns", "prompt=question", "chosen=best", "rejected=worst"]
    given += ["--output-dir", str(tmp_path / "run"), "--max-new-tokens", "6", "--dry-run"]
    for method in ("ppo", "dpo"):
        assert main([*given, "--method", method]) == 0
        said = capsys.readouterr().err
        assert f"Plan: align on {model} fits: " in said
        assert re.search(
            rf"  training: about .* \(.*\): sft .*, reward .*, {method} .*; the held-out reward model and the answers of the report apart",
            said,
        )
    assert (
        main([*(word if word != "6" else "1024" for word in given), "--method", "dpo"]) == 0
    )  # PPO, which is not run, could not write so much
    capsys.readouterr()
    monkeypatch.setattr("accord.planning.here.available_memory", lambda _: 1000)
    assert main(given) == 4
    assert main([*given, "--ignore-memory"]) == 0
    assert f"Plan: align on {model} does not fit: " in capsys.readouterr().err


def test_accept_licence_reaches_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def resolve(name: str, *, accept_licence: bool) -> Any:
        asked.append(accept_licence)
        raise MachineError("far enough")

    monkeypatch.setattr("accord.models.opened.resolve", resolve)
    path = csv_of_pairs(tmp_path / "pairs.csv")
    given = ["--data", str(path), "--model", "gemma3-270m", "--output-dir", str(tmp_path / "run")]
    columns = ["--columns", "prompt=question", "chosen=best", "rejected=worst"]
    assert main(["align", *given, *columns, "--accept-licence"]) == 4 and main(["align", *given, *columns]) == 4
    assert asked == [True, False]


def test_feature_layer_beyond_the_model_is_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 4, encoding="utf-8")
    given = ["--data", str(path), "--model", model, "--output-dir", str(tmp_path / "run"), "--backbone", "heads"]
    assert main(["reward", *given, "--feature-layer", "3"]) == 2
    assert "feature_layer=3: this model has 2 layers. Choose 1 to 2" in capsys.readouterr().err
    assert main(["reward", *given, "--feature-layer", "2"]) == 0
