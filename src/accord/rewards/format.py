"""The format reward: 1 for an answer in the asked form whose stated part can be read, 0 for everything else.

Form without a readable answer earns nothing, so that the form cannot become the goal. Weigh it 0.1 to 0.2 of the accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from accord.errors import ConfigError
from accord.rewards.choices import grade_choice
from accord.rewards.numeric import read_number
from accord.rewards.stated import Stated
from accord.types import Rollout, Score

THINK_ANSWER = "<think>{think}</think><answer>{answer}</answer>"
"""DeepSeek-R1's form (arXiv:2501.12948)."""
READABLE = ("number", "choice", "text")
_PLACE = re.compile(r"\{(\w+)\}")


class FormatReward:
    """Checks the whole answer against a form; a `RewardSource`.

    Args:
        form: fixed text and places in braces, one of them {answer}: each fixed text stands exactly once and in this order, each place
            holds something, and only spaces stand around. A prompt that opens the thinking needs "{think}</think>...".
        readable: what {answer} must hold: a number (`numeric`'s rules), a choice (a letter), or any text.
        weight: of this reward in the sum.
        name: in the metrics.
    """

    def __init__(self, form: str = THINK_ANSWER, *, readable: str = "number", weight: float = 0.1, name: str = "format") -> None:
        places = _PLACE.findall(form)
        if "answer" not in places or len(set(places)) != len(places):
            raise ConfigError(f"The form {form!r} needs the place {{answer}}, and each place once, such as {THINK_ANSWER}.")
        if readable not in READABLE:
            raise ConfigError(f"FormatReward: readable={readable!r} must be one of {', '.join(READABLE)}.")
        self.form, self.readable, self.weight, self.name = form, readable, weight, name
        self._fixed = [part for part in _PLACE.split(form)[::2] if part.strip()]
        pieces = [
            re.escape(piece.strip()).replace("><", r">\s*<") if index % 2 == 0 else f"(?P<{piece}>.*?)"
            for index, piece in enumerate(_PLACE.split(form))
        ]
        self._pattern = re.compile(r"\s*" + r"\s*".join(pieces) + r"\s*", re.DOTALL)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [self.grade(rollout.text) for rollout in rollouts]

    def grade(self, text: str) -> Score:
        """The score of one text, with the reason."""
        problem = self._problem(text)
        return Score(0.0, explanation=problem) if problem else Score(1.0, explanation="the form is kept and its answer can be read")

    def _problem(self, text: str) -> str | None:
        marks = re.findall(r"</?\w+>", self.form) or [part.strip() for part in self._fixed]
        for mark in dict.fromkeys(marks):
            if text.count(mark) != marks.count(mark):
                return f"{mark} stands {text.count(mark)} times instead of {marks.count(mark)}"
        match = self._pattern.fullmatch(text)
        if not match:
            return f"the text is not of the form {self.form}"
        empty = [name for name, content in match.groupdict().items() if not content.strip()]
        if empty:
            return f"{{{empty[0]}}} is empty"
        return None if self._reads(match.group("answer")) else f"{{answer}} holds no {self.readable}"

    def _reads(self, answer: str) -> bool:
        if self.readable == "number":
            return read_number(Stated(answer.strip(), "answer tag", 1))[0] is not None
        if self.readable == "choice":
            return grade_choice(f"<answer>{answer}</answer>", "A").outcome != "no answer"
        return True
