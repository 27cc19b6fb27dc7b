"""What `accord align --rounds` takes beside `AlignOptions`."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError

FEEDBACK = ("people", "judge", "simulated")
SELECT = ("random", "active")


@dataclass
class RoundsOptions:
    """Rounds of fresh labels: `accord align --rounds`."""

    rounds: int = 0
    """Rounds of fresh labels: sample, judge, reward model, policy, new against old. 0 aligns once, on the comparisons of --data."""
    feedback: str = "people"
    """Who judges: people (in the browser), judge (what --reward and --reward-model name) or simulated (they are the truth, --noise is added)."""
    labels: int = 100
    """Pairs judged each round, those on held-out prompts among them."""
    comparisons: int = 40
    """Held-out prompts on which each new policy is compared, blind, with the one before it."""
    project: str = "labels"
    """Folder of the project that holds tasks, labels and the page of all rounds; made if it is not there."""
    reward: list[str] | None = None
    """What judges or, simulated, is true: accuracy, format, constraints, code, gym, judge, repetition (docs/rewards.md) or file.py:function."""
    reward_model: list[str] | None = None
    """The same as run folders of reward models, each optionally with a weight: runs/reward*0.5."""
    noise: float = 0.25
    """Share of the simulated panel's labels that are turned round, 0 to 0.5."""
    select: str = "random"
    """Which pairs are asked: random, or active (double Thompson sampling over the reward model's heads; the project's random_share stays random)."""
    overlap: int = 1
    """Annotators wanted for each pair, in a project that is made now. 2 tells how far they agree."""
    no_serve: bool = False
    """people: True stops where labels are wanted, with the line that goes on. False serves the page until they are in."""
    port: int = 8321
    """people: port of the page on this machine; 0 takes a free one."""
    open_browser: bool = True
    """people: True opens the page. False prints its address alone."""

    def __post_init__(self) -> None:
        for name, lowest in (("rounds", 0), ("labels", 4), ("comparisons", 1), ("overlap", 1), ("port", 0)):
            if getattr(self, name) < lowest:
                raise ConfigError(f"accord align --{name} {getattr(self, name)}: it must be {lowest} or more.")
        for name, known in (("feedback", FEEDBACK), ("select", SELECT)):
            if getattr(self, name) not in known:
                raise ConfigError(f"accord align --{name} {getattr(self, name)!r}: it is {', '.join(known[:-1])} or {known[-1]}.")
        if not 0 <= self.noise <= 0.5:
            raise ConfigError(
                f"accord align --noise {self.noise:g}: it is a share from 0 to 0.5; labels turned round half of the time say nothing."
            )
        if not self.rounds:
            return
        scored = bool(self.reward or self.reward_model)
        if self.feedback == "people" and scored:
            raise ConfigError("accord align --feedback people: people judge, so --reward and --reward-model have no place. Leave them out.")
        if self.feedback != "people" and not scored:
            raise ConfigError(
                f"accord align --feedback {self.feedback} needs --reward or --reward-model: what says which answer is better."
            )
