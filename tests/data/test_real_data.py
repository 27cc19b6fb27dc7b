"""Real data by others: every row counted, written back exactly, and the numbers published with them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from accord.data import check as names
from accord.data.check import check
from accord.data.files import read_rows
from accord.data.formats import named
from accord.data.read import read_examples, read_located, read_source
from accord.data.write import rows_of
from accord.errors import DataError

COUNTS = [
    ("hh_helpful_test/helpful.test.json.gz", "hh_scored", 2352, 2352),
    ("hh_harmless_test/harmless-base_test.jsonl.gz", "hh", 2312, 2312),
    ("prmbench_400/multi_solutions.jsonl", "prmbench", 165, 330),
    ("dolly_1k/databricks_dolly_1k.csv", "dolly", 1000, 1000),
    ("llmbar/Natural.json", "llmbar", 100, 100),
    ("llmbar_processed/LLMEval2.json", "llmbar", 200, 200),
    ("processbench_gsm8k/gsm8k.json", "processbench", 400, 400),
    ("bigbench_mistake_arith/multistep_arithmetic.jsonl", "bigbench_mistake", 300, 300),
    ("xstest/xstest_prompts.csv", "prompt", 450, 450),
    ("xstest/completions_mistralinstruct.csv", "prompt_completion", 450, 450),
    ("ifeval/input_data.jsonl", "prompt", 541, 541),
]


@pytest.mark.parametrize(("file", "layout", "rows", "examples"), COUNTS, ids=[item[0] for item in COUNTS])
def test_counts_and_exact_way_back(shared_data: Path, file: str, layout: str, rows: int, examples: int) -> None:
    located = list(read_located(read_source(shared_data / file)))
    assert {found.name for found, _ in located} == {layout}
    assert len(located) == examples
    raw = [row for row, _ in read_rows(shared_data / file)]
    assert len(raw) == rows
    format = named(layout)
    found = [example for _, example in located]
    groups = [[e] for e in found] if format.together is None else [list(g) for _, g in groupby(found, key=format.together)]
    assert [row for group in groups for row in rows_of(group, format)] == raw


def test_openassistant_trees(shared_data: Path) -> None:
    rankings = list(read_examples(shared_data / "oasst_en100" / "en_100_tree.jsonl"))
    assert len(rankings) == 212
    assert len({example.columns["message_tree_id"] for example in rankings}) == 100
    assert sum(len(e.completions) * (len(e.completions) - 1) // 2 for e in rankings) == 754
    assert sum(1 for _ in read_examples(shared_data / "oasst_en100" / "en_100_tree.jsonl", kind="preference")) == 754
    assert all(example.prompt[-1].role == "user" and min(example.ranks or (0,)) == 1 for example in rankings)


def test_pandalm_names_its_six_boolean_answers(shared_data: Path) -> None:
    report = check(shared_data / "pandalm_test" / "testset-v1.json")
    assert (report.rows, report.unusable, report.rows + report.unusable) == (993, 6, 999)
    assert all("JSON boolean" in finding.detail for finding in report.findings if finding.severity == "unusable")
    with pytest.raises(DataError, match=r'^testset-v1\.json row 158: field "response1" must be text and is the JSON boolean true\.$'):
        list(read_examples(shared_data / "pandalm_test" / "testset-v1.json"))


def test_pandalm_annotators_become_a_probability(shared_data: Path) -> None:
    path = shared_data / "pandalm_test" / "testset-v1.json"
    raw = [row for row, _ in read_rows(path)][:157]
    for row, example in zip(raw, read_examples(path, limit=157), strict=True):
        votes = [row[f"annotator{number}"] for number in (1, 2, 3)]
        for_first = (votes.count(1) + votes.count(0) / 2) / 3
        shown = [row["response1"], row["response2"]]
        assert [c.text for c in example.completions] == (shown if for_first >= 0.5 else shown[::-1])
        assert (1.0 if example.probability is None else example.probability) == pytest.approx(max(for_first, 1 - for_first))


def test_prmbench_rows_whose_error_steps_do_not_exist(shared_data: Path) -> None:
    report = check(shared_data / "prmbench_400" / "target_data.jsonl")
    assert (report.rows, report.unusable) == (766, 11)
    assert report.rows // 2 + report.unusable == 394
    assert all("error_steps" in finding.detail for finding in report.findings if finding.severity == "unusable")


def test_votes_without_texts_say_so(shared_data: Path) -> None:
    with pytest.raises(DataError, match="has votes on models but no texts"):
        list(read_examples(shared_data / "mt_bench_votes" / "human.jsonl"))
    assert check(shared_data / "mt_bench_votes" / "human.jsonl").unusable == 3355


def test_question_and_answer_table_prints_its_mapping(shared_data: Path) -> None:
    path = shared_data / "gsm8k" / "train.jsonl.gz"
    with pytest.raises(DataError, match=r"--columns prompt=question completion=answer$"):
        next(read_examples(path))
    assert sum(1 for _ in read_examples(path, columns={"prompt": "question", "completion": "answer"})) == 7473


def test_length_gap_of_helpful_and_harmless(shared_data: Path) -> None:
    helpful = check(shared_data / "hh_helpful_test" / "helpful.test.json.gz")
    harmless = check(
        shared_data / "hh_harmless_test" / "harmless-base_test.jsonl.gz", against=shared_data / "hh_helpful_test" / "helpful.test.json.gz"
    )
    assert helpful.lengths["longer_share"] == pytest.approx(0.596, abs=0.003)
    assert harmless.lengths["longer_share"] == pytest.approx(0.442, abs=0.003)
    assert harmless.counts()[names.EARLY] == 5
    assert helpful.counts()[names.EARLY] == 9
    assert (helpful.unusable, harmless.unusable) == (0, 0)
