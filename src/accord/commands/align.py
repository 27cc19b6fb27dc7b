"""`accord align`: once on the comparisons of a file, or round after round on fresh labels."""

from __future__ import annotations

from collections.abc import Callable

from accord.config.options import AlignOptions
from accord.config.rounds import RoundsOptions


def run(options: AlignOptions, rounds: RoundsOptions) -> int:
    """Align; with rounds, the page to judge on is served while labels are wanted, unless the options say otherwise."""
    if not rounds.rounds:
        from accord.recipes.align import run_align

        run_align(options)
        return 0
    from accord.annotation.project import Project
    from accord.recipes.rounds import run_rounds
    from accord.training.setup import say
    from accord.web.serve import Listening, serve

    def wait(project: Project, done: Callable[[], bool]) -> None:
        try:
            serve(project, Listening(port=rounds.port), open_browser=rounds.open_browser, until=done)
        except KeyboardInterrupt:
            say("Stopped; every answer is stored. Give the same command again: it goes on from here.")
            raise

    run_rounds(options, rounds, wait=None if rounds.no_serve else wait)
    return 0
