"""`python -m accord`: the command line where the `accord` script is not on the path."""

from __future__ import annotations

import sys

from accord.cli import main

if __name__ == "__main__":
    sys.exit(main())
