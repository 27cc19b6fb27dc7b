"""Projects from the command line: made, filled, moved to another machine and back, backed up and restored."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from accord.annotation.backup import read_backup, write_backup
from accord.annotation.duplicates import Unique
from accord.annotation.exchange import export_file, import_file
from accord.annotation.project import Project, ProjectSettings
from accord.annotation.results import Idle
from accord.annotation.store import Store
from accord.cli import main
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.types import Annotation, to_json
from labelling import label, pair, pairs, submission, task


def filled(folder: Path, **settings: object) -> Project:
    """A project with 3 tasks, 2 answers, an answer taken back, a draft, an erased annotator and a second guideline."""
    project = Project.new(folder, gold_rate=0, repeat_rate=0, **settings)
    with project.open_store() as store:
        store.add_tasks([*pairs(2), pair(9, gold={"choice": 1})])
        for name in ("ann", "bob"):
            store.add_annotator(name.title(), id=name, secret=name)
        label(store, "ann", rationale="Because.")
        label(store, "bob", 1, strength=3, rationale="So.")
        store.undo("ann", submission())
        store.set_guideline("Second.", old_labels="flagged")
        label(store, "ann", "tie")
        store.erase("bob")
    return project


def contents(store: Store) -> tuple[object, ...]:
    annotations = list(store.annotations(valid=False))
    return list(store.tasks()), annotations, list(store.annotations()), store.guidelines(), store.annotators(), store.erasures()


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_from_a_file_of_pairs_to_a_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Q{n}?", "chosen": f"yes {n}", "rejected": f"no {n}", "topic": "t"} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    folder = tmp_path / "labels"
    assert run("project", "new", folder, "--overlap", 1, "--seed", 3) == 0
    for added, known in ((4, 0), (0, 4)):
        capsys.readouterr()
        assert run("project", "import-tasks", folder, tmp_path / "pairs.jsonl", "--round", 2) == 0
        assert capsys.readouterr().out == f"{added} tasks and 0 annotations added; {known} and 0 were there.\n"
    project = Project(folder)
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        made = [label(store, "ann") for _ in range(4)]
        assert {a.round for a in made} == {2} and {t.columns["topic"] for t in store.tasks()} == {"t"}
    assert run("project", "snapshot", folder) == 0
    told = capsys.readouterr().out
    assert "Froze 4 labels" in told and f"accord reward --data {folder} --eval_data {folder}@heldout" in told
    assert (folder / "rounds" / "2" / "snapshot.jsonl").exists()
    (folder / "guidelines.md").write_text("New.", "utf-8")
    assert run("project", "guidelines", folder, "--old-labels", "relabel") == 0
    with project.open_store() as store:
        assert store.guideline().text == "New." and store.progress().missing == 4


def test_rows_that_ask_the_same_make_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four rows one is another the other way round, one is the same again; a second file, and sampled tasks in another order, bring nothing new."""
    row = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}
    rows = [row, {**row, "chosen": "no", "rejected": "yes"}, row, {**row, "prompt": "R?"}]
    path, folder = tmp_path / "pairs.jsonl", tmp_path / "labels"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    assert run("project", "new", folder) == 0
    for added, known in ((2, 0), (0, 2)):
        capsys.readouterr()
        assert run("project", "import-tasks", folder, path) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{added} tasks and 0 annotations added; {known} and 0 were there.",
            "2 rows ask what another task of the round asks (the same prompt and answers, in any order) and made no second task.",
        ]
    assert run("project", "import-tasks", folder, path, "--round", 1) == 0
    with Project(folder).open_store() as store:
        known = next(iter(store.tasks()))
        turned = dataclasses.replace(known, id="other", completions=known.completions[::-1])
        unique = Unique(store, keep=())
        assert list(unique.of([turned, pair(7), pair(7), known])) == [pair(7), known]
        assert unique.words.startswith("2 rows ask")


def test_a_duplicate_that_labels_name_is_kept(tmp_path: Path) -> None:
    """The same pair under two ids, one of them judged: without the second task its label would have nothing to be about."""
    here, there = Project.new(tmp_path / "here", gold_rate=0, repeat_rate=0), Project.new(tmp_path / "there", gold_rate=0, repeat_rate=0)
    own = dataclasses.replace(pair(1), id="own-id", completions=pair(1).completions[::-1])
    with here.open_store() as store, there.open_store() as copy:
        store.add_tasks([own, pair(2)])
        store.add_annotator("Ann", id="ann")
        label(store, "ann")
        label(store, "ann")
        export_file(store, tmp_path / "moved.jsonl", labels=True)
        copy.add_tasks([pair(1)])
        found = import_file(copy, tmp_path / "moved.jsonl")
        assert (found.tasks.added, found.annotations.added, found.duplicates) == (2, 2, "")
        export_file(store, tmp_path / "tasks.jsonl")
        other = Project.new(tmp_path / "third", gold_rate=0, repeat_rate=0)
        with other.open_store() as third:
            third.add_tasks([pair(1)])
            found = import_file(third, tmp_path / "tasks.jsonl")
            assert (found.tasks.added, found.tasks.known) == (1, 0) and found.duplicates.startswith("1 row asks")


