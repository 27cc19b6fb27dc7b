"""What this machine can do: fp32 matrix-product peak and memory bandwidth, at torch's thread count.

python benchmarks/peak.py
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Median of `repeats` timings after one warm-up."""
    work()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def gemm_gflops(size: int = 1536, repeats: int = 7) -> float:
    """fp32 GF/s of a square product: what shares of the peak are shares of."""
    left, right, out = (torch.randn(size, size) for _ in range(3))
    return 2 * size**3 / seconds(lambda: torch.mm(left, right, out=out), repeats) / 1e9


def read_gb_per_second(megabytes: int = 400) -> float:
    """Bandwidth of reading an array larger than the caches once."""
    array = torch.ones(megabytes * 250_000)
    return array.numel() * 4 / seconds(array.sum) / 1e9


def machine() -> dict[str, Any]:
    """The processor, the instructions that torch uses on it, and how many threads: what a figure belongs to."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine()
    )
    return {"processor": name, "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def main() -> None:
    found = {
        **machine(),
        "gemm GF/s": round(gemm_gflops(), 1),
        "read GB/s": round(read_gb_per_second(), 1),
    }
    print(json.dumps(found))
    for name, value in found.items():
        print(f"{name:12} {value}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
