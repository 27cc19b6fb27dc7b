"""What the recipes take, as plain dataclasses that the command line can fill without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError


@dataclass
class DemoOptions:
    """`accord demo`."""

    route: str = "rlhf"
    """rlhf (SFT, reward model, PPO), dpo (SFT, DPO) or base (a base model becomes an assistant)."""
    full: bool = False
    """True uses all packaged data and LoRA reward and value adapters (about 40 minutes). False the subset sized for ten minutes."""
    output_dir: str | None = None
    """Folder of the run. None is runs/demo-<route>."""
    seed: int = 42
    """Seeds everything."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it (demo base). False asks."""

    def __post_init__(self) -> None:
        if self.route not in ("rlhf", "dpo", "base"):
            raise ConfigError(f"accord demo {self.route!r}: the routes are rlhf, dpo and base.")


@dataclass
class AlignOptions:
    """`accord align`."""

    data: str = ""
    """Your comparisons: any file `accord data check` reads."""
    model: str = "smollm2-135m"
    """Name, folder, GGUF file or hub id of the model to align."""
    method: str = "ppo"
    """ppo (SFT, reward model, PPO) or dpo (SFT, DPO)."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    output_dir: str | None = None
    """Folder of the run. None is runs/align-<file>."""
    max_new_tokens: int = 96
    """Longest answer in tokens while practising and in the report."""
    iterations: int = 12
    """PPO rounds of 8 prompts with 4 answers."""
    seed: int = 42
    """Seeds everything, the 20 % of prompts held out included."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""

    def __post_init__(self) -> None:
        if self.method not in ("ppo", "dpo"):
            raise ConfigError(f"accord align --method {self.method!r}: the methods are ppo and dpo.")
        if not self.data:
            raise ConfigError("accord align needs --data: a file of comparisons, for example pairs.csv. Start one with: accord data template preference pairs.csv")
