"""`accord data check | convert | template | demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from accord.errors import ConfigError

_COLUMNS = "which of your columns is which: prompt=question chosen=best rejected=worst"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"accord data: {message}. accord data --help shows the options.")


def run(given: Sequence[str]) -> int:
    """Parse and dispatch; returns the exit code."""
    parser = _Parser(prog="accord data", description="Check, convert and start data files.")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    summary = "what is in a file, what is wrong with it, and what the model will see"
    check = verbs.add_parser("check", help=summary, description=f"accord data check: {summary}. Nothing is changed.")
    check.add_argument("path", help="your rows: a .jsonl, .json, .csv or .parquet file, a saved dataset's folder, or a hub id ORG/NAME")
    check.add_argument("--against", metavar="PATH", help="other rows, held-out ones say: prompts that stand in both are counted and named")
    check.add_argument(
        "--model",
        help="name or folder of the model to be trained: shows three rows as its tokens, with what is learned, and counts cut rows",
    )
    check.add_argument(
        "--max-length",
        "--max_length",
        type=int,
        metavar="TOKENS",
        help="longest prompt + answer, with --model; 1024 when left out, as in training",
    )
    check.add_argument("--columns", nargs="+", metavar="PART=COLUMN", help=_COLUMNS)
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    summary = "write the same rows in another layout or file type"
    convert = verbs.add_parser("convert", help=summary, description=f"accord data convert: {summary}.")
    convert.add_argument("source", help="the rows to read, as for accord data check")
    convert.add_argument("target", help="the file to write; its ending decides the file type")
    convert.add_argument("--to", metavar="LAYOUT", help="layout to write, alpaca say; left out, accord's own for what the rows are")
    convert.add_argument("--columns", nargs="+", metavar="PART=COLUMN", help=_COLUMNS)
    convert.add_argument("--skip-bad", "--skip_bad", action="store_true", help="leave out rows that cannot be used, and say which")
    convert.add_argument(
        "--each-answer",
        "--each_answer",
        action="store_true",
        help="a row for each answer of a conversation, what was said before it as its prompt",
    )
    summary = "a small example file to start from"
    template = verbs.add_parser("template", help=summary, description=f"accord data template: {summary}.")
    template.add_argument(
        "kind",
        choices=["demonstration", "preference", "ranking", "labelled", "prompt", "steps"],
        help="what its rows hold: see docs/data.md",
    )
    template.add_argument("path", help="the new file; its ending decides the file type")
    summary = "the packaged rows as files, which the learning pages use"
    demo = verbs.add_parser("demo", help=summary, description=f"accord data demo: {summary}. Nothing is overwritten.")
    demo.add_argument("folder", help="where they go; it is made if it is not there")
    try:
        chosen = parser.parse_args(list(given))
    except SystemExit as stop:
        return int(stop.code or 0)
    return _dispatch(chosen)


def _dispatch(chosen: argparse.Namespace) -> int:
    from accord.data.columns import parse_columns
    from accord.data.commands import data_check, data_convert, data_demo, data_template

    if chosen.verb == "template":
        return int(data_template(chosen.kind, chosen.path) or 0)
    if chosen.verb == "demo":
        return data_demo(chosen.folder)
    columns = parse_columns(chosen.columns) if chosen.columns else None
    if chosen.verb == "convert":
        how = {"to": chosen.to, "columns": columns, "skip_bad": chosen.skip_bad, "each": chosen.each_answer}
        return int(data_convert(chosen.source, chosen.target, **how) or 0)
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
