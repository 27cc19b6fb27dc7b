"""A folder with runs of tiny models, and the site of `accord ui` over it as a server really serves it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import tiny
from accord.commands.ui import opened
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.models.save import save_policy
from accord.recipes.seat import Seat
from accord.web.serve import Listening, bind, hosts_of, server_of, site_address
from accord.web.ui import ui_site
from accord.web.visitors import Visitors
from live_site import running
from live_watch import write_run

VOTES = "comparisons"


def write_policy(base: str, folder: Path, *, seed: int, method: str = "dpo") -> Path:
    """A finished run: an adapter on a base whose weights are noise of this seed, large enough to be heard."""
    found = open_model(base)
    found.policy.add_adapter(method, lora_config(found.policy, rank=2, alpha=4), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.policy.adapter_parameters(method).values():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    write_run(folder, method=method, base=base, finished=True)
    save_policy(found.policy, (method,), found.tokenizer, folder)
    return folder


@dataclass
class UiSite:
    """The site that is being served, and where models are open in it."""

    root: Path
    address: str
    seat: Seat

    def wait(self, seconds: float = 120.0) -> Any:
        """Wait until what was asked for is open; the partner."""
        end = time.monotonic() + seconds
        while self.seat.partner is None or self.seat.opening is not None:
            assert self.seat.problem is None, self.seat.problem
            assert time.monotonic() < end, "nothing was opened"
            time.sleep(0.02)
        return self.seat.partner


@contextmanager
def serving_ui(root: Path, *named: str) -> Iterator[UiSite]:
    """Serve as `accord ui` does."""
    listening = Listening(port=0)
    seat = Seat(partial(opened, runs=root, votes=root / VOTES))
    with bind(listening) as listener:
        port = listener.getsockname()[1]
        server = server_of(ui_site(root, Visitors(None, hosts_of(listening, port)), seat, named), listening)
        with running(server, listener):
            yield UiSite(root, site_address(listening, port), seat)
        seat.close()


def model_folder(folder: Path) -> str:
    """A tiny base model of weights drawn large enough that its answers differ."""
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)
