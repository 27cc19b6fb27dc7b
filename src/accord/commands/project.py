"""`accord project new | import-tasks | export-tasks | guidelines | invite | snapshot | backup | restore`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from accord.errors import ConfigError

_PROJECT = "the project's folder"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"accord project: {message}. accord project --help shows the options.")


def run(given: Sequence[str]) -> int:
    """Parse and dispatch; returns the exit code."""
    try:
        chosen = _parser().parse_args(list(given))
    except SystemExit as stop:
        return int(stop.code or 0)
    return _VERBS[chosen.verb](chosen)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="accord project", description="Collect labels in a project folder, freeze them for training, move them.")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=summary, description=f"accord project {name}: {summary}.")

    new = verb("new", "a folder with settings, a guideline to edit, and an empty database")
    new.add_argument("project", help="the new folder")
    new.add_argument("--database", metavar="URL", help="postgresql://user@host/name; left out, a file in the folder")
    new.add_argument("--overlap", type=int, metavar="K", help="annotators wanted for each task; 1 when left out")
    new.add_argument("--kinds", nargs="+", help="kinds of task it takes: pair ranking rating steps edit chat; all when left out")
    new.add_argument("--seed", type=int, help="orders the tasks; 0 when left out")
    take = verb("import-tasks", "tasks from an export, or made of any data file; what is there already is left alone")
    take.add_argument("project", help=_PROJECT)
    take.add_argument("file", type=Path, help="an export of a project, or rows with answers to judge")
    take.add_argument("--round", type=int, default=0, help="round of tasks made of other data; 0 when left out")
    give = verb("export-tasks", "tasks, and with --labels what was said about them, as JSON lines")
    give.add_argument("project", help=_PROJECT)
    give.add_argument("file", type=Path, help="the .jsonl file to write")
    give.add_argument("--labels", action="store_true", help="add guidelines and the whole record of annotations")
    give.add_argument("--pseudonyms", action="store_true", help="names that only this project can trace in place of annotators' keys")
    give.add_argument("--no-rationales", action="store_true", help="leave out what annotators wrote as reasons")
    guide = verb("guidelines", "have guidelines.md, as it is now, hold from now on")
    guide.add_argument("project", help=_PROJECT)
    guide.add_argument("--old-labels", required=True, choices=["kept", "flagged", "relabel"], help="what becomes of labels made before")
    invite = verb("invite", "a link with which one person judges in this project")
    invite.add_argument("project", help=_PROJECT)
    invite.add_argument("name", help="for you; exports know people by a key alone")
    invite.add_argument("--role", choices=["annotator", "viewer", "admin"], default="annotator", help="annotator when left out")
    invite.add_argument("--site", default="http://127.0.0.1:8321", metavar="URL", help="address at which the pages are reached")
    freeze = verb("snapshot", "freeze the labels that count now, for --data PROJECT")
    freeze.add_argument("project", help=_PROJECT)
    freeze.add_argument("--round", type=int, help="whose folder it goes into; the newest when left out")
    freeze.add_argument("--replace", action="store_true", help="replace the round's snapshot of other labels")
    save = verb("backup", "the whole project in one zip file")
    save.add_argument("project", help=_PROJECT)
    save.add_argument("file", type=Path, help="the .zip file to write")
    restore = verb("restore", "a project folder from such a file")
    restore.add_argument("file", type=Path, help="the .zip file")
    restore.add_argument("project", help="the new folder")
    restore.add_argument("--database", metavar="URL", help="an empty PostgreSQL database; left out, a file in the folder")
    return parser


def _new(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    given = {name: getattr(chosen, name) for name in ("database", "overlap", "kinds", "seed")}
    project = Project.new(chosen.project, **{name: value for name, value in given.items() if value is not None})
    print(f"Made {project.folder}. Edit its guidelines.md and project.yaml, then: accord project import-tasks {project.folder} pairs.jsonl")
    return 0


def _import(chosen: argparse.Namespace) -> int:
    from accord.annotation.exchange import import_file
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        found = import_file(store, chosen.file, round=chosen.round, kinds=project.settings.kinds)
    print(
        f"{found.tasks.added} tasks and {found.annotations.added} annotations added; {found.tasks.known} and {found.annotations.known} were there."
    )
    if found.nothing_to_judge:
        print(f"{found.nothing_to_judge} rows have no answer to judge and made no task.")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from accord.annotation.exchange import export_file
    from accord.annotation.project import Project

    with Project(chosen.project).open_store() as store:
        tasks, annotations = export_file(
            store, chosen.file, labels=chosen.labels, pseudonyms=chosen.pseudonyms, rationales=not chosen.no_rationales
        )
    print(f"Wrote {tasks} tasks and {annotations} annotations to {chosen.file}.")
    return 0


def _guidelines(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        guideline = store.set_guideline(project.guideline_text, old_labels=chosen.old_labels)
    print(f"Guideline {guideline.version} ({guideline.hash[:16]}) holds.")
    return 0


def _invite(chosen: argparse.Namespace) -> int:
    import secrets

    from accord.annotation.project import Project

    secret = secrets.token_urlsafe(24)
    with Project(chosen.project).open_store() as store:
        person = store.add_annotator(chosen.name, chosen.role, secret=secret)
    print(f"{person.name} ({person.role}, {person.id}): {chosen.site.rstrip('/')}/join/{secret}")
    print("Whoever has this link judges as them. It is shown this once.")
    return 0


def _snapshot(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        snapshot = project.freeze(store, chosen.round, replace_old=chosen.replace)
    examples = ", ".join(f"{count} {kind}" for kind, count in sorted(snapshot.examples.items()))
    print(f"Froze {snapshot.rows} labels in {snapshot.folder} (hash {snapshot.hash[:16]}): {examples}; {snapshot.heldout} labels held out.")
    if snapshot.left_out:
        print("Left out: " + ", ".join(f"{count} {name}" for name, count in sorted(snapshot.left_out.items())) + ".")
    print(f"Next: accord reward --data {chosen.project} --eval_data {chosen.project}@heldout")
    return 0


def _backup(chosen: argparse.Namespace) -> int:
    from accord.annotation.backup import write_backup
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        rows = write_backup(store.database, project.folder, chosen.file)
    print(f"Wrote {chosen.file}: {rows['tasks']} tasks, {rows['annotations']} annotations.")
    return 0


def _restore(chosen: argparse.Namespace) -> int:
    from accord.annotation.backup import read_backup

    rows = read_backup(chosen.file, Path(chosen.project), chosen.database)
    print(f"Restored {chosen.project}: {rows['tasks']} tasks, {rows['annotations']} annotations.")
    return 0


_VERBS = {
    "new": _new,
    "import-tasks": _import,
    "export-tasks": _export,
    "guidelines": _guidelines,
    "invite": _invite,
    "snapshot": _snapshot,
    "backup": _backup,
    "restore": _restore,
}
