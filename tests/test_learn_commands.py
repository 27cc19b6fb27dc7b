"""The learning pages' commands, each page's in its order and to its end: the same words, on a tiny model, with a step or two of everything.

What stands for what is in `STANDS_FOR`, what is made smaller in `SMALLER`; a command on a page that fits neither fails here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
import tiny_demo
import tiny_gguf
from accord.annotation.project import Project
from accord.cli import COMMANDS, main
from accord.recipes import align
from accord.recipes.demo import QUICK
from pages import commands
from tiny_rounds import prefer_e

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "learn").glob("*.md"))
STANDS_FOR = {
    "smollm2-135m": "model",
    "gemma3-270m": "model",
    "MODEL": "model",
    "judge=MODEL": "judge=model",
    "x": "model",
    "http://127.0.0.1:8000/v1#NAME": "rules",
    "runs/...": "runs/my-sft",
}
ELSEWHERE = {
    "demo": "tests/recipes/test_routes.py, test_hacking.py, test_reasoning.py and test_constitution.py run every route on a tiny model",
}
STEPS = {"max_steps": "2", "per_device_train_batch_size": "4", "lora_r": "2", "force": None}
ROUNDS = {"num_iterations": "2", "prompts_per_iteration": "2", "num_generations": "2", "max_new_tokens": "4", "lora_r": "2", "force": None}
SMALLER: dict[str, dict[str, str | None]] = {
    "sft": STEPS,
    "reward": STEPS,
    "prm": STEPS,
    "dpo": STEPS,
    "ppo": ROUNDS,
    "grpo": {"max_steps": "2", "per_device_train_batch_size": "4", "num_generations": "2", "max_completion_length": "4", "lora_r": "2"},
    "prm label": {"data": "heldout-steps.jsonl", "rollouts": "2", "max_new_tokens": "8", "force": None},
    "evaluate": {},
    "sample": {"max_new_tokens": "4"},
    "chat": {"max_new_tokens": "4"},
    "align": {"iterations": "1", "max_new_tokens": "8"},
    "annotate": {"max_new_tokens": "4", "port": "0", "open_browser": "false"},
    "ui": {"port": "0", "open_browser": "false"},
    "audit": {"limit": "2", "max_new_tokens": "4"},
    "lab": {"level": "exact", "seeds": "1"},
    "export": {"prompts": "2", "force": None},
    "judge": {"use_noise": None},
    "judge check": {},
    "debate": {"count": "4"},
    "constitution": {"max_new_tokens": "8"},
    "doctor": {"quick": None},
    "plan": {},
    "data": {},
    "project": {},
}
"""By command: options that are set, whether the page gives them or not; None for those that take no value. A model of random weights writes no steps, so
those of a file are labelled."""
SERVES = ("ui", "annotate")
ALONE = ("doctor", "lab", "ui")
"""Commands that need no more than their name; of others a name alone, or with an option, is spoken of and not to be typed (`accord plan` asks, on a terminal: tests/planning)."""
FUNCTIONS = """
def right(completions, **columns):
    return [float(len(completion[0]["content"]) % 2) for completion in completions]

def final(completions, **columns):
    return [completion[0]["content"][-1:] or None for completion in completions]
