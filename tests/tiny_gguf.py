"""Tiny model folders of the families that are written to GGUF, and a tokenizer that leaves no row of its vocabulary out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers

import tiny
from accord.models.tokenizer_files import CONTROL, NORMAL, Vocabulary, byte_level

SPECIALS = ["<|pad|>", "<|start|>", "<|end|>", "<|endoftext|>"]
"""The last one is what transformers' class for Qwen 2 adds where it is missing."""
MERGES = ["t h", "e r", "i n", "Ġ t", "h e", "Ġt he"]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"head_dim": 128},
    "gemma3_text": {"num_hidden_layers": 7, "head_dim": 256, "query_pre_attn_scalar": 256},
}
"""As transformers' own GGUF reader can carry them: it takes heads of 128 for Qwen 3 and scales Gemma 3's queries by 256, whatever a file says."""


def tokenizer(pre: str = "gpt-2") -> Any:
    """Byte-level, with 266 tokens for the 272 rows of tiny models."""
    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    types = [CONTROL] * len(SPECIALS) + [NORMAL] * (len(tokens) - len(SPECIALS))
    return byte_level(Vocabulary(tokens, types, bos=None, eos=2, unknown=None, pad=0, chat_template=tiny.TEMPLATE), MERGES, pre)


def saved(folder: Path, architecture: str, **changes: Any) -> tuple[Path, Any]:
    """A model folder, in several files, whose biases are not 0 and whose norms are not all alike."""
    model = tiny.model(architecture, **{**FAMILIES.get(architecture, {}), "max_position_embeddings": 1024, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, mean=0.0 if "bias" in name else float(parameter.detach().mean()), std=0.3)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder, max_shard_size="60KB")
    tokenizer("qwen2" if architecture.startswith("qwen") else "gpt-2").save_pretrained(folder)
    return folder, model
