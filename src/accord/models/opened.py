"""Open a model by any name a user may give: a base model, or a run folder whose adapters lie on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accord.data.render import Renderer
from accord.errors import DataError
from accord.models.adapters import PolicyModel, Stack
from accord.models.folders import read_json
from accord.models.load import ResolvedModel, load_config, load_model, load_tokenizer, resolve
from accord.models.save import HEADS, STACK, load_stack
from accord.models.tokens import stop_token_ids


@dataclass
class Opened:
    policy: PolicyModel
    tokenizer: Any
    renderer: Renderer
    stack: Stack
    """The run's adapters, bottom first; () for a base model."""
    line: str
    """Name, source, licence and hash, for the user."""
    resolved: ResolvedModel
    """The base model."""


def open_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    accept_licence: bool = False,
    before_loading: Callable[[Any], object] | None = None,
    weights_too: bool = False,
    force: bool = False,
    weights: str | Callable[[], str] = "auto",
) -> Opened:
    """Load a base model, or a run folder with its base. A run's tokenizer, template and stops are those it was trained with.

    Args:
        device: as in `load_model`.
        before_loading: called with the model's config before any weight is read; raises when the work cannot fit. None asks for
            memory for the weights alone.
        weights_too: True asks for the memory of the file's weights after `before_loading` as well; it may hold more than its config says.
            False leaves that to `before_loading`.
        force: True loads the model however little memory is free. False refuses what cannot fit.
        weights: as in `load_model`; auto holds the base of a run as it was held in training. A function is asked after `before_loading`.
    Raises:
        DataError: if a run folder does not say which base it belongs to.
        MachineError, ConfigError: if the model cannot be found or loaded.
    """
    folder = Path(name)
    adapters, on_a_base = _is_run(folder)
    resolved = resolve(base_of(folder) if on_a_base else name, accept_licence=accept_licence)
    if before_loading is not None:
        before_loading(load_config(resolved))
    chosen = weights if isinstance(weights, str) else weights()
    chosen = weights_of(folder) if chosen == "auto" and on_a_base else chosen
    unasked = force or (before_loading is not None and not weights_too)
    policy = PolicyModel(load_model(resolved, dtype=dtype, device=device, force=unasked, weights=chosen))
    stack = load_stack(policy, folder) if adapters else ()
    if on_a_base and (folder / "generation_config.json").exists():
        policy.model.generation_config = _generation_config(folder)
    tokenizer = load_tokenizer(_with_tokenizer(folder, resolved))
    line = str(resolved) + (f" + adapters {' + '.join(stack)} of {folder}" if stack else "")
    return Opened(
        policy, tokenizer, Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, policy.model.generation_config)), stack, line, resolved
    )


def open_models(names: Sequence[str], *, accept_licence: bool = False, force: bool = False) -> list[Opened]:
    """Open several models at once, in the order given. Those on the same base, held the same way, share its weights: each adds its adapters
    alone.

    Raises:
        DataError, MachineError, ConfigError: as `open_model`; also when all do not fit into memory together.
    """
    first: dict[tuple[str, str], Opened] = {}
    found: list[Opened] = []
    for number, name in enumerate(names):
        key = _base_key(name)
        if key in first:
            found.append(_open_beside(first[key], name, prefix=f"model{number}"))
        else:
            found.append(open_model(name, accept_licence=accept_licence, force=force))
            first[key] = found[-1]
    return found


def _base_key(name: str) -> tuple[str, str]:
    """Which weights lie under a model, and how they are held."""
    folder = Path(name)
    on_a_base = _is_run(folder)[1]
    return resolve(base_of(folder) if on_a_base else name, quiet=True).folder, weights_of(folder) if on_a_base else "auto"


def _open_beside(opened: Opened, name: str, *, prefix: str) -> Opened:
    """Another model on the base of one that is open.

    Args:
        prefix: goes before the names of adapters that the other has too.
    """
    folder = Path(name)
    stack = load_stack(opened.policy, folder, prefix=prefix) if _is_run(folder)[0] else ()
    tokenizer, ends = open_tokenizer(name)
    line = str(opened.resolved) + (f" + adapters {' + '.join(stack)} of {folder}" if stack else "")
    return Opened(opened.policy, tokenizer, Renderer(tokenizer, end_ids=ends), stack, line, opened.resolved)


def open_tokenizer(name: str) -> tuple[Any, list[int]]:
    """The tokenizer that `open_model` gives, and the ids that end an answer, without reading a weight. Raises as `open_model` does."""
    from transformers import GenerationConfig

    folder = Path(name)
    on_a_base = _is_run(folder)[1]
    resolved = resolve(base_of(folder) if on_a_base else name)
    tokenizer = load_tokenizer(_with_tokenizer(folder, resolved))
    places = [folder, Path(resolved.folder)] if on_a_base else [Path(resolved.folder)]
    stated = next((place for place in places if (place / "generation_config.json").exists()), None)
    if stated is not None:
        return tokenizer, stop_token_ids(tokenizer, _generation_config(stated))
    return tokenizer, stop_token_ids(tokenizer, GenerationConfig.from_model_config(load_config(resolved)))


def _is_run(folder: Path) -> tuple[bool, bool]:
    """Whether a folder holds adapters, and whether it lies on a base model (adapters, or heads alone)."""
    adapters = (folder / STACK).exists() or (folder / "adapter_config.json").exists()
    heads = any((folder / record).exists() for record in HEADS)
    return adapters, adapters or (heads and not (folder / "config.json").exists())


def _with_tokenizer(folder: Path, resolved: ResolvedModel) -> ResolvedModel:
    """Where the tokenizer is: a run's own, else its base's."""
    own = _is_run(folder)[1] and (folder / "tokenizer_config.json").exists()
    return replace(resolved, folder=str(folder)) if own else resolved


def base_of(folder: Path) -> str:
    """The base model a run folder was trained on."""
    for name, key in ((STACK, "base"), ("adapter_config.json", "base_model_name_or_path"), *((record, "base") for record in HEADS)):
        path = folder / name
        if path.exists():
            base = read_json(path).get(key)
            if base:
                return str(base)
    raise DataError(f"{folder} does not say which base model it belongs to (its model was made in memory). Give the base model instead.")


def weights_of(folder: Path) -> str:
    """How a run's base was held while it was trained: bf16, int8, nf4 or gguf; auto where it was held as it is computed with."""
    for name in (STACK, *HEADS):
        if (folder / name).exists():
            return str(read_json(folder / name).get("weights") or "auto")
    return "auto"


def _generation_config(folder: Path) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}/generation_config.json is damaged ({' '.join(str(error).split())[:120]}). Save the run again."
        ) from error
