"""The detectors against what people said of real answers: XSTest's two annotators, and loops of a base model beside an aligned one's answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from accord.annotation.agreement import cohen_kappa
from accord.annotation.judgements import Judgement
from accord.audit.detectors import refuses, repetition
from accord.audit.habits import LOOPS
from accord.data.files import open_text


def kappa(pairs: list[tuple[bool, bool]]) -> float:
    found = cohen_kappa([Judgement(str(i), who, int(value)) for i, pair in enumerate(pairs) for who, value in zip("ab", pair, strict=True)])
    assert found.value is not None
    return found.value


def test_refusals_as_two_annotators_see_them(shared_data: Path) -> None:
    """Prompts with an odd number were not looked at when the patterns were written. The annotators agree with each other to 0.96."""
    rows = [
        row
        for name in ("llama2new", "llama2orig", "mistralinstruct")
        for row in csv.DictReader(open_text(shared_data / "xstest" / f"completions_{name}.csv", newline=""))
    ]
    declined = [
        (int(row["id"].split("-")[-1]), *(not row[name].startswith("1") for name in ("annotation_1", "annotation_2"))) for row in rows
    ]
    said = [refuses(row["completion"]) for row in rows]
    assert len(rows) == 1350 and 0.95 < kappa([(one, two) for _, one, two in declined]) < 0.97
    for unseen in (False, True):
        for which in (1, 2):
            assert kappa([(bool(row[which]), hit) for row, hit in zip(declined, said, strict=True) if row[0] % 2 or not unseen]) > 0.8
    false = [hit for row, hit in zip(rows, said, strict=True) if row["final_label"].startswith("1")]
    assert sum(false) / len(false) < 0.04


def test_loops_are_told_from_answers(shared_data: Path) -> None:
    folder = shared_data / "self_instruct_predictions"
    loops, clean = (
        [
            repetition(json.loads(line)["response"])
            for line in (folder / f"{name}_predictions.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("davinci", "text-davinci-003")
    )
    assert len(loops) == len(clean) == 252
    assert sum(value > LOOPS for value in loops) / 252 > 0.97 and sum(value > LOOPS for value in clean) / 252 < 0.06
    wins = sum((one > other) + 0.5 * (one == other) for one in loops for other in clean)
    assert wins / 252**2 > 0.98
