"""The process of the command line: the installed `accord`, and `python -m accord` where that is not on the path (torchrun)."""

from __future__ import annotations

import signal
import sys

from accord.cli import main

INTERRUPTED = 130


def run() -> int:
    """The command that the process was started with. Once Ctrl-C has ended it, another changes neither its exit code nor what it says."""
    try:
        code = main()
    except KeyboardInterrupt:  # while main was answering the first
        code = INTERRUPTED
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # unloading torch takes a second or two, in which people press it again
    return code


if __name__ == "__main__":
    sys.exit(run())
