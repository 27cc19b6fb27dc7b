"""accord evaluate --best-of, accord sft --best-of and accord prm label, each to its end as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from accord.cli import main
from accord.data.read import read_examples

FEW = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--lora_r", "2"]
FUNCTIONS = """
def texts(completions):
    return [completion[0]["content"] for completion in completions]

def size(completions):
    return [len(text) for text in texts(completions)]

def even(completions):
    return [float(len(text) % 2 == 0) for text in texts(completions)]

def never(completions):
    return [0.0 for text in completions]

def half(completions):
    return [None if len(text) % 2 else 1.0 for text in texts(completions)]

def final(completions):
    return [str(len(text)) if text else None for text in texts(completions)]

def short(completions):
    return ["x"]
"""
PROMPTS = [{"prompt": f"Tell me about {i}", "gold": i} for i in range(4)]
STEPS = [{"prompt": f"Add {i}", "completions": [f"{i}+1={i + 1}", f"{i}+2={i}"], "labels": [True, i % 2 == 0]} for i in range(6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows, functions, and a run of each kind of judge."""
    folder = tmp_path_factory.mktemp("place")
    tiny.model().save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    pairs = [{"prompt": f"Pick {i}", "chosen": f"Blue {i}.", "rejected": "No idea."} for i in range(6)]
    for name, rows in (("prompts", PROMPTS), ("steps", STEPS), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "f.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


Runner = Callable[..., str]


@pytest.fixture
def accord(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    monkeypatch.chdir(place)

    def run(*given: str, code: int = 0) -> str:
        capsys.readouterr()
        found = main([*given])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.out + said.err

    return run


def judge(accord: Runner, method: str) -> str:
    folder = f"runs/{method}"
    if not Path(folder).exists():
        accord(method, f"{'pairs' if method == 'reward' else 'steps'}.jsonl", "--model", "model", "--output_dir", folder, *FEW)
    return folder


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# -- accord evaluate --best-of ------------------------------------------------------------------------------------------------------------

EVALUATE = ["evaluate", "model", "--data", "prompts.jsonl", "--max_new_tokens", "6"]


def test_the_curve_of_a_function(accord: Runner) -> None:
    """The proxy's best of all four answers is the highest of each prompt; the truth is that answer's; the same command samples nothing again."""
    given = [*EVALUATE, "--best-of", "4", "--reward", "f.py:size", "--true", "f.py:even", "--answer", "f.py:final", "--output_dir", "curve"]
    said = accord(*given)
    assert "sampled 4 answers to 4 of 4 prompts" in said
    report = json.loads(Path("curve/best_of.json").read_text(encoding="utf-8"))
    scores = lines("curve/scores.jsonl")
    groups = [scores[i : i + 4] for i in range(0, 16, 4)]
    assert all(len({row["prompt_id"] for row in group}) == 1 for group in groups) and report["prompts"] == 4
    last, first = report["curve"][-1], report["curve"][0]
    assert [point["n"] for point in report["curve"]] == [1, 2, 4]
    best = [max(row["proxy"]["value"] for row in group) for group in groups]
    assert last["proxy"] == pytest.approx(sum(best) / 4)
    worth = []
    for group, highest in zip(groups, best, strict=True):
        tied = [row["true"]["value"] for row in group if row["proxy"]["value"] == highest]
        worth.append(sum(tied) / len(tied))
    assert last["true"]["mean"] == pytest.approx(sum(worth) / 4)
    assert first["true"]["mean"] == pytest.approx(sum(row["true"]["value"] for row in scores) / 16) and first["gain"]["mean"] == 0
    assert last["pass_at_n"] == pytest.approx(sum(any(row["true"]["value"] for row in group) for group in groups) / 4)
    assert {row["answer"] for row in scores if "answer" in row} <= {str(row["proxy"]["value"]).removesuffix(".0") for row in scores}
    table = [line.split() for line in said.splitlines()]
    assert [
        "n",
        "KL",
        "bound",
        "proxy",
        "true",
        "95",
        "%",
        "interval",
        "gain",
        "95",
        "%",
        "interval",
        "pass@n",
        "majority",
        "weighted",
    ] in table
    assert any(row[:2] == ["4", "0.6363"] for row in table)  # log 4 - 3/4
    samples = Path("curve/samples.jsonl").read_bytes()
    again = accord(*given)
    assert "sampled" not in again and Path("curve/samples.jsonl").read_bytes() == samples
    assert "samples of other settings (seed 0 then, 1 now)" in accord(*given, "--seed", "1", code=2)


def test_reward_models_and_process_reward_models_choose(accord: Runner) -> None:
    """Without --true only the proxy is shown; the sum is weighted; the folder has a name of its own."""
    reward, prm = judge(accord, "reward"), judge(accord, "prm")
    said = accord(*EVALUATE, "--best-of", "3", "--reward_model", f"{reward}*2", prm, "--aggregation", "mean")
    folder = Path("runs/best-of-3-model-prompts")
    report = json.loads((folder / "best_of.json").read_text(encoding="utf-8"))
    assert [point["n"] for point in report["curve"]] == [1, 2, 3] and report["curve"][0]["true"] is None and "true" not in said
    for row in lines(folder / "scores.jsonl"):
        parts, value = row["proxy"]["parts"], row["proxy"]["value"]
        assert value is None or value == pytest.approx(2 * parts["reward"] + parts["prm"], abs=1e-5)
        assert value is None or (0 < parts["prm"] < 1 and parts["prm/steps"] >= 1)


def test_named_rewards_choose_judge_and_label(accord: Runner) -> None:
    """The rows' column "gold" is what accuracy reads."""
    accord(*EVALUATE, "--best-of", "2", "--reward", "repetition", "--true", "accuracy", "--output_dir", "named")
    rows = lines("named/scores.jsonl")
    assert {row["true"]["value"] for row in rows} <= {0.0, 1.0} and all(row["true"]["explanation"] for row in rows)
    accord(*LABEL, "20", "prompts.jsonl", "--reward", "accuracy", "--solutions", "4", "--step-separator", "e", "--to", "named.jsonl")
    assert all(row["labelled_by"]["reward"] == ["accuracy"] for row in lines("named.jsonl"))


def test_answers_that_are_not_scored_are_said(accord: Runner) -> None:
    said = accord(*EVALUATE, "--best-of", "2", "--reward", "f.py:half", "--true", "f.py:size", "--output_dir", "some")
    assert "answers have no reward to be chosen by (half returned None (not scored))" in said
    said = accord(*EVALUATE, "--best-of", "8", "--reward", "f.py:size", "--true", "f.py:half", "--output_dir", "none", code=3)
    assert "No prompt has a true reward for each of its answers" in said


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["model", "--best-of", "2"], 2, "needs what to choose by"),
        (["model", "--reward", "f.py:size"], 2, "--reward belongs to --best-of"),
        (["model", "--best-of", "2", "--reward", "f.py:size", "--answer", "f.py:final"], 2, "--answer needs --true"),
        (["model", "--best-of", "2", "--reward", "f.py:size", "--aggregation", "sum"], 2, "must be one of min, product"),
        (["model", "--best-of", "2", "--reward", "f.py:size", "--temperature", "0"], 2, "--temperature 0.0 must be above 0"),
        (["model", "--best-of", "2", "--reward", "f.py:nothing"], 2, "no function 'nothing'"),
        (
            ["model", "--best-of", "2", "--reward", "f.py:size", "--true", "f.py:even", "--answer", "f.py:short"],
            2,
            "returned 1 answers for 8",
        ),
        (["runs/prm", "--best-of", "2", "--reward", "f.py:size"], 2, "is a process reward model and writes no answers"),
        (["model", "--best-of", "2", "--reward_model", "model"], 3, "holds no reward model"),
        (["model", "--best-of", "2", "--reward", "f.py:size", "--max_new_tokens", "600"], 2, "leaves no room for a prompt"),
    ],
)
def test_mistakes_with_best_of(given: list[str], code: int, words: str, accord: Runner) -> None:
    judge(accord, "prm")
    few = [] if "--max_new_tokens" in given else ["--max_new_tokens", "4"]
    assert words in accord("evaluate", *given, "--data", "prompts.jsonl", *few, code=code)


