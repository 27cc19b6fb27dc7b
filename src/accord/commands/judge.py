"""`accord judge`: label comparisons with a judge. `accord judge check`: measure a judge before it is used."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.ai_feedback.asking import OUT_OF_BUDGET
from accord.ai_feedback.calibration import Calibration
from accord.ai_feedback.check import NOISE, Measured, labelled, measure, readable, table
from accord.ai_feedback.judges import Judge
from accord.ai_feedback.labels import Labels, judge_rows, summary, win_rates
from accord.ai_feedback.opening import open_judge
from accord.ai_feedback.store import AnswerStore
from accord.config.judge import CheckOptions, JudgeOptions
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError
from accord.recipes.pairs import pairs_of
from accord.training.setup import examples, say
from accord.types import Example
from accord.writing import write_text

SCHEMA = 1
_MORE = "Run the same command with a larger --max_tokens or --max_cost to go on."


def run(options: JudgeOptions) -> int:
    """Label comparisons; returns 4 where a budget left some out, to be gone on with."""
    target = Path(options.to or f"{Path(options.data.split(',')[0]).name.split('.')[0]}-judged.jsonl")
    store_path = Path(options.answers or target.with_name(f"{target.name.split('.')[0]}.answers.sqlite"))
    if target.exists() and not store_path.exists():
        raise ConfigError(f"{target} is there already and was not written with {store_path}. Name another file: --to judged.jsonl")
    rows = _pairs(options.data, options.columns)[: options.limit]
    people = _pairs(options.human, options.columns) if options.human else []
    with AnswerStore(store_path) as store:
        judge = open_judge(options, store)
        checked = _checked(options, judge)
        _tell_what_is_there(store, store_path)
        labels = judge_rows(rows, judge, calibration=checked.calibration, more={"checked": checked.words}, tell=say)
        again = judge_rows(people, judge, calibration=checked.calibration, tell=say) if people else Labels()
    _write(labels, target)
    both = [(row, said) for row, said in _matched(people, again)]
    for name, value in [*summary(labels), *win_rates(labels.rows, both, seed=options.seed)]:
        print(f"{name:<34} {value}")
    return _end(labels, target)


def check(options: CheckOptions) -> int:
    """Measure a judge on comparisons that people judged, print the table and write it as JSON."""
    target = Path(options.to or "judge-check.json")
    found: list[Measured] = []
    with AnswerStore(options.answers or target.with_name(f"{target.name.split('.')[0]}.answers.sqlite")) as store:
        judge = open_judge(options, store)
        for source in options.data or ():
            rows = _drawn(_judged_by_people(source, options.columns), options.limit, options.seed)
            found.append(measure(judge, labelled(rows), Path(source).name, seed=options.seed, tell=say))
    record = {"schema": SCHEMA, "judge": judge.about(), "data": [one.to_dict() for one in found]}
    write_text(target, json.dumps(record, indent=1) + "\n")
    print(table(found))
    for one in found:
        print(_sentence(one))
    if left := sum(one.invalid.get(OUT_OF_BUDGET, 0) for one in found):
        say(f"The budget is spent: {left} comparisons were not judged, so this says little. {_MORE}")
        return 4
    say(f"Written to {target}. Use it: accord judge pairs.jsonl --judge {options.judge} --checked {target}")
    return 0


class _Checked:
    """What is known of a judge from `accord judge check`."""

    def __init__(self, words: str, calibration: Calibration = Calibration()) -> None:
        self.words, self.calibration = words, calibration


def _checked(options: JudgeOptions, judge: Judge) -> _Checked:
    """The check of this judge; its last data set is the one that counts, so a slice of your own should stand last.

    Raises:
        ConfigError: if it is about another judge, or says noise and the user did not say that noise is fine.
        DataError: if the file is none.
    """
    if options.checked is None:
        say(
            f"{judge.name} has not been checked on labels of people: accord judge check labelled.jsonl --judge {options.judge}, then --checked judge-check.json."
        )
        return _Checked("no")
    try:
        record: dict[str, Any] = json.loads(Path(options.checked).read_text(encoding="utf-8"))
        about, last = record["judge"], record["data"][-1]
        word, data = str(last["word"]), str(last["data"])
        calibration = Calibration.from_dict(last["calibration"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"--checked {options.checked} was not written by accord judge check ({error!r}).") from error
    if about != judge.about():
        other = ", ".join(f"{name} {about.get(name)!r}" for name, value in judge.about().items() if about.get(name) != value)
        raise ConfigError(f"--checked {options.checked} is about another judge ({other}). Check this one.")
    if word == NOISE and not options.use_noise:
        raise ConfigError(
            f"{judge.name} is noise on {data} (--checked {options.checked}). Use another judge, or --use_noise if you know why."
        )
    return _Checked(f"{word} on {data}", calibration)


def _pairs(source: str, columns: dict[str, str] | None) -> list[Example]:
    found = examples(source, kinds=("preference", "ranking"), what=source, columns=columns)
    return pairs_of(found, say, source)


def _judged_by_people(source: str, columns: dict[str, str] | None) -> list[Example]:
    """The comparisons of a file; rows that cannot be read are left out, and said."""
    found, errors = readable(source, columns)
    if errors:
        say(f"{source}: {len(errors)} rows cannot be read and are left out. The first: {errors[0]}")
    return pairs_of(examples(found, kinds=("preference", "ranking"), what=source), say, source)


def _drawn(rows: list[Example], limit: int, seed: int) -> list[Example]:
    """So many rows drawn at random, in their order."""
    if not limit or len(rows) <= limit:
        return rows
    kept = set(random.Random(seed).sample(range(len(rows)), limit))
    return [row for index, row in enumerate(rows) if index in kept]


def _tell_what_is_there(store: AnswerStore, path: Path) -> None:
    answered, waiting = store.counts()
    if answered or waiting:
        say(f"{path} has {answered} answers, which are not asked again; {waiting} questions were left without one.")


def _matched(people: Sequence[Example], again: Labels) -> list[tuple[Example, Example]]:
    """Rows that people judged with the same as the judge labels them; those without a valid verdict are left out."""
    valid = [row for row, verdict in zip(people, again.verdicts, strict=True) if verdict.probability is not None]
    return list(zip(valid, again.rows, strict=True))


def _write(labels: Labels, target: Path) -> None:
    """The rows, and beside them what was invalid.

    Raises:
        DataError: if there is no row at all, with the most frequent reason.
    """
    beside = target.with_name(f"{target.name.split('.')[0]}.invalid.jsonl")
    if labels.invalid:
        write_text(beside, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in labels.invalid))
        say(f"{len(labels.invalid)} comparisons without a valid verdict are in {beside}.")
    else:
        beside.unlink(missing_ok=True)
    if not labels.rows:
        why = labels.invalid[0]["why"] if labels.invalid else "there are no comparisons"
        raise DataError(f"No comparison has a valid verdict ({why}), so {target} is not written. Look at {beside}.")
    write_examples(labels.rows, target, "preference")


def _end(labels: Labels, target: Path) -> int:
    if labels.unasked:
        say(f"The budget is spent: {labels.unasked} comparisons are not judged. {_MORE}")
        return 4
    say(f"{len(labels.rows)} rows are in {target}. Next: accord reward --data {target}, or accord dpo --data {target} (soft labels count).")
    return 0


def _sentence(one: Measured) -> str:
    """What the measurement means, in words."""
    if one.doubts:
        return f"{one.data}: noise: {', '.join(one.doubts)}. Try a checklist (--prompt rubric), a reward model, a rule, or a larger judge."
    assert one.accuracy is not None
    return (
        f"{one.data}: usable: right in {100 * one.accuracy.mean:.0f} % ({100 * one.accuracy.low:.0f} to {100 * one.accuracy.high:.0f} %)."
    )
