"""Sources, column mappings, kinds and mixtures."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.columns import columns_line, guess_columns, parse_columns
from accord.data.files import read_rows
from accord.data.kinds import as_kind, can_become
from accord.data.mixture import BLOCK, Mixture, Part, parse_data, permutation
from accord.data.read import read_examples
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError
from accord.types import Example

ROWS: list[dict[str, Any]] = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(5)]


def chosen(examples: Any) -> list[str]:
    return [example.completions[0].text for example in examples]


def test_every_source_gives_the_same_examples(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(str(tmp_path / "saved"))
    both = datasets.DatasetDict({"train": dataset, "test": dataset.select([0])})
    both.save_to_disk(str(tmp_path / "splits"))
    sources: list[Any] = [ROWS, iter(ROWS), dataset, dataset.to_iterable_dataset(), both, tmp_path / "saved", tmp_path / "splits"]
    for ending in (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz"):
        write_examples(read_examples(ROWS), tmp_path / f"data{ending}")
        sources.append(tmp_path / f"data{ending}")
    for source in sources:
        examples = list(read_examples(source))
        assert chosen(examples) == [f"good {i}" for i in range(5)], source
        assert all(example.plain and example.kind == "preference" for example in examples)
    assert len(list(read_examples(both, split="test"))) == 1
    assert len(list(read_examples(tmp_path / "splits", split="test"))) == 1
    assert len(list(read_examples(ROWS, limit=2))) == 2


def test_a_split_is_named_after_an_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `HuggingFaceH4/ultrafeedback_binarized@train_prefs`, which has no split called train."""
    from accord.cli import main
    from accord.training.setup import read_rows

    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    folder = tmp_path / "prefs"
    datasets.DatasetDict({"train_prefs": dataset, "test_prefs": dataset.select([1])}).save_to_disk(str(folder))
    assert chosen(list(read_examples(f"{folder}@train_prefs"))) == [f"good {i}" for i in range(5)]
    assert chosen(read_rows(f"{folder}@test_prefs", None, 0)) == ["good 1"]
    assert len(read_rows(f"{folder}@train_prefs:0.5,{folder}@test_prefs:0.5", None, 0)) == 6
    assert main(["data", "check", f"{folder}@test_prefs"]) == 0
    assert "prefs@test_prefs: 1 examples" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"has the splits train_prefs, test_prefs; name one of them: .*prefs@train_prefs\."):
        list(read_examples(str(folder)))
    with pytest.raises(DataError, match=r'no split "dev"'):
        list(read_examples(f"{folder}@dev"))
    with pytest.raises(ConfigError, match="names one split"):
        list(read_examples(f"{folder}@train_prefs", split="test_prefs"))
    with pytest.raises(DataError, match="me@home.jsonl does not exist"):
        list(read_examples("me@home.jsonl"))
    odd = tmp_path / "me@home.jsonl"
    odd.write_text('{"text": "x"}\n', "utf-8")
    assert len(list(read_examples(odd))) == 1


def test_places_count_from_one_and_name_the_line_where_a_row_begins(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "x"}\n\n{"text": "y"}\n', "utf-8")
    (tmp_path / "a.csv").write_text('prompt,completion\n"two\nlines",x\nb,y\n', "utf-8")
    (tmp_path / "a.json").write_text('[{"text": "x"},\n {"text": "y"}]', "utf-8")
    assert [e.where for e in read_examples(tmp_path / "a.jsonl")] == ["a.jsonl line 2", "a.jsonl line 4"]
    assert [e.where for e in read_examples(tmp_path / "a.csv")] == ["a.csv line 2", "a.csv line 4"]
    assert [e.where for e in read_examples(tmp_path / "a.json")] == ["a.json row 1", "a.json row 2"]
    assert [e.where for e in read_examples([{"text": "x"}])] == ["row 1"]


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x"}) + "\n" + "broken\n", "utf-8")
    assert next(read_examples(path)).completions[0].text == "x"
    big = [{"text": "x" * 1000, "n": n} for n in range(3000)]
    (tmp_path / "b.json").write_text(json.dumps(big, indent=1), "utf-8")
    assert [row["n"] for row, _ in read_rows(tmp_path / "b.json")] == list(range(3000))