# -- accord sft --best-of -----------------------------------------------------------------------------------------------------------------


def test_imitating_the_best_of_sampled_answers(accord: Runner) -> None:
    """It trains on exactly the rows of best_of.jsonl: right answers only, the first of each prompt, and says what is left out."""
    given = ["sft", "prompts.jsonl", "--model", "model", "--best-of", "3", "--sample_tokens", "6", "--output_dir", "runs/rft", *FEW]
    said = accord(*given, "--reward", "f.py:even")
    samples = lines("runs/rft/samples.jsonl")[1:]
    rows = list(read_examples("runs/rft/best_of.jsonl"))
    expected = []
    for start in range(0, 12, 3):
        right = [row for row in samples[start : start + 3] if len(row["text"]) % 2 == 0]
        expected += right[:1]
    assert len(expected) > 0 and [row.completions[0].text for row in rows] == [row["text"] for row in expected]
    assert [row.completions[0].finished for row in rows] == [row["finish_reason"] == "stop" for row in expected]
    assert f"{len(expected)} of 4 prompts have an answer with a reward of 1 or more; {4 - len(expected)} have none and are left out" in said
    source = rows[0].completions[0].source
    assert (source["kind"], source["model"], source["seed"], source["reward"], source["best_of"]) == ("sample", "model", 42, 1.0, 3)
    record = json.loads(Path("runs/rft/run.json").read_text(encoding="utf-8"))
    assert record["finished"] and record["data"]["train_dataset"]["rows"] == len(rows)
    again = accord("sft", "runs/rft/best_of.jsonl", "--model", "model", "--output_dir", "runs/again", *FEW)
    assert "Saved in" in again
    other = json.loads(Path("runs/again/run.json").read_text(encoding="utf-8"))
    assert other["data"] == record["data"] and other["metrics"]["loss"] == record["metrics"]["loss"]


