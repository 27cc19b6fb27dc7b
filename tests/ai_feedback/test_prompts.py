"""Judge prompts as files: those that come with accord, and what may be wrong with one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from accord.ai_feedback.judge_prompts import KINDS, load_prompt, prompt_names
from accord.errors import ConfigError

GOOD = {
    "kind": "pairwise",
    "messages": [{"role": "user", "content": "{conversation} {first} {second}"}],
    "options": {"A": ["A"], "B": ["B"]},
}


def written(folder: Path, **changes: object) -> str:
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", prompt_names())
def test_packaged_prompts_load(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.kind in KINDS and len(prompt.hash) == 16 and prompt.name == name
    assert all(len(spellings) > 1 for spellings in prompt.options.values())


def test_all_kinds_are_packaged() -> None:
    assert {load_prompt(name).kind for name in prompt_names()} == set(KINDS)
    assert load_prompt("pairwise_reasoned").clamp == (0.4, 0.6)


def test_ones_own_file(tmp_path: Path) -> None:
    prompt = load_prompt(written(tmp_path))
    (message,) = prompt.question(conversation="{first}", first="one", second="two").messages
    assert message.content == "{first} one two"
    again = load_prompt(written(tmp_path, options={"A": ["A", " A"], "B": ["B"]}))
    assert again.hash != prompt.hash


def test_principles_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "principles.yaml"
    for text in ("- Which is kinder?\n- Which is true?\n", "principles:\n- Which is kinder?\n- Which is true?\n"):
        path.write_text(text, encoding="utf-8")
        assert load_prompt("principle", str(path)).principles == ("Which is kinder?", "Which is true?")
    with pytest.raises(ConfigError, match="no place {principle}"):
        load_prompt("pairwise", str(path))


def test_bare_yes_and_no_are_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: rubric\nmessages: [{role: user, content: '{answer} {item}'}]\noptions: {yes: ['Yes'], no: ['No']}\nitems: [{ask: 'Is it?', want: no}]\n",
        encoding="utf-8",
    )
    prompt = load_prompt(str(path))
    assert set(prompt.options) == {"yes", "no"} and prompt.items[0].want == "no"
    path.write_text(path.read_text(encoding="utf-8").replace("['Yes']", "[Yes]"), encoding="utf-8")
    with pytest.raises(ConfigError, match="takes for true or false"):
        load_prompt(str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "triple"}, "kind is 'triple'; it must be one of pairwise, rating, rubric"),
        ({"colour": "red"}, "has no field 'colour'"),
        ({"messages": None}, "messages must be a list"),
        ({"messages": [{"role": "judge", "content": "{first} {second}"}]}, "the role 'judge'"),
        ({"messages": [{"role": "user", "content": "{first}"}]}, "no place {second}"),
        ({"messages": [{"role": "user", "content": "{first} {second} {third}"}]}, "has the place {third}"),
        ({"messages": [{"role": "user", "content": "{first} {second} {principle}"}]}, "there are no principles"),
        ({"options": {"A": ["A"]}}, "options has 1; pairwise needs two"),
        ({"options": {"A": ["A"], "B": ["A"]}}, "'A' stands twice"),
        ({"options": {"A": [], "B": ["B"]}}, "each option with a list"),
        ({"verdict": "Answer"}, "one {option}"),
        ({"clamp": [0.2, 0.6]}, "as far below it as above"),
        ({"clamp": 0.4}, "two numbers"),
        ({"max_new_tokens": -1}, "0 or more"),
        ({"kind": "rating", "messages": [{"role": "user", "content": "{answer}"}]}, "options must be two numbers"),
        ({"kind": "rubric", "messages": [{"role": "user", "content": "{answer} {item}"}]}, "must be yes and no"),
        ({"principles": "be kind"}, "list of texts"),
    ],
)
def test_wrong_files_are_one_line(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_prompt(written(tmp_path, **changes))
    assert words in str(error.value) and "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_wrong_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean rubric"):
        load_prompt("rubrik")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prompt(str(tmp_path / "nothing.yaml"))
    (tmp_path / "broken.yaml").write_text("kind: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_prompt(str(tmp_path / "broken.yaml"))
