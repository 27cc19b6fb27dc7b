"""Files that somebody hands in: whatever they say, it is taken as text or refused in one line that names the place, and nothing half done stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.annotation.exchange import export_file, import_file
from accord.annotation.import_labels import import_labels
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.cli import main
from accord.errors import AccordError, DataError
from accord.web.access import Access, Bucket, server_key
from accord.web.app import create_app
from labelling import label, pair, pairs, task

EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)> '; DROP TABLE annotations; -- ../../etc/passwd \x00"
TASK = json.loads(json.dumps({"schema": 1, "type": "Task", "id": "t1", "kind": "pair", "round": 0, "gold": None, "columns": {}}))
SAID = {"role": "user", "content": "Hi?"}


def answers(*texts: str) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "assistant", "content": text}], "finished": True, "source": {}} for text in texts]


def row(**changes: Any) -> dict[str, Any]:
    return {**TASK, "prompt": [SAID], "completions": answers("a", "b"), **changes}


def vote(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "type": "Annotation",
        "id": "a1",
        "task": "t1",
        "kind": "pair",
        "value": {"choice": 0},
        "annotator": "ann",
        **changes,
    }


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows), encoding="utf-8")
    return path


BAD: list[tuple[list[Any], str]] = [
    ([row(id="../../etc/passwd")], "is no id"),
    ([row(id="' OR 1=1 --")], "is no id"),
    ([row(id=5)], 'line 1 is no Task: field "id" must be a text'),
    ([row(prompt="Hi?")], 'field "prompt" must be a list'),
    ([row(prompt=[{"role": "user", "content": 5}])], r'field "prompt\[0\].content" must be a text'),
    ([row(prompt=[{"role": "hacker", "content": "Hi?"}])], r'field "prompt\[0\].role" must be one of system, user'),
    ([row(prompt=[SAID, "x"])], r'field "prompt\[1\]" must be an object'),
    ([row(completions=[{"messages": SAID}])], r'field "completions\[0\].messages" must be a list'),
    ([row(completions=answers("a", "a"))], "the same answer twice"),
    ([row(round="0")], 'field "round" must be a whole number'),
    ([row(round=10**30)], 'field "round" must be a whole number'),
    ([row(round=-1)], "round is -1"),
    ([row(round=10**6)], "round is 1000000"),
    ([row(columns=[1])], 'field "columns" must be an object'),
    ([row(gold={"choice": 9})], '"choice" is 9'),
    ([row(kind="poll")], 'field "kind" must be one of pair'),
    ([row(extra=1)], "line 1 is no Task"),
    ([row(), vote(task="t2")], "There is no task 't2'"),
    ([row(), vote(annotator="<b>")], "is no id"),
    ([row(), vote(seconds=float("inf"))], 'line 2 is no Annotation: field "seconds" must be a number'),
    ([row(), vote(shown_order=[1, "0"])], r'field "shown_order\[1\]" must be a whole number'),
    ([row(), vote(created="yesterday")], "created is 'yesterday'"),
    ([row(), vote(value={"choice": EVIL})], '"choice" is'),
    ([row(), vote(source="god")], 'field "source" must be one of human'),
    ([row(), vote(purpose="theft")], 'field "purpose" must be one of work'),
    ([row(), vote(supersedes="a0")], "supersedes a0, which is not there"),
    ([row(), {"schema": 1, "type": "Guideline", "version": 1, "text": "x", "hash": "0", "old_labels": "kept", "created": 0.0}], "is not the text that its hash names"),
    ([row(schema=99)], "schema 99"),
    ([row(), {"type": "Vote"}], 'line 2 has the type "Vote"'),
    ([row(), "{"], "line 2"),
    ([row(), "[" * 50_000], "line 2"),
    ([row(), '"text"'], "line 2"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_what_is_no_export_is_one_line(tmp_path: Path, rows: list[Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a refused row is stored; what stands outside the project is as it was."""
    made = Project.new(tmp_path / "labels")
    path = written(tmp_path / "in.jsonl", *rows)
    before = sorted(one.name for one in tmp_path.iterdir())
    capsys.readouterr()
    assert main(["project", "import-tasks", str(made.folder), str(path)]) in (2, 3)
    told = capsys.readouterr().err
    assert re.search(message, told) and told.count("\n") == 1 and "Traceback" not in told
    with made.open_store() as store:
        assert list(store.annotations(valid=False)) == [] and all(one.id == "t1" for one in store.tasks())
    assert sorted(one.name for one in tmp_path.iterdir()) == before


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["pair", "t1", "../x", "\x00"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["task", "vote"]),
    changes=st.dictionaries(
        st.sampled_from([*row(), *vote(), "strength", "probability", "rationale", "arm"]), JSON, min_size=1, max_size=3
    ),
)
def test_any_field_may_hold_anything(tmp_path: Path, where: str, kind: str, changes: dict[str, Any]) -> None:
    """A row with other fields is stored or refused; whatever is stored can be given out and exported."""
    changed = row(**changes) if kind == "task" else vote(**changes)
    path = written(tmp_path / "in.jsonl", *([] if kind == "task" else [row()]), changed)
    with Store(where) as store:
        try:
            import_file(store, path)
        except AccordError as error:
            assert "\n" not in str(error)
        list(store.annotations(valid=False))
        export_file(store, tmp_path / "out.jsonl", labels=True)
        for one in store.tasks():
            assert all(isinstance(message.content, str) for message in one.prompt)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[tuple[TestClient, Store]]:
    """A site whose every text came from a file that wants to do harm."""
    made = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0)
    said = {"prompt": EVIL, "answer_a": f"{EVIL} a", "answer_b": f"{EVIL} b", EVIL: EVIL}
    people = [{**said, "winner": winner, "annotator": f"{EVIL} {winner}"} for winner in ("A", "B")]
    with made.open_store() as store:
        store.set_guideline(EVIL.replace("\x00", ""))
        import_labels(store, written(tmp_path / "votes.jsonl", *people))
        store.add_tasks([task("pair", EVIL, *pair(1).completions), *pairs(1)])
        access = Access(store, server_key(made.folder), True, frozenset({"testserver"}))
        access.requests = access.joins = Bucket(1e9, 1e9)
        client = TestClient(create_app(store, access, title=EVIL, folder=made.folder), follow_redirects=True)
        yield client, store


