"""What a user of `accord align --rounds` stands in: forty prompts, a truth that counts letters, small sizes, and somebody who likes the letter e."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from accord.annotation.project import Project
from accord.annotation.results import Assignment
from accord.annotation.store import Store

BEGINNINGS = ("Once upon a time", "One day", "There was a", "The little", "A big", "Tom and", "Lily saw", "The dog")
PEOPLE = ("girl", "boy", "cat", "bird", "dog")
TRUTH = """
def e(completions):
    return [float(c[0]['content'].lower().count('e')) for c in completions]

def letters(completions):
    return [float(sum(map(str.isalpha, c[0]['content']))) for c in completions]
"""
SIZES = ["--labels", "24", "--comparisons", "6", "--max-new-tokens", "12", "--iterations", "3"]
SIMULATED = ("--feedback", "simulated", "--reward", "truth.py:e")


def write_place(folder: Path) -> None:
    """Prompts and the truth as a function, in the folder where commands are given."""
    rows = [{"prompt": f"{beginning} {who}"} for beginning in BEGINNINGS for who in PEOPLE]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "truth.py").write_text(TRUTH, encoding="utf-8")


def command(model: str, *more: str, rounds: int = 2) -> list[str]:
    return ["align", "--data", "prompts.jsonl", "--model", model, "--rounds", str(rounds), *SIZES, *more]


def opened(project: str = "labels") -> Store:
    return Project(project).open_store()


def stage(run: str, number: int, name: str) -> dict[str, Any]:
    return json.loads((Path("runs") / run / f"round-{number}" / name / "stage.json").read_text(encoding="utf-8"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def prefer_e(store: Store, annotator: str, count: int | None = None) -> int:
    """Label what there is to label, as somebody who likes the letter e; returns how many."""
    done = 0
    while count is None or done < count:
        given = store.next_task(annotator)
        if not isinstance(given, Assignment):
            break
        counts = [completion.text.lower().count("e") for completion in given.task.completions]
        choice: Any = "tie" if counts[0] == counts[1] else int(counts[1] > counts[0])
        store.submit(
            annotator, given.task.id, given.token, f"s-{annotator}-{given.task.id}-{done}", "pair", {"choice": choice}, seconds=2.0
        )
        done += 1
    return done
