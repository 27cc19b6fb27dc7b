"""`accord data check`, `convert` and `template`: everything that is planted is found, and the real data say their known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from accord import SFTConfig, SFTTrainer
from accord.cli import main
from accord.commands.data import run
from accord.data import check as names
from accord.data.check import check
from accord.data.commands import data_check, data_convert, data_template
from accord.data.draw import COUNTED_STYLE, PROMPT_STYLE, draw_examples
from accord.data.read import read_examples
from accord.data.template_rows import TEMPLATES
from accord.errors import DataError


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def chat(*texts: str, roles: str = "uaua") -> dict[str, Any]:
    named = {"u": "user", "a": "assistant", "s": "system"}
    return {"messages": [{"role": named[r], "content": text} for r, text in zip(roles, texts, strict=False)]}


def test_planted_faults_are_found_where_they_are() -> None:
    rows = [
        pair("one?", "yes", "no"),
        pair("one?", "yes", "no"),
        pair("one?", "no", "yes"),
        pair("two?", "same", "same"),
        pair("three?", " ", "no"),
        {**pair("four?", "yes", "no"), "chosen": 4},
        pair("five?", "yes", "no"),
    ]
    report = check(rows)
    found = {(finding.name, finding.where) for finding in report.findings}
    assert found == {
        (names.DUPLICATE, "row 2"), (names.REVERSED, "row 3"), (names.SAME, "row 4"), (names.EMPTY, "row 5"), (names.UNUSABLE, "row 6"),
    }  # fmt: skip
    assert (report.rows, report.unusable, dict(report.kinds)) == (6, 1, {"preference": 6})


def test_roles_and_last_turns() -> None:
    good, tail, twice, late = chat("a", "b", "c", "d"), chat("a", "b", "c"), chat("a", "b", roles="aa"), chat("a", "b", "c", roles="usa")
    report = check([good, tail, twice, late, chat("s", "a", "b", roles="sua")])
    assert {(finding.name, finding.where) for finding in report.findings} == {
        (names.ENDS_ON_USER, "row 2"), (names.ROLES, "row 3"), (names.ROLES, "row 4"),
    }  # fmt: skip


def test_leakage_ignores_case_and_spaces(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "What  IS this?"}) + "\n", "utf-8")
    report = check([pair("what is this? ", "x", "y"), pair("What else?", "x", "y")], against=test)
    assert [(f.name, f.where) for f in report.findings] == [(names.LEAK, "row 1")]
    assert "1 examples share a prompt with it" in report.text()


def test_length_gap_by_hand() -> None:
    report = check([pair("a?", "one two three", "one"), pair("b?", "one", "one two"), pair("c?", "one two", "one")])
    assert report.lengths == {"pairs": 3, "longer_share": 2 / 3, "chosen_words": 2.0, "rejected_words": 4 / 3}
    assert "Length alone" not in report.text()
    assert "Length alone tells much" in check([pair(f"{i}?", "one two", "one") for i in range(20)]).text()


def test_writing_systems() -> None:
    report = check([{"text": "Hello there"}, {"text": "Привет, мир"}, {"text": "Здравствуйте ok"}, {"text": "123"}])
    assert report.scripts == {"latin": 0.25, "cyrillic": 0.5, "no letters": 0.25}


def test_tokens_truncation_and_end_token() -> None:
    rows = [pair("Hi?", "Yo.", "Hm."), pair("Hi? " * 20, "Yo.", "Hm.")]
    report = check(rows, tokenizer=tiny.tokenizer(), max_length=60)
    assert report.tokens["truncated_share"] == 0.5
    assert report.tokens["end_learned_share"] == 1.0
    long = [pair("Hi?", "Yo.", "Hm " * 30)]  # 30 x 3 bytes and the end token; the prompt keeps one of its 60 tokens
    assert check(long, tokenizer=tiny.tokenizer(), max_length=60).tokens["end_learned_share"] == 0.5
    assert (
        check(long, tokenizer=tiny.tokenizer(), max_length=60).tokens["longest"]
        == check(long, tokenizer=tiny.tokenizer()).tokens["longest"]
    )
    cut = [{**rows[0], "rejected_finished": False}]
    assert check(cut, tokenizer=tiny.tokenizer()).tokens["end_learned_share"] == 0.5


def test_three_rows_are_drawn_with_their_mask() -> None:
    drawing = draw_examples(read_examples([chat("Hi?", "Yo.")]), tiny.tokenizer())
    styles = {
        str(span.style): drawing.plain[span.start : span.end] for span in drawing.spans if "Yo" in drawing.plain[span.start : span.end]
    }
    assert list(styles) == [COUNTED_STYLE]
    assert styles[COUNTED_STYLE].endswith("<|end|>")
    assert any("Hi?" in drawing.plain[s.start : s.end] and s.style == PROMPT_STYLE for s in drawing.spans)
    assert "the last is the end token <|end|>." in drawing.plain
    cut = draw_examples(read_examples([{"prompt": "Hi?", "completion": "Yo", "finished": False}]), tiny.tokenizer())
    assert "NO end token is learned" in cut.plain


def test_solutions_are_drawn_and_counted_as_prm_reads_them() -> None:
    """Their labels are learned at the last token of each labelled step; there is no end token to learn."""
    rows = [{"prompt": "1+2+3?", "completions": ["1+2 is 3.", "3+3 is 7.", "So 7."], "labels": [True, False, None]}]
    drawing = draw_examples(read_examples(rows), tiny.tokenizer())
    learned = [drawing.plain[span.start : span.end] for span in drawing.spans if span.style == COUNTED_STYLE][1:]
    assert learned == ["\n", "\n"], "the legend, then the line end that closes each of the two labelled steps"
    assert "labels of the steps: +1, -1, none;" in drawing.plain and "So 7." not in drawing.plain
    unlabelled = [{**rows[0], "labels": [None, None, None]}]
    assert "leaves this solution out" in draw_examples(read_examples(unlabelled), tiny.tokenizer()).plain
    tokens = check(rows, tokenizer=tiny.tokenizer()).tokens
    assert "end_learned_share" not in tokens and tokens["longest"] > 0


def test_check_command_prints_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(pair("a?", "x", "y")) + "\n" + "{broken\n" + json.dumps(pair("b?", "x", "y")) + "\n", "utf-8")
    assert data_check(str(path), model=tiny.tokenizer(), max_length=100) == 3
    shown = capsys.readouterr().out
    assert "a.jsonl: 2 examples (2 x preference; layout preference)" in shown
    assert "UNUSABLE: row cannot be used: 1 (33.3%)\n    a.jsonl line 2 is not valid JSON" in shown
    assert "--- a.jsonl line 1 (preference)" in shown
    assert data_check(str(path), json=True) == 3
    assert json.loads(capsys.readouterr().out)["counts"] == {names.UNUSABLE: 1}


def test_truncation_is_counted_without_max_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 1024 tokens, the default of training, or at the model's own limit when that is lower; without a model the command says how."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(pair("a?", "x" * n, "y")) for n in (5, 200, 1100)), "utf-8")
    assert data_check(str(path), model=tiny.tokenizer()) == 0
    assert "Truncated at 1024 tokens: 33.3% of the examples." in capsys.readouterr().out
    short = tiny.tokenizer()
    short.model_max_length = 128
    assert data_check(str(path), model=short) == 0
    assert "Truncated at 128 tokens: 66.7% of the examples." in capsys.readouterr().out
    assert data_check(str(path)) == 0
    shown = capsys.readouterr().out
    assert "Truncated" not in shown and "add --model smollm2-135m" in shown


def test_the_end_of_an_answer_is_that_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the template ends a turn with another token than the tokenizer's end token, as Gemma's and Llama 3's do."""
    model, run = tmp_path / "model", tmp_path / "run"
    tiny.model().save_pretrained(model)
    made = tiny.tokenizer()
    made.eos_token = "<|start|>"
    made.save_pretrained(model)
    SFTTrainer(
        str(model),
        SFTConfig(output_dir=str(run), max_steps=1, learning_rate=1e-4),
        tiny.demonstrations(4),
        peft_config=tiny.lora(),
    ).save_model()
    rows = tmp_path / "a.jsonl"
    rows.write_text(json.dumps({"prompt": "Hi?", "completion": "Yo."}) + "\n", "utf-8")
    for folder in (model, run):
        capsys.readouterr()
        assert main(["data", "check", str(rows), "--model", str(folder)]) == 0
        shown = capsys.readouterr().out
        assert "4 of 4 tokens are learned; the last is the end token <|end|>." in shown
        assert "The end token is learned in 100.0% of the completions." in shown


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.csv", tmp_path / "b.jsonl"
    source.write_text("question,best,worst\nHi?,Yo.,Hm.\n", "utf-8")
    assert data_convert(str(source), str(target), to="hh", columns={"prompt": "question", "chosen": "best", "rejected": "worst"}) == 0
    assert json.loads(target.read_text("utf-8")) == {
        "chosen": "\n\nHuman: Hi?\n\nAssistant: Yo.",
        "rejected": "\n\nHuman: Hi?\n\nAssistant: Hm.",
    }
    assert "Wrote 1 examples in 1 rows" in capsys.readouterr().out


def test_convert_leaves_out_bad_rows_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in (pair("a", "b", "c"), {**pair("a", "b", "c"), "chosen": None})), "utf-8")
    assert data_convert(str(source), str(tmp_path / "b.jsonl"), skip_bad=True) == 0
    shown = capsys.readouterr().out
    assert "Left out: a.jsonl line 2" in shown
    assert "1 rows were left out." in shown
    assert run(["convert", str(source), str(tmp_path / "c.jsonl"), "--skip-bad"]) == 0
    assert "1 rows were left out." in capsys.readouterr().out
    with pytest.raises(DataError, match="line 2"):
        run(["convert", str(source), str(tmp_path / "d.jsonl")])


@pytest.mark.parametrize("kind", list(TEMPLATES))
def test_templates_read_as_their_kind_without_a_fault(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{kind}.jsonl"
    assert data_template(kind, str(path)) == 0
    report = check(path, tokenizer=tiny.tokenizer())
    assert (dict(report.kinds), report.findings) == ({kind: len(TEMPLATES[kind])}, [])
    assert str(path) in capsys.readouterr().out
