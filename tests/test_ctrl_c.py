"""Ctrl-C at the command line, pressed by an impatient person."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SLOW_TO_END = """
import atexit, sys, time
from accord.__main__ import run
atexit.register(time.sleep, 1.5)  # a large process takes as long to unload torch
sys.exit(run())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_ctrl_c_pressed_again_and_again_ends_in_order(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", SLOW_TO_END, "ui", str(tmp_path), "--port", "0", "--open_browser", "false"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        said = process.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address is not None and "Ctrl-C stops" in said
        urllib.request.urlopen(address[0], timeout=60).close()
        pressed, until = 0, time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGINT)
            pressed += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert pressed > 5, "the end was too short to be interrupted"
        assert process.poll() == 130, process.stderr.read()
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
