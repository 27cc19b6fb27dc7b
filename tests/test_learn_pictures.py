"""The pictures of the learning pages are drawn from what benchmarks kept, and every page shows one."""

from __future__ import annotations

import re
from pathlib import Path

import learn_pictures
import pytest
from kept import standing

LEARN = Path(__file__).resolve().parents[1] / "docs" / "learn"
WITHOUT = {"README", "15-what-is-next"}
"""An index, and what nobody has drawn yet."""


@pytest.mark.parametrize("name", learn_pictures.PICTURES)
def test_a_picture_is_what_was_measured(name: str) -> None:
    drawn = standing(learn_pictures.PICTURES[name]())
    assert "No data" not in drawn
    assert (learn_pictures.IMAGES / f"{name}.svg").read_text(encoding="utf-8") == drawn, "run python benchmarks/learn_pictures.py --write"


def test_every_page_shows_a_picture_and_every_picture_has_its_page() -> None:
    shown = {page.stem: re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")) for page in LEARN.glob("*.md")}
    assert {page for page, pictures in shown.items() if not pictures} == WITHOUT
    assert {Path(picture).stem for pictures in shown.values() for picture in pictures} >= set(learn_pictures.PICTURES)
    assert {path.stem for path in learn_pictures.IMAGES.glob("*.svg")} == set(learn_pictures.PICTURES)
