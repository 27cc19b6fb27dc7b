"""Labels that people really gave, out in the layout of every tool and in again: what arrives is what the raw files say, field by field."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.export_labels import ALIASES, export_labels
from accord.annotation.import_labels import import_labels
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.data.files import read_rows
from accord.data.formats import detect, named
from accord.types import Message

Row = dict[str, Any]
HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


@dataclass(frozen=True)
class Said:
    """A label in the words of its raw file."""

    prompt: tuple[tuple[str, str], ...]
    """Role and text of each turn."""
    who: str | None
    """The annotator's name in the file; None: it names nobody."""
    verdict: tuple[tuple[str, int | None], ...]
    """Text of each answer with its rank, 1 the best; of one answer whether it is good (1) or not (0); of each step its label."""

    @property
    def tie(self) -> bool:
        return len(self.verdict) > 1 and len({rank for _, rank in self.verdict}) == 1

    @property
    def one_text(self) -> bool:
        """Whether the prompt is a single message, which is all that many tools hold."""
        return len(self.prompt) == 1


def ranked(ranks: dict[str, int]) -> tuple[tuple[str, int | None], ...]:
    return tuple(sorted(ranks.items()))


# -- what the raw files say, read without accord ----------------------------------------------------------------------------------------


def hh(shared: Path) -> list[Row]:
    with gzip.open(shared / "hh_helpful_test" / "helpful.test.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)[:60]


def hh_said(row: Row) -> Iterator[Said]:
    """Two dialogues, the better one by its score; the last turns of both are the answers."""
    better, worse = (row["text"][place] for place in ((0, 1) if row["score"][0] > row["score"][1] else (1, 0)))
    (*prompt, chosen), (*same, rejected) = dialogue(better), dialogue(worse)
    assert prompt == same
    yield Said(tuple(prompt), None, ranked({chosen[1]: 1, rejected[1]: 2}))


def dialogue(text: str) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for piece in text.split(HUMAN)[1:]:
        question, *answers = piece.split(ASSISTANT)
        turns += [("user", question), *(("assistant", answer) for answer in answers)]
    return turns


def pandalm(shared: Path) -> list[Row]:
    rows = json.loads((shared / "pandalm_test" / "testset-v1.json").read_text("utf-8"))
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if all(isinstance(row[name], str) for name in ("response1", "response2")) and row["response1"] != row["response2"]:
            found.setdefault((row["instruction"], row["input"], *sorted((row["response1"], row["response2"]))), row)
    return list(found.values())[::14]


def pandalm_said(row: Row) -> Iterator[Said]:
    """Three people: 1 and 2 name the better answer, 0 is a tie."""
    prompt = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    for name in ("annotator1", "annotator2", "annotator3"):
        first, second = {0: (1, 1), 1: (1, 2), 2: (2, 1)}[row[name]]
        yield Said((("user", prompt),), name, ranked({row["response1"]: first, row["response2"]: second}))


def oasst(shared: Path) -> list[Row]:
    with (shared / "oasst_en100" / "en_100_tree.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, 30)]


def oasst_said(row: Row) -> Iterator[Said]:
    """Every question with two or more ranked answers, its path the prompt; ranks begin at 0."""

    def walk(node: Row, path: tuple[tuple[str, str], ...]) -> Iterator[Said]:
        path = (*path, ("user" if node["role"] == "prompter" else "assistant", node["text"]))
        answers = {reply["text"]: reply["rank"] + 1 for reply in node["replies"] if reply.get("rank") is not None}
        if node["role"] == "prompter" and len(answers) > 1:
            yield Said(path, None, ranked(answers))
        for reply in node["replies"]:
            yield from walk(reply, path)

    yield from walk(row["prompt"], ())


def truth(shared: Path) -> list[Row]:
    """Answers that people called true or not, as TRL's unpaired rows."""
    lines = (shared / "truthfulqa_judge" / "finetune_truth_dev.jsonl").read_text("utf-8").splitlines()
    found: dict[tuple[str, str], Row] = {}
    for row in map(json.loads, lines):
        question, _, answer = row["prompt"].removeprefix("Q: ").removesuffix("\nTrue:").partition("\nA: ")
        found.setdefault((question, answer), {"prompt": question, "completion": answer, "label": row["completion"] == " yes"})
    return list(found.values())[:80]


def truth_said(row: Row) -> Iterator[Said]:
    yield Said((("user", row["prompt"]),), None, ((row["completion"], int(row["label"])),))


def solutions(shared: Path) -> list[Row]:
    return json.loads((shared / "processbench_gsm8k" / "gsm8k.json").read_text("utf-8"))[::8]


def solutions_said(row: Row) -> Iterator[Said]:
    """Steps before the first wrong one are right, those after it were not judged; -1: all are right."""
    wrong = row["label"]
    labels = [1 if wrong < 0 or place < wrong else -1 if place == wrong else None for place in range(len(row["steps"]))]
    yield Said((("user", row["problem"]),), None, tuple(zip(row["steps"], labels, strict=True)))


@dataclass(frozen=True)
class Source:
    rows: Callable[[Path], list[Row]]
    said: Callable[[Row], Iterator[Said]]
    layout: str


SOURCES = {
    "hh": Source(hh, hh_said, "hh_scored"),
    "pandalm": Source(pandalm, pandalm_said, "pandalm"),
    "oasst": Source(oasst, oasst_said, "oasst_trees"),
    "truth": Source(truth, truth_said, "labelled"),
    "solutions": Source(solutions, solutions_said, "processbench"),
}


# -- what a project says ----------------------------------------------------------------------------------------------------------------


def labels_of(store: Store) -> Counter[Said]:
    names = {person.id: person.name for person in store.annotators()}
    found: Counter[Said] = Counter()
    for one in store.annotations():
        task = store.task(one.task)
        who = None if one.annotator.startswith("import:") else names[one.annotator]
        texts = [completion.text for completion in task.completions]
        if one.kind == "pair":
            choice = one.value["choice"]
            verdict = ranked(dict.fromkeys(texts, 1) if choice == "tie" else {texts[choice]: 1, texts[1 - choice]: 2})
        elif one.kind == "ranking":
            verdict = ranked(dict(zip(texts, one.value["ranks"], strict=True)))
        elif one.kind == "rating":
            verdict = ((texts[0], int(one.value["rating"] > 4)),)
        else:
            steps = [message.content for message in task.completions[0].messages]
            verdict = tuple(zip(steps, one.value["labels"], strict=True))
        found[Said(tuple((m.role, m.content) for m in task.prompt), who, verdict)] += 1
    return found


def brought(folder: Path, path: Path) -> tuple[Project, str]:
    """A new project with the labels of a file, and the layout in which they were found."""
    made = Project.new(folder, gold_rate=0.0, repeat_rate=0.0)
    with made.open_store() as store:
        found = import_labels(store, path)
    assert found.bad == ()
    return made, found.layout


def written(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_in(path: Path) -> Counter[str]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return Counter(json.dumps(row, sort_keys=True) for row in csv.DictReader(file))
    return Counter(json.dumps(dict(row), sort_keys=True, default=str) for row, _ in read_rows(path))


EVERYTHING = ("trl", "hh", "openai_preference")
"""Formats that hold conversations as prompts."""
TIES = ("trl", "csv", "potato", "argilla", "argilla_flat", "ultrafeedback", "ranking")
"""Formats that hold a tie."""
CASES = [
    *((format, "hh") for format in ("trl", "hh", "openai_preference", "potato", "csv", "argilla", "argilla_flat", "label_studio")),
    *(
        (format, "pandalm")
        for format in ("trl", "hh", "openai_preference", "openai_comparisons", "ultrafeedback", "argilla", "argilla_flat", "label_studio", "potato", "csv")
    ),
    *((format, "oasst") for format in ("ranking", "ultrafeedback", "argilla", "argilla_flat", "label_studio_ranker")),
    ("labelled", "truth"),
    ("steps", "solutions"),
]  # fmt: skip


def held(format: str, one: Said) -> bool:
    """Whether a format has a place for a label, by what its tool's documentation says of it."""
    if format in ("labelled", "steps", "ranking"):
        return True
    return (one.one_text or format in EVERYTHING) and (not one.tie or format in TIES)


@pytest.mark.parametrize(("format", "name"), CASES)
def test_real_labels_leave_and_come_back(shared_data: Path, tmp_path: Path, format: str, name: str) -> None:
    source = SOURCES[name]
    raw = source.rows(shared_data)
    expected = Counter(said for row in raw for said in source.said(row))
    assert len(expected) >= 40 and max(expected.values()) == 1
    first, layout = brought(tmp_path / "first", written(tmp_path / "raw.jsonl", raw))
    assert layout == source.layout
    with first.open_store() as store:
        assert labels_of(store) == expected
        path = tmp_path / f"out{'.csv' if format == 'csv' else '.json' if format.startswith('label_studio') else '.jsonl'}"
        report = export_labels(store, path, format, names=True)
    fits = Counter({said: 1 for said in expected if held(format, said)})
    labels = {what: count for what, count in report.not_held.items() if not what.startswith("column")}
    assert report.labels == len(fits) and sum(labels.values()) == len(expected) - len(fits) and report.left_out == {}
    if name == "pandalm" and format not in TIES:
        assert labels == {"tie": sum(said.tie for said in expected)} and labels["tie"] > 0
    second, layout = brought(tmp_path / "second", path)
    assert layout == ALIASES.get(format, format)
    with second.open_store() as store:
        assert unnamed(labels_of(store), name) == fits
        export_labels(store, tmp_path / f"again{path.suffix}", format, names=True)
    assert rows_in(tmp_path / f"again{path.suffix}") == rows_in(path)
    if path.suffix != ".csv":
        assert {detect(dict(row)) for row, _ in read_rows(path)} == {named(ALIASES.get(format, format))}


def unnamed(found: Counter[Said], name: str) -> Counter[Said]:
    """Sources that name nobody leave with the words that say so in the annotator's place."""
    if name == "pandalm":
        return found
    return Counter({Said(said.prompt, None, said.verdict): count for said, count in found.items()})


@pytest.mark.parametrize("name", ["pandalm", "hh"])
def test_real_labels_through_datasets(shared_data: Path, tmp_path: Path, name: str) -> None:
    """TRL's rows as Parquet, opened by `datasets`, saved as a folder, and read from there: nothing changes, whoever wrote it."""
    import datasets

    source = SOURCES[name]
    raw = source.rows(shared_data)
    expected = Counter(said for row in raw for said in source.said(row))
    first, _ = brought(tmp_path / "first", written(tmp_path / "raw.jsonl", raw))
    with first.open_store() as store:
        export_labels(store, tmp_path / "out.parquet", "trl", names=True)
    table = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    assert table.num_rows == len(expected) and {"prompt", "chosen", "rejected", "annotator"} <= set(table.column_names)
    table.save_to_disk(str(tmp_path / "saved"))
    second, layout = brought(tmp_path / "second", tmp_path / "saved")
    assert layout == "preference"
    with second.open_store() as store:
        assert unnamed(labels_of(store), name) == expected


def test_real_answers_leave_as_demonstrations(shared_data: Path, tmp_path: Path) -> None:
    """What people wrote by hand is no judgement, and says so; rewritten in a project it leaves as TRL's prompt and completion, text for text."""
    from labelling import given, submission

    raw = [row for row in truth(shared_data) if row["label"]][:20]
    made = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, kinds=["edit"])
    from accord.annotation.exchange import import_file

    with made.open_store() as store:
        import_file(store, written(tmp_path / "raw.jsonl", [{k: row[k] for k in ("prompt", "completion")} for row in raw]), kinds=["edit"])
        store.add_annotator("Ann", id="ann")
        for _ in raw:
            one = given(store, "ann")
            text = one.task.completions[0].text
            store.submit("ann", one.task.id, one.token, submission(), "edit", {"of": 0, "text": f"{text} (checked)"})
        report = export_labels(store, tmp_path / "out.jsonl", "prompt_completion")
    assert report.labels == len(raw)

    def texts(value: Any) -> str:
        return value if isinstance(value, str) else Message(**value[-1]).content

    rows = [dict(row) for row, _ in read_rows(tmp_path / "out.jsonl")]
    assert Counter((texts(row["prompt"]), texts(row["completion"])) for row in rows) == Counter(
        (row["prompt"], f"{row['completion']} (checked)") for row in raw
    )
