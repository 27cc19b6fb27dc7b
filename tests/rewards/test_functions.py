"""Functions with TRL's contract, plain and async, and the named errors for what they may do wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from accord.errors import ConfigError, DataError
from accord.rewards.combine import FunctionReward, combined
from rewards.answers import rollout

ROLLOUTS = [rollout("a", level=1), rollout("bbb", level=2)]


def lengths(completions: list[Any], level: list[int], **_: Any) -> list[float]:
    return [float(len(completion[0]["content"]) + one) for completion, one in zip(completions, level, strict=True)]


async def slow_lengths(completions: list[Any], level: list[int], **_: Any) -> list[float]:
    await asyncio.sleep(0.2)
    return lengths(completions, level)


def test_async_functions_score_as_plain_ones_do() -> None:
    plain, waiting = FunctionReward(lengths), FunctionReward(slow_lengths)
    assert [score.value for score in plain.score(ROLLOUTS)] == [2.0, 5.0]
    assert waiting.score(ROLLOUTS) == plain.score(ROLLOUTS)
    assert (plain.asynchronous, waiting.asynchronous) == (False, True)


def test_an_object_with_an_async_call_works() -> None:
    class Judge:
        async def __call__(self, completions: list[Any]) -> list[float]:
            return [0.5 for _ in completions]

    assert [score.value for score in FunctionReward(Judge(), name="judge").score(ROLLOUTS)] == [0.5, 0.5]


def test_async_functions_wait_together() -> None:
    """Each waits until all four are under way: one after the other would never end."""
    started: list[int] = []

    async def met(completions: list[Any], **_: Any) -> list[float]:
        started.append(1)
        while len(started) < 4:
            await asyncio.sleep(0.01)
        return [1.0 for _ in completions]

    sources = [FunctionReward(met, 1.0, f"met{n}", timeout=20.0) for n in range(4)]
    assert [score.value for score in combined(sources, ROLLOUTS)] == [4.0, 4.0]


def test_async_functions_work_inside_a_running_loop() -> None:
    async def notebook() -> list[Any]:
        return combined([FunctionReward(slow_lengths), FunctionReward(slow_lengths, 2.0, "twice")], ROLLOUTS)

    assert [score.value for score in asyncio.run(notebook())] == [6.0, 15.0]


def test_async_functions_work_in_a_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(FunctionReward(slow_lengths).score(ROLLOUTS)))
    thread.start()
    thread.join()
    assert [score.value for score in found] == [2.0, 5.0]


def hangs(completions: list[Any]) -> list[float]:
    time.sleep(30)
    return []


async def hangs_async(completions: list[Any]) -> list[float]:
    await asyncio.sleep(30)
    return []


def raises(completions: list[Any]) -> list[float]:
    raise KeyError("level")


async def raises_async(completions: list[Any]) -> list[float]:
    raise KeyError("level")


def data_error(completions: list[Any]) -> list[float]:
    raise DataError("row 3 has no answer")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (hangs, ConfigError, r"^Reward function hangs did not return within 0\.3 s\."),
        (hangs_async, ConfigError, r"^Reward function hangs_async did not return within 0\.3 s\."),
        (raises, ConfigError, r"^Reward function raises raised KeyError: 'level'\."),
        (raises_async, ConfigError, r"^Reward function raises_async raised KeyError: 'level'\."),
        (data_error, DataError, r"^row 3 has no answer$"),
        (lambda completions: [1.0], ConfigError, r"returned 1 values for 2 completions"),
        (lambda completions: [1.0, 2.0, 3.0], ConfigError, r"returned 3 values for 2 completions"),
        (lambda completions: None, ConfigError, r"returned None for 2 completions\. Return a list"),
        (lambda completions: 1.0, ConfigError, r"returned 1\.0 for 2 completions\. Return a list"),
        (lambda completions: "ab", ConfigError, r"returned 'ab' for 2 completions\. Return a list"),
        (lambda completions: ["good", 1.0], ConfigError, r"returned 'good', which is no number"),
    ],
)
def test_named_errors(function: Any, error: type[Exception], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=message):
        FunctionReward(function, timeout=0.3).score(ROLLOUTS)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "returned None (not scored)"), (float("nan"), "returned nan"), (float("inf"), "returned inf")]
)
def test_no_value_is_no_score(value: Any, reason: str) -> None:
    scores = FunctionReward(lambda completions: [value, 1.0], name="f").score(ROLLOUTS)
    assert [score.value for score in scores] == [None, 1.0]
    assert scores[0].error == f"f {reason}"


def test_a_function_for_some_prompts_has_no_say_about_the_others() -> None:
    """TRL's rewards for several tasks: None for every answer to a prompt leaves the sum to the others; None for some of them is a failure of
    these, whose sums would not compare with their siblings'."""
    rows = [rollout(text, prompt_id=name, index=i, task=name) for name in ("maths", "poem") for i, text in enumerate(("a", "bb"))]
    maths = FunctionReward(lambda completions, task: [5.0 if t == "maths" else None for t in task], 2.0, "maths")
    both = combined([maths, FunctionReward(lengths_alone)], rows)
    assert [score.value for score in both] == [11.0, 12.0, 1.0, 2.0]
    assert "maths" not in both[2].parts and both[0].parts["maths"] == 5.0
    some = FunctionReward(lambda completions: [None, *[1.0] * (len(completions) - 1)], 1.0, "some")
    found = combined([some, FunctionReward(lengths_alone)], rows)
    assert [score.value for score in found] == [None, 3.0, 2.0, 3.0] and found[0].error == "some returned None (not scored)"
    nobody = combined([maths, maths], rows)
    assert [score.value for score in nobody] == [20.0, 20.0, None, None] and nobody[3].error == "maths returned None (not scored)"


def lengths_alone(completions: list[Any]) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def test_nothing_to_score_calls_nobody() -> None:
    """A process without a prompt of its own."""
    assert combined([FunctionReward(raises), FunctionReward(raises_async), FunctionReward(raises_async)], []) == []


def test_one_async_failure_names_its_function() -> None:
    with pytest.raises(ConfigError, match="Reward function raises_async raised"):
        combined([FunctionReward(slow_lengths), FunctionReward(raises_async)], ROLLOUTS)
