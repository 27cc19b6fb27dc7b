"""`accord debate`: questions about evidence that the judge cannot read, argued by debaters who can, under several protocols side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accord.ai_feedback.asking import OUT_OF_BUDGET, LanguageModel
from accord.ai_feedback.debate.debater_prompts import load_debater_prompt
from accord.ai_feedback.debate.debaters import RULE, Assignment, Debater, ModelDebater, messages_for, rule_debater
from accord.ai_feedback.debate.judging import Overseer, model_overseer, rule_overseer
from accord.ai_feedback.debate.made_tasks import made_tasks
from accord.ai_feedback.debate.measures import accuracy_table, as_json, measured, points_text, quote_table, ratings, trust_table
from accord.ai_feedback.debate.page import debate_page
from accord.ai_feedback.debate.protocols import PROTOCOLS, Protocol, protocols_of
from accord.ai_feedback.debate.records import rows_of, transcript
from accord.ai_feedback.debate.running import Case, Decision, Rules, cases_of, decide, questions_of
from accord.ai_feedback.debate.tasks import HiddenTask, read_tasks
from accord.ai_feedback.opening import language_model
from accord.ai_feedback.store import AnswerStore
from accord.config.debate import DebateOptions
from accord.data.write import write_examples
from accord.errors import ConfigError
from accord.reporting.report import write
from accord.training.setup import say
from accord.writing import write_text

SCHEMA = 1
TOGETHER = 64
"""Cases that are played side by side."""


def run(options: DebateOptions) -> int:
    """Run the protocols; returns 4 where a budget left something out, to be gone on with."""
    protocols, names = _protocols(options), list(dict.fromkeys(options.debaters or []))
    tasks, rules = _tasks(options), Rules(options.rounds, options.words, options.excerpt, options.seed)
    cases = [case for task in tasks for protocol in protocols for case in cases_of(task, protocol, names)]
    if options.dry_run:
        print(_described(options, protocols, cases, rules))
        return 0
    folder = Path(options.to or Path("runs") / "debate")
    with AnswerStore(options.answers or folder / "answers.sqlite") as store:
        debaters, judge = opened(options, names, store)
        decisions = _decided(cases, debaters, judge, rules)
    about = {**judge.about(), "rules": asdict(rules), "asked_debaters": {name: one.about() for name, one in debaters.items()}}
    return _end(decisions, _write(decisions, rules, about, folder, options.seed), folder)


def opened(options: DebateOptions, names: Sequence[str], store: AnswerStore) -> tuple[dict[str, Debater], Overseer]:
    """Debaters by what the user calls them, and the judge; a model that is both is loaded once.

    Raises:
        ConfigError, MachineError: if one of them is not there.
    """
    models: dict[str, LanguageModel] = {}

    def model(named: str) -> LanguageModel:
        if named not in models:
            models[named] = language_model(named, options)
        return models[named]

    prompt = load_debater_prompt(options.debater_prompt)
    debaters: dict[str, Debater] = {
        name: rule_debater(name) if name.startswith(RULE) else ModelDebater(model(name), prompt, store, options.temperature, options.seed)
        for name in names
    }
    if not options.judge.startswith(RULE):
        return debaters, model_overseer(model(options.judge), options.judge_prompt, store, seed=options.seed)
    if options.judge_prompt is not None:
        raise ConfigError(f"{options.judge} is asked no question: --judge_prompt belongs to language models.")
    return debaters, rule_overseer(options.judge)


def _protocols(options: DebateOptions) -> list[Protocol]:
    found = protocols_of(options.protocols or list(PROTOCOLS))
    if options.debaters:
        return found
    if options.protocols and (spoken := [one.name for one in found if one.speakers != "none"]):
        raise ConfigError(f"--protocols {spoken[0]} needs debaters: --debaters rule:quote, a model, or a server's address.")
    return [one for one in found if one.speakers == "none"]


def _tasks(options: DebateOptions) -> list[HiddenTask]:
    if options.data is None:
        return made_tasks(options.count, seed=options.seed, facts=options.facts, decoy=options.decoy)
    found = read_tasks(Path(options.data))
    return found[: options.count or None]


def _described(options: DebateOptions, protocols: Sequence[Protocol], cases: Sequence[Case], rules: Rules) -> str:
    """What would be asked, by protocol, and the first question to a debater."""
    lines = [f"{len({case.task.id for case in cases})} tasks; both orders of the answers are counted."]
    for protocol in protocols:
        turns, verdicts = questions_of([case for case in cases if case.protocol == protocol], rules)
        lines.append(f"{protocol.name:<20} {turns:>6} turns, {verdicts:>6} verdicts: {protocol.words}")
    speaking = next((case for case in cases if case.debaters[0] is not None), None)
    if speaking is not None:
        prompt = load_debater_prompt(options.debater_prompt)
        alone = speaking.debaters[1] is None
        first = Assignment(speaking.task, speaking.task.answers, 0, 1, rules.rounds, rules.words, (), alone)
        said = "\n".join(f"[{message.role}] {message.content}" for message in messages_for(prompt, first))
        lines += ["", f"The first question to a debater that is a language model ({prompt.name}):", said]
    return "\n".join(lines)


def _decided(cases: Sequence[Case], debaters: Mapping[str, Debater], judge: Overseer, rules: Rules) -> list[Decision]:
    found: list[Decision] = []
    for start in range(0, len(cases), TOGETHER):
        found += decide(cases[start : start + TOGETHER], debaters, judge, rules)
        say(f"{len(found)} of {len(cases)} decisions, {sum(one.verdict.probability is None for one in found)} without a valid verdict.")
    return found


def _write(decisions: Sequence[Decision], rules: Rules, about: dict[str, Any], folder: Path, seed: int) -> list[Path]:
    """Transcripts, a file of preference rows a protocol, measurements and page; returns the files of rows."""
    lines = [json.dumps(transcript(one, rules), ensure_ascii=False) for one in decisions]
    write_text(folder / "transcripts.jsonl", "".join(line + "\n" for line in lines))
    files: list[Path] = []
    for name in PROTOCOLS:
        path = folder / f"verdicts-{name}.jsonl"
        rows = rows_of([one for one in decisions if one.case.protocol.name == name], about)
        if rows:
            write_examples(rows, path, "preference")
            files.append(path)
        else:
            path.unlink(missing_ok=True)  # of an earlier run with other protocols
    found, rated = measured(decisions, seed=seed), ratings(decisions, seed=seed)
    write_text(folder / "debate.json", json.dumps({"schema": SCHEMA, "about": about, **as_json(found, rated)}, indent=1) + "\n")
    write(debate_page(decisions, found, rated, about, folder), folder / "debate.html")
    print("\n\n".join(aligned(header, rows) for header, rows in (accuracy_table(found), trust_table(found), quote_table(found)) if rows))
    for player, points in rated.points.items():
        print(f"{player}: {points_text(points)} points")
    return files


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _end(decisions: Sequence[Decision], files: Sequence[Path], folder: Path) -> int:
    turns = [turn for one in decisions for turn in one.turns if turn.error is None and not turn.debater.startswith(RULE)]
    silent = sum(turn.silent for turn in turns)
    if turns and silent > 0.2 * len(turns):
        say(f"{silent} of {len(turns)} turns have no argument. Small models keep no form: try --debater_prompt debater_short.")
    say(f"Transcripts, measurements and page are in {folder} (debate.html).")
    if left := sum(OUT_OF_BUDGET in (one.verdict.invalid or "") for one in decisions):
        say(f"The budget is spent: {left} decisions are missing. Run the same command with a larger --max_tokens or --max_cost to go on.")
        return 4
    if files:
        say(f"Train on what was decided: accord reward --data {files[0]}")
    return 0
