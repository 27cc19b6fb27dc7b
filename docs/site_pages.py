"""For `make site`: README, CHANGELOG and LOG stand beside the pages, and links to other files of the project say where these are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "LOG.md": "LOG.md"}
"""Files of the project's root, and the pages that they become."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root."""
    for name, page in BESIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_LINK.sub(lambda m: _link(m, ROOT), text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ to the pages above, or turn them into the path they name."""
    source = ROOT / "docs" / page.file.src_uri
    return markdown if page.file.src_uri in BESIDE.values() else _LINK.sub(lambda m: _link(m, source.parent), markdown)


def _link(found: re.Match[str], folder: Path) -> str:
    image, text, target, anchor = found.group(1), found.group(2), found.group(3), found.group(4) or ""
    if "://" in target or target.startswith("mailto:"):
        return found.group(0)
    there = (folder / target).resolve()
    up = "" if folder == ROOT else "../" * len(folder.relative_to(ROOT / "docs").parts)
    if there.is_relative_to(ROOT / "docs"):
        return f"{image}[{text}]({up}{there.relative_to(ROOT / 'docs').as_posix()}{anchor})"
    name = there.relative_to(ROOT).as_posix()
    return f"[{text}]({up}{BESIDE[name]}{anchor})" if name in BESIDE else f"{text} (`{name}`)"
