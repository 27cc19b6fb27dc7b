"""What `accord constitution` takes."""

from __future__ import annotations

from dataclasses import dataclass

from accord.config.options import check_sampling, check_weights
from accord.errors import ConfigError


@dataclass
class ConstitutionOptions:
    """`accord constitution`."""

    data: str = ""
    """Prompts that ask for what the constitution forbids; a column harmful: false marks harmless ones. Any file accord data check reads."""
    model: str = "smollm2-135m"
    """Name, folder, run, GGUF file or hub id of the model to train."""
    constitution: str = "everyday"
    """The principles: everyday, or a YAML file of yours (docs/constitution.md)."""
    critic: str = "rules"
    """Who criticises and revises: rules (the constitution's own), self (the model), another model, a server (URL#MODEL), or a YAML file with options of accord judge."""
    judge: str | None = None
    """Who compares answers: as --critic, or anything accord judge takes. None: the critic."""
    rl: str = "dpo"
    """What learns from the compared answers after imitation: dpo, ppo (with a reward model), or none."""
    rounds: int = 1
    """Critiques and revisions of each answer; each round draws a principle anew. 1 to 4."""
    shots: int = 2
    """Worked examples of the constitution that a language model sees before each question."""
    helpful: str | None = None
    """Demonstrations mixed with the revisions. None: the packaged ones that ask for nothing harmful."""
    helpful_share: float = 0.5
    """Their share of what is imitated, and of harmless prompts among the compared answers that are learned from, 0 up to (not including) 1; 0 keeps all. Under a half, small models begin to refuse everything."""
    safe: str | None = None
    """Harmless prompts on which refusals are counted before and after. None: the packaged ones that sound harmful, and the held-out harmless rows of --data."""
    pairs: int = 2
    """Pairs of answers sampled to each prompt and compared, for dpo and ppo."""
    limit: int | None = None
    """Only the first so many rows of --data. None: all."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question."""
    output_dir: str | None = None
    """Folder of the run. None is runs/constitution-<file>."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    temperature: float = 0.7
    """Of sampled answers."""
    weights: str = "auto"
    """How the frozen base is held in every stage: bf16, int8, nf4 (four bits) or gguf (a GGUF file's own blocks), widened to float32 as they are used; fp32; auto as the processor computes."""
    seed: int = 42
    """The same seed gives the same run."""
    ignore_memory: bool = False
    """True goes on when the predicted memory exceeds what is free. False refuses."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    dry_run: bool = False
    """True prints settings, prompts and the first question to the critic, and trains nothing."""

    def __post_init__(self) -> None:
        check_weights("constitution", self.weights)
        if not self.data:
            raise ConfigError("accord constitution needs prompts: accord constitution red-team.jsonl --model smollm2-135m")
        if self.rl not in ("dpo", "ppo", "none"):
            raise ConfigError(f"accord constitution --rl {self.rl!r} must be dpo, ppo or none.")
        if not 1 <= self.rounds <= 4:
            raise ConfigError(f"accord constitution --rounds {self.rounds}: 1 to 4.")
        if not 0 <= self.helpful_share < 1:
            raise ConfigError(f"accord constitution --helpful_share {self.helpful_share} must be 0 or more and below 1.")
        check_sampling(self, {"shots": 0, "pairs": 1, "max_new_tokens": 1}, above_0=("temperature",))
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"accord constitution --limit {self.limit} must be 1 or more.")