def test_tasks_of_one_kind_are_made_of_rows_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "5"},
    ]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": talk}) + "\n", "utf-8")
    folder = tmp_path / "labels"
    assert run("project", "new", folder) == 0
    assert run("project", "import-tasks", folder, tmp_path / "talks.jsonl", "--kind", "chat") == 0
    with Project(folder).open_store() as store:
        (made,) = store.tasks()
        assert (made.kind, len(made.prompt), [m.role for m in made.completions[0].messages]) == (
            "chat",
            1,
            ["assistant", "user", "assistant"],
        )
    assert run("project", "import-tasks", folder, tmp_path / "talks.jsonl", "--kind", "ranking") == 2
    assert "talks.jsonl line 1: a demonstration makes no ranking task. It makes: chat, edit, rating." in capsys.readouterr().err


def test_a_conversation_that_is_still_to_be_held_is_refused_and_one_that_was_judged_elsewhere_is_kept(tmp_path: Path) -> None:
    """No page talks to a model for a task, so a chat without answers is given to nobody; its labels are training data all the same."""
    live = task("chat", "Be brief.")
    turns = [{"user": "Hi", "answers": ["Yes.", "No."], "choice": 1}]
    said = Annotation("0" * 16, live.id, "chat", {"turns": turns}, "ann", created="2024-05-01T12:00:00.000Z")
    asked, judged = tmp_path / "asked.jsonl", tmp_path / "judged.jsonl"
    for path, rows in ((asked, [live]), (judged, [live, said])):
        path.write_text("".join(json.dumps(to_json(row)) + "\n" for row in rows), "utf-8")
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.0)
    with project.open_store() as store:
        with pytest.raises(
            DataError, match=r"asked\.jsonl line 1 is a chat task without answers, .* accord annotate PROJECT --model MODEL --talk$"
        ):
            import_file(store, asked)
        assert list(store.tasks()) == []
        found = import_file(store, judged)
        assert (found.tasks.added, found.annotations.added) == (1, 1)
        store.add_annotator("Bob", id="bob")
        assert isinstance(store.next_task("bob"), Idle)
        project.freeze(store)
    (example,) = read_examples(f"{project.folder}@all")
    assert (example.prompt[-1].content, [one.text for one in example.completions]) == ("Hi", ["No.", "Yes."])


def test_labels_move_to_another_machine_and_importing_twice_changes_nothing(tmp_path: Path) -> None:
    project, other = filled(tmp_path / "here"), Project.new(tmp_path / "there")
    path = tmp_path / "moved.jsonl"
    with project.open_store() as store, other.open_store() as copy:
        assert export_file(store, path, labels=True) == (3, 4)
        first = import_file(copy, path, kinds=other.settings.kinds)
        assert (first.tasks.added, first.annotations.added) == (3, 4)
        found = contents(copy)
        second = import_file(copy, path)
        assert (second.tasks.added, second.tasks.known, second.annotations.added, second.annotations.known) == (0, 3, 0, 4)
        assert contents(copy) == found
        assert found[:3] == contents(store)[:3]
        assert [g.text for g in copy.guidelines()][1] == "Second."
        assert project.freeze(store).hash == other.freeze(copy).hash
        tasks_only = tmp_path / "tasks.jsonl"
        assert export_file(store, tasks_only) == (3, 0)
        with pytest.raises(DataError, match="is a pair task, and the kinds of project.yaml are ranking"):
            import_file(copy, tasks_only, kinds=["ranking"])
        with pytest.raises(DataError, match="written as .jsonl"):
            export_file(store, tmp_path / "tasks.csv")


def test_a_damaged_export_names_the_line(tmp_path: Path) -> None:
    project = filled(tmp_path / "here")
    path = tmp_path / "moved.jsonl"
    with project.open_store() as store:
        export_file(store, path, labels=True)
        lines = path.read_text("utf-8").splitlines()
        for line, message in (('{"type": "Vote"}', 'line 10 has the type "Vote"'), ('{"type": "Task"}', "line 10 is no Task")):
            path.write_text("\n".join([*lines, line]) + "\n", "utf-8")
            assert len(lines) == 9  # 3 tasks, 2 guidelines, 4 annotations
            with pytest.raises(DataError, match=message):
                import_file(store, path)


