"""Turns the llama2.c checkpoint stories260K (TinyStories, 260 thousand weights, MIT) into a transformers folder, for tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from accord.errors import MachineError
from accord.models.gguf import unpermute
from accord.models.registry import PINNED, check_hash
from accord.models.tokenizer_files import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary, sentencepiece_bpe

_SPECIAL = ("<unk>", "<s>", "</s>")
_HEADER = struct.Struct("<7i")


def convert_stories(source: Path, folder: Path) -> None:
    """Write `folder` (which exists and is empty) from `source`, which holds stories260K.bin and tok512.bin.

    Raises:
        MachineError: if a file is missing or is not the pinned one.
    """
    import numpy as np
    from safetensors.numpy import save_file

    for name in ("stories260K.bin", "tok512.bin"):
        if not (source / name).is_file():
            raise MachineError(f"{source} has no {name}. Name the folder with the files of stories260K.")
    checkpoint = source / "stories260K.bin"
    check_hash(checkpoint, PINNED["stories260k"].sha256)
    raw = checkpoint.read_bytes()
    width, inner, layers, heads, kv_heads, vocabulary, length = _HEADER.unpack_from(raw)
    values = np.frombuffer(raw, dtype="<f4", offset=_HEADER.size)
    place = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal place
        count = int(np.prod(shape))
        place += count
        return values[place - count : place].reshape(shape).copy()

    kv_width = width * kv_heads // heads
    tensors = {"model.embed_tokens.weight": take(vocabulary, width)}
    for name, shape in (
        ("input_layernorm", (width,)),
        ("self_attn.q_proj", (width, width)),
        ("self_attn.k_proj", (kv_width, width)),
        ("self_attn.v_proj", (kv_width, width)),
        ("self_attn.o_proj", (width, width)),
        ("post_attention_layernorm", (width,)),
        ("mlp.gate_proj", (inner, width)),
        ("mlp.down_proj", (width, inner)),
        ("mlp.up_proj", (inner, width)),
    ):
        turned = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
        for layer, weight in enumerate(take(layers, *shape)):
            tensors[f"model.layers.{layer}.{name}.weight"] = unpermute(weight, turned) if turned else weight
    tensors["model.norm.weight"] = take(width)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": length,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}) + "\n", encoding="utf-8"
    )
    tokens, scores = _read_tokens(source / "tok512.bin", vocabulary)
    types = [UNKNOWN, CONTROL, CONTROL, *(BYTE if token.startswith("<0x") else NORMAL for token in tokens[3:])]
    made = Vocabulary(tokens=tokens, types=types, bos=1, eos=2, unknown=0, pad=0, add_bos=True)
    sentencepiece_bpe(made, scores, prefix_space=True).save_pretrained(folder)


def _read_tokens(path: Path, count: int) -> tuple[list[str], list[float]]:
    """Tokens and scores of a llama2.c tokenizer file: int32 longest, then per token float32 score, int32 length, bytes.

    Raises:
        MachineError: if the file is cut.
    """
    raw, place = path.read_bytes(), 4
    tokens, scores = [], []
    try:
        for _ in range(count):
            score, size = struct.unpack_from("<fi", raw, place)
            piece = raw[place + 8 : place + 8 + size]
            if len(piece) != size:
                raise struct.error("a token is cut")
            tokens.append(piece.decode("utf-8").replace(" ", "▁"))
            scores.append(score)
            place += 8 + size
    except (struct.error, UnicodeDecodeError) as error:
        raise MachineError(f"{path} is cut or is no llama2.c tokenizer file ({error}). Fetch it again.") from error
    tokens[:3] = _SPECIAL
    return tokens, scores
