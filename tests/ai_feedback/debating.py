"""Debaters and judges that follow a script, for the real pipeline of debates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.debate.debater_prompts import load_debater_prompt
from accord.ai_feedback.debate.debaters import Debater, ModelDebater, RuleDebater, ranked_sentences
from accord.ai_feedback.debate.judging import USUAL_PROMPT, ModelOverseer, Overseer
from accord.ai_feedback.debate.protocols import PROTOCOLS
from accord.ai_feedback.debate.running import Case, Decision, Rules, cases_of, decide
from accord.ai_feedback.debate.tasks import HiddenTask
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge
from ai_feedback.scripted import Scripted

Script = Callable[[Question], Answer]


def debater(script: Script, name: str = "scripted", *, prompt: str = "debater") -> ModelDebater:
    return ModelDebater(Scripted(script, name), load_debater_prompt(prompt))


def judged_by(script: Script) -> ModelOverseer:
    return ModelOverseer(PairwiseJudge(Scripted(script), load_prompt(USUAL_PROMPT)))


def part(question: Question, before: str, after: str) -> str:
    """What stands between two pieces of a question."""
    return question.messages[-1].content.split(before, 1)[1].split(after, 1)[0].strip()


def assigned(question: Question) -> str:
    """The answer that a debater is to argue for."""
    return part(question, "is: ", "\n")


def honest(question: Question) -> Answer:
    """Quotes the sentence of the text that speaks most for its answer; has nothing to say where there is none."""
    ranked = ranked_sentences(part(question, "[Text]", "[End of text]"), part(question, "Question:", "\n"), assigned(question))
    said = f"<quote>{ranked[0]}</quote>" if ranked else "I have nothing to quote."
    return Answer(f"<thinking>SECRET my answer may be wrong</thinking><argument>{said}</argument>", prompt_tokens=50, completion_tokens=9)


def lying(question: Question) -> Answer:
    """Makes up a sentence that answers the question, whatever the text says."""
    asked = part(question, "Question:", "\n").rstrip("?")
    said = f"<quote>{asked}: it is {assigned(question)}.</quote>"
    return Answer(f"<thinking>SECRET I lie</thinking><argument>{said}</argument>", prompt_tokens=50)


def counting(question: Question, *, trusts: bool) -> Answer:
    """A language model's judge that goes by quotes: sure of the side whose quotes say more of the question's words."""
    text = question.messages[-1].content
    asked = set(re.findall(r"\w+", part(question, "Question:", "\n").lower()))
    found = {"A": 0, "B": 0}
    for line in text.splitlines():
        if (speaker := re.match(r"([AB]) \(round ", line)) is None:
            continue
        marks = r"<([vu])_quote>(.*?)</[vu]_quote>"
        for kind, quote in re.findall(marks, line):
            if kind == "v" or trusts:
                found[speaker[1]] = max(found[speaker[1]], len(asked & set(re.findall(r"\w+", quote.lower()))))
    sure = 0.5 if found["A"] == found["B"] else 0.95 if found["A"] > found["B"] else 0.05
    return Answer(masses={"A": sure, "B": 1 - sure}, prompt_tokens=100)


def verifying(question: Question) -> Answer:
    return counting(question, trusts=False)


def trusting(question: Question) -> Answer:
    return counting(question, trusts=True)


def played(tasks: Sequence[HiddenTask], protocol: str, debaters: Sequence[Debater], judge: Overseer, **rules: Any) -> list[Decision]:
    """A protocol on some tasks, by debaters that all meet."""
    names = {one.name: one for one in debaters}
    cases = [case for task in tasks for case in cases_of(task, PROTOCOLS[protocol], list(names))]
    return decide(cases, names, judge, Rules(**rules))


def against(tasks: Sequence[HiddenTask], truth: Debater, lie: Debater, judge: Overseer, *, protocol: str = "debate") -> list[Decision]:
    """One debater argues for every right answer and another for every wrong one."""
    cases = []
    for task in tasks:
        names = (truth.name, lie.name) if task.right == 0 else (lie.name, truth.name)
        cases.append(Case(task, PROTOCOLS[protocol], names))
    return decide(cases, {truth.name: truth, lie.name: lie}, judge, Rules())


def accuracy(decisions: Sequence[Decision]) -> float:
    values = [one.correct for one in decisions]
    assert None not in values
    return sum(value for value in values if value is not None) / len(values)


QUOTING, FABRICATING = RuleDebater(), RuleDebater(fabricates=True)
