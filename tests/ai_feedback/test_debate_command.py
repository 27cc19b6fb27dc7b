"""`accord debate` as a user types it: rules, a model in this process, a server, a budget, tasks of one's own, training on verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.import_labels import import_labels
from accord.annotation.project import Project
from accord.cli import main
from accord.data.read import read_examples
from ai_feedback.serving import JudgeServer, completion

Runner = Callable[..., str]
OWN = [
    {"question": "Which color is the door?", "evidence": "The door is blue. The gate is red.", "right": "blue", "wrong": "red"},
    {"question": "Who has the key?", "evidence": "Ada has the key. Tom has the map.", "answers": ["Ada", "Tom"]},
]


@pytest.fixture
def accord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    monkeypatch.chdir(tmp_path)
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OWN), encoding="utf-8")

    def run(*given: str, code: int = 0) -> str:
        found = main(["debate", *given])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.out + said.err

    return run


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def test_rules_side_by_side(accord: Runner) -> None:
    said = accord("--judge", "rule:verified", "--debaters", "rule:fabricate", "--count", "30", "--decoy", "0")
    lines = {line.split()[0]: line for line in reversed(said.split("\n\n")[0].splitlines()) if line}
    assert "1.00 (1.00 to 1.00)" in lines["debate"] and "0.50 (0.50 to 0.50)" in lines["naive"] and "+0.50" in lines["debate"]
    record = json.loads(Path("runs/debate/debate.json").read_text(encoding="utf-8"))
    assert {row["protocol"] for row in record["protocols"]} == {"debate", "debate_sequential", "consultancy", "direct", "naive", "oracle"}
    assert (
        record["about"]["asked_debaters"] == {"rule:fabricate": {"debater": "rule:fabricate"}} and record["about"]["rules"]["words"] == 60
    )
    transcripts = read("runs/debate/transcripts.jsonl")
    assert len(transcripts) == 30 * 7 and transcripts[0]["runs"][1]["swapped"] and transcripts[0]["runs"][0]["turns"][0]["raw"]
    rows = list(read_examples("runs/debate/verdicts-debate.jsonl"))
    assert len(rows) == 30 and {row.columns["label_source"] for row in rows} == {"debate"}
    assert {row.columns["label_source"] for row in read_examples("runs/debate/verdicts-oracle.jsonl")} == {"rule"}
    page = Path("runs/debate/debate.html").read_text(encoding="utf-8")
    assert "The judge is right: debate 100 %" in page and "[NOT in the text]" in page and "never lost" in page
    accord("--judge", "rule:verified", "--debaters", "rule:quote", "--count", "4", "--protocols", "naive", "debate")
    assert not Path("runs/debate/verdicts-oracle.jsonl").exists()


def test_a_model_in_this_process_debates_and_judges(accord: Runner, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model is both and is loaded once; the same command asks nothing again and writes the same."""
    import accord.commands.debate as command

    loaded: list[str] = []
    original = command.language_model
    monkeypatch.setattr(command, "language_model", lambda named, options: (loaded.append(named), original(named, options))[1])
    model = str(tiny_folder)
    given = ("own.jsonl", "--judge", model, "--debaters", model, "--debater_prompt", "debater_short", "--rounds", "1", "--count", "0")
    said = accord(*given)
    assert loaded == [model] and "turns" in said
    before = {path.name: path.read_bytes() for path in Path("runs/debate").iterdir() if path.suffix in (".jsonl", ".json")}
    answers = sum(1 for row in read("runs/debate/transcripts.jsonl") for run in row["runs"] for _ in run["turns"])
    assert answers == 2 * 2 * (2 + 2 + 2)  # tasks, orders, turns of debate, debate_sequential, two consultants
    accord(*given)
    assert {path.name: path.read_bytes() for path in Path("runs/debate").iterdir() if path.suffix in (".jsonl", ".json")} == before
    known, unknown = (next(row for row in read("runs/debate/transcripts.jsonl") if row["where"].endswith(line)) for line in ("1", "2"))
    assert known["correct"] in (0.0, 0.5, 1.0) and unknown["right"] is None and unknown["correct"] is None


def served(body: dict[str, Any]) -> dict[str, Any]:
    """A debater that quotes the first sentence and thinks first; a judge that prefers A."""
    text = body["messages"][0]["content"]
    if "[Text]" not in text:
        return completion("A", tokens=(100, 1))
    quote = text.split("[Text]\n")[1].split(".")[0]
    return completion(f"<thinking>SECRET</thinking><argument><quote>{quote}</quote></argument>", tokens=(200, 20))


def test_a_budget_stops_and_a_larger_one_goes_on(accord: Runner, server: JudgeServer) -> None:
    server.replies = served
    address = f"{server.url}#served"
    given = ("own.jsonl", "--judge", address, "--debaters", address, "--protocols", "debate", "naive", "--concurrency", "1", "--count", "0")
    said = accord(*given, "--max_tokens", "4000", code=4)
    assert "The budget is spent" in said and "decisions are missing" in said
    asked = len(server.requests)
    accord(*given, "--max_tokens", "1000000")
    total = 2 * 2 * 4 + 2 * 2 * 2  # tasks, orders: turns of two rounds; verdicts of two protocols
    assert 0 < asked < total and len(server.requests) == total and max(server.answered.values()) == 1
    assert not any("SECRET" in str(body) for body in server.requests)
    assert all(
        run["turns"][0]["raw"].count("SECRET") == 1 for row in read("runs/debate/transcripts.jsonl") for run in row["runs"] if run["turns"]
    )


