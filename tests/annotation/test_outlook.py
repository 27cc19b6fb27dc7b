"""What would help next: the ceiling, labels to go and the stopping rule with their arithmetic; the page, the command and what was measured say the same."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from accord.annotation.accuracies import ACCURACY, Measured, keep, kept, typed
from accord.annotation.learning_curve import labels_to_go
from accord.annotation.outlook import outlook
from accord.annotation.panel import panel
from accord.annotation.project import Project
from accord.annotation.stopping import decide, pairs_for_always_valid_width, pairs_for_power, pairs_for_width, planned
from accord.annotation.store import Store
from accord.cli import main
from accord.data.snapshots import ROUNDS
from accord.errors import ConfigError, DataError
from accord.web.access import Access, Bucket, server_key
from accord.web.app import create_app
from labelling import answer, given, pairs, say, submission, task, two_people

CURVE = [(count, 0.8 - 1.2 * count**-0.4) for count in (100, 200, 400, 800, 1600, 3200)]
"""Reaches 0.77 at (1.2 / 0.03)^2.5 = 10,119 labels."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two people agree on 24 of 30 pairs, in ten seconds each; ten more pairs are wanted of both."""
    made = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, overlap=2)
    with made.open_store() as store:
        two_people(store, seconds=10.0)
        store.add_tasks(pairs(40))
        made.freeze(store)
    return made


@pytest.fixture
def site(project: Project) -> Iterator[TestClient]:
    with project.open_store() as store:
        access = Access(store, server_key(project.folder), True, frozenset({"testserver"}))
        access.requests = access.joins = Bucket(1e9, 1e9)
        client = TestClient(create_app(store, access, title="Test", folder=project.folder))
        client.get("/")
        yield client


def curve(*, round: int = 0) -> list[Measured]:
    return [Measured(count, share, 200, f"runs/{count}") for count, share in CURVE]


def test_measurements_are_kept_beside_their_round(tmp_path: Path) -> None:
    first, second = tmp_path / ROUNDS / "2", tmp_path / ROUNDS / "10"
    assert kept(tmp_path) == []
    keep(first, [Measured(80, 0.6, 20, "runs/a"), Measured(160, 0.65, 20, "runs/b")])
    keep(first, [Measured(80, 0.61, 21, "runs/a")])
    keep(second, [Measured(160, 0.66, 40, "runs/b"), Measured(40, 0.55, 40, "runs/c")])
    assert [(one.labels, one.accuracy, one.by) for one in kept(tmp_path)] == [
        (40, 0.55, "runs/c"),
        (80, 0.61, "runs/a"),
        (160, 0.66, "runs/b"),
    ]
    for damaged in ("{", '{"measured": [{"labels": 1}]}', "[]"):
        (second / ACCURACY).write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match=r"10/accuracy.json is damaged"):
            kept(tmp_path)


@pytest.mark.parametrize(
    "text", ["many", "5", "500=", "=0.6", "500=1.1", "500=-0.1", "500=nan", "0=0.6", "-5=0.6", f"{10**12}=0.6", "9" * 900 + "=0.5"]
)
def test_what_is_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="measured"):
        typed(text)
    assert typed("500=0.61") == Measured(500, 0.61, 0, "")


def test_the_arithmetic_of_sizes() -> None:
    """By hand: 1.96^2 / 4 / 0.05^2 = 384.1; ((1.96 / 2 + 0.8416 sqrt 0.24) / 0.1)^2 = 193.8 (Fleiss, Levin & Paik); looking costs more than twice as much."""
    width, power, looking = planned()
    assert (width.comparisons, power.comparisons) == (385, 194) == (pairs_for_width(0.05), pairs_for_power(0.6))
    assert width.arithmetic == "1.96² × 0.5 × 0.5 / 0.05² = 384.1" and "±5 points" in width.question
    assert power.arithmetic == "((1.96 × √0.25 + 0.84 × √0.24) / 0.10)² = 193.8" and "60 % told from 50 % in 80 of 100" in power.question
    assert looking.comparisons == pairs_for_always_valid_width(0.05) > 2 * 385

    def ratio(count: int) -> float:
        """B(n/2 + 10, n/2 + 10) / B(10, 10) / (0.55 * 0.45)^(n/2), which the text says reaches 20 first there."""
        beta = 2 * math.lgamma(count / 2 + 10) - math.lgamma(count + 20) - 2 * math.lgamma(10) + math.lgamma(20)
        return math.exp(beta - count / 2 * math.log(0.55 * 0.45))

    assert ratio(looking.comparisons - 1) < 20 <= ratio(looking.comparisons) and "1 / 0.05 at p = 0.55" in looking.arithmetic


