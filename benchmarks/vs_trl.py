"""accord against TRL 1.16 on this machine's CPU: same tokens, same weights, same optimizer, whole optimizer steps, side by side.

    python benchmarks/vs_trl.py --data ../shared/data --method dpo            # sft, reward, dpo, update, rollout, grpo
    python benchmarks/vs_trl.py --data ../shared/data --method trajectory     # 50 steps of DPO on a random 10 M Llama, in both precisions
    python benchmarks/vs_trl.py --data ../shared/data --method ppo            # TRL 1.12, the last with PPO: see vs_trl_ppo.py

Rows: TRL tuned (fp32, reference cached, batch size and checkpointing swept) on batches in random order and sorted by length, TRL fp32
otherwise at its defaults, TRL untouched (bf16; one step, given up after 180 s). Each side is a process of its own; steps alternate
A B A B. Before a time is shown, loss (1e-5) and gradients (1e-4) of the first step must agree. Results are kept in
`benchmarks/results/vs_trl.json`; rows already there are skipped unless `--again`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from job import Job, Setting
from peak import gemm_gflops, machine
from sides import serve
from vs_trl_ppo import compare

METHODS = ("sft", "reward", "dpo", "update", "rollout", "grpo", "trajectory", "ppo")
SAMPLED = ("update", "rollout", "grpo")
"""Methods on sampled answers, which no order of the rows changes."""
STEP_ROWS = 8
LIMIT = 180.0
OURS = Setting("accord")
TUNED = Setting("trl")


class Worker:
    """One side in its own process."""

    def __init__(self, job: Job, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.folder = tempfile.TemporaryDirectory()
        self.process = context.Process(target=serve, args=(theirs, job, setting, self.folder.name), daemon=True)
        self.process.start()
        theirs.close()
        self.weights = self._receive(600.0)["weights"]

    def ask(self, name: str, *arguments: Any, limit: float = 900.0) -> Any:
        self.connection.send((name, arguments))
        return self._receive(limit)["result"]

    def _receive(self, limit: float) -> dict[str, Any]:
        if not self.connection.poll(limit):
            self.process.kill()
            raise TimeoutError(f"> {limit:.0f} s")
        try:
            found = self.connection.recv()
        except EOFError as error:
            raise RuntimeError("the process was killed (out of memory?)") from error
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def close(self) -> None:
        if self.process.is_alive():
            self.connection.send(None)
            self.process.join(10)
            self.process.kill()
        self.folder.cleanup()


def groups_of(job: Job, order: str, count: int, size: int = STEP_ROWS) -> list[list[int]]:
    """Rows of each step, so many a step: the pool in its (random) order, or in order of length and evenly spread over it."""
    from job import make, rows_of

    rows = rows_of(job, make(job)[1])
    indices = list(range(len(rows)))
    if order == "sorted":
        indices.sort(key=lambda i: rows[i]["tokens"])
    steps = [indices[i : i + size] for i in range(0, len(indices) - size + 1, size)]
    return [steps[i * len(steps) // count] for i in range(count)] if count <= len(steps) else [steps[i % len(steps)] for i in range(count)]


def foreign_cpu() -> float:
    """Processor seconds used so far by everything but this process and its children, as far as the system says."""
    times = psutil.cpu_times()
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return times.user + times.system + times.nice - sum(sum(p.cpu_times()[:2]) for p in mine)


def agree(ours: Worker, theirs: Worker, rows: list[int]) -> dict[str, float]:
    """Differences of loss and gradients of the first step. Raises if they are more than rounding."""
    (loss, gradient), (other_loss, other) = ours.ask("gradient", rows), theirs.ask("gradient", rows)
    assert gradient.keys() == other.keys() and gradient, "the two sides train different tensors"
    whole, rest = (torch.cat([found[name].flatten() for name in sorted(gradient)]) for found in (gradient, other))
    found = {
        "loss": abs(loss - other_loss) / max(abs(other_loss), 0.1),  # centred advantages make the update's loss nothing but rounding
        "gradient": float((whole - rest).norm() / rest.norm()),
        "tensor norms": max(
            abs(float(gradient[n].norm() / other[n].norm().clamp_min(1e-12)) - 1)
            for n in gradient
            if float(other[n].norm()) > 1e-7 * float(rest.norm())
        ),
    }
    assert found["loss"] < 1e-5 and found["gradient"] < 1e-4, f"the sides do not compute the same: {found}"
    return found


def race(ours: Worker, theirs: Worker, groups: list[list[int]]) -> dict[str, Any]:
    """Alternate steps; the ratio of each pair, and its median."""
    times: list[tuple[float, float]] = []
    counts: dict[str, float] = {}
    before, busy = foreign_cpu(), psutil.cpu_times()
    for rows in groups:
        # Who goes first changes from pair to pair.
        pair = [worker.ask("step", rows)["seconds"] for worker in ((ours, theirs) if len(times) % 2 == 0 else (theirs, ours))]
        times.append((pair[0], pair[1]) if len(times) % 2 == 0 else (pair[1], pair[0]))
        for side, worker in (("ours", ours), ("theirs", theirs)):
            for name, value in worker.ask("counts", rows).items():
                counts[f"{side} {name}"] = counts.get(f"{side} {name}", 0) + value
    total = sum(a + b for a, b in times)
    ratios = [theirs / ours for ours, theirs in times]
    return {
        "ours s": [round(a, 2) for a, _ in times],
        "theirs s": [round(b, 2) for _, b in times],
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(r, 2) for r in ratios],
        "seconds ours": sum(a for a, _ in times),
        "counts": counts,
        "foreign share": round(max(0.0, foreign_cpu() - before) / max(total, 1e-9) / (os.cpu_count() or 1), 3),
        "cpu": round(psutil.cpu_times().user - busy.user, 1),
    }


def useful_gflop(job: Job, counts: dict[str, float], weights: dict[str, int]) -> float:
    """Work that the mathematics needs of our side: frozen base forward and input gradient, adapters with weight gradients, head on counted tokens."""
    sampling = 2 * (counts["ours tokens"] * weights["layers"] + counts["ours counted"] * weights["head"]) / 1e9
    if job.method == "rollout":
        return sampling
    training = (
        counts["ours tokens"] * (4 * weights["layers"] + 6 * weights["adapters"]) + 4 * counts["ours counted"] * weights["head"]
    ) / 1e9
    return training + (sampling if job.method == "grpo" else 0)


def measure(job: Job, setting: Setting, order: str, pairs: int, ours: Worker, *, check: bool) -> dict[str, Any]:
    """One row of the table."""
    theirs = Worker(job, setting)
    try:
        groups = [list(range(8))] * pairs if job.method in SAMPLED else groups_of(job, order, pairs)
        found: dict[str, Any] = {"differences": agree(ours, theirs, groups[0])} if check else {}
        before = gemm_gflops()
        for worker in (ours, theirs):  # one warm-up each
            worker.ask("step", groups[0])
        found |= race(ours, theirs, groups)
        peak = max(before, gemm_gflops())
        gflop = useful_gflop(job, found["counts"], ours.weights)
        found |= {
            "GFLOP": round(gflop),
            "gemm GF/s": round(peak, 1),
            "share of peak": round(gflop / found.pop("seconds ours") / peak, 3),
            "peak GB ours": round(ours.ask("peak"), 2),
            "peak GB theirs": round(theirs.ask("peak"), 2),
        }
        return found
    finally:
        theirs.close()


def swept(job: Job, settings: list[Setting]) -> Setting:
    """The fastest of TRL's settings on one step each."""
    seconds = {}
    rows = list(range(8))
    for setting in settings:
        worker = Worker(job, setting)
        try:
            worker.ask("step", rows)
            seconds[setting] = worker.ask("step", rows)["seconds"]
        except (RuntimeError, TimeoutError) as error:
            print(f"  {setting}: {error}")
        finally:
            worker.close()
    best = min(seconds, key=lambda setting: seconds[setting])
    print(
        "  swept: "
        + ", ".join(
            f"batch {s.batch}{' checkpointing' if s.checkpointing else ''}{'' if s.merged else ' unmerged'} {t:.1f} s"
            for s, t in seconds.items()
        )
    )
    return best


