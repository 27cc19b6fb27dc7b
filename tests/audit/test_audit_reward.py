"""The sections on a reward model, against scores whose faults are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from accord.audit import probe_sets
from accord.audit.findings import GREEN, RED, Finding, Section
from accord.audit.perturbations import PERTURBATIONS, bulleted, flattering, hedged, longer, shuffled
from accord.audit.reward_model import adversarial, perturbed, short_wins, style_grid, swapped
from accord.types import Message

Asked = Sequence[tuple[tuple[Message, ...], str]]
ANSWERS = probe_sets.everyday(None, 0, 0)
PAIRS = probe_sets.pairs(None, 0, 0, ("short wins", "long wins"))
LOOKS = probe_sets.pairs(None, 0, 0, ("adversarial",))
GRIDS = probe_sets.grids(None, 0, 0)
GOOD = {
    *((prompt, answer) for prompt, answer in ANSWERS),
    *((row.prompt[0].content, row.completions[0].text) for row in (*PAIRS, *LOOKS)),
    *((grid.prompt, text) for grid in GRIDS for text in grid.chosen),
}


def truth(asked: Asked) -> list[float]:
    """1 for what is right as it was written, 0 for everything else."""
    return [float((prompt[-1].content, text) in GOOD) for prompt, text in asked]


def by_length(asked: Asked) -> list[float]:
    return [len(text) / 100 for _, text in asked]


def found(section: Section) -> dict[str, Finding]:
    return {finding.name: finding for finding in section.findings}


def test_the_truth_is_green() -> None:
    assert perturbed(truth, ANSWERS).level == GREEN
    assert short_wins(truth, PAIRS).level == GREEN and adversarial(truth, LOOKS).level == GREEN and style_grid(truth, GRIDS).level == GREEN


def test_a_reward_for_length_is_seen_in_every_section() -> None:
    battery = found(perturbed(by_length, ANSWERS))
    assert battery["longer"].level == RED and battery["shuffled"].level == RED and battery["refused"].level == GREEN
    wins = found(short_wins(by_length, PAIRS))
    assert wins["right where the shorter answer won"].value.mean == 0.0 and wins["right where the shorter answer won"].level == RED
    assert wins["right where the longer answer won"].value.mean == 1.0 and wins["right where the longer answer won"].level == GREEN
    assert adversarial(by_length, LOOKS).level == RED
    assert found(style_grid(by_length, GRIDS))["style decides"].level == RED


def test_a_reward_that_sees_nothing_minds_nothing() -> None:
    battery = found(perturbed(lambda asked: [0.0] * len(asked), ANSWERS))
    assert {name for name, finding in battery.items() if finding.level == RED} == {"refused", "shuffled", "prompt swapped"}
    assert {name for name, finding in battery.items() if finding.level == GREEN} == {"longer", "flattering", "bulleted", "hedged"}


def test_a_reward_that_reads_answers_alone_does_not_mind_a_swapped_prompt() -> None:
    known = {answer for _, answer in ANSWERS}
    battery = found(perturbed(lambda asked: [float(text in known) for _, text in asked], ANSWERS))
    assert {name for name, finding in battery.items() if finding.level == RED} == {"prompt swapped"}
    assert len(battery["prompt swapped"].examples) == 0  # no score has risen


def test_the_grid_by_hand() -> None:
    """Scores count words of the marked-up style alone: a right marked-up answer beats the others, the others lose to a wrong marked-up one."""
    section = style_grid(lambda asked: [float(text.startswith("##")) for _, text in asked], GRIDS)
    (table,) = section.tables
    assert [row[1:] for row in table.rows] == [("50 %", "50 %", "0 %"), ("50 %", "50 %", "0 %"), ("100 %", "100 %", "50 %")]
    gap = found(section)["style decides"]
    assert gap.value.mean == pytest.approx((0.5 + 1 + 1) / 3 - (0.5 + 0 + 0) / 3) and gap.level == RED


def test_perturbations_of_a_sentence() -> None:
    text = "Ice floats. It is light."
    assert bulleted(text) == "## Answer\n\n- **Ice** floats.\n- **It** is light."
    assert flattering(text).endswith(text) and longer(text).startswith(text) and len(longer(text)) > 2 * len(text)
    assert hedged(text).startswith("I'm not sure, but perhaps it could be that ice floats.")
    assert Counter(shuffled(text).split()) == Counter(text.split()) and shuffled(text) == shuffled(text)
    assert swapped(["a", "b", "c"]) == ["b", "c", "a"]


@pytest.mark.parametrize("one", PERTURBATIONS, ids=lambda one: one.name)
def test_every_perturbation_changes_every_answer(one: object) -> None:
    assert all(one.change(answer) != answer for _, answer in ANSWERS)  # type: ignore[attr-defined]
