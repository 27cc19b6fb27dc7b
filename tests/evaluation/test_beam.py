"""Step-level beam search: the known best path is found, greedy search is not enough for it, and what is returned was drawn by the policy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.data.render_steps import StepRenderer
from accord.errors import ConfigError
from accord.evaluation.beam import BeamConfig, step_beam_search, step_length
from accord.models.adapters import PolicyModel
from accord.models.heads import StepHead
from accord.rewards.process import ProcessRewardModel
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout, Score

START = (5, 6)


def renderer(**options: Any) -> Renderer:
    return Renderer(tiny.tokenizer(), **options)


def ids(text: str) -> tuple[int, ...]:
    return tuple(tiny.tokenizer()(text, add_special_tokens=False)["input_ids"])


class Script:
    """Writes the steps that a table gives for the text so far, in turn over the samples; "." ends the answer."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table, self.asked = table, []

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        found: list[Rollout] = []
        for prompt in prompts:
            so_far = tiny.tokenizer().decode(list(prompt.ids[len(START) :]))
            self.asked.append((so_far, config.num_samples))
            for index in range(config.num_samples):
                choices = self.table[so_far]
                text = choices[index % len(choices)]
                taken = (*ids(text.removesuffix(".")), *((2,) if text.endswith(".") else ()))[: config.max_new_tokens]
                stopped = taken[-1] == 2
                logprobs = tuple(-0.5 * (index + 1) for _ in taken)
                found.append(Rollout(prompt.id, (), prompt.ids, taken, "", logprobs, "stop" if stopped else "length", index))
        return found


def scorer(values: dict[str, float | None]) -> Any:
    """The score of a partial solution is the least of those of its steps: each step's own by its text."""

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        found = []
        for rollout in rollouts:
            steps = [values[step] for step in rollout.text.split("\n") if step]
            known = [step for step in steps if step is not None]
            found.append(Score(min(known)) if len(known) == len(steps) else Score(None, error="not scored"))
        return found

    return score


TABLE = {"": ["a\nmore", "b\n"], "a\n": ["x.", "y."], "b\n": ["z.", "v\n"], "b\nv\n": ["w."]}
VALUES: dict[str, float | None] = {"a": 0.8, "b": 0.7, "x": 0.3, "y": 0.2, "z": 0.5, "v": 0.65, "w": 0.6}


def search(width: int, expansions: int, values: dict[str, float | None] = VALUES, **options: Any) -> tuple[list[Rollout], Script]:
    script = Script(TABLE)
    config = BeamConfig(width, expansions, **options)
    (found,) = step_beam_search([Prompt("p", START)], script, scorer(values), renderer(), config)
    return found, script


def texts(found: Sequence[Rollout]) -> list[tuple[str, float | None]]:
    return [(rollout.text, rollout.score.value if rollout.score else None) for rollout in found]


def test_greedy_takes_the_better_first_step_and_ends_worse() -> None:
    """After "a" (0.8) the best end is 0.3; by way of "b" (0.7) it is 0.6."""
    found, script = search(1, 2)
    assert texts(found) == [("a\nx", 0.3)]
    assert script.asked == [("", 2), ("a\n", 2)]


def test_a_beam_of_two_finds_the_best_path() -> None:
    """What was sampled behind a step's end is thrown away ("more"); an ended candidate waits for the others."""
    found, script = search(2, 2)
    assert texts(found) == [("b\nv\nw", 0.6), ("b\nz", 0.5)]
    assert script.asked == [("", 4), ("a\n", 2), ("b\n", 2), ("b\nv\n", 2)]
    best = found[0]
    assert best.completion_ids == (*ids("b\nv\nw"), 2) and best.finish_reason == "stop" and best.prompt_ids == START
    assert best.sampler_logprobs == (-1.0,) * 2 + (-1.0,) * 2 + (-0.5,) * 2  # second, second, first sample of each step


def test_a_full_beam_is_exhaustive_search() -> None:
    """Three steps of two kinds each, any values: with room for all, the best of all eight paths is found."""
    table = {"".join(path): ["g\n", "h\n"] for depth in range(2) for path in product(("g\n", "h\n"), repeat=depth)}
    table |= {"".join(path): ["g.", "h."] for path in product(("g\n", "h\n"), repeat=2)}

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        weights = {"g": 1.0, "h": 1.3}
        return [Score(sum((-1.7) ** i * weights[step] for i, step in enumerate(rollout.text.split()))) for rollout in rollouts]

    (found,) = step_beam_search([Prompt("p", START)], Script(table), score, renderer(), BeamConfig(8, 2))
    every = {"\n".join(path): sum((-1.7) ** i * {"g": 1.0, "h": 1.3}[s] for i, s in enumerate(path)) for path in product("gh", repeat=3)}
    assert dict(texts(found)) == pytest.approx(every)
    assert [text for text, _ in texts(found)] == sorted(every, key=lambda text: -every[text])


