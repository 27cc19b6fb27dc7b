"""What `accord doctor` looks at: this machine, what will be slow on it and why, and whether models know where an answer ends."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from accord.config.base import TrainingConfig
from accord.errors import AccordError
from accord.models.cache import cache_folder, read_record
from accord.models.free_memory import available_memory
from accord.models.load import pick_device, pick_dtype
from accord.models.tokens import PLAIN_TEMPLATE, PLAIN_TEMPLATE_NAME
from accord.planning.machine import gemm_gflops, read_gb_per_second
from accord.planning.pipeline import BUDGETS, DEMO, pipeline_need
from accord.planning.plan import place_of
from accord.planning.shapes import size_of

STARTER = "smollm2-135m"
STARTER_BYTES = 0.75e9
"""Of the starter, as it is fetched and converted."""
SLOW_GFLOPS, SLOW_GB = 40.0, 8.0
"""A machine below either takes several times as long as the two cores that the times of the README's lesson are from (85 to 170 GF/s, 20 GB/s)."""
BUSY = 0.5
"""Load above the number of processors' this share is said."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    text: str
    advice: str = ""
    """What to do; "" where all is well."""

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text


def machine_findings() -> list[Finding]:
    """Device, threads, memory, disk."""
    import torch

    device = pick_device()
    name = str(pick_dtype(device)).removeprefix("torch.")
    instructions = torch.backends.cpu.get_cpu_capability()
    found = [
        Finding(f"device {device}, dtype {name}, {torch.get_num_threads()} threads on {os.cpu_count()} cores, instructions {instructions}")
    ]
    free = available_memory(device)
    where = "" if device == "cpu" else f" on {device}"
    needed, in_four_bits = (demo_bytes(weights, device, free) for weights in ("auto", "nf4"))
    least = f"in four bits it takes {in_four_bits / 1e9:.1f} GB"
    advice = "" if needed <= free else "close programs"
    if in_four_bits <= free < needed:
        advice += f", or {least}: accord demo --weights nf4"
    elif in_four_bits > free:
        advice += f"; even {least}"
    found.append(
        Finding(
            f"memory {_total_memory() / 1e9:.1f} GB, {free / 1e9:.1f} GB free{where}; the demo needs {needed / 1e9:.1f} GB",
            advice,
        )
    )
    for folder, what, needed in ((cache_folder(), "models and reference log-probs", STARTER_BYTES), (Path.cwd(), "runs", 1e9)):
        left = shutil.disk_usage(_existing(folder)).free
        advice = "" if left > needed else "free some, or set ACCORD_CACHE to another disk" if what != "runs" else "free some"
        moved = " (ACCORD_CACHE moves it)" if what != "runs" else ""
        found.append(Finding(f"disk {left / 1e9:.1f} GB free for {what} in {folder}{moved}", advice))
    return found


def demo_bytes(weights: str, device: str, free: float) -> int:
    """What `accord demo` takes with its base held so, as it counts itself."""
    place = place_of(TrainingConfig(weights=weights), free, device, pick_dtype(device).itemsize, half=False)
    needs = [pipeline_need(size_of(STARTER), place, **DEMO, budget=budget).total for budget in BUDGETS]
    return next((need for need in needs if need <= free), needs[-1])


def slow_findings(*, measure: bool = True) -> list[Finding]:
    """What will be slow here, and why.

    Args:
        measure: True times a matrix product and a read of memory (a second). False looks at what is known without.
    """
    import torch

    found: list[Finding] = []
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name):
            found.append(Finding(f"{name}={os.environ[name]} limits the threads", "unset it to use all cores" if threads < cores else ""))
    if pick_device() == "cpu":
        found.append(
            Finding("no GPU: float32 on the processor; models up to about 1 billion weights are practical, `accord plan` says how long")
        )
        if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX") and platform.machine().lower() in ("x86_64", "amd64"):
            found.append(
                Finding(
                    "this processor (or this build of torch) has no AVX2: products run at a fraction of the usual speed",
                    "another torch build may help",
                )
            )
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > cores * BUSY:
        found.append(
            Finding(
                f"other programs are busy (load {load:.1f} on {cores} cores): steps swing by a factor of two",
                "close them before you measure",
            )
        )
    if measure:
        with torch.no_grad():
            speed, memory = gemm_gflops(1024, 3), read_gb_per_second(100)
        slow = speed < SLOW_GFLOPS or memory < SLOW_GB
        found.append(
            Finding(
                f"products {speed:.0f} GF/s, memory {memory:.0f} GB/s (the README's lesson is timed on two cores with 85 to 170 and 20)",
                "training will take several times as long as it says there" if slow else "",
            )
        )
    return found


def model_findings(name: str) -> list[Finding]:
    """Whether a model's tokenizer has a template that accord can train on, ends its answers, and pads with another token."""
    from accord.data.render import Renderer
    from accord.models.opened import open_tokenizer
    from accord.types import Completion, Example, Message

    try:
        tokenizer, ends = open_tokenizer(name)
    except AccordError as error:
        return [Finding(f"{name}: {error}", "nothing more can be checked")]
    names = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in ends)
    fallback = str(tokenizer.chat_template).endswith(PLAIN_TEMPLATE.removeprefix("{BOS}"))
    found = [Finding(f"{name}: template {PLAIN_TEMPLATE_NAME if fallback else 'of its own'}, answers end with {names}")]
    if not ends:
        found.append(
            Finding(f"{name}: nothing ends an answer", "set eos_token in its tokenizer_config.json, or training never learns to stop")
        )
        return found
    if tokenizer.pad_token_id in ends:
        found.append(Finding(f"{name}: the pad token ends answers", "set another pad_token: code that masks padding would mask ends"))
    question, answer = (Message("user", "Which?"),), (Message("assistant", "Blue."),)
    try:
        rendered = Renderer(tokenizer, end_ids=ends).unit(Example("demonstration", question, (Completion(answer),), where="its template"))
    except AccordError as error:
        return [*found, Finding(f"{name}: {error}", "accord refuses to train it as it is")]
    last = rendered.branches[0]
    if last.ids[-1] not in ends or (last.counted is not None and not last.counted[-1]):
        found.append(
            Finding(f"{name}: the answer that is learned has no end token", "the model would not learn to stop: check its template")
        )
    return found


def cached_models() -> Iterable[str]:
    """Names of the models that are fetched already."""
    folder = cache_folder() / "models"
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        record = read_record(path) if path.is_dir() else None
        if record is not None:
            yield str(record["name"])


def _existing(folder: Path) -> Path:
    """The nearest folder that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _total_memory() -> int:
    try:
        import psutil
    except ImportError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else available_memory()
    return int(psutil.virtual_memory().total)
