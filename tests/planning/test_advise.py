"""Twenty-four situations and what an expert would say; the recipes are files that the command line takes; what is missing is asked."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import pytest
import yaml

from accord.arguments import parse
from accord.cli import COMMANDS, main
from accord.commands.plan import asked_for, decide, hours_of, plan_situation
from accord.config.base import field_help
from accord.config.plan import FEEDBACK, GOALS, AdviseOptions, PlanOptions
from accord.errors import ConfigError
from accord.planning.advise import METHODS, SOURCES, Stage, advise
from accord.planning.machine import HARDWARE
from accord.planning.recipe_files import write_recipes
from accord.recipes.stage_plans import stage_plans
from planning.situations import SITUATIONS, Situation

ROOT = Path(__file__).resolve().parents[2]


def said(advice: object) -> str:
    return "\n".join([*map(str, advice.reasons), advice.labels, *map(str, advice.cautions)])


@pytest.mark.parametrize("name", SITUATIONS)
def test_an_expert_would_say_so(name: str, tmp_path: Path) -> None:
    situation: Situation = SITUATIONS[name]
    advice, plans = decide(AdviseOptions(**situation.told))
    assert advice.method == situation.method
    assert tuple(stage.command for stage in advice.stages) == situation.commands
    for part in situation.says:
        assert part in said(advice), part
    assert all(one.plan.fits for found in plans for one in found) is situation.fits
    assert all(found for stage, found in zip(advice.stages, plans, strict=True) if stage.command != "judge"), "what trains is planned"
    if advice.stages:
        assert situation.options.items() <= advice.stages[-1].options.items()
    for stage, path in zip(advice.stages, write_recipes(advice, str(tmp_path / "recipe.yaml"), overwrite=False), strict=True):
        # The command line takes the file as it is, and gives the options back.
        parsed = parse(COMMANDS[stage.command], ["--config", str(path)])
        assert parsed is not None
        taken = {key: value for config in parsed for key, value in vars(config).items()}
        assert {key: taken[key] for key in stage.options} == stage.options


def test_there_are_twenty_situations_that_the_page_argues() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert len(SITUATIONS) >= 20
    for situation in SITUATIONS.values():
        assert situation.words in page
        assert METHODS[situation.method] in page
    assert {situation.method for situation in SITUATIONS.values()} == set(METHODS)


def test_hours_and_plans_are_kept_in() -> None:
    """7B on an A100: 20,000 pairs of 400 tokens are 8 million tokens at 6 x 7.1e9 FLOP with the reference: 0.8 h at 125 TF/s and more around it."""
    advice, plans = decide(AdviseOptions(**SITUATIONS["7B and one A100"].told))
    ((one,),) = plans
    plan = one.plan
    assert advice.method == "dpo" and plan.seconds is not None
    assert plan.need.weights == 2 * 7_615_616_512
    assert 0.6 * 3600 <= plan.seconds.total <= 2 * 3600


def test_without_a_model_the_largest_that_fits_is_taken() -> None:
    small, large = (
        decide(AdviseOptions(feedback="pairs", labels=300, hardware=where))[0].stages[0].options["model"]
        for where in ("laptop-8gb", "a100")
    )
    assert "7B" in large and small != large


@pytest.mark.parametrize("feedback", FEEDBACK)
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("base", [False, True])
def test_every_situation_has_an_answer(feedback: str, goal: str, online: bool, base: bool) -> None:
    for labels, people in ((0, 0), (0, 2), (50, 1), (600, 1), (10000, 0)):
        advice = advise(AdviseOptions(feedback=feedback, labels=labels, goal=goal, online=online, base=base, people=people))
        assert advice.reasons and advice.labels and advice.method in METHODS
        assert all(reason.source in ("", *SOURCES) for reason in (*advice.reasons, *advice.cautions))
        for stage in advice.stages:
            written = dict(stage.options)
            assert yaml.safe_load(yaml.safe_dump(written)) == written
            assert stage.command in COMMANDS


@pytest.mark.parametrize("feedback", ["thumbs", "ratings", "checkable", "judge", "pairs", "rankings", "principles", "prompts"])
def test_a_base_model_is_planned_under_the_run_that_stands_on_it(feedback: str) -> None:
    """The second stage trains runs/plan-sft, which is not there yet: its shape is the base's."""
    asked = AdviseOptions(feedback=feedback, labels=600, base=True, hardware="laptop", hours=1000.0, model="Qwen/Qwen2.5-0.5B")
    advice, plans = decide(asked)
    for stage, found in zip(advice.stages, plans, strict=True):
        assert found or stage.command == "judge"
        assert all(one.plan.need.weights >= 4 * 494_032_768 for one in found)


