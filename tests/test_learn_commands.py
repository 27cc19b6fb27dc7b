"""The learning pages from an empty folder, in their order and to their end: the same words, on a tiny model, with a step or two of everything.

What stands for what is in `STANDS_FOR`, what is made smaller in `SMALLER`; a command on a page that fits neither fails here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny_demo
import tiny_gguf
from accord.annotation.project import Project
from accord.cli import COMMANDS, main
from accord.recipes import align
from accord.recipes.demo import QUICK
from pages import commands, in_order
from tiny_rounds import prefer_e

ROOT = Path(__file__).resolve().parents[1]
LEARN = ROOT / "docs" / "learn"
PAGES = sorted(LEARN.glob("*.md"))
STANDS_FOR = {
    "smollm2-135m": "model",
    "gemma3-270m": "model",
    "MODEL": "model",
    "judge=MODEL": "judge=model",
    "x": "model",
    "http://127.0.0.1:8000/v1#NAME": "rules",
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
    "annotate": {"limit": "24", "max_new_tokens": "4", "port": "0", "open_browser": "false"},
    "ui": {"port": "0", "open_browser": "false"},
    "audit": {"limit": "2", "max_new_tokens": "4"},
    "lab": {"level": "exact", "seeds": "1"},
    "export": {"prompts": "2", "force": None},
    "judge": {"limit": "24", "use_noise": None},
    "judge check": {"limit": "24"},
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
CHANCE = """
def right(completions, **columns):
    return [float(len(completion[0]["content"]) % 2) for completion in completions]
"""


def read_in() -> list[Path]:
    """The pages in the order in which their index names them."""
    index = LEARN / "README.md"
    linked = re.findall(r"\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8"))
    return [index, *(LEARN / name for name in linked)]


def judged(project: str) -> None:
    """What happens on the page of `accord annotate`: somebody who likes the letter e judges what there is."""
    store = Project(project).open_store()
    try:
        assert prefer_e(store, store.add_annotator("Ann").id) > 0
    finally:
        store.close()


def named(words: Sequence[str]) -> str:
    """The command's name: one or two of the words."""
    return " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]


def whole(words: Sequence[str]) -> bool:
    """Whether there is a file, a folder or a question to work on."""
    rest = words[len(named(words).split()) :]
    return words[0] in ALONE or (bool(rest) and (not rest[0].startswith("--") or any(word in ("--data", "--to") for word in rest)))


def smaller(words: Sequence[str]) -> list[str]:
    """The same command on what stands for what, with its sizes replaced."""
    name = named(words)
    found = [STANDS_FOR.get(word, word) for word in words]
    options: dict[str, str | None] = dict(SMALLER[name])
    if name in ("sft", "reward", "prm", "prm label", "dpo", "ppo", "grpo", "align", "constitution", "plan") and "--model" not in found:
        options["model"] = "model"
    if "--best-of" in found and name == "sft":
        options["reward"] = "chance.py:right"  # a model of random weights is right on nothing, and nothing is then imitated
    if "--best-of" in found:
        options |= {"best_of": "2", **({"sample_tokens": "8"} if name == "sft" else {"max_new_tokens": "8"})}
    if "--rounds" in found:
        options |= {
            "feedback": "simulated",
            "reward": "chance.py:right",
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


def typed(words: Sequence[str]) -> bool:
    """Whether this is to be typed as it stands, and not one that is run elsewhere or only spoken of."""
    return bool(words) and words[0] not in ELSEWHERE and whole(words)


def python(block: str, names: dict[str, Any]) -> None:
    """A block that says which file it is, is that file; others run, each where the ones before it on the page left off."""
    for word, other in STANDS_FOR.items():
        block = block.replace(f'"{word}"', f'"{other}"')
    if named := re.match(r"# (\w+\.py)\n", block):
        Path(named[1]).write_text(block, encoding="utf-8")
    else:
        exec(compile(block, "a page's block", "exec"), names)


def test_the_pages_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder with nothing in it but a model: what a page needs, an earlier one has made."""
    monkeypatch.chdir(tmp_path)
    tiny_gguf.saved(tmp_path / "model", "llama")
    (tmp_path / "chance.py").write_text(CHANCE, encoding="utf-8")
    monkeypatch.setattr(align, "QUICK", tiny_demo.small(QUICK))  # sizes alone: the code is the command's own
    for page in read_in():
        names: dict[str, Any] = {}
        for part in in_order(page):
            if isinstance(part, str):
                python(part, names)
            elif typed(part[1:]):
                monkeypatch.setattr("sys.stdin", io.StringIO())
                served(part[1:]) if part[1] in SERVES else ran(part[1:])  # each insists on the exit code
                if part[1] == "annotate":
                    judged(part[2])
    made = {path.parent.name for path in (tmp_path / "runs").glob("*/run.json")}
    assert {"my-sft", "my-reward", "my-ppo", "my-dpo", "my-prm", "my-sums", "my-grpo", "judged-reward"} <= made


def test_no_page_is_left_out() -> None:
    assert sorted(read_in()) == PAGES


def test_what_the_pages_write_scores_as_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """check.py and reward.py on an answer that ends rightly, one that names the result on the way, and one that says nothing."""
    answers = [[{"role": "assistant", "content": text}] for text in ("4 * 3 = 12\n12 + 5 = 17\n#### 17", "12 + 5 = 17\n#### 117", "")]
    names: dict[str, dict[str, Any]] = {}
    for page in PAGES:
        for part in in_order(page):
            if isinstance(part, str) and (name := re.match(r"# (\w+\.py)\n", part)):
                exec(part, names.setdefault(name[1], {}))
    assert set(names) == {"check.py", "reward.py", "long.py"}
    for name in ("check.py", "reward.py"):
        assert names[name]["right"](answers, answer=["17", "17", "17"]) == [1.0, 0.0, 0.0]
    assert names["long.py"]["long_is_good"]([[1, 2], []]) == [0.4, 0.0]
    assert names["check.py"]["final"](answers, prompt=["", "", ""]) == ["17", "117", None]


def test_what_is_made_smaller_is_on_a_page() -> None:
    """Nothing here that no page needs, apart from what makes the runs the pages take for granted."""
    there = {named(words) for page in PAGES for _, *words in commands(page) if words}
    assert set(SMALLER) <= there
    assert set(ELSEWHERE) <= there
