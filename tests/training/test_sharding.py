"""Weights split over two processes by torch's fully_shard: the numbers of one process, and checkpoints that either reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import tiny
from accord import PPOConfig, SFTConfig, SFTTrainer
from accord.errors import ConfigError
from training.run_sharded import sampled, trained

SCRIPT = Path(__file__).with_name("run_sharded.py")
LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
CASES = ("sft-full", "dpo-full-checkpointing", "reward-full", "kto-full", "ppo", "sft-upper", "grpo-full")
STEPS = 6  # whole rounds of PPO, which has two steps in each
SETTINGS = {"max_steps": STEPS, "save_steps": 2, "tokens_per_microbatch": 64, "eval_steps": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Folders of unsplit and of split runs, and what the unsplit policies answer and how they are evaluated."""
    folder = tmp_path_factory.mktemp("sharding")
    plain: dict[str, Any] = {}
    for case in CASES:
        trainer = trained(case, folder / "one" / case, SETTINGS)
        plain[case] = {"sampled": sampled(trainer), "evaluated": trainer.evaluate()}
        trainer.save_model(folder / "one" / case / "saved")
    done = subprocess.run(
        [*LAUNCH, str(SCRIPT), str(folder / "two"), str(folder / "one"), json.dumps(SETTINGS), *CASES],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "one", folder / "two", plain


def tensors(run: Path) -> dict[str, Tensor]:
    return load_file(run / f"checkpoint-{STEPS}" / "training.safetensors")


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and expected
    for name, tensor in expected.items():
        assert float((found[name].double() - tensor.double()).abs().max()) < 1e-5, name


@pytest.mark.parametrize("case", CASES)
def test_split_weights_train_as_whole_ones(case: str, runs: tuple[Path, Path, dict[str, Any]]) -> None:
    """Parameters and moments after 6 steps within 1e-5, and every logged number."""
    one, two, _ = runs
    assert_close(tensors(two / case), tensors(one / case))
    rows = [[json.loads(line) for line in (run / case / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] for run in (one, two)]
    assert [row["step"] for row in rows[1]] == list(range(1, STEPS + 1))
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        for key in set(ours) - {"step_seconds"}:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_its_part(case: str, runs: tuple[Path, Path, dict[str, Any]]) -> None:
    after = [json.loads((runs[1] / case / f"after-{rank}.json").read_text(encoding="utf-8"))["classes"] for rank in range(2)]
    assert all(found["layers"] and found["split"] for found in after)
    assert sum(found["here"] for found in after) == after[0]["whole"]
    assert max(found["here"] for found in after) < 0.6 * after[0]["whole"]


@pytest.mark.parametrize("case", CASES)
def test_sampling_and_evaluation_with_split_weights(case: str, runs: tuple[Path, Path, dict[str, Any]]) -> None:
    after = json.loads((runs[1] / case / "after-0.json").read_text(encoding="utf-8"))
    expected = runs[2][case]
    assert len(after["sampled"]) == 8
    for (ids, logprobs), (expected_ids, expected_logprobs) in zip(after["sampled"], expected["sampled"], strict=True):
        assert ids == expected_ids and logprobs == pytest.approx(expected_logprobs, abs=1e-4)
    assert after["evaluated"] == pytest.approx(expected["evaluated"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_whole(case: str, runs: tuple[Path, Path, dict[str, Any]]) -> None:
    one, two, _ = runs
    names = sorted(path.relative_to(one / case / "saved") for path in (one / case / "saved").rglob("*.safetensors"))
    assert names == sorted(path.relative_to(two / case / "saved") for path in (two / case / "saved").rglob("*.safetensors"))
    for name in names:
        assert_close(load_file(two / case / "saved" / name), load_file(one / case / "saved" / name))


@pytest.mark.parametrize("case", CASES)
def test_either_reads_the_others_checkpoint(case: str, runs: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    one, two, _ = runs
    expected = tensors(one / case)
    assert_close(tensors(two / f"{case}-resumed"), expected)
    trained(case, tmp_path, SETTINGS, two / case / "checkpoint-2")
    assert_close(tensors(tmp_path), expected)


def test_one_process_needs_no_splitting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = tiny.demonstrations(), SFTConfig(output_dir=str(tmp_path), max_steps=1, learning_rate=1e-3, fully_shard=True)
    trainer = SFTTrainer(tiny.policy(), config, rows, processing_class=tiny.tokenizer())
    trainer.train()
    assert trainer.policy.sharding is None and "one process has all the weights" in capsys.readouterr().err


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="runs a row at a time"):
        tiny.policy(packed=False).shard()
    with pytest.raises(ConfigError, match="fully_shard=True must be False with ptx_coef"):
        PPOConfig(fully_shard=True, ptx_coef=0.1)
