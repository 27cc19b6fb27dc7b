"""Fields of the methods that sample what they learn from: PPO, GRPO, RLOO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.base import TrainingConfig
from accord.config.mitigation import MitigationConfig
from accord.errors import ConfigError


@dataclass
class OnlineConfig(MitigationConfig, TrainingConfig):
    """Shared by methods that answer prompts, score the answers and learn from them, round after round."""

    num_generations: int = 8
    """Answers to each prompt; the prompt is encoded once for all of them."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut on the left. None cuts so that prompt and answer fit max_length and the model's positions."""
    temperature: float = 1.0
    """Divides the logits in sampling, policy, reference and old policy alike. 1 is the policy itself."""
    sampler_weights: str = "exact"
    """exact samples from the policy itself. int8 samples from its weights rounded to int8 (on a CPU, 1.4 times as fast at 64 rows, no faster at 8): the old policy is then
    read once more, truncated importance weights correct the gradient, and sampling/mismatch_kl says how far apart the two are. Held-out answers are exact."""
    importance_weights: str = "truncate"
    """How an inexact sampler (another engine or precision) is corrected for. truncate: each token weighs pi_old / pi_sampler, at most truncated_importance_cap. mask: tokens beyond
    the cap or below 1 / cap weigh 0. sequence: all tokens of an answer weigh the product of theirs, at most the cap: no bias but for it, and more variance."""
    truncated_importance_cap: float = 2.0
    """Largest of these weights; 2 to 5 is usual. Unused with the exact local sampler."""
    max_not_scored: float = 0.5
    """Largest share of the last 200 answers that may have no score; more stop the run, with the reason. 1 never does."""

    monitors: bool = True
    """True compares the answers of every round with those of the start and says what is being exploited (alarms.jsonl, monitors.json). False watches nothing."""
    on_alarm: str = "warn"
    """What an alarm does. warn says it. raise_kl doubles the price of KL (to 0.05 at least, 1 at most) in every round with an alarm. rollback goes back to the last clean
    checkpoint, three times at most; from then on the form that the alarm names costs what it was paid or, where it names none, KL is twice as dear. stop ends the run."""
    kl_alarm: float | None = None
    """KL in nats an answer that is an alarm. None takes 15, or 0.3 a token where that is more, and 0.75 a token."""
    labelling_queue: bool = False
    """True writes the answers that show an alarm, each beside another answer to its prompt, as tasks for people (to_label.jsonl). False writes none."""

    answer_field: ClassVar[str] = "max_new_tokens"  # holds the longest answer

    @property
    def answer_tokens(self) -> int:
        """Longest answer in tokens, the end token included."""
        return int(getattr(self, self.answer_field))

    @property
    def prompts_a_round(self) -> int:
        """Prompts answered each round."""
        raise NotImplementedError

    @property
    def passes(self) -> int:
        """Passes over each round's answers."""
        raise NotImplementedError

    @property
    def steps_a_pass(self) -> int:
        """Optimizer steps a pass is cut into."""
        raise NotImplementedError

    def refuse(self, fields: dict[str, str], why: str) -> None:
        """Refuse shared fields that have no meaning for a method. fields: what it has in their place, by name."""
        for name, instead in fields.items():
            if getattr(self, name) != TrainingConfig.__dataclass_fields__[name].default:
                raise ConfigError(
                    f"{type(self).__name__}: {name}={getattr(self, name)!r} has no meaning for {why}. Use instead: {instead}."
                )

    def check_answer_length(self) -> None:
        """Whether prompts and answers have room."""
        room = None if self.max_length is None else self.max_length - self.answer_tokens
        self.require(self.answer_field, room is None or room >= 1, f"below max_length={self.max_length}, which holds the prompt too")

    def validate(self) -> None:
        super().validate()
        self.require("num_generations", self.num_generations >= 1, "1 or more")
        self.require("temperature", self.temperature > 0, "above 0: a greedy policy has no gradient")
        self.require("max_prompt_length", self.max_prompt_length is None or self.max_prompt_length >= 1, "1 or more, or None")
        self.require("max_not_scored", 0 <= self.max_not_scored <= 1, "0 to 1")
        self.choice("importance_weights", ("truncate", "mask", "sequence"))
        self.require("truncated_importance_cap", self.truncated_importance_cap > 0, "above 0")
        masks = self.importance_weights == "mask"
        self.require("truncated_importance_cap", not masks or self.truncated_importance_cap > 1, "above 1 where importance_weights masks")
        self.choice("sampler_weights", ("exact", "int8"))
        self.choice("on_alarm", ("warn", "raise_kl", "rollback", "stop"))
        self.require("on_alarm", self.monitors or self.on_alarm == "warn", "warn with monitors=False: nothing is watched")
        self.require("labelling_queue", self.monitors or not self.labelling_queue, "False with monitors=False: nothing is watched")
        self.require("kl_alarm", self.kl_alarm is None or self.kl_alarm > 0, "above 0, or None")
        self.check_mitigation()
