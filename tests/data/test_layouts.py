"""Every layout: recognised by its columns, read as worked out by hand, written back without loss."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from layout_samples import SAMPLES, Sample

from accord.cli import main
from accord.data.formats import FORMATS, detect, named
from accord.data.read import read_examples
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError
from accord.types import Completion, Example, Message

IDS = [f"{number}-{sample.format}" for number, sample in enumerate(SAMPLES)]


def examples_of(sample: Sample) -> list[Example]:
    return list(read_examples(sample.rows))


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_recognised_by_its_columns(sample: Sample) -> None:
    found = detect(sample.rows[0])
    assert found is not None
    assert found.name == sample.format
    assert {example.kind for example in examples_of(sample)} == {found.kind}


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_read_as_worked_out_by_hand(sample: Sample) -> None:
    examples = examples_of(sample)
    assert [example.prompt[-1].content if example.prompt else "" for example in examples] == sample.prompts
    assert [[m.content for c in example.completions for m in c.messages] for example in examples] == sample.answers
    for example, facts in zip(examples, sample.facts, strict=True):
        for name in ("ranks", "probability", "strength", "label", "step_labels", "step_probabilities"):
            assert getattr(example, name) == pytest.approx(facts.get(name)), name


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz", ".jsonl.zst"])
def test_written_back_without_loss(sample: Sample, ending: str, tmp_path: Path) -> None:
    if ending == ".jsonl.zst":
        pytest.importorskip("zstandard")
    path = tmp_path / f"data{ending}"
    before = examples_of(sample)
    report = write_examples(before, path, format=sample.format)
    assert not report.lost
    after = list(read_examples(path))
    assert [replace(example, where="") for example in after] == [replace(example, where="") for example in before]
    if ending == ".jsonl" and sample.exact:
        assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == sample.rows


def test_every_layout_has_a_sample() -> None:
    assert {layout.name for layout in FORMATS} == {sample.format for sample in SAMPLES}


def test_two_rows_of_one_layout_stay_two_rows(tmp_path: Path) -> None:
    for name in ("oasst_trees", "argilla", "prm800k", "label_studio", "helpsteer_ratings"):
        first = next(sample for sample in SAMPLES if sample.format == name)
        second = json.loads(
            json.dumps(first.rows).replace("Hi?", "Hey?").replace("1+1+1?", "1+2?").replace("More?", "Again?").replace('"t1"', '"t2"')
        )
        report = write_examples(read_examples([*first.rows, *second]), tmp_path / f"{name}.jsonl", format=name)
        assert report.rows == len(first.rows) * 2
        assert len(list(read_examples(tmp_path / f"{name}.jsonl"))) == 2 * len(examples_of(first))


def test_old_openai_dumps_are_read_and_written_new(tmp_path: Path) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Hi?"}]},
        "preferred_completion": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_completion": [{"role": "assistant", "content": "What?"}],
    }
    write_examples(read_examples([row]), tmp_path / "new.jsonl", format="openai_preference")
    assert set(json.loads((tmp_path / "new.jsonl").read_text("utf-8"))) == {"input", "preferred_output", "non_preferred_output"}


def test_ids_and_columns_survive_a_change_of_layout(tmp_path: Path) -> None:
    hh = next(sample for sample in SAMPLES if sample.format == "hh")
    (before,) = read_examples([{**hh.rows[0], "worker": 5}])
    write_examples([before], tmp_path / "a.jsonl", format="preference")
    (after,) = read_examples(tmp_path / "a.jsonl")
    assert (after.id, after.prompt_id, after.columns) == (before.id, before.prompt_id, {"worker": 5})


def test_a_layout_that_cannot_hold_the_row_is_an_error(tmp_path: Path) -> None:
    system = Example(
        "preference",
        (Message("system", "Be kind."), Message("user", "Hi?")),
        (Completion((Message("assistant", "Yo."),)), Completion((Message("assistant", "Hm."),))),
        where="row 3",
    )
    with pytest.raises(DataError, match=r"^row 3 does not fit into the format hh"):
        write_examples([system], tmp_path / "x.jsonl", format="hh")
    assert not list(tmp_path.iterdir())


def test_what_a_layout_has_no_place_for_is_counted(tmp_path: Path) -> None:
    pair = (Completion((Message("assistant", "Yo."),), finished=False), Completion((Message("assistant", "Hm."),)))
    example = Example("preference", (Message("user", "Hi?"),), pair, strength=2.0)
    assert dict(write_examples([example], tmp_path / "x.jsonl", format="hh").lost) == {"finished": 1, "strength": 1}
    assert dict(write_examples([example], tmp_path / "y.jsonl", format="preference").lost) == {}


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r'no data format "sharegtp".*sharegpt'):
        named("sharegtp")


def test_common_prompt_is_cut_at_turns_not_inside_words() -> None:
    chosen = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I like tea."}]
    rejected = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I like tennis."}]
    (example,) = read_examples([{"chosen": chosen, "rejected": rejected}])
    assert example.prompt == (Message("user", "Hi"),)
    assert [c.text for c in example.completions] == ["I like tea.", "I like tennis."]


@pytest.mark.parametrize("kind", ["preference", "labelled", "prompt", "ranking", "prompt_completion", "winner"])
def test_a_system_column_is_the_first_turn(kind: str, tmp_path: Path) -> None:
    """As distilabel's and OpenOrca's rows have it, and whatever the layout is; what is written is read back the same."""
    row = next(sample for sample in SAMPLES if sample.format == kind).rows[0]
    (example,) = read_examples([{**row, "system": "Be kind."}])
    (plain,) = read_examples([row])
    assert example.prompt == (Message("system", "Be kind."), *plain.prompt) and not example.plain
    write_examples([example], tmp_path / "a.jsonl", format=kind)
    (again,) = read_examples(tmp_path / "a.jsonl")
    assert (again.prompt, again.completions) == (example.prompt, example.completions)
    (mapped,) = read_examples([{**row, "system_prompt": "Be kind."}], columns={"system": "system_prompt"})
    assert mapped.prompt == example.prompt
    assert next(iter(read_examples([{**row, "system": ""}]))).prompt == plain.prompt


def test_a_winner_counted_from_0_is_who_it_says() -> None:
    rows = [{"q": "Hi?", "out_0": "No.", "out_1": "Yo.", "best": best} for best in (1, 0, "1", 1.0)]
    columns = {"prompt": "q", "answer_a": "out_0", "answer_b": "out_1", "winner": "best"}
    chosen = [example.completions[0].text for example in read_examples(rows, columns=columns)]
    assert chosen == ["Yo.", "No.", "Yo.", "Yo."]


def test_a_vote_on_the_first_turn_learns_the_first_turn() -> None:
    """MT-Bench writes both turns down whichever was voted on."""
    texts = (["a", "b"], ["c", "d"])
    sides = [
        [
            {"role": role, "content": text}
            for question, answer in zip("QR", side, strict=True)
            for role, text in (("user", question), ("assistant", answer))
        ]
        for side in texts
    ]
    row = {"conversation_a": sides[0], "conversation_b": sides[1], "winner": "model_b"}
    for turn, wanted in ((1, [["c"], ["a"]]), (2, [["c", "R", "d"], ["a", "R", "b"]])):
        (example,) = read_examples([{**row, "turn": turn}])
        assert [[m.content for m in c.messages] for c in example.completions] == wanted


def test_what_is_not_learned_may_have_no_weight() -> None:
    turns = [{"from": "human", "value": "Hi?", "weight": 0.0}, {"from": "gpt", "value": "Yo.", "weight": 1.0}]
    (example,) = read_examples([{"conversations": turns}])
    assert example.completions[0].text == "Yo."


def test_a_conversation_becomes_a_row_for_each_answer(tmp_path: Path) -> None:
    """For templates that rewrite earlier answers once later ones follow, as Qwen 3's does with thoughts."""
    turns = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]
    rows = [{"messages": turns, "system": "Be kind."}, {"messages": turns[:2]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["data", "convert", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--each-answer"]) == 0
    found = [([m.content for m in one.prompt], one.completions[0].text) for one in read_examples(tmp_path / "b.jsonl")]
    assert found == [(["Be kind.", "a"], "b"), (["Be kind.", "a", "b", "c"], "d"), (["a"], "b")]


def test_chats_beside_an_instruction_are_chats() -> None:
    user, good, bad = ({"role": r, "content": t} for r, t in (("user", "Hi"), ("assistant", "Yo"), ("assistant", "Hm")))
    (example,) = read_examples([{"instruction": "Hi", "chosen": [user, good], "rejected": [user, bad]}])
    assert example.prompt == (Message("user", "Hi"),) and [c.text for c in example.completions] == ["Yo", "Hm"]


def test_answers_that_part_early_keep_their_first_common_question() -> None:
    turns = ["a", "b", "c", "d"]
    chosen = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)]
    rejected = [*chosen[:2], {"role": "user", "content": "other"}, chosen[3]]
    (example,) = read_examples([{"chosen": chosen, "rejected": rejected}])
    assert [m.content for m in example.prompt] == ["a"]
    assert [[m.content for m in c.messages] for c in example.completions] == [["b", "c", "d"], ["b", "other", "d"]]


def test_conversational_answers_that_repeat_the_prompt_lose_it() -> None:
    user, good, bad = ({"role": r, "content": t} for r, t in (("user", "Hi"), ("assistant", "Yo"), ("assistant", "Hm")))
    (example,) = read_examples([{"prompt": [user], "chosen": [user, good], "rejected": [user, bad]}])
    assert [c.text for c in example.completions] == ["Yo", "Hm"]
    assert all(len(c.messages) == 1 for c in example.completions)
