"""Buffers of a moment give their pages back with themselves, and hold numbers like any other tensor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from accord.objectives.workspace import workspace


@pytest.mark.parametrize("shape", [(3, 5), (300, 5000)])
def test_it_is_a_tensor_like_the_other(shape: tuple[int, int]) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = workspace(shape, torch.ones(2, dtype=dtype))
        assert found.shape == shape and found.dtype == dtype and found.is_contiguous()
        assert torch.equal(found.fill_(2.5), torch.full(shape, 2.5, dtype=dtype))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_pages_go_with_it() -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6

    before = resident()
    large = workspace((64, 1_000_000), torch.ones(1)).fill_(1.0)
    assert resident() - before > 240
    del large
    assert abs(resident() - before) < 16
