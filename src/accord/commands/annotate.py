"""`accord annotate`: fill a project with answers to judge, and open the page to judge them on; with --talk one to talk with the model, too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accord.config.options import AnnotateOptions
from accord.errors import ConfigError
from accord.types import Task

if TYPE_CHECKING:
    from accord.annotation.project import Project
    from accord.web.serve import Listening


def run(options: AnnotateOptions) -> int:
    """Make or open the project, add tasks, serve until Ctrl-C."""
    from accord.annotation.project import PROJECT, Project
    from accord.web.serve import Listening, serve

    certificate, key = (Path(path) if path else None for path in (options.tls_cert, options.tls_key))
    listening = Listening(options.host, options.port, certificate, key, options.behind)
    folder = Path(options.project)
    project = Project(folder) if (folder / PROJECT).is_file() else Project.new(folder, overlap=options.overlap)
    if options.data:
        fill(project, options)
    if options.talk:
        _talk(project, options, listening)
    else:
        serve(project, listening, open_browser=options.open_browser)
    return 0


def _talk(project: Project, options: AnnotateOptions, listening: Listening) -> None:
    """Serve the project with a model to talk with."""
    from accord.recipes.question_thread import Answering
    from accord.recipes.talk import open_talker
    from accord.web import talk
    from accord.web.serve import serve

    talker = open_talker(options, project)
    try:
        with Answering(talker) as answering:
            mount = partial(talk.mount, answering=answering)
            serve(project, listening, open_browser=options.open_browser, page=talk.PAGE, mount=mount)
    finally:
        talker.close()


def fill(project: Project, options: AnnotateOptions) -> None:
    """Tasks from a file: of the answers that its rows have, or of answers sampled from a model to its prompts."""
    from accord.annotation.duplicates import Unique
    from accord.annotation.exchange import import_file
    from accord.recipes.tasks import sampled_tasks

    assert options.data is not None
    with project.open_store() as store:
        if options.model:
            tasks: list[Task] = sampled_tasks(options, project, store)
            unique = Unique(store)
            added, duplicates = store.add_tasks(unique.of(tasks)), unique.words
        else:
            found = import_file(store, Path(options.data), round=options.round, kinds=project.settings.kinds)
            added, duplicates = found.tasks, found.duplicates
            if not added.added + added.known:
                raise ConfigError(f"{options.data} has no answers to judge. Give --model to sample some to its prompts.")
    print(" ".join(filter(None, (f"{added.added} tasks added, {added.known} were there.", duplicates))))
