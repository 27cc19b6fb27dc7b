"""`accord chat` and `accord sample` in a terminal: answers as they grow, and nothing that a model writes commands the terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import tiny
from accord.cli import main
from accord.commands.chat import _Spoken
from accord.data.printable import printable
from hostile_model import HOSTILE, hostile_model


class Terminal(io.StringIO):
    """Keeps every piece that was written, and says that somebody sits before it."""

    def __init__(self, typed: str = "") -> None:
        super().__init__(typed)
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        return "".join(self.pieces)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hostile_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def harmless(text: str) -> bool:
    return all(sign.isprintable() or sign in "\n\t\u200c\u200d" for sign in text)


def test_what_a_model_writes_does_not_command_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", hostile, "--prompt", "Hello", "Go on", "--max_new_tokens", "40", "--temperature", "1"]) == 0
    said = capsys.readouterr().out
    assert "\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\r\\u2028\\u202e" in said, "the seed draws the word with the commands"
    assert harmless(said)


def test_sampled_lines_are_json_that_is_as_safe(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", hostile, "--prompt", "Hello", "Go on", "--num_samples", "2", "--max_new_tokens", "40"]) == 0
    said = capsys.readouterr().out
    assert harmless(said)
    rows = [json.loads(line) for line in said.splitlines()]
    assert len(rows) == 4 and any(HOSTILE[9] in row["text"] for row in rows), "escaped on the line, whole in the text"


def test_checked_rows_are_drawn_as_safely(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Hi {number} \x1b]0;owned\x07", "chosen": "Yes\x1b[2J", "rejected": "no\x9b31m"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["data", "check", str(tmp_path / "rows.jsonl"), "--model", model]) == 0
    said = capsys.readouterr().out
    assert harmless(said) and "Hi 0 \\x1b]0;owned\\x07" in said and "Yes\\x1b[2J" in said


def test_an_answer_grows_on_the_terminal(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed, answered a piece at a time, ended by an empty line; the same words in one piece when asked by --prompt."""
    options = ["--max_new_tokens", "12", "--temperature", "1"]
    keyboard, screen = Terminal("Hello\nGo on\n\nnever read\n"), Terminal()
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["chat", model, *options]) == 0
    asked = Terminal()
    monkeypatch.setattr(sys, "stdout", asked)
    assert main(["chat", model, "--prompt", "Hello", "Go on", *options]) == 0
    assert screen.shown == "".join(f"> {answer}\n" for answer in asked.shown.splitlines()) + "> "
    assert sum(map(bool, screen.pieces)) > 12, "many pieces"
    assert keyboard.read() == "never read\n"


def test_the_end_of_input_ends_the_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["chat", model]) == 0
    assert screen.shown == "> \n"


@pytest.mark.parametrize(
    ("grows", "shown"),
    [
        (["a", "ab", "abc"], "abc\n"),
        (["a", "a \ufffd", "a 中"], "a 中\n"),  # half a character waits for its other half
        (["a", "xb", "xbc"], "a\nxbc\n"),  # spelled anew: said again, whole
        (["\ufffd", "\ufffd", "\ufffd"], "\ufffd\n"),  # which is what was written
        ([], "\n"),
    ],
)
def test_growing_texts(grows: list[str], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, screen = iter(grows), Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    spoken = _Spoken(lambda _: next(texts), {1})
    for _ in grows:
        spoken("turn 0", 0, [0])
    spoken("turn 0", 0, [0, 1])  # the end token is no text
    spoken.end(grows[-1] if grows else "")
    assert screen.shown == shown


def test_printable() -> None:
    assert printable("a\n\tb\x1b[2J\u202e\x9b\U000e0041 👩\u200d🚀\r") == "a\n\tb\\x1b[2J\\u202e\\x9b\\U000e0041 👩\u200d🚀\\r"
