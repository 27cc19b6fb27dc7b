"""`accord ui`: runs to watch, a model to chat with, checkpoints to compare, in the browser."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accord.config.options import ChatOptions, LearnOptions
from accord.config.ui import UiOptions
from accord.errors import ConfigError, DataError

if TYPE_CHECKING:
    from accord.recipes.partner import Partner
    from accord.recipes.question_thread import Answering
    from accord.recipes.seat import Wish


def run(options: UiOptions) -> int:
    """Serve the pages of the runs below a folder until Ctrl-C. No model is loaded before one is asked for.

    Raises:
        DataError: if there is no such folder, and no model to open.
        ConfigError: if what should be opened at once cannot be.
    """
    from accord.recipes.seat import Seat
    from accord.web import blind, chat
    from accord.web.access import is_loopback
    from accord.web.serve import Listening, serve_ui

    certificate, key = (Path(path) if path else None for path in (options.tls_cert, options.tls_key))
    listening = Listening(options.host, options.port, certificate, key, options.behind)
    folder, wish = Path(options.folder), wished(options)
    if not folder.is_dir() and (wish is None or folder.exists()):
        raise DataError(f"There is no folder {folder}. Train something first, or name the folder where runs lie: accord ui FOLDER")
    seat = Seat(partial(opened, runs=folder, votes=Path(options.votes) if options.votes else folder / "comparisons"))
    if wish is not None:
        if not is_loopback(listening.host) or listening.behind is not None:
            raise ConfigError(
                "accord ui lets people on other machines look and no more. Leave --chat, --compare, --host and --behind out, or invite them to a "
                "chat that learns: accord chat MODEL --learn --host ..."
            )
        folder.mkdir(parents=True, exist_ok=True)  # of the votes, or of the chat that learns
        seat.open(wish)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service is Ctrl-C here: a chat that learns is saved
    page = "" if wish is None else blind.PAGE if wish.kind == "compare" else chat.PAGE
    serve_ui(folder, listening, seat, wish.models if wish is not None else (), open_browser=options.open_browser, page=page)
    return 0


def wished(options: UiOptions) -> Wish | None:
    """What the options want opened at once. Raises ConfigError if that cannot be."""
    from accord.recipes.seat import Wish

    if options.compare:
        return Wish("compare", tuple(options.compare), tuple(options.compare))
    if options.chat:
        return Wish("learn" if options.learn else "chat", (options.chat,), (options.chat,))
    return None


def opened(wish: Wish, *, runs: Path, votes: Path) -> Answering[Partner]:
    """What was wished for, its models loaded, not started. torch is imported here and no earlier.

    Args:
        runs: where the run of a chat that learns is made.
        votes: the project of comparisons.
    """
    from accord.recipes.blind import open_comparison
    from accord.recipes.learn import open_learner
    from accord.recipes.learn_thread import Background
    from accord.recipes.plain_chat import open_chat
    from accord.recipes.question_thread import Answering
    from accord.web.access import know_this_user

    options = ChatOptions(wish.models[0], max_new_tokens=wish.max_new_tokens, temperature=wish.temperature)
    if wish.kind == "chat":
        return Answering(open_chat(options, wish.titles[0]))
    if wish.kind == "learn":
        learner = open_learner(options, LearnOptions(learn=True), runs=runs)
        learner.title = wish.titles[0]
        know_this_user(learner.kept)
        return Background(learner)
    comparison = open_comparison(wish, votes)
    know_this_user(comparison.kept)
    return Answering(comparison)
