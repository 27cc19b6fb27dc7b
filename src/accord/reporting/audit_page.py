"""The page of an audit: what must not be shipped first, then every probe with its interval, its limit, its examples and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from accord.reporting.report import Sample, environment, template_text
from accord.writing import write_text


@dataclass(frozen=True)
class ProbeRow:
    """One probe on the page; cells are text."""

    name: str
    value: str
    base: str
    change: str
    allowed: str
    level: str
    """red, amber, green or none."""
    words: str
    advice: str
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class TablePart:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: str


@dataclass(frozen=True)
class SectionPart:
    """One section of the page."""

    name: str
    title: str
    words: str
    level: str
    probes: Sequence[ProbeRow]
    tables: Sequence[TablePart] = ()

    @property
    def paired(self) -> bool:
        """Whether any probe is compared with a base."""
        return any(probe.change for probe in self.probes)


@dataclass
class AuditPage:
    """Everything on the page."""

    title: str
    sentence: str
    level: str
    notes: list[str] = field(default_factory=list)
    sections: list[SectionPart] = field(default_factory=list)
    next_steps: list[tuple[str, str]] = field(default_factory=list)
    """(command, why)"""

    @property
    def red(self) -> list[tuple[SectionPart, ProbeRow]]:
        """What must not be shipped."""
        return [(section, probe) for section in self.sections for probe in section.probes if probe.level == "red"]


def render_audit(page: AuditPage) -> str:
    """The page as one string; it has no script."""
    return environment().get_template("audit.html").render(page=page, style=Markup(template_text("report.css")))


def write_audit(page: AuditPage, path: Path) -> Path:
    """Write the page; returns its path.

    Raises:
        MachineError: if it cannot be written.
    """
    write_text(path, render_audit(page))
    return path