def test_the_arithmetic_of_a_decision() -> None:
    """12 wins and no loss: B(22, 10) / B(10, 10) 2^12, the product of (10 + k) / (20 + k) over k = 0..11 times 4096, is 42.6: more than 20."""
    product = math.prod((10 + k) / (20 + k) for k in range(12)) * 2**12
    found = decide(12, 0, 0)
    assert found.stop == (product > 20) and f"= {product:.3g}, and 20 (1 / 0.05) stops" in found.arithmetic
    assert found.arithmetic.startswith("(12 + 0 / 2) / 12 = 1.000") and "B(12 + 10, 0 + 10) / B(10, 10) × 2^12" in found.arithmetic
    even = decide(6, 2, 5)
    assert not even.stop and even.arithmetic.startswith("(6 + 2 / 2) / 13 = 0.538") and "B(7 + 10, 6 + 10)" in even.arithmetic
    assert decide(0, 0, 0).arithmetic == "nothing was compared yet"


def test_the_arithmetic_of_labels_to_go() -> None:
    """What is printed can be done again with a pocket calculator, and gives the number that is told."""
    go = labels_to_go(CURVE, 0.77)
    assert go.labels is not None
    numbers = [float(found.replace(",", "")) for found in re.findall(r"[0-9][0-9.,]*[0-9]|[0-9]", go.arithmetic)]
    ceiling, drop, power, again, top, target, one, other, needed, there = numbers
    assert (drop, ceiling, power, target, one, there) == (again, top, other, 0.77, 1, 3200)
    assert (drop / (ceiling - target)) ** (1 / power) == pytest.approx(needed, rel=2e-3) and needed == 3200 + go.labels
    reached = labels_to_go(CURVE, 0.7)
    assert reached.labels == 0 and reached.arithmetic.endswith("; 0.752 at 3,200")  # 0.8 - 1.2 * 3200^-0.4 = 0.7525
    assert labels_to_go(CURVE[:3], 0.77).arithmetic == ""


@settings(max_examples=200, deadline=None)
@drawn(rows=st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1)), min_size=4, max_size=8), target=st.floats(0, 1))
def test_any_measurements_have_an_answer(rows: list[tuple[int, float]], target: float) -> None:
    found = labels_to_go(rows, target)
    assert (found.labels is None) == (found.refusal is not None) and found.words and "nan" not in found.arithmetic


def test_what_was_measured_is_told_with_what_people_reach(project: Project) -> None:
    """Agreement 0.80, the newest reward model 0.78 on held-out pairs: as good as another annotator. 20 answers of 10 seconds are 3 minutes."""
    with project.open_store() as store:
        found, progress = panel(store), store.progress()
    nothing = outlook(found, progress, ())
    assert (
        nothing.ceiling is None
        and nothing.reward is None
        and "No reward model was measured on these labels yet, annotators agree 0.80" in nothing.words[0]
    )
    assert nothing.words[-1] == "20 answers are still wanted in this round: 20 × 10 s (the annotators' median) = 3 minutes of judging."
    one = outlook(found, progress, [Measured(500, 0.7, 40, "a"), Measured(900, 0.78, 40, "b")])
    assert one.reward is not None and one.reward.by == "b"
    assert one.words[0].startswith("Reward accuracy 0.78, annotators agree 0.80") and one.words[0].endswith(
        "More prompts will help, more epochs will not."
    )
    assert "fewer than four numbers of labels" in one.words[1] and len(one.words) == 3
    whole = outlook(found, progress, curve(), accuracy=0.95, target=0.77)
    assert whole.ceiling is not None and whole.ceiling.kind == "leak" and whole.words[1].startswith("About 6,")
    assert "The next 1,000 labels are expected to add 0.5 points" in whole.words[2]  # 1.2 (3200^-0.4 - 4200^-0.4) = 0.0049


