"""`accord project new | import-tasks | import-labels | export-tasks | export | guidelines | calibration | invite | people | erase | snapshot | ...`."""

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
    take.add_argument(
        "--kind",
        choices=["pair", "ranking", "rating", "steps", "edit", "chat"],
        help="rating and chat ask about each answer by itself (chat: about each of its turns), edit for a better text; by what the rows hold when left out",
    )
    take.add_argument(
        "--gold", action="store_true", help="what the rows say is right, and measures annotators; asks them for it when left out"
    )
    labels = verb(
        "import-labels", "labels that were given in other tools: Argilla, Label Studio, Potato, TRL, HH, UltraFeedback, OpenAI, CSV ..."
    )
    labels.add_argument("project", help=_PROJECT)
    labels.add_argument("file", type=Path, help="rows with judgements")
    labels.add_argument("--format", default="auto", help="name of their layout; by the columns of the first row when left out")
    labels.add_argument(
        "--source", choices=["human", "ai", "rule", "debate", "simulated"], help="who gave them; by the layout when left out"
    )
    labels.add_argument(
        "--columns", nargs="+", default=[], metavar="PART=COLUMN", help="which column is which: prompt=question winner=vote"
    )
    labels.add_argument("--round", type=int, default=0, help="round of tasks that are not there yet; 0 when left out")
    labels.add_argument(
        "--skip-bad", action="store_true", help="leave out rows that cannot be used and name each; stop at the first when left out"
    )
    give = verb("export-tasks", "tasks, and with --labels what was said about them, as JSON lines")
    give.add_argument("project", help=_PROJECT)
    give.add_argument("file", type=Path, help="the .jsonl file to write")
    give.add_argument("--labels", action="store_true", help="add guidelines and the whole record of annotations")
    give.add_argument("--pseudonyms", action="store_true", help="names that only this project can trace in place of annotators' keys")
    give.add_argument("--no-rationales", action="store_true", help="leave out what annotators wrote as reasons")
    out = verb("export", "the labels that count now, in the layout of another tool")
    out.add_argument("project", help=_PROJECT)
    out.add_argument("file", type=Path, help="the file to write: .jsonl, .json, .csv ...")
    out.add_argument("--format", required=True, help="trl, hh, ultrafeedback, openai_preference, argilla, label_studio, potato, csv ...")
    out.add_argument("--names", action="store_true", help="annotators' names, as entered or imported; their keys when left out")
    guide = verb("guidelines", "have guidelines.md, as it is now, hold from now on")
    guide.add_argument("project", help=_PROJECT)
    guide.add_argument("--old-labels", required=True, choices=["kept", "flagged", "relabel"], help="what becomes of labels made before")
    calibrate = verb("calibration", "have everybody label the same tasks first, then compare, then go on")
    calibrate.add_argument("project", help=_PROJECT)
    calibrate.add_argument("step", choices=["begin", "end"], help="begin gives everybody the same tasks; end lets work begin")
    calibrate.add_argument("--tasks", type=int, default=50, help="how many; 50 when left out")
    calibrate.add_argument("--round", type=int, help="the newest when left out")
    invite = verb("invite", "a link with which one person judges in this project")
    invite.add_argument("project", help=_PROJECT)
    invite.add_argument("name", help="for you; exports know people by a key alone")
    invite.add_argument("--role", choices=["annotator", "viewer", "admin"], default="annotator", help="annotator when left out")
    invite.add_argument("--site", default="http://127.0.0.1:8321", metavar="URL", help="address at which the pages are reached")
    quality = verb("quality", "whether to trust the labels, what limits a reward model, how many labels are to go")
    quality.add_argument("project", help=_PROJECT)
    quality.add_argument("--round", type=int, help="the newest when left out")
    quality.add_argument(
        "--reward-accuracy", type=float, metavar="A", help="held-out accuracy of a reward model; the newest that was measured when left out"
    )
    quality.add_argument(
        "--measured",
        nargs="+",
        default=[],
        metavar="LABELS=A",
        help="held-out accuracies with so many labels, 500=0.61 1000=0.64; those that were measured when left out",
    )
    quality.add_argument(
        "--target", type=float, default=0.75, metavar="A", help="accuracy for which labels to go are told; 0.75 when left out"
    )
    people = verb("people", "who judges, and the keys that the record knows them by")
    people.add_argument("project", help=_PROJECT)
    erase = verb("erase", "somebody's name and words, on request: in the record and in every snapshot")
    erase.add_argument("project", help=_PROJECT)
    erase.add_argument("annotator", help="their key, from accord project people")
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
        found = import_file(store, chosen.file, round=chosen.round, kinds=project.settings.kinds, kind=chosen.kind, gold=chosen.gold)
    print(
        f"{found.tasks.added} tasks and {found.annotations.added} annotations added; {found.tasks.known} and {found.annotations.known} were there."
    )
    if found.nothing_to_judge:
        print(f"{found.nothing_to_judge} rows have no answer to judge and made no task.")
    if found.duplicates:
        print(found.duplicates)
    return 0


def _import_labels(chosen: argparse.Namespace) -> int:
    from accord.annotation.import_labels import import_labels
    from accord.annotation.project import Project
    from accord.data.columns import parse_columns

    project = Project(chosen.project)
    with project.open_store() as store:
        found = import_labels(
            store,
            chosen.file,
            format=chosen.format,
            source=chosen.source,
            round=chosen.round,
            kinds=project.settings.kinds,
            columns=parse_columns(chosen.columns) or None,
            skip_bad=chosen.skip_bad,
        )
    added, known = found.annotations.added, found.annotations.known
    print(f"{added} labels of {found.annotators} annotators added ({found.layout}), {known} were there; {found.tasks.added} tasks are new.")
    for note, count in found.notes.items():
        print(f"{count} {note}.")
    for line in found.bad:
        print(f"Left out: {line}")
    if found.bad:
        print(f"{len(found.bad)} rows were left out.")
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


