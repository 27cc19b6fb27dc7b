"""What `accord debate` takes."""

from __future__ import annotations

from dataclasses import dataclass

from accord.config.judge import AskingOptions
from accord.errors import ConfigError


@dataclass
class DebateOptions(AskingOptions):
    """`accord debate`."""

    data: str | None = None
    """JSON Lines of your own tasks: question, evidence, right, wrong (or answers, a list of two). None: made tasks."""
    judge: str = ""
    """Who decides without the evidence: rule:verified, rule:trusting, a model's name or folder, or a server's address (URL#MODEL)."""
    debaters: list[str] | None = None
    """Who argues with the evidence: rule:quote, rule:fabricate, models or servers. Several: each meets each. None: protocols without debaters."""
    protocols: list[str] | None = None
    """Of debate, debate_sequential, consultancy, direct, naive, oracle. None: all that the debaters allow."""
    rounds: int = 2
    """Turns of each side."""
    words: int = 60
    """Longest argument of a turn; what is beyond is left out and counted."""
    count: int = 60
    """Made tasks; of a file the first so many. 0: all of a file."""
    facts: int = 9
    """Made tasks: sentences of each passage, 4 to 40."""
    decoy: float = 0.5
    """Made tasks: share in which the wrong answer is true of something else in the passage."""
    excerpt: float = 0.25
    """Share of the evidence that direct judgement reads."""
    temperature: float = 0.4
    """Of debaters that are language models. 0 takes the most likely token; 0.4 is Khan et al.'s (2024)."""
    debater_prompt: str = "debater"
    """debater (thinks first, argues in tags), debater_short (for small models), or a YAML file of yours."""
    judge_prompt: str | None = None
    """A pairwise prompt, by name or YAML file, whose {conversation} is all that is shown. None: the one that comes with debates."""
    to: str | None = None
    """Folder of transcripts, verdicts and page. None is runs/debate."""
    dry_run: bool = False
    """True says what would be asked, with the first question, and loads nothing. False runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.judge:
            raise ConfigError(
                "accord debate needs --judge, and --debaters where somebody argues: accord debate --judge rule:verified --debaters rule:quote"
            )
        for name, lowest in (("rounds", 1), ("words", 1), ("count", 0)):
            if getattr(self, name) < lowest:
                raise ConfigError(f"--{name} {getattr(self, name)} must be {lowest} or more.")
        if self.count == 0 and self.data is None:
            raise ConfigError("--count 0 takes all tasks of a file, and no file is given. Name one, or a --count.")
        if not 0 < self.excerpt <= 1:
            raise ConfigError(f"--excerpt {self.excerpt:g} must be above 0, up to 1.")
        if not self.temperature >= 0:
            raise ConfigError(f"--temperature {self.temperature:g} must be 0 or more.")
