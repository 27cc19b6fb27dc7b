"""What the pages say to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def commands(page: Path) -> list[list[str]]:
    """Every `accord ...` of a page, code blocks first, then code spans, each as words."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = "\n".join(body for language, body in fences if language in ("", "bash", "sh")).replace("\\\n", " ")
    lines = [line.split("#")[0].strip() if " #" in line else line.strip() for line in blocks.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [shlex.split(line) for line in (*lines, *spans) if line.startswith("accord ")]
