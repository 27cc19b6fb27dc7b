"""Special tokens that alignment needs, chosen from those that exist: padding, the end of an answer, a chat template. Never a resize."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from accord.errors import ConfigError

PLAIN_TEMPLATE_NAME = "accord-plain"
PLAIN_TEMPLATE = (
    "{BOS}{% for message in messages %}{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
"""Fallback template for base models: headings in plain words, every answer ended by the tokenizer's own end token."""

SAMPLING: dict[str, float | None] = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 50, "top_h": None, "min_p": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
"""Settings of transformers' generation that are for sampling alone, with the values that say nothing."""
_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>")
_NEVER_IN_TEXT = ("<0xFF>", "ÿ")
"""The byte 255, which no UTF-8 text contains, as sentencepiece and as byte-level BPE write it."""


def ensure_pad(tokenizer: Any) -> str | None:
    """Give the tokenizer a pad token that is not its end token.

    A pad equal to the end token makes code that masks padding also mask ends, so that a model never learns to stop. The pad is taken
    from existing tokens, those least likely to mean anything first.

    Returns:
        one line saying what was chosen; None when the pad was right already.
    Raises:
        ConfigError: if there is no end token, or no token that could pad.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "The tokenizer has no end-of-sequence token: a model trained with it would never stop. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return None
    size = len(tokenizer)
    chosen = next((token for token in _pad_candidates(tokenizer) if tokenizer.convert_tokens_to_ids(token) != tokenizer.eos_token_id), None)
    if chosen is None:
        raise ConfigError("The tokenizer has no token that could pad apart from its end token. Set pad_token in its tokenizer_config.json.")
    before = "missing" if tokenizer.pad_token is None else "the end token"
    tokenizer.pad_token = chosen
    if len(tokenizer) != size:
        raise ConfigError(
            f"Setting the pad token {chosen} would resize the vocabulary from {size} to {len(tokenizer)}. Set pad_token in its tokenizer_config.json."
        )
    return f"pad token was {before}, now {chosen} (id {tokenizer.pad_token_id})"


def ensure_template(tokenizer: Any) -> str | None:
    """Give a tokenizer without a chat template the fallback `accord-plain`; it is saved with the tokenizer.

    Returns:
        one line naming it; None when there was a template.
    """
    if tokenizer.chat_template:
        return None
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = PLAIN_TEMPLATE.replace("{BOS}", "{{ bos_token }}" if adds_bos else "")
    return f"no chat template (a base model), so {PLAIN_TEMPLATE_NAME} is used: ### User: / ### Assistant:, answers end with {tokenizer.eos_token}"


def cuts_as_written(tokenizer: Any, folder: Path) -> bool:
    """Whether a byte-level tokenizer cuts text into words by the rule of its folder's tokenizer.json.

    transformers 5 rebuilds some by the class that tokenizer_config.json names, and loses rules that this class has not: SmolLM2's folder names
    GPT-2's, without which digits stay together with the blanks before them (huggingface/transformers#45920).
    """
    file = folder / "tokenizer.json"
    if not hasattr(tokenizer, "backend_tokenizer") or not file.is_file():
        return True
    stated = json.loads(file.read_text(encoding="utf-8")).get("pre_tokenizer")
    if "ByteLevel" not in json.dumps(stated):
        return True
    from tokenizers import Tokenizer

    empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": stated}
    rules = [
        one.pre_tokenizer for one in (Tokenizer.from_str(json.dumps(empty)), tokenizer.backend_tokenizer)
    ]  # with all that was left unsaid
    whole, built = (None if rule is None else json.loads(rule.__getstate__()) for rule in rules)
    return _steps(whole) == _steps(built)


def _steps(rule: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a rule, one sequence inside another taken apart; without offsets, and the blank before the first word, which settings decide."""
    if rule is None:
        return []
    if rule.get("type") == "Sequence":
        return [step for part in rule["pretokenizers"] for step in _steps(part)]
    return [{key: value for key, value in rule.items() if key not in ("trim_offsets", "add_prefix_space")}]


