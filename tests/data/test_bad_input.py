"""Malformed data: one clear line that names file and row, the right exit code, nothing half-read or half-written."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accord.data.columns import parse_columns
from accord.data.mixture import Mixture, parse_data
from accord.data.read import read_examples
from accord.data.template_rows import write_template
from accord.data.write import write_examples
from accord.errors import AccordError

GOOD = {"prompt": "Hi?", "chosen": "Yo.", "rejected": "Hm."}
HH = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def truncated_gzip() -> bytes:
    packed = gzip.compress(lines(*[{**GOOD, "n": i, "noise": hex(hash((i, "x")))} for i in range(3000)]))
    return packed[: len(packed) // 2]


def truncated_zstd() -> bytes:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.compress(lines(*[{**GOOD, "n": i, "noise": str(math.sin(i))} for i in range(3000)]))
    return packed[: len(packed) // 2]


def empty_parquet() -> bytes:
    import io

    import pyarrow as arrow
    import pyarrow.parquet as parquet

    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"prompt": arrow.array([], arrow.string())}), buffer)
    return buffer.getvalue()


FILES: list[tuple[str, str, bytes | Callable[[], bytes], str]] = [
    ("empty file", "a.jsonl", b"", r"a\.jsonl is empty"),
    ("only blank lines", "a.jsonl", b"\n\n  \n", r"a\.jsonl has no rows"),
    ("empty list", "a.json", b"[]", r"a\.json has no rows"),
    ("truncated line", "a.jsonl", lines(GOOD) + b'{"prompt": "x", "cho', r"a\.jsonl line 2 is not valid JSON .*cut off"),
    ("truncated list", "a.json", b'[{"prompt": "x"}, {"prompt": "y', r"a\.json row 2 is not valid JSON .*cut off"),
    ("list not closed", "a.json", b'[{"prompt": "x"}', r"a\.json row 2 is not valid JSON .*cut off"),
    ("broken JSON", "a.jsonl", lines(GOOD) + b"{'prompt': 'x'}\n", r"a\.jsonl line 2 is not valid JSON .*one JSON object"),
    ("one big object", "a.json", b'{\n "rows": []\n}', r"a\.json line 1: the file holds one JSON object"),
    ("a number as a row", "a.jsonl", lines(GOOD) + b"17\n", r"a\.jsonl line 2 is a number \(17\); each row must be an object"),
    ("a list of texts", "a.json", b'["x", "y"]', r'a\.json row 1 is the text "x"; each row'),
    ("binary garbage", "a.jsonl", bytes(range(256)) * 8, r"a\.jsonl .*(not UTF-8|not valid JSON)"),
    ("nested too deeply", "a.jsonl", b"[" * 100_000, r"a\.jsonl row 1 holds a value that cannot be read"),
    ("line nested too deeply", "a.jsonl", lines(GOOD) + b'{"a":' * 100_000, r"a\.jsonl line 2 holds a value that cannot be read"),
    ("number without end", "a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", r"a\.jsonl line 1 holds a value that cannot be read"),
    ("line break in a column name", "a.jsonl", lines({"a\nb": 1}), r'The columns are: "a\\nb"'),
    ("finished in words", "a.jsonl", lines({"prompt": "x", "completions": ["a", "b"], "ranks": [1, 2], "finished": [True, "cut"]}), r'line 1: in "finished": field "1" must be true or false'),
    ("UTF-16", "a.jsonl", '{"prompt": "x"}'.encode("utf-16"), r"a\.jsonl is not UTF-8 text .*0xff.*Save it as UTF-8"),
    ("Latin-1", "a.csv", "prompt,completion\nCafé?,Oui\n".encode("latin-1"), r"a\.csv is not UTF-8 text .*0xe9"),
    ("gzip cut in half", "a.jsonl.gz", truncated_gzip, r"a\.jsonl\.gz is cut off or damaged after a\.jsonl\.gz line \d+"),
    ("gzip that is none", "a.jsonl.gz", lines(GOOD), r"a\.jsonl\.gz is cut off or damaged"),
    ("zstd cut in half", "a.jsonl.zst", truncated_zstd, r"a\.jsonl\.zst is cut off or damaged"),
    ("zstd that is none", "a.jsonl.zst", lines(GOOD), r"a\.jsonl\.zst is cut off or damaged"),
    ("parquet that is none", "a.parquet", b"PAR1 not really", r"a\.parquet cannot be read as Parquet"),
    ("empty parquet", "a.parquet", empty_parquet, r"a\.parquet has no rows"),
    ("column named twice", "a.csv", b"prompt,chosen,chosen\nx,y,z\n", r'a\.csv line 1: the header names the column "chosen" 2 times'),
    ("column without a name", "a.csv", b"prompt,,completion\nx,y,z\n", r"a\.csv line 1: column 2 of the header has no name"),
    ("too many cells", "a.csv", b"prompt,completion\nx,y\nHello, you,z\n", r"a\.csv line 3 has 3 cells and the header has 2"),
    ("open quote", "a.csv", b'prompt,completion\nx,"y\nz,w\n', r"a\.csv line 3: .*quote"),
    ("header only", "a.csv", b"prompt,completion\n", r"a\.csv has no rows"),
    ("unknown ending", "a.txt", b"Hello", r"a\.txt has a name that accord cannot read"),
    ("wrong columns", "a.jsonl", lines({"question": "x", "best": "y", "worst": "z"}), r"a\.jsonl line 1 .*--columns prompt=question chosen=best rejected=worst$"),
    ("no columns to guess", "a.jsonl", lines({"foo": 1}), r'a\.jsonl line 1 .*The columns are: "foo".*--columns prompt=COLUMN'),
    ("missing field", "a.jsonl", lines(GOOD, {"prompt": "x", "chosen": "y"}), r'a\.jsonl line 2 has no "rejected"\. Preference rows need prompt, chosen, rejected\.'),
    ("null field", "a.jsonl", lines(GOOD, {**GOOD, "rejected": None}), r'a\.jsonl line 2: field "rejected" must be text or a list of chat messages and is null'),
    ("number for text", "a.jsonl", lines({**GOOD, "chosen": 3}), r'a\.jsonl line 1: field "chosen" must be .* is a number \(3\)'),
    ("boolean for text", "a.jsonl", lines({"prompt": "x", "completion": True}), r'a\.jsonl line 1: field "completion" .* the JSON boolean true'),
    ("list for text", "a.jsonl", lines({"text": ["x"]}), r'a\.jsonl line 1: field "text" must be text and is a list of 1'),
    ("list of texts for messages", "a.jsonl", lines({"messages": ["Hi", "Yo"]}), r'line 1: field "messages\.0" must be a chat message'),
    ("empty messages", "a.jsonl", lines({"messages": []}), r'line 1: field "messages" is an empty list'),
    ("unknown role", "a.jsonl", lines({"messages": [{"role": "human", "content": "x"}, assistant("y")]}), r"line 1: .*role 'human'; roles are"),
    ("message without content", "a.jsonl", lines({"messages": [user("x"), {"role": "assistant"}]}), r'line 1: chat message "messages\.1" has no "content"'),
    ("null content", "a.jsonl", lines({"messages": [user("x"), assistant(None)]}), r'line 1: field "messages\.1\.content" must be text and is null'),
    ("half of a character", "a.jsonl", lines(GOOD, {**GOOD, "rejected": "so \ud83d"}), r"a\.jsonl line 2: the text of the assistant turn has half of a character \(\\ud83d, at 4\)"),
    ("image part", "a.jsonl", lines({"messages": [user([{"type": "image_url"}]), assistant("y")]}), r'line 1: .*"messages\.0" has a part that is not text'),
    ("tool calls", "a.jsonl", lines({"messages": [user("x"), {**assistant("y"), "tool_calls": [{}]}]}), r'line 1: .*"tool_calls".*not supported'),
    ("an answer that is a function call", "a.jsonl", lines({"messages": [user("x"), {"role": "assistant", "content": "", "function_call": {"name": "add", "arguments": "{}"}}]}), r'line 1: chat message "messages\.1" has "function_call", which would change what is learned and is not supported\. Remove it'),
    ("function call without content", "a.jsonl", lines({"messages": [user("x"), {"role": "assistant", "function_call": {"name": "add"}}]}), r'line 1: .*"messages\.1" has "function_call"'),
    ("function call in a pair", "a.jsonl", lines({"input": {"messages": [user("x")]}, "preferred_output": [{**assistant(""), "function_call": {"name": "add"}}], "non_preferred_output": [assistant("y")]}), r'line 1: .*"preferred\.0" has "function_call"'),
    ("answer of a function", "a.jsonl", lines({"messages": [user("x"), {"role": "function", "name": "add", "content": "5"}, assistant("y")]}), r"line 1: .*role 'function'; roles are"),
    ("functions in a message", "a.jsonl", lines({"messages": [{"role": "system", "content": "x", "functions": "[{}]"}, user("x"), assistant("y")]}), r'line 1: .*"functions".*not supported'),
    ("function calls as text", "a.jsonl", lines({"messages": [user("x"), {**assistant("y"), "function_calls": "add()"}]}), r'line 1: .*"function_calls".*not supported'),
    ("unlearned message", "a.jsonl", lines({"messages": [user("x"), {**assistant("y"), "weight": 0}]}), r'line 1: .*"weight"'),
    ("nothing to learn", "a.jsonl", lines({"messages": [user("x")]}), r'line 1: field "messages" has no assistant turn'),
    ("messages as text", "a.csv", b"prompt,completion\nx,\"[{'role': 'assistant', 'content': 'y'}]\"\n", r"a\.csv line 2: .*written out as text"),
    ("a pair with its question elsewhere", "a.jsonl", lines({"system": "s", "question": "Name a river.", "chosen": "The Rhine.", "rejected": "The sky."}), r'line 1 has no "prompt", and its column "question".*Say --columns prompt=question'),
    ("a winner counted from 1 of answers counted from 0", "a.jsonl", lines({"prompt": "x", "answer_0": "y", "answer_1": "z", "winner": 2}), r'line 1: "winner" is 2, and its answers are counted from 0'),
    ("a pair of messages as text", "a.csv", b"chosen,rejected\n\"[{'role': 'user', 'content': 'y'}]\",\"[{'role': 'user', 'content': 'y'}]\"\n", r"a\.csv line 2: .*written out as text"),
    ("loose messages of trees", "a.jsonl", lines({"message_id": "a", "parent_id": None, "message_tree_id": "a", "role": "prompter", "text": "Hi?"}), r"line 1 is one message of a conversation tree \(OASST\)"),
    ("NaN margin", "a.jsonl", lines({**GOOD, "margin": float("nan")}), r'line 1: field "margin" must be a finite number and is nan'),
    ("margin beyond all numbers", "a.jsonl", lines({**GOOD, "margin": 10**400}), r'line 1: field "margin" must be a finite number and is inf'),
    ("a name twice", "a.jsonl", b'{"prompt": "x", "chosen": "y", "chosen": "z", "rejected": "w"}\n', r'a\.jsonl line 1 holds a value that cannot be read: "chosen" stands twice in one object\.'),
    ("a name twice inside a list", "a.json", b'[{"prompt": "x", "m": {"a": 1, "a": 2}}]', r'a\.json row 1 holds a value that cannot be read: "a" stands twice'),
    ("two lists in one file", "a.json", b'[{"prompt": "x"}]\n[{"prompt": "y"}]', r"a\.json goes on after the end of its list"),
    ("margin in words", "a.csv", b"prompt,chosen,rejected,margin\nx,y,z,much\n", r'a\.csv line 2: field "margin" must be a number and is the text "much"'),
    ("probability above 1", "a.jsonl", lines({**GOOD, "probability": 1.5}), r'line 1: field "probability" is 1\.5; it must lie between 0 and 1'),
    ("label in words", "a.jsonl", lines({"prompt": "x", "completion": "y", "label": "fine"}), r'line 1: field "label" must be true or false'),
    ("HH ends on Human", "a.jsonl", lines(HH, {**HH, "chosen": HH["chosen"] + "\n\nHuman: d"}), r'a\.jsonl line 2: field "chosen" ends with a user turn'),
    ("HH with two prompts", "a.jsonl", lines({**HH, "chosen": "\n\nHuman: z\n\nAssistant: b"}), r"line 1: .*begin with different prompts"),
    ("HH without marks", "a.jsonl", lines(HH, {**HH, "chosen": "Hello"}), r'a\.jsonl line 2: field "chosen" must begin with'),
    ("mixed layouts", "a.jsonl", lines({"prompt": "x"}, GOOD), r"a\.jsonl line 2 is in another layout \(preference\) than the rows before it \(prompt\)"),
    ("unknown winner", "a.jsonl", lines({"prompt": "x", "answer_a": "y", "answer_b": "z", "winner": "C"}), r'line 1: field "winner" is "C"; it must say'),
    ("votes without texts", "a.jsonl", lines({"model_a": "m", "model_b": "n", "winner": "model_a"}), r"line 1 has votes on models but no texts"),
    ("too few ranks", "a.jsonl", lines({"prompt": "x", "completions": ["a", "b"], "ranks": [1]}), r'line 1: field "ranks" has 1 entries for 2 completions'),
    ("rank zero", "a.jsonl", lines({"prompt": "x", "completions": ["a", "b"], "ranks": [0, 1]}), r'line 1: field "ranks" has 0; ranks begin at 1'),
    ("one completion ranked", "a.jsonl", lines({"prompt": "x", "completions": ["a"], "ranks": [1]}), r"a ranking needs at least 2"),
    ("label too many", "a.jsonl", lines({"prompt": "x", "completions": ["a"], "labels": [1, 1]}), r"line 1 has 1 steps and 2 labels"),
    ("soft labels too few", "a.jsonl", lines({"prompt": "x", "completions": ["a", "b"], "labels": [1, 1], "step_probabilities": [1]}), r'line 1: field "step_probabilities" must have 2 entries'),
    ("a soft label above 1", "a.jsonl", lines({"prompt": "x", "completions": ["a"], "labels": [1], "step_probabilities": [1.5]}), r'line 1: field "step_probabilities" must have 1 entries, one a step, each from 0 to 1'),
    ("step label 2", "a.jsonl", lines({"prompt": "x", "completions": ["a"], "labels": [2]}), r'line 1: field "labels\[0\]" must be true, false, 1, 0, -1 or null'),
    ("Math-Shepherd misaligned", "a.jsonl", lines({"input": "Q Step 1: a ки", "label": "Q Step 1: b +"}), r"line 1: .*do not match at step 1"),
    ("annotation pending", "a.jsonl", lines({"fields": {"prompt": "x"}, "responses": {}, "status": "pending"}), r'line 1 has no response with a ranking \(status "pending"\)'),
    ("annotation cancelled", "a.json", json.dumps([{"data": {"prompt": "x"}, "annotations": [{"was_cancelled": True, "result": []}]}]).encode(), r"a\.json row 1 has no annotation"),
    ("score that is not a number", "a.jsonl", lines({"instruction": "x", "completions": [{"response": "a", "overall_score": "N/A"}] * 2}), r'line 1: .*"overall_score" must be a number'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "pattern"), [item[1:] for item in FILES], ids=[item[0] for item in FILES])
def test_bad_file(name: str, content: bytes | Callable[[], bytes], pattern: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content())
    with pytest.raises(AccordError, match=pattern) as caught:
        list(read_examples(path))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(GOOD, GOOD).replace(b"\n", b"\r\n"))
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,completion\r\nx,y\r\n")
    (tmp_path / "b.csv").write_bytes(b'prompt;completion\n"x; y";z\n')
    assert len(list(read_examples(tmp_path / "a.jsonl"))) == 2
    assert [e.completions[0].text for e in read_examples(tmp_path / "a.csv")] == ["y"]
    assert [e.prompt[0].content for e in read_examples(tmp_path / "b.csv")] == ["x; y"]


def test_what_spreadsheets_leave_behind(tmp_path: Path) -> None:
    """Blank lines first, rows of separators alone last, and a comma inside a quoted name of a table of semicolons."""
    (tmp_path / "a.csv").write_bytes(b'\r\n\r\nprompt,completion\r\nx,y\r\n,\r\n"",""\r\nz,\r\n,\r\n')
    (tmp_path / "b.csv").write_bytes(b'prompt;completion;"why, and how"\nx;y;z\n')
    rows = list(read_examples(tmp_path / "a.csv"))
    assert [(row.prompt[0].content, row.completions[0].text, row.where) for row in rows] == [
        ("x", "y", "a.csv line 4"),
        ("z", "", "a.csv line 7"),
    ]
    assert next(iter(read_examples(tmp_path / "b.csv"))).columns == {"why, and how": "z"}


def test_missing_file_names_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "prefs.jsonl").write_bytes(lines(GOOD))
    with pytest.raises(AccordError, match=r"pref\.jsonl does not exist\. Did you mean .*prefs\.jsonl\?") as caught:
        list(read_examples(tmp_path / "pref.jsonl"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("data/pref.jsonl", "Did you mean {}/data/prefs.jsonl?"),
        ("data/prefs.json", "Did you mean {}/data/prefs.jsonl?"),
        ("data/Prefs.csv", "Did you mean {}/data/prefs.jsonl?"),
        ("dat/prefs.jsonl", "There is no folder {}/dat either. Did you mean {}/data/prefs.jsonl?"),
        ("dat/heldout.jsonl", "There is no folder {}/dat either."),
        ("elsewhere/prefs.jsonl", "There is no folder {}/elsewhere either."),
        ("no/such/prefs.jsonl", "There is no folder {}/no/such either."),
        ("data/rows.jsonl", ""),
        ("data/heldout.jsonl", ""),
        ("prefs.jsonl", ""),
    ],
)
def test_only_a_close_name_nearby_is_suggested(path: str, told: str, tmp_path: Path) -> None:
    """vs.json is no prefs.jsonl, whatever their endings; nor is a file elsewhere."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prefs.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "data" / "pairs.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "vs.json").write_bytes(lines(GOOD))
    with pytest.raises(AccordError) as caught:
        list(read_examples(tmp_path / path))
    assert str(caught.value) == f"{tmp_path / path} does not exist. {told.replace('{}', str(tmp_path))}".rstrip()


