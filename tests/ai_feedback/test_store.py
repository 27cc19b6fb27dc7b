"""The file of answers: whole after a kill, refused where it is something else."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from accord.ai_feedback.store import SCHEMA, AnswerStore, Spent
from accord.errors import DataError, MachineError


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.sqlite"
    with AnswerStore(path) as store:
        store.queue({"a": {"q": "é?"}, "b": {"q": "2"}})
        store.keep("a", {"text": "é", "top": None}, tokens=12, cost=0.5)
    with AnswerStore(path) as store:
        assert store.known(["a", "b", "c", "a"]) == {"a": {"text": "é", "top": None}}
        assert store.counts() == (1, 1) and store.spent() == Spent(12, 0.5)
        store.queue({"a": {"q": "again"}})
        assert store.known(["a"]) and store.counts() == (1, 1)
    assert '"q": "é?"' in sqlite3.connect(path).execute("SELECT request FROM answers WHERE key = 'a'").fetchone()[0]


def test_what_was_kept_survives_a_killed_process(tmp_path: Path) -> None:
    script = (
        "import os, sys; from accord.ai_feedback.store import AnswerStore\n"
        "store = AnswerStore(sys.argv[1]); store.queue({'a': {}, 'b': {}}); store.keep('a', {'text': 'yes'}, tokens=1, cost=0.0); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "answers.sqlite")], check=False)
    assert done.returncode == 9
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        assert store.known(["a", "b"]) == {"a": {"text": "yes"}} and store.counts() == (1, 1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and it is long enough to be one\n" * 40, encoding="utf-8")
    with pytest.raises(DataError, match="is no file of answers"):
        AnswerStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE labels (a)")
    with pytest.raises(DataError, match="another program's database"):
        AnswerStore(tmp_path / "other")
    with pytest.raises(MachineError, match="cannot be used"):
        AnswerStore(tmp_path)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    AnswerStore(tmp_path / "answers").close()
    with sqlite3.connect(tmp_path / "answers") as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(DataError, match="newer accord"):
        AnswerStore(tmp_path / "answers")
