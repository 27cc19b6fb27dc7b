"""The kept results of `vs_trl.py` and `vs_trl_ppo.py` as the table of docs/speed.md, worst pair and best beside the median.

python benchmarks/table.py             # prints it
python benchmarks/table.py --write     # puts it into docs/speed.md, where a test compares it with the results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kept import put

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "vs_trl.json", ROOT / "docs" / "speed.md"
HEADER = (
    "| model, method, rows | TRL's rows a pass | pairs | times as fast: median (worst, best) | share of the GEMM peak | tokens: ours, theirs padded | peak GB: ours, theirs |",
    "|---|---|---|---|---|---|---|",
)
DISTURBED = 0.05
"""Share of the processor's time that other programs had, above which a row says so."""


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    batch = found.get("setting", {}).get("batch", "")
    if "failed" in found:
        return f"| {name} | {batch} | | {found['failed']} | | | |"
    ratios = found.get("ratios", [found["ratio"]])
    counts = found.get("counts", {})
    tokens = [str(int(counts[key])) for key in ("ours tokens", "theirs padded") if key in counts]
    peaks = [found.get(f"peak GB {side}") for side in ("ours", "theirs")]
    memory = ["-" if peak is None else f"{peak:.1f}" for peak in peaks] if any(peaks) else []
    share = f"{found['share of peak']:.2f}" if "share of peak" in found else ""
    other = found.get("foreign share", 0.0)
    note = f", disturbed: other programs had {other:.0%}" if other > DISTURBED else ""
    speed = f"{found['ratio']:.1f} ({min(ratios):.1f}, {max(ratios):.1f}){note}"
    return f"| {name} | {batch} | {len(ratios)} | {speed} | {share} | {', '.join(tokens)} | {', '.join(memory)} |"


def table(results: dict[str, Any]) -> str:
    rows = [line(name, found) for name, found in results.items() if "ratio" in found or "failed" in found]
    return "\n".join((*HEADER, *rows))


def written(page: str, results: dict[str, Any]) -> str:
    """The page with the table of these results between its two marks."""
    return put(page, table(results), "table.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/speed.md")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