def test_the_page_and_the_command_say_the_same(project: Project, site: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    keep(project.round_folder(0), curve())
    assert main(["project", "quality", str(project.folder), "--target", "0.77"]) == 0
    told = capsys.readouterr().out
    page = text_of(site.get("/quality", params={"target": "0.77"}))
    with project.open_store() as store:
        ahead = outlook(panel(store), store.progress(), curve(), target=0.77)
    assert len(ahead.words) == 4 and ahead.words[0].startswith("Reward accuracy 0.75, annotators agree 0.80: there is room")
    for line in ahead.words:
        assert line in told and line in page, line
    for size in ahead.planned:
        assert (
            f"{size.question}: {size.comparisons:,} comparisons." in told and size.arithmetic in page and f">{size.comparisons:,}<" in page
        )
    assert ahead.to_go.arithmetic in page and "<svg" in page and "two annotators agree" in page and ">runs/3200<" in page


def test_other_numbers_are_typed_into_the_page(project: Project, site: TestClient) -> None:
    page = text_of(
        site.get("/quality", params={"accuracy": " 0.71 ", "measured": "500=0.60, 1000=0.64 2000=0.67 4000=0.69", "target": "0.99"})
    )
    assert "Reward accuracy 0.71, annotators agree 0.80: there is room below what people reach." in page
    assert "No number of labels for 0.99" in page and 'value="0.71"' in page and ">typed here<" in page
    for given_, told in (
        ({"accuracy": "1.5"}, "reward accuracy 1.5: an accuracy is a share from 0 to 1."),
        ({"accuracy": "good"}, "reward accuracy good: an accuracy is a share from 0 to 1."),
        ({"measured": "many"}, "measured many: it is LABELS=ACCURACY, for example 500=0.61."),
        ({"target": "<script>x</script>"}, "target &lt;script&gt;x&lt;/script&gt;: an accuracy is a share"),
    ):
        wrong = site.get("/quality", params=given_)
        assert wrong.status_code == 200 and told in text_of(wrong) and "<script>x" not in wrong.text
    assert site.get("/quality", params={"measured": "9" * 2000}).status_code == 422


def test_a_contest_of_two_models_shows_its_arithmetic(project: Project, site: TestClient) -> None:
    """Twelve tasks with answers of two models, all won by the new one."""
    store: Store = site.app.state.store  # type: ignore[attr-defined]
    asked = [task("pair", f"Which {n}?", answer(f"a {n}", model="new"), answer(f"b {n}", model="old"), round=1) for n in range(12)]
    store.add_tasks(asked, wanted=1)
    for number in range(12):
        held = given(store, "ann")
        store.submit("ann", held.task.id, held.token, submission(), "pair", {"choice": 0}, seconds=float(number))
    page = text_of(site.get("/quality"))
    assert "new against old: 12 wins, 0 ties, 0 losses." in page and decide(12, 0, 0).arithmetic in page


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    accuracy=st.text(max_size=20),
    measured=st.lists(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,12}=[0-9.eE-]{1,8}", fullmatch=True)), max_size=9),
    target=st.one_of(st.text(max_size=20), st.floats().map(str)),
)
def test_whatever_is_typed(project: Project, site: TestClient, accuracy: str, measured: list[str], target: str) -> None:
    reply = site.get("/quality", params={"accuracy": accuracy, "measured": " ".join(measured), "target": target[:20]})
    assert reply.status_code == 200 and "What would help next" in reply.text


def test_a_reward_model_that_learned_from_a_project_is_measured_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`accord reward --data labels --eval_data labels@heldout` leaves its accuracy in the round; other held-out data leave nothing."""
    import tiny_demo

    made = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.3)
    with made.open_store() as store:
        store.add_tasks(pairs(20))
        store.add_annotator("Ann", id="ann")
        for _ in range(20):
            say(store, "ann", given(store, "ann"), 0)
        frozen = made.freeze(store)
    model, run = tiny_demo.model_folder(tmp_path / "model"), tmp_path / "run"
    command = ["reward", "--model", model, "--data", str(made.folder), "--output_dir", str(run), "--backbone", "heads", "--max_steps", "2"]
    assert main([*command, "--eval_data", f"{made.folder}@all"]) == 0 and kept(made.folder) == []
    assert main([*command, "--eval_data", f"{made.folder}@heldout"]) == 0
    said = capsys.readouterr().err
    (found,) = kept(made.folder)
    assert (found.labels, found.pairs, found.by) == (frozen.rows - frozen.heldout, frozen.heldout, run.as_posix())
    assert f"eval_accuracy {found.accuracy:.4g}" in said
    body: dict[str, Any] = json.loads((made.round_folder(0) / ACCURACY).read_text("utf-8"))
    assert body["schema"] == 1


def text_of(reply: Any) -> str:
    """The page, with what autoescape writes for apostrophes undone."""
    assert reply.status_code == 200, reply.text
    return reply.text.replace("&#39;", "'")
