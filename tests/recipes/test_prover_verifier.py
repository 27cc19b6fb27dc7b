"""The prover-verifier game: what earns what, what the verifier is shown, and all rounds from end to end on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_demo
from accord.errors import DataError
from accord.recipes.prover_verifier import (
    ROLES,
    ProverReward,
    Settings,
    Solved,
    asked,
    problems,
    prover_verifier,
    sigmoid,
    verifier_pairs,
    worked,
)
from accord.types import Message, Rollout

SMALL: dict[str, Any] = {
    "worked": 6,
    "practice": 6,
    "held_out": 4,
    "rounds": 2,
    "solutions": 1,
    "longest": 6,
    "sft": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    "grpo": {"num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-3},
    "verifier": {"backbone": "heads", "max_steps": 4, "per_device_train_batch_size": 4, "normalise_on": "training"},
}


def rollout(role: str, text: str) -> Rollout:
    columns = {"question": "Start with 3. Add 4. Multiply by 2. What is the result?", "answer": "14", "role": role}
    return Rollout("p", (Message("user", "?"),), (1,), (5, 2), text, (0.0, 0.0), "stop", columns=columns)


@pytest.mark.parametrize(
    ("role", "text", "paid"),
    [
        ("helpful", "3 + 4 = 7\n7 * 2 = 14\n#### 14", True),
        ("helpful", "3 + 4 = 7\n7 * 2 = 15\n#### 15", False),
        ("sneaky", "3 + 4 = 7\n7 * 2 = 15\n#### 15", True),
        ("sneaky", "3 + 4 = 7\n7 * 2 = 14\n#### 14", False),
        ("sneaky", "I do not know", False),  # wrong, but nothing to accept
        ("helpful", "#### 14", False),  # right, but without its working
    ],
)
def test_what_earns_what(role: str, text: str, paid: bool) -> None:
    """sigmoid(2) where it is what the part is paid for; and the verifier reads the question without the part's line."""
    seen: list[tuple[str, str]] = []
    reward = ProverReward(lambda pairs: (seen.extend(pairs), [2.0] * len(pairs))[1])
    (score,) = reward.score([rollout(role, text)])
    assert score.value == pytest.approx(0.880797 if paid else 0.0, abs=1e-6) and score.parts["accepted"] == pytest.approx(
        0.880797, abs=1e-6
    )
    assert seen == [(rollout(role, text).columns["question"], text)] and not any(line in seen[0][0] for line in ROLES.values())


def test_sigmoid_far_out() -> None:
    assert sigmoid(0.0) == 0.5 and sigmoid(-800.0) == 0.0 and sigmoid(800.0) == 1.0
    assert sigmoid(1.3) + sigmoid(-1.3) == pytest.approx(1.0)


def test_the_verifier_compares_right_with_wrong() -> None:
    """Each wrong solution once against a right one to the same problem; unreadable ones are wrong; a problem without both says nothing."""
    solved = [
        Solved("a", "helpful", "right 1", True, True),
        Solved("a", "sneaky", "right 2", True, True),
        Solved("a", "sneaky", "wrong 1", False, True),
        Solved("a", "helpful", "wrong 1", False, True),
        Solved("a", "helpful", "hm", False, False),
        Solved("b", "helpful", "right", True, True),
        Solved("c", "sneaky", "wrong", False, True),
        Solved("d", "sneaky", "#### 3", True, False),
        Solved("d", "sneaky", "wrong", False, True),
    ]
    pairs = verifier_pairs(solved)
    said = [(row.prompt[0].content, *(completion.text for completion in row.completions)) for row in pairs]
    assert said == [("a", "right 1", "wrong 1"), ("a", "right 2", "hm")]
    with pytest.raises(DataError, match="nothing to tell apart"):
        verifier_pairs(solved[5:])


def test_what_is_imitated_and_asked() -> None:
    """As many right solutions as planted errors, each under its part's line; practice and held-out problems differ."""
    settings = Settings(**SMALL)
    rows = worked(settings)
    assert len(rows) == 12 and all(row.completions[0].text.endswith(f"#### {row.columns['answer']}") for row in rows[:6])
    for row in rows[6:]:
        assert row.prompt[-1].content.endswith(ROLES["sneaky"]) and not row.completions[0].text.endswith(f"#### {row.columns['answer']}")
    practice, held_out = ({one.question for one in problems(settings, held_out=flag)} for flag in (False, True))
    assert not practice & held_out
    some = asked(problems(settings, held_out=True))
    assert [row.columns["role"] for row in some] == ["helpful", "sneaky"] * 4 and some[0].columns["question"] == some[1].columns["question"]


def test_all_rounds(tmp_path: Path) -> None:
    """Each verifier learns from its own round's solutions and all before; a second call does nothing again."""
    settings = Settings(model=tiny_demo.model_folder(tmp_path / "tiny"), **SMALL)
    rows = prover_verifier(tmp_path / "game", settings)
    assert [row["prover"] for row in rows] == [0, 1, 2] and all(row["helpful right"]["count"] == 4 for row in rows)
    first, second = ((tmp_path / "game" / f"verifier-{number}" / "solutions.jsonl").read_text(encoding="utf-8") for number in (1, 2))
    assert first.count("\n") == second.count("\n") == 12 and first != second
    assert 0 < rows[0]["accepts wrong"] < 1
    before = (tmp_path / "game" / "rounds.json").stat().st_mtime_ns, (tmp_path / "game" / "prover-2" / "stage.json").stat().st_mtime_ns
    assert prover_verifier(tmp_path / "game", settings) == rows
    assert (tmp_path / "game" / "prover-2" / "stage.json").stat().st_mtime_ns == before[1]
