"""Tiny models, a tiny tokenizer and tiny data that every test shares: real transformers objects, random weights, milliseconds."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from accord.models.adapters import PolicyModel
from accord.types import Completion, Example, Message

TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
SPECIALS = ["<|pad|>", "<|start|>", "<|end|>"]
DEVICE = "cpu"
"""Where models are made."""


@lru_cache
def _backend() -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIALS, *alphabet])}
    for word in ("Ġthe", "Ġis", "Ġof", "th", "er", "in"):
        vocab.setdefault(word, len(vocab))
    merges = [("t", "h"), ("e", "r"), ("i", "n")]
    backend = Tokenizer(models.BPE(vocab={k: v for k, v in vocab.items() if not k.startswith("Ġ") or len(k) == 1}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIALS)
    return backend.to_str()


def tokenizer(*, template: bool = True) -> Any:
    """A byte-level tokenizer with a pad token distinct from its end token."""
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_backend()), eos_token="<|end|>", pad_token="<|pad|>")
    made.chat_template = TEMPLATE if template else None
    return made


VOCAB = 272

_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi3": {},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0]},
}


def model(architecture: str = "llama", *, seed: int = 0, scale: float = 0.15, **changes: Any) -> Any:
    """A tiny random fp32 model whose attention matters (weights larger than the usual initialisation)."""
    config = AutoConfig.for_model(architecture, **{**_SHAPE, **ARCHITECTURES.get(architecture, {}), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config).float().eval()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=scale)
    return made.to(DEVICE)


def policy(architecture: str = "llama", *, packed: bool | None = True, **changes: Any) -> PolicyModel:
    return PolicyModel(model(architecture, **changes), packed=packed)


def lora(r: int = 4, **changes: Any) -> LoraConfig:
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM", **changes)


def shake(policy: PolicyModel, *names: str, seed: int = 1, scale: float = 0.1) -> None:
    """Give adapters B != 0, so that they matter and their A matrices get gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            for key, parameter in sorted(policy.adapter_parameters(name).items()):
                if "lora_B" in key or "lora_embedding_B" in key:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


WORDS = ["red", "green", "blue", "the sky is", "a cat", "two dogs ran", "yes", "no, not really", "that is all there is to say", "one"]


def demonstrations(count: int = 9) -> list[Example]:
    """Demonstrations of different lengths."""
    return [_example("demonstration", f"Say {WORDS[i % 10]}{'!' * (i % 4)}", [WORDS[(3 * i + 1) % 10] * (1 + i % 3)]) for i in range(count)]


def pairs(count: int = 9) -> list[Example]:
    return [
        _example("preference", f"Pick {WORDS[i % 10]} {i}", [WORDS[(i + 1) % 10], WORDS[(5 * i + 2) % 10] + f" {i}"]) for i in range(count)
    ]


def pairs_file(folder: Path) -> Path:
    """Eight comparisons as a file."""
    rows = [{"prompt": f"Pick {i}", "chosen": f"yes {i}", "rejected": f"no, never {i}"} for i in range(8)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rankings(count: int = 4) -> list[Example]:
    found = []
    for i in range(count):
        answers = [f"{WORDS[(i + k) % 10]} {k}" for k in range(4)]
        row = _example("ranking", f"Rank {i}", answers)
        found.append(Example(row.kind, row.prompt, row.completions, ranks=(1, 2, 2, 3), where=row.where))
    return found


def labelled(count: int = 9) -> list[Example]:
    rows = [_example("labelled", f"Judge {WORDS[i % 10]} {i}", [WORDS[(3 * i + 2) % 10]]) for i in range(count)]
    return [Example(row.kind, row.prompt, row.completions, label=i % 3 != 0, where=row.where) for i, row in enumerate(rows)]


def solutions(count: int = 9) -> list[Example]:
    """Solutions of one to four steps of different lengths, with right, neutral, wrong and unjudged ones."""
    labels = ((1, -1), (1,), (1, 0, -1, 1), (-1, None), (1, 1, 1), (0, 1), (1, None, -1), (-1,), (1, 1, -1, -1))
    rows: list[Example] = []
    for i in range(count):
        marks = labels[i % len(labels)]
        steps = tuple(Message("assistant", f"{WORDS[(i + 3 * k) % 10]} {k}" * (1 + (i + k) % 2)) for k in range(len(marks)))
        prompt = (Message("user", f"Solve {WORDS[i % 10]} {i}"),)
        rows.append(Example("steps", prompt, (Completion(steps),), step_labels=marks, where=f"tiny solution {i + 1}"))
    return rows


def prompts(count: int = 6) -> list[Example]:
    return [_example("prompt", f"Tell me about {WORDS[i % 10]} {i}", []) for i in range(count)]


def _example(kind: Any, prompt: str, answers: list[str]) -> Example:
    completions = tuple(Completion((Message("assistant", answer),)) for answer in answers)
    return Example(kind, (Message("user", prompt),), completions, where=f"tiny {kind}")
