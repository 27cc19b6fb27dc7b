"""The report says what was measured and lets no model text become markup."""

from __future__ import annotations

from accord.reporting.report import Report, Sample, Who, render


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