def _export_labels(chosen: argparse.Namespace) -> int:
    from accord.annotation.export_labels import export_labels
    from accord.annotation.project import Project

    with Project(chosen.project).open_store() as store:
        found = export_labels(store, chosen.file, chosen.format, names=chosen.names)
    print(f"Wrote {found.labels} labels in {found.report.rows} rows to {chosen.file} ({found.report.format}).")
    for what, counts in (
        ("No place in this format", found.not_held),
        ("Not labels to pass on", found.left_out),
        ("Lost", found.report.lost),
    ):
        if counts:
            print(f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + ".")
    if found.personal:
        print(f"Columns that name people, written with --names only: {', '.join(found.personal)}.")
    return 0


def _guidelines(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        guideline = store.set_guideline(project.guideline_text, old_labels=chosen.old_labels)
    print(f"Guideline {guideline.version} ({guideline.hash[:16]}) holds.")
    return 0


def _calibration(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    with Project(chosen.project).open_store() as store:
        round = store.progress().round if chosen.round is None else chosen.round
        if chosen.step == "end":
            store.set_phase(round, "work")
            print(f"Round {round} is at work. What people said of the first tasks is on the page /calibration.")
            return 0
        count = store.begin_calibration(round, chosen.tasks)
    print(f"Everybody labels the same {count} tasks of round {round} first. Once all have, they see on /calibration where they differ.")
    print(
        f"Then: edit guidelines.md, accord project guidelines {chosen.project} --old-labels flagged, accord project calibration {chosen.project} end"
    )
    return 0


def _quality(chosen: argparse.Namespace) -> int:
    from accord.annotation.accuracies import check_share, kept, typed
    from accord.annotation.outlook import outlook
    from accord.annotation.panel import panel
    from accord.annotation.project import Project

    project = Project(chosen.project)
    measured = [typed(text, "--measured") for text in chosen.measured] or kept(project.folder)
    for name in ("reward_accuracy", "target"):
        if getattr(chosen, name) is not None:
            check_share(getattr(chosen, name), f"--{name.replace('_', '-')} {getattr(chosen, name):g}")
    with project.open_store() as store:
        found = panel(store, chosen.round)
        ahead = outlook(found, store.progress(found.round), measured, accuracy=chosen.reward_accuracy, target=chosen.target)
        names = {person.id: person.name for person in store.annotators()}
    lines = [f"Round {found.round}: {found.judgements} comparisons.", *found.words]
    for one in found.annotators:
        lines.append(" ".join([f"{names.get(one.annotator, one.annotator)}: {one.judgements} judged.", *one.words]))
    lines += [f"{one.first} against {one.second}: {one.decision.words}" for one in found.measures.contests]
    for task in found.reported:
        said = "".join(sign if sign.isprintable() else " " for sign in "; ".join(task.reasons))
        lines.append(f"Task {task.task} was reported{', and is given to nobody' if task.retired else ''}: {said}")
    learned = {one.arm: f", reward accuracy {one.accuracy:.2f} of {one.pairs} pairs" for one in kept(project.folder, arms=True)}
    for one in found.measures.arms:
        who = "Chance" if one.arm == "random" else "The rule"
        lines.append(f"{who} chose {one.judgements} of these comparisons: ties {one.ties.words}{learned.get(one.arm, '')}.")
    lines += ahead.words
    lines += [f"{one.question}: {one.comparisons:,} comparisons." for one in ahead.planned]
    print("\n".join(lines))
    return 0


def _people(chosen: argparse.Namespace) -> int:
    from accord.annotation.project import Project

    with Project(chosen.project).open_store() as store:
        for person in store.annotators():
            print(f"{person.id}  {person.name}  {person.role}, {person.asked} tasks given")
    return 0


def _erase(chosen: argparse.Namespace) -> int:
    from accord.annotation.erasure import erase_everywhere
    from accord.annotation.project import Project

    project = Project(chosen.project)
    with project.open_store() as store:
        found = erase_everywhere(store, project.folder, chosen.annotator)
    gone = found.erasure
    print(f"Erased {gone.annotator}: {gone.texts} texts are gone; {gone.annotations} labels stay, under a key that leads to nobody.")
    for name, rows in found.snapshots.items():
        print(f"rounds/{name}: a note, and {rows} tombstones in place of texts.")
    print("Backups, exports and models that were trained before hold what they held.")
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
    if "selected" in snapshot.left_out:
        print("selected: a rule chose the pair, and its prompt is held out. Only what chance chose is fit for evaluation.")
    if snapshot.no_example:
        told = ", ".join(f"{count} {name}" for name, count in sorted(snapshot.no_example.items()))
        print(f"Frozen, and teach nothing (a rating of 4 is neither good nor bad): {told}.")
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
    "import-labels": _import_labels,
    "export-tasks": _export,
    "export": _export_labels,
    "guidelines": _guidelines,
    "calibration": _calibration,
    "invite": _invite,
    "quality": _quality,
    "people": _people,
    "erase": _erase,
    "snapshot": _snapshot,
    "backup": _backup,
    "restore": _restore,
}
