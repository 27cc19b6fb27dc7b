"""Packaged demo data: prompts, demonstrations, comparisons. See DATASHEET.md."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def packaged_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a packaged file, as they lie in it."""
    text = (resources.files("accord.demo_data") / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]
