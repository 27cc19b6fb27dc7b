"""`accord align --rounds` to its end, as a user types it: a simulated panel, a judge, people; stopped anywhere, it goes on to the same weights."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_demo
from accord.annotation.project import Project
from accord.annotation.results import Assignment
from accord.annotation.store import Store
from accord.cli import main
from accord.models.load import resolve
from accord.models.opened import open_model
from accord.recipes import align
from accord.recipes.demo import QUICK
from accord.recipes.pipeline import Pipeline
from accord.recipes.selection import COMPARES
from accord.recipes.sittings import still_wanted, win_rate
from accord.recipes.stages import Stages
from accord.types import Task
from accord.web.serve import Listening, serve
from tiny_rounds import SIMULATED, command, opened, prefer_e, stage, weights, write_place


@pytest.fixture(scope="module")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the story model with 260 thousand weights."""
    return str(resolve("stories260k", cache=tmp_path_factory.mktemp("cache"), files=shared_data / "stories260k").folder)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: forty prompts, and the truth as a function."""
    write_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps of everything; the code is the command's own."""
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))


def rounds_of(store: Store) -> dict[int, list[Task]]:
    found: dict[int, list[Task]] = {}
    for task in store.tasks():
        found.setdefault(task.round, []).append(task)
    return found


