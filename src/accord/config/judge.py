"""What `accord judge` and `accord judge check` take."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError


@dataclass
class AskingOptions:
    """How language models are asked, in this process or behind a server."""

    answers: str | None = None
    """File that keeps what was answered, so that nothing is paid for twice. None stands beside the output."""
    seed: int = 0
    """Of the principles drawn, and of what is reasoned."""
    max_tokens: int | None = None
    """Server: tokens, in and out, that all answers of the file may take together. None: no limit."""
    max_cost: float | None = None
    """Server: the same in money, by --price_in and --price_out."""
    price_in: float = 0.0
    """Server: money for a million tokens of questions."""
    price_out: float = 0.0
    """Server: money for a million tokens of answers."""
    concurrency: int = 8
    """Server: questions on their way at a time."""
    requests_per_minute: float | None = None
    """Server: None asks as fast as answers come."""
    timeout: float = 60.0
    """Server: seconds to wait for one answer."""
    attempts: int = 6
    """Server: tries of one question, with longer and longer waits between them."""
    top_logprobs: int = 20
    """Server: likeliest tokens asked for, from which probabilities are read. 0: verdicts are parsed from text."""
    api_key_env: str = "ACCORD_API_KEY"
    """Server: environment variable with the key. It is sent to the server and written nowhere."""
    token_budget: int = 2048
    """Model in this process: tokens that go through it at once."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        for name in ("token_budget", "concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)} must be 1 or more.")


@dataclass
class JudgingOptions(AskingOptions):
    """Which judge, and how it is asked."""

    judge: str = ""
    """A model's name or folder, a server's address with its model behind it (http://127.0.0.1:8000/v1#MODEL), a reward model's run folder,
    rule:NAME, or file.py:function."""
    prompt: str | None = None
    """What a language model is asked: pairwise, pairwise_reasoned, principle, principle_reasoned, rating, rubric or a YAML file. None is pairwise."""
    principles: str | None = None
    """A YAML file with a list of principles, of which one is drawn for each comparison. None: those of the prompt."""

    def __post_init__(self) -> None:
        if not self.judge:
            raise ConfigError("accord judge needs --judge: a model, a server's address, a reward model's folder, or rule:NAME.")
        super().__post_init__()


@dataclass
class JudgeOptions(JudgingOptions):
    """`accord judge`."""

    data: str = ""
    """Comparisons to judge: any file `accord data check` reads; what people said of them is not shown to the judge."""
    to: str | None = None
    """The file of preference rows to write. None is <data>-judged.jsonl."""
    checked: str | None = None
    """What accord judge check wrote about this judge: noise is refused, and its calibration is applied. None: the judge is not checked."""
    use_noise: bool = False
    """True goes on with a judge that was found to be noise. False refuses."""
    human: str | None = None
    """Comparisons of the same two models that people judged: corrects the win rate for the judge's bias."""
    limit: int | None = None
    """Only the first so many rows. None: all."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("accord judge needs data: accord judge pairs.jsonl --judge smollm2-135m")
        super().__post_init__()


@dataclass
class CheckOptions(JudgingOptions):
    """`accord judge check`."""

    data: list[str] | None = None
    """Comparisons that people judged, one or several files: LLMBar's, PandaLM's test set, your own slice."""
    limit: int = 200
    """Comparisons of each file, drawn by --seed. 0 takes all."""
    to: str | None = None
    """The JSON file to write. None is judge-check.json."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError(
                "accord judge check needs comparisons that people judged: accord judge check llmbar.json mine.jsonl --judge MODEL"
            )
        if self.limit < 0:
            raise ConfigError(f"accord judge check --limit {self.limit} must be 0 (all) or more.")
        super().__post_init__()
