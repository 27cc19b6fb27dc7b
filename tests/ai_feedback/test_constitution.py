"""Constitutions: the one that comes with accord, and what a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.ai_feedback.constitution import RULE_NAMES, constitution_names, load_constitution
from accord.ai_feedback.revision_filters import talks_about_itself
from accord.ai_feedback.rule_critic import RULES, RuleCritic
from accord.audit.detectors import refuses, word_count
from accord.errors import ConfigError

GOOD = """\
principles:
  - id: kind
    critique: Is the answer unkind?
    revision: Rewrite it kindly.
    compare: Which is kinder?
"""


def test_the_one_that_comes_with_accord() -> None:
    assert constitution_names() == ["everyday"]
    found = load_constitution()
    assert found.name == "everyday" and len(found.principles) >= 8 and len(found.examples) >= 5
    assert {one.rule for one in found.principles} - {None} == set(RULE_NAMES)
    assert {example.principle for example in found.examples} <= {one.id for one in found.principles}
    assert all(one.compare.endswith("?") for one in found.principles)


def test_its_texts_and_examples_are_what_they_should_be() -> None:
    """Texts that rules write decline, briefly; a worked revision answers and does not talk about itself."""
    found = load_constitution()
    for text in found.principle("harm").texts:
        assert refuses(text) and word_count(text) <= 30, text
    for example in found.examples:
        assert not talks_about_itself(example.revision) and example.revision != example.answer
    assert [refuses(found.examples[index].revision) for index in (0, 2)] == [True, False]  # harm declines, a needless refusal does not


def test_principles_are_about_prompts() -> None:
    """What makes an answer clearer or more obliging is never drawn for a request for harm."""
    found = load_constitution()
    harmful, harmless = ({one.id for one in found.about(asks)} for asks in (True, False))
    assert {"harm", "fraud"} <= harmful & harmless and harmless - harmful == {"needless-refusal", "honesty", "flattery", "clarity"}
    assert found.about(None) == found.principles


def test_every_rule_has_its_function() -> None:
    assert tuple(RULES) == RULE_NAMES


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    found = load_constitution(str(path))
    assert (found.name, [one.id for one in found.principles], found.examples) == ("mine", ["kind"], ())
    assert found.judge_prompt().principles == ("Which is kinder?",)
    path.write_text(f"# a comment changes nothing\n{GOOD}", encoding="utf-8")
    assert load_constitution(str(path)).hash == found.hash
    path.write_text(GOOD.replace("kinder", "nicer"), encoding="utf-8")
    assert load_constitution(str(path)).hash != found.hash
    with pytest.raises(ConfigError, match=r"no principle with a rule.*--critic MODEL"):
        RuleCritic(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("principles: [", "line 1 is not YAML"),
        ("- a\n- b\n", "line 1: the file must have the fields principles"),
        ("name: x\n", "line 1: the file has no principles"),
        (f"{GOOD}prinicples: []\n", "line 6: the file has no field 'prinicples'. Did you mean principles?"),
        ("principles: []\n", "line 1: principles is empty"),
        ("principles: no\n", "line 1: principles must be a list"),
        (GOOD.replace("    compare: Which is kinder?\n", ""), "line 2: principles[1] has no compare"),
        (GOOD.replace("critique:", "critic:"), "line 3: principles[1] has no field 'critic'. Did you mean critique?"),
        (GOOD.replace("Which is kinder?", "''"), "line 5: principles[1].compare is empty"),
        (GOOD.replace("id: kind", "id: no"), "line 2: principles[1].id must be text (put it in quotes"),
        (GOOD.replace("Which is kinder?", "[a, b]"), "line 5: principles[1].compare must be text"),
        (f"{GOOD}    id: other\n", "line 6: principles[1] has id twice"),
        (GOOD + GOOD.removeprefix("principles:\n"), "line 6: principles[2].id is 'kind', as that of principles[1]"),
        (f"{GOOD}    rule: polite\n", "line 6: principles[1].rule is 'polite'; the rules are declines, answers"),
        (f"{GOOD}    rule: declines\n", "line 2: principles[1] has the rule declines and no texts"),
        (f"{GOOD}    prompts: nasty\n", "line 6: principles[1].prompts is 'nasty'; it is one of all, harmful, harmless"),
        (f"{GOOD}    texts: [a]\n", "line 6: principles[1].texts belongs to the rule declines"),
        (
            f"{GOOD}examples:\n  - {{principle: knid, prompt: a, answer: b, critique: c, revision: d}}\n",
            "line 7: examples[1].principle is 'knid', which no principle has as its id. Did you mean kind?",
        ),
    ],
)
def test_wrong_files_name_line_and_field(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_constitution(str(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and told in message and "\n" not in message
    assert "docs/constitution.md" in message or "not YAML" in message


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean everyday"):
        load_constitution("evryday")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        load_constitution(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        (tmp_path / "latin.yaml").write_bytes("principles: für".encode("latin-1"))
        load_constitution(str(tmp_path / "latin.yaml"))


def test_a_judge_prompt_without_a_place_for_principles() -> None:
    with pytest.raises(ConfigError, match="has no place"):
        load_constitution().judge_prompt("pairwise")


def test_examples_of_the_same_principle_stand_nearest() -> None:
    found = load_constitution()
    for count in range(7):
        shown = found.examples_for(found.principle("fraud"), count)
        assert len(shown) == min(count, len(found.examples))
        assert not shown or shown[-1].principle == "fraud"
    assert len({example.prompt for example in found.examples_for(found.principle("danger"), 3)}) == 3  # it has none of its own