def test_nothing_to_imitate_and_reward_models(accord: Runner) -> None:
    given = ["sft", "prompts.jsonl", "--model", "model", "--best-of", "2", "--sample_tokens", "4", *FEW]
    said = accord(*given, "--reward", "f.py:never", "--output_dir", "runs/nothing-right", code=3)
    assert "None of 8 sampled answers has a reward of 1 or more" in said and not Path("runs/nothing-right/run.json").exists()
    said = accord(*given, "--reward_model", judge(accord, "reward"), "--keep_from", "-1000", "--output_dir", "runs/by-reward")
    assert "4 of 4 prompts have an answer with a reward of -1000 or more; 0 have none" in said
    assert len(lines("runs/by-reward/best_of.jsonl")) == 4


def test_dry_run_of_best_of_samples_nothing(accord: Runner) -> None:
    given = ["sft", "prompts.jsonl", "--model", "model", "--best-of", "3", "--reward", "f.py:even", "--output_dir", "runs/dry", *FEW]
    said = accord(*given, "--dry-run")
    assert "3 answers of at most 256 tokens to each" in said and "4 prompts, " in said and "best_of: 3" in said
    assert "Tell me about 0" in said and "memory about" in said and not Path("runs/dry").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--best-of", "2"], "accord sft --best-of needs a reward"),
        (["--reward", "f.py:even"], "accord sft takes it with --best-of N"),
        (["--best-of", "-1"], "--best_of -1 must be 0 or more"),
        (["--best-of", "2", "--reward", "f.py:even", "--ptx_data", "pairs.jsonl"], "accord sft has no --ptx_data"),
    ],
)
def test_mistakes_with_sft(given: list[str], words: str, accord: Runner) -> None:
    assert words in accord("sft", "prompts.jsonl", "--model", "model", "--output_dir", "runs/no", *given, code=2)
    assert not Path("runs/no").exists()


# -- accord prm label ---------------------------------------------------------------------------------------------------------------------

LABEL = ["prm", "label", "--model", "model", "--rollouts", "3", "--max_new_tokens"]


