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
    """The same seed gives the same run."""
    probes: int | None = None
    """Held-out prompts of each slice in the report, 1 to 60. None is 12, and 60 with --full."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it (demo base). False asks."""
    dry_run: bool = False
    """True prints settings, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        if self.route not in ("rlhf", "dpo", "base"):
            raise ConfigError(f"accord demo {self.route!r}: the routes are rlhf, dpo and base.")
        if self.probes is not None and not 1 <= self.probes <= 60:
            raise ConfigError(f"accord demo --probes {self.probes}: between 1 and 60 held-out prompts of each slice.")


@dataclass
class AlignOptions:
    """`accord align`."""

    data: str = ""
    """Your comparisons, say prompt, chosen, rejected (or rankings): any file `accord data check` reads."""
    model: str = "smollm2-135m"
    """Name, folder, GGUF file or hub id of the model to align."""
    method: str = "ppo"
    """ppo (SFT, reward model, PPO) or dpo (SFT, DPO)."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    output_dir: str | None = None
    """Folder of the run. None is runs/align-<file>."""
    max_new_tokens: int = 96
    """Longest answer in tokens while training and in the report."""
    iterations: int = 12
    """PPO rounds of 12 prompts with 8 answers each."""
    seed: int = 42
    """The same seed gives the same run. Which 20 % of the prompts are held out does not depend on it, so runs compare."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    dry_run: bool = False
    """True prints settings, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"accord align --iterations {self.iterations} --max_new_tokens {self.max_new_tokens}: both must be 1 or more."
            )
        if self.method not in ("ppo", "dpo"):
            raise ConfigError(f"accord align --method {self.method!r}: the methods are ppo and dpo.")
        if not self.data:
            raise ConfigError(
                "accord align needs --data: a file of comparisons, for example pairs.csv. Start one with: accord data template preference pairs.csv"
            )


@dataclass
class TrainOptions:
    """What every training command takes beside its method's config."""

    model: str = "smollm2-135m"
    """Name, folder, GGUF file or hub id of the model to train; a run folder goes on from its adapters."""
    data: str = ""
    """Training rows (ppo, grpo: prompts): any file or folder `accord data check` reads; several as a.jsonl:0.7,b.jsonl:0.3."""
    eval_data: str | None = None
    """Held-out rows, of the same kind. None evaluates nothing."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    reward_model: list[str] | None = None
    """ppo and grpo, which need this or --reward: run folders of reward models, each optionally with a weight: runs/reward*0.5."""
    reward: list[str] | None = None
    """ppo and grpo, which need this or --reward-model: reward functions as file.py:function, each optionally with a weight."""
    ptx_data: str | None = None
    """PPO: demonstrations mixed into each step (see ptx_coef). None mixes nothing."""
    lora_r: int = 16
    """Rank of the LoRA adapter; 0 trains all weights, which ppo does not offer."""
    lora_alpha: int = 32
    """Scale of the adapter: alpha / r multiplies its output."""
    lora_dropout: float = 0.0
    """Always 0: with dropout, log-probs of sampling, reference and training would differ."""
    lora_target: str = "all-linear"
    """Modules that get adapters: all-linear, or names separated by commas."""
    lora_layers: float = 1.0
    """Share of the layers, from the top, that get adapters: 0.5 trains the upper half at about half the cost, 1 trains all."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True goes on when the predicted memory exceeds what is free. False refuses."""
    dry_run: bool = False
    """True prints config, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        if self.lora_r < 0:
            raise ConfigError(f"lora_r={self.lora_r} must be 0 (all weights) or more.")
        if not 0 < self.lora_layers <= 1:
            raise ConfigError(
                f"lora_layers={self.lora_layers} must be above 0 and at most 1: the share of the layers, from the top, that get adapters."
            )
        if self.lora_dropout:
            raise ConfigError("lora_dropout must be 0: with dropout, log-probs of sampling, reference and training would differ.")


@dataclass
class ChatOptions:
    """`accord chat` and `accord sample`."""

    model: str = "smollm2-135m"
    """Name, folder or run folder of the model to talk to."""
    prompt: list[str] | None = None
    """Prompts to answer and exit. None reads lines from the terminal."""
    system: str | None = None
    """A system message before every conversation."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    temperature: float = 0.7
    """0 takes the most likely token; 1 is the model's own distribution."""
    top_p: float = 0.95
    """Keep the likeliest tokens with this much probability together. 1 keeps all."""
    num_samples: int = 1
    """Answers to each prompt."""
    seed: int = 0
    """Seeds sampling."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        for name, holds, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("num_samples", self.num_samples >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"--{name} {getattr(self, name)} must be {allowed}.")


@dataclass
class ExportOptions:
    """`accord export`."""

    run: str = ""
    """Run folder to export."""
    to: str = ""
    """Folder to write."""
    merged: bool = True
    """True writes one ordinary transformers model, adapters merged. False copies the adapter folder as it is."""
    sequence_classification: bool = False
    """True writes a reward run as AutoModelForSequenceClassification. False writes a causal language model."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.run or not self.to:
            raise ConfigError("accord export needs a run folder and --to: accord export runs/demo-rlhf/ppo --to my-model")


@dataclass
class EvaluateOptions:
    """`accord evaluate`."""

    run: str = ""
    """Run folder of a reward model (accuracy), a DPO policy (implicit accuracy) or a process reward model (first errors found)."""
    data: str = ""
    """Held-out comparisons; for a process reward model solutions with step labels."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.run or not self.data:
            raise ConfigError("accord evaluate needs a run folder and --data: accord evaluate runs/reward --data heldout.jsonl")
