"""`accord lab`: a page and the numbers behind it; what it cannot do is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accord.config.lab import LabOptions
from accord.errors import ConfigError
from accord.recipes.lab import run


def test_the_page_shows_the_numbers_it_keeps(tmp_path: Path) -> None:
    page = run(LabOptions(level="exact", seeds=2, output_dir=str(tmp_path))).read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "lab.json").read_text(encoding="utf-8"))
    assert set(numbers) == {"accord", "seeds", "exact"} and numbers["seeds"] == 2
    single = numbers["exact"]["single"]["tilt"]
    assert f">{max(single['gold']):+.2f}<" in page
    assert single["kl"] == sorted(single["kl"]) and len(single["gold"]) == len(single["kl"])
    assert f"R² = {numbers['exact']['single law']['r_squared']:.3f}" in page


@pytest.mark.parametrize(("options", "words"), [(LabOptions(level="big"), "no level"), (LabOptions(seeds=0), "1 or more")])
def test_refused(options: LabOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(options)