def test_simulated_to_its_end(stories: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every label is the truth's, but for the share that was turned round; snapshots, lineage, matrix and page say what was done."""
    assert main([*command(stories, *SIMULATED), "--noise", "0.25"]) == 0
    said = capsys.readouterr().err
    with opened() as store:
        tasks = rounds_of(store)
        labels = list(store.annotations())
    assert set(tasks) == {1, 2, 3}
    by_id = {task.id: task for found in tasks.values() for task in found}
    assert Counter(one.source for one in labels) == {"simulated": len(labels)} and {one.annotator for one in labels} == {"panel-1"}
    wrong = []
    for one in labels:
        counts = [completion.text.lower().count("e") for completion in by_id[one.task].completions]
        assert (one.value["choice"] == "tie") == (counts[0] == counts[1])
        if counts[0] != counts[1]:
            wrong.append(counts[one.value["choice"]] < max(counts))
    assert 0.08 < sum(wrong) / len(wrong) < 0.45  # about fifty labels

    share = Project("labels").settings.heldout
    assert share == 0.2
    for number in (1, 2):
        record = json.loads(Path(f"labels/rounds/{number}/snapshot.json").read_text(encoding="utf-8"))
        trained_on = json.loads(Path(f"runs/rounds-labels/round-{number}/reward/run.json").read_text(encoding="utf-8"))
        assert trained_on["data"]["train_dataset"]["snapshots"] == [record["hash"]]
        rows = [json.loads(line) for line in Path(f"labels/rounds/{number}/snapshot.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
        assert {row["task"]["round"] for row in rows} <= set(range(1, number + 1))
        held = {json.dumps(row["task"]["prompt"]) for row in rows if row["split"] == "heldout"}
        assert held.isdisjoint(json.dumps(row["task"]["prompt"]) for row in rows if row["split"] == "train")
    kept = [task for task in tasks[2] if COMPARES not in task.columns]
    assert {completion.source["policy"] for task in kept for completion in task.completions} == {"round 1"}
    assert {completion.source["policy"] for task in tasks[3] for completion in task.completions} == {"round 1", "round 2"}
    assert all(task.columns[COMPARES] == 2 for task in tasks[3])

    # Every reward model meets every round's held-out pairs, the first one those of the second round too.
    held = [
        row["task"]["round"]
        for row in rows
        if row["split"] == "heldout" and row["annotation"]["value"]["choice"] != "tie" and COMPARES not in row["task"]["columns"]
    ]
    assert len(stage("rounds-labels", 2, "reward")["result"]["test"]["gaps"]) == len(held)
    assert [len(gaps) for gaps in stage("rounds-labels", 2, "older_rewards")["result"]["gaps"]] == [held.count(2)] != [0]

    page = Path("labels/rounds.html").read_text(encoding="utf-8")
    assert (
        "Round 2 wins" in page
        and f"of {held.count(2)}</td>" in page.split("<td>reward model of round 1</td>")[1].split("</tr>")[0]
        and "blind comparisons" in page
        and "reward model of round 2" in page
        and "25 % of its labels turned round" in page
    )
    for words in (
        "Rounds",
        "New against old",
        "Can the reward models be trusted?",
        "Policies",
        "Alarms",
        "What they say",
        "Time and memory",
    ):
        assert f"<h2>{words}</h2>" in page, words
    assert "Score of who judges, round 2 minus the start" in page
    assert "Page: labels/rounds.html" in said

    before = weights(Path("runs/rounds-labels/round-2/ppo"))
    assert main([*command(stories, *SIMULATED), "--noise", "0.25"]) == 0  # nothing is done twice
    said = capsys.readouterr().err
    assert said.count("skipped") == 9 and "s, peak memory" not in said
    assert all(torch.equal(value, before[name]) for name, value in weights(Path("runs/rounds-labels/round-2/ppo")).items())


def test_killed_and_given_again_ends_in_the_same_weights(stories: str, place: Path) -> None:
    """SIGKILL while the first policy trains, again while the second round samples; the end is bit for bit that of a run left alone."""
    given = [sys.executable, "-m", "accord", *command(stories, *SIMULATED), "--select", "active", "--seed", "5"]
    whole = [*given, "--project", "whole"]
    subprocess.run(whole, check=True, capture_output=True, env=environment())
    cut = [*given, "--project", "cut"]
    for sign in ("round-1/ppo/checkpoint-4", "round-2/ask/stage.json", "round-2/ppo/stage.json"):
        killed_at(cut, Path("runs/rounds-cut") / sign)
    subprocess.run(cut, check=True, capture_output=True, env=environment())
    for number in (1, 2):
        one, other = (weights(Path(f"runs/rounds-{name}/round-{number}/ppo")) for name in ("whole", "cut"))
        assert set(one) == set(other) and all(torch.equal(value, other[name]) for name, value in one.items())
        assert any(bool((value != 0).any()) for name, value in one.items() if "lora_B" in name)
    with opened("whole") as one, opened("cut") as other:
        assert list(one.tasks()) == list(other.tasks())
        assert {a.id: a.value for a in one.annotations()} == {a.id: a.value for a in other.annotations()}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def killed_at(given: list[str], sign: Path) -> None:
    """Start a command and kill it once a file is there; it may be there from an earlier try, then at once when the work before it is done."""
    began = sign.stat().st_mtime if sign.exists() else 0.0
    process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    deadline = time.monotonic() + 300
    while not (sign.exists() and sign.stat().st_mtime > began):
        assert process.poll() is None and time.monotonic() < deadline, sign
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(30)


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_policy_goes_on_from_the_one_before(method: str, random_model: str, tmp_path: Path) -> None:
    """With a rate of 0 the second policy is the first one, weight for weight, in an adapter of its own; KL is measured from the model that was given."""
    opened = open_model(random_model)
    rates = ({"learning_rate": 3e-3}, {"learning_rate": 0.0})
    grpo = {"per_device_train_batch_size": 6, "num_generations": 2, "max_steps": 3, "beta": 0.03}
    small = tiny_demo.small(QUICK)
    made: list[Pipeline] = []
    for number, rate in enumerate(rates):
        settings = replace(small, ppo={**small.ppo, **rate}, grpo={**grpo, **rate})
        pipeline = Pipeline(opened, tiny_demo.data(), settings, Stages(tmp_path / str(number), lambda line: None), lambda line: None)
        pipeline.without_imitation()
        if made:
            pipeline.go_on_from(made[0].stacks[method], made[0].key(method))
        getattr(pipeline, method)(pipeline.reward())
        made.append(pipeline)
    first, second = (pipeline.stacks[method] for pipeline in made)
    assert len(first) == len(second) == 1 and first != second and made[0].key(method) != made[1].key(method)
    weights = [[value for _, value in sorted(opened.policy.adapter_parameters(stack[-1]).items())] for stack in (first, second)]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    assert any(bool((value != 0).any()) for name, value in opened.policy.adapter_parameters(second[-1]).items() if "lora_B" in name)
    kl = [pipeline.stages.records[-1]["result"]["iterations"][0]["objective/kl"] for pipeline in made]
    assert kl[0] == pytest.approx(0.0, abs=1e-4) and abs(kl[1]) > 1e-3


def test_a_judge_s_labels_are_a_rule_s(random_model: str, place: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPO on the labels of a rule; they are no person's, and nobody waits for one. A reward learned from held-out labels watches."""
    monkeypatch.setattr("accord.recipes.rounds.AUDIT_LEAST", 3)
    assert main([*command(random_model, "--feedback", "judge", "--reward", "truth.py:letters", "--method", "dpo")]) == 0
    with opened() as store:
        labels = list(store.annotations())
    assert {one.source for one in labels} == {"rule"} and {one.annotator for one in labels} == {"judge:truth.py-letters"}
    assert stage("rounds-labels", 2, "dpo")["result"]["pairs"] > stage("rounds-labels", 1, "dpo")["result"]["pairs"]
    record = json.loads(Path("runs/rounds-labels/round-2/dpo/run.json").read_text(encoding="utf-8"))
    snapshot = json.loads(Path("labels/rounds/2/snapshot.json").read_text(encoding="utf-8"))
    assert record["data"]["train_dataset"]["snapshots"] == [snapshot["hash"]]
    page = Path("labels/rounds.html").read_text(encoding="utf-8")
    assert "a judge: truth.py:letters" in page and "round 2: held-out reward follows" in page


def test_active_selection_keeps_its_control(random_model: str, place: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second round on 70 % of the training pairs are the rule's; held-out pairs and comparisons are chance's; the page compares the arms."""
    monkeypatch.setattr("accord.recipes.rounds.ARM_LEAST", 3)
    assert (
        main(
            [
                *command(
                    random_model,
                    "--feedback",
                    "simulated",
                    "--reward",
                    "truth.py:letters",
                    "--select",
                    "active",
                    "--method",
                    "grpo",
                    "--overlap",
                    "2",
                )
            ]
        )
        == 0
    )
    with opened() as store:
        tasks, arms = rounds_of(store), {one.task: one.arm for one in store.annotations()}
    heldout = {
        row["task"]["id"]
        for row in map(json.loads, Path("labels/rounds/2/snapshot.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
        if row["split"] == "heldout"
    }
    assert {arms[task.id] for task in tasks[1]} == {"random"}
    labels = [task for task in tasks[2] if COMPARES not in task.columns]
    trained = [arms[task.id] for task in labels if task.id not in heldout]
    assert trained.count("random") == -(-3 * len(trained) // 10) and trained.count("selected") == len(trained) - trained.count("random")
    assert {arms[task.id] for task in tasks[2] if task.id in heldout} == {arms[task.id] for task in tasks[3]} == {"random"}
    page = Path("labels/rounds.html").read_text(encoding="utf-8")
    assert "What choosing the pairs brought" in page and "selected minus random" in page
    assert '<td class="n">alpha ' in page and "Krippendorff" in page  # two members judged each pair
    assert stage("rounds-labels", 2, "arm_random")["result"]["pairs"] == stage("rounds-labels", 2, "arm_selected")["result"]["pairs"]


def test_people_in_their_own_time(random_model: str, place: Path, small: None, capsys: pytest.CaptureFixture[str]) -> None:
    """--no-serve stops with one line wherever labels are wanted; the same command goes on when they are in, here or from another machine."""
    given = command(random_model, "--no-serve", "--feedback", "people", rounds=1)
    assert main(given) == 0
    stopped = capsys.readouterr().err.splitlines()[-1]
    assert stopped.startswith("Sitting 1: 24 answers are wanted. Judge them with accord annotate labels")
    assert "answers are wanted now" in Path("labels/rounds.html").read_text(encoding="utf-8")
    assert not Path("runs/rounds-labels/round-1/reward").exists()
    with opened() as store:
        person = store.add_annotator("Ada").id
        assert prefer_e(store, person, 8) == 8  # from ten on some would come again
        given_now = store.next_task(person)
        assert isinstance(given_now, Assignment)
        store.submit(person, given_now.task.id, given_now.token, "skipped-one", "skip", {"reason": "no idea"})
    assert main(given) == 0
    assert "Sitting 1: 15 answers are wanted." in capsys.readouterr().err  # the one set aside is not waited for

    # The rest is labelled in a copy elsewhere.
    assert main(["project", "export-tasks", "labels", "there.jsonl", "--labels"]) == 0
    assert main(["project", "new", "elsewhere"]) == 0 and main(["project", "import-tasks", "elsewhere", "there.jsonl"]) == 0
    with opened("elsewhere") as store:
        assert prefer_e(store, store.add_annotator("Grace").id) >= 15
    assert main(["project", "export-tasks", "elsewhere", "back.jsonl", "--labels"]) == 0
    assert main(["project", "import-tasks", "labels", "back.jsonl"]) == 0
    assert main(given) == 0
    said = capsys.readouterr().err
    assert "Sitting 2:" in said and Path("runs/rounds-labels/round-1/ppo/adapter_model.safetensors").exists()
    with opened() as store:
        wanted = still_wanted(store, 2)
        assert wanted == len(rounds_of(store)[2]) and prefer_e(store, person) >= wanted
    assert main(given) == 0
    assert "Page: labels/rounds.html" in capsys.readouterr().err
    with opened() as store:
        won = win_rate(store, 1, stage("rounds-labels", 1, "look")["result"]["alike"])
        assert won is not None and won.interval.count == 6 and won.wins + won.ties + won.losses == 6
        assert {one.source for one in store.annotations()} == {"human"}
    assert f"Round 1 wins {100 * won.interval.mean:.0f} % of 6 blind comparisons" in Path("labels/rounds.html").read_text(encoding="utf-8")


def test_the_page_is_served_until_the_labels_are_in(random_model: str, place: Path, small: None) -> None:
    """While the command serves the page somebody labels; it goes on by itself to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code: list[int] = []
    given = command(random_model, "--feedback", "people", "--port", str(port), "--open-browser", "no", rounds=1)
    thread = threading.Thread(target=lambda: code.append(main(given)), daemon=True)
    thread.start()
    labelled = 0
    deadline = time.monotonic() + 240
    while thread.is_alive() and time.monotonic() < deadline:
        if answers_at(port):
            with opened() as store:
                person = next((one.id for one in store.annotators() if one.name == "Ada"), None) or store.add_annotator("Ada").id
                labelled += prefer_e(store, person)
        time.sleep(0.2)
    thread.join(10)
    with opened() as store:
        assert code == [0] and labelled >= 24 + len(rounds_of(store)[2])
    assert "Round 1 wins" in Path("labels/rounds.html").read_text(encoding="utf-8")


@pytest.mark.skipif("sys.platform == 'win32'", reason="a Ctrl-C is sent by a signal")
def test_ctrl_c_while_people_judge(random_model: str, place: Path) -> None:
    given = [sys.executable, "-m", "accord", *command(random_model, "--port", "0", "--open-browser", "no", rounds=1)]
    # Shells start what runs in the background deaf to Ctrl-C; a terminal does not.
    heard: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)} if os.name == "posix" else {}
    process = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), **heard)
    assert process.stdout is not None
    assert "labels: http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Stopped; every answer is stored. Give the same command again: it goes on from here."


def answers_at(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_serving_ends_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.web.serve.LAST_LOOK", 0.1)
    project = Project.new(tmp_path / "labels")
    asked: list[float] = []

    def done() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 2

    thread = threading.Thread(target=lambda: serve(project, Listening(port=0), until=done), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and len(asked) == 2


def test_the_address_is_said_once_ctrl_c_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C between the two left the server's coroutine never awaited, and Python's warning was the last that people read."""
    monkeypatch.setattr("accord.web.serve.LAST_LOOK", 0.1)
    before, heard_by = signal.getsignal(signal.SIGINT), []

    class Said(io.StringIO):
        def write(self, text: str, /) -> int:
            heard_by.append(signal.getsignal(signal.SIGINT))
            return super().write(text)

    with redirect_stdout(Said()) as said:
        serve(Project.new(tmp_path / "labels"), Listening(port=0), until=lambda: True)
    assert "Ctrl-C stops" in said.getvalue()
    assert before not in heard_by
    assert signal.getsignal(signal.SIGINT) == before


# -- what may not be mixed ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(random_model: str, place: Path, small: None) -> Callable[..., list[str]]:
    """A project whose first sitting was asked of people; and how to give the command again."""

    def given(*more: str) -> list[str]:
        return command(random_model, "--no-serve", "--feedback", "people", *more, rounds=1)

    assert main(given()) == 0
    return given


def test_other_settings_need_another_project(begun: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(begun("--seed", "7")) == 2
    assert "The rounds of labels were begun with other settings (seed 42 then, 7 now)" in capsys.readouterr().err
    assert main(begun("--weights", "nf4")) == 2
    assert "(weights auto then, nf4 now)" in capsys.readouterr().err
    more = begun()
    more[more.index("--rounds") + 1] = "3"
    assert main(more) == 0  # rounds may be added


def test_simulated_labels_stay_among_themselves(
    begun: Callable[..., list[str]], random_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened() as store:
        prefer_e(store, store.add_annotator("Ada").id, 1)
    Path("labels/rounds.json").unlink()
    assert main(command(random_model, *SIMULATED)) == 2
    assert "labels has labels from human; simulated ones belong into a project of their own" in capsys.readouterr().err


def test_too_few_prompts(random_model: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(6)), encoding="utf-8")
    assert main(command(random_model, *SIMULATED)) == 3
    assert "prompts.jsonl has 6 different prompts" in capsys.readouterr().err
    assert not Path("labels").exists()


def test_a_dry_run_makes_nothing(random_model: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("ppo", "dpo", "grpo"):
        assert main([*command(random_model, *SIMULATED), "--dry-run", "--method", method]) == 0
        said = capsys.readouterr()
        assert "feedback: simulated" in said.out and "2 rounds" in said.out and "memory about" in said.out
        assert f"Plan: align --rounds on {random_model} fits: " in said.err
        assert re.search(rf"  training: about .*: reward .*, {method} .*; sampling what is judged, and judging it, apart", said.err)
    assert not Path("labels").exists() and not Path("runs").exists()


def test_grpo_goes_with_rounds(place: Path, random_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "--data", "prompts.jsonl", "--model", random_model, "--method", "grpo"]) == 2
    assert "--method grpo goes with --rounds" in capsys.readouterr().err
