"""Options of `accord audit`."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError

POLICY_SECTIONS = ("length", "habits", "sycophancy", "refusals", "honesty", "tax")
REWARD_SECTIONS = ("perturbations", "short-wins", "adversarial", "style")


@dataclass
class AuditOptions:
    """What is audited, with what, and what it decides."""

    model: str = ""
    """Name, folder, run folder or hub id of the model to audit; a reward model's run folder is audited as with --reward."""
    against: str | None = None
    """The model before training: differences are paired with it, and the alignment tax needs it. None: levels alone."""
    reward: str | None = None
    """Run folder of a reward model to audit; it also compares the answers of both models where there is no --judge."""
    judge: str | None = None
    """What compares the answers of both models: anything accord judge --judge takes, or a YAML file. A language model also says which answers decline."""
    gate: bool = False
    """True ends with exit code 6 where anything is red, for a release script. False ends with 0."""
    sections: list[str] | None = None
    """Only these: length, habits, sycophancy, refusals, honesty, tax; of a reward model perturbations, short-wins, adversarial, style. None: all."""
    limit: int = 24
    """Most items of each probe, drawn by --seed. 0 takes all: minutes become hours with large files."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    temperature: float = 0.7
    """Of the answers; 0 takes the most likely token. Both models are drawn with the same random numbers."""
    seed: int = 0
    """Of draws and subsets."""
    output_dir: str | None = None
    """Folder of the page (audit.html), the numbers (audit.json) and the answers. None is runs/audit-<model>."""
    prompts: str | None = None
    """Your own everyday requests, for length and habits: any file accord data check reads. None: 24 packaged ones."""
    requests: str | None = None
    """Harmless and harmful requests: XSTest's prompts, or a table with prompt and label (safe, unsafe). None: 30 packaged pairs."""
    truths: str | None = None
    """TruthfulQA's table, or one with Question, Best Answer, Incorrect Answers. None: packaged honesty probes."""
    problems: str | None = None
    """Word problems: SVAMP's file, or a table with prompt and answer. None: 24 packaged ones."""
    instructions: str | None = None
    """Instructions that a program checks, in IFEval's layout. None: short ones made for small models."""
    texts: str | None = None
    """Neutral prose, a table with text. None: 16 packaged paragraphs."""
    pairs: list[str] | None = None
    """Comparisons for the reward model's accuracy where the shorter answer won: any files accord data check reads. None: 24 packaged ones."""
    adversarial: list[str] | None = None
    """Comparisons whose worse answer looks better: LLMBar's adversarial files. None: 16 packaged ones."""
    styles: list[str] | None = None
    """RM-Bench's files. None: 8 packaged prompts."""
    token_budget: int = 2048
    """Tokens that go through a model at once where nothing is sampled."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True loads models even when they do not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.model and not self.reward:
            raise ConfigError(
                "accord audit needs a model, a reward model, or both: accord audit runs/ppo --against runs/sft --reward runs/reward"
            )
        known = (*POLICY_SECTIONS, *REWARD_SECTIONS)
        for name in self.sections or ():
            if name not in known:
                raise ConfigError(f"accord audit --sections {name}: the sections are {', '.join(known)}.")
        for name, holds, allowed in (
            ("limit", self.limit >= 0, "0 (all) or more"),
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("token_budget", self.token_budget >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
        ):
            if not holds:
                raise ConfigError(f"accord audit --{name} {getattr(self, name)} must be {allowed}.")

    def wants(self, section: str) -> bool:
        """Whether a section is asked for."""
        return self.sections is None or section in self.sections