def test_a_backup_restores_everything(tmp_path: Path) -> None:
    project = filled(tmp_path / "here", name="Mine", overlap=2)
    with project.open_store() as store:
        project.freeze(store)
        rows = write_backup(store.database, project.folder, tmp_path / "all.zip")
        before = contents(store)
    assert rows["tasks"] == 3 and rows["annotations"] == 4
    assert read_backup(tmp_path / "all.zip", tmp_path / "back") == rows
    back = Project(tmp_path / "back")
    with back.open_store() as store:
        assert contents(store) == before
        store.add_annotator("Eve", id="eve")
        label(store, "eve")
    assert back.settings == project.settings
    for name in ("guidelines.md", "rounds/0/snapshot.jsonl", "rounds/0/snapshot.json"):
        assert (back.folder / name).read_bytes() == (project.folder / name).read_bytes()
    with pytest.raises(DataError, match="is there already"):
        read_backup(tmp_path / "all.zip", tmp_path / "back")


def test_a_backup_moves_a_project_between_databases(tmp_path: Path, where: str, nowhere: str) -> None:
    """From this database to the other kind or the same, every row equal, and new rows can be added after it."""
    if "://" not in where and "://" not in nowhere:
        pytest.skip("both are SQLite: see test_a_backup_restores_everything")
    project = filled(tmp_path / "here", database=where if "://" in where else None)
    with project.open_store() as store:
        write_backup(store.database, project.folder, tmp_path / "all.zip")
        before = contents(store)
    read_backup(tmp_path / "all.zip", tmp_path / "back", nowhere if "://" in nowhere else None)
    with Project(tmp_path / "back").open_store() as store:
        assert contents(store) == before
        store.add_tasks([pair(50)])
        store.add_annotator("Eve", id="eve")
        assert label(store, "eve").task == pair(50).id
    if "://" in nowhere:
        with pytest.raises(DataError, match="holds a project already"):
            read_backup(tmp_path / "all.zip", tmp_path / "again", nowhere)
        assert not (tmp_path / "again").exists()


def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    project = filled(tmp_path / "here")
    with project.open_store() as store:
        write_backup(store.database, project.folder, tmp_path / "all.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil, zipfile.ZipFile(tmp_path / "all.zip") as good:
        for name in good.namelist():
            evil.writestr(name, good.read(name))
        evil.writestr("../escaped.txt", "x")
        evil.writestr("rounds/0/../../../escaped.txt", "x")
        evil.writestr("rounds/1/.hidden", "x")
    for name, message in (("text.zip", "damaged or no backup"), ("none.zip", "does not exist")):
        with pytest.raises(DataError, match=message):
            read_backup(tmp_path / name, tmp_path / "back")
        assert not (tmp_path / "back").exists()
    read_backup(tmp_path / "evil.zip", tmp_path / "back")
    assert not (tmp_path / "escaped.txt").exists() and not (tmp_path / "back" / "rounds").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overlap: 0", "a task wants 1 annotator or more"),
        ("gold_rate: 2", "a share from 0 to 1"),
        ("gold_rate: 0.6\nrepeat_rate: 0.5", "must leave something to label"),
        ("kinds: [poll]", "kinds has \\['poll'\\]"),
        ("colour: red", 'has no setting "colour"'),
        ("[", "cannot be read"),
        ("just words", "must have a line NAME: VALUE"),
        ("lease_minutes: 0", "must be above 0"),
        ("database: 5", "it is a URL"),
        ("schema: 2", "written by a newer accord"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "project.yaml").write_text(text, "utf-8")
    with pytest.raises((ConfigError, DataError), match=message):
        Project(tmp_path)


def test_settings_are_kept_and_reach_the_rules(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "p", overlap=3, gold_rate=0.1, repeat_rate=0.2, lease_minutes=2, seed=9, random_share=0.5)
    assert project.settings == ProjectSettings(
        name="p", overlap=3, gold_rate=0.1, repeat_rate=0.2, lease_minutes=2, seed=9, random_share=0.5
    )
    rules = project.rules
    assert (rules.overlap, rules.gold_rate, rules.repeat_rate, rules.lease_seconds, rules.seed, rules.random_share) == (
        3,
        0.1,
        0.2,
        120,
        9,
        0.5,
    )
    with pytest.raises(ConfigError, match="is not empty"):
        Project.new(tmp_path / "p")
    with pytest.raises(DataError, match="is no project: it has no project.yaml"):
        Project(tmp_path)


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("project", "burn") == 2
    assert capsys.readouterr().err.startswith("ConfigError: accord project: argument verb: invalid choice")
    assert run("project", "--help") == 0 and "import-tasks" in capsys.readouterr().out