def leave_out_unembedded(tokenizer: Any, rows: int) -> str | None:
    """Take special tokens beyond the model's embeddings out of a fast tokenizer: the model could not read them, and without them text that
    names one is text like any other. Gemma 3's tokenizer has the mark of an image at every size; its models without eyes do not embed it.

    A tokenizer that pads, starts or ends answers with such a token is left as it is: it belongs to another model.

    Args:
        rows: of the model's embeddings.
    Returns:
        one line saying what is left out; None when every token is embedded, or none may go.
    """
    used = {*stop_token_ids(tokenizer), tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id}
    beyond = {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if index >= rows and token.special and index not in used
    }
    if not beyond or not hasattr(tokenizer, "_tokenizer"):
        return None
    from tokenizers import Tokenizer

    names = set(beyond.values())
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] not in beyond]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(backend))
    # transformers would add them again, when the tokenizer is saved and loaded
    tokenizer._special_tokens_map = {role: None if str(token) in names else token for role, token in tokenizer._special_tokens_map.items()}
    tokenizer._extra_special_tokens = [token for token in tokenizer._extra_special_tokens if str(token) not in names]
    kept = tokenizer.init_kwargs
    for key in ("model_specific_special_tokens", "added_tokens_decoder", "extra_special_tokens"):
        if isinstance(kept.get(key), dict):
            kept[key] = {name: token for name, token in kept[key].items() if str(token) not in names}
        elif isinstance(kept.get(key), list):
            kept[key] = [token for token in kept[key] if str(token) not in names]
    listed = ", ".join(f"{token} (id {index})" for index, token in sorted(beyond.items()))
    return f"the model embeds {rows} tokens, so {listed} is left out of its tokenizer"


def stop_token_ids(tokenizer: Any, generation_config: Any = None) -> list[int]:
    """Every id that ends an answer, the one to learn first.

    The template's own end-of-turn token comes first (what an answer in training ends with), then the tokenizer's end token, then
    those of the model's generation config.
    """
    more = getattr(generation_config, "eos_token_id", None)
    listed = list(more) if isinstance(more, (list, tuple)) else [more]
    found = [_end_of_turn(tokenizer), tokenizer.eos_token_id, *listed]
    # GPT-2 and its like start and end a text with one token: it is no end of a turn, and the only end that there is
    starts = {tokenizer.bos_token_id} - {tokenizer.eos_token_id}
    return list(dict.fromkeys(int(token) for token in found if token is not None and token not in starts))


def set_stops(model: Any, tokenizer: Any) -> list[int]:
    """Write stops and pad into the model's generation config, so that whoever loads the saved folder stops where training stopped."""
    stops = stop_token_ids(tokenizer, model.generation_config)
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    config = model.generation_config
    if config.do_sample is not True and any(getattr(config, name, None) not in (None, plain) for name, plain in SAMPLING.items()):
        config.do_sample = True  # so servers read what was published; transformers saves no changed config that says one without the other
    return stops


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token that the chat template writes right after an answer."""
    if not tokenizer.chat_template:
        return None
    answer = "Blue."
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}], tokenize=False)
    place = text.rfind(answer)
    if place < 0:
        return None
    special = set(tokenizer.all_special_ids) | {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    after = tokenizer(text[place + len(answer) :], add_special_tokens=False)["input_ids"]
    return next((token for token in after if token in special), None)


def _pad_candidates(tokenizer: Any) -> list[str]:
    """Existing tokens that may pad, best first."""
    vocabulary = tokenizer.get_vocab()
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    spare = [token for token in special if token != tokenizer.bos_token and token not in template]
    ordered = [
        *_PAD_NAMES,
        *(token for token in spare if re.search(r"reserved|unused", token)),
        *([tokenizer.unk_token] if tokenizer.unk_token else []),
        *(token for token in spare if "pad" in token.lower()),
        *(token for token in spare if "endoftext" in token),
        *spare,
        *_NEVER_IN_TEXT,
    ]
    return [token for token in ordered if token in vocabulary]
