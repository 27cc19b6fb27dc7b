"""Samples that are kept: drawn some prompts at a time, written down as they come, and found again when the same work is started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from accord.errors import ConfigError, DataError
from accord.models.adapters import PolicyModel
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.types import SCHEMA, Rollout, from_json, to_json
from accord.writing import append_text, write_text

HEADER = "Samples"
"""Type of the first line, which says what the samples of a file depend on."""
SPEED_ONLY = "max_batch"
"""The sampling setting that does not change what is drawn."""


def collect(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    path: Path | None = None,
    *,
    drawn_from: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Rollout]]:
    """`config.num_samples` answers to each prompt, in the order of the prompts.

    A file at `path` keeps them: answers to prompts that it has are read, the others drawn and added. As every draw depends on seed, prompt
    and position alone, stopping anywhere and starting again gives the same samples.

    Args:
        prompts: each with an id of its own.
        path: where answers are kept. None keeps nothing.
        drawn_from: what else the samples depend on, the policy's fingerprint say; goes into the file's first line.
        progress: called with how many prompts are answered and how many there are, after each part.
    Raises:
        ConfigError: if the file holds samples of other settings.
        DataError: if the file is damaged, or two prompts have the same id.
        MachineError: if it cannot be written.
    """
    ids = [prompt.id for prompt in prompts]
    if len(set(ids)) < len(ids):
        raise DataError(f"Two prompts have the id {next(name for name in ids if ids.count(name) > 1)}: their draws would be the same.")
    known = _read(path, prompts, config, dict(drawn_from or {})) if path is not None else {}
    missing = [prompt for prompt in prompts if prompt.id not in known]
    together = max(1, 4 * config.max_batch // config.num_samples)
    for start in range(0, len(missing), together):
        part = missing[start : start + together]
        rollouts = sampler.sample(part, config)
        groups = [rollouts[first : first + config.num_samples] for first in range(0, len(rollouts), config.num_samples)]
        if path is not None:
            append_text(path, "".join(_line(to_json(replace(rollout, columns={}))) for group in groups for rollout in group))
        known |= dict(zip((prompt.id for prompt in part), groups, strict=True))
        if progress is not None:
            progress(len(prompts) - len(missing) + start + len(part), len(prompts))
    return [[replace(rollout, prompt=prompt.messages, columns=prompt.columns) for rollout in known[prompt.id]] for prompt in prompts]


def prompt_limit(policy: PolicyModel, max_new_tokens: int) -> int | None:
    """Tokens that a prompt may have, so that an answer fits behind it into the model's positions; None where nothing limits it.

    Raises:
        ConfigError: if the answer alone takes all positions.
    """
    positions = getattr(policy.text_config, "max_position_embeddings", None)
    if positions is not None and positions <= max_new_tokens:
        raise ConfigError(f"max_new_tokens={max_new_tokens} leaves no room for a prompt: the model has {positions} positions.")
    return None if positions is None else positions - max_new_tokens


def _read(path: Path, prompts: Sequence[Prompt], config: SamplingConfig, drawn_from: dict[str, Any]) -> dict[str, list[Rollout]]:
    """The groups that a file holds whole; it is begun where there is none. A last line that was cut off in writing is taken away."""
    settings = {name: value for name, value in asdict(config).items() if name != SPEED_ONLY}
    about = json.loads(json.dumps({**drawn_from, **settings}))
    if not path.exists():
        write_text(path, _line({"schema": SCHEMA, "type": HEADER, "about": about}))
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    rows = [_parsed(line, path, number) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
    if not rows or rows[0].get("type") != HEADER:
        raise DataError(f"{path} holds no samples that can be gone on with. Name another place, or delete it.")
    found = cast("dict[str, Any]", rows[0].get("about", {}))
    if found != about:
        names = sorted(name for name in {*found, *about} if found.get(name) != about.get(name))
        told = ", ".join(f"{name} {found.get(name)} then, {about.get(name)} now" for name in names)
        raise ConfigError(
            f"{path} holds samples of other settings ({told}). Name another --output_dir (for accord annotate another --round), or delete the file."
        )
    groups: dict[str, list[Rollout]] = {}
    for row in rows[1:]:
        rollout = from_json(row, Rollout)
        groups.setdefault(rollout.prompt_id, []).append(rollout)
    ids = {prompt.id: prompt.ids for prompt in prompts}
    kept = {
        name: group
        for name, group in groups.items()
        if len(group) == config.num_samples and all(rollout.prompt_ids == ids.get(name, rollout.prompt_ids) for rollout in group)
    }
    if len(whole) < len(text) or len(kept) < len(groups):
        # A group that was cut off, or answers other tokens, would be found beside its successor the next time.
        _rewrite(path, rows[0], kept)
    return {name: group for name, group in kept.items() if name in ids}


def _rewrite(path: Path, header: dict[str, Any], groups: Mapping[str, Sequence[Rollout]]) -> None:
    lines = [_line(header), *(_line(to_json(rollout)) for group in groups.values() for rollout in group)]
    write_text(path, "".join(lines))


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{path} line {number} is no JSON: the file is damaged. Delete it to draw the samples again.") from error
    if not isinstance(row, dict):
        raise DataError(f"{path} line {number} holds no sample. Delete the file to draw the samples again.")
    return cast("dict[str, Any]", row)


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
