"""Labels from completions (Math-Shepherd): exact with an oracle, right on average with a completer of known skill, and bookkept exactly."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

import tiny
from accord.data.render import Renderer
from accord.data.render_steps import StepRenderer
from accord.rewards.combine import FunctionReward
from accord.rewards.step_labels import Solution, StepValue, label_by_rollouts, solution_of
from accord.rollouts.collect import collect
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message, Rollout, Score


def renderer(separator: str = "\n") -> StepRenderer:
    return StepRenderer(Renderer(tiny.tokenizer()), separator)


def asked(text: str = "Add", finish: str = "stop", prompt_id: str = "p", **columns: object) -> Rollout:
    """An answer as a sampler returns it."""
    tokenizer = tiny.tokenizer()
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    prompt = (Message("user", "Add"),)
    return Rollout(prompt_id, prompt, (5, 6), ids, text, (0.0,) * len(ids), "stop" if finish == "stop" else "length", columns=dict(columns))


def solution(*steps: str, ended: bool = True, prompt_id: str = "p") -> Solution:
    return Solution(asked("\n".join(steps), prompt_id=prompt_id), steps, ended)


class Script:
    """A sampler that writes what a function of the text so far says."""

    def __init__(self, write: object) -> None:
        self.write, self.asked = write, []

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        found = []
        for prompt in prompts:
            so_far = tiny.tokenizer().decode(list(prompt.ids[2:]))
            self.asked.append(so_far)
            for index in range(config.num_samples):
                text = self.write(so_far, index)  # type: ignore[operator]
                ids = tuple(tiny.tokenizer()(text, add_special_tokens=False)["input_ids"])
                found.append(Rollout(prompt.id, prompt.messages, prompt.ids, (*ids, 2), text, (0.0,) * (len(ids) + 1), "stop", index))
        return found


def label(solutions: Sequence[Solution], script: Script, reward: object, rollouts: int = 4, **options: object) -> list[list[StepValue]]:
    config = SamplingConfig(8, rollouts)
    source = FunctionReward(reward)  # type: ignore[arg-type]
    return label_by_rollouts(solutions, [source], renderer(), lambda prompts: collect(script, prompts, config), **options)  # type: ignore[arg-type]


def sums(completions: Sequence[Sequence[dict[str, str]]]) -> list[float]:
    """1 where every line of an answer is a right sum."""
    return [float(all(right_sum(line) for line in completion[0]["content"].splitlines())) for completion in completions]


def right_sum(line: str) -> bool:
    left, _, total = line.partition("=")
    return sum(map(int, left.split("+"))) == int(total)


def test_an_oracle_gives_exact_labels() -> None:
    """It goes on rightly from wherever it is: a beginning is right as long as nothing in it is wrong, and everything after an error is wrong."""
    solutions = [
        solution("1+1=2", "2+3=5", "5+1=6"),
        solution("1+2=3", "3+1=5", "5+1=6"),
        solution("1+1=3"),
        solution("2+2=4", "4+1=5", ended=False),
    ]
    script = Script(lambda so_far, index: "7+1=8\n8+1=9")
    found = label(solutions, script, sums)
    assert [[step.hard for step in steps] for steps in found] == [[1, 1, 1], [1, -1, -1], [-1], [1, 1]]
    assert [[step.soft for step in steps] for steps in found] == [[1, 1, 1], [1, 0, 0], [0], [1, 1]]
    assert [[step.scored for step in steps] for steps in found] == [[4, 4, 1], [4, 4, 1], [1], [4, 4]]
    assert script.asked == ["1+1=2\n", "1+1=2\n2+3=5\n", "1+2=3\n", "1+2=3\n3+1=5\n", "2+2=4\n", "2+2=4\n4+1=5\n"]


@pytest.mark.parametrize("p", [0.15, 0.5, 0.8])
def test_a_completer_of_known_skill(p: float) -> None:
    """N = 4 completions, each right with probability p: the soft estimate has mean p and variance p(1-p)/N, the hard one is +1 with
    probability 1 - (1-p)^N. 1,500 beginnings, four standard errors."""
    draw = random.Random(7)
    script = Script(lambda so_far, index: "1+1=2" if draw.random() < p else "1+1=3")
    count = 1500
    solutions = [solution(f"{i}+1={i + 1}", ended=False, prompt_id=f"p{i}") for i in range(count)]
    steps = [values[0] for values in label(solutions, script, sums)]
    soft, hard = [step.right / step.scored for step in steps], [float(step.hard == 1) for step in steps]
    some = 1 - (1 - p) ** 4
    assert sum(soft) / count == pytest.approx(p, abs=4 * (p * (1 - p) / 4 / count) ** 0.5)
    assert sum(hard) / count == pytest.approx(some, abs=4 * (some * (1 - some) / count) ** 0.5)
    spread = sum((value - p) ** 2 for value in soft) / count
    assert spread == pytest.approx(p * (1 - p) / 4, rel=0.2)


def test_what_two_solutions_share_is_completed_once() -> None:
    script = Script(lambda so_far, index: "1+1=2")
    other = solution("1+1=2", "2+2=4", prompt_id="q")
    found = label([solution("1+1=2", "2+2=4"), solution("1+1=2", "2+2=5"), other], script, sums)
    assert script.asked == ["1+1=2\n"] * 2  # once for each prompt
    assert [[step.hard for step in steps] for steps in found] == [[1, 1], [1, -1], [1, 1]]


def test_the_reward_sees_the_whole_answer_and_the_row() -> None:
    seen: list[tuple[object, ...]] = []

    def reward(prompts: list[object], completions: list[object], completion_ids: list[list[int]], gold: list[int]) -> list[float]:
        seen.extend(zip(prompts, completions, completion_ids, gold, strict=True))
        return [1.0] * len(completions)

    one = Solution(asked("a b\nc", gold=3), ("a b", "c"), True)
    label([one], Script(lambda so_far, index: "end"), reward, rollouts=1)
    (prompt, completion, ids, gold), whole = seen
    assert prompt == [{"role": "user", "content": "Add"}] and gold == 3
    assert completion == [{"role": "assistant", "content": "a b\nend"}] and tiny.tokenizer().decode(ids) == "a b\nend<|end|>"
    assert whole[1] == [{"role": "assistant", "content": "a b\nc"}] and whole[3] == 3


def test_a_failed_reward_is_no_wrong_answer() -> None:
    """Two of four completions are not scored: half of the other two are right. Where none is scored, nothing is known."""
    values = {"none": None, "failed": Score(None, error="timeout"), "right": 1.0, "wrong": 0.0}

    def reward(completions: list[list[dict[str, str]]]) -> list[object]:
        return [values[completion[0]["content"].split("\n")[-1]] for completion in completions]

    found = label([solution("a", ended=False)], Script(lambda so_far, index: list(values)[index]), reward)
    assert found == [[StepValue(1, 2)]] and found[0][0].soft == 0.5 and found[0][0].hard == 1
    found = label([solution("a", "none")], Script(lambda so_far, index: "none"), reward)
    assert [(step.soft, step.hard) for step in found[0]] == [(None, None)] * 2


def test_threshold_and_room() -> None:
    reward = lambda completions: [0.6] * len(completions)  # noqa: E731
    script = Script(lambda so_far, index: "x")
    one = solution("aaaa", "bbbb", "cccc")
    assert [[s.hard for s in steps] for steps in label([one], script, reward, threshold=0.6)] == [[1, 1, 1]]
    assert [[s.hard for s in steps] for steps in label([one], script, reward, threshold=0.61)] == [[-1, -1, -1]]
    script.asked.clear()
    found = label([one], script, reward, threshold=0.6, room=2 + 5)  # the prompt's two tokens and the first step's five
    assert script.asked == ["aaaa\n"] and [step.hard for step in found[0]] == [1, None, 1]


@pytest.mark.parametrize(
    ("text", "finish", "steps"),
    [
        ("a\n\nb\n", "stop", ("a", "b")),
        ("a\nb", "length", ("a",)),
        ("a\nb\n", "length", ("a", "b")),
        ("a", "length", None),
        (" \n", "stop", None),
    ],
)
def test_sampled_answers_as_solutions(text: str, finish: str, steps: tuple[str, ...] | None) -> None:
    """What was cut off in the middle of a step has no such step."""
    found = solution_of(asked(text, finish), renderer())
    assert (found.steps if found else None) == steps
    assert found is None or found.ended is (finish == "stop")