def trajectory(job: Job, steps: int = 50) -> dict[str, Any]:
    """Fifty optimizer steps of both sides on the same rows (two a step in float64, a reference that is not rounded): the largest relative
    difference of loss and gradient norm."""
    rows = 2 if job.double else STEP_ROWS
    ours, theirs = Worker(job, OURS), Worker(job, replace(TUNED, batch=rows, cached_reference=not job.double))
    try:
        groups = groups_of(job, "random", steps, rows)
        mine, other = ([worker.ask("step", chosen) for chosen in groups] for worker in (ours, theirs))
        gaps = {
            name: max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-6) for a, b in zip(mine, other, strict=True))
            for name in ("loss", "grad_norm")
        }
        return {"steps": steps, "rows a step": rows, "largest differences": gaps, "loss": [mine[0]["loss"], mine[-1]["loss"]]}
    finally:
        ours.close()
        theirs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hh_harmless_test")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=["dpo"])
    parser.add_argument(
        "--rows", nargs="+", choices=["tuned", "sorted", "fp32", "untouched"], default=["tuned", "sorted", "fp32", "untouched"]
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pairs", type=int, default=5, help="A B pairs against the tuned rows (the others get 2) and of PPO")
    parser.add_argument(
        "--batch", type=int, help="TRL's rows a forward pass in the tuned rows; left out, 2, 4 and 8 are tried, and 8 checkpointed"
    )
    parser.add_argument("--again", action="store_true", help="measure rows that are already in the results")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "vs_trl.json")
    given = parser.parse_args()
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}

    def keep(name: str, found: dict[str, Any]) -> None:
        results[name] = found
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found), flush=True)

    for method in given.method:
        if method == "trajectory":
            for double in (False, True):
                job = Job("dpo", str(given.data), layers=10, max_length=192, double=double)
                keep("trajectory in float64" if double else "trajectory", {**machine(), **trajectory(job)})
            continue
        if method == "ppo":
            compare(str(given.data), given.model, given.pairs, keep)
            continue
        job = Job(method, str(given.data), given.model)
        wanted = [row for row in given.rows if given.again or f"{given.model} {method} {row}" not in results]
        if method in SAMPLED:
            wanted = [row for row in wanted if row != "sorted"]
        tuned = replace(TUNED, batch=given.batch) if given.batch else None
        for row in wanted:
            if row in ("tuned", "sorted") and tuned is None:
                choices = [*(replace(TUNED, batch=size) for size in (2, 4, 8)), replace(TUNED, batch=8, checkpointing=True)]
                tuned = swept(job, [TUNED, replace(TUNED, merged=False)] if method == "rollout" else choices)
            setting = {
                "fp32": Setting("trl", batch=8, checkpointing=True, cached_reference=False, merged=False),
                "untouched": Setting("trl", batch=8, checkpointing=True, cached_reference=False, bf16=True, merged=False),
            }.get(row, tuned or TUNED)
            pairs = given.pairs if row in ("tuned", "sorted") else 2
            ours = Worker(job, OURS)  # anew for each row: both sides start from the same weights
            try:
                if row == "untouched":
                    found = untouched(job, setting, ours)
                else:
                    found = measure(job, setting, row, pairs, ours, check=method not in ("rollout", "grpo"))
            except (RuntimeError, TimeoutError) as error:
                found = {"failed": str(error)}
            finally:
                ours.close()
            keep(f"{given.model} {method} {row}", {**machine(), "setting": asdict(setting), **found})


def untouched(job: Job, setting: Setting, ours: Worker) -> dict[str, Any]:
    """One step of TRL as it comes, given up after the limit."""
    worker = Worker(job, setting)
    try:
        seconds = worker.ask("step", list(range(8)), limit=LIMIT)["seconds"]
        mine = ours.ask("step", list(range(8)))["seconds"]
        return {
            "theirs s": [round(seconds, 2)],
            "ours s": [round(mine, 2)],
            "ratio": round(seconds / mine, 1),
            "peak GB ours": round(ours.ask("peak"), 2),
            "peak GB theirs": round(worker.ask("peak"), 2),
        }
    except TimeoutError:
        return {"failed": f"> {LIMIT:.0f} s for one step"}
    finally:
        worker.close()


if __name__ == "__main__":
    main()
