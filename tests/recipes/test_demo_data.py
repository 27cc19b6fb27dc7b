"""The packaged data are what the datasheet says: its numbers are counted again here, from the rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from accord.audit.detectors import word_count
from accord.recipes import demo_rows
from accord.recipes.straight_answers import MAX_WORDS, SLICES, passes

FOLDER = resources.files("accord.demo_data")
SHEET = (FOLDER / "DATASHEET.md").read_text(encoding="utf-8")
SECOND_MODEL = "b3f4b9e02dcee039"
"""Adapter hash of the second SFT model."""


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def stated(pattern: str) -> list[int]:
    """Numbers of the datasheet, line breaks read as blanks."""
    found = re.search(pattern, " ".join(SHEET.split()))
    assert found is not None, f"the datasheet no longer says {pattern!r}"
    return [int(number) for number in found.groups()]


def percent(flags: list[bool]) -> int:
    return round(100 * sum(flags) / len(flags))


PAIRS, DEMONSTRATIONS, RANKINGS, HELDOUT, SECOND = (
    rows(name) for name in ("pairs", "demonstrations", "rankings", "heldout", "second_labels")
)


def test_counts() -> None:
    counts = [len(DEMONSTRATIONS), len(PAIRS), len(RANKINGS), len(HELDOUT)]
    assert counts == stated(r"(\d+) demonstrations, (\d+) pairs, (\d+) rankings of four with ties, (\d+) held-out prompts")
    assert counts[:3] == [240, 560, 80]
    for part in (DEMONSTRATIONS, PAIRS, RANKINGS, HELDOUT):
        assert set(Counter(row["slice"] for row in part).values()) == {len(part) // 4} and {row["slice"] for row in part} == set(SLICES)
    assert len(HELDOUT) // 4 >= 60 and len({row["prompt"] for row in HELDOUT}) == len(HELDOUT)
    for row in RANKINGS:
        assert len(row["completions"]) == len(row["ranks"]) == 4 and 1 < len(set(row["ranks"])) < 4 and min(row["ranks"]) == 1


def test_halves_and_held_out_prompts_share_nothing() -> None:
    halves = {half: [row["prompt"] for row in PAIRS if row["half"] == half] for half in ("train", "heldout")}
    assert [len(halves["train"]), len(halves["heldout"])] == stated(r"`train` \((\d+)\) and `heldout` \((\d+)\)")
    assert [len(demo_rows.pairs(half)) for half in ("train", "heldout")] == [len(halves["train"]), len(halves["heldout"])]
    learned = {row["prompt"] for row in (*DEMONSTRATIONS, *RANKINGS)}
    assert set(halves["train"]).isdisjoint(halves["heldout"]) and learned.isdisjoint(halves["heldout"])
    assert {row["prompt"] for row in HELDOUT}.isdisjoint(learned | {row["prompt"] for row in PAIRS})


def test_authorship_is_no_clue() -> None:
    """Half of the rejected and a quarter of the chosen answers are samples that say where they come from."""
    sides = {side: [row[f"{side}_source"] for row in PAIRS] for side in ("chosen", "rejected")}
    sampled = {side: [source["kind"] == "sample" for source in sources] for side, sources in sides.items()}
    assert [percent(sampled["rejected"])] == stated(r"rejected answers \((\d+) %\)") and percent(sampled["rejected"]) >= 50
    assert [percent(sampled["chosen"])] == stated(r"chosen ones \((\d+) %\)") and percent(sampled["chosen"]) >= 25
    sources = [*sides["chosen"], *sides["rejected"], *(source for row in RANKINGS for source in row["sources"])]
    for source in sources:
        assert source["kind"] in ("human", "sample")
        if source["kind"] == "sample":
            assert source["model"] and re.fullmatch(r"[0-9a-f]{16}", source["sha256"]) and isinstance(source["seed"], int)
            assert source["sample_index"] >= 0 and 0 < source["temperature"] <= 1


def test_the_second_model_s_answers() -> None:
    chosen, rejected = (
        Counter(row["slice"] for row in PAIRS if row[f"{side}_source"].get("adapter") == SECOND_MODEL) for side in ("chosen", "rejected")
    )
    assert [rejected.total()] == stated(r"(\d+) of the rejected answers are the second SFT model's own")
    assert [chosen.total(), chosen["harmful"], chosen["safe"]] == stated(r"(\d+) chosen answers \((\d+) harmful, (\d+) safe\)")


def test_length_decides_little() -> None:
    longer, shorter = (percent([sign * (len(row["chosen"]) - len(row["rejected"])) > 0 for row in PAIRS]) for sign in (1, -1))
    assert [longer, shorter] == stated(r"more characters wins (\d+) % of the pairs, the one with fewer (\d+) %")


def test_agreement() -> None:
    same = sum(row["first"] == row["second"] for row in SECOND)
    halves = Counter(PAIRS[row["pair"] - 1]["half"] for row in SECOND)
    assert [len(SECOND), halves["train"], halves["heldout"]] == stated(
        r"(\d+) pairs, drawn at random from both halves \((\d+) of `train`, (\d+) of `heldout`\)"
    )
    assert [same, len(SECOND)] == stated(r"(\d+) of (\d+) agree")
    assert demo_rows.agreement() == {"pairs": len(SECOND), "same": same}
    assert len({row["pair"] for row in SECOND}) == len(SECOND)


def test_answers_are_short_in_words() -> None:
    written = [row["completion"] for row in DEMONSTRATIONS]
    written += [row[side] for row in PAIRS for side in ("chosen", "rejected") if row[f"{side}_source"]["kind"] == "human"]
    assert max(map(word_count, written)) <= 30
    assert max(word_count(row["chosen"]) for row in PAIRS) <= MAX_WORDS
    assert all(row["chosen_finished"] for row in PAIRS)


def test_answers_are_under_40_tokens(users_cache: Path) -> None:
    found = sorted((users_cache / "models").glob("smollm2-135m-*/tokenizer.json"))
    if not found:
        pytest.skip("the starter model's tokenizer is not in the cache")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(found[0].parent)
    texts = [(row["completion"], True) for row in DEMONSTRATIONS]
    texts += [(row[side], side == "chosen" or row[f"{side}_source"]["kind"] == "human") for row in PAIRS for side in ("chosen", "rejected")]
    texts += [(t, s["kind"] == "human") for row in RANKINGS for t, s in zip(row["completions"], row["sources"], strict=True)]
    lengths = [(len(tokenizer(text, add_special_tokens=False)["input_ids"]), ours) for text, ours in texts]
    assert max(length for length, ours in lengths if ours) < 40
    assert max(length for length, _ in lengths) <= 40  # where sampling stopped


def test_most_demonstrations_pass_their_own_checks() -> None:
    """Guideline, data and checks say nearly the same. The checks know suggestions and offers by a list of words, so they miss some
    ("Label the five streets people need most"): 7 of 60 flattery and 5 of 60 harmful demonstrations, for every policy alike."""
    for name, most in (("flattery", 7), ("harmful", 5)):
        failing = [row["completion"] for row in DEMONSTRATIONS if row["slice"] == name and not passes(name, row["completion"], True, {})]
        assert len(failing) <= most, failing
