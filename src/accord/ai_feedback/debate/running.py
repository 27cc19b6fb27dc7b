"""Debates from their tasks to their verdicts: every case is run twice, with the answers swapped, and judged in both runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from accord.ai_feedback.debate.debaters import Assignment, Debater
from accord.ai_feedback.debate.judging import Overseer
from accord.ai_feedback.debate.protocols import Protocol, passage_of
from accord.ai_feedback.debate.tasks import HiddenTask
from accord.ai_feedback.debate.turns import Shown, Turn
from accord.ai_feedback.verdicts import Verdict


@dataclass(frozen=True)
class Rules:
    """What all cases of a run share."""

    rounds: int = 2
    words: int = 60
    """Longest argument of a turn."""
    excerpt: float = 0.25
    """Share of the evidence that direct judgement reads."""
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """A task under one protocol, with who argues for which of its answers."""

    task: HiddenTask
    protocol: Protocol
    debaters: tuple[str | None, str | None] = (None, None)
    """Names, in the order of the task's answers; None argues for nothing."""

    @property
    def right_debater(self) -> str | None:
        """Who argues for the right answer, as far as that is known."""
        return None if self.task.right is None else self.debaters[self.task.right]

    @property
    def wrong_debater(self) -> str | None:
        return None if self.task.right is None else self.debaters[1 - self.task.right]


@dataclass
class Run:
    """A case with its answers in one order, and what was said so far."""

    case: Case
    swapped: bool
    """False: the task's first answer is shown first. True: its second."""
    turns: list[Turn] = field(default_factory=list[Turn])

    @property
    def answers(self) -> tuple[str, str]:
        first, second = self.case.task.answers
        return (second, first) if self.swapped else (first, second)

    def answer_of(self, side: int) -> int:
        """Index, among the task's answers, of the one that a side argues for."""
        return 1 - side if self.swapped else side

    def debater(self, side: int) -> str | None:
        return self.case.debaters[self.answer_of(side)]

    def shown(self, rules: Rules) -> Shown:
        """What the judge sees: statements alone, and of the evidence what the protocol lets it read."""
        passage = passage_of(self.case.task, self.case.protocol, share=rules.excerpt, seed=rules.seed)
        return Shown(self.case.task.question, self.answers, passage, tuple(turn.statement for turn in self.turns))


@dataclass(frozen=True)
class Decision:
    """What came of a case."""

    case: Case
    runs: tuple[Run, Run]
    verdict: Verdict
    """Of the task's first answer. Its source is `debate` where somebody argued."""

    @property
    def towards_right(self) -> float | None:
        """The probability that the judge gives to the right answer; None where it is invalid or nobody knows what is right."""
        right, probability = self.case.task.right, self.verdict.probability
        return None if right is None or probability is None else probability if right == 0 else 1 - probability

    @property
    def correct(self) -> float | None:
        """1 right, 0 wrong, 0.5 a tie or an inconsistent verdict (the mean of its two orders); None as for `towards_right`."""
        if self.towards_right is None:
            return None
        return 0.5 if self.verdict.choice is None else float(self.verdict.choice == self.case.task.right)

    @property
    def turns(self) -> list[Turn]:
        return [turn for run in self.runs for turn in run.turns]

    @property
    def debater_tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    @property
    def judge_tokens(self) -> int:
        return sum(reading.prompt_tokens + reading.completion_tokens for reading in self.verdict.readings)


def cases_of(task: HiddenTask, protocol: Protocol, debaters: Sequence[str]) -> list[Case]:
    """The cases of one task: with several debaters each meets each on either side, itself too; a consultant argues once for either answer."""
    if protocol.speakers == "none":
        return [Case(task, protocol)]
    if protocol.speakers == "one":
        return [Case(task, protocol, pair) for name in debaters for pair in ((name, None), (None, name))]
    return [Case(task, protocol, (first, second)) for first in debaters for second in debaters]


def decide(cases: Sequence[Case], debaters: Mapping[str, Debater], judge: Overseer, rules: Rules) -> list[Decision]:
    """Play all cases side by side, a round at a time, and have each judged.

    A case in which a debater could not be asked has no valid verdict, with that reason; the judge is not asked about it.
    """
    runs = [(Run(case, False), Run(case, True)) for case in cases]
    _speak([run for both in runs for run in both], debaters, rules)
    failed = [next((turn.error for run in both for turn in run.turns if turn.error), None) for both in runs]
    asked = [both for both, error in zip(runs, failed, strict=True) if error is None]
    verdicts = iter(judge.decide([(first.shown(rules), second.shown(rules)) for first, second in asked]) if asked else [])
    found: list[Decision] = []
    for case, both, error in zip(cases, runs, failed, strict=True):
        verdict = next(verdicts) if error is None else Verdict(None, (), judge.name, judge.source, invalid=f"a debater: {error}")
        found.append(Decision(case, both, replace(verdict, source="debate") if case.protocol.speakers != "none" else verdict))
    return found


def questions_of(cases: Sequence[Case], rules: Rules) -> tuple[int, int]:
    """How many turns debaters take in these cases, and how many verdicts judges give: both orders counted."""
    turns = sum(2 * rules.rounds * sum(name is not None for name in case.debaters) for case in cases)
    return turns, 2 * len(cases)


def _speak(runs: Sequence[Run], debaters: Mapping[str, Debater], rules: Rules) -> None:
    """All rounds; those who speak at the same time are asked together, whichever case they are in."""
    for number in range(1, rules.rounds + 1):
        for beat in range(2):
            waiting = [
                (run, side)
                for run in runs
                if beat < len(run.case.protocol.beats) and not any(turn.error for turn in run.turns)
                for side in run.case.protocol.beats[beat]
                if run.debater(side) is not None
            ]
            said: dict[int, Turn] = {}
            for name in dict.fromkeys(run.debater(side) for run, side in waiting):
                assert name is not None
                mine = [index for index, (run, side) in enumerate(waiting) if run.debater(side) == name]
                turns = debaters[name].speak([_assignment(*waiting[index], number, rules) for index in mine])
                said |= dict(zip(mine, turns, strict=True))
            for index, (run, _) in enumerate(waiting):
                run.turns.append(said[index])


def _assignment(run: Run, side: int, number: int, rules: Rules) -> Assignment:
    heard = tuple(turn.statement for turn in run.turns)
    return Assignment(run.case.task, run.answers, side, number, rules.rounds, rules.words, heard, run.debater(1 - side) is None)
