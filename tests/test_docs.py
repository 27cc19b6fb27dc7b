"""The pages say what is true: commands and options exist, metrics are explained, tests and files that are named are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import reasoning_page
import table
import yaml

from accord.arguments import _class, help_text
from accord.cli import COMMANDS
from pages import commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCE = ROOT / "src" / "accord"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_the_page_exist(page: Path) -> None:
    for words in commands(page):
        name = words[1] if len(words) > 1 else "COMMAND"
        if name.startswith("-") or name.isupper() or name == "...":
            continue
        name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else name
        assert name in COMMANDS, f"{page.name} names `accord {name}`"
        if COMMANDS[name].passthrough:
            continue
        known = help_text(COMMANDS[name], [_class(dotted) for dotted in COMMANDS[name].configs], everything=True)
        for option in (word.split("=")[0] for word in words[2:] if word.startswith("--")):
            plain = option.removeprefix("--").replace("_", "-")
            assert plain in ("help", "help-all", "config", "debug") or re.search(rf"--{plain}\b", known), (
                f"{page.name}: `accord {name}` has no {option}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name in re.findall(r"`((?:tests|src|docs|benchmarks)/[\w./-]+)(?:::\w+)?`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_site_has_every_page_once() -> None:
    """`make site` builds it and ends at a link that leads nowhere; here: no page is forgotten, none is named that is not there."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inside = entry.values() if isinstance(entry, dict) else entry
        return [page for one in inside for page in pages(one)]  # type: ignore[attr-defined]

    there = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages(nav)) == sorted([*there, "index.md", "CHANGELOG.md", "LOG.md"])


def test_every_metric_is_explained() -> None:
    """Names given to Metrics or put into dictionaries with a slash, in methods and training, are rows of docs/metrics.md."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for path in [*(SOURCE / "methods").glob("*.py"), *(SOURCE / "training").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"metrics\.(?:mean|ratio|total|maximum|minimum)\(\s*\"([\w/.]+)\"", text))
        found |= set(re.findall(r"\"((?:objective|completions|value|policy|val|loss|sampling|rewards|logps)/[\w.]+)\"", text))
    found.discard("tokens")  # becomes num_tokens before it is logged
    assert len(found) > 30
    missing = sorted(name for name in found if f"`{name}`" not in page)
    assert not missing, f"docs/metrics.md does not explain {missing}"


def test_the_tables_and_curves_of_reasoning_are_what_was_measured() -> None:
    page = reasoning_page.PAGE.read_text(encoding="utf-8")
    assert reasoning_page.written(page, reasoning_page.parts()) == page, "run python benchmarks/reasoning_page.py --write"
    for name, drawn in reasoning_page.pictures().items():
        assert (reasoning_page.IMAGES / name).read_text(encoding="utf-8") == drawn, "run python benchmarks/reasoning_page.py --write"


def test_the_table_of_speed_is_what_was_measured() -> None:
    """docs/speed.md shows every kept row of the benchmark, failures too: `python benchmarks/table.py --write`."""
    results = json.loads(table.RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert len(results) > 5 and table.written(page, results) == page, "run python benchmarks/table.py --write"
    assert table.line("a", {"failed": "> 180 s"}) == "| a |  | | > 180 s | | | |"
    busy = {"ratio": 2.04, "ratios": [1.0, 2.04, 3.0], "foreign share": 0.2, "peak GB ours": 1, "peak GB theirs": 2.26}
    assert table.line("b", busy) == "| b |  | 3 | 2.0 (1.0, 3.0), disturbed: other programs had 20% |  |  | 1.0, 2.3 |"
