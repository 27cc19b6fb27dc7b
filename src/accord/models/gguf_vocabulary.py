"""From a fast tokenizer to what a GGUF file says of it: tokens with their types, merges or scores, special ids, the chat template."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from accord.errors import MachineError
from accord.models.tokenizer_files import BYTE, CONTROL, CUTS, NORMAL, UNKNOWN, USER_DEFINED, cut_named
from accord.models.tokens import stop_token_ids

UNUSED = 5
"""GGUF's type of a row of the embeddings that no token has."""
NORMALIZERS = {"gpt2": ("NFC",), "llama": ("Prepend", "Replace")}
"""What may be done to text before it is cut, by GGUF's kind of tokenizer. llama.cpp does not compose accents (NFC), which text usually is."""
INSTEAD = "Use --to merged, and convert that folder with llama.cpp."


@dataclass(frozen=True)
class TokenFields:
    """The keys `tokenizer.ggml.*` of a GGUF file."""

    model: str
    """gpt2 (byte-level BPE) or llama (sentencepiece BPE)."""
    pre: str
    """llama.cpp's name of the rule that cuts text into words first."""
    tokens: list[str]
    types: list[int]
    merges: list[str] | None
    scores: list[float] | None
    bos: int | None
    eos: int
    eot: int | None
    """What ends a turn, where the chat template has a token of its own for it."""
    unknown: int | None
    pad: int | None
    add_bos: bool
    space_prefix: bool
    template: str | None


def token_fields(tokenizer: Any, rows: int) -> TokenFields:
    """Read a transformers fast tokenizer.

    Args:
        rows: of the model's embeddings; ids beyond the tokens are written as unused.
    Raises:
        MachineError: if it is of a kind, or cuts text by a rule, that GGUF has no name for here.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model.get("type") != "BPE":
        raise MachineError(f"The tokenizer is {model.get('type')}; accord writes byte-level and sentencepiece BPE to GGUF. {INSTEAD}")
    pieces = bool(model.get("byte_fallback"))
    kind = "llama" if pieces else "gpt2"
    _check_normalizer(backend, kind)
    tokens, known = _tokens(tokenizer, rows)
    merges = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    first, *_ = stop_token_ids(tokenizer)
    bos = tokenizer.bos_token_id
    types = _types(tokenizer, tokens, known, pieces=pieces)
    if pieces:  # what a user defined is cut out of the text as it was written, before blanks become ▁
        tokens = [token.replace("▁", " ") if its == USER_DEFINED else token for token, its in zip(tokens, types, strict=True)]
    return TokenFields(
        model=kind,
        pre="default" if pieces else _cut(backend),
        tokens=tokens,
        types=types,
        merges=None if pieces else [" ".join(pair) for pair in merges],
        scores=_scores(tokens, merges) if pieces else None,
        bos=bos,
        eos=tokenizer.eos_token_id,
        eot=first if first != tokenizer.eos_token_id else None,
        unknown=tokenizer.unk_token_id,
        pad=tokenizer.pad_token_id,
        add_bos=bos is not None and tokenizer("a")["input_ids"][:1] == [bos],
        space_prefix=pieces and tokenizer.tokenize("a")[0].startswith("▁") and not _only_at_the_start(tokenizer, backend),
        template=chat_template_of(tokenizer),
    )


def chat_template_of(tokenizer: Any) -> str | None:
    """The template of a chat: of several with names the one called default."""
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def _only_at_the_start(tokenizer: Any, backend: dict[str, Any]) -> bool:
    """Whether a blank is put before the first word of a whole text alone (`Metaspace`, `first`), and chats begin with a token that is no word: then
    there is none in them. GGUF knows a blank after every special token, or none."""
    rules = backend.get("pre_tokenizer") or {}
    if not any(rule.get("prepend_scheme") == "first" for rule in rules.get("pretokenizers", [rules])):
        return False
    if chat_template_of(tokenizer) is None:
        return False
    text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    first = tokenizer(text, add_special_tokens=False)["input_ids"][:1]
    return bool(first) and first[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _tokens(tokenizer: Any, rows: int) -> tuple[list[str], set[int]]:
    """The token of each row, and the rows that have one."""
    ids: dict[str, int] = tokenizer.get_vocab()
    known = set(ids.values())
    if len(known) < len(ids) or max(known) >= rows:
        raise MachineError(
            f"The tokenizer has {len(ids)} tokens with {len(known)} ids up to {max(known)}, and the model {rows} embeddings: a GGUF file has one "
            "token a row. Mend the tokenizer, or use --to merged."
        )
    tokens = [f"[PAD{index}]" for index in range(rows)]
    for token, index in ids.items():
        tokens[index] = token
    return tokens, known


def _types(tokenizer: Any, tokens: list[str], known: set[int], *, pieces: bool) -> list[int]:
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)

    def of(index: int, token: str) -> int:
        if index not in known:
            return UNUSED
        if index == tokenizer.unk_token_id and pieces:
            return UNKNOWN
        if index in special or (index in added and added[index].special):
            return CONTROL
        if index in added:
            return USER_DEFINED
        return BYTE if pieces and re.fullmatch(r"<0x[0-9A-F]{2}>", token) else NORMAL

    return [of(index, token) for index, token in enumerate(tokens)]


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """What sentencepiece merges by: the earlier a token is made, the higher its score. Tokens that no merge makes come last."""
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _check_normalizer(backend: dict[str, Any], kind: str) -> None:
    found = backend.get("normalizer")
    steps = [] if found is None else found.get("normalizers", [found])
    other = [step["type"] for step in steps if step["type"] not in NORMALIZERS[kind]]
    if other:
        raise MachineError(f"The tokenizer changes text first ({', '.join(other)}), which GGUF cannot say. {INSTEAD}")


def _cut(backend: dict[str, Any]) -> str:
    """The name of the rule that cuts text into words, found by its parts."""
    from tokenizers import Tokenizer, models

    mine = _parts(backend["pre_tokenizer"])
    for name in CUTS:
        empty = Tokenizer(models.BPE())
        empty.pre_tokenizer = cut_named(name)
        merged_alike = bool(backend["model"].get("ignore_merges")) == (name == "llama-bpe")
        if merged_alike and _parts(json.loads(empty.to_str())["pre_tokenizer"]) == mine:
            return name
    raise MachineError(f"The tokenizer cuts text by a rule that accord has no GGUF name for (it knows {', '.join(CUTS)}). {INSTEAD}")


def _parts(rule: Any) -> Any:
    """A rule without what changes no ids: offsets, and the sequence around a single step."""
    if isinstance(rule, dict):
        plain = {key: _parts(value) for key, value in rule.items() if key != "trim_offsets"}
        inner = plain.get("pretokenizers")
        return inner[0] if plain.get("type") == "Sequence" and inner is not None and len(inner) == 1 else plain
    return [_parts(one) for one in rule] if isinstance(rule, list) else rule
