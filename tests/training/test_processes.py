"""Two processes give the weights of one, and log each step once: under torchrun, and under `accelerate launch --cpu` with MPI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from training.run_training import GRPO, build

SCRIPT = Path(__file__).with_name("run_training.py")
METHODS = ("sft", "reward", "reward_heads", "prm", "dpo", "kto", "ppo", "grpo", *GRPO)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no".split()
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Open MPI asks before it starts processes for root, which containers run as."""
STEPS = 6  # whole rounds of PPO and GRPO, which have two steps in each
SETTINGS = {"max_steps": STEPS, "save_steps": 2, "tokens_per_microbatch": 64, "eval_steps": 0}


def run(command: list[str], folder: Path, processes: int) -> None:
    environment = {**os.environ, **AS_ROOT, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(SCRIPT), str(folder), json.dumps({**SETTINGS, "processes": processes}), *METHODS],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run([], folder, 1)
    return folder


@pytest.fixture(scope="module", params=["torchrun", "accelerate"])
def runs(request: pytest.FixtureRequest, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of one process, and of two under the launcher."""
    folder = tmp_path_factory.mktemp(request.param)
    launch = TORCHRUN
    if request.param == "accelerate":
        if shutil.which("mpirun") is None:
            pytest.skip("no mpirun, with which accelerate launch starts several processes on a CPU")
        hosts = folder / "hosts"
        hosts.write_text("localhost slots=2\n", encoding="utf-8")
        launch = [*ACCELERATE, "--mpirun_hostfile", str(hosts)]
    run(launch, folder / "two", 2)
    return alone, folder / "two"


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one(method: str, runs: tuple[Path, Path]) -> None:
    one, two = (load_file(run / method / f"checkpoint-{STEPS}" / "training.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert float((two[name].double() - expected.double()).abs().max()) < 1e-5, name
    # The last batch of an epoch is uneven: 9 rows, 4 a step.
    rows = [[json.loads(line) for line in (run / method / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] for run in runs]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == list(range(1, STEPS + 1))
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        for key in set(ours) - {"step_seconds"}:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-3, abs=1e-4), key


def test_processes_leave_their_group_before_the_interpreter_ends(runs: tuple[Path, Path]) -> None:
    """Otherwise a thread of gloo that drops a tensor late aborts one process in a hundred."""
    assert [(runs[1] / f"group-{rank}").read_text(encoding="utf-8") for rank in range(2)] == ["left", "left"]


@pytest.mark.parametrize("method", ("sft", "ppo"))
def test_another_number_of_processes_resumes_and_says_so(
    method: str, runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, draws and totals are those of the run whatever the number: the weights agree to rounding, and the line does not promise more."""
    one, two = runs
    trainer = build(method, tmp_path, [], SETTINGS)
    trainer.train(str(two / method / "checkpoint-2"))
    assert "(not bit for bit, because of " in (said := capsys.readouterr().out) and "processes 2 -> 1" in said
    found, expected = (load_file(run / f"checkpoint-{STEPS}" / "training.safetensors") for run in (tmp_path, one / method))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert float((found[name].double() - tensor.double()).abs().max()) < 1e-5, name


def test_processes_that_cannot_join_are_an_error() -> None:
    """`accelerate launch --cpu` without a hostfile for MPI starts one process only: it must not pass for several."""
    code = "from accord.training import processes; processes.start()"
    done = subprocess.run(
        [sys.executable, *ACCELERATE, "--no_python", sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (
        "one process on a CPU" in done.stderr
        and "--mpirun_hostfile" in done.stderr
        and "torch.distributed.run --nproc_per_node 2" in done.stderr
    )


def test_each_rollout_is_written_once(runs: tuple[Path, Path]) -> None:
    one, two = ((run / "ppo" / "rollouts.jsonl").read_text(encoding="utf-8").count("\n") for run in runs)
    assert one == two > 0
