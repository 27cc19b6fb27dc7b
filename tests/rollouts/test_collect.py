"""Samples that are kept: stopping anywhere and starting again gives the same file and the same answers, and other settings are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from accord.data.render import Renderer
from accord.errors import ConfigError, DataError
from accord.rollouts.collect import collect, prompt_limit
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.types import Message, Rollout

CONFIG = SamplingConfig(5, 3, seed=4, max_batch=3)
"""Parts of 4 prompts."""


def prompts(count: int = 9) -> list[Prompt]:
    return [Prompt(f"p{i}", (30 + i, 40, 50 + 2 * i), (Message("user", f"Say {i}"),), {"row": i}) for i in range(count)]


def drawn(groups: Sequence[Sequence[Rollout]]) -> list[tuple[object, ...]]:
    """What was drawn; log-probabilities differ by rounding with the rows that are decoded together."""
    return [(rollout.prompt_id, rollout.completion_ids, rollout.text, rollout.finish_reason) for group in groups for rollout in group]


def local() -> LocalSampler:
    return LocalSampler(tiny.policy(), Renderer(tiny.tokenizer(), end_ids=list(range(2, 60))), ())


class Stopping:
    """A sampler that is switched off after so many calls."""

    def __init__(self, sampler: Sampler, calls: int) -> None:
        self.sampler, self.left, self.asked = sampler, calls, []

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += [prompt.id for prompt in prompts]
        return self.sampler.sample(prompts, config)


def test_groups_in_the_order_of_the_prompts() -> None:
    seen: list[tuple[int, int]] = []
    groups = collect(local(), prompts(), CONFIG, progress=lambda done, total: seen.append((done, total)))
    assert [[rollout.prompt_id for rollout in group] for group in groups] == [[f"p{i}"] * 3 for i in range(9)]
    assert [rollout.sample_index for rollout in groups[4]] == [0, 1, 2] and groups[4][0].columns == {"row": 4}
    assert seen == [(4, 9), (8, 9), (9, 9)]
    at_once = local().sample(prompts(), CONFIG)
    assert drawn(groups) == [(rollout.prompt_id, rollout.completion_ids, rollout.text, rollout.finish_reason) for rollout in at_once]


def test_stopped_and_started_again_is_straight_through(tmp_path: Path) -> None:
    straight = collect(local(), prompts(), CONFIG, tmp_path / "straight.jsonl", drawn_from={"model": "tiny"})
    path = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collect(Stopping(local(), 1), prompts(), CONFIG, path, drawn_from={"model": "tiny"})
    second = Stopping(local(), 9)
    assert collect(second, prompts(), CONFIG, path, drawn_from={"model": "tiny"}) == straight
    assert second.asked == [f"p{i}" for i in range(4, 9)]
    assert path.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert collect(Stopping(local(), 0), prompts(), CONFIG, path, drawn_from={"model": "tiny"}) == straight  # nothing is sampled again
    few = [prompts()[7], prompts()[2]]
    assert collect(Stopping(local(), 0), few, CONFIG, path, drawn_from={"model": "tiny"}) == [straight[7], straight[2]]
    assert path.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 200, 1500])
def test_a_file_that_was_cut_off_is_gone_on_with(cut: int, tmp_path: Path) -> None:
    """In the middle of a line, or after some of a prompt's answers: only whole groups count."""
    path = tmp_path / "samples.jsonl"
    straight = collect(local(), prompts(), CONFIG, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Stopping(local(), 9)
    assert drawn(collect(again, prompts(), CONFIG, path)) == drawn(straight)
    assert again.asked and again.asked == [f"p{i}" for i in range(9 - len(again.asked), 9)]
    assert len(path.read_bytes().splitlines()) == len(whole.splitlines())
    assert drawn(collect(Stopping(local(), 0), prompts(), CONFIG, path)) == drawn(straight)


def test_memory_settings_are_free_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    straight = collect(local(), prompts(), CONFIG, path, drawn_from={"model": "a"})
    assert collect(Stopping(local(), 0), prompts(), replace(CONFIG, max_batch=64), path, drawn_from={"model": "a"}) == straight
    for changes, model, words in (
        ({"seed": 5}, "a", "seed 4 then, 5 now"),
        ({"num_samples": 2, "temperature": 0.5}, "a", "num_samples 3 then, 2 now, temperature 1.0 then, 0.5 now"),
        ({}, "b", "model a then, b now"),
    ):
        with pytest.raises(ConfigError, match=f"samples of other settings .{words}"):
            collect(local(), prompts(), replace(CONFIG, **changes), path, drawn_from={"model": model})


def test_a_prompt_that_reads_differently_is_answered_again(tmp_path: Path) -> None:
    """Another chat template gives other tokens under the same id."""
    path = tmp_path / "samples.jsonl"
    collect(local(), prompts(3), CONFIG, path)
    changed = [prompts(3)[0], replace(prompts(3)[1], ids=(77, 78)), prompts(3)[2]]
    again = Stopping(local(), 9)
    found = collect(again, changed, CONFIG, path)
    assert again.asked == ["p1"] and found[1][0].prompt_ids == (77, 78)
    assert collect(Stopping(local(), 0), changed, CONFIG, path) == found


def test_files_that_are_no_samples(tmp_path: Path) -> None:
    for text, words in (('{"prompt": "a"}\n', "holds no samples"), ("broken\n", "line 1 is no JSON"), ("[1]\n", "line 1 holds no sample")):
        path = tmp_path / "samples.jsonl"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=words):
            collect(local(), prompts(), CONFIG, path)
        assert path.read_text(encoding="utf-8") == text
    with pytest.raises(DataError, match="Two prompts have the id p0"):
        collect(local(), [*prompts(), prompts()[0]], CONFIG)


def test_room_for_a_prompt() -> None:
    assert prompt_limit(tiny.policy(), 500) == 12
    with pytest.raises(ConfigError, match="max_new_tokens=512 leaves no room for a prompt: the model has 512 positions"):
        prompt_limit(tiny.policy(), 512)
