"""`accord ui`: watch training in the browser."""

from __future__ import annotations

from pathlib import Path

from accord.config.ui import UiOptions
from accord.errors import DataError


def run(options: UiOptions) -> int:
    """Serve the pages of the runs below a folder until Ctrl-C.

    Raises:
        DataError: if there is no such folder.
    """
    from accord.web.serve import Listening, serve_runs

    certificate, key = (Path(path) if path else None for path in (options.tls_cert, options.tls_key))
    listening = Listening(options.host, options.port, certificate, key, options.behind)
    folder = Path(options.folder)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Train something first, or name the folder where runs lie: accord ui FOLDER")
    serve_runs(folder, listening, open_browser=options.open_browser)
    return 0
