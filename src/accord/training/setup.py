"""From what people pass to a trainer (a name, a model, rows, a tokenizer) to what the loop needs, saying what was chosen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from accord.config.base import SMALL_WEIGHTS, TrainingConfig
from accord.data.render import Renderer
from accord.data.snapshots import fitting
from accord.errors import ConfigError, DataError
from accord.models.adapters import PolicyModel, Stack
from accord.models.size import moment_bytes
from accord.models.tokens import leave_out_unembedded, stop_token_ids
from accord.training import processes
from accord.types import Example

Rows = Any
"""A `datasets.Dataset`, a list of dicts, a path, a hub id, or a list of `Example`s."""


def say(text: str) -> None:
    """One line for the user, once over all processes."""
    if processes.is_main():
        print(text, file=sys.stderr, flush=True)


@dataclass
class Prepared:
    policy: PolicyModel
    tokenizer: Any
    renderer: Renderer
    stack: Stack
    """Adapters of the policy being trained, bottom first."""
    reference: Stack
    """The same without the newest one: the policy training starts from. Equal to `stack` where no adapter is trained."""
    full: bool
    """True: the base weights themselves are trained."""
    folder: Path


def prepare(
    model: Any,
    args: TrainingConfig,
    *,
    tokenizer: Any,
    peft_config: Any,
    adapter: str,
    method: str,
    max_prompt_length: int | None = None,
    start: Stack | None = None,
) -> Prepared:
    """Resolve model, tokenizer, adapters and output folder.

    Args:
        model: a name or path, a transformers model, a peft model, or a PolicyModel whose stack is built upon.
        peft_config: a fresh adapter is added with it. None trains the model's own trainable adapter, or all weights.
        adapter: name of the new adapter; a number follows where the model has one of that name.
        method: used in the default folder name.
        start: adapters that training starts from, bottom first. None is every adapter on the model.
    """
    heads = getattr(args, "backbone", "") == "heads"
    if args.weights in SMALL_WEIGHTS and isinstance(model, (str, Path)) and peft_config is None and not heads:
        raise frozen_weights(args.weights)
    policy, loaded = _policy(model, args, trained=peft_config is None and not heads)
    if args.weights in SMALL_WEIGHTS and not policy.held and policy.device.type != "cuda":
        raise ConfigError(
            f"weights={args.weights!r} is how a model is loaded, and this one is in memory already. Pass its name or folder, or leave weights at auto."
        )
    tokenizer = tokenizer if tokenizer is not None else loaded or _tokenizer_of(policy)
    rows = int(policy.model.get_input_embeddings().weight.shape[0])
    if note := leave_out_unembedded(tokenizer, rows):
        say(f"{note[0].upper()}{note[1:]}.")
    if len(tokenizer) > rows:
        raise ConfigError(
            f"The tokenizer has {len(tokenizer)} tokens and the model embeds {rows}: they do not belong together. Pass the model's own tokenizer."
        )
    if heads and peft_config is not None:
        say("backbone='heads' trains no adapter: peft_config is not used.")
        peft_config = None
    start = tuple(policy.adapters) if start is None else start
    if peft_config is not None:
        name = _free_name(policy, adapter)
        try:
            policy.add_adapter(name, peft_config, seed=args.seed)
        except ValueError as error:  # peft names what it did not find
            raise ConfigError(f"This adapter does not fit the model: {str(error).splitlines()[0]}") from error
        stack, reference, full = (*start, name), start, False
    elif start and heads:
        stack, reference, full = start, start, False
    elif start:
        stack, reference, full = start, start[:-1], False
        policy.train_only(stack[-1])
    else:
        stack, reference, full = (), (), True
        if policy.held and not heads:
            raise frozen_weights(policy.held)
        if not policy.held:
            policy.model.requires_grad_(True)
        if not heads:
            count = sum(parameter.numel() for parameter in policy.model.parameters())
            say(
                f"Full fine-tuning of {count / 1e6:.0f} M parameters: about {count * (8 + moment_bytes(args.optim, 4)) / 1e9:.1f} GB for weights, gradients and Adam. Pass a peft_config for LoRA."
            )
    if args.learning_rate is None:
        args.learning_rate = args.default_learning_rate(full=full)
        say(
            f"learning_rate {args.learning_rate:g} ({'frozen-feature' if heads else 'full fine-tuning' if full else 'LoRA'} value of {method})."
        )
    if args.gradient_checkpointing:
        policy.enable_checkpointing()
    if args.attention == "flex" and policy.device.type == "cpu":
        raise ConfigError("attention='flex' is for GPUs: on a CPU torch has no gradient of it. Leave it at 'branches'.")
    policy.attention = args.attention
    if policy.note:
        say(policy.note)
    if not args.disable_dropout:
        raise ConfigError(
            "disable_dropout=False is not supported: log-probs would differ between sampling, reference and training. Leave it True."
        )
    if getattr(tokenizer, "chat_template", None):
        say(f"The chat template of {type(tokenizer).__name__} is applied to every prompt, plain strings included.")
    renderer = Renderer(
        tokenizer,
        end_ids=stop_token_ids(tokenizer, getattr(policy.model, "generation_config", None)),
        max_length=args.max_length,
        max_prompt_length=max_prompt_length,
    )
    folder = Path(args.output_dir) if args.output_dir else default_folder(method, policy)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir {folder} is a file; a run needs a folder. Name another place.")
    return Prepared(policy, tokenizer, renderer, stack, reference, full, folder)


def frozen_weights(held: str) -> ConfigError:
    """What to say to full fine-tuning on a base that is held in fewer bits."""
    return ConfigError(
        f"weights={held!r} holds the base frozen, so not all weights can be trained. Train an adapter (--lora_r 16, or a peft_config), or use weights='fp32'."
    )


def default_folder(method: str, policy: PolicyModel) -> Path:
    """Where a run goes when nobody says where: runs/<date>-<method>-<model>."""
    return Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{method}-{short_name(policy)}"


def read_rows(source: Rows, columns: dict[str, str] | None = None, seed: int = 0) -> list[Example]:
    """All rows of one source, or a weighted mixture `a.jsonl:0.7,b.jsonl:0.3`, as long as its parts together; what it draws is said.

    Raises:
        DataError: if a part of a mixture has no rows.
    """
    from accord.data.mixture import Mixture, parse_data
    from accord.data.read import read_examples

    parts = parse_data(source) if isinstance(source, str) else []
    if len(parts) < 2:
        return list(read_examples(parts[0].source if parts else source, columns=columns))
    sources = [list(read_examples(part.source, columns=columns)) for part in parts]
    empty = [part.source for part, found in zip(parts, sources, strict=True) if not found]
    if empty:
        raise DataError(f"{empty[0]} has no rows.")
    shares = [part.weight for part in parts if part.weight is not None]
    mixture = Mixture(sources, shares or None, seed=seed)
    drawn = [mixture.locate(position) for position in range(len(mixture))]
    if shares:
        counts = [[index for index, _ in drawn].count(part) for part in range(len(parts))]
        told = (f"{part.source} {count} of its {len(found)} rows" for part, count, found in zip(parts, counts, sources, strict=True))
        say(f"A mixture of {len(drawn)} rows: {', '.join(told)} (more than all are repeats).")
    return [sources[index][row] for index, row in drawn]


def examples(rows: Rows, *, kinds: Sequence[str], what: str, columns: dict[str, str] | None = None, seed: int = 0) -> list[Example]:
    """Read any accepted form of data and insist on the kinds a method can use. seed: orders a mixture.

    Raises:
        DataError: naming the row, if there are none or one is of another kind.
    """
    ready = isinstance(rows, (list, tuple)) and rows and isinstance(rows[0], Example)
    found = usable(list(rows) if ready else read_rows(rows, columns, seed), kinds, what)
    if not found:
        raise DataError(f"{what}: the dataset has no rows.")
    for example in found:
        if example.kind not in kinds:
            others = f" (its other columns: {', '.join(example.columns)})" if example.columns else ""
            raise DataError(
                f"{example.where or 'row'}: {what} needs {' or '.join(kinds)} rows and this is a {example.kind} row{others}. See docs/data.md."
            )
    return found


def usable(found: list[Example], kinds: Sequence[str], what: str) -> list[Example]:
    """The rows, less those labels of a project that a method has no use for; how many those are is said.

    Raises:
        DataError: if a project's labels are all of other kinds.
    """
    kept, left = fitting(found, kinds)
    told = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
    if found and not kept:
        raise DataError(f"{what}: the project has no {' or '.join(kinds)} labels; its labels are {told}.")
    if left:
        say(f"{what}: {len(kept)} rows of the project are used; {told} of other kinds are not.")
    return kept


def report_rendering(renderer: Renderer, what: str) -> None:
    """Say what rendering had to do, so that no cut happens in silence."""
    if renderer.report:
        say(f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(renderer.report.items())) + ".")
        renderer.report.clear()


def _free_name(policy: PolicyModel, name: str) -> str:
    number = 2
    found = name
    while found in policy.adapters:
        found, number = f"{name}_{number}", number + 1
    return found


def _policy(model: Any, args: TrainingConfig, *, trained: bool) -> tuple[PolicyModel, Any]:
    if isinstance(model, PolicyModel):
        return model, None
    if isinstance(model, (str, Path)):
        from accord.models.load import load_model, load_tokenizer, resolve

        resolved = resolve(str(model))
        loaded = load_model(resolved, dtype=args.dtype, trained=trained, optim=args.optim, weights=args.weights)
        return PolicyModel(loaded), load_tokenizer(resolved)
    if isinstance(model, nn.Module):
        return PolicyModel(model), None
    raise ConfigError(f"model must be a name, a path or a model, not {type(model).__name__}.")


def _tokenizer_of(policy: PolicyModel) -> Any:
    name = getattr(policy.model.config, "_name_or_path", "")
    if not name:
        raise ConfigError("This model was made in memory, so its tokenizer is unknown. Pass processing_class=tokenizer.")
    from accord.models.load import load_tokenizer, resolve

    return load_tokenizer(resolve(name))


def short_name(policy: PolicyModel) -> str:
    """The model's name without its folders."""
    name = getattr(policy.model.config, "_name_or_path", "") or type(policy.model).__name__
    return Path(name).name.lower()


def accept_tokenizer(processing_class: Any, tokenizer: Any) -> Any:
    """`tokenizer=` is the old name of `processing_class=`: taken, with one notice."""
    if tokenizer is not None:
        if processing_class is not None:
            raise ConfigError("Give processing_class or tokenizer, not both.")
        say("tokenizer= is the old name of processing_class=; taken.")
        return tokenizer
    return processing_class


def callbacks_list(callbacks: Iterable[Any] | None) -> list[Any]:
    return list(callbacks or [])
