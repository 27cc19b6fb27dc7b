"""What both sides of `vs_trl.py` start from: the job, the rows, the model, LoRA weights with B != 0, a group of answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.data.read import read_examples
from accord.models.load import load_model, load_tokenizer, resolve
from accord.types import content_hash

HARMLESS = "hh_harmless_test/harmless-base_test.jsonl.gz"
RATE, DECAY, EPSILON, CLIP, BETA = 1e-4, 0.0, 1e-8, 1.0, 0.1
ANSWER, GROUP, PROMPTS = 64, 8, 8
"""Of a rollout: tokens an answer, answers a prompt, prompts."""


@dataclass(frozen=True)
class Job:
    """What to run, JSON-able."""

    method: str
    data: str
    model: str = "smollm2-135m"
    rows: int = 40
    max_length: int = 512
    layers: int = 0
    """0 takes the named model; otherwise a random Llama of about ten million weights with so many layers."""
    double: bool = False
    """The random Llama in float64, where rounding is no longer what two sides differ by."""


@dataclass(frozen=True)
class Setting:
    """How one side is set up."""

    library: str
    batch: int = 4
    """Rows a forward pass (TRL)."""
    checkpointing: bool = False
    cached_reference: bool = True
    bf16: bool = False
    merged: bool = True


def rows_of(job: Job, tokenizer: Any) -> list[dict[str, Any]]:
    """A fixed choice of preference rows as chat messages, prompt and longer answer together within `max_length` tokens."""
    found = []
    examples = [row for row in read_examples(str(Path(job.data) / HARMLESS)) if row.kind == "preference" and row.probability in (None, 1.0)]
    for row in sorted(examples, key=lambda row: content_hash(["vs trl", row.id])):
        prompt = [{"role": m.role, "content": m.content} for m in row.prompt]
        answers = [[{"role": m.role, "content": m.content} for m in c.messages] for c in row.completions]
        longest = max(len(tokenizer.apply_chat_template(prompt + answer, return_dict=False)) for answer in answers)
        if longest <= job.max_length:
            found.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1], "tokens": longest})
        if len(found) == job.rows:
            break
    return found


def make(job: Job) -> tuple[Any, Any]:
    """The base model and its tokenizer."""
    resolved = resolve(job.model, accept_licence=True)
    tokenizer = load_tokenizer(resolved)
    # What a template writes after the end of the last answer is left away: accord does not learn from it.
    for ending, bare in (("'<|im_end|>' + '\n'", "'<|im_end|>'"), ("'\n\n'", "''")):
        last = f"({ending} if add_generation_prompt or not loop.last else {bare})"
        tokenizer.chat_template = tokenizer.chat_template.replace(ending, last)
    if not job.layers:
        return load_model(resolved, dtype="float32"), tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=344, num_hidden_layers=job.layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.float64 if job.double else torch.float32).eval(), tokenizer


def lora(task: str = "CAUSAL_LM") -> Any:
    from peft import LoraConfig

    more = {"exclude_modules": ["score"], "modules_to_save": ["score"]} if task == "SEQ_CLS" else {}
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type=task, **more)


def plain_name(name: str) -> str:
    """A LoRA tensor's name without what peft and the adapter's name put around it."""
    parts = name.split(".")
    start = parts.index("layers")
    return ".".join([*parts[start : parts.index("lora_A" if "lora_A" in parts else "lora_B") + 1]])


def shake(parameters: dict[str, Any]) -> dict[str, Any]:
    """LoRA parameters by plain name, each filled from a generator seeded by that name: the same on both sides, B not 0."""
    found = {plain_name(name): parameter for name, parameter in parameters.items() if ".lora_" in name and parameter.requires_grad}
    for name, parameter in found.items():
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        generator = torch.Generator().manual_seed(seed)
        scale = 0.01 if name.endswith("lora_B") else parameter.shape[1] ** -0.5
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return found


def group_of(job: Job, tokenizer: Any, rows: list[dict[str, Any]]) -> tuple[list[int], Tensor, Tensor]:
    """One prompt, eight answers of 64 given tokens and their advantages (group mean subtracted)."""
    prompt = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, return_dict=False)[-56:]
    generator = torch.Generator().manual_seed(5)
    answers = torch.randint(1000, len(tokenizer) - 200, (GROUP, ANSWER), generator=generator)
    rewards = torch.randn(GROUP, generator=generator)
    return list(prompt), answers, rewards - rewards.mean()


def vowels(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs within groups."""
    return [sum(text.count(letter) for letter in "aeiou") / (1 + len(text)) for text in (c[0]["content"] for c in completions)]
