"""`accord prm label`: rows for `accord prm` whose labels come from sampled completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accord.config.options import LabelOptions
from accord.data.render_steps import StepRenderer
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError
from accord.methods.prompts import as_prompt
from accord.models.opened import Opened, open_model
from accord.recipes.sampled import Drawn, prompts_to_answer
from accord.rewards.named import reward_of
from accord.rewards.step_labels import Solution, StepValue, label_by_rollouts, solution_of
from accord.rollouts.collect import prompt_limit
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.setup import read_rows, say
from accord.types import Completion, Example, Message, Rollout

LABELLED_BY = "labelled_by"
"""Column of the rows written that says where their labels come from."""


def run(options: LabelOptions) -> int:
    """Sample solutions where the data has none, complete them after each step, write the rows."""
    target = Path(options.to or f"{Path(options.data.split(',')[0]).name.split('.')[0]}-steps.jsonl")
    solutions_file, completions_file = (
        target.with_name(f"{target.name.split('.')[0]}.{what}.jsonl") for what in ("solutions", "completions")
    )
    if target.exists() and not completions_file.exists():
        raise ConfigError(f"{target} is there already and was not written by accord prm label. Name another file: --to steps.jsonl")
    rows = read_rows(options.data, options.columns, options.seed)
    rewards = [reward_of(spec) for spec in options.reward or []]
    opened = open_model(options.model, force=options.force)
    say(opened.line)
    renderer = StepRenderer(opened.renderer, options.step_separator)
    drawn = Drawn(opened, options.model)
    sampling = SamplingConfig(options.max_new_tokens, options.solutions, options.temperature, seed=options.seed)
    completing = replace(sampling, num_samples=options.rollouts)
    if rows and all(row.kind == "steps" for row in rows):
        solutions, written_by = _given(rows, opened, renderer), {}
    else:
        prompts = prompts_to_answer(rows, opened, options.max_new_tokens)
        sampled = [rollout for group in drawn(prompts, sampling, solutions_file) for rollout in group]
        found = [solution_of(rollout, renderer) for rollout in sampled]
        solutions, written_by = [solution for solution in found if solution is not None], drawn.source(sampling)
        if len(solutions) < len(sampled):
            say(f"{len(sampled) - len(solutions)} of {len(sampled)} sampled solutions have no whole step and are left out.")
    if not solutions:
        raise DataError(
            "There is no solution with a step to label. Look at what was sampled, and at --step_separator and --max_new_tokens."
        )

    def draw(beginnings: list[Prompt]) -> list[list[Rollout]]:
        return drawn(beginnings, completing, completions_file, "beginnings of solutions")

    room = prompt_limit(opened.policy, options.max_new_tokens)
    values = label_by_rollouts(solutions, rewards, renderer, draw, threshold=options.threshold, room=room)
    by = {
        **drawn.source(completing),
        "kind": "rollouts",
        "rollouts": options.rollouts,
        "reward": options.reward,
        "threshold": options.threshold,
    }
    report = write_examples(labelled(solutions, values, {**by, "solution": written_by or None}), target, "steps")
    _tell(values, target, report.rows)
    return 0


def labelled(solutions: Sequence[Solution], values: Sequence[Sequence[StepValue]], by: dict[str, object]) -> list[Example]:
    """Step rows with both estimates: hard ones as labels, soft ones as step_probabilities.

    Args:
        by: where the labels come from; a column of each row.
    """
    rows: list[Example] = []
    for solution, steps in zip(solutions, values, strict=True):
        messages = tuple(Message("assistant", step) for step in solution.steps)
        asked = solution.rollout
        rows.append(
            Example(
                "steps",
                asked.prompt,
                (Completion(messages),),
                step_labels=tuple(step.hard for step in steps),
                step_probabilities=tuple(step.soft for step in steps),
                columns={**asked.columns, LABELLED_BY: by},
                where=f"solution {asked.sample_index + 1} of prompt {asked.prompt_id}",
            )
        )
    return rows


def _given(rows: Sequence[Example], opened: Opened, renderer: StepRenderer) -> list[Solution]:
    """Solutions of the data as if they had been sampled to their end; labels that they have are not read."""
    found: list[Solution] = []
    for index, row in enumerate(rows):
        prompt = as_prompt(row, opened.renderer)
        steps = tuple(message.content.strip() for message in row.completions[0].messages)
        if not all(steps):
            raise DataError(f"{row.where or 'row'}: step {steps.index('') + 1} is empty. Remove it, or fix its text.")
        text = renderer.separator.join(steps)
        ids = (*opened.tokenizer(text, add_special_tokens=False)["input_ids"], opened.renderer.end_ids[0])
        found.append(
            Solution(Rollout(prompt.id, row.prompt, prompt.ids, ids, text, (), "stop", index, columns=prompt.columns), steps, True)
        )
    return found


def _tell(values: Sequence[Sequence[StepValue]], target: Path, rows: int) -> None:
    steps = [step for solution in values for step in solution]
    known = [step for step in steps if step.scored]
    say(f"{rows} solutions with {len(steps)} steps are in {target}.")
    if len(known) < len(steps):
        say(f"{len(steps) - len(known)} steps have no label: their completions were not scored, or there was no room for any.")
    if known:
        hard = sum(step.right > 0 for step in known) / len(known)
        soft = sum(step.right / step.scored for step in known) / len(known)
        print(f"{'steps labelled':<28} {len(known)}")
        print(f"{'right (hard estimate)':<28} {hard:.4f}")
        print(f"{'right (soft estimate)':<28} {soft:.4f}")
    say(
        f"Next: accord prm --data {target} (labels), or with --soft-labels (step_probabilities). Labels are values under the model that completed."
    )
