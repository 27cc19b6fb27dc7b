"""Counter-based randomness: each draw depends on what it is for, never on what was drawn before.

Batch composition, process count and resume cannot change which uniform a token gets.
"""

from __future__ import annotations

import hashlib
import struct


def uniform(seed: int, step: int, prompt_id: str, sample_index: int, position: int) -> float:
    """The uniform in [0, 1) for one token: a function of run seed, policy step, prompt, sample and position alone."""
    key = struct.pack("<qqqq", seed, step, sample_index, position) + prompt_id.encode("utf-8")
    return fraction(hashlib.blake2b(key, digest_size=8).digest())


def fraction(digest: bytes) -> float:
    """Eight bytes as a number in [0, 1). The last 512 of 2^64 would round to 1."""
    return min(int.from_bytes(digest, "little") / 2.0**64, 1 - 2.0**-53)


def shuffled(count: int, *key: object) -> list[int]:
    """A permutation of range(count) that depends on `key` alone."""
    text = "|".join(str(part) for part in key)

    def rank(index: int) -> bytes:
        return hashlib.blake2b(f"{text}|{index}".encode(), digest_size=8).digest()

    return sorted(range(count), key=rank)
