"""From the findings of an audit to the page that people read."""

from __future__ import annotations

from collections.abc import Sequence

from accord.audit.findings import AMBER, GREEN, NONE, RED, Finding, Section, Shown
from accord.config.audit import AuditOptions
from accord.evaluation.intervals import Interval
from accord.recipes.look import decimals
from accord.reporting.audit_page import AuditPage, ProbeRow, SectionPart, TablePart
from accord.reporting.report import Sample

SENTENCES = {
    RED: "Do not ship: {} of {} probes are red.",
    AMBER: "Nothing is surely wrong; {} of {} probes are amber.",
    GREEN: "No probe is red or amber; {} of {} are green, the rest have no verdict.",
    NONE: "No verdict: there was too little to ask, or nothing to compare with ({1} probes).",
}


def page_of(options: AuditOptions, sections: Sequence[Section], level: str) -> AuditPage:
    """The page."""
    findings = [finding for section in sections for finding in section.findings]
    page = AuditPage(
        title=f"accord audit {options.model or options.reward}",
        sentence=SENTENCES[level].format(sum(finding.level == level for finding in findings), len(findings)),
        level=level,
        notes=_notes(options),
        sections=[_section(section) for section in sections],
    )
    page.next_steps = _next(options, sections)
    return page


def _notes(options: AuditOptions) -> list[str]:
    against = f", compared with {options.against}, item by item" if options.against else ""
    asked = f"Answers of up to {options.max_new_tokens} tokens at temperature {options.temperature:g}, seed {options.seed}, at most {options.limit or 'all'} items of each probe"
    own = [
        name
        for name in ("prompts", "requests", "truths", "problems", "instructions", "texts", "pairs", "adversarial", "styles")
        if getattr(options, name)
    ]
    files = (
        f"Your own files: {', '.join(own)}; the rest are packaged probes, written by this project."
        if own
        else "All probes are packaged ones, written by this project: a release should be asked sets of its own too."
    )
    notes = [f"{asked}{against}.", files] if options.model else [f"At most {options.limit or 'all'} items of each probe.", files]
    return [*notes, f"Reward model: {options.reward}."] if options.reward and options.model else notes


def _section(section: Section) -> SectionPart:
    tables = [TablePart(table.header, table.rows, table.words) for table in section.tables]
    return SectionPart(section.name, section.title, section.words, section.level, [_probe(one) for one in section.findings], tables)


def _probe(finding: Finding) -> ProbeRow:
    return ProbeRow(
        finding.name,
        value_text(finding.value, percent=finding.percent) if finding.value.count else "–",
        value_text(finding.base, percent=finding.percent, bare=True) if finding.base is not None else "",
        change_text(finding),
        allowed_text(finding),
        finding.level,
        finding.words,
        finding.advice,
        [_sample(one) for one in finding.examples],
    )


def value_text(found: Interval, *, percent: bool, bare: bool = False) -> str:
    """`23 % (12 to 41), 30 items`, or `0.41 (0.20 to 0.63), 30 items`. percent: True shows hundredths. bare: True leaves out all but the value."""
    scale, places, unit = (100.0, 0, " %") if percent else (1.0, 2, "")
    mean, low, high = (decimals(scale * value, places) for value in (found.mean, found.low, found.high))
    return f"{mean}{unit}" if bare else f"{mean}{unit} ({low} to {high}), {found.count} items"


def change_text(finding: Finding) -> str:
    """`+3 points (-1 to +9)`; empty without a base."""
    if finding.change is None:
        return ""
    scale, places, unit = (100.0, 0, " points") if finding.percent else (1.0, 2, "")
    mean, low, high = (
        decimals(scale * value, places, sign=True) for value in (finding.change.mean, finding.change.low, finding.change.high)
    )
    exact = f", p {finding.p_value:.2g}" if finding.p_value is not None and finding.p_value < 1 else ""
    return f"{mean}{unit} ({low} to {high}{exact})"


def allowed_text(finding: Finding) -> str:
    """What is allowed of the value and of the change, in words."""
    allowed = finding.allowed
    scale, places, unit = (100.0, 0, " %") if finding.percent else (1.0, 2, "")
    parts = []
    if allowed.level is not None:
        parts.append(f"{'at most' if allowed.higher_is_worse else 'at least'} {decimals(scale * allowed.level, places)}{unit}")
    if allowed.change is not None and finding.change is not None:
        side = 1.0 if allowed.higher_is_worse else -1.0
        parts.append(f"{decimals(side * scale * allowed.change, places, sign=True)}{' points' if finding.percent else ''}")
    return ", ".join(parts) or "–"


def _sample(shown: Shown) -> Sample:
    return Sample("", shown.prompt, [{"who": who, "text": text, "passed": None, "finished": True} for who, text in shown.answers])


def _next(options: AuditOptions, sections: Sequence[Section]) -> list[tuple[str, str]]:
    steps = []
    if options.model and not options.against:
        steps.append(
            (f"accord audit {options.model} --against BASE", "with the model before training: what changed, and the alignment tax")
        )
    if options.model and not options.reward:
        steps.append((f"accord audit {options.model} --reward runs/reward", "what its reward model pays for"))
    if any(section.level == RED for section in sections):
        steps.append(
            ("accord annotate labels --data prompts.jsonl --model " + (options.model or "MODEL"), "compare answers where it is red")
        )
    steps.append(
        (f"accord audit {options.model or options.reward} --gate", "the same in a release script: exit code 6 where anything is red")
    )
    return steps