"""


def rows() -> dict[str, list[dict[str, Any]]]:
    pairs = [{"prompt": f"Pick {i}", "chosen": f"Blue {i}.", "rejected": "No."} for i in range(24)]
    prompts = [{"prompt": f"Tell me about {word} {i}"} for i, word in enumerate((tiny.WORDS * 2)[:20])]
    steps = [{"prompt": f"Add {i}", "completions": [f"{i}+1={i + 1}", f"{i}+2={i}"], "labels": [True, i % 2 == 0]} for i in range(6)]
    return {
        "demonstrations.jsonl": [{"prompt": f"Say {i}", "completion": f"It is {i}."} for i in range(6)],
        "pairs.jsonl": pairs,
        "heldout.jsonl": pairs[:4],
        "people.jsonl": pairs,
        "prompts.jsonl": prompts,
        "problems.jsonl": prompts[:4],
        "heldout-problems.jsonl": prompts[4:8],
        "red-team.jsonl": [{**prompt, "harmful": True} for prompt in prompts[:12]],
        "heldout-steps.jsonl": steps,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted: a model, files, a project with labels, and a run of each kind."""
    folder = tmp_path_factory.mktemp("learn")
    tiny_gguf.saved(folder / "model", "llama")
    for name, found in rows().items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    llmbar = [{"input": f"Pick {i}", "output_1": f"Blue {i}.", "output_2": "No idea.", "label": 1 + i % 2} for i in range(10)]
    (folder / "llmbar.json").write_text(json.dumps(llmbar), encoding="utf-8")
    for name in ("check.py", "reward.py"):
        (folder / name).write_text(FUNCTIONS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran(["sft", "demonstrations.jsonl", "--output_dir", "runs/my-sft"])
        ran(["reward", "pairs.jsonl", "--output_dir", "runs/my-reward"])
        ran(["prm", "heldout-steps.jsonl", "--output_dir", "runs/my-prm"])
        ran(["ppo", "prompts.jsonl", "--reward_model", "runs/my-reward", "--output_dir", "runs/ppo"])
        for source, copy in (("my-sft", "sft"), ("my-reward", "reward"), ("my-reward", "other")):
            shutil.copytree(f"runs/{source}", f"runs/{copy}")
        labelled("labels")
    return folder


def labelled(project: str) -> None:
    """A project of twenty comparisons that somebody who likes the letter e has judged."""
    assert main(["project", "new", project]) == 0
    assert main(["project", "import-tasks", project, "pairs.jsonl"]) == 0
    store = Project(project).open_store()
    try:
        assert prefer_e(store, store.add_annotator("Ann").id) > 0
    finally:
        store.close()
    assert main(["project", "snapshot", project]) == 0


def named(words: Sequence[str]) -> str:
    """The command's name: one or two of the words."""
    return " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]


def whole(words: Sequence[str]) -> bool:
    """Whether there is a file, a folder or a question to work on."""
    rest = words[len(named(words).split()) :]
    return words[0] in ALONE or (bool(rest) and (not rest[0].startswith("--") or any("--data" in word for word in rest)))


def smaller(words: Sequence[str]) -> list[str]:
    """The same command on what stands for what, with its sizes replaced."""
    name = named(words)
    found = [STANDS_FOR.get(word, word) for word in words]
    options: dict[str, str | None] = dict(SMALLER[name])
    if name in ("sft", "reward", "prm", "prm label", "dpo", "ppo", "grpo", "align", "constitution") and "--model" not in found:
        options["model"] = "model"
    if "--best-of" in found:
        options |= {"best_of": "2", **({"sample_tokens": "8"} if name == "sft" else {"max_new_tokens": "8"})}
    if "--rounds" in found:
        options |= {
            "feedback": "simulated",
            "reward": "reward.py:right",
            "labels": "8",
            "comparisons": "4",
            "rounds": "2",
            "project": "panel",
        }
    for option, value in options.items():
        given = next((place for place, word in enumerate(found) if word.replace("-", "_") == f"__{option}"), None)
        if given is not None and value is not None:
            found[given + 1] = value
        elif given is None:
            found += [f"--{option}", *([] if value is None else [value])]
    return found


def ran(words: Sequence[str]) -> None:
    assert main(smaller(words)) == 0, words


def served(words: Sequence[str]) -> None:
    """A command that serves until Ctrl-C: it says where, and ends in order."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "accord", *smaller(words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        while not re.search(r"http://127\.0\.0\.1:\d+", said[-1] if said else ""):
            said.append(process.stdout.readline())
            assert said[-1], said
        for _ in range(
            60
        ):  # it says where before it listens to signals, and a Ctrl-C that nobody listens to is lost where a shell ignores it
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        assert process.poll() in (0, 130), said
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page(page: Path, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))  # sizes alone: the code is the command's own
    typed = 0
    for _, *words in commands(page):
        if not words or words[0] in ELSEWHERE or not whole(words):
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO())
        served(words) if words[0] in SERVES else ran(words)  # each insists on the exit code
        typed += 1
    assert typed or all(len(words) < 2 or words[1] in ELSEWHERE or not whole(words[1:]) for words in commands(page))


def test_what_is_made_smaller_is_on_a_page() -> None:
    """Nothing here that no page needs, apart from what makes the runs the pages take for granted."""
    there = {named(words) for page in PAGES for _, *words in commands(page) if words}
    assert set(SMALLER) <= there
    assert set(ELSEWHERE) <= there
