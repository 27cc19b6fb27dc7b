"""The report: one HTML file without scripts from elsewhere, fonts or network, made from plain data and safe to mail.

Text from models is escaped; the only script is the blind comparison, inline and allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from accord.reporting.charts import Line, line_chart


@dataclass(frozen=True)
class Who:
    """One column of the before/after table."""

    name: str
    title: str
    passed: int
    total: int
    measures: dict[str, str]
    """Row title to cell, in the order of the table."""


@dataclass(frozen=True)
class Sample:
    """One prompt and what each policy answered."""

    slice: str
    prompt: str
    answers: list[dict[str, Any]]
    """{"who", "text", "passed", "finished"}"""


@dataclass(frozen=True)
class Evidence:
    """The answers that show an alarm."""

    title: str
    words: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class BlindPair:
    """One pair for the reader to judge: which side is which is only in `after`."""

    prompt: str
    left: str
    right: str
    after: str
    """left or right: where the trained model's answer stands."""


@dataclass(frozen=True)
class Chart:
    """One of `reporting.charts` with what it shows."""

    svg: str
    words: str


@dataclass(frozen=True)
class Part:
    """A section that only some reports have: a table, charts, or both."""

    title: str
    words: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Cells as text, as many as the header has; the first one names the row."""
    charts: Sequence[Chart] = ()


@dataclass
class Report:
    """Everything on the page. Empty parts are left out, never faked."""

    title: str
    sentence: str
    notes: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    """Sections before all others."""
    who: list[Who] = field(default_factory=list)
    slices: list[dict[str, Any]] = field(default_factory=list)
    """{"title", "counts": [..]} in the order of `who`."""
    intervals: list[dict[str, Any]] = field(default_factory=list)
    """{"name", "text", "clear": bool}"""
    reward_lines: list[Line] = field(default_factory=list)
    reward_words: str = ""
    """What the chart of rewards shows and which of them training used."""
    practice_lines: list[Line] = field(default_factory=list)
    """Share of right answers by optimizer step, where answers are checked instead of rated."""
    length_lines: list[Line] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    """{"name", "value", "limit", "ok": bool, "words"}, and "watch": True for what is on the way there."""
    evidence: list[Evidence] = field(default_factory=list)
    """Below the table of alarms."""
    critiques: list[Sample] = field(default_factory=list)
    """Answers with what a critic said of them and what became of them, in the order of the prompts."""
    samples: list[Sample] = field(default_factory=list)
    worst: list[Sample] = field(default_factory=list)
    worst_words: str = ""
    """How the worst were chosen."""
    blind: list[BlindPair] = field(default_factory=list)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    """{"name", "value", "low", "high", "count"}: the reward model on pairs it was not trained on."""
    implicit: list[dict[str, Any]] = field(default_factory=list)
    """The same of a policy's implicit reward (DPO)."""
    calibration: list[dict[str, Any]] = field(default_factory=list)
    """{"confidence", "accuracy", "count"}"""
    calibration_text: str = ""
    tax: list[dict[str, str]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    lineage: list[tuple[str, str]] = field(default_factory=list)
    next_steps: list[tuple[str, str]] = field(default_factory=list)
    """(command, why)"""
    load_lines: str = ""


def render(report: Report) -> str:
    """The page as one string."""
    script = template_text("blind.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    template = environment().get_template("report.html")
    reward = (
        line_chart(report.reward_lines, x_label="KL from the SFT model, nats an answer", y_label="reward") if report.reward_lines else ""
    )
    practice = line_chart(report.practice_lines, x_label="optimizer step", y_label="share right") if report.practice_lines else ""
    length = line_chart(report.length_lines, x_label="iteration", y_label="tokens") if report.length_lines else ""
    return template.render(
        report=report,
        style=Markup(template_text("report.css")),
        script=Markup(script),
        script_hash=digest,
        reward_chart=Markup(reward),
        practice_chart=Markup(practice),
        length_chart=Markup(length),
        blind_json=Markup(_inline_json([pair.__dict__ for pair in report.blind])),
    )


def write(report: Report, path: Path) -> Path:
    """Write the page; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report), encoding="utf-8")
    return path


def environment() -> Environment:
    """Where the pages' templates are found; what they are filled with is escaped."""
    return Environment(
        loader=FunctionLoader(template_text),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_text(name: str) -> str:
    """A file of the folder `templates`."""
    return (resources.files("accord.reporting") / "templates" / name).read_text(encoding="utf-8")


def _inline_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
