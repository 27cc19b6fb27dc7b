"""The nouns everything shares: frozen dataclasses with a JSON round trip and a schema number. Standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

SCHEMA = 1
"""Version of the JSON written by `to_json`; a reader refuses a newer one."""

Role = Literal["system", "user", "assistant", "tool"]
T = TypeVar("T")


@dataclass(frozen=True)
class Message:
    """One turn of a chat: the dict everyone uses."""

    role: Role
    content: str


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt. Usually one assistant message; more when a conversation goes on after the first answer."""

    messages: tuple[Message, ...]
    finished: bool = True
    """True: the answer ended by itself and its end token is learned. False: it was cut off, so no end token follows it."""
    source: dict[str, Any] = field(default_factory=dict[str, Any])
    """Who wrote it: {"kind": "human"} or {"kind": "sample", "model": ..., "sha256": ..., "seed": ...}."""

    @property
    def text(self) -> str:
        """The text of the last assistant message."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def id(self) -> str:
        """Stable id from what it says, whoever wrote it (16 hex digits)."""
        return content_hash([[m.role, m.content] for m in self.messages])


Kind = Literal["text", "demonstration", "prompt", "preference", "ranking", "labelled", "steps"]


@dataclass(frozen=True)
class Example:
    """One row of training data in the one shape: a prompt, its completions, and what is known about them.

    | kind          | completions | what is known |
    |---------------|-------------|---------------|
    | text          | 1 (prompt is empty)  | plain text to continue |
    | demonstration | 1           | it is good |
    | prompt        | 0           | nothing yet |
    | preference    | 2           | completions[0] is preferred, see `probability`, `strength` |
    | ranking       | 2..K        | `ranks`: 1 is best, equal ranks are ties |
    | labelled      | 1           | `label`: desirable or not (KTO) |
    | steps         | 1 (one assistant message a step) | `step_labels` |
    """

    kind: Kind
    prompt: tuple[Message, ...]
    completions: tuple[Completion, ...] = ()
    ranks: tuple[int, ...] | None = None
    probability: float | None = None
    """Probability that completions[0] is better (soft label); 0.5 is a tie; None means certain (1.0)."""
    strength: float | None = None
    """How much better completions[0] is, in the data's own units (margin of the reward loss); None means not stated."""
    label: bool | None = None
    step_labels: tuple[int | None, ...] | None = None
    """A step each: 1 right, 0 neutral, -1 wrong, None not judged."""
    step_probabilities: tuple[float | None, ...] | None = None
    """Soft labels: the probability that each step is right, None not known. None for the whole row where it states none."""
    plain: bool = False
    """True: the row held plain strings rather than chat messages. False: it held role/content lists."""
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    """Every other column of the row, passed through to reward functions and kept when written back."""
    where: str = ""
    """File and row it came from, for error messages: `prefs.jsonl line 12`."""

    @property
    def id(self) -> str:
        """Stable id from the content of prompt and completions (16 hex digits)."""
        parts = [[m.role, m.content] for m in self.prompt]
        answers = [[[m.role, m.content] for m in c.messages] for c in self.completions]
        return content_hash([self.kind, parts, answers])

    @property
    def prompt_id(self) -> str:
        """Stable id from the prompt alone: what train/test splits and leakage checks go by (16 hex digits)."""
        return content_hash([[m.role, m.content] for m in self.prompt])


@dataclass(frozen=True)
class Score:
    """What a reward function says. A failure is `error`, never a 0."""

    value: float | None
    parts: dict[str, float] = field(default_factory=dict[str, float])
    explanation: str | None = None
    error: str | None = None
    steps: tuple[float, ...] | None = None
    """Of a process reward: what each step of the answer is worth, larger is better. None where steps are not judged."""
    step_ends: tuple[int, ...] | None = None
    """After how many of the answer's tokens each of them ends, ascending."""


@dataclass(frozen=True)
class Rollout:
    """One sampled answer with everything training and audit need to know about it."""

    prompt_id: str
    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """Sampled token ids, the end token included when there is one."""
    text: str
    sampler_logprobs: tuple[float, ...]
    """log-probability of each sampled token under the distribution it was drawn from, in nats."""
    finish_reason: Literal["stop", "length"]
    sample_index: int = 0
    """Which of the G answers to this prompt."""
    policy_step: int = 0
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    score: Score | None = None
    sampled_mask: tuple[bool, ...] | None = None
    """False where a token was put there by an environment (a tool's answer) rather than sampled: nothing is learned from it. None: all were sampled."""

    @property
    def counted_logprobs(self) -> tuple[float, ...]:
        """`sampler_logprobs` of the tokens that were sampled."""
        if self.sampled_mask is None:
            return self.sampler_logprobs
        return tuple(value for value, sampled in zip(self.sampler_logprobs, self.sampled_mask, strict=True) if sampled)


