"""How a judge without the evidence comes to a verdict: two debaters, one consultant, a part of the evidence, none of it, or all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from accord.ai_feedback.debate.quotes import sentences
from accord.ai_feedback.debate.tasks import HiddenTask
from accord.errors import ConfigError
from accord.rollouts.random import uniform


@dataclass(frozen=True)
class Protocol:
    """Who speaks, in which order, and what the judge reads of the evidence."""

    name: str
    words: str
    """What happens, for people."""
    speakers: Literal["both", "one", "none"] = "none"
    sequential: bool = False
    """True: in a round the second side has heard the first. False: both speak without having heard each other's round."""
    reads: Literal["nothing", "excerpt", "everything"] = "nothing"

    @property
    def beats(self) -> tuple[tuple[int, ...], ...]:
        """The sides that speak at the same time, one after the other, in a round."""
        if self.speakers == "none":
            return ()
        return ((0,), (1,)) if self.sequential else ((0, 1),)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("debate", "two debaters, each round spoken at the same time", speakers="both"),
        Protocol("debate_sequential", "two debaters, the second answers the first", speakers="both", sequential=True),
        Protocol("consultancy", "one debater, for the right answer and, in another run, for the wrong one", speakers="one"),
        Protocol("direct", "no debater; the judge reads a part of the evidence itself", reads="excerpt"),
        Protocol("naive", "no debater, no evidence: what a guess is worth"),
        Protocol("oracle", "no debater; the judge reads all of the evidence: what there is to gain", reads="everything"),
    )
}
"""By name. Those with speakers make labels of the source `debate`."""


def protocols_of(names: Sequence[str]) -> list[Protocol]:
    """Protocols by name, each once.

    Raises:
        ConfigError: if there is none of a name.
    """
    for name in names:
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name, PROTOCOLS, 1)
            raise ConfigError(
                f"There is no protocol {name!r}. " + (f"Did you mean {near[0]}?" if near else f"There are {', '.join(PROTOCOLS)}.")
            )
    return [PROTOCOLS[name] for name in dict.fromkeys(names)]


def passage_of(task: HiddenTask, protocol: Protocol, *, share: float, seed: int) -> str:
    """What the judge reads of the evidence: sentences in a row that make up `share` of it (at least one), from a place drawn by seed and task.

    Args:
        share: of the evidence's sentences that an excerpt has, above 0 up to 1.
    """
    if protocol.reads == "nothing":
        return ""
    if protocol.reads == "everything":
        return task.evidence
    said = sentences(task.evidence)
    count = max(1, round(share * len(said)))
    start = int(uniform(seed, 0, task.id, 0, 0) * (len(said) - count + 1))
    return " ".join(said[start : start + count])
