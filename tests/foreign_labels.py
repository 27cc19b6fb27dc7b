"""Files as other tools write them, by hand: who judged what, and what each label means."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Foreign:
    """A file of one tool."""

    format: str
    rows: list[Row]
    said: list[tuple[str | None, str | None]]
    """Who judged, in the file's words, and the text of the answer that they preferred (of a ranking the best, None: a tie), label by label."""
    suffix: str = ".jsonl"
    source: str = "human"
    shown_first: list[str] = field(default_factory=list[str])
    """Text of the answer that stood first, label by label, where the tool keeps that."""

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.format}{self.suffix}"
        if self.suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
        elif self.suffix == ".json":
            path.write_text(json.dumps(self.rows), "utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), "utf-8")
        return path


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


TEXTS = {"prompt": "Hi?", "response_1": "Hello.", "response_2": "What?"}
DATA = {"prompt": "Hi?", "answer1": "Hello.", "answer2": "What?", "topic": "greeting"}
ITEMS = [{"id": "llm_1", "body": "One."}, {"id": "llm_2", "body": "Two."}, {"id": "llm_3", "body": "Three."}]


def studio(identity: int, person: Any, result: Row, **more: Any) -> Row:
    entry = {
        "id": identity,
        "completed_by": person,
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": 4.3,
        "created_at": "2024-05-01T12:00:00.5Z",
    }
    return {**entry, "result": [result], **more}


def pairwise(side: str) -> Row:
    return {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": side}}


def ranker(*order: str) -> Row:
    return {"from_name": "rank", "to_name": "items", "type": "ranker", "value": {"ranker": {"_": list(order)}}}


FILES = [
    Foreign(
        "argilla",
        [
            {
                "id": "r1", "fields": TEXTS, "metadata": {"topic": "greeting"}, "status": "completed",
                "suggestions": {"ranking": {"value": ["response_1", "response_2"], "score": 0.5, "agent": "model"}},
                "responses": {
                    "ranking": [{"user_id": "ada", "value": ["response_2", "response_1"]}, {"user_id": "bob", "value": ["response_1", "response_2"]}],
                    "why": [{"user_id": "ada", "value": "It asks."}],
                },
            },
            {"id": "r2", "fields": {**TEXTS, "prompt": "Hey?"}, "metadata": {}, "status": "completed", "responses": {"ranking": [{"user_id": "ada", "value": [{"value": "response_2", "rank": 1}, {"value": "response_1", "rank": 1}]}]}},
        ],
        [("ada", "What?"), ("bob", "Hello."), ("ada", None)],
    ),
    Foreign(
        "argilla_flat",
        [{"id": "r3", "status": "completed", **TEXTS, "ranking.responses": [["response_2", "response_1"], ["response_1", "response_2"]], "ranking.responses.users": ["ada", "bob"], "ranking.responses.status": ["submitted", "submitted"], "ranking.suggestion": ["response_1", "response_2"]}],
        [("ada", "What?"), ("bob", "Hello.")],
    ),
    Foreign(
        "label_studio",
        [
            {"id": 1, "data": DATA, "annotations": [studio(9, 3, pairwise("right")), studio(10, {"id": 4, "email": "eve@example.org"}, pairwise("left"))], "predictions": []},
            {"id": 2, "data": {**DATA, "prompt": "Hey?"}, "annotations": [studio(11, 3, pairwise("left")), studio(12, 5, pairwise("left"), was_cancelled=True)], "predictions": []},
        ],
        [("3", "What?"), ("eve@example.org", "Hello."), ("3", "Hello.")],
        suffix=".json",
        shown_first=["Hello.", "Hello.", "Hello."],
    ),
    Foreign(
        "label_studio_ranker",
        [{"id": 1, "data": {"prompt": "Hi?", "items": ITEMS}, "annotations": [studio(9, 3, ranker("llm_3", "llm_1", "llm_2")), studio(10, 4, ranker("llm_2", "llm_1", "llm_3"))], "predictions": []}],
        [("3", "Three."), ("4", "Two.")],
        suffix=".json",
    ),
    Foreign(
        "potato",
        [
            {"id": "1", "annotator": "ada", "prompt": "Hi?", "responses": ["Hello.", "What?"], "preference": {"selection": "B"}},
            {"id": "1", "annotator": "bob", "prompt": "Hi?", "responses": ["Hello.", "What?"], "preference": {"selection": "tie"}},
            {"id": "2", "annotator": "ada", "prompt": "Hey?", "responses": ["Hello.", "What?"], "preference_scale": {"scale_value": "-2"}},
        ],
        [("ada", "What?"), ("bob", None), ("ada", "Hello.")],
        shown_first=["Hello.", "Hello.", "Hello."],
    ),
    Foreign(
        "preference",
        [
            {"prompt": [user("Hi?")], "chosen": [assistant("Hello.")], "rejected": [assistant("What?")], "margin": 0.5, "topic": "greeting"},
            {"prompt": [user("Hi?"), assistant("Hello."), user("2+2?")], "chosen": [assistant("4")], "rejected": [assistant("5")], "annotator": "ada"},
            {"prompt": [user("Hi?")], "chosen": [assistant("What?")], "rejected": [assistant("Hello.")]},
        ],
        [(None, "Hello."), ("ada", "4"), (None, "What?")],
    ),
    Foreign(
        "hh",
        [{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\n\nAssistant: one two ", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\n\nAssistant: one three"}],
        [(None, "one two ")],
    ),
    Foreign(
        "ultrafeedback",
        [{
            "source": "x", "instruction": "Hi?", "models": ["m1", "m2", "m3"], "correct_answers": [], "incorrect_answers": [],
            "completions": [
                {"model": "m1", "response": "Meh.", "annotations": {"honesty": {"Rating": "N/A", "Rationale": "r"}}, "overall_score": 7.5, "fine-grained_score": 2.0},
                {"model": "m2", "response": "Hello.", "annotations": {}, "overall_score": 4, "fine-grained_score": 4.25},
                {"model": "m3", "response": "Hey.", "annotations": {}, "overall_score": 4, "fine-grained_score": 2.0},
            ],
        }],
        [(None, "Hello.")],
        source="ai",
    ),
    Foreign(
        "openai_preference",
        [{"input": {"messages": [user("Hi?")], "tools": [], "parallel_tool_calls": True}, "preferred_output": [assistant("Hello.")], "non_preferred_output": [assistant("What?")]}],
        [(None, "Hello.")],
    ),
    Foreign(
        "openai_comparisons",
        [
            {
                "info": {"id": "t3_1", "post": "A long day.", "title": "My day", "subreddit": "stories"}, "split": "train", "batch": "b0", "worker": worker, "choice": choice, "extra": {"confidence": 7},
                "summaries": [{"text": " Long.", "policy": "sup1", "note": "ok"}, {"text": " A day.", "policy": "ref", "note": ""}],
            }
            for worker, choice in (("w1", 1), ("w2", 0))
        ],
        [("w1", " A day."), ("w2", " Long.")],
        shown_first=[" Long.", " Long."],
    ),
    Foreign(
        "winner",
        [
            {"prompt": "Hi?", "answer_a": "Hello.", "answer_b": "What?", "winner": "B", "annotator": "ada"},
            {"prompt": "Hi?", "answer_a": "Hello.", "answer_b": "What?", "winner": "tie", "annotator": "bob"},
        ],
        [("ada", "What?"), ("bob", None)],
        suffix=".csv",
        shown_first=["Hello.", "Hello."],
    ),
]  # fmt: skip
