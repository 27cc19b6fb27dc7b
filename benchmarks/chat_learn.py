"""Does `accord chat --learn` move a model while you watch? A script in a browser prefers the shorter of two answers, forty times.

python benchmarks/chat_learn.py            # the starter model, a real server, Chromium through Playwright; about ten minutes on two cores

Before and after, answers to prompts that were never asked on the page are drawn with the same seeds, as the page draws: from the model, and from
the adapter that the page saved. An answer that does not end counts as the longest there is, so the fall is if anything understated. Needs pip install 'accord[annotate]' playwright, and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from peak import gemm_gflops

from accord.config.options import ChatOptions
from accord.models.opened import open_model
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message

ASKED = """What is the capital of France?
How many days are in a week?
Is the sun a star?
What color is a banana?
What is 2 plus 3?
Can penguins fly?
Who wrote Romeo and Juliet?
What is a baby cat called?
Do spiders have eight legs?
What is the opposite of hot?
Where do polar bears live?
Name a fruit.
How many hours are in a day?
What is the largest ocean?
Do cats like milk?
What do bees make?
Is a tomato a fruit?
What language do people speak in Brazil?
Which month comes after May?
What is frozen water called?
What is the tallest mountain?
Can fish breathe in air?
What color is the sky?
Name a European country.
Is chocolate good for dogs?
What do cows eat?
Who painted the Mona Lisa?
What is bread made of?
Which planet is closest to the sun?
What is an umbrella for?
What is the capital of Japan?
Is it healthy to eat apples?
When is Christmas?
What does a baker do?
How many legs does an ant have?
What is the fastest land animal?
Is the moon bigger than the earth?
Where does milk come from?
What is a verb?
Name an animal that can swim.""".splitlines()
"""Short questions of fact: at 128 tokens the starter ends three of four answers by itself. A pair of two that were cut off says nothing about length."""
MEASURED = """What is the capital of Italy?
How many months are in a year?
Is water wet?
What color is grass?
What is 4 plus 4?
Can birds swim?
Who was the first man on the moon?
What is a baby dog called?
Do horses eat meat?
What is the opposite of big?
Where do kangaroos live?
Name a vegetable.
What is the longest river?
Do plants need light?
What do hens lay?
Is a whale a fish?
What language do people speak in Egypt?
Which day comes after Monday?
What is glass made of?
What is a bicycle for?
What does a dentist do?
What is a noun?
Is it healthy to walk?
Name a color.""".splitlines()
"""Others of the same kind, never asked on the page."""
DRAWS = 2
"""Answers to each measured prompt."""
CHAT = ChatOptions()
"""How answers are drawn, unless options say otherwise: as the page draws them."""


@dataclass(frozen=True)
class Drawn:
    """Answers to the prompts that are never asked."""

    lengths: list[float]
    """Mean tokens, a prompt each."""
    finished: float
    """Share of the answers that ended by themselves."""
    first: list[str]
    """One answer to each prompt."""


def measured(name: str) -> Drawn:
    """What a model answers to the prompts that are never asked on the page."""
    opened = open_model(name)
    prompts = [Prompt(text, tuple(opened.renderer.prompt_ids([Message("user", text)])), (Message("user", text),), {}) for text in MEASURED]
    config = SamplingConfig(CHAT.max_new_tokens, DRAWS, CHAT.temperature, top_p=1.0, seed=1)
    rollouts = LocalSampler(opened.policy, opened.renderer, opened.stack).sample(prompts, config)
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    return Drawn(
        lengths=[sum(lengths[at : at + DRAWS]) / DRAWS for at in range(0, len(lengths), DRAWS)],
        finished=sum(rollout.finish_reason == "stop" for rollout in rollouts) / len(rollouts),
        first=[rollout.text for rollout in rollouts[::DRAWS]],
    )


def fall(before: Drawn, after: Drawn) -> list[float]:
    """By which share answers got shorter, and its 95 % interval: prompts drawn again and again (Efron 1979)."""
    pairs = np.array([before.lengths, after.lengths])
    drawn = pairs[:, np.random.default_rng(0).integers(0, len(MEASURED), (2000, len(MEASURED)))].sum(2)
    low, high = np.quantile(1 - drawn[1] / drawn[0], [0.025, 0.975])
    return [round(float(share), 3) for share in (1 - pairs[1].sum() / pairs[0].sum(), low, high)]


class Server:
    """`accord chat --learn` as people start it."""

    def __init__(self, model: str, folder: Path, more: list[str]) -> None:
        command = [sys.executable, "-m", "accord", "chat", model, "--learn", "--output_dir", str(folder)]
        command += ["--port", "0", "--open_browser", "no", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        found = re.search(r"http://\S+", line)
        assert found is not None
        self.address = found[0]

    def peak_gb(self) -> float:
        """Highest resident memory so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(text.partition("VmHWM:")[2].split()[0]) / 1e6

    def cpu_minutes(self) -> float:
        """Of all its threads so far."""
        used = psutil.Process(self.process.pid).cpu_times()
        return (used.user + used.system) / 60


