"""`accord data check | convert | template`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from accord.errors import ConfigError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"accord data: {message}. accord data --help shows the options.")


def run(given: Sequence[str]) -> int:
    """Parse and dispatch; returns the exit code."""
    parser = _Parser(prog="accord data", description="Check, convert and start data files.")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    check = verbs.add_parser("check", help="what is in a file, what is wrong with it, and what the model will see")
    check.add_argument("path")
    check.add_argument("--against", help="another file: prompts in both are leakage")
    check.add_argument("--model", help="draw three rows with the loss mask, count truncation")
    check.add_argument(
        "--max-length", "--max_length", type=int, help="longest prompt + answer in tokens; 1024 when left out, as in training"
    )
    check.add_argument("--columns", nargs="+", metavar="NAME=COLUMN", help="prompt=question chosen=best rejected=worst")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    convert = verbs.add_parser("convert", help="write the same rows in another layout or file type")
    convert.add_argument("source")
    convert.add_argument("target")
    convert.add_argument("--to", help="layout to write; the file ending decides the file type")
    convert.add_argument("--columns", nargs="+", metavar="NAME=COLUMN")
    convert.add_argument("--skip-bad", "--skip_bad", action="store_true", help="leave out rows that cannot be used, and say which")
    template = verbs.add_parser("template", help="a small example file to start from")
    template.add_argument("kind", choices=["demonstration", "preference", "ranking", "labelled", "prompt", "steps"])
    template.add_argument("path")
    try:
        chosen = parser.parse_args(list(given))
    except SystemExit as stop:
        return int(stop.code or 0)
    return _dispatch(chosen)


def _dispatch(chosen: argparse.Namespace) -> int:
    from accord.data.columns import parse_columns
    from accord.data.commands import data_check, data_convert, data_template

    if chosen.verb == "template":
        return int(data_template(chosen.kind, chosen.path) or 0)
    columns = parse_columns(chosen.columns) if chosen.columns else None
    if chosen.verb == "convert":
        return int(data_convert(chosen.source, chosen.target, to=chosen.to, columns=columns, skip_bad=chosen.skip_bad) or 0)
    tokenizer, end_ids = _tokenizer(chosen.model) if chosen.model else (None, None)
    return data_check(
        chosen.path,
        against=chosen.against,
        model=tokenizer,
        end_ids=end_ids,
        max_length=chosen.max_length,
        columns=columns,
        json=chosen.json,
    )


def _tokenizer(model: str) -> tuple[Any, list[int]]:
    """The tokenizer of a model or of a run, and the ids that end an answer, as training has them."""
    from accord.models.opened import open_tokenizer

    return open_tokenizer(model)