def test_stages_of_several_runs_are_planned_run_by_run() -> None:
    """`accord align`: SFT, the features of reward models, PPO. In rounds the last two, so often, with the labels that there are by then."""
    once, rounds = (
        decide(
            AdviseOptions(feedback="pairs", labels=1000, online=True, people=people, model="smollm2-135m", hardware="laptop", hours=99.0)
        )
        for people in (0, 1)
    )
    assert [(one.plan.what, one.times) for one in once[1][0]] == [(f"{method} on smollm2-135m", 1) for method in ("sft", "reward", "ppo")]
    assert once[1][0][0].plan.work.steps == 800 // 16 * 3 and once[1][0][2].plan.work.steps == 14 * 4
    assert [stage.command for stage in rounds[0].stages] == ["dpo", "align"]
    assert [(one.plan.what, one.times) for one in rounds[1][1]] == [("reward on runs/plan-dpo", 4), ("ppo on runs/plan-dpo", 4)]
    assert hours_of(rounds[1]) == pytest.approx(sum(one.times * one.plan.seconds.total for found in rounds[1] for one in found) / 3600)


@pytest.mark.parametrize("feedback", ["principles", "prompts", "checkable", "judge"])
def test_memory_is_looked_at_where_no_rows_are_known(feedback: str) -> None:
    advice, plans = decide(AdviseOptions(feedback=feedback, hardware="laptop-8gb", hours=1000.0))
    assert "Qwen2.5-7B" not in str([stage.options for stage in advice.stages])
    assert any(plans) and all(one.plan.fits for found in plans for one in found)


@pytest.mark.parametrize("feedback", ["demonstrations", "pairs", "rankings", "ratings", "thumbs", "steps"])
def test_nothing_is_learned_from_no_labels(feedback: str) -> None:
    assert advise(AdviseOptions(feedback=feedback, labels=0, people=0)).method == "none"
    assert advise(AdviseOptions(feedback=feedback, labels=0, people=2)).method == "collect"


def test_few_labels_are_said_to_be_few() -> None:
    assert "too few to hold any out" in advise(AdviseOptions(feedback="pairs", labels=40, people=0)).labels
    assert "hold out a fifth (20:" in advise(AdviseOptions(feedback="pairs", labels=100, people=0)).labels
    assert "under 100 of them" in said(advise(AdviseOptions(feedback="thumbs", labels=5)))


@pytest.mark.parametrize(("feedback", "base"), [("rankings", False), ("pairs", True)])
def test_rankings_and_base_models_are_aligned_before_rounds(feedback: str, base: bool) -> None:
    """`accord dpo` takes no rankings, and a base model does not answer yet: `accord align` imitates first and reads both."""
    first, rounds = advise(AdviseOptions(feedback=feedback, labels=300, online=True, base=base)).stages
    assert (first.command, first.options["method"]) == ("align", "dpo")
    assert rounds.options["rounds"] == 4 and rounds.options["model"] == f"{first.options['output_dir']}/dpo"


def test_too_little_time_for_rounds_with_a_judge_leaves_the_judge() -> None:
    asked = AdviseOptions(feedback="judge", labels=500, online=True)
    assert advise(asked).method == "rounds"
    assert [stage.command for stage in advise(asked, instead_of="rounds").stages] == ["judge", "dpo"]

    assert "two answers to each prompt that are there already" in said(advise(asked, instead_of="rounds"))


@pytest.mark.parametrize("told", [{"feedback": "judge", "online": True}, {"feedback": "principles"}, {"feedback": "thumbs", "labels": 900}])
def test_a_base_model_answers_before_anything_else(told: dict[str, object]) -> None:
    stages = advise(AdviseOptions(base=True, model="Qwen/Qwen2.5-0.5B", **told)).stages  # type: ignore[arg-type]
    assert stages[0].command == "sft" and stages[0].options["model"] == "Qwen/Qwen2.5-0.5B"
    assert stages[-1].options["model"] == stages[0].options["output_dir"] and stages[-1].base == "Qwen/Qwen2.5-0.5B"


def test_what_a_reader_has_to_put_in_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Principles are the reader's own, and their critic is nobody that a recipe can name."""
    monkeypatch.chdir(tmp_path)
    asked = AdviseOptions(feedback="principles", labels=200, model="smollm2-135m", hardware="laptop", data="tempting.jsonl")
    assert plan_situation(asked) == 0
    text, recipe = capsys.readouterr().out, Path("recipe.yaml").read_text(encoding="utf-8")
    for place in (text, recipe):
        assert "First put your own in place of PRINCIPLES.yaml (" in place and "#MODEL (" in place and "DATA.jsonl" not in place
    assert "mark harmless ones harmful: false" in text and "for prompts of 100 and answers of 150 tokens" in text
    asked = AdviseOptions(feedback="pairs", labels=300, model="smollm2-135m", hardware="laptop", data="mine.csv", overwrite=True)
    assert plan_situation(asked) == 0 and "put your own" not in capsys.readouterr().out


def test_the_users_file_is_what_recipes_read() -> None:
    (annotate,) = advise(AdviseOptions(feedback="prompts", labels=300, data="mine.jsonl")).stages
    reward, ppo = advise(AdviseOptions(feedback="pairs", labels=5000, online=True, data="mine.jsonl")).stages
    assert annotate.options["data"] == reward.options["data"] == ppo.options["data"] == "mine.jsonl"
    assert reward.options["max_new_tokens"] == ppo.options["max_new_tokens"], "a reward's scale is set on answers as long as PPO's"


