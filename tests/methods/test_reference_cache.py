"""Reference log-probs of earlier runs: read where nothing they depend on has changed, used as they stand, and computed again everywhere else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from accord.data.packing import Branch, Unit
from accord.methods import reference_cache
from accord.methods.reference_cache import ReferenceCache, row_hash
from accord.models.adapters import PolicyModel
from accord.models.fingerprint import model_fingerprint

Reference = dict[str, tuple[float, ...]]


class Counted(PolicyModel):
    """Counts the passes of each stack."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.passes: list[tuple[str, ...]] = []

    def forward(self, batch: Any, stack: Any, *given: Any, **named: Any) -> Any:
        self.passes.append(tuple(stack))
        return super().forward(batch, stack, *given, **named)


def dpo(
    folder: Path, policy: PolicyModel | None = None, ref_model: Any = None, tokenizer: Any = None, rows: Any = None, **options: Any
) -> DPOTrainer:
    args = DPOConfig(**{"output_dir": str(folder), "max_steps": 2, "num_train_epochs": 1, "per_device_train_batch_size": 9, **options})
    policy = policy if policy is not None else Counted(tiny.model(), packed=True)
    return DPOTrainer(policy, ref_model, args, rows or tiny.pairs(), None, tokenizer or tiny.tokenizer(), peft_config=tiny.lora())


def references(trainer: DPOTrainer) -> Reference:
    trainer.before_training()
    return {unit.id: unit.data["reference"] for unit in trainer.train_units}


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"reference log-probs of (.*)\.\n", capsys.readouterr().err)


def losses(trainer: DPOTrainer) -> list[float]:
    return [row["loss"] for row in trainer.log_history]


def test_a_second_run_reads_what_the_first_computed(tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No pass of the reference, the same values and the same training, to the last bit; one line says so. Off, every row is computed."""
    runs = [dpo(tmp_path, learning_rate=1e-2, cache_reference=cached) for cached in (True, True, False)]
    lines = []
    for run in runs:
        run.train()
        lines.append(said(capsys))
    assert lines == [[], ["9 rows read from the cache"], []]
    assert [run.policy.passes.count(()) for run in runs] == [1, 0, 1]
    assert [unit.data["reference"] for unit in runs[0].train_units] == [unit.data["reference"] for unit in runs[1].train_units]
    assert losses(runs[0]) == losses(runs[1]) == losses(runs[2]) and len(losses(runs[0])) == 2
    assert len(list((own_cache / "reference").glob("*.json"))) == 1


def test_other_batches_reuse_the_values_as_they_stand(tmp_path: Path) -> None:
    """Rows are keyed one by one: pair by pair they would be rounded otherwise than packed together, and fewer rows are other batches."""
    together = references(dpo(tmp_path))
    alone = dpo(tmp_path, tokens_per_microbatch=1)
    assert references(alone) == together and alone.policy.passes.count(()) == 0
    few = dpo(tmp_path, rows=tiny.pairs()[2:5])
    assert references(few) == {row: together[row] for row in references(few)} and len(references(few)) == 3


def test_new_rows_are_computed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references(dpo(tmp_path, rows=tiny.pairs(4)))
    references(dpo(tmp_path, rows=tiny.pairs(9)))
    references(dpo(tmp_path, rows=tiny.pairs(9)))
    assert said(capsys) == ["4 rows read from the cache, 5 to compute", "9 rows read from the cache"]


def test_what_was_read_is_what_is_trained_on(tmp_path: Path, own_cache: Path) -> None:
    """Values moved on disk move the loss: they are not merely read."""
    plain = dpo(tmp_path, skip_step0_checks=True)
    plain.train()
    (path,) = (own_cache / "reference").glob("*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["rows"] = {row: [chosen - 3.0, rejected] for row, (chosen, rejected) in kept["rows"].items()}
    path.write_text(json.dumps(kept), encoding="utf-8")
    moved = dpo(tmp_path, skip_step0_checks=True)
    moved.train()
    assert moved.log_history[0]["rewards/margins"] == pytest.approx(plain.log_history[0]["rewards/margins"] + 0.1 * 3.0, abs=1e-4)
    assert losses(moved)[0] < losses(plain)[0] - 0.05


def test_kto_keeps_its_mismatched_answers_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        args = KTOConfig(output_dir=str(tmp_path), max_steps=1)
        policy = Counted(tiny.model(), packed=True)
        KTOTrainer(policy, None, args, tiny.labelled(), None, tiny.tokenizer(), peft_config=tiny.lora()).train()
    assert said(capsys) == ["18 rows read from the cache"] and policy.passes.count(()) == 0


# -- what makes it miss ---------------------------------------------------------------------------------------------------------------


def changed_weight() -> dict[str, Any]:
    model = tiny.model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] += 1e-6
    return {"policy": Counted(model, packed=True)}


def changed_setting() -> dict[str, Any]:
    return {"policy": Counted(tiny.model(rope_theta=10001.0), packed=True)}


def changed_dtype() -> dict[str, Any]:
    return {"policy": Counted(tiny.model().bfloat16(), packed=True), "skip_step0_checks": True}


def adapter_below() -> dict[str, Any]:
    policy = Counted(tiny.model(), packed=True)
    policy.add_adapter("sft", tiny.lora())
    tiny.shake(policy, "sft")
    return {"policy": policy}


def row_by_row() -> dict[str, Any]:
    return {"policy": Counted(tiny.model(), packed=False)}


def changed_template() -> dict[str, Any]:
    """The template of the other tokenizer writes the same text: it is the key that tells them apart, before any token does."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template += "{# the same text #}"
    return {"tokenizer": tokenizer}


def template_of_other_text() -> dict[str, Any]:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] + '.'")
    return {"tokenizer": tokenizer}


def more_tokens() -> dict[str, Any]:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["zebra"])
    return {"tokenizer": tokenizer}