def test_nothing_is_suggested_at_the_root() -> None:
    with pytest.raises(AccordError, match=r"^/no-such-file\.jsonl does not exist\.$|^.no-such-file\.jsonl does not exist\.$"):
        list(read_examples(Path("/no-such-file.jsonl")))


def test_folder_without_a_saved_dataset_lists_its_files(tmp_path: Path) -> None:
    (tmp_path / "prefs.jsonl").write_bytes(lines(GOOD))
    with pytest.raises(AccordError, match=r"is a folder and not a dataset.*Name one of its files: prefs\.jsonl") as caught:
        list(read_examples(tmp_path))
    assert caught.value.exit_code == 3


def test_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AccordError, match="There is no file nobody/nothing here") as caught:
        list(read_examples("nobody/nothing"))
    assert caught.value.exit_code in (3, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "pattern"),
    [
        ([], "The dataset has no rows"),
        ([GOOD, "x"], 'row 2 is the text "x"; each row must be a dict'),
        ([GOOD, {**GOOD, "chosen": math.nan}], r'row 2: field "chosen" .* is a number \(nan\)'),
        ({"train": [GOOD], "test": []}, "The dataset has no rows"),
        ({"train": [GOOD], "test": [GOOD]}, 'splits train, test and no split "dev"'),
    ],
)
def test_bad_rows_in_memory(rows: Any, pattern: str) -> None:
    split = {"The dataset has no rows": "test"}.get(pattern, "dev") if isinstance(rows, dict) else None
    with pytest.raises(AccordError, match=pattern) as caught:
        list(read_examples(rows, split=split))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("kind", "row", "pattern"),
    [
        ("preference", {"prompt": "x", "best": "y", "worst": "z"}, r"columns of a preference row.*--columns chosen=best rejected=worst"),
        ("preference", {"prompt": "x", "completion": "y"}, r"--columns chosen=COLUMN rejected=COLUMN"),
        ("steps", GOOD, "columns of a steps row"),
        ("demonstration", {"prompt": "x"}, "columns of a demonstration row"),
        ("labelled", {**GOOD, "probability": 0.5}, "row 1 is a tie: neither answer is desirable"),
        ("prefs", GOOD, 'no kind of example "prefs"'),
    ],
)
def test_rows_of_the_wrong_kind(kind: str, row: dict[str, Any], pattern: str) -> None:
    with pytest.raises(AccordError, match=pattern):
        list(read_examples([row], kind=kind))


