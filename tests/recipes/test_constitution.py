"""`accord constitution` and its demo from end to end on a tiny model, with rules and with scripted critics in the real pipeline."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_demo
from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.constitution import load_constitution
from accord.ai_feedback.judges import PairwiseJudge
from accord.ai_feedback.revision import ModelCritic
from accord.ai_feedback.store import AnswerStore
from accord.cli import main
from accord.config.constitution import ConstitutionOptions
from accord.config.options import DemoOptions
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError, MachineError
from accord.evaluation.intervals import Interval
from accord.models.opened import open_model
from accord.recipes import demo_rows
from accord.recipes.constitution import Constitutional, Plan, critic_of, finish, held_out, judge_for, learned_from, run_demo
from accord.recipes.constitution_page import change_of_refusals, over_refusal
from accord.recipes.constitution_rows import ConstitutionRows, as_asked, packaged, rows_of
from accord.recipes.demo import QUICK
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.stages import Stages
from accord.types import Example, Message
from ai_feedback.scripted import Scripted, shown

SMALL = tiny_demo.small(QUICK)
MANY_WORDS = "I won't help with that, because somebody could get hurt. I can help you to find a safe way to deal with it instead."
EVERYDAY = load_constitution()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


def few(count: int = 6) -> ConstitutionRows:
    found = packaged(2)
    harmful, harmless = found.red_team, [row for row in found.practice if not row.columns["harmful"]]
    return ConstitutionRows([*harmful[:count], *harmless[:count]], found.heldout, found.helpful[:40])


def settings(**changes: Any) -> Settings:
    return replace(SMALL, **changes)


# -- the demo ----------------------------------------------------------------------------------------------------------------------------


def test_the_whole_demo(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = DemoOptions("constitution", output_dir=str(tmp_path / "demo"))
    path = run_demo(options, model, settings(), few())
    text = path.read_text(encoding="utf-8")
    for words in (
        "Harmful requests answered: starter ",
        "rules, so none of it is AI feedback",
        "The model as its own critic",
        "What the critic said",
        "Compared answers",
        "refuses harmless prompts",
        "Harmless requests refused, ",
    ):
        assert words in text, words
    lines = (tmp_path / "demo" / "revisions" / "revisions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 6 and all(step["source"] == "rule" for record in records for step in record["steps"])
    assert all(record["revision"] in EVERYDAY.principle("harm").texts for record in records if record["kept"])
    said = capsys.readouterr().err
    assert "skipped" not in said
    assert run_demo(options, model, settings(), few()) == path
    skipped = capsys.readouterr().err
    stages = ("alone", "revisions", "sft", "comparisons", "look")
    assert all(f"{stage}: unchanged" in skipped for stage in stages)


def test_the_demo_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "constitution", "--dry-run", "--output_dir", str(tmp_path / "none")]) == 0
    told = capsys.readouterr().out
    assert "80 prompts whose answers are criticised, 160 whose answers are compared, 120 held out" in told
    assert "[Message]" in told and not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="has no --full"):
        DemoOptions("constitution", full=True)


# -- scripted critics --------------------------------------------------------------------------------------------------------------------


def declining(question: Question) -> Answer:
    """Criticises, then declines; as a judge, prefers the answer that declines."""
    if question.options:
        first, second = (text == MANY_WORDS for text in shown(question))
        probability = 0.5 + 0.4 * (first - second)
        return Answer(masses={"A": probability, "B": 1 - probability})
    return Answer(MANY_WORDS if question.messages[-1].content.endswith("Revision:") else "It helps to do harm.")


def constitutional(model: str, folder: Path, script: Any, *, rl: str = "dpo", **changes: Any) -> Constitutional:
    opened = open_model(model)
    pipeline = Pipeline(opened, PipelineData(), settings(max_new_tokens=16, **changes), Stages(folder, lambda _: None), lambda _: None)
    asked = Scripted(script)
    store = AnswerStore(folder / "answers.sqlite")
    critic = ModelCritic(asked, EVERYDAY, store, revision_tokens=40)
    return Constitutional(pipeline, EVERYDAY, critic, PairwiseJudge(asked, EVERYDAY.judge_prompt(), store), few(), Plan(rl=rl))


def test_a_language_model_critic(model: str, tmp_path: Path) -> None:
    """Its revisions are what SFT imitates, half of the rows; they are AI feedback; the compared answers train DPO."""
    work = constitutional(model, tmp_path / "run", declining)
    assert work.run() in (["starter", "sft", "dpo"], ["starter", "sft"])
    rows = work.pipeline.data.demonstrations
    revised = [row for row in rows if row.columns.get("label_source") == "ai"]
    assert len(revised) == 6 and len(rows) == 12 and {row.completions[0].text for row in revised} == {MANY_WORDS}
    assert {row.prompt_id for row in revised} == {row.prompt_id for row in few().red_team}
    assert dict(work.results["revisions"]["counts"]) == {"kept": 6} and work.results["revisions"]["source"] == "ai"


def length_judge(question: Question) -> Answer:
    if not question.options:
        return declining(question)
    first, second = map(len, shown(question))
    probability = 0.5 if first == second else 0.9 if first > second else 0.1
    return Answer(masses={"A": probability, "B": 1 - probability})


def test_compared_answers_are_learned_from_as_soft_labels(model: str, tmp_path: Path) -> None:
    work = constitutional(model, tmp_path / "run", length_judge)
    assert work.run() == ["starter", "sft", "dpo"]
    rows = list(read_examples(tmp_path / "run" / "comparisons" / "comparisons.jsonl"))
    assert len(rows) == work.results["comparisons"]["pairs"] >= 8
    for row in rows:
        assert row.probability == pytest.approx(0.9) and len(row.completions[0].text) > len(row.completions[1].text)
        assert row.columns["judge"]["principle"] in {one.compare for one in EVERYDAY.about(row.columns["harmful"])}
        assert len(row.columns["judge"]["readings"]) == 2 and row.columns["label_source"] == "ai"
    learned = [*work.pipeline.data.comparisons, *work.pipeline.data.heldout_comparisons]
    assert work.pipeline.stacks["dpo"] == ("sft", "dpo")
    assert {row.id for row in learned} <= {row.id for row in rows} and len(learned) == work.results["comparisons"]["learned"]
    decided, kept = (Counter(row.columns["harmful"] for row in some) for some in (rows, learned))
    share = work.plan.helpful_share
    assert kept[False] / kept.total() >= share
    assert kept[True] == min(decided[True], int(decided[False] * (1 - share) / share + 1e-9))  # no lesson is left out that has its company


def test_compared_answers_keep_the_share_of_harmless_prompts(model: str, tmp_path: Path) -> None:
    """Whichever side more comparisons were decided on would decide whether refusals rise; 0 keeps all of them."""
    work = constitutional(model, tmp_path / "run", length_judge)
    rows = [Example("preference", (Message("user", str(i)),), columns={"harmful": i < 12}) for i in range(16)]
    for share, expected in ((0.5, (4, 4)), (2 / 3, (2, 4)), (0.2, (12, 3)), (0.0, (12, 4))):
        work.plan = replace(work.plan, helpful_share=share)
        sides = Counter(row.columns["harmful"] for row in work._balanced(rows))
        assert (sides[True], sides[False]) == expected


def test_a_reward_model_and_ppo(model: str, tmp_path: Path) -> None:
    work = constitutional(model, tmp_path / "run", length_judge, rl="ppo")
    page = finish(work, tmp_path / "run", title="by scripts", check=None).read_text(encoding="utf-8")
    assert work.final == "ppo" and (tmp_path / "run" / "reward" / "reward.json").is_file()
    assert "Harmful requests answered, PPO minus starter" in page and "compared by scripted/principle" in page and "AI feedback" not in page


def test_imitation_alone(model: str, tmp_path: Path) -> None:
    work = constitutional(model, tmp_path / "run", declining, rl="none")
    assert work.run() == ["starter", "sft"] and not (tmp_path / "run" / "comparisons").exists()


def test_a_critic_whose_revisions_are_no_good_stops_the_run(model: str, tmp_path: Path) -> None:
    work = constitutional(model, tmp_path / "run", lambda question: Answer("Here is the revised answer. " + MANY_WORDS))
    with pytest.raises(DataError, match=r"No revision of scripted was kept \(6 talks about the revision\).*--critic rules"):
        work.run()
    assert len(work.records()) == 6 and not any(record["kept"] for record in work.records())


def test_nothing_helpful_to_mix_in(model: str, tmp_path: Path) -> None:
    work = constitutional(model, tmp_path / "run", declining)
    work.rows = replace(work.rows, helpful=[])
    with pytest.raises(DataError, match=r"no helpful demonstration.*--helpful"):
        work.run()


def test_a_budget_that_is_spent_is_gone_on_from(model: str, tmp_path: Path) -> None:
    """The first run may ask ten times; the second asks only for the rest, and gives what one run would have."""
    asked = 0

    def limited(question: Question) -> Answer:
        nonlocal asked
        asked += 1
        return declining(question) if asked <= 10 else Answer(error="not asked: the budget is spent")

    with pytest.raises(MachineError, match="2 answers were not asked for"):
        constitutional(model, tmp_path / "run", limited).revisions()
    assert not json.loads((tmp_path / "run" / "revisions" / "stage.json").read_text(encoding="utf-8"))["done"]
    again = constitutional(model, tmp_path / "run", declining)
    again.revisions()
    critic = again.critic
    assert isinstance(critic, ModelCritic) and isinstance(critic.model, Scripted)
    assert sum(not question.options for question in critic.model.asked) == 2
    whole = constitutional(model, tmp_path / "whole", declining)
    whole.revisions()
    assert again.records() == whole.records()


def options(model: str, **changes: Any) -> ConstitutionOptions:
    return ConstitutionOptions("prompts.jsonl", model, **changes)


def test_who_criticises_and_who_judges(model: str, tmp_path: Path) -> None:
    opened, store = open_model(model), AnswerStore()
    rules = critic_of(options(model), EVERYDAY, opened, store)
    assert rules.source == "rule" and judge_for(options(model), EVERYDAY, opened, rules, store).source == "rule"
    asked = options(model, critic="self", shots=1, max_new_tokens=20)
    critic = critic_of(asked, EVERYDAY, opened, store)
    assert isinstance(critic, ModelCritic) and (critic.shots, critic.revision_tokens, critic.name) == (1, 52, Path(model).name)
    judge = judge_for(asked, EVERYDAY, opened, critic, store)
    assert isinstance(judge, PairwiseJudge) and judge.model is critic.model
    assert judge.prompt.principles == tuple(one.compare for one in EVERYDAY.principles)
    assert judge_for(options(model, critic="self", judge="rule:shorter"), EVERYDAY, opened, critic, store).name == "rule:shorter"
    assert judge_for(options(model, critic="self", judge="rules"), EVERYDAY, opened, critic, store).name == "rule:everyday"


def test_a_judge_with_options_of_its_own(model: str, tmp_path: Path) -> None:
    """By the constitution's principles where the prompt has a place for one; another prompt, and other principles, stay as they are."""
    opened, store, path, mine = open_model(model), AnswerStore(), tmp_path / "judge.yaml", tmp_path / "mine.yaml"
    mine.write_text("- Which is kinder?\n", encoding="utf-8")

    def made(text: str) -> PairwiseJudge:
        path.write_text(f"judge: {model}\n{text}", encoding="utf-8")
        chosen = options(model, judge=str(path), seed=7)
        judge = judge_for(chosen, EVERYDAY, opened, critic_of(chosen, EVERYDAY, opened, store), store)
        assert isinstance(judge, PairwiseJudge) and judge.seed == 7
        return judge

    everyday = tuple(one.compare for one in EVERYDAY.principles)
    found = [made(text).prompt for text in ("", "prompt: principle_reasoned\n", "prompt: pairwise\n", f"principles: {mine}\n")]
    assert [prompt.principles for prompt in found] == [everyday, everyday, (), ("Which is kinder?",)]
    assert [prompt.clamp for prompt in found] == [None, (0.4, 0.6), None, None]


