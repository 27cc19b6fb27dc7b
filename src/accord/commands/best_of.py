"""`accord evaluate --best-of N`: sample N answers to each prompt, score them, and show what choosing the best of n gains."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accord.config.options import EvaluateOptions
from accord.errors import ConfigError, DataError
from accord.evaluation.best_of import Point, ScoredAnswers, best_of_curve
from accord.models.opened import open_model
from accord.models.save import PROCESS, REWARD
from accord.recipes.sampled import Drawn, prompts_to_answer
from accord.rewards.combine import combined, load_function
from accord.rewards.mitigated import pessimistic, shaped
from accord.rewards.named import reward_of
from accord.rewards.sources import load_rewards
from accord.rollouts.sampler import SamplingConfig
from accord.training.setup import read_rows, say
from accord.types import Rollout, Score
from accord.writing import write_text

SAMPLES, SCORES, CURVE = "samples.jsonl", "scores.jsonl", "best_of.json"


def run(options: EvaluateOptions) -> int:
    """Print the curve; samples, scores and curve stay in the output folder."""
    for record, what in ((REWARD, "reward"), (PROCESS, "process reward")):
        if (Path(options.run) / record).exists():
            raise ConfigError(
                f"{options.run} is a {what} model and writes no answers. Give the policy, and this run as --reward_model {options.run}."
            )
    rows = read_rows(options.data, options.columns, options.seed)
    opened = open_model(options.run, force=options.force)
    say(opened.line)
    rewards = load_rewards(options.reward_model, options.reward, opened.policy, opened.renderer, aggregation=options.aggregation)
    true = reward_of(options.true) if options.true else None
    final = load_function(options.answer) if options.answer else None
    prompts = prompts_to_answer(rows, opened, options.max_new_tokens)
    drawn = Drawn(opened, options.run)
    name = f"best-of-{options.best_of}-{drawn.short_name}-{Path(options.data.split(',')[0]).name.split('.')[0]}"
    folder = Path(options.output_dir or Path("runs") / name)
    sampling = SamplingConfig(options.max_new_tokens, options.best_of, options.temperature, seed=options.seed)
    groups = drawn(prompts, sampling, folder / SAMPLES)
    flat = [rollout for group in groups for rollout in group]
    rewards = pessimistic(rewards, options.reward_ensemble, options.uncertainty_weight)
    lengths = [len(rollout.completion_ids) for rollout in flat]
    proxy = shaped(combined(rewards, flat), lengths, [index // options.best_of for index in range(len(flat))], options.reward_shaping)
    worth = true.score(flat) if true is not None else None
    finals = _finals(final.function, final.name, flat) if final is not None else None
    write_text(folder / SCORES, "".join(map(_score_line, flat, proxy, worth or [None] * len(flat), finals or [None] * len(flat))))
    answers = _by_prompt(options.best_of, proxy, worth, finals)
    points = best_of_curve(answers, seed=options.seed)
    report = {
        "schema": 1,
        **drawn.source(sampling, best_of=options.best_of, max_new_tokens=options.max_new_tokens),
        "data": options.data,
        "chosen_by": [*(options.reward_model or []), *(options.reward or [])],
        "aggregation": options.aggregation,
        "reward_ensemble": options.reward_ensemble,
        "reward_shaping": options.reward_shaping,
        "true": options.true,
        "prompts": len(answers),
        "prompts_left_out": len(groups) - len(answers),
        "answers_not_scored": sum(score.value is None for score in proxy),
        "curve": [asdict(point) for point in points],
    }
    write_text(folder / CURVE, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(table(points))
    say(f"{len(answers)} prompts. Samples, scores and curve are in {folder}.")
    return 0


def table(points: Sequence[Point]) -> str:
    """The curve for people; columns that nothing is known for are left out."""
    columns = [f"{'n':>4}", f"{'KL bound':>9}", f"{'proxy':>9}"]
    first = points[0]
    if first.true is not None:
        columns += [f"{'true':>9}", f"{'95 % interval':>18}", f"{'gain':>9}", f"{'95 % interval':>18}"]
    if first.pass_at_n is not None:
        columns.append(f"{'pass@n':>8}")
    if first.majority is not None:
        columns += [f"{'majority':>9}", f"{'weighted':>9}"]
    lines = ["  ".join(columns)]
    for point in points:
        cells = [f"{point.n:>4}", f"{point.kl_bound:>9.4f}", f"{point.proxy:>9.4f}"]
        for interval in (point.true, point.gain):
            if interval is not None:
                cells += [f"{interval.mean:>9.4f}", f"{f'{interval.low:.4f} to {interval.high:.4f}':>18}"]
        if point.pass_at_n is not None:
            cells.append(f"{point.pass_at_n:>8.4f}")
        cells += [f"{interval.mean:>9.4f}" for interval in (point.majority, point.weighted) if interval is not None]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _by_prompt(count: int, proxy: Sequence[Score], worth: Sequence[Score] | None, finals: Sequence[Hashable] | None) -> list[ScoredAnswers]:
    """The answers of each prompt; prompts with an answer whose true reward failed are left out, and said.

    Raises:
        DataError: if none is left.
    """
    missing = sum(score.value is None for score in proxy)
    if missing:
        reason = next(score.error for score in proxy if score.value is None)
        say(f"{missing} of {len(proxy)} answers have no reward to be chosen by ({reason}): they are chosen only where no other is there.")
    found: list[ScoredAnswers] = []
    reason = None
    for start in range(0, len(proxy), count):
        part = slice(start, start + count)
        true = None if worth is None else [score.value for score in worth[part]]
        if worth is not None and None in (true or []):
            reason = next(score.error for score in worth[part] if score.value is None)
            continue
        found.append(
            ScoredAnswers(
                tuple(score.value for score in proxy[part]),
                None if true is None else tuple(value for value in true if value is not None),
                None if finals is None else tuple(finals[part]),
            )
        )
    left_out = len(proxy) // count - len(found)
    if left_out and not found:
        raise DataError(f"No prompt has a true reward for each of its answers ({reason}). Mend the function of --true.")
    if left_out:
        say(f"{left_out} prompts have an answer whose true reward is not known ({reason}); they are left out.")
    return found


def _finals(function: Any, name: str, rollouts: Sequence[Rollout]) -> list[Hashable]:
    """The final answer of each rollout, as the user's function reads it.

    Raises:
        ConfigError: if it raises, or returns another number of answers or something that cannot be counted.
    """
    completions = [[{"role": "assistant", "content": rollout.text}] for rollout in rollouts]
    try:
        found = list(function(completions=completions))
        hash(tuple(found))
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else "no message"
        raise ConfigError(
            f"--answer {name} raised {type(error).__name__}: {said}. It takes completions and returns a text or None for each."
        ) from error
    if len(found) != len(rollouts):
        raise ConfigError(f"--answer {name} returned {len(found)} answers for {len(rollouts)} completions. Return one (or None) each.")
    return found


def _score_line(rollout: Rollout, proxy: Score, true: Score | None, final: Hashable) -> str:
    row: dict[str, Any] = {"prompt_id": rollout.prompt_id, "sample_index": rollout.sample_index, "proxy": asdict(proxy)}
    if true is not None:
        row["true"] = asdict(true)
    if final is not None:
        row["answer"] = final
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"
