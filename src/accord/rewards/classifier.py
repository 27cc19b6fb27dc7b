"""Any transformers sequence classifier with one output as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from accord.errors import ConfigError, DataError
from accord.types import Rollout, Score


@dataclass
class ClassifierReward:
    """The single logit of an `AutoModelForSequenceClassification`, larger is better.

    Each answer is read alone, so there is no padding to go wrong; with a chat template it is the last turn, without one it follows the
    prompt's text. accord's own reward models (a run of `accord reward`) read exactly the tokens they were trained on: give those as such.
    """

    model: nn.Module
    tokenizer: Any = None
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        config: Any = getattr(self.model, "config", None)
        self.name = self.name or str(getattr(config, "_name_or_path", "") or type(self.model).__name__).rstrip("/").rsplit("/", 1)[-1]
        labels = getattr(config, "num_labels", None)
        if labels != 1:
            raise ConfigError(
                f"Reward {self.name} has {labels} outputs. A reward model has one: AutoModelForSequenceClassification with num_labels=1."
            )
        if self.tokenizer is None:
            path = getattr(config, "_name_or_path", "")
            if not path:
                raise ConfigError(
                    f"Reward {self.name} was made in memory, so its tokenizer is unknown. Pass it in reward_processing_classes."
                )
            self.tokenizer = _tokenizer(path)
        self.model.eval()

    @classmethod
    def load(cls, name: str, tokenizer: Any = None, weight: float = 1.0) -> ClassifierReward:
        """From a folder or a hub id.

        Raises:
            DataError: if there is no such model.
        """
        from transformers import AutoModelForSequenceClassification

        try:
            model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise DataError(f"Reward model {name} cannot be loaded: {str(error).splitlines()[0]}") from error
        return cls(model, tokenizer, weight)

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        device = next(self.model.parameters()).device
        found = []
        for rollout in rollouts:
            ids = torch.tensor([self._ids(rollout)], device=device)
            found.append(Score(float(self.model(input_ids=ids).logits[0, 0])))
        return found

    def _ids(self, rollout: Rollout) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in rollout.prompt]
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": rollout.text}], tokenize=False)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer("".join(turn["content"] for turn in turns) + rollout.text)["input_ids"])


def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise DataError(f"The tokenizer of reward model {path} cannot be loaded: {str(error).splitlines()[0]}") from error
