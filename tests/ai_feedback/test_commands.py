"""`accord judge` and `accord judge check` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from accord.cli import main
from accord.config.reward import RewardConfig
from accord.data.read import read_examples
from accord.methods.reward import RewardTrainer, comparisons
from ai_feedback.serving import JudgeServer, completion, says

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Question {i}", "chosen": "yes " * (1 + i % 3), "rejected": "no " * (1 + (i + 1) % 4), "strength": 2.0, "topic": i % 2}
    for i in range(12)
]
SHORT = {
    "kind": "pairwise",
    "messages": [{"role": "user", "content": "{conversation} A: {first} B: {second} Better:"}],
    "options": {"A": ["A", " A"], "B": ["B", " B"]},
}
Runner = Callable[..., str]


@pytest.fixture
def accord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Runs a command in a folder with pairs and a short prompt; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    write(Path("pairs.jsonl"), PAIRS)
    Path("short.yaml").write_text(yaml.safe_dump(SHORT), encoding="utf-8")

    def run(*given: str, code: int = 0) -> str:
        found = main([*given])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.out + said.err

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_model_in_this_process_labels_and_training_takes_its_soft_labels(accord: Runner, tiny_folder: Path) -> None:
    said = accord("judge", "pairs.jsonl", "--judge", str(tiny_folder), "--prompt", "short.yaml")
    assert "comparisons judged                 12 of 12" in said and "same winner in both orders" in said and "has not been checked" in said
    rows = read("pairs-judged.jsonl")
    judged = rows[0]["judge"]
    assert len(rows) == 12 and all(0.5 <= row["probability"] < 1 for row in rows) and not any("strength" in row for row in rows)
    assert rows[0]["label_source"] == "ai" and rows[0]["annotator"] == f"{tiny_folder.name}/short" and rows[0]["topic"] == 0
    assert judged["prompt_hash"] and len(judged["readings"]) == 2 and judged["readings"][0]["prompt_hash"] and judged["checked"] == "no"
    forward, backward = (reading["value"] for reading in judged["readings"])
    towards_chosen = (forward + 1 - backward) / 2 if judged["first"] == "chosen" else 1 - (forward + 1 - backward) / 2
    expected = towards_chosen if judged["consistent"] else 0.5 + 0.25 * (towards_chosen - 0.5)
    assert rows[0]["probability"] == pytest.approx(expected)

    found = list(read_examples("pairs-judged.jsonl"))
    trainer = RewardTrainer(
        tiny.policy(),
        RewardConfig(output_dir="run", max_steps=1, normalise=False),
        found,
        processing_class=tiny.tokenizer(),
        peft_config=tiny.lora(),
    )
    targets = comparisons(trainer.train_units).probability.tolist()
    assert sorted(targets) == pytest.approx(sorted(row["probability"] for row in rows), abs=1e-6)
    trainer.train()


def test_a_second_run_asks_nothing(accord: Runner, server: JudgeServer) -> None:
    server.replies = says("A")
    accord("judge", "pairs.jsonl", "--judge", f"{server.url}#served")
    before = Path("pairs-judged.jsonl").read_bytes()
    said = accord("judge", "pairs.jsonl", "--judge", f"{server.url}#served")
    assert len(server.requests) == 24 and "has 24 answers, which are not asked again" in said
    assert Path("pairs-judged.jsonl").read_bytes() == before


def test_a_budget_stops_and_a_larger_one_goes_on(accord: Runner, server: JudgeServer) -> None:
    server.replies = lambda body: completion("B", tokens=(300, 1))
    given = ("judge", "pairs.jsonl", "--judge", f"{server.url}#served", "--concurrency", "1")
    said = accord(*given, "--max_tokens", "4500", code=4)
    assert "The budget is spent" in said and "not asked: the budget is spent" in said
    done = len(read("pairs-judged.jsonl"))
    assert 0 < done < 12 and len(read("pairs-judged.invalid.jsonl")) == 12 - done
    before = len(server.requests)
    assert "so this says little" in accord("judge", "check", *given[1:], "--max_tokens", "4500", code=4)
    checked = len(server.requests) - before
    accord(*given, "--max_tokens", "100000")
    assert (
        len(read("pairs-judged.jsonl")) == 12 and not Path("pairs-judged.invalid.jsonl").exists() and len(server.requests) == 24 + checked
    )


def test_invalid_verdicts_are_written_beside(accord: Runner, server: JudgeServer) -> None:
    server.replies = lambda body: completion("Both are nice." if "Question 3" in body["messages"][0]["content"] else "A")
    said = accord("judge", "pairs.jsonl", "--judge", f"{server.url}#served")
    (bad,) = read("pairs-judged.invalid.jsonl")
    assert "invalid: no verdict in the text" in said and len(read("pairs-judged.jsonl")) == 11
    assert (
        bad["why"] == "no verdict in the text"
        and bad["row"] == "pairs.jsonl line 4"
        and bad["judge"]["readings"][0]["text"] == "Both are nice."
    )
    server.replies = says("Hm.")
    assert "No comparison has a valid verdict" in accord(
        "judge", "pairs.jsonl", "--judge", f"{server.url}#served", "--to", "none.jsonl", code=3
    )


def test_rules_are_rules(accord: Runner) -> None:
    accord("judge", "pairs.jsonl", "--judge", "rule:shorter")
    rows = read("pairs-judged.jsonl")
    assert {row["label_source"] for row in rows} == {"rule"} and {row["annotator"] for row in rows} == {"rule:shorter"}
    assert all(len(row["chosen"].split()) <= len(row["rejected"].split()) for row in rows)
    Path("mine.py").write_text("def size(completions):\n    return [len(c[0]['content']) for c in completions]\n", encoding="utf-8")
    accord("judge", "pairs.jsonl", "--judge", "mine.py:size", "--to", "size.jsonl")
    assert all(len(row["chosen"]) >= len(row["rejected"]) for row in read("size.jsonl"))


def test_a_reward_model_judges(accord: Runner, tiny_folder: Path) -> None:
    few = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--lora_r", "2"]
    accord("reward", "--data", "pairs.jsonl", "--model", str(tiny_folder), "--output_dir", "rm", *few)
    accord("judge", "pairs.jsonl", "--judge", "rm", "--to", "rm.jsonl")
    rows = read("rm.jsonl")
    assert {row["annotator"] for row in rows} == {"rm"} and all(0.5 <= row["probability"] <= 1 for row in rows)
    gap = rows[0]["judge"]["readings"][0]["value"] - rows[0]["judge"]["readings"][1]["value"]
    assert rows[0]["probability"] == pytest.approx(1 / (1 + 2.718281828 ** -abs(gap)), rel=1e-5)


def labelled_by_length(count: int) -> list[dict[str, Any]]:
    """People who prefer the shorter answer."""
    return [{"prompt": f"Q{i}", "chosen": "a" * (1 + i % 5), "rejected": "b " * (8 + i % 7)} for i in range(count)]


def test_check_before_use(accord: Runner) -> None:
    write(Path("people.jsonl"), labelled_by_length(60))
    said = accord("judge", "check", "people.jsonl", "--judge", "rule:longer")
    assert "people.jsonl: noise" in said and "reaches down to chance" in said
    record = json.loads(Path("judge-check.json").read_text(encoding="utf-8"))
    assert (
        record["data"][0]["word"] == "noise" and record["data"][0]["accuracy"]["mean"] == 0.0 and record["judge"]["judge"] == "rule:longer"
    )
    refused = accord("judge", "pairs.jsonl", "--judge", "rule:longer", "--checked", "judge-check.json", code=2)
    assert "is noise on people.jsonl" in refused and "--use_noise" in refused
    accord("judge", "pairs.jsonl", "--judge", "rule:longer", "--checked", "judge-check.json", "--use_noise")
    assert read("pairs-judged.jsonl")[0]["judge"]["checked"] == "noise on people.jsonl"
    other = accord("judge", "pairs.jsonl", "--judge", "rule:shorter", "--checked", "judge-check.json", code=2)
    assert "is about another judge" in other
    assert "usable" in accord("judge", "check", "people.jsonl", "--judge", "rule:shorter", "--to", "short.json")
    accord("judge", "pairs.jsonl", "--judge", "rule:shorter", "--checked", "short.json", "--to", "s.jsonl")


def test_check_draws_and_repeats(accord: Runner, tiny_folder: Path) -> None:
    write(Path("people.jsonl"), labelled_by_length(30))
    given = ("judge", "check", "people.jsonl", "pairs.jsonl", "--judge", str(tiny_folder), "--prompt", "short.yaml", "--limit", "10")
    accord(*given)
    first = json.loads(Path("judge-check.json").read_text(encoding="utf-8"))
    assert [one["count"] for one in first["data"]] == [10, 10] and [one["data"] for one in first["data"]] == ["people.jsonl", "pairs.jsonl"]
    accord(*given)
    again = json.loads(Path("judge-check.json").read_text(encoding="utf-8"))
    for one in (*first["data"], *again["data"]):
        one.pop("seconds")
    assert again == first and first["data"][0]["mass"] is not None


def test_a_calibration_is_applied(accord: Runner) -> None:
    """A rule that is sure and right in three of four: its 1.0 becomes about 0.75."""
    rows = labelled_by_length(400)
    for row in rows[::4]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    write(Path("people.jsonl"), rows)
    accord("judge", "check", "people.jsonl", "--judge", "rule:shorter", "--limit", "0")
    record = json.loads(Path("judge-check.json").read_text(encoding="utf-8"))
    assert record["data"][0]["calibration"]["kind"] != "none" and record["data"][0]["calibration_error"] > 0.2
    accord("judge", "people.jsonl", "--judge", "rule:shorter", "--checked", "judge-check.json", "--to", "soft.jsonl")
    assert {round(row["probability"], 1) for row in read("soft.jsonl")} <= {0.7, 0.8}


def test_win_rates_of_two_models(accord: Runner) -> None:
    """old's answers are longer in three of four pairs; a judge of length prefers it, at equal length it does not, and people say otherwise."""

    def row(number: int, chosen_is_old: bool) -> dict[str, Any]:
        texts = {"old": "a " * (9 if number % 4 else 3), "new": "b " * (3 if number % 4 else 9)}
        chosen, rejected = ("old", "new") if chosen_is_old else ("new", "old")
        sources = {"chosen_source": {"model": chosen}, "rejected_source": {"model": rejected}}
        return {"prompt": f"Q{number}", "chosen": texts[chosen], "rejected": texts[rejected], **sources}

    write(Path("models.jsonl"), [row(i, i % 2 == 0) for i in range(200)])
    write(Path("people.jsonl"), [row(i, i % 5 == 0) for i in range(200, 240)])
    said = accord("judge", "models.jsonl", "--judge", "rule:longer", "--human", "people.jsonl")
    lines = {line[:34].strip(): line[34:].strip() for line in said.splitlines()}
    assert lines["new beats old"].startswith("0.250") and lines["at equal length"].startswith("0.500")
    assert lines["corrected by people"].startswith("0.8") and lines["corrected by people"].endswith("who judged 40")


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["judge"], 2, "needs data"),
        (["judge", "pairs.jsonl"], 2, "needs --judge"),
        (["judge", "check", "--judge", "rule:longer"], 2, "needs comparisons that people judged"),
        (["judge", "missing.jsonl", "--judge", "rule:longer"], 3, "missing.jsonl"),
        (["judge", "pairs.jsonl", "--judge", "rule:best"], 2, "There is no rule 'best'"),
        (["judge", "pairs.jsonl", "--judge", "rule:longer", "--prompt", "rating"], 2, "is asked no question"),
        (["judge", "pairs.jsonl", "--judge", "rule:longer", "--checked", "pairs.jsonl"], 3, "was not written by accord judge check"),
        (["judge", "pairs.jsonl", "--judge", "rule:longer", "--to", "pairs.jsonl"], 2, "is there already"),
        (["judge", "pairs.jsonl", "--judge", "http://user:pass@x/v1"], 2, "user or password"),
        (["judge", "pairs.jsonl", "--judge", "m", "--prompt", "pairwize"], 2, "Did you mean pairwise"),
        (["judge", "pairs.jsonl", "--judge", "m", "--concurrency", "0"], 2, "1 or more"),
    ],
)
def test_mistakes_are_one_line(given: list[str], code: int, words: str, accord: Runner) -> None:
    said = accord(*given, code=code)
    assert words in said and "Traceback" not in said
