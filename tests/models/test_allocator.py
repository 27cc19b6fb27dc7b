"""Tensors whose place is taken again: what they are, and that a heap holds little more than what is in use."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from accord.models.allocator import fresh

GROWTH = """
import ctypes
import torch
from accord.models import allocator

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
assert allocator.keep_freed_memory()
like, start, most = torch.empty(0), library.mallinfo2(), 0
for tokens in (1024, 960, 1000):
    kept = []
    for layer in range(30):
        normed = {made}(tokens, 576)
        query, key, value = {made}(tokens, 576), {made}(tokens, 192), {made}(tokens, 192)
        del normed
        turned, turned_key = {made}(tokens, 576), {made}(tokens, 192)
        del query, key
        attended, output = torch.empty(tokens, 576), {made}(tokens, 576)
        first = torch.empty(tokens, 576)
        del output
        normed = {made}(tokens, 576)
        gate, up = {made}(tokens, 1536), {made}(tokens, 1536)
        del normed
        product = {made}(tokens, 1536)
        down = {made}(tokens, 576)
        del product
        second = torch.empty(tokens, 576)
        del down
        kept += [turned, turned_key, value, attended, first, gate, up, second]
    most = max(most, library.mallinfo2().uordblks - start.uordblks)
    while kept:
        passing = torch.empty(tokens, 576), torch.empty(tokens, 1536)
        kept.pop()
        del passing
print((library.mallinfo2().arena - start.arena) / most)
"""


@pytest.mark.parametrize("shape", [(3, 5), (300, 200), (1, 70, 4, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_fresh_tensor_is_an_ordinary_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    made = fresh(shape, torch.empty(1, dtype=dtype))
    assert made.shape == shape and made.dtype == dtype and made.is_contiguous()
    assert not made._is_view() and made.data_ptr() % 64 == 0
    made.fill_(2.0)
    other = fresh(shape, made).fill_(3.0)
    assert (made == 2.0).all() and (other == 3.0).all()


def grown(made: str) -> float:
    """How much a heap grew for each byte that was in use at most, in three forward passes that keep what thirty layers make."""
    code = GROWTH.replace("{made}", made)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallinfo2 is glibc's")
def test_a_heap_holds_little_more_than_what_is_in_use() -> None:
    assert grown("(lambda *shape: allocator.fresh(shape, like))") < 1.12  # torch.empty: 1.25


HOLES = """
from pathlib import Path
import torch
from accord.models import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert allocator.keep_freed_memory()
start, kept = resident(), []
blocks = [torch.ones(1 << 20) for _ in range(50)]  # 200 MB in 4 MB pieces
kept = blocks[1::2]
del blocks
before = resident() - start
allocator.give_back_freed()
after = resident() - start
assert all(block.eq(1).all() for block in kept)
print(before, after)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc_trim is glibc's")
def test_holes_between_what_is_in_use_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    before, after = (int(size) for size in done.stdout.split())
    assert before > 190e6 and after < 120e6
