"""Look at data before training on it: what is wrong with which row, and what a model could learn by mistake."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from accord.data.read import Source, read_located, read_source
from accord.errors import DataError
from accord.types import Example, Message

if TYPE_CHECKING:
    from accord.data.render import Renderer

Severity = Literal["unusable", "doubtful"]
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing to look at in one row."""

    name: str
    """What it is, in words: `chosen and rejected are the same`."""
    where: str
    detail: str = ""
    severity: Severity = "doubtful"
    """unusable: reading stops here. doubtful: it is read, and probably not what was meant."""


@dataclass
class CheckReport:
    """Everything `check` found."""

    source: str
    rows: int = 0
    """Examples that can be used."""
    layout: str = ""
    kinds: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list[Finding])
    lengths: dict[str, float] = field(default_factory=dict[str, float])
    """longer_share: share of pairs whose chosen answer has more characters; chosen_words and rejected_words: means."""
    tokens: dict[str, float] = field(default_factory=dict[str, float])
    """With a tokenizer: mean and longest example in tokens, truncated_share, end_learned_share (of answers; steps have no end token)."""
    scripts: dict[str, float] = field(default_factory=dict[str, float])
    """Share of examples by the script most of their letters are in."""
    against: str = ""

    @property
    def unusable(self) -> int:
        """How many rows reading would stop at."""
        return sum(finding.severity == "unusable" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """How often each thing was found."""
        return dict(Counter(finding.name for finding in self.findings))

    def _length_tells(self) -> bool:
        """True if the longer answer wins or loses too often for chance (more than three standard errors from one half)."""
        return abs(self.lengths["longer_share"] - 0.5) * 2 * self.lengths["pairs"] ** 0.5 > 3

    def text(self) -> str:
        """The report in plain words."""
        kinds = ", ".join(f"{count} x {kind}" for kind, count in self.kinds.most_common())
        lines = [f"{self.source}: {self.rows} examples" + (f" ({kinds}; layout {self.layout})" if kinds else "")]
        if not self.findings:
            lines.append("Nothing wrong was found.")
        for name, count in self.counts().items():
            found = [finding for finding in self.findings if finding.name == name]
            mark = "UNUSABLE" if found[0].severity == "unusable" else "Look at"
            lines.append(f"{mark}: {name}: {count} ({count / max(self.rows + self.unusable, 1):.1%})")
            lines += [f"    {finding.detail or finding.where}" for finding in found[:_SHOWN]]
            if count > _SHOWN:
                lines.append(f"    and {count - _SHOWN} more")
        if self.lengths:
            lines.append(
                f"Length: the chosen answer is the longer one in {self.lengths['longer_share']:.1%} of the pairs; "
                f"mean {self.lengths['chosen_words']:.1f} words chosen, {self.lengths['rejected_words']:.1f} rejected."
                + (" Length alone tells much of the preference." if self._length_tells() else "")
            )
        if self.tokens:
            lines.append(f"Tokens: mean {self.tokens['mean']:.0f}, longest {self.tokens['longest']:.0f} (prompt and completion).")
            if "truncated_share" in self.tokens:
                lines.append(f"Truncated at {self.tokens['max_length']:.0f} tokens: {self.tokens['truncated_share']:.1%} of the examples.")
            if "end_learned_share" in self.tokens:
                lines.append(f"The end token is learned in {self.tokens['end_learned_share']:.1%} of the completions.")
        if self.scripts:
            mix = ", ".join(f"{script} {share:.1%}" for script, share in sorted(self.scripts.items(), key=lambda item: -item[1])[:6])
            lines.append(f"Writing: {mix}.")
        if self.against:
            leaked = self.counts().get(LEAK, 0)
            lines.append(
                f"Against {self.against}: {leaked} examples share a prompt with it."
                if leaked
                else f"No prompt is shared with {self.against}."
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON-able dict."""
        findings = [{"name": f.name, "where": f.where, "detail": f.detail, "severity": f.severity} for f in self.findings]
        numbers = {"lengths": self.lengths, "tokens": self.tokens, "scripts": self.scripts}
        head = {
            "schema": 1,
            "source": self.source,
            "rows": self.rows,
            "unusable": self.unusable,
            "layout": self.layout,
            "kinds": dict(self.kinds),
        }
        return {**head, "counts": self.counts(), "findings": findings, **numbers, "against": self.against}


UNUSABLE = "row cannot be used"
UNRENDERED = "row cannot be turned into tokens"
LEAK = "prompt is also in the other data"
SAME = "chosen and rejected are the same"
EARLY = "chosen and rejected differ before the last turn"
DUPLICATE = "same as an earlier row"
REVERSED = "an earlier row says the opposite"
EMPTY = "empty turn"
ROLES = "roles do not alternate"
ENDS_ON_USER = "conversation ends on the user"


def check(
    source: Source,
    *,
    against: Source | None = None,
    tokenizer: Any = None,
    end_ids: Sequence[int] | None = None,
    max_length: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> CheckReport:
    """Report what is wrong or doubtful in a dataset, row by row, without stopping at the first.

    Args:
        source: anything that `read_examples` takes.
        against: other data (usually the test set) that must not share prompts with this one; None: not compared.
        tokenizer: a transformers tokenizer for lengths, truncation and the end token; None: those are left out.
        end_ids: ids that end an answer, the one to learn first, as training has them (`models.tokens.stop_token_ids`); None: the
            tokenizer's end token.
        max_length: longest example in tokens that training will take; None: truncation is left out.
        columns: as for `read_examples`.
    """
    report = CheckReport(_name(source), against="" if against is None else _name(against))
    other = [] if against is None else _read(against, CheckReport(""))
    other_prompts = {_prompt_key(example) for example in other if example.prompt}
    examples = _read(source, report, columns)
    seen: dict[str, str] = {}
    for example in examples:
        report.rows += 1
        report.kinds[example.kind] += 1
        report.findings += _row_findings(example)
        report.findings += _repeat_findings(example, seen)
        if example.prompt and _prompt_key(example) in other_prompts:
            report.findings.append(Finding(LEAK, example.where))
    report.lengths = _lengths(examples)
    report.scripts = _scripts(examples)
    if tokenizer is not None and examples:
        from accord.data.render import Renderer

        report.tokens = _tokens(examples, Renderer(tokenizer, end_ids=end_ids, max_length=max_length), report.findings)
    return report


def _read(source: Source, report: CheckReport, columns: Mapping[str, str] | None = None) -> list[Example]:
    def note(error: DataError) -> None:
        report.findings.append(_unusable(UNUSABLE, error))

    examples: list[Example] = []
    try:
        for layout, example in read_located(read_source(source, on_error=note), columns=columns, on_error=note):
            report.layout = layout.name
            examples.append(example)
    except DataError as error:
        if not examples and not report.findings:
            raise
        note(error)
    return examples


def _row_findings(example: Example) -> Iterable[Finding]:
    if any(not message.content.strip() for message in _all_messages(example)):
        yield Finding(EMPTY, example.where)
    if example.kind == "preference":
        chosen, rejected = (completion.messages for completion in example.completions)
        if chosen == rejected:
            yield Finding(SAME, example.where)
        elif chosen[:-1] != rejected[:-1]:
            yield Finding(EARLY, example.where)
    if example.plain or example.kind == "text":
        return
    conversations = [(*example.prompt, *completion.messages) for completion in example.completions] or [example.prompt]
    if example.kind != "steps" and not all(_alternates(messages) for messages in conversations):
        yield Finding(ROLES, example.where)
    if example.kind != "prompt" and any(messages[-1].role == "user" for messages in conversations):
        yield Finding(ENDS_ON_USER, example.where)


def _unusable(name: str, error: DataError) -> Finding:
    place = re.match(r".*? (?:line|row) \d+|row \d+", str(error))
    return Finding(name, place.group() if place else "", str(error), "unusable")


def _repeat_findings(example: Example, seen: dict[str, str]) -> Iterable[Finding]:
    if example.id in seen:
        yield Finding(DUPLICATE, example.where, f"{example.where} repeats {seen[example.id]}")
    elif example.kind == "preference" and example.probability != 0.5:
        turned = Example(example.kind, example.prompt, example.completions[::-1]).id
        if turned in seen and example.completions[0].messages != example.completions[1].messages:
            yield Finding(REVERSED, example.where, f"{example.where} prefers what {seen[turned]} rejects")
    seen.setdefault(example.id, example.where)


def _all_messages(example: Example) -> list[Message]:
    return [*example.prompt, *(message for completion in example.completions for message in completion.messages)]


def _alternates(messages: Sequence[Message]) -> bool:
    roles = [message.role for message in messages]
    if roles and roles[0] == "system":
        roles = roles[1:]
    allowed = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool"), "system": ()}
    return bool(roles) and roles[0] == "user" and all(after in allowed[before] for before, after in pairwise(roles))


def _prompt_key(example: Example) -> str:
    return " | ".join(" ".join(message.content.casefold().split()) for message in example.prompt if message.role != "system")


def _lengths(examples: Sequence[Example]) -> dict[str, float]:
    pairs = [
        tuple("\n".join(m.content for m in c.messages) for c in example.completions) for example in examples if example.kind == "preference"
    ]
    if not pairs:
        return {}
    longer = sum(len(chosen) > len(rejected) for chosen, rejected in pairs)
    words = [sum(len(pair[side].split()) for pair in pairs) / len(pairs) for side in (0, 1)]
    return {"pairs": len(pairs), "longer_share": longer / len(pairs), "chosen_words": words[0], "rejected_words": words[1]}


def _scripts(examples: Sequence[Example]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for example in examples:
        letters = Counter(_script(c) for m in _all_messages(example) for c in m.content[:200] if c.isalpha())
        found[letters.most_common(1)[0][0] if letters else "no letters"] += 1
    return {script: count / len(examples) for script, count in found.items()}


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split(" ")[0].split("-")[0].lower()


def _tokens(examples: Sequence[Example], renderer: Renderer, findings: list[Finding]) -> dict[str, float]:
    from accord.data.render_steps import StepRenderer

    lengths: list[int] = []
    ended: list[bool] = []
    steps = StepRenderer(renderer)
    for example in examples:
        try:
            if example.kind == "steps":  # no end token is learned of them, only labels at their ends
                lengths.append(steps.unit(example.prompt, [message.content for message in example.completions[0].messages]).num_tokens)
                continue
            rendered = renderer.render(example)
        except DataError as error:
            findings.append(_unusable(UNRENDERED, error))
            continue
        lengths.append(rendered.whole)
        ended += [ends_counted(c.ids, c.counted, renderer.end_ids) for c in rendered.completions]
    if not lengths:
        return {}
    share: dict[str, float] = {}
    max_length = renderer.max_length
    if max_length is not None:
        share = {"max_length": float(max_length), "truncated_share": sum(n > max_length for n in lengths) / len(lengths)}
    end = {"end_learned_share": sum(ended) / len(ended)} if ended else {}
    return {"mean": sum(lengths) / len(lengths), "longest": float(max(lengths)), **end, **share}


def ends_counted(ids: Sequence[int], counted: Sequence[bool], end_ids: Sequence[int]) -> bool:
    """True if the last counted token of a completion is an end token: then the model learns to stop."""
    last = next((token for token, counts in zip(reversed(ids), reversed(counted), strict=True) if counts), None)
    return last in end_ids


def _name(source: Source) -> str:
    return Path(source).name if isinstance(source, (str, Path)) else f"the {type(source).__name__}"