def test_several_zstd_frames_are_one_file(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    frames = [zstandard.compress(json.dumps({"text": text}).encode() + b"\n") for text in ("x", "y")]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert chosen(read_examples(tmp_path / "a.jsonl.zst")) == ["x", "y"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.text()), min_size=1, max_size=5))
def test_any_text_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in texts]
    before = list(read_examples(rows))
    for ending in (".jsonl", ".json", ".csv", ".parquet"):
        write_examples(before, folder / f"a{ending}", format="preference")
        after = list(read_examples(folder / f"a{ending}"))
        assert [e.id for e in after] == [e.id for e in before]


@pytest.mark.parametrize(
    ("row", "pairs", "answers"),
    [
        ({"question": "q", "best": "y", "worst": "z"}, ["prompt=question", "chosen=best", "rejected=worst"], ["y", "z"]),
        ({"question": "q", "r1": "y", "r2": "z", "label": 2}, ["prompt=question", "a=r1", "b=r2", "winner=label"], ["z", "y"]),
        ({"question": "q", "output_1": "y", "output_2": "z", "who": "Left"}, ["winner=who"], ["y", "z"]),
        ({"question": "q", "left": "y", "right": "z", "winner": "right"}, [], ["z", "y"]),
        ({"instruction": "q", "response_a": "y", "response_b": "z", "Winner": "model_b"}, [], ["z", "y"]),
        ({"prompt": "q", "response_1": "y", "response_2": "z", "winner": "response_2"}, [], ["z", "y"]),
        ({"prompt": "q", "answer_a": "y", "answer_b": "z", "winner": "TIE"}, [], ["y", "z"]),
        ({"q": "q", "prompt": "old", "ans": "y"}, ["prompt=q", "completion=ans"], ["y"]),
    ],
)
def test_any_table_through_columns(row: dict[str, Any], pairs: list[str], answers: list[str]) -> None:
    (example,) = read_examples([row], columns=parse_columns(pairs))
    assert example.prompt[0].content == "q"
    assert [c.text for c in example.completions] == answers
    assert example.probability == (0.5 if row.get("winner") == "TIE" else None)
    if "prompt" in row and row["prompt"] == "old":
        assert example.columns == {"original_prompt": "old"}


def test_wrong_mapping_prints_columns_and_the_line_to_paste() -> None:
    row = {"question": "q", "best": "y", "worst": "z"}
    with pytest.raises(DataError) as caught:
        list(read_examples([row], columns=parse_columns(["prompt=qestion", "chosen=best", "rejected=worst"])))
    expected = 'row 1 has no column "qestion" (asked for as prompt). The columns are: "question", "best", "worst". '
    assert str(caught.value) == expected + "Try: --columns prompt=question chosen=best rejected=worst"


@pytest.mark.parametrize(
    ("row", "kind", "line"),
    [
        ({"question": "", "answer": ""}, None, "--columns prompt=question completion=answer"),
        ({"Prompt": "", "Chosen": "", "Rejected": ""}, "preference", "--columns prompt=Prompt chosen=Chosen rejected=Rejected"),
        ({"promt": "", "choosen": "", "rejectd": ""}, "preference", "--columns prompt=promt chosen=choosen rejected=rejectd"),
        ({"User Input": "", "reply": ""}, "demonstration", '--columns "prompt=User Input" completion=reply'),
        ({"body": ""}, "text", "--columns text=body"),
        ({"x": ""}, None, None),
    ],
)
def test_the_nearest_guess(row: dict[str, Any], kind: str | None, line: str | None) -> None:
    guess = guess_columns(row, kind)
    assert (columns_line(guess) if guess else None) == line


def test_the_guess_works_when_pasted() -> None:
    row = {"question": "q", "best": "y", "worst": "z"}
    with pytest.raises(DataError) as caught:
        list(read_examples([row], kind="preference"))
    pasted = str(caught.value).split("--columns ")[1].split()
    assert chosen(read_examples([row], columns=parse_columns(pasted), kind="preference")) == ["y"]


