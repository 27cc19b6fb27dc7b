"""What `accord data check`, `convert`, `template` and `demo` do; each prints and returns the exit code."""

from __future__ import annotations

import importlib
import json as json_module
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from accord.config.base import TrainingConfig
from accord.data.check import CheckReport, check
from accord.data.demo_files import FILES, write_demo
from accord.data.kinds import each_answer
from accord.data.read import read_located, read_source
from accord.data.template_rows import write_template
from accord.data.write import write_examples
from accord.errors import DataError, MachineError


def data_check(
    path: str,
    *,
    against: str | None = None,
    model: Any = None,
    end_ids: Sequence[int] | None = None,
    max_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    json: bool = False,
) -> int:
    """Print what is wrong with a dataset; with a model also three rows with their loss mask.

    Args:
        path: file, folder or hub id.
        against: other data that must not share prompts with it.
        model: a tokenizer, or a folder or hub id to load one from; None: no tokens are counted.
        end_ids: ids that end an answer, as training has them; None: the tokenizer's end token.
        max_length: longest example in tokens that training will take; None: 1024, the default of training, or the model's own limit.
        columns: which column plays which part.
        json: True prints the report as JSON; False in words.
    Returns:
        0, or 3 if there are rows that cannot be used.
    """
    from rich.console import Console

    tokenizer = _tokenizer(model)
    if tokenizer is not None and max_length is None:
        max_length = int(min(TrainingConfig.max_length or math.inf, tokenizer.model_max_length))
    report = check(path, against=against, tokenizer=tokenizer, end_ids=end_ids, max_length=max_length, columns=columns)
    console = Console(highlight=False)
    if json:
        print(json_module.dumps(report.to_json(), indent=2))
        return _exit_code(report)
    console.print(report.text(), markup=False, soft_wrap=True)
    if tokenizer is not None:
        from accord.data.draw import draw_examples

        located = read_located(read_source(path, on_error=_pass_over), columns=columns, on_error=_pass_over)
        console.print(
            draw_examples((example for _, example in islice(located, 3)), tokenizer, end_ids=end_ids, max_length=max_length), soft_wrap=True
        )
    else:
        console.print(
            "To see three rows as tokens, with what is learned in color, and how many are cut: add --model smollm2-135m",
            markup=False,
            soft_wrap=True,
        )
    return _exit_code(report)


def data_convert(
    source: str, target: str, *, to: str | None = None, columns: Mapping[str, str] | None = None, skip_bad: bool = False, each: bool = False
) -> int:
    """Write a dataset in another layout or file type.

    Args:
        source: file, folder or hub id.
        target: file to write; its ending says which type.
        to: name of the layout; None: accord's own for what the rows are.
        columns: which column plays which part.
        skip_bad: True leaves out rows that cannot be used and says how many and why; False stops at the first.
        each: True makes a row of each answer of a conversation (as prompt and completion, where `to` says nothing); False keeps conversations whole.
    """
    from rich.console import Console

    skipped: list[str] = []

    def note(error: DataError) -> None:
        skipped.append(str(error))

    on_error = note if skip_bad else None
    located = read_located(read_source(source, on_error=on_error), columns=columns, on_error=on_error)
    found = (one for _, example in located for one in (each_answer(example) if each else (example,)))
    report = write_examples(found, target, format="prompt_completion" if each and to is None else to)
    lines = [f"Wrote {report.examples} examples in {report.rows} rows to {report.path} (format {report.format})."]
    lines += [f"The format {report.format} has no place for: {name} ({count} examples)." for name, count in report.lost.most_common()]
    lines += [f"Left out: {line}" for line in skipped[:5]]
    if skipped:
        lines.append(f"{len(skipped)} rows were left out.")
    Console(highlight=False).print("\n".join(lines), markup=False, soft_wrap=True)
    return 0


def data_template(kind: str, path: str) -> int:
    """Write a small example file of a kind (demonstration, preference, ranking, labelled, prompt, steps) to start from."""
    report = write_template(kind, path)
    print(f"Wrote {report.rows} example rows of kind {kind} to {path}. Replace them with your own, then: accord data check {path}")
    return 0


def data_demo(folder: str) -> int:
    """Write the packaged rows into a folder as files of accord's layouts, and say what each is for."""
    for name, count in write_demo(folder).items():
        print(f"{(Path(folder) / name).as_posix()}: {count} rows, {FILES[name].purpose}")
    return 0


def _exit_code(report: CheckReport) -> int:
    return DataError.exit_code if report.unusable else 0


def _pass_over(error: DataError) -> None:
    """The report has listed this row already."""


def _tokenizer(model: Any) -> Any:
    if model is None or not isinstance(model, (str, Path)):
        return model
    transformers: Any = importlib.import_module("transformers")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(model))
    except (OSError, ValueError) as error:
        raise MachineError(f"No tokenizer could be loaded from {model}: {' '.join(str(error).split())[:200]}") from error
