"""What `accord export` takes."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError

EXPORT_FORMS = ("merged", "adapter", "gguf-f16", "gguf-q8_0", "gguf-q4_0", "ollama")
"""What `accord export --to` writes. ollama is gguf-q8_0 under the name that people look for."""


@dataclass
class ExportOptions:
    """`accord export`."""

    run: str = ""
    """Run folder, or model, to take home."""
    to: str = ""
    """What to write: merged, adapter, gguf-f16, gguf-q8_0, gguf-q4_0 or ollama. Another name is a folder, which gets the merged model."""
    output_dir: str | None = None
    """Folder to write. None is exports/<run>-<what>; with a folder as --to it is that one."""
    prompts: int = 8
    """Packaged prompts whose greedy answers are compared before it is done, 1 to 200."""
    merged: bool = True
    """True writes one ordinary transformers model, adapters merged. False copies the run folder to the folder --to as it is."""
    sequence_classification: bool = False
    """True writes a reward run as AutoModelForSequenceClassification. False writes a causal language model."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.run or not self.to:
            raise ConfigError("accord export needs a run folder and --to: accord export runs/demo-rlhf/ppo --to merged")
        if not 1 <= self.prompts <= 200:
            raise ConfigError(f"accord export --prompts {self.prompts} must be 1 to 200.")
        if self.to in EXPORT_FORMS and (not self.merged or self.sequence_classification):
            raise ConfigError(
                f"accord export --to {self.to} says what is written: drop --merged and --sequence_classification, or name a folder."
            )
        if self.to not in EXPORT_FORMS and self.output_dir is not None:
            raise ConfigError(f"accord export --to {self.to} is a folder already, so --output_dir would be a second one. Drop it.")
