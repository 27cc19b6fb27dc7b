"""Rewards by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.errors import ConfigError
from accord.rewards.combine import combined
from accord.rewards.named import NAMES, named_reward
from rewards.answers import rollout


@pytest.mark.parametrize(
    ("spec", "name", "weight"),
    [
        ("numeric", "accuracy", 1.0),
        ("symbolic*2", "accuracy", 2.0),
        ("format", "format", 0.1),
        ("format*0.2", "format", 0.2),
        ("repetition*0.5", "repetition", 0.5),
        ("gym", "gym", 1.0),
    ],
)
def test_names_and_weights(spec: str, name: str, weight: float) -> None:
    source = named_reward(spec)
    assert (source.name, source.weight) == (name, weight)


def test_names_and_functions_add_up(tmp_path: Path) -> None:
    """1 + 0.1 + 0.5 * 2 = 2.1, with no word repeated."""
    (tmp_path / "mine.py").write_text("def two(completions):\n    return [2.0 for _ in completions]\n", encoding="utf-8")
    sources = [named_reward(spec) for spec in ("numeric", "format", "repetition", f"{tmp_path / 'mine.py'}:two*0.5")]
    (score,) = combined(sources, [rollout("<think>48 + 24</think><answer>72</answer>", answer="72")])
    assert score.value == pytest.approx(2.1)


def test_an_unknown_name_lists_them() -> None:
    with pytest.raises(ConfigError, match="no reward 'numbers'. Rewards: numeric, choice"):
        named_reward("numbers")
    assert len(set(NAMES)) == len(NAMES) == 9
