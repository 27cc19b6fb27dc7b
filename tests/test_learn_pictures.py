"""The pictures of the learning pages are drawn from what benchmarks kept, and every page shows one."""

from __future__ import annotations

import re
from pathlib import Path

import learn_pictures
import pytest
from kept import standing

LEARN = Path(__file__).resolve().parents[1] / "docs" / "learn"
FORMULA = re.compile(r"\b[pPE][(\[]|\b\w+ = |±|\b\d [pP] |\(a - b ")
"""What pages write of theirs: a probability, an expectation, an equality, an interval, bytes or operations a weight, Gao's curve."""
PAGES = [page for page in sorted(LEARN.glob("*.md")) if page.name != "README.md"]


@pytest.mark.parametrize("name", learn_pictures.PICTURES)
def test_a_picture_is_what_was_measured(name: str) -> None:
    drawn = standing(learn_pictures.PICTURES[name]())
    assert "No data" not in drawn
    assert (learn_pictures.IMAGES / f"{name}.svg").read_text(encoding="utf-8") == drawn, "run python benchmarks/learn_pictures.py --write"


def test_every_page_shows_a_picture_and_every_picture_has_its_page() -> None:
    shown = {page.stem: re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")) for page in PAGES}
    assert not {page for page, pictures in shown.items() if not pictures}
    assert {Path(picture).stem for pictures in shown.values() for picture in pictures} >= set(learn_pictures.PICTURES)
    assert {path.stem for path in learn_pictures.IMAGES.glob("*.svg")} == set(learn_pictures.PICTURES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_what_the_index_promises(page: Path) -> None:
    """An equation, a command, what to look at, an exercise; the picture is above."""
    text = page.read_text(encoding="utf-8")
    assert FORMULA.search(text), "no equation"
    assert "`accord " in text or "\naccord " in text
    assert re.search(r"\b[Ll]ook (first )?at\b|the page says", text), "nothing to look at"
    assert "\nExercise: " in text