def test_labels_of_given_solutions_train_a_process_reward_model(accord: Runner) -> None:
    """Both estimates of each step stand in rows that accord prm reads; with the same samples the same file comes again."""
    given = [*LABEL, "5", "--data", "steps.jsonl", "--reward", "f.py:even", "--to", "made/steps.jsonl"]
    said = accord(*given)
    rows = list(read_examples("made/steps.jsonl"))
    assert [[m.content for m in row.completions[0].messages] for row in rows] == [row["completions"] for row in STEPS]
    completions = lines("made/steps.completions.jsonl")[1:]
    assert len(completions) == 6 * 3
    for row, index in zip(rows, range(6), strict=True):
        first, second = (message.content for message in row.completions[0].messages)
        mine = completions[3 * index : 3 * index + 3]
        right = sum(len(f"{first}\n{completion['text']}") % 2 == 0 for completion in mine)
        whole = float(len(f"{first}\n{second}") % 2 == 0)
        assert row.step_probabilities == (pytest.approx(right / 3), whole)
        assert row.step_labels == (1 if right else -1, 1 if whole else -1)
        assert row.columns["labelled_by"]["kind"] == "rollouts" and row.columns["labelled_by"]["rollouts"] == 3
    assert "6 solutions with 12 steps are in made/steps.jsonl" in said
    shares = {line[:28].strip(): float(line[28:]) for line in said.splitlines() if line.startswith("right (")}
    assert shares["right (soft estimate)"] == pytest.approx(
        sum(value or 0.0 for row in rows for value in row.step_probabilities or ()) / 12, abs=1e-4
    )
    before = Path("made/steps.jsonl").read_bytes()
    assert "sampled" not in accord(*given) and Path("made/steps.jsonl").read_bytes() == before
    for options in ([], ["--soft-labels"]):
        accord("prm", "made/steps.jsonl", "--model", "model", "--backbone", "heads", "--max_steps", "2", "--output_dir", f"runs/l{len(options)}", *options)  # fmt: skip
    losses = [lines(f"runs/l{count}/metrics.jsonl")[-1]["loss"] for count in (0, 1)]
    assert losses[0] != losses[1]


def test_labels_of_sampled_solutions(accord: Runner) -> None:
    """Solutions are sampled first; "e" ends a step here. Columns of the prompts stay."""
    said = accord(*LABEL, "20", "prompts.jsonl", "--reward", "f.py:even", "--solutions", "4", "--step-separator", "e")
    rows, solutions = list(read_examples("prompts-steps.jsonl")), lines("prompts-steps.solutions.jsonl")[1:]
    assert len(solutions) == 16 and 0 < len(rows) <= 16 and {row.columns["gold"] for row in rows} <= {0, 1, 2, 3}
    assert len(rows) == 16 or f"{16 - len(rows)} of 16 sampled solutions have no whole step and are left out" in said
    assert all(len(row.completions[0].messages) == len(row.step_labels or ()) == len(row.step_probabilities or ()) for row in rows)
    assert all(row.columns["labelled_by"]["solution"]["kind"] == "sample" for row in rows)


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["prompts.jsonl"], 2, "needs --data and --reward"),
        (["prompts.jsonl", "--reward", "f.py:even", "--to", "pairs.jsonl"], 2, "pairs.jsonl is there already"),
        (["prompts.jsonl", "--reward", "f.py:even", "--rollouts=0"], 2, "--rollouts 0 must be 1 or more"),
        (["prompts.jsonl", "--reward", "f.py:even", "--step-separator", ""], 2, "--step_separator must be some text"),
        (
            ["prompts.jsonl", "--reward", "f.py:even", "--step-separator", "<no such thing>", "--to", "x.jsonl"],
            3,
            "no solution with a step",
        ),
        (["nowhere.jsonl", "--reward", "f.py:even"], 3, "nowhere.jsonl"),
    ],
)
def test_mistakes_with_label(given: list[str], code: int, words: str, accord: Runner) -> None:
    said = accord("prm", "label", "--model", "model", "--max_new_tokens", "5", *given, code=code)
    assert words in said and "Traceback" not in said


def test_prm_label_is_a_command_of_its_own(accord: Runner) -> None:
    assert "usage: accord prm label [DATA]" in accord("prm", "label", "--help") and "usage: accord prm [DATA]" in accord("prm", "--help")
    assert "prm label" in accord("--help")
