"""What every training method shares: about twenty fields under the names everyone knows.

The string under each field is its help text: meaning, usual range, what 0 or None does.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from accord.errors import ConfigError

SMALL_WEIGHTS = ("bf16", "int8", "nf4", "gguf")
"""Ways to hold a frozen base in fewer bits than it is computed with (`models.small`)."""
WEIGHTS = ("auto", "fp32", *SMALL_WEIGHTS)
"""What `--weights` takes."""
OPTIMIZERS = {
    "adamw": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
}
"""What `--optim` takes, other trainers' names too, and what it means."""


@dataclass
class TrainingConfig:
    """Fields shared by all methods. A method's config adds its own and its default learning rates."""

    output_dir: str | None = None
    """Run folder. None makes runs/<date>-<method>-<model>."""
    num_train_epochs: float = 1.0
    """Passes over the data; fractions are fine. 1 to 3 is usual for SFT, 1 for preferences."""
    max_steps: int = -1
    """Optimizer steps; overrides num_train_epochs when above 0."""
    per_device_train_batch_size: int = 8
    """Rows of an optimizer step (times gradient_accumulation_steps). Memory does not depend on it: see tokens_per_microbatch."""
    gradient_accumulation_steps: int = 1
    """Multiplies the rows an optimizer step sees. Kept for familiarity; the loop splits by tokens_per_microbatch anyway."""
    learning_rate: float | None = None
    """Peak rate of AdamW. None takes the method's own for LoRA or for all weights, and prints it."""
    lr_scheduler_type: str = "linear"
    """linear or cosine decay to 0, or constant."""
    warmup_ratio: float = 0.0
    """Share of the steps that ramp up from 0. Usually 0 to 0.1."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW. 0 to 0.1; 0 turns it off."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment, 0 to 1."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment, 0 to 1."""
    adam_epsilon: float = 1e-8
    """Added to AdamW's denominator. PPO uses 1e-5."""
    optim: str = "adamw"
    """adamw holds its two moments in float32 (8 bytes a trained number). adamw_8bit in eight bits (2 bytes): for full fine-tuning, an adapter's are small."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm. 0 turns clipping off."""
    max_length: int | None = 1024
    """Longest prompt + answer in tokens. Prompts are cut on the left, then answers on the right, counted and said. None cuts nothing."""
    seed: int = 42
    """The same seed gives the same run: it decides new adapters, the order of rows and what is sampled."""
    logging_steps: int = 1
    """Write metrics every so many steps. 0 writes none."""
    save_steps: int = 0
    """Write a checkpoint every so many steps, and at the end. 0 writes none (Ctrl-C still saves)."""
    save_total_limit: int | None = None
    """Keep this many checkpoints, and that of the best evaluation (saved whenever checkpoints are). None keeps all."""
    eval_steps: int = 0
    """Evaluate on eval_dataset every so many steps. 0 never does."""
    resume_from_checkpoint: str | bool | None = None
    """True resumes from the run's last checkpoint, a path from that one. None starts fresh."""
    load_best_model_at_end: bool = False
    """True ends with the weights of the best evaluation, saved when it happens; False with the last ones. Needs eval_steps and held-out rows."""
    metric_for_best_model: str | None = None
    """An eval_ metric, eval_ may be left out; names ending in loss are better when lower. None is eval_loss, for PPO eval_objective/scores. Needs eval_steps."""
    early_stopping_patience: int | None = None
    """Stop after this many evaluations without a better value. None never stops early. Needs eval_steps and held-out rows."""
    gradient_checkpointing: bool = False
    """True keeps only each layer's input and recomputes the rest: about a third more time, much less memory. False keeps all."""
    dtype: str = "auto"
    """float32, bfloat16 or auto: bfloat16 on CUDA of capability 8 or more, else float32 (on a CPU bfloat16 is slower even where it has instructions for it)."""
    weights: str = "auto"
    """How the frozen base is held under an adapter: bf16, int8, nf4 (four bits) or gguf (a GGUF file's own blocks), widened to float32 as they are used; fp32; auto as dtype
    says, or bf16 where a checkpoint released so would not fit otherwise."""
    attention: str = "branches"
    """branches attends branch by branch with torch's kernels. flex is one call of torch's flex attention, for GPUs: a CPU has no gradient of it."""
    tokens_per_microbatch: int | None = None
    """Tokens that go through the model at once. None chooses from free memory (256 to 1024, on a GPU to 4096), says it and records it. Kept on resume."""
    cache_lower_layers: bool = True
    """True runs the frozen layers below the first trained one once per row and keeps their output (LoRA on upper layers). False runs them at every pass."""
    fully_shard: bool = False
    """True splits weights, gradients and optimizer state over the processes (torch's fully_shard); False keeps all of them on each. Same numbers either way."""
    report_to: str = "none"
    """Trackers through accelerate: tensorboard, wandb, mlflow, comma-separated, each installed by you. none uses metrics.jsonl alone."""
    disable_dropout: bool = True
    """Always True: with dropout, log-probs of sampling, reference and training would belong to different models."""
    overfit: int = 0
    """Train and evaluate on the first N rows only, to see whether the set-up can learn at all. 0 is off."""
    skip_step0_checks: bool = False
    """True trains even if policy and reference, or sampler and trainer, disagree before the first step; recorded in the lineage."""

    method: ClassVar[str] = ""
    full_learning_rate: ClassVar[float] = 2e-5
    lora_learning_rate: ClassVar[float] = 2e-4

    def __post_init__(self) -> None:
        self.validate()

    def default_learning_rate(self, *, full: bool) -> float:
        """The method's rate. full: True for full fine-tuning, False for adapters."""
        return self.full_learning_rate if full else self.lora_learning_rate

    def validate(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: naming the field, its value and what it may be.
        """
        self.require("per_device_train_batch_size", self.per_device_train_batch_size >= 1, "1 or more")
        self.require("gradient_accumulation_steps", self.gradient_accumulation_steps >= 1, "1 or more")
        self.require("num_train_epochs", self.num_train_epochs > 0, "above 0")
        self.require(
            "learning_rate",
            self.learning_rate is None or (math.isfinite(self.learning_rate) and self.learning_rate >= 0),
            "0 or more, or None",
        )
        self.require("warmup_ratio", 0 <= self.warmup_ratio <= 1, "0 to 1")
        self.require("weight_decay", self.weight_decay >= 0, "0 or more")
        self.require("adam_beta1", 0 <= self.adam_beta1 < 1, "0 to 1")
        self.require("adam_beta2", 0 <= self.adam_beta2 < 1, "0 to 1")
        self.require("adam_epsilon", self.adam_epsilon > 0, "above 0")
        self.choice("optim", tuple(OPTIMIZERS))
        self.optim = OPTIMIZERS[self.optim]
        self.require("optim", self.optim == "adamw" or not self.fully_shard, "adamw with fully_shard")
        self.require("max_grad_norm", self.max_grad_norm >= 0, "0 (off) or more")
        self.require("max_steps", self.max_steps >= -1, "-1 (off) or more")
        self.require("save_total_limit", self.save_total_limit is None or self.save_total_limit >= 1, "1 or more, or None")
        self.require("max_length", self.max_length is None or self.max_length >= 2, "2 or more, or None")
        self.require("tokens_per_microbatch", self.tokens_per_microbatch is None or self.tokens_per_microbatch >= 1, "1 or more, or None")
        self.choice("lr_scheduler_type", ("linear", "cosine", "constant"))
        self.choice("dtype", ("auto", "float32", "bfloat16", "float16"))
        self.choice("attention", ("branches", "flex"))
        self.choice("weights", WEIGHTS)
        self._check_weights()
        for name in ("logging_steps", "save_steps", "eval_steps", "overfit"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        self.require(
            "early_stopping_patience", self.early_stopping_patience is None or self.early_stopping_patience >= 1, "1 or more, or None"
        )
        for name in ("early_stopping_patience", "load_best_model_at_end", "metric_for_best_model"):
            if getattr(self, name) and not self.eval_steps:
                raise ConfigError(
                    f"{type(self).__name__}: {name}={getattr(self, name)!r} needs eval_steps above 0: without evaluations there is nothing to compare."
                )
        self.require("disable_dropout", self.disable_dropout, "True: accord turns model dropout off in every method")

    def _check_weights(self) -> None:
        if self.weights != "auto" and self.dtype not in ("auto", "float32"):
            raise ConfigError(
                f"{type(self).__name__}: weights={self.weights!r} is computed with in float32, and dtype={self.dtype!r} asks for another type. Leave dtype at auto."
            )
        if self.weights in SMALL_WEIGHTS and self.fully_shard:
            raise ConfigError(
                f"{type(self).__name__}: fully_shard splits float weights, and weights={self.weights!r} holds codes. Use one of the two."
            )

    def require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(f"{type(self).__name__}: {name}={getattr(self, name)!r} must be {allowed}.")

    def choice(self, name: str, options: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in options:
            near = difflib.get_close_matches(str(value), options, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{type(self).__name__}: {name}={value!r} must be one of {', '.join(options)}.{hint}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values: what the run folder records."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Any:
        """Build from plain values; an unknown name is an error that suggests the nearest."""
        return cls(**values)


@lru_cache
def field_help(config: type) -> dict[str, str]:
    """The docstring under each field of a config class and its bases, by field name."""
    found: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for item, following in zip(body, body[1:], strict=False):
            named = isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            described = (
                isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str)
            )
            if named and described:
                found[item.target.id] = " ".join(following.value.value.split())  # type: ignore[attr-defined]
    return found