def test_equal_candidates_are_one_and_a_failed_score_is_last() -> None:
    """Four samples of the first step are two different ones; "b" without a score stays behind "a"."""
    found, _ = search(2, 2, {**VALUES, "b": None})
    assert texts(found) == [("a\nx", 0.3), ("a\ny", 0.2)]
    script = Script({"": ["b\n", "b\n"], "b\n": ["z."]})
    (found,) = step_beam_search([Prompt("p", START)], script, scorer(VALUES), renderer(), BeamConfig(3, 2))
    assert texts(found) == [("b\nz", 0.5)] and script.asked == [("", 6), ("b\n", 2)]


def test_limits_of_a_step_and_of_a_solution() -> None:
    """A step of three tokens is cut at two and goes on; a solution of four tokens is over, ended or not."""
    script = Script({"": ["abcdef"], "ab": ["cdefgh"], "abcd": ["efgh"], "abcde": ["f"]})
    score = lambda rollouts: [Score(1.0)] * len(rollouts)  # noqa: E731
    for longest, text in ((4, "abcd"), (5, "abcde")):
        config = BeamConfig(1, 1, step_tokens=2, max_new_tokens=longest)
        ((found,),) = step_beam_search([Prompt("p", START)], script, score, renderer(), config)
        assert (found.text, found.finish_reason) == (text, "length")


def test_where_a_step_ends() -> None:
    def length(text: str, separator: str = "\n") -> int:
        return step_length(ids(text), renderer(), separator)

    assert length("ab\ncd\n") == 3 and length("abcd") == 4 and length("\n \nab\ncd") == 6 and length("ab ##cd", " ##") == 5
    assert step_length((*ids("ab"), 2), renderer(), "\n") == 3


def test_settings_are_checked() -> None:
    bad: list[dict[str, Any]] = [
        {"width": 0},
        {"expansions": 0},
        {"step_tokens": 0},
        {"max_new_tokens": 0},
        {"temperature": 0.0},
        {"separator": ""},
    ]
    for options in bad:
        with pytest.raises(ConfigError, match="BeamConfig"):
            BeamConfig(**options)


# -- on a model ---------------------------------------------------------------------------------------------------------------------------

ENDS = list(range(2, 10))


def parts() -> tuple[PolicyModel, Renderer, ProcessRewardModel]:
    policy = tiny.policy()
    made = renderer(end_ids=ENDS)
    return policy, made, ProcessRewardModel(policy, (), StepHead(policy.hidden_size, ("wrong", "right"), seed=3), StepRenderer(made, "e"))


def test_solutions_of_a_model_are_its_own_draws() -> None:
    """Log-probs put together step by step are those of the whole in one pass; scores are those of the whole; prompts do not disturb each other."""
    policy, made, model = parts()
    prompts = [Prompt(f"p{i}", tuple(range(30 + 7 * i, 36 + 9 * i))) for i in range(3)]
    config = BeamConfig(2, 3, "e", step_tokens=12, max_new_tokens=30, seed=5)
    together = step_beam_search(prompts, LocalSampler(policy, made, ()), model.score_whole, made, config)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = step_beam_search([prompt], LocalSampler(policy, made, ()), model.score_whole, made, config)
        assert [rollout.completion_ids for rollout in alone] == [rollout.completion_ids for rollout in found]
        assert len({rollout.completion_ids for rollout in found}) == len(found) == 2
        for rollout in found:
            assert len(rollout.completion_ids) == 30 or rollout.completion_ids[-1] in ENDS
            with torch.no_grad():
                out = policy.forward(pack([Unit(prompt.ids, (Branch(rollout.completion_ids),))]), ())
            assert out.logprobs is not None
            assert torch.allclose(out.logprobs, torch.tensor(rollout.sampler_logprobs), atol=1e-4)
            (score,) = model.score_whole([rollout])
            assert rollout.score is not None and rollout.score.value == pytest.approx(score.value, abs=1e-5)
        values = [rollout.score.value for rollout in found if rollout.score]
        assert values == sorted(values, key=lambda value: -(value or 0.0))


def test_whole_scores_of_a_process_reward_model() -> None:
    """The minimum, or another aggregation, of the scores of its steps; an answer without a step has no score."""
    _, _, model = parts()
    answers = [Rollout("p", (), START, (7, 8), text, (0.0, 0.0), "stop") for text in ("abecdef", " e ", "xye")]
    scores = model.score_whole(answers)
    (first,) = model.score_rollouts(answers[:1])
    assert len(first) == 3 and scores[0].value == pytest.approx(float(first.min())) and scores[0].parts == {"steps": 3.0}
    assert scores[1].value is None and scores[1].error == "it has no step"
    assert model.score_whole(answers, "product")[0].value == pytest.approx(float(first.prod()))
    assert [score.value for score in model.score_whole(answers[1:2])] == [None]
