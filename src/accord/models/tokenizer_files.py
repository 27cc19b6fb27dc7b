"""Builds a fast tokenizer from the vocabulary that a weights file carries: byte-level BPE or sentencepiece BPE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord.errors import MachineError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Token types of sentencepiece and GGUF. Control tokens never come from text, user-defined ones are always matched whole."""

_LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {"llama-bpe": _LLAMA3_SPLIT, "qwen2": _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")}
CUTS = (*_SPLITS, "smollm", "gpt-2")
"""llama.cpp's names of the rules by which byte-level tokenizers cut text into words."""


@dataclass(frozen=True)
class Vocabulary:
    """What a weights file says about its tokens; ids are positions."""

    tokens: Sequence[str]
    types: Sequence[int]
    bos: int | None
    eos: int
    unknown: int | None
    pad: int | None = None
    add_bos: bool = False
    chat_template: str | None = None


def byte_level(vocabulary: Vocabulary, merges: Sequence[str], pre: str) -> Any:
    """A byte-level BPE tokenizer (GPT-2's kind).

    Args:
        merges: "left right" pairs, most important first.
        pre: how text is cut into words first, by llama.cpp's name: smollm, llama-bpe, qwen2, gpt-2.
    Raises:
        MachineError: if the cut is not known here; a guess would give other ids than the model was trained on.
    """
    from tokenizers import Tokenizer, decoders, models

    cut = cut_named(pre)
    if cut is None:
        raise MachineError(
            f'This file cuts text by the rule "{pre}", which accord does not know (it knows {", ".join(sorted(CUTS))}). Use the safetensors version of the model.'
        )
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    model = models.BPE(vocab=_ids(vocabulary), merges=pairs, ignore_merges=pre == "llama-bpe")  # type: ignore[arg-type]
    backend = Tokenizer(model)
    backend.pre_tokenizer = cut
    backend.decoder = decoders.ByteLevel()
    return _finish(backend, vocabulary)


def cut_named(pre: str) -> Any:
    """How text is cut into words before byte-level BPE, by llama.cpp's name of the rule; None for one that is not known here."""
    from tokenizers import Regex, pre_tokenizers

    if pre in _SPLITS:
        split = pre_tokenizers.Split(Regex(_SPLITS[pre]), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return pre_tokenizers.ByteLevel(add_prefix_space=False) if pre == "gpt-2" else None


def sentencepiece_bpe(vocabulary: Vocabulary, scores: Sequence[float], *, prefix_space: bool) -> Any:
    """A sentencepiece BPE tokenizer with byte fallback (Llama 2's and Gemma's kind).

    Args:
        scores: a higher score is merged earlier.
        prefix_space: True puts a space before the text, as sentencepiece's dummy prefix does. False leaves the text alone.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown]
    model = models.BPE(vocab=_ids(vocabulary), merges=_merges(vocabulary, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    steps = [normalizers.Prepend("▁")] if prefix_space else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _finish(backend, vocabulary)


def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {token: index for index, token in enumerate(vocabulary.tokens)}


def _merges(vocabulary: Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a token from two others; the best-scored token first, as sentencepiece chooses.

    User-defined tokens (runs of spaces or line ends in Gemma) come before all others, because sentencepiece matches them first.
    """
    ids = _ids(vocabulary)
    found: list[tuple[float, int, int, str, str]] = []
    for token, index in ids.items():
        kind = vocabulary.types[index]
        if kind not in (NORMAL, USER_DEFINED):
            continue
        importance = float("-inf") if kind == USER_DEFINED else -scores[index]
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((importance, left, right, token[:cut], token[cut:]))
    return [(left, right) for *_, left, right in sorted(found)]


def _finish(backend: Any, vocabulary: Vocabulary) -> Any:
    """Mark special tokens, add BOS where the model expects it, and wrap for transformers."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary.tokens
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, vocabulary.types, strict=True) if kind == CONTROL]
    )
    backend.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t, kind in zip(tokens, vocabulary.types, strict=True) if kind == USER_DEFINED]
    )
    names = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos, "unk_token": vocabulary.unknown, "pad_token": vocabulary.pad}
    named = {name: tokens[index] for name, index in names.items() if index is not None}
    if vocabulary.add_bos and vocabulary.bos is not None:
        bos = tokens[vocabulary.bos]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary.bos)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    made.chat_template = vocabulary.chat_template
    return made
