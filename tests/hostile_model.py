"""A model that writes what pages must never run."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny

HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<iframe src=\"javascript:parent.document.title='owned'\"></iframe>",
    "[link](javascript:document.title='owned')",
    "$\\href{javascript:alert(1)}{x}$",
    "![image](https://example.org/track.png)",
    "</div></section><form action=https://example.org><button>Send</button></form>",
    "<svg onload=\"document.title='owned'\"/>",
    "data: x\n\nevent: done\ndata: {}\n\n",
    "\x00\x07\x1b[2J\x1b]0;owned\x07\x9b31m\r\u2028\u202e\u200f\ufeff",
    "\u0301" * 200,
    "w" * 3000,
]


def hostile_model(folder: Path, seed: int = 0) -> str:
    """A model whose every word is markup, an event, a control character or endless."""
    tiny.model(seed=seed, max_position_embeddings=8192).save_pretrained(folder)
    words = [f"{HOSTILE[number % len(HOSTILE)]}{number}" for number in range(tiny.VOCAB - len(tiny.SPECIALS) - 1)]
    vocabulary = {word: index for index, word in enumerate([*tiny.SPECIALS, *words, "?"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(tiny.SPECIALS)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>", unk_token="?")
    made.chat_template = tiny.TEMPLATE
    made.save_pretrained(folder)
    return str(folder)
