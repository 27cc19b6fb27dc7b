"""`accord audit` to its end on tiny models: what the model under it reads, the page, the numbers, and the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from accord.audit.findings import GREEN, NONE, RED, Allowed, Finding, Section, Shown
from accord.audit.subjects import Choice, user
from accord.cli import main
from accord.config.audit import POLICY_SECTIONS, REWARD_SECTIONS, AuditOptions
from accord.errors import ConfigError
from accord.evaluation.intervals import Interval
from accord.evaluation.tax import NEUTRAL_TEXT, alignment_tax
from accord.models.opened import open_model
from accord.recipes.audit import GATE
from accord.recipes.audit_page import allowed_text, change_text, page_of, value_text
from accord.recipes.audit_subject import ModelSubject
from accord.reporting.audit_page import render_audit
from tiny_demo import model_folder

FEW = ["--limit", "3", "--max-new-tokens", "8"]
CHOICES = [
    Choice(user("What is the capital of France?"), ("Paris.", "London.")),
    Choice(user("Say yes."), ("Yes.", "No, not really.", "Why?")),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and a reward run of two steps."""
    folder = tmp_path_factory.mktemp("audit")
    model_folder(folder / "model", seed=1)
    model_folder(folder / "base", seed=2)
    rows = [{"prompt": f"Pick {i}", "chosen": f"Blue {i}.", "rejected": "No idea."} for i in range(6)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = [
        "reward",
        str(folder / "pairs.jsonl"),
        "--model",
        str(folder / "model"),
        "--output_dir",
        str(folder / "reward"),
        "--backbone",
        "heads",
    ]
    assert main([*given, "--max_steps", "2", "--per_device_train_batch_size", "4"]) == 0
    return folder


def subject(place: Path, folder: Path, **changes: object) -> ModelSubject:
    options = AuditOptions(model=str(place / "model"), max_new_tokens=6, **changes)  # type: ignore[arg-type]
    return ModelSubject(open_model(options.model), "model", folder, options)


# -- the model as a subject ---------------------------------------------------------------------------------------------------------------


def test_options_are_weighed_as_the_model_does(place: Path, tmp_path: Path) -> None:
    """Totals are the model's own log-probabilities of the option and its end, one row at a time."""
    found = subject(place, tmp_path).weigh(CHOICES)
    model, tokenizer = tiny.model(seed=1), tiny.tokenizer()
    for choice, weighed in zip(CHOICES, found, strict=True):
        for option, total, each in zip(choice.options, weighed.totals, weighed.per_token, strict=True):
            text = f"<|start|>user\n{choice.prompt[0].content}<|end|>\n<|start|>assistant\n"
            prompt, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, f"{option}<|end|>"))
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            expected = float(torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
            assert total == pytest.approx(expected, abs=1e-4) and each == pytest.approx(expected / len(ids), abs=1e-5)


def test_what_goes_through_the_model_at_once_changes_nothing(place: Path, tmp_path: Path) -> None:
    wide, narrow = (subject(place, tmp_path, token_budget=budget).weigh(CHOICES * 3) for budget in (4096, 1))
    for one, other in zip(wide, narrow, strict=True):
        assert one.totals == pytest.approx(other.totals, abs=1e-4)


def test_reading_agrees_with_the_tax(place: Path, tmp_path: Path) -> None:
    made = subject(place, tmp_path)
    opened = made.opened
    nats = made.read(list(NEUTRAL_TEXT))
    counts = [len(opened.tokenizer(text)["input_ids"]) - 1 for text in NEUTRAL_TEXT]  # the first token has nothing before it
    mean = sum(value * count for value, count in zip(nats, counts, strict=True)) / sum(counts)
    perplexity = alignment_tax(opened.policy, opened.stack, opened.renderer)["perplexity"]
    assert torch.tensor(mean).exp().item() == pytest.approx(perplexity, rel=1e-4)


def test_answers_are_kept_and_equal_prompts_have_equal_answers(place: Path, tmp_path: Path) -> None:
    made = subject(place, tmp_path)
    first = made.write([user("Tell me."), user("And now?"), user("Tell me.")])
    before = made.path.read_bytes()
    assert first[0] == first[2] and made.write([user("Tell me.")]) == first[:1]
    assert made.path.read_bytes() == before
    assert subject(place, tmp_path, seed=1).path != made.path


# -- the command --------------------------------------------------------------------------------------------------------------------------


def test_the_whole_audit(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["audit", str(place / "model"), "--against", str(place / "base"), "--reward", str(place / "reward"), *FEW]
    given += ["--output-dir", str(tmp_path)]
    assert main(given) == 0
    said = capsys.readouterr().out
    numbers = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert [section["name"] for section in numbers["sections"]] == [*POLICY_SECTIONS, *REWARD_SECTIONS]
    findings = [finding for section in numbers["sections"] for finding in section["findings"]]
    assert len(findings) == 41 and all(finding["words"] for finding in findings)
    paired = [finding for section in numbers["sections"][:6] for finding in section["findings"] if finding["base"] is not None]
    assert len(paired) >= 20 and all(finding["change"]["count"] == finding["value"]["count"] for finding in paired)
    red = [finding["name"] for finding in findings if finding["level"] == RED]
    assert [row["name"] for row in numbers["do_not_ship"]] == red
    assert f"{len(red)} of 41 probes are red" in said and all(name in page for name in (*POLICY_SECTIONS, "Do not ship", "change, paired"))
    assert "<script" not in page
    win = next(finding for finding in findings if finding["name"] == "win rate")
    assert win["value"]["count"] == 3 and "reward prefers it" in win["words"]
    # the same again draws nothing and finds the same
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("answers-*.jsonl")}
    assert len(kept) == 2 and main(given) == 0
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8")) == numbers
    assert {path.name: path.read_bytes() for path in tmp_path.glob("answers-*.jsonl")} == kept


def test_the_gate(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A random model writes letter salad: habits are red, and the gate is closed; a section without a verdict leaves it open."""
    given = ["audit", str(place / "model"), "--max-new-tokens", "24", "--limit", "6", "--output-dir", str(tmp_path)]
    assert main([*given, "--sections", "habits", "--gate"]) == GATE
    said = capsys.readouterr().out
    assert "RED  habits: gibberish" in said and "RED: " in said
    assert main([*given, "--sections", "habits"]) == 0
    assert main([*given, "--sections", "tax", "--gate"]) == 0
    assert "NONE: 0 of 4 probes are red." in capsys.readouterr().out


def test_a_reward_run_is_audited_as_one(place: Path, tmp_path: Path) -> None:
    assert main(["audit", str(place / "reward"), *FEW, "--output-dir", str(tmp_path), "--pairs", str(place / "pairs.jsonl")]) == 0
    numbers = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert [section["name"] for section in numbers["sections"]] == list(REWARD_SECTIONS)
    assert numbers["options"]["reward"] == str(place / "reward") and numbers["options"]["model"] == ""
    wins = {finding["name"]: finding for finding in numbers["sections"][1]["findings"]}
    assert wins["right where the shorter answer won"]["value"]["count"] == 3  # "Blue 1." is shorter than "No idea."


def test_a_rule_is_a_judge_and_sees_length_alone(place: Path, tmp_path: Path) -> None:
    given = ["audit", str(place / "model"), "--against", str(place / "base"), *FEW, "--sections", "length", "--output-dir", str(tmp_path)]
    assert main([*given, "--judge", "rule:longer"]) == 0
    numbers = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert "rule:longer" in str(numbers["sections"][0]["findings"])


def test_a_language_model_judge_says_which_answers_decline(place: Path, tmp_path: Path) -> None:
    given = ["audit", str(place / "model"), *FEW, "--sections", "refusals", "--output-dir", str(tmp_path), "--judge", str(place / "base")]
    assert main(given) == 0
    numbers = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    (table,) = numbers["sections"][0]["tables"]
    assert table["header"] == ["", "detector", "judge"] and "Detector and judge" in table["words"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "needs a model"),
        (["model", "--sections", "flattery"], "the sections are length"),
        (["model", "--sections", "style"], "These sections are about a reward model"),
        (["--reward", "reward", "--sections", "tax"], "These sections are about a policy"),
        (["reward", "--reward", "reward"], "both reward models"),
        (["model", "--temperature", "-1"], "0 or more"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    monkeypatch.chdir(place)
    assert main(["audit", *given]) == ConfigError.exit_code
    assert words in capsys.readouterr().err


# -- the page -----------------------------------------------------------------------------------------------------------------------------

EVIL = "<img src=x onerror=alert(1)>"


def finding(level: str, **changes: object) -> Finding:
    made = {"name": f"probe {EVIL}", "value": Interval(0.25, 0.1, 0.4, 20), "allowed": Allowed(level=0.1, change=0.05), "level": level}
    return Finding(**{**made, "words": "words", "advice": "do this", "examples": (Shown(EVIL, ((EVIL, EVIL),)),), **changes})  # type: ignore[arg-type]


def test_red_comes_first_and_model_text_stays_text() -> None:
    sections = [Section("one", "One", "", (finding(GREEN),)), Section("two", "Two", "", (finding(RED), finding(NONE)))]
    html = render_audit(page_of(AuditOptions(model="m"), sections, RED))
    assert "<img" not in html and "&lt;img src=x" in html
    assert "Do not ship: 1 of 3 probes are red." in html
    blockers = html[html.index("<ol") : html.index("</ol>")]
    assert blockers.count("<li>") == 1 and 'href="#two"' in blockers and "do this" in blockers
    calm = render_audit(page_of(AuditOptions(model="m"), sections[:1], GREEN))
    assert "Nothing is red." in calm and "<ol" not in calm


def test_numbers_as_text() -> None:
    paired = finding(RED, base=Interval(0.1, 0, 0.3, 20), change=Interval(0.15, 0.06, 0.2, 20), p_value=0.031)
    assert value_text(paired.value, percent=True) == "25 % (10 to 40), 20 items"
    assert value_text(Interval(1.5, 1, 2, 3), percent=False, bare=True) == "1.50"
    assert change_text(paired) == "+15 points (+6 to +20, p 0.031)" and change_text(finding(RED)) == ""
    assert allowed_text(paired) == "at most 10 %, +5 points" and allowed_text(finding(RED)) == "at most 10 %"
    lower = finding(RED, allowed=Allowed(change=0.05, higher_is_worse=False), change=Interval(0, 0, 0, 9), percent=False)
    assert allowed_text(lower) == "-0.05" and allowed_text(finding(RED, allowed=Allowed())) == "–"