def shorter_rows() -> dict[str, Any]:
    return {"max_length": 30}


def another_reference() -> dict[str, Any]:
    return {"ref_model": Counted(tiny.model(seed=1), packed=True), "skip_step0_checks": True}


CHANGES = [changed_weight, changed_setting, changed_dtype, adapter_below, row_by_row, changed_template, template_of_other_text, more_tokens, shorter_rows, another_reference]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_anything_it_depends_on_misses(
    change: Callable[[], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references(dpo(tmp_path))
    for expected in ([], ["9 rows read from the cache"]):  # the second time it is known too
        trainer = dpo(tmp_path, **change())
        references(trainer)
        assert said(capsys) == expected
        assert (trainer.reference.stack in trainer.reference.model.passes) == (not expected)


def test_a_reference_model_shares_with_the_start_of_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is what the reference is, not how it was given."""
    references(dpo(tmp_path))
    copy = Counted(tiny.model(), packed=True)
    references(dpo(tmp_path, ref_model=copy))
    assert said(capsys) == ["9 rows read from the cache"] and copy.passes == []


IDS = st.lists(st.integers(0, 20), min_size=1, max_size=4).map(tuple)
BRANCHES = IDS.flatmap(lambda ids: st.builds(Branch, st.just(ids), st.none() | st.tuples(*[st.booleans()] * len(ids))))
UNITS = st.builds(lambda prompt, branches: Unit(prompt, tuple(branches)), IDS, st.lists(BRANCHES, min_size=1, max_size=3))


@given(UNITS, UNITS)
def test_rows_share_a_key_only_when_they_are_one_row(one: Unit, other: Unit) -> None:
    """Prompt, answers, their borders and what is counted; names and labels do not matter."""
    assert (row_hash(one) == row_hash(other)) == ((one.prompt_ids, one.branches) == (other.prompt_ids, other.branches))
    assert row_hash(replace(one, id="another", data={"label": True})) == row_hash(one)


def test_the_fingerprint_is_the_same_everywhere(tmp_path: Path) -> None:
    """In a new process with other hashes of strings, from disk, and whatever else is on the model or what its adapters are called."""
    policy = tiny.policy()
    bare = model_fingerprint(policy, ())
    policy.add_adapter("sft", tiny.lora(), seed=3)
    tiny.shake(policy, "sft")
    policy.add_adapter("dpo", tiny.lora(), seed=4)
    tiny.shake(policy, "dpo", seed=2)
    assert model_fingerprint(policy, ()) == bare
    found = {stack: model_fingerprint(policy, stack) for stack in ((), ("sft",), ("dpo",), ("sft", "dpo"), ("dpo", "sft"))}
    assert len(set(found.values())) == 5
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import tiny
from accord.models.fingerprint import model_fingerprint
policy = tiny.policy()
policy.add_adapter("first", tiny.lora(), seed=3)
tiny.shake(policy, "first")
print(model_fingerprint(policy, ("first",)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    )
    assert done.stdout.strip() == found["sft",]
    scaled = tiny.policy()
    scaled.add_adapter("sft", tiny.lora(lora_dropout=0.0, use_rslora=True), seed=3)  # the same tensors, scaled otherwise
    tiny.shake(scaled, "sft")
    assert model_fingerprint(scaled, ("sft",)) != found["sft",]


# -- the files ------------------------------------------------------------------------------------------------------------------------


def store(model: str = "m") -> ReferenceCache:
    return ReferenceCache(model, "tokenizer")


@given(
    st.dictionaries(
        st.text("0123456789abcdef", min_size=1), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1).map(tuple)
    )
)
def test_values_come_back_bit_for_bit(values: Reference) -> None:
    cache = store(repr(values))
    assert cache.add(values) == values and cache.read(list(values)) == values
    assert cache.read(["never seen"]) == {}


def test_the_first_to_write_a_row_is_right() -> None:
    """Two runs that compute a row at the same time go on with one value, or a resumed one would not be the one that was stopped."""
    assert store().add({"a": (1.0,)}) == {"a": (1.0,)}
    assert store().add({"a": (1.5,), "b": (2.0,)}) == {"a": (1.0,), "b": (2.0,)}


def test_processes_that_write_together_lose_nothing(own_cache: Path) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from accord.methods.reference_cache import ReferenceCache
for row in range(20):
    ReferenceCache("m", "tokenizer").add({{f"{{sys.argv[1]}}-{{row}}": (float(row),)}})
"""
    running = [subprocess.Popen([sys.executable, "-c", script, name]) for name in ("one", "two")]
    assert [process.wait() for process in running] == [0, 0]
    assert store().read([f"{name}-{row}" for name in ("one", "two") for row in range(20)]) == {
        f"{name}-{row}": (float(row),) for name in ("one", "two") for row in range(20)
    }
    assert not list(own_cache.rglob("*.partial"))


def test_a_file_keeps_its_newest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_cache, "MOST_ROWS", 3)
    for row in "abcde":
        store().add({row: (0.0,)})
    assert list(store().read(list("abcde"))) == ["c", "d", "e"]
    assert store().add(dict.fromkeys("vwxyz", (1.0,))) == dict.fromkeys("vwxyz", (1.0,))  # more than it keeps, all of them used


def test_the_files_last_used_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_cache, "MOST_FILES", 2)
    for age, model in enumerate(("first", "second")):
        store(model).add({"a": (0.0,)})
        os.utime(store(model).path, (age, age))
    assert store("first").read(["a"])  # used now, so the other one goes
    store("third").add({"a": (0.0,)})
    assert {model: bool(store(model).read(["a"])) for model in ("first", "second", "third")} == {
        "first": True,
        "second": False,
        "third": True,
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": [1]}', '{"schema": 1}'])
def test_a_damaged_file_costs_time_only(text: str) -> None:
    store().add({"a": (1.0,)})
    store().path.write_text(text, encoding="utf-8")
    assert store().read(["a"]) == {}
    store().add({"a": (2.0,)})
    assert store().read(["a"]) == {"a": (2.0,)}


def test_a_cache_that_cannot_be_written_is_said_and_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "file"))
    found = references(dpo(tmp_path / "run"))
    assert len(found) == 9 and all(value < 0 for values in found.values() for value in values)
    assert "The reference log-probs are not kept for later runs: " in capsys.readouterr().err


def test_what_is_not_finite_is_not_kept(tmp_path: Path, own_cache: Path) -> None:
    """A broken pass would else come back for ever."""
    model = tiny.model()
    with torch.no_grad():
        model.lm_head.weight[5, 0] = float("nan")
    trainer = dpo(tmp_path, Counted(model, packed=True), skip_step0_checks=True)
    assert any(value != value for values in references(trainer).values() for value in values)
    assert not list(own_cache.rglob("*.json"))


def test_resuming_with_other_values_says_so(tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run took values that another one had rounded its way; when they are gone, the line does not promise equality."""

    def run(resume: bool, **options: Any) -> str:
        trainer = dpo(tmp_path / "run", num_train_epochs=4, max_steps=-1, save_steps=2, learning_rate=1e-3, **options)
        trainer.train(resume)
        return capsys.readouterr().out

    references(dpo(tmp_path, tokens_per_microbatch=1))
    run(False)
    assert "(bit for bit)" in run(True)
    for path in own_cache.rglob("*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        first = next(iter(kept["rows"]))
        kept["rows"][first][0] += 1e-5
        path.write_text(json.dumps(kept), encoding="utf-8")
    assert "(not bit for bit, because of reference " in run(True)