@contextmanager
def running(model: str, folder: Path, more: list[str]) -> Iterator[Server]:
    """The server, until Ctrl-C, which saves."""
    server = Server(model, folder, more)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(300)


@contextmanager
def page_of(address: str) -> Iterator[Any]:
    """The page in Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(address)
        try:
            yield page
        finally:
            browser.close()


def click(page: Any, question: str) -> tuple[int, int] | None:
    """Ask in a new conversation, prefer the shorter answer; returns both lengths in characters. None: the page has no two answers to show,
    because the model said the same again and again."""
    page.locator("#fresh").click()
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")
    refused = "document.getElementById('status').className === 'bad'"
    page.wait_for_function(f"() => document.body.dataset.task || {refused}")  # a function: the site forbids eval
    if page.evaluate(refused):
        said = page.locator("#status").inner_text()
        if "the same answer" not in said:
            raise SystemExit(said)
        return None
    one, two = (len(text.strip()) for text in page.locator("#pair .answer .text").all_inner_texts())
    page.keyboard.press("t" if one == two else "1" if one < two else "2")
    page.wait_for_function("() => !document.body.dataset.task")
    return one, two


def learned(page: Any) -> dict[str, Any]:
    """Wait until every preference was learned from; what the page says then."""
    while True:
        state = page.evaluate("fetch('/api/chat/state').then((reply) => reply.json())")
        if state["problem"]:
            raise SystemExit(state["problem"])
        if not state["waiting"]:
            return {"clicks": state["clicks"], "steps": state["steps"], "problem": state["problem"]}
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results" / "chat_learn.json")
    parser.add_argument("--shots", type=Path, default=None, help="folder for screenshots of the page at its end")
    parser.add_argument("more", nargs="*", help="further options of accord chat, after --")
    given = parser.parse_args()
    before = measured(given.model)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "learned"
        with running(given.model, folder, given.more) as server, page_of(server.address) as page:
            started, opening = time.perf_counter(), server.cpu_minutes()
            lengths = [click(page, question) for question in ASKED[: given.clicks]]  # a question without two answers is no click
            state = learned(page)
            minutes = (time.perf_counter() - started) / 60
            cpu_minutes = server.cpu_minutes() - opening
            shown = {name: page.locator(f"#{name}").inner_text() for name in ("clicks", "steps", "kl", "length")}
            if given.shots is not None:
                shoot(page, given.shots)
            peak = server.peak_gb()
        after = measured(str(folder))
    found = {
        "model": given.model,
        "clicks": state["clicks"],
        "steps": state["steps"],
        "minutes": round(minutes, 2),
        "cpu minutes": round(cpu_minutes, 2),
        "tokens before": round(statistics.mean(before.lengths), 1),
        "tokens after": round(statistics.mean(after.lengths), 1),
        "fall": fall(before, after),
        "finished before": round(before.finished, 3),
        "finished after": round(after.finished, 3),
        "page": shown,
        "peak GB": round(peak, 2),
        "options": given.more,
        "cores": len(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "gemm GF/s": round(gemm_gflops(), 1),
        "characters shown": lengths,
        "answers": [{"prompt": p, "before": b, "after": a} for p, b, a in zip(MEASURED, before.first, after.first, strict=True)],
    }
    given.to.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name not in ("characters shown", "answers")}))


def shoot(page: Any, folder: Path) -> None:
    """The page at two widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=folder / f"chat-{width}.png", full_page=True)


if __name__ == "__main__":
    main()
