"""The report says what was measured and lets no model text become markup."""

from __future__ import annotations

from typing import Any

import pytest

from accord.evaluation.intervals import Interval
from accord.recipes.look import blind_pairs, decimals, interval_text, measures, worst
from accord.reporting.charts import COLORS, Line, interval_rows, line_chart
from accord.reporting.report import Chart, Part, Report, Sample, Who, render


def page(clear: bool) -> str:
    who = [Who("sft", "SFT", 1, 2, {"median words": "9"}), Who("ppo", "PPO", 2, 2, {"median words": "8"})]
    sample = Sample("plain", "Why?", [{"who": "sft", "text": "<script>alert(1)</script>", "passed": False, "finished": False}])
    return render(Report("t", "Two of two.", who=who, intervals=[{"name": "gain", "text": "+1", "clear": clear}], samples=[sample]))


def test_an_interval_is_clear_only_when_it_is() -> None:
    assert "not clear of zero" in page(False)
    assert "clear of zero" in page(True) and "not clear of zero" not in page(True)


def test_model_text_stays_text() -> None:
    html = page(True)
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html and "did not end by itself" in html


def row(prompt: str, passed: bool | None, heldout: float | None = None, text: str = "words") -> dict[str, Any]:
    measured = {"reward": None, "heldout_reward": heldout, "kl": None}
    return {"prompt": prompt, "slice": "plain", "text": text, "finished": True, "tokens": 3, "passed": passed, **measured}


def changes(*pairs: tuple[bool | None, float | None, bool | None, float | None]) -> dict[str, list[dict[str, Any]]]:
    names = "abcdefgh"
    before = [row(names[i], one, two) for i, (one, two, _, _) in enumerate(pairs)]
    return {"sft": before, "ppo": [row(names[i], one, two) for i, (_, _, one, two) in enumerate(pairs)]}


def prompts(table: dict[str, list[dict[str, Any]]], count: int = 3) -> list[str]:
    return [sample.prompt for sample in worst(table, "sft", "ppo", {}, count)]


def test_worst_are_lost_checks_then_falls() -> None:
    """b lost its check and rose; d lost its check and fell; a fell far; c gained its check and fell furthest; e rose; f fell a little."""
    table = changes(
        (True, 0.0, True, -2.0),
        (True, 0.0, False, 1.0),
        (False, 0.0, True, -9.0),
        (True, 0.0, False, -1.0),
        (True, 0, True, 1),
        (False, 0, False, -1),
    )
    assert prompts(table) == ["d", "b", "a"] and prompts(table, 8) == ["d", "b", "a", "f"]


def test_worst_without_a_reward_and_without_checks() -> None:
    assert prompts(changes((True, None, True, None), (True, None, False, None), (False, None, True, None))) == ["b"]
    assert prompts(changes((None, 1.0, None, 0.5), (None, 1.0, None, 2.0), (None, 1.0, None, -1.0))) == ["c", "a"]
    assert prompts(changes((True, None, True, None))) == []


def test_numbers_are_never_minus_zero() -> None:
    assert decimals(-0.001) == "0.00" and decimals(-0.001, sign=True) == "+0.00" and decimals(-0.006, sign=True) == "-0.01"
    assert interval_text(Interval(-0.001, -0.2, 0.1, 9)) == "+0.00 (95 % interval -0.20 to +0.10, 9 prompts)"
    assert interval_text(Interval(0.104, -0.05, 0.25, 9), percent=True) == "+10 points (95 % interval -5 to +25, 9 prompts)"
    assert interval_text(Interval(0.104, -0.05, 0.25, 9), percent=True, bare=True) == "+10 points, 95 % interval -5 to +25"


def test_measures_count_what_they_say() -> None:
    rows = [row("a", True, text="What a great idea! Try it."), row("b", True, text="Cut it by half.")]
    rows[1]["finished"] = False
    found = measures(rows)
    assert found["finished by itself"] == "50 %" and found["median words"] == "5"
    assert found["flattering openings"] == "1 of 2" and found["reward"] == "–"


def test_blind_pairs_leave_out_equal_answers_and_say_where_the_trained_one_stands() -> None:
    before = [row(str(i), True, text=f"old {i}") for i in range(6)]
    after = [row(str(i), True, text=f"new {i}" if i else "old 0") for i in range(6)]
    pairs = blind_pairs(before, after)
    assert len(pairs) == 5 and {pair.prompt for pair in pairs} == set("12345")
    assert all(getattr(pair, pair.after) == f"new {pair.prompt}" for pair in pairs)
    assert len({pair.after for pair in blind_pairs(before, after, seed=1)} | {pair.after for pair in pairs}) == 2


def test_points_of_one_policy_side_by_side_are_named_once() -> None:
    def chart(second: float) -> str:
        lines = [Line("reward", [0, 2], [0, 1], labels=("SFT", "PPO")), Line("held-out", [0, 2], [second, second], labels=("SFT", "PPO"))]
        return line_chart(lines, x_label="KL", y_label="reward")

    assert chart(0.01).count(">SFT<") == 1 and chart(0.01).count(">PPO<") == 2
    assert chart(0.5).count(">SFT<") == 2


def test_named_points_are_no_line() -> None:
    chart = line_chart([Line("reward", [0, 2], [0, 1], hue=1, labels=("SFT", "DPO"))], x_label="KL", y_label="reward")
    assert "<polyline" not in chart and chart.count("<circle") == 3 and ">SFT</text>" in chart and ">DPO</text>" in chart
    assert COLORS[1] in chart and COLORS[0] not in chart
    joined = line_chart([Line("reward", [0, 2], [0, 1])], x_label="KL", y_label="reward")
    assert joined.count("<polyline") == 1 and COLORS[0] in joined


@pytest.mark.parametrize("part", ["accuracy", "implicit"])
def test_accuracies_have_their_interval_and_count(part: str) -> None:
    html = render(Report("t", "s", **{part: [{"name": "all", "value": 0.861, "low": 0.81, "high": 0.9, "count": 267}]}))
    assert "0.86" in html and "0.81 to 0.90" in html and ">267<" in html
    assert ("Did the preferences arrive?" in html) == (part == "implicit")


def test_shares_lie_on_their_intervals() -> None:
    """From 0 at 120 to 1 at 360 of 420: a share of 0.75 stands at 300, its interval from 0.5 to 1."""
    chart = interval_rows([("round <1>", 0.75, 0.5, 1.0)], label="win rate")
    assert '<circle cx="300.0" cy="18.0"' in chart and 'x1="240.0" x2="360.0" y1="18" y2="18"' in chart
    assert "round &lt;1&gt;" in chart and "<1>" not in chart and ">0.75</text>" in chart
    assert interval_rows([], label="win rate") == '<p class="note">No data for win rate yet.</p>'


def test_a_part_is_a_table_and_charts_and_its_text_stays_text() -> None:
    part = Part("Ro<b>unds", "wor<b>ds", ("", "won"), [["round <1>", "5"]], [Chart("<svg></svg>", "what <it> shows")])
    page = render(Report(title="t", sentence="s", parts=[part]))
    for text in (
        "Ro&lt;b&gt;unds",
        "wor&lt;b&gt;ds",
        '<td>round &lt;1&gt;</td><td class="n">5</td>',
        "<figure><svg></svg>",
        "what &lt;it&gt; shows",
    ):
        assert text in page, text
