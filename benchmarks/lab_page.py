"""What level model of the lab found, as docs/lab.md shows it.

    accord lab model --seeds 3                                   # eight minutes an arm on two cores; in parts with --arms
    python benchmarks/lab_page.py --from runs/lab/model --write  # keeps these numbers beside those of other runs, writes table and picture

Heights are means of three rounds. What is lost is the highest less the last; over several seeds with a 95 % interval by Student's t.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kept

from accord.recipes.lab import smoothed
from accord.recipes.stages import RECORD
from accord.reporting.charts import Line, line_chart

RESULTS = Path(__file__).parent / "results" / "lab_model.json"
PAGE = Path(__file__).parents[1] / "docs" / "lab.md"
PICTURE = PAGE.parent / "images" / "lab-model.svg"
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}
"""The 97.5 % point of Student's t for a mean of so many."""
DRAWN = ("single", "worst-case", "single, KL 0.1", "single, fresh labels", "gold")


def collected(folder: Path) -> dict[str, dict[str, Any]]:
    """What is done in the folder of level model, by the stage's name."""
    found = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("done"):
            found[record["name"]] = {**record["result"], "seconds": round(record["seconds"]), "peak GB": round(record["peak_rss_gb"], 1)}
    return found


def heights(run: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """True reward at the start, at its highest, nats there, and true reward at the end."""
    gold, kl = (smoothed([one[name] for one in run["rounds"]]) for name in ("gold", "kl"))
    at = max(range(len(gold)), key=lambda n: gold[n])
    return run["rounds"][0]["gold"], gold[at], kl[at], gold[-1]


def interval(values: Sequence[float]) -> str:
    """Mean, and its interval where there are several."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def arms(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The runs of each arm, in the order of their seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name in sorted(results, key=lambda one: int(one.rsplit(" ", 1)[1])):
        found.setdefault(name.rsplit(", seed ", 1)[0], []).append(results[name])
    return found


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row an arm."""
    lines = [
        "| reward maximised | seeds | true reward: start, highest (at nats), end | lost from the highest | proxy at the end | first alarm, round |",
        "|---|---|---|---|---|---|",
    ]
    found = arms(results)
    for name in sorted(found, key=lambda one: -statistics.fmean(heights(run)[3] for run in found[one])):
        runs = found[name]
        rows = [heights(run) for run in runs]
        start, high, nats, end = (statistics.fmean(column) for column in zip(*rows, strict=True))
        proxy = statistics.fmean(smoothed([one["proxy"] for one in run["rounds"]])[-1] for run in runs)
        first = ", ".join(f"{run['alarms'][0]['iteration']} ({run['alarms'][0]['cause']})" if run["alarms"] else "none" for run in runs)
        lost = interval([row[1] - row[3] for row in rows])
        lines.append(f"| {name} | {len(runs)} | {start:.2f}, {high:.2f} ({nats:.0f}), {end:.2f} | {lost} | {proxy:+.2f} | {first} |")
    seconds = [run["seconds"] for run in results.values()]
    peak = max(run["peak GB"] for run in results.values())
    lines += [
        "",
        f"An arm took {min(seconds) / 60:.0f} minutes by itself on two cores, up to {max(seconds) / 60:.0f} on one core of two busy ones, and {peak:.1f} GB at most.",
    ]
    return "\n".join(lines)


def picture(results: Mapping[str, Mapping[str, Any]]) -> str:
    """True reward round by round, the first seed of some arms."""
    found, lines = arms(results), []
    for name in (one for one in DRAWN if one in found):
        gold = smoothed([one["gold"] for one in found[name][0]["rounds"]])
        lines.append(Line(name, [float(n + 1) for n in range(len(gold))], gold, dashed=name == "gold"))
    drawn = line_chart(lines, x_label="round of PPO", y_label="true reward")
    return kept.standing(drawn)


def written(page: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with these results in it."""
    return kept.put(page, table(results), "lab_page.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, help="folder of level model; without it what is kept is written")
    parser.add_argument("--write", action="store_true", help="write the table into docs/lab.md, and the picture")
    given = parser.parse_args()
    if given.folder is not None:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**known, **collected(given.folder)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        PICTURE.write_text(picture(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
