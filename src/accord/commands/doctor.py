"""`accord doctor`: what this machine can do, what is missing, what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from accord import __version__

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "gguf")


def run() -> int:
    """Print one line a fact; returns 4 when something needed is missing."""
    import torch

    from accord.models.cache import cache_folder
    from accord.models.load import pick_device, pick_dtype

    missing = []
    print(f"accord {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            print(f"  {name} is missing: pip install {name}")
    device = pick_device()
    print(
        f"  device {device}, dtype {str(pick_dtype(device)).removeprefix('torch.')}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    )
    try:
        import psutil

        memory = psutil.virtual_memory()
        print(f"  memory {memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free; the demo needs 4 GB")
    except ImportError:
        print("  memory unknown: pip install psutil")
    print(f"  models and reference log-probs are kept in {cache_folder()} (ACCORD_CACHE moves it)")
    if os.environ.get("OMP_NUM_THREADS"):
        print(f"  OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} limits the threads")
    print("Ready: accord demo" if not missing else f"Missing: {', '.join(missing)}", file=sys.stderr if missing else sys.stdout)
    return 4 if missing else 0
