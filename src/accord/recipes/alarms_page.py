"""From what the monitors of a run wrote to the alarms of a page, with the answers that show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.methods.guard import ALARMS, DRIFT, VERDICTS
from accord.reporting.report import Evidence, Sample

ALWAYS = ("disagreement", "ends")
"""Monitors whose row stands on the page when they are quiet, too."""
DRIFT_SHOWN = 3
"""Prompts of the drift panel on the page."""


def watched(folder: Path) -> dict[str, Any]:
    """What the monitors wrote into a run's folder: `monitors` (the last round's verdicts), `alarms` (each that rose), `drift` (the last panel)."""
    path = folder / VERDICTS
    verdicts = json.loads(path.read_text(encoding="utf-8"))["verdicts"] if path.exists() else []
    drift = _rows(folder / DRIFT)
    last = max((row["iteration"] for row in drift), default=0)
    return {"monitors": verdicts, "alarms": _rows(folder / ALARMS), "drift": [row for row in drift if row["iteration"] == last]}


def monitor_alarms(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a report's table of alarms: what is not quiet or was an alarm, what is always shown, and how many others are quiet."""
    verdicts: Sequence[dict[str, Any]] = stage.get("monitors", [])
    since = {row["name"]: row["iteration"] for row in stage.get("alarms", [])}
    past = past_alarms(stage)
    shown = [row for row in verdicts if (row["level"] != "quiet" or row["name"] in ALWAYS) and row["name"] not in past]
    order = {"alarm": 0, "watch": 1, "quiet": 2}
    found = [_alarm(row, since) for row in sorted([*past.values(), *shown], key=lambda row: order[row["level"]])]
    quiet = sum(row not in shown and row["name"] not in past for row in verdicts)
    if quiet:
        found.append(
            {
                "name": f"{quiet} other monitor{'s' * (quiet > 1)}",
                "value": "",
                "limit": "",
                "ok": True,
                "words": "each in monitors.json of the run",
            }
        )
    return found


def evidence(stage: Mapping[str, Any]) -> list[Evidence]:
    """The answers that show each alarm, of the last round or past, then the drift panel where there was an alarm."""
    red = [*(row for row in stage.get("monitors", []) if row["level"] == "alarm"), *past_alarms(stage).values()]
    found = [Evidence(f"{row['cause']} ({row['name']})", row["words"], [_sample(sample) for sample in row["samples"]]) for row in red]
    drift = stage.get("drift", [])[:DRIFT_SHOWN]
    if red and drift:
        words = f"The same prompts, answered with the same random draws at the start and in round {drift[0]['iteration']}."
        found.append(Evidence("Then and now", words, [_then_and_now(row) for row in drift]))
    return found


def past_alarms(stage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The last row of each alarm that rose and does not stand in the last round, by its monitor's name."""
    standing = {row["name"] for row in stage.get("monitors", []) if row["level"] == "alarm"}
    return {row["name"]: row for row in stage.get("alarms", []) if row["name"] not in standing}


def _alarm(row: dict[str, Any], since: Mapping[str, int]) -> dict[str, Any]:
    rose = f" Since round {since[row['name']]}." if row["level"] == "alarm" and row["name"] in since else ""
    if "iteration" in row:  # it stands no more
        rose = f" In round {row['iteration']}{', and rolled back' * ('rollback' in row)}; not in the last one."
    return {
        "name": row["name"] if row["level"] == "quiet" or row["cause"] == row["name"] else f"{row['name']}: {row['cause']}",
        "value": f"{row['value']:.3g}",
        "limit": f"{row['threshold']:.3g}",
        "ok": row["level"] != "alarm" or "rollback" in row,
        "watch": row["level"] == "watch" or "rollback" in row,
        "words": row["words"] + rose,
    }


def _sample(sample: Mapping[str, Any]) -> Sample:
    reward = "" if sample["reward"] is None else f"reward {sample['reward']:.2f}"
    return Sample(reward, sample["prompt"], [{"who": "sampled", "text": sample["text"], "passed": None, "finished": sample["finished"]}])


def _then_and_now(row: Mapping[str, Any]) -> Sample:
    answers = [{"who": who, "text": row[key], "passed": None, "finished": True} for who, key in (("start", "start"), ("now", "now"))]
    return Sample("", row["prompt"], answers)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
