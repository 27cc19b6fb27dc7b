"""Training on a project: each method takes the labels it can use, says how many it leaves, and its lineage names the snapshot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from accord.annotation.project import Project
from accord.data.read import read_examples
from accord.errors import DataError
from accord.training.setup import examples
from labelling import answer, given, pairs, submission, talk, task


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """4 pairs (1 tie), 1 ranking of three, 1 rating of 7, none held out."""
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.0)
    values = {"ranking": {"ranks": [1, 2, 3]}, "rating": {"rating": 7}}
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        store.add_tasks(
            [*pairs(4), task("ranking", "Which?", answer("a"), answer("b"), answer("c")), task("rating", "Good?", answer("fine"))]
        )
        for _ in range(6):
            found = given(store, "ann")
            value = values.get(found.task.kind, {"choice": "tie" if found.task == pairs(1)[0] else 0})
            store.submit("ann", found.task.id, found.token, submission(), found.task.kind, value)
        project.freeze(store)
    return project


def test_each_method_takes_the_labels_it_can_use(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 4 pairs and a ranking for a reward model; 4 + 3 pairs for DPO; 3 decided pairs, the 3 of the ranking and a rating for KTO; prompts of all 6 for PPO."""
    methods = {
        ("preference", "ranking"): (5, "train: 5 rows of the project are used; 1 labelled of other kinds are not."),
        ("preference",): (7, "train: 7 rows of the project are used; 1 labelled of other kinds are not."),
        ("labelled", "preference"): (7, "train: 7 rows of the project are used; 1 tie of other kinds are not."),
        ("prompt", "demonstration", "preference", "ranking", "labelled"): (6, ""),
    }
    for kinds, (count, told) in methods.items():
        assert len(examples(str(project.folder), kinds=kinds, what="train")) == count
        assert capsys.readouterr().err.strip() == told
    with pytest.raises(DataError, match="the project has no steps labels; its labels are 1 labelled, 4 preference, 1 ranking"):
        examples(str(project.folder), kinds=("steps",), what="train")


def test_the_lineage_names_the_snapshot(project: Project, tmp_path: Path) -> None:
    import tiny
    from accord import RewardConfig, RewardTrainer

    args = RewardConfig(output_dir=str(tmp_path / "run"), max_steps=1, backbone="heads", normalise=False)
    trainer = RewardTrainer(tiny.policy(), args, str(project.folder), processing_class=tiny.tokenizer())
    trainer.train()
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    frozen = json.loads((project.folder / "rounds" / "0" / "snapshot.json").read_text("utf-8"))
    assert record["data"]["train_dataset"]["rows"] == 5
    assert record["data"]["train_dataset"]["snapshots"] == [frozen["hash"]]
    rows = [example for example in read_examples(project.folder) if example.kind != "labelled"]
    plain = RewardTrainer(tiny.policy(), args, rows, processing_class=tiny.tokenizer())
    assert plain.data_snapshots() == {"train_dataset": [frozen["hash"]]} and plain.data_ids() == trainer.data_ids()


@pytest.fixture
def written(tmp_path: Path) -> Project:
    """A rewrite; a conversation whose second answer is rated 2 and rewritten; two conversations that differ from the first answer on, compared at both turns."""
    project = Project.new(tmp_path / "written", gold_rate=0.0, repeat_rate=0.0, heldout=0.0)
    edit, one = task("edit", "Say hello.", answer("Helo.")), task("chat", "Hi", talk("Hello.", "2+2?", "5"))
    two = task("chat", "Hey", talk("Hello.", "2+2?", "5"), talk("Yo.", "2+2?", "4"))
    values: dict[str, dict[str, object]] = {
        edit.id: {"of": 0, "text": "Hello."},
        one.id: {"turns": [{"turn": 1, "rating": 2, "text": "4"}]},
        two.id: {"turns": [{"turn": 0, "choice": 0}, {"turn": 1, "choice": 1, "strength": 4}]},
    }
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        store.add_tasks([edit, one, two])
        for _ in values:
            found = given(store, "ann")
            store.submit("ann", found.task.id, found.token, submission(), found.task.kind, values[found.task.id])
        project.freeze(store)
    return project


def test_rewrites_and_turns_are_trained_on(written: Project, tmp_path: Path) -> None:
    """By hand: 2 demonstrations; 4 preferences, of which that of the second turn of two conversations learns both answers of each and no question.

    Before the first step policy and reference are one model, so DPO's loss is ln 2 on whatever rows it took.
    """
    import tiny
    from accord import DPOConfig, DPOTrainer
    from accord.data.render import Renderer

    demonstrations = examples(str(written.folder), kinds=("demonstration",), what="train")
    assert sorted(found.completions[0].text for found in demonstrations) == ["4", "Hello."]
    pairs = examples(str(written.folder), kinds=("preference",), what="train")
    assert len(pairs) == 4 and len(examples(str(written.folder), kinds=("labelled",), what="train")) == 1
    (longest,) = (found for found in pairs if len(found.completions[0].messages) == 3)
    tokenizer = tiny.tokenizer()
    learned = []
    for completion in Renderer(tokenizer).render(longest).completions:
        learned.append(tokenizer.decode([i for i, counted in zip(completion.ids, completion.counted, strict=True) if counted]))
    assert [text.split("<|end|>")[:-1] for text in learned] == [["Yo.", "4"], ["Hello.", "5"]]
    args = DPOConfig(output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=4)
    trainer = DPOTrainer(tiny.policy(), None, args, str(written.folder), processing_class=tokenizer, peft_config=tiny.lora())
    trainer.train()
    assert len(trainer.train_units) == 4 and trainer.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
