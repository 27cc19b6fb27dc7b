"""Which revisions are worth learning from: text that stands by itself, and that a judge prefers to the original in both orders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from accord.ai_feedback.constitution import Constitution, Principle
from accord.ai_feedback.judges import Judge, PairwiseJudge
from accord.ai_feedback.revision import Chain, Critic, Step
from accord.ai_feedback.verdicts import Comparison, Verdict, as_record
from accord.audit.detectors import repetition, word_count
from accord.types import Completion, Example, Message

UNCHANGED, CUT_OFF, META, REPEATS = "unchanged", "cut off", "talks about the revision", "repeats itself"
TOO_SHORT, TOO_LONG, NOT_BETTER = "too short for the original", "too long for the original", "does not beat the original in both orders"
NO_VERDICT = "the judge gave no valid verdict"
SCHEMA = 1
COLUMN = "constitution"
"""Column of the demonstrations made here: how the answer came about."""

_THING = r"(?:answer|response|reply|version|text|message|revision)"
_DONE = r"(?:revised|rewritten|re-?written|improved|corrected|updated|new|edited|modified|better)"
_META = re.compile(
    rf"""^\W*(?:sure|certainly|of\ course|okay|ok|absolutely)?\W*(?:
        here(?:\ is|'s|’s|\ are)\ (?:\w+\ ){{0,3}}{_DONE}\b
      | (?:the|this|my|a|your)?\ ?{_DONE}\ {_THING}\b
      | i(?:\ have|'ve|’ve)?\ (?:revised|rewritten|re-?wrote|updated|improved|changed|edited)\b
      | (?:as|like)\ (?:you\ )?(?:requested|asked)\b
      | (?:to|in\ order\ to)\ (?:revise|rewrite|improve)\ (?:the|this|your)\ {_THING}
      | (?:the\ original|this)\ {_THING}\ (?:is|was|has|should|could|can|does)\b
      )
    | \n\W*(?:critique|revision)(?:\ request)?\s*:
    | \[(?:Message|Answer|End\ of)
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class FilterSettings:
    """What a revision has to be. The ratio and both-order rules follow studies with models of 7 to 9 billion weights."""

    lowest_ratio: float = 0.3
    """Words of the revision for each word of the original, at least."""
    highest_ratio: float = 2.0
    """At most."""
    least_words: int = 12
    """An original with fewer words counts as having so many, so that a short answer may become a sentence."""
    most_repetition: float = 0.3
    """Share of word triples that occurred before, at most."""


@dataclass(frozen=True)
class Judged:
    """A chain, and whether its revision is kept."""

    chain: Chain
    why: str | None
    """Why it is not kept. None: it is."""
    verdict: Verdict | None = None
    """On the revision (first) against the original (second). None: it was not asked for."""

    @property
    def revision(self) -> str:
        """The text of the last revision; "" where there is none."""
        last = self.chain.last
        return "" if last is None or last.revision is None else last.revision


def talks_about_itself(text: str) -> bool:
    """Whether an answer speaks of its own revision instead of answering ("Here is the revised answer: ...")."""
    return bool(_META.search(text.strip()))


def fault_in_text(chain: Chain, settings: FilterSettings = FilterSettings()) -> str | None:
    """Why the revision is not worth judging; None where it is."""
    step = chain.last
    if step is None or step.revision is None:
        return chain.steps[-1].problem if chain.steps else "not criticised"
    text, original = step.revision, chain.start.answer
    if " ".join(text.split()) == " ".join(original.split()):
        return UNCHANGED
    if _was_cut_off(step):
        return CUT_OFF
    if talks_about_itself(text):
        return META
    if repetition(text) > settings.most_repetition:
        return REPEATS
    ratio = word_count(text) / max(word_count(original), settings.least_words)
    if ratio < settings.lowest_ratio:
        return TOO_SHORT
    return TOO_LONG if ratio > settings.highest_ratio else None


def beats(verdict: Verdict) -> bool:
    """Whether the first answer of a comparison is preferred, whichever of the two the judge was shown first."""
    return verdict.probability is not None and verdict.consistent and verdict.probability > 0.5


def filtered(
    found: Sequence[Chain],
    judge: Judge,
    constitution: Constitution,
    settings: FilterSettings = FilterSettings(),
    *,
    tell: Callable[[str], None] | None = None,
) -> list[Judged]:
    """Each chain with the reason against its revision, or none. Only revisions that pass the tests of text are judged."""
    passing = [chain for chain in found if fault_in_text(chain, settings) is None]
    verdicts = dict(zip(map(id, passing), verdicts_on(passing, judge, constitution), strict=True))
    judged = [_judged(chain, verdicts.get(id(chain)), settings) for chain in found]
    if tell is not None:
        tell(f"{len(passing)} revisions judged by {judge.name}, {sum(one.why is None for one in judged)} kept.")
    return judged


def verdicts_on(found: Sequence[Chain], judge: Judge, constitution: Constitution) -> list[Verdict]:
    """Verdicts on revisions against originals, each by the principle that it was revised by (where the judge is asked by principle)."""
    by_principle: dict[str | None, list[int]] = {}
    for index, chain in enumerate(found):
        by_principle.setdefault(_last(chain).principle, []).append(index)
    verdicts: dict[int, Verdict] = {}
    for principle, indices in by_principle.items():
        asked = judge if principle is None else by_principles(judge, [constitution.principle(principle)])
        verdicts |= dict(zip(indices, asked.compare([_against_original(found[index]) for index in indices]), strict=True))
    return [verdicts[index] for index in range(len(found))]


def by_principles(judge: Judge, principles: Sequence[Principle]) -> Judge:
    """The judge, asked by these principles alone; one that is asked by none stays as it is."""
    if not isinstance(judge, PairwiseJudge) or not judge.prompt.needs_principle:
        return judge
    return replace(judge, prompt=replace(judge.prompt, principles=tuple(one.compare for one in principles)))


@dataclass(frozen=True)
class CriticCheck:
    """What a critic's revisions are worth, to a judge that sees them beside the originals."""

    items: int
    revised: int
    """Answers that got a revision at all."""
    beaten: int
    """Answers whose revision is preferred in both orders."""
    inconsistent: int
    """Verdicts that changed their side with the order."""
    invalid: int
    kept: int
    """Revisions that beat the original and pass the tests of text too."""
    judged: tuple[Judged, ...]
    """One for each chain, with its verdict and the reason against it."""

    @property
    def share(self) -> float:
        """Of all items, how many were beaten in both orders: an answer that got no revision counts against the critic."""
        return self.beaten / self.items if self.items else 0.0


def check_critic(
    found: Sequence[Chain], judge: Judge, constitution: Constitution, settings: FilterSettings = FilterSettings()
) -> CriticCheck:
    """Judge every revision against its original, those that the tests of text would leave out as well."""
    asked = [chain for chain in found if chain.last is not None]
    verdicts = dict(zip(map(id, asked), verdicts_on(asked, judge, constitution), strict=True))
    judged = [_judged(chain, verdicts.get(id(chain)), settings) for chain in found]
    valid = [one.verdict for one in judged if one.verdict is not None and one.verdict.probability is not None]
    return CriticCheck(
        items=len(found),
        revised=len(asked),
        beaten=sum(map(beats, valid)),
        inconsistent=sum(not verdict.consistent for verdict in valid),
        invalid=len(asked) - len(valid),
        kept=sum(one.why is None for one in judged),
        judged=tuple(judged),
    )


def counts(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """How many revisions are kept, and how many each reason left out, the most frequent first."""
    reasons = Counter(one.why for one in judged if one.why is not None)
    return [("kept", sum(one.why is None for one in judged)), *reasons.most_common()]


def record_of(one: Judged, critic: Critic, judge: Judge, answer_source: dict[str, Any], settings: FilterSettings) -> dict[str, Any]:
    """Everything about one revision, JSON-able: where the answer came from, what was asked and said in each round, how it was judged.

    Args:
        answer_source: who wrote the original answer: model, hash, adapters, seed, temperature.
    """
    return {
        "schema": SCHEMA,
        "type": "Revision",
        "id": one.chain.id,
        "prompt": [{"role": message.role, "content": message.content} for message in one.chain.start.prompt],
        "columns": one.chain.start.columns,
        "answer": one.chain.start.answer,
        "answer_cut_off": one.chain.cut_off,
        "answer_source": answer_source,
        "critic": critic.about(),
        "steps": [asdict(step) for step in one.chain.steps],
        "revision": one.revision or None,
        "kept": one.why is None,
        "why_not": one.why,
        "filters": asdict(settings),
        "judge": judge.about(),
        "verdict": None if one.verdict is None else as_record(one.verdict),
    }


def demonstration(record: dict[str, Any]) -> Example:
    """The row to imitate, from what `record_of` wrote: the prompt, and the revision as its answer."""
    prompt = tuple(Message(message["role"], message["content"]) for message in record["prompt"])
    last = next(step for step in reversed(record["steps"]) if step["revision"] is not None)
    source = {"kind": "revision", "critic": record["critic"]["critic"], "label_source": last["source"], "record": record["id"]}
    answer = Completion((Message("assistant", record["revision"]),), source=source)
    about = {"principles": [step["principle"] for step in record["steps"]], "record": record["id"]}
    columns = {**record["columns"], "label_source": last["source"], "annotator": record["critic"]["critic"], COLUMN: about}
    return Example("demonstration", prompt, (answer,), columns=columns, where=f"revision of {record['id']}")


def _judged(chain: Chain, verdict: Verdict | None, settings: FilterSettings) -> Judged:
    why = fault_in_text(chain, settings)
    if why is None and verdict is not None and not beats(verdict):
        why = NOT_BETTER if verdict.probability is not None else f"{NO_VERDICT}: {verdict.invalid}"
    return Judged(chain, why, verdict)


def _against_original(chain: Chain) -> Comparison:
    return Comparison(chain.start.prompt, str(_last(chain).revision), chain.start.answer, chain.start.columns)


def _last(chain: Chain) -> Step:
    last = chain.last
    assert last is not None
    return last


def _was_cut_off(step: Step) -> bool:
    """Whether the revision ended at the limit. One that went on with questions of its own, which were taken away, did not."""
    asked = step.said.get("revision", {})
    return asked.get("finish") == "length" and asked.get("text", "").rstrip().endswith((step.revision or "").rstrip())