TaskKind = Literal["pair", "ranking", "rating", "steps", "edit", "chat"]
AnnotationKind = Literal["pair", "ranking", "rating", "steps", "edit", "chat", "flag", "skip", "undo"]
"""A task's own kind is its answer; an edit may stand beside it. flag: the task is bad. skip: somebody else should judge it. undo: takes back the
annotation that it supersedes."""
LabelSource = Literal["human", "ai", "rule", "debate", "simulated"]
Purpose = Literal["work", "gold", "repeat", "calibration", "adjudication"]
Arm = Literal["random", "selected"]


@dataclass(frozen=True)
class Task:
    """A question to an annotator: a prompt, the answers to judge, and which kind of judgement is wanted.

    | kind    | completions | the answer is |
    |---------|-------------|---------------|
    | pair    | 2           | which is better, how clearly; a tie; both are bad |
    | ranking | 2..K        | a rank each, ties allowed |
    | rating  | 1           | 1 (worst) to 7 (best), with flags |
    | steps   | 1 (one assistant message a step) | a label a step, or the first error |
    | edit    | 1..K        | a better text for one of them |
    | chat    | 1 (a recorded conversation) | a rating or a better text for each of the assistant's turns, or for some |
    | chat    | 2 (two of them) | which is better, turn by turn |
    | chat    | 0           | a conversation that goes on live from the prompt, with a choice at each turn |
    """

    id: str
    kind: TaskKind
    prompt: tuple[Message, ...]
    completions: tuple[Completion, ...] = ()
    gold: dict[str, Any] | None = None
    """The right value, where it is known: a task that measures annotators. None: nobody knows yet."""
    round: int = 0
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    """Every other column of the row it was made from, passed on to the examples."""

    @property
    def prompt_id(self) -> str:
        """Stable id from the prompt alone, equal to that of the examples made from it."""
        return content_hash([[m.role, m.content] for m in self.prompt])


def task_id(kind: TaskKind, prompt: tuple[Message, ...], completions: tuple[Completion, ...] = (), round: int = 0) -> str:
    """The id that a task gets from its content and round: asking the same again in one round is the same task (16 hex digits)."""
    return content_hash([kind, [[m.role, m.content] for m in prompt], [completion.id for completion in completions], round])


@dataclass(frozen=True)
class Annotation:
    """What one annotator said about one task. Never changed: a later one supersedes it. `data.annotation_values` says what `value` holds."""

    id: str
    task: str
    kind: AnnotationKind
    value: dict[str, Any]
    """Answers are named by their place in the task, never by the place they were shown at."""
    annotator: str
    """A key that stands for a person, a model or a program; names are kept elsewhere."""
    source: LabelSource = "human"
    strength: int | None = None
    """How much better the chosen answer of a pair is: 1 (hardly) to 4 (far). None: not stated."""
    probability: float | None = None
    """Of a pair: the probability that the task's first answer is better, from a source that knows one. None: it is certain."""
    shown_order: tuple[int, ...] = ()
    """Which answer stood at each place of the page, from the left or top."""
    seconds: float | None = None
    rationale: str | None = None
    guideline_version: int | None = None
    round: int = 0
    supersedes: str | None = None
    created: str = ""
    """UTC, ISO 8601."""
    purpose: Purpose = "work"
    """Why the task was given: as work, to measure the annotator (gold, repeat), in the calibration round, or to settle a dispute."""
    arm: Arm = "random"
    """Whether chance or a rule chose the task: evaluation may use the random ones alone."""
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    """What else the tool that it came from said of it. Goes when the annotator's data are erased, and never into a snapshot."""


def content_hash(value: Any, digits: int = 16) -> str:
    """Hex digest of a JSON-able value, the same on every machine and in every run."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8"), digest_size=32).hexdigest()[:digits]


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass of this module as a JSON-able dict with `schema` and `type`."""
    return {"schema": SCHEMA, "type": type(value).__name__, **dataclasses.asdict(value)}


def from_json(data: dict[str, Any], kind: type[T]) -> T:
    """The inverse of `to_json`.

    Raises:
        DataError: if the data were written by a newer release or are of another type.
    """
    from accord.errors import DataError

    data = dict(data)
    schema, name = data.pop("schema", SCHEMA), data.pop("type", kind.__name__)
    if schema > SCHEMA:
        raise DataError(f"This {name} has schema {schema}; this release of accord reads up to {SCHEMA}. Upgrade accord to open it.")
    if name != kind.__name__:
        raise DataError(f"Expected a {kind.__name__} and found a {name}.")
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name in data:
            data[item.name] = _revive(item.name, data[item.name])
    return kind(**data)


def _revive(name: str, value: Any) -> Any:
    if name in ("prompt", "messages") and value is not None:
        return tuple(Message(**m) for m in value)
    if name == "completions" and value is not None:
        return tuple(Completion(tuple(Message(**m) for m in c["messages"]), c["finished"], c["source"]) for c in value)
    if name == "score" and value is not None:
        fields: dict[str, Any] = dict(value)
        fields |= {key: tuple(fields[key]) for key in ("steps", "step_ends") if fields.get(key) is not None}
        return Score(**fields)
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value
