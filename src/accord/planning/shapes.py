"""Shapes of well-known models, so that a plan needs neither their weights nor a network; their counts of weights are tested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.errors import ConfigError

if TYPE_CHECKING:
    from accord.models.size import ModelSize


@dataclass(frozen=True)
class Shape:
    """What a transformers config of a causal language model needs to say."""

    kind: str
    """transformers' model type."""
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    width: int
    hub: str
    """The model that recipes name: the one that follows instructions, where there is one."""
    tied: bool = True
    """Whether the LM head is the embedding."""
    base: str = ""
    """Of the candidates below: the model on the hub that only continues text."""

    def config(self) -> Any:
        """The transformers config."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.kind,
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.width,
            tie_word_embeddings=self.tied,
        )


SHAPES: dict[str, Shape] = {
    "smollm2-135m": Shape("llama", 49152, 576, 1536, 30, 9, 3, 64, "smollm2-135m", base="HuggingFaceTB/SmolLM2-135M"),
    "gemma3-270m": Shape("gemma3_text", 262144, 640, 2048, 18, 4, 1, 256, "gemma3-270m"),
    "smollm2-360m": Shape(
        "llama", 49152, 960, 2560, 32, 15, 5, 64, "HuggingFaceTB/SmolLM2-360M-Instruct", base="HuggingFaceTB/SmolLM2-360M"
    ),
    "qwen2.5-0.5b": Shape("qwen2", 151936, 896, 4864, 24, 14, 2, 64, "Qwen/Qwen2.5-0.5B-Instruct", base="Qwen/Qwen2.5-0.5B"),
    "qwen3-0.6b": Shape("qwen3", 151936, 1024, 3072, 28, 16, 8, 128, "Qwen/Qwen3-0.6B"),
    "gemma3-1b": Shape("gemma3_text", 262144, 1152, 6912, 26, 4, 1, 256, "google/gemma-3-1b-it"),
    "llama-3.2-1b": Shape("llama", 128256, 2048, 8192, 16, 32, 8, 64, "meta-llama/Llama-3.2-1B-Instruct"),
    "olmo2-1b": Shape("olmo2", 100352, 2048, 8192, 16, 16, 16, 128, "allenai/OLMo-2-0425-1B-Instruct", tied=False),
    "qwen2.5-1.5b": Shape("qwen2", 151936, 1536, 8960, 28, 12, 2, 128, "Qwen/Qwen2.5-1.5B-Instruct", base="Qwen/Qwen2.5-1.5B"),
    "smollm2-1.7b": Shape(
        "llama", 49152, 2048, 8192, 24, 32, 32, 64, "HuggingFaceTB/SmolLM2-1.7B-Instruct", base="HuggingFaceTB/SmolLM2-1.7B"
    ),
    "gemma2-2b": Shape("gemma2", 256000, 2304, 9216, 26, 8, 4, 256, "google/gemma-2-2b-it"),
    "smollm3-3b": Shape("smollm3", 128256, 2048, 11008, 36, 16, 4, 128, "HuggingFaceTB/SmolLM3-3B", base="HuggingFaceTB/SmolLM3-3B-Base"),
    "qwen2.5-3b": Shape("qwen2", 151936, 2048, 11008, 36, 16, 2, 128, "Qwen/Qwen2.5-3B-Instruct"),
    "llama-3.2-3b": Shape("llama", 128256, 3072, 8192, 28, 24, 8, 128, "meta-llama/Llama-3.2-3B-Instruct"),
    "phi3-mini": Shape("phi3", 32064, 3072, 8192, 32, 32, 32, 96, "microsoft/Phi-3-mini-4k-instruct", tied=False),
    "mistral-7b": Shape("mistral", 32000, 4096, 14336, 32, 32, 8, 128, "mistralai/Mistral-7B-Instruct-v0.1", tied=False),
    "qwen2.5-7b": Shape("qwen2", 152064, 3584, 18944, 28, 28, 4, 128, "Qwen/Qwen2.5-7B-Instruct", tied=False, base="Qwen/Qwen2.5-7B"),
    "llama-3.1-8b": Shape("llama", 128256, 4096, 14336, 32, 32, 8, 128, "meta-llama/Llama-3.1-8B-Instruct", tied=False),
}
"""By the names of the models, smallest first."""
CANDIDATES = ("smollm2-135m", "smollm2-360m", "qwen2.5-0.5b", "qwen2.5-1.5b", "smollm2-1.7b", "smollm3-3b", "qwen2.5-7b")
"""From which `accord plan` takes the largest that fits, where the user names none: all under Apache-2.0, and not gated."""


def shape_named(name: str) -> Shape | None:
    """By the name of the table or of the hub; None for any other model."""
    return next((shape for key, shape in SHAPES.items() if name and name.lower() in (key, shape.hub.lower(), shape.base.lower())), None)


def size_of(name: str) -> ModelSize:
    """The size of a model by any name: of a shape above, a folder with a config.json, a run folder, a hub id (its config alone is fetched).

    Raises:
        ConfigError: if nothing has that name.
    """
    from accord.models.size import model_size

    return model_size(config_of(name))


def released_in_half(name: str) -> bool:
    """Whether its checkpoint holds bfloat16: all shapes above but those that accord fetches as GGUF, whose half type is another one. Raises as `size_of`."""
    import torch

    from accord.models.registry import PINNED

    if shape_named(name) is not None:
        return name.lower() not in PINNED
    return getattr(config_of(name), "dtype", None) == torch.bfloat16


def config_of(name: str) -> Any:
    """The transformers config of what `size_of` takes. Raises as it does."""
    known = shape_named(name)
    if known is not None:
        return known.config()
    from transformers import AutoConfig

    from accord.models.registry import PINNED

    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").exists():
        from accord.models.opened import base_of

        return config_of(base_of(folder))
    if folder.suffix.lower() == ".gguf" or name.lower() in PINNED:
        from accord.models.load import load_config, resolve

        return load_config(resolve(name))
    if not folder.is_dir() and name.count("/") != 1:
        raise ConfigError(f"--model {name!r}: name a folder, a hub id (ORG/NAME) or one of {', '.join(SHAPES)}.")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"--model {name}: its config.json cannot be read ({reason}). Known without one: {', '.join(SHAPES)}.") from error
