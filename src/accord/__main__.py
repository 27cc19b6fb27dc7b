"""`python -m accord`: the command line where the script is not on the path, and under torchrun."""

from __future__ import annotations

import sys

from accord.cli import main

if __name__ == "__main__":
    sys.exit(main())