def test_scripts_in_imported_files_never_come_out_as_markup(hostile: tuple[TestClient, Store]) -> None:
    client, store = hostile
    client.get("/")
    disputed = next(one.id for one in store.tasks() if len(list(store.annotations(task=one.id))) == 2)
    pages = ["/", "/guideline", "/quality", "/calibration", "/me", f"/settle/{disputed}"]
    for path in pages:
        reply = client.get(path)
        assert reply.status_code == 200, path
        assert "<script>document" not in reply.text and "<img" not in reply.text and "onerror=alert(1)>" not in reply.text, path
    assert "&lt;script&gt;document" in client.get(f"/settle/{disputed}").text  # it is there, as text
    token = client.get("/").text.partition('name="csrf" content="')[2].partition('"')[0]
    given_ = client.post("/api/next", json={}, headers={"X-CSRF-Token": token}).json()["assignment"]
    assert all("<script" not in turn["html"] for part in (given_["prompt"], *given_["answers"]) for turn in part)
    label(store, store.add_annotator("Eve").id)
    assert store.progress().tasks == 3  # no table was dropped


def test_a_file_too_deep_to_read_is_refused_wherever_it_comes_in(tmp_path: Path) -> None:
    deep = written(tmp_path / "deep.jsonl", '{"prompt": ' + "[" * 100_000)
    with Project.new(tmp_path / "labels").open_store() as store:
        for take in (import_file, import_labels):
            with pytest.raises(DataError, match=r"deep.jsonl line 1"):
                take(store, deep)