def test_options_reach_what_they_are_about(accord: Runner, server: JudgeServer) -> None:
    """Temperature and words in the debater's question, the judge's own prompt, the size of passage and excerpt, the folder."""
    server.replies = served
    address = f"{server.url}#served"
    mine = {
        "kind": "pairwise",
        "messages": [{"role": "user", "content": "MINE {conversation} A: {first} B: {second}"}],
        "options": {"A": ["A"], "B": ["B"]},
    }
    Path("mine.yaml").write_text(json.dumps(mine), encoding="utf-8")
    given = ["--temperature", "0.9", "--words", "3", "--judge_prompt", "mine.yaml", "--excerpt", "1", "--facts", "5", "--to", "elsewhere"]
    accord("--judge", address, "--debaters", address, "--protocols", "debate", "direct", "--count", "1", "--rounds", "1", *given)
    debaters = [body for body in server.requests if "[Text]" in body["messages"][0]["content"]]
    judges = [body["messages"][0]["content"] for body in server.requests if body not in debaters]
    assert {body["temperature"] for body in debaters} == {0.9} and all(
        "at most 3 words" in body["messages"][0]["content"] for body in debaters
    )
    assert len(judges) == 4 and all(text.startswith("MINE Question: ") for text in judges)
    debate, direct = read("elsewhere/transcripts.jsonl")
    assert all(turn["cut"] and not turn["segments"] for run in debate["runs"] for turn in run["turns"])  # a quote of more than 3 words
    assert direct["task"]["evidence"].count(".") == 5 and direct["task"]["evidence"] in direct["runs"][0]["judge_sees"]


def test_a_dry_run_loads_nothing(accord: Runner) -> None:
    said = accord("own.jsonl", "--judge", "no-such-model", "--debaters", "no-such-model", "--dry_run", "--count", "0")
    assert (
        "2 tasks" in said
        and "16 turns" in " ".join(said.split())
        and "The first question to a debater" in said
        and "The door is blue." in said
    )
    assert not Path("runs").exists()


def test_a_reward_model_trains_on_verdicts(accord: Runner, tiny_folder: Path) -> None:
    accord("--judge", "rule:verified", "--debaters", "rule:quote", "--count", "8", "--protocols", "debate")
    few = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--lora_r", "2"]
    assert main(["reward", "runs/debate/verdicts-debate.jsonl", "--model", str(tiny_folder), "--output_dir", "rm", *few]) == 0
    assert Path("rm/reward.json").exists()


def test_verdicts_are_annotations_of_a_project(accord: Runner, tmp_path: Path) -> None:
    """Imported as they are: the source is debate, the annotator the judge, the probability its own."""
    accord("--judge", "rule:verified", "--debaters", "rule:quote", "--count", "5", "--protocols", "debate")
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.0)
    with project.open_store() as store:
        import_labels(store, Path("runs/debate/verdicts-debate.jsonl"))
        said = list(store.annotations())
        names = {person.id: person.name for person in store.annotators()}
    assert len(said) == 5 and {one.source for one in said} == {"debate"} and {one.probability for one in said} <= {0.0, 1.0}
    assert {names[one.annotator] for one in said} == {"rule:verified"}


def test_small_models_are_told_of_the_short_prompt(accord: Runner, server: JudgeServer) -> None:
    server.replies = lambda body: completion("A")
    address = f"{server.url}#served"
    said = accord("own.jsonl", "--judge", address, "--debaters", address, "--protocols", "debate", "--rounds", "1")
    assert "8 of 8 turns have no argument" in said and "--debater_prompt debater_short" in said


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ([], 2, "needs --judge"),
        (["--judge", "rule:verified", "--protocols", "debate"], 2, "needs debaters"),
        (["--judge", "rule:best", "--protocols", "naive"], 2, "There is no judge 'rule:best'"),
        (["--judge", "rule:verified", "--debaters", "rule:shout"], 2, "There is no debater 'rule:shout'"),
        (["--judge", "rule:verified", "--protocols", "debats"], 2, "Did you mean debate"),
        (["--judge", "rule:verified", "--judge_prompt", "pairwise", "--protocols", "naive"], 2, "is asked no question"),
        (["--judge", "rule:verified", "--excerpt", "0"], 2, "--excerpt 0 must be above 0"),
        (["--judge", "rule:verified", "--rounds", "0"], 2, "--rounds 0 must be 1 or more"),
        (["--judge", "rule:verified", "--count", "0"], 2, "no file is given"),
        (["missing.jsonl", "--judge", "rule:verified"], 3, "missing.jsonl cannot be read"),
        (["--judge", "rule:verified", "--debater_prompt", "long", "--debaters", "rule:quote"], 2, "no debater's prompt 'long'"),
    ],
)
def test_mistakes_are_one_line(given: list[str], code: int, words: str, accord: Runner) -> None:
    said = accord(*given, code=code)
    assert words in said and "Traceback" not in said