@pytest.mark.parametrize(
    ("pairs", "pattern"),
    [
        (["prompt"], "takes PART=COLUMN"),
        (["promt=question"], 'no part "promt". Did you mean "prompt"'),
        (["prompt=a", "prompt=b"], 'the part "prompt" twice'),
        (["chosen=a", "rejected=a"], 'the column "a" twice'),
    ],
)
def test_bad_column_mapping(pairs: list[str], pattern: str) -> None:
    with pytest.raises(AccordError, match=pattern) as caught:
        parse_columns(pairs)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("argument", "pattern"),
    [("a.jsonl:0.5,b.jsonl", '"b.jsonl" none'), ("a.jsonl:-1,b.jsonl:2", 'weight of "a.jsonl" is -1'), ("a.jsonl,,b.jsonl", "empty part")],
)
def test_bad_mixture(argument: str, pattern: str) -> None:
    with pytest.raises(AccordError, match=pattern) as caught:
        parse_data(argument)
    assert caught.value.exit_code == 2


def test_mixture_with_an_empty_dataset() -> None:
    with pytest.raises(AccordError, match="Dataset 2 of the mixture has no rows"):
        Mixture([[1], []])


def test_nothing_is_written_when_writing_fails(tmp_path: Path) -> None:
    rows = [GOOD] * 5 + [{**GOOD, "chosen": 1}]
    with pytest.raises(AccordError, match="row 6"):
        write_examples(read_examples(rows), tmp_path / "out.jsonl")
    nested = [{"prompt": [user("x")], "completion": [assistant("y")]}]
    with pytest.raises(AccordError, match=r'out\.csv: column "messages" holds a list of 2'):
        write_examples(read_examples(nested), tmp_path / "out.csv", format="messages")
    with pytest.raises(AccordError, match="no examples to write"):
        write_examples([], tmp_path / "out.jsonl")
    with pytest.raises(AccordError, match="must end with"):
        write_examples(read_examples([GOOD]), tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n", "utf-8")
    with pytest.raises(AccordError):
        write_examples(read_examples([GOOD, {"prompt": "x"}]), path)
    assert path.read_text("utf-8") == "precious\n"
    with pytest.raises(AccordError, match="exists already") as caught:
        write_template("preference", path)
    assert caught.value.exit_code == 2


def test_one_bad_row_stops_reading_where_it_is() -> None:
    read = read_examples([GOOD, GOOD, {**GOOD, "chosen": 1}, GOOD])
    assert [next(read).where, next(read).where] == ["row 1", "row 2"]
    with pytest.raises(AccordError, match="row 3"):
        next(read)
