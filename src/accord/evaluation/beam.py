"""Search a step at a time: sample continuations of the best partial solutions, keep those that a process reward model likes best.

Beam search over steps as in Snell et al. 2024 (arXiv:2408.03314, section 5.2), scored as a whole by an aggregation of the steps' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.types import Rollout, Score, content_hash

Scorer = Callable[[Sequence[Rollout]], Sequence[Score]]
"""Scores of partial and whole solutions, larger is better: `rewards.process.ProcessRewardModel.score_whole`. A failure ranks last."""


@dataclass(frozen=True)
class BeamConfig:
    """How wide and how long to search."""

    width: int = 4
    """B: partial solutions kept after each step."""
    expansions: int = 4
    """M: continuations sampled for each of them; the first step samples B M."""
    separator: str = "\n"
    """Ends a step; the one the process reward model was trained with."""
    step_tokens: int = 64
    """Longest step in tokens: one without a separator ends here."""
    max_new_tokens: int = 256
    """Longest solution in tokens."""
    temperature: float = 1.0
    """Of the sampling, above 0: at 0 all expansions are the same."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "expansions", "step_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"BeamConfig: {name}={getattr(self, name)} must be 1 or more.")
        if not self.temperature > 0 or not self.separator:
            raise ConfigError("BeamConfig: temperature must be above 0 and separator some text.")


def step_beam_search(
    prompts: Sequence[Prompt], sampler: Sampler, scorer: Scorer, renderer: Renderer, config: BeamConfig
) -> list[list[Rollout]]:
    """Up to `width` different solutions of each prompt, the best first, their scores on them.

    After each step the best B of all candidates stay; one that has ended stays as it is and competes with the others. A search ends when
    all of its B have ended. Token ids are kept as they were sampled, so each solution is a draw of the policy, step by step.

    Args:
        prompts: each with an id of its own.
        renderer: decodes ids as the sampler does, knows the end ids.
    """
    beams: list[list[Rollout]] = [[_empty(prompt)] for prompt in prompts]
    open_beams = [(index, beam) for index, found in enumerate(beams) for beam in found]
    first = True
    while open_beams:
        grown = _expand(open_beams, sampler, renderer, config, config.width * config.expansions if first else config.expansions)
        candidates: dict[int, dict[tuple[int, ...], Rollout]] = {}
        for index in {index for index, _ in open_beams}:
            kept = [] if first else [beam for beam in beams[index] if _ended(beam, config)]
            candidates[index] = {}
            for beam in (*kept, *grown[index]):
                candidates[index].setdefault(beam.completion_ids, beam)
        for index, found in _scored(candidates, scorer).items():
            beams[index] = found[: config.width]
        open_beams = [(index, beam) for index in candidates for beam in beams[index] if not _ended(beam, config)]
        first = False
    return beams


def _expand(
    open_beams: Sequence[tuple[int, Rollout]], sampler: Sampler, renderer: Renderer, config: BeamConfig, samples: int
) -> dict[int, list[Rollout]]:
    """Each open beam with `samples` next steps behind it, by prompt."""
    grown: dict[int, list[Rollout]] = {index: [] for index, _ in open_beams}
    limits = [min(config.step_tokens, config.max_new_tokens - len(beam.completion_ids)) for _, beam in open_beams]
    for limit in sorted(set(limits)):
        part = [open_beams[place] for place, mine in enumerate(limits) if mine == limit]
        asked = [_so_far(beam) for _, beam in part]
        sampling = SamplingConfig(limit, samples, config.temperature, seed=config.seed)
        rollouts = sampler.sample(asked, sampling)
        for place, (index, beam) in enumerate(part):
            for rollout in rollouts[place * samples : (place + 1) * samples]:
                grown[index].append(_longer(beam, rollout, renderer, config))
    return grown


def _longer(beam: Rollout, rollout: Rollout, renderer: Renderer, config: BeamConfig) -> Rollout:
    """The beam with the first step of what was sampled behind it; what follows that step is thrown away."""
    length = step_length(rollout.completion_ids, renderer, config.separator)
    taken = rollout.completion_ids[:length]
    ended = length == len(rollout.completion_ids) and rollout.finish_reason == "stop"
    ids = (*beam.completion_ids, *taken)
    return replace(
        beam,
        completion_ids=ids,
        text=renderer.decode(ids[:-1] if ended else ids),
        sampler_logprobs=(*beam.sampler_logprobs, *rollout.sampler_logprobs[:length]),
        finish_reason="stop" if ended else "length",
        sample_index=rollout.sample_index,
        score=None,
    )


def step_length(ids: Sequence[int], renderer: Renderer, separator: str) -> int:
    """How many of these tokens the first step has, its separator included; all of them where none ends. Blank steps are no steps."""
    for count in range(1, len(ids)):
        *closed, _ = renderer.tokenizer.decode(list(ids[:count]), skip_special_tokens=True).split(separator)
        if any(step.strip() for step in closed):
            return count
    return len(ids)


def _scored(candidates: dict[int, dict[tuple[int, ...], Rollout]], scorer: Scorer) -> dict[int, list[Rollout]]:
    """The candidates of each prompt, best first; of equal ones the earlier. Those that have a score keep it."""
    unscored = [(index, ids) for index, found in candidates.items() for ids, beam in found.items() if beam.score is None]
    scores = scorer([candidates[index][ids] for index, ids in unscored]) if unscored else []
    for (index, ids), score in zip(unscored, scores, strict=True):
        candidates[index][ids] = replace(candidates[index][ids], score=score)
    return {index: sorted(found.values(), key=_rank) for index, found in candidates.items()}


def _rank(beam: Rollout) -> tuple[bool, float]:
    value = None if beam.score is None else beam.score.value
    return value is None, 0.0 if value is None else -value


def _ended(beam: Rollout, config: BeamConfig) -> bool:
    return beam.finish_reason == "stop" or len(beam.completion_ids) >= config.max_new_tokens


def _empty(prompt: Prompt) -> Rollout:
    return Rollout(prompt.id, prompt.messages, prompt.ids, (), "", (), "length", columns=prompt.columns)


def _so_far(beam: Rollout) -> Prompt:
    """What is asked next. The id depends on the path alone, and with it every draw: which beams are open beside it does not matter."""
    path = content_hash(list(beam.completion_ids)) if beam.completion_ids else "start"
    return Prompt(f"{beam.prompt_id}:{path}", (*beam.prompt_ids, *beam.completion_ids), beam.prompt, beam.columns)
