"""The global random generators that user code may draw from (Python, numpy, torch on every device), as JSON, to save and to restore.

Nothing of accord's own depends on them: what it draws is a function of seed, step and prompt. A reward function may.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch


def states() -> dict[str, Any]:
    """Where every generator stands."""
    version, numbers, gauss = random.getstate()
    legacy = numpy.random.get_state(legacy=False)
    legacy["state"] = {"key": legacy["state"]["key"].tolist(), "pos": int(legacy["state"]["pos"])}
    return {
        "python": [version, list(numbers), gauss],
        "numpy": legacy,
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore(saved: dict[str, Any]) -> None:
    """The inverse of `states`. CUDA devices that this machine lacks are left out."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    legacy = saved["numpy"]
    key = numpy.array(legacy["state"]["key"], dtype=numpy.uint32)
    numpy.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})
    torch.set_rng_state(torch.tensor(saved["torch"], dtype=torch.uint8))
    if torch.cuda.is_available():
        for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.tensor(state, dtype=torch.uint8), device)