def test_rankings_are_planned_as_what_they_are() -> None:
    """Of four answers: six pairs for DPO, and one row with four answers for a reward model."""
    stage = Stage("align", {"model": "smollm2-135m", "data": "mine.jsonl", "method": "dpo"}, 1000)
    pairs, rankings = (
        stage_plans([stage], AdviseOptions(feedback=feedback, labels=1000, hardware="laptop"))[0] for feedback in ("pairs", "rankings")
    )
    assert rankings[0].plan.work == pairs[0].plan.work, "the best answer is imitated"
    assert (pairs[1].plan.work.longest, rankings[1].plan.work.longest) == (100 + 2 * 150, 100 + 4 * 150)
    assert rankings[2].plan.work.steps == 6 * pairs[2].plan.work.steps


def test_hours_that_do_not_suffice_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    asked = AdviseOptions(feedback="pairs", labels=20000, model="smollm2-135m", hardware="laptop", recipe="none", hours=1.0)
    assert plan_situation(asked) == 0
    assert "Mind: that is about " in (said := capsys.readouterr().out) and "and you have 1 hour." in said
    plan_situation(dataclasses.replace(asked, labels=200))
    assert "and you have" not in capsys.readouterr().out


def test_nothing_can_be_said_by_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "nothing", "--people", "0"]) == 0
    assert "nothing says what better is" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", [".", "", "folder/"])
def test_a_recipe_is_a_file(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match="Name a file"):
        write_recipes(advise(AdviseOptions(feedback="pairs", labels=300)), recipe, overwrite=True)


def test_recipes_are_not_written_over(tmp_path: Path) -> None:
    advice = advise(AdviseOptions(feedback="pairs", labels=300))
    (path,) = write_recipes(advice, str(tmp_path / "mine.yaml"), overwrite=False)
    assert path.read_text(encoding="utf-8").startswith(f"# accord dpo --config {path.as_posix()}\n# ")
    with pytest.raises(ConfigError, match="is there already"):
        write_recipes(advice, str(path), overwrite=False)
    write_recipes(advice, str(path), overwrite=True)


def test_the_command_prints_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "pairs", "--labels", "300", "--hardware", "laptop", "--model", "smollm2-135m", "--data", "mine.csv"]) == 0
    text = capsys.readouterr().out
    assert "Method: direct preference optimisation (DPO)" in text and "[Rafailov et al. 2023, arXiv:2305.18290]" in text
    assert "accord dpo --config recipe.yaml" in text and "fits: " in text and "time: about" in text
    assert yaml.safe_load(Path("recipe.yaml").read_text(encoding="utf-8"))["data"] == "mine.csv"


def test_what_does_not_fit_is_said_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_situation(AdviseOptions(**SITUATIONS["7B and 8 GB"].told, recipe="none")) == 4
    assert "does not fit" in capsys.readouterr().out


def test_what_is_missing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(["pears", "2", "many", "3,000", "reasoning", "abacus", "rtx4090", "n", "yes", "2", "5"])
    found = asked_for(AdviseOptions(), ask=lambda _: next(answers))
    assert found == AdviseOptions(feedback="pairs", labels=3000, goal="reasoning", hardware="rtx4090", online=True, people=2, hours=5.0)
    assert next(answers, None) is None
    shown = capsys.readouterr().out
    assert "comparisons of two answers" in shown and "1 this            this machine" in shown
    assert all(f"{name} " in shown and known.title in shown for name, known in HARDWARE.items())
    answers = iter(
        ["principles", "style", "1", "n", "n", "1.5", "²", "3", "0", "0.5"]
    )  # no count is asked; people are whole, hours above 0
    found = asked_for(AdviseOptions(), ask=lambda _: next(answers))
    assert found == AdviseOptions(feedback="principles", goal="style", people=3, hours=0.5) and next(answers, None) is None
    assert asked_for(AdviseOptions(feedback="pairs", hours=3.0), ask=lambda _: "70") == AdviseOptions(
        feedback="pairs", labels=70, hours=3.0
    )


def test_the_end_of_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Keyboard("pairs\n"))
    with pytest.raises(ConfigError, match="Ask it with flags"):
        asked_for(AdviseOptions())


def test_without_a_terminal_the_flags_are_named() -> None:
    with pytest.raises(ConfigError, match="--feedback .demonstrations, pairs"):
        asked_for(AdviseOptions())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"feedback": "pears"}, "choose demonstrations, pairs"),
        ({"goal": "money"}, "choose style"),
        ({"labels": -1}, "0 or more"),
        ({"hours": 0.0}, "above 0"),
        ({"memory_gb": float("inf")}, "above 0"),
        ({"memory_gb": -2.0}, "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        AdviseOptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [AdviseOptions, PlanOptions])
def test_every_option_is_described(options: type) -> None:
    assert {field.name for field in dataclasses.fields(options)} == set(field_help(options))


def test_unknown_hardware_and_methods_are_named() -> None:
    with pytest.raises(ConfigError, match="a100-40"):
        decide(AdviseOptions(feedback="pairs", labels=300, hardware="abacus", model="smollm2-135m"))
    assert main(["plan", "dqo"]) == 2
