"""What benchmarks keep and show: results between two marks of a page, and runs in processes of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def put(page: str, table: str, script: str, name: str = "table") -> str:
    """A page with this table between the marks that name it and the script that makes it.

    Raises:
        ValueError: if the page has no such marks.
    """
    start, end = f"<!-- {name}: python benchmarks/{script} --write -->", f"<!-- end of {name} -->"
    before, rest = page.split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"


def standing(drawn: str) -> str:
    """A chart of a page as a file of its own: with a size, and on white, for its ink is dark, and pages may be."""
    found = re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn)
    assert found is not None, drawn[:80]
    size = f'width="{found[1]}" height="{found[2]}"'
    return (
        drawn.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" style="background:#fff" {size} ', 1)
        + "\n"
    )


def alone(script: str, given: Sequence[str], at_most: float) -> dict[str, Any]:
    """What `script --child ...` prints as its last line, in a process of its own; `failed` with the reason where it does not end well."""
    command = [sys.executable, script, "--child", *given]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=at_most)
    except subprocess.TimeoutExpired:
        return {"failed": f"> {at_most:g} s"}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:160]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
