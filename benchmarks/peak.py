"""What this machine can do: fp32 matrix-product peak and memory bandwidth, at torch's thread count.

python benchmarks/peak.py
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from accord.planning.machine import gemm_gflops, read_gb_per_second

__all__ = ["gemm_gflops", "machine", "read_gb_per_second"]


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
