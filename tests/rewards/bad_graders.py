"""Graders that do everything wrong, for the process that runs them."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from accord.errors import DataError
from accord.rewards.verdicts import Verdict


def grade(text: str, gold: Any, **options: Any) -> Any:
    """Does what the text says."""
    if text == "hang":
        time.sleep(600)
    if text == "spin":
        while True:
            pass
    if text == "die":
        os._exit(7)
    if text == "raise":
        raise ZeroDivisionError("nothing to divide by\nsecond line")
    if text == "print":
        print('{"value": 1.0}')
        sys.stdout.flush()
        os.write(1, b'{"value": 1.0}\n')
        return Verdict("wrong", "printed")
    if text == "memory":
        return float(len(bytearray(64 * 2**30)) > 0)
    if text == "recursion":
        return grade(text, gold, **options)
    if text == "bad gold":
        raise DataError("The gold answer is bad.")
    if text == "options":
        return float(options["value"])
    if text == "pid":
        return float(os.getpid())
    return {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "yes", "true": True, "half": 0.5}.get(
        text, Verdict("right", f"{text} is {gold}")
    )