def ranking() -> Example:
    (example,) = read_examples([{"prompt": "q", "completions": ["mid", "top", "mid too", "low"], "ranks": [2, 1, 2, 3], "id": 4}])
    return example


def test_kinds_follow_from_each_other() -> None:
    pairs = [(e.completions[0].text, e.completions[1].text, e.probability) for e in as_kind(ranking(), "preference")]
    assert pairs == [
        ("top", "mid", None), ("top", "mid too", None), ("top", "low", None),
        ("mid", "mid too", 0.5), ("mid", "low", None), ("mid too", "low", None),
    ]  # fmt: skip
    assert chosen(as_kind(ranking(), "demonstration")) == ["top"]
    (prompt,) = as_kind(ranking(), "prompt")
    assert (prompt.completions, prompt.columns, prompt.prompt_id) == ((), {"id": 4}, ranking().prompt_id)
    labels = list(read_examples(ROWS[:1], kind="labelled"))
    assert [(e.completions[0].text, e.label) for e in labels] == [("good 0", True), ("bad 0", False)]
    (tie,) = read_examples([{**ROWS[0], "probability": 0.5}], kind="ranking")
    assert tie.ranks == (1, 1)
    assert can_become("preference", "demonstration")
    assert not can_become("prompt", "demonstration")


def test_mixture_keeps_its_proportions_in_every_block() -> None:
    mixture = Mixture([list(range(1000)), list(range(37))], [0.7, 0.3], seed=3)
    for block in range(5):
        found = Counter(mixture.locate(block * BLOCK + i)[0] for i in range(BLOCK))
        assert abs(found[0] - 70) <= 1


def test_mixture_needs_only_the_position_to_go_on() -> None:
    def make() -> Mixture[str]:
        return Mixture([[f"a{i}" for i in range(11)], [f"b{i}" for i in range(5)]], [2, 1], seed=5)

    straight = [make().at(i) for i in range(300)]
    resumed = make().iterate(137)
    assert [next(resumed) for _ in range(163)] == straight[137:]
    assert [Mixture([["a"], ["b"]], seed=s).at(0) for s in range(20)] != ["a"] * 20


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 9))
def test_mixture_shows_every_row_once_before_any_twice(sizes: list[int], seed: int) -> None:
    mixture = Mixture([[(s, row) for row in range(size)] for s, size in enumerate(sizes)], [1.0 + s for s in range(len(sizes))], seed=seed)
    seen = Counter(mixture.at(i) for i in range(250))
    for source, size in enumerate(sizes):
        counts = [seen[source, row] for row in range(size)]
        assert max(counts) - min(counts) <= 1


def test_without_weights_an_epoch_is_every_row_once() -> None:
    mixture = Mixture([list(range(60)), list(range(60, 100))])
    assert len(mixture) == BLOCK
    assert sorted(mixture.at(i) for i in range(100)) == list(range(100))


def test_permutation_is_the_same_everywhere() -> None:
    assert permutation(6, 0, "epoch", 0, 0) == permutation(6, 0, "epoch", 0, 0)
    assert sorted(permutation(50, 1)) == list(range(50))
    assert permutation(50, 1) != permutation(50, 2)


def test_data_argument() -> None:
    assert parse_data("a.jsonl:0.7, b.jsonl:0.3") == [Part("a.jsonl", 0.7), Part("b.jsonl", 0.3)]
    assert parse_data("a.jsonl,ORG/NAME") == [Part("a.jsonl"), Part("ORG/NAME")]
    assert parse_data(r"C:\data\a.jsonl") == [Part(r"C:\data\a.jsonl")]


def test_jsonl_and_csv_need_nothing_but_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n'))
    (tmp_path / "a.csv").write_text("prompt,completion\nx,y\n", "utf-8")
    code = (
        "import sys; from accord.data.read import read_examples; from accord.data.commands import data_check\n"
        f"print(len(list(read_examples(r'{tmp_path / 'a.jsonl.gz'}'))), len(list(read_examples(r'{tmp_path / 'a.csv'}'))))\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 1", "[]"]