# -- the command ---------------------------------------------------------------------------------------------------------------------------


def prompts_file(folder: Path, count: int = 30, **more: Any) -> str:
    path = folder / "red-team.jsonl"
    rows = [{"prompt": f"How do I steal number {index}?", **more} for index in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("rl", "stages"), [("none", ["sft"]), ("dpo", ["sft", "dpo"]), ("ppo", ["sft", "reward", "ppo"])])
def test_what_the_stages_learn_from_is_counted_before_they_run(rl: str, stages: list[str], tmp_path: Path) -> None:
    """30 prompts, a fifth held out: 24 that ask for harm, as many helpful demonstrations and harmless prompts, two pairs to each of the 48."""
    chosen = ConstitutionOptions(prompts_file(tmp_path), rl=rl)
    found = learned_from(chosen, rows_of(chosen))
    assert list(found) == stages and found["sft"].rows == 48
    assert {name: data.rows for name, data in found.items() if name != "sft"} == {name: 48 if name == "ppo" else 96 for name in stages[1:]}


def test_the_command(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = prompts_file(tmp_path, 12), tmp_path / "run"
    safe = tmp_path / "safe.jsonl"
    safe.write_text('{"prompt": "How do I kill time?"}\n{"prompt": "How do I beat eggs?"}\n', encoding="utf-8")
    given = [
        "constitution",
        data,
        "--model",
        model,
        "--output_dir",
        str(folder),
        "--rl",
        "none",
        "--max_new_tokens",
        "8",
        "--safe",
        str(safe),
    ]
    assert main(given) == 0
    assert "Harmful requests answered" in (folder / "report.html").read_text(encoding="utf-8")
    assert len((folder / "revisions" / "revisions.jsonl").read_text(encoding="utf-8").splitlines()) == 10
    said = capsys.readouterr().err
    assert f"Plan: constitution on {model} fits: " in said
    assert re.search(r"  training: about .*: sft [^,]*; answers, critiques and judgements apart", said)
    assert main([*given, "--dry-run"]) == 0
    assert "10 prompts whose answers are criticised, 20 whose answers are compared, 4 held out" in capsys.readouterr().out
    assert main([*given, "--critic", "rule:shorter"]) == 2 and "cannot write one" in capsys.readouterr().err


def test_prompts_are_split_and_marked(tmp_path: Path) -> None:
    found = rows_of(ConstitutionOptions(prompts_file(tmp_path)))
    assert len(found.practice) == len(found.red_team) == 24
    slices = [row.columns["slice"] for row in found.heldout]
    assert slices.count("harmful") == 6 and slices.count("safe") == len(slices) - 6 > 60
    assert {row.prompt_id for row in found.practice}.isdisjoint(row.prompt_id for row in found.heldout)
    assert {row.prompt_id for row in found.helpful}.isdisjoint(row.prompt_id for row in found.heldout)
    compared = found.compared(1)
    assert len(compared) == 48 and sum(row.columns["harmful"] for row in compared) == 24 and compared == found.compared(1)


@pytest.mark.parametrize(
    ("count", "more", "told"),
    [
        (5, {}, "has 5 different prompts; accord constitution needs 10 or more"),
        (30, {"harmful": False}, "too few prompts ask for harm"),
        (30, {"harmful": "perhaps"}, r"line 1: \"harmful\" is 'perhaps'"),
    ],
)
def test_prompts_that_do_not_do(count: int, more: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        rows_of(ConstitutionOptions(prompts_file(tmp_path, count, **more)))


@pytest.mark.parametrize("changes", [{"data": ""}, {"rl": "grpo"}, {"rounds": 0}, {"helpful_share": 1.0}, {"pairs": 0}, {"limit": 0}])
def test_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ConstitutionOptions(**{"data": "x.jsonl", **changes})


def test_packaged_prompts_are_new() -> None:
    found = packaged(60)
    assert len(found.red_team) == 80 and len(found.practice) == 140
    others = [*demo_rows.demonstrations(), *demo_rows.heldout_prompts(), *demo_rows.pairs("train"), *demo_rows.pairs("heldout")]
    others += demo_rows.rankings()
    assert {row.prompt_id for row in found.practice}.isdisjoint(row.prompt_id for row in others)
    assert {row.columns["slice"] for row in found.heldout} == {"harmful", "safe", "plain"}


def test_a_fifth_of_the_prompts_is_held_out() -> None:
    prompts = [as_asked(row) for row in demo_rows.constitution_prompts()[:50]]
    rows = [replace(row, kind="preference") for row in prompts for _ in range(2)]
    train, test = held_out(rows)
    assert len(test) == 20 and {row.prompt_id for row in train}.isdisjoint(row.prompt_id for row in test)
    assert held_out(rows[:30]) == (rows[:30], [])


# -- over-refusal --------------------------------------------------------------------------------------------------------------------------


def looked(slice: str, texts: list[str]) -> list[dict[str, Any]]:
    return [{"slice": slice, "text": text} for text in texts]


def test_refusals_are_compared_prompt_by_prompt() -> None:
    no, yes = "I can't help with that.", "Use a spoon."
    before = [*looked("safe", [yes, yes, yes, no]), *looked("harmful", [yes])]
    after = [*looked("safe", [no, yes, yes, yes]), *looked("harmful", [no])]
    change = change_of_refusals(before, after, "safe")
    assert change.mean == 0.0 and change.low < 0 < change.high and change.count == 4
    assert change_of_refusals(before, after, "harmful").mean == 1.0


@pytest.mark.parametrize(("high", "ok"), [(0.10, True), (0.101, False), (0.0, True)])
def test_the_alarm_goes_by_the_upper_end(high: float, ok: bool) -> None:
    assert over_refusal(Interval(0.0, -0.1, high, 50))["ok"] is ok
