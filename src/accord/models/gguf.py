"""Reads a GGUF file (llama.cpp's format) into an ordinary transformers folder (config, tokenizer, chat template, fp32 safetensors), or its weights alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.errors import MachineError
from accord.models.blocks import Blocks
from accord.models.free_memory import available_memory, require
from accord.models.gguf_settings import ARCHITECTURES, LOCAL_THETA, gemma3_layers, gemma3_query_scale
from accord.models.tokenizer_files import Vocabulary, byte_level, sentencepiece_bpe

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_MODEL_TYPES = {theirs: ours for ours, theirs in ARCHITECTURES.items()}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
"""GGUF architecture -> transformers class."""


def convert(path: Path, folder: Path) -> None:
    """Write the model in `path` to `folder` (which exists and is empty), every weight dequantised to fp32.

    Raises:
        MachineError: if the file is cut, is no GGUF, or holds an architecture, tokenizer or tensor that accord does not know; or if its
            weights do not fit in memory as fp32.
    """
    _check_memory(open_gguf(path), path)
    describe(path, folder)
    convert_weights(path, folder / "model.safetensors")


def convert_weights(path: Path, target: Path) -> None:
    """Write the weights alone, every one dequantised to fp32, to a safetensors file. Raises as `convert` does."""
    from safetensors.numpy import save_file

    reader = open_gguf(path)
    _check_memory(reader, path)
    config = read_config(reader, path)
    _check_complete(config, reader, path)
    save_file(dict(read_tensor(tensor, config, path) for tensor in reader.tensors), target, metadata={"format": "pt"})


def describe(path: Path, folder: Path) -> None:
    """Write everything but the weights to `folder`, which exists and is empty: config, tokenizer, chat template. Raises as `convert` does."""
    reader = open_gguf(path)
    config = read_config(reader, path)
    _check_complete(config, reader, path)
    tokenizer = _tokenizer(reader, path)
    _write_json(folder / "config.json", {key: value for key, value in config.items() if value is not None})
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    _write_json(folder / "generation_config.json", ids)
    tokenizer.save_pretrained(folder)


def stored_bytes(path: Path) -> Counter[str]:
    """Bytes of a file's weights by the name of their type: Q8_0, F32, ... Raises as `open_gguf` does."""
    sizes: Counter[str] = Counter()
    for tensor in open_gguf(path).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    return sizes


def read_weights(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor | Blocks]]:
    """The weights of a file one after the other under their transformers names, each in memory of its own: matrices in the file's blocks.

    Args:
        wanted: by name; the others are not read.
    Raises:
        MachineError: as `convert`.
    """
    import numpy as np
    import torch

    reader = open_gguf(path)
    config = read_config(reader, path)
    for tensor in reader.tensors:
        name = _known_name(tensor, config, path)
        if not wanted(name):
            continue
        data = np.fromfile(path, tensor.data.dtype, tensor.data.size, offset=tensor.data_offset).reshape(tensor.data.shape)
        if data.ndim == 1:
            yield name, torch.from_numpy(read_tensor(tensor._replace(data=data), config, path)[1])
            continue
        raw = _in_transformers_order(data.view(np.uint8).reshape(len(data), -1), name, config)
        yield name, Blocks(torch.from_numpy(np.ascontiguousarray(raw)), tensor.tensor_type.name, _shape(tensor))


def licence(path: Path) -> str:
    """What the file says about its licence, or "not stated". Raises as `open_gguf` does."""
    return str(_field(open_gguf(path), "general.license") or "not stated")


def open_gguf(path: Path) -> Any:
    """The file's header, its tensors still on disk.

    Raises:
        MachineError: if it is no GGUF file or ends before its last tensor.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OSError, KeyError, OverflowError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise MachineError(f"{path} is not a whole GGUF file ({reason}). Fetch it again.") from error
    return reader


def read_tokenizer(path: Path) -> Any:
    """The tokenizer that a file carries. Raises as `convert` does."""
    return _tokenizer(open_gguf(path), path)


def made_config(config: dict[str, Any]) -> Any:
    """The transformers config of what `read_config` found."""
    from transformers import AutoConfig

    plain = {key: value for key, value in config.items() if key not in ("architectures", "dtype") and value is not None}
    return AutoConfig.for_model(**plain)


def _check_memory(reader: Any, path: Path) -> None:
    """All weights are held at once as fp32, and the one being dequantised beside its packed form."""
    sizes = [4 * int(tensor.n_elements) for tensor in reader.tensors]
    have = available_memory()
    require(
        sum(sizes) + max(sizes, default=0),
        have,
        what=f"Converting {path.name}",
        fitting=f"a model of at most {have / 4e6:.0f} million weights",
    )


def _field(reader: Any, key: str, default: Any = None) -> Any:
    field = reader.fields.get(key)
    return default if field is None else field.contents()


def _short(value: float) -> float:
    """The number somebody wrote, from its float32 image: 1e-05 rather than 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def read_config(reader: Any, path: Path, *, rotary: dict[str, Any] | None = None) -> dict[str, Any]:
    """The transformers config that a file describes.

    Args:
        reader: from `open_gguf`.
        path: for messages.
        rotary: `rope_parameters` of the model that the file was made from, where that is known. None reads the file's own, unscaled.
    Raises:
        MachineError: if the file does not say enough, or holds an architecture or scaled rotary positions that accord does not read.
    """
    architecture = _field(reader, "general.architecture", "none")
    if architecture not in _MODEL_TYPES:
        raise MachineError(
            f"{path.name} holds the architecture {architecture}; accord reads {', '.join(_MODEL_TYPES)} from GGUF. Use the safetensors version of the model."
        )
    scaled = any(key.startswith(f"{architecture}.rope.scaling.") for key in reader.fields)
    if rotary is None and (scaled or any(tensor.name.startswith("rope_") for tensor in reader.tensors)):
        raise MachineError(
            f"{path.name} scales its rotary positions, which accord does not read from GGUF. Use the safetensors version of the model."
        )

    def need(key: str) -> Any:
        value = _field(reader, f"{architecture}.{key}")
        if value is None:
            raise MachineError(f"{path.name} does not say {architecture}.{key}. Fetch the file again or use the safetensors version.")
        return value

    names = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in names:
        raise MachineError(f"{path.name} has no token embeddings (token_embd.weight). Fetch the file again.")
    heads, width = need("attention.head_count"), need("embedding_length")
    config = {
        "architectures": [_CLASSES[architecture]],
        "model_type": _MODEL_TYPES[architecture],
        "dtype": "float32",
        "vocab_size": int(names["token_embd.weight"].shape[1]),
        "hidden_size": width,
        "intermediate_size": need("feed_forward_length"),
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, f"{architecture}.attention.head_count_kv", heads),
        "head_dim": _field(reader, f"{architecture}.attention.key_length", width // heads),
        "max_position_embeddings": need("context_length"),
        "rms_norm_eps": _short(need("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _pad(reader),
    }
    theta = _short(_field(reader, f"{architecture}.rope.freq_base", 10000.0))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    if architecture == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in names
        config["mlp_bias"] = "blk.0.ffn_up.bias" in names
    if architecture == "gemma3":
        config |= _gemma3(reader, config, theta)
    return config if rotary is None else {**config, "rope_parameters": rotary}


def _gemma3(reader: Any, config: dict[str, Any], theta: float) -> dict[str, Any]:
    """Gemma 3's own entries: every sixth layer attends to everything, the others to a window with rotary base 10,000."""
    layers, width = config["num_hidden_layers"], config["head_dim"]
    return {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
        },
        "layer_types": gemma3_layers(layers),
        "sliding_window": _field(reader, "gemma3.attention.sliding_window", 512),
        "query_pre_attn_scalar": gemma3_query_scale(layers, width, config["hidden_size"], config["num_attention_heads"]),
        "hidden_activation": "gelu_pytorch_tanh",
    }


def read_tensor(tensor: Any, config: dict[str, Any], path: Path) -> tuple[str, Any]:
    """The transformers name and fp32 value of one tensor of a file.

    Args:
        tensor: as gguf's reader gives it.
        config: from `read_config`, or of the model that the file was made from.
        path: for messages.
    Raises:
        MachineError: if accord knows no such tensor, or not how it is quantised.
    """
    import numpy as np
    from gguf.quants import dequantize

    name = _known_name(tensor, config, path)
    try:
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
        raise unreadable(path, tensor.tensor_type.name) from error
    value = _in_transformers_order(value, name, config)
    if config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
        value = value - 1.0  # llama.cpp stores 1 + w, transformers adds the 1 itself
    return name, np.ascontiguousarray(value)


def unreadable(path: Path, kind: str) -> MachineError:
    """What to say of a type that the gguf package cannot dequantise."""
    return MachineError(f"{path.name} is quantised as {kind}, which cannot be read here. Use another quantisation.")


def _known_name(tensor: Any, config: dict[str, Any], path: Path) -> str:
    name = _name(tensor.name, config["model_type"])
    if name is None:
        raise MachineError(f"{path.name} holds a tensor accord does not know ({tensor.name}). Use the safetensors version of the model.")
    return name


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape.tolist()))


def _in_transformers_order(rows: Any, name: str, config: dict[str, Any]) -> Any:
    """Rows of a weight, as numbers or as bytes, in the order that transformers has them."""
    if config["model_type"] == "llama" and ".q_proj." in name:
        return unpermute(rows, config["num_attention_heads"])
    if config["model_type"] == "llama" and ".k_proj." in name:
        return unpermute(rows, config["num_key_value_heads"])
    return rows


def _name(name: str, model_type: str) -> str | None:
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    stem, _, kind = name.rpartition(".")
    if stem in top:
        return f"{top[stem]}.{kind}"
    parts = stem.split(".")
    if len(parts) != 3 or parts[0] != "blk":
        return None
    names = _NAMES | (_GEMMA if model_type == "gemma3_text" else {})
    return f"model.layers.{parts[1]}.{names[parts[2]]}.{kind}" if parts[2] in names else None


def unpermute(weight: Any, heads: int) -> Any:
    """Rows of a query or key matrix (or bias) from the order where neighbouring pairs rotate together (Llama's own, llama.cpp's) to
    transformers', where the two halves of a head do.
    """
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _check_complete(config: dict[str, Any], reader: Any, path: Path) -> None:
    """Every weight of the transformers model must be there with its shape, and nothing else: a missing one would be left random."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(made_config(config))
    expected = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    found = {_known_name(tensor, config, path): _shape(tensor) for tensor in reader.tensors}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise MachineError(
            f"{path.name}: {len(wrong)} weights do not fit its config (first: {wrong[0]}). Use the safetensors version of the model."
        )


def _pad(reader: Any) -> int | None:
    """The padding token, unless it is the end token (it would teach a model that ends do not count)."""
    pad, eos = _field(reader, "tokenizer.ggml.padding_token_id"), _field(reader, "tokenizer.ggml.eos_token_id")
    return None if pad == eos else pad


def _tokenizer(reader: Any, path: Path) -> Any:
    def optional(key: str, default: Any = None) -> Any:
        return _field(reader, f"tokenizer.ggml.{key}", default)

    kind, tokens, eos = optional("model"), optional("tokens"), optional("eos_token_id")
    if tokens is None or eos is None:
        raise MachineError(f"{path.name} carries no tokenizer or no end token. Use the safetensors version of the model.")
    types = optional("token_type") or [1] * len(tokens)
    vocabulary = Vocabulary(
        tokens=tokens,
        types=types,
        bos=optional("bos_token_id"),
        eos=eos,
        unknown=optional("unknown_token_id"),
        pad=_pad(reader),
        add_bos=bool(optional("add_bos_token", kind == "llama")),
        chat_template=_field(reader, "tokenizer.chat_template"),
    )
    builders: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: byte_level(vocabulary, optional("merges"), optional("pre", "gpt-2")),
        "llama": lambda: sentencepiece_bpe(
            vocabulary,
            optional("scores"),
            prefix_space=bool(optional("add_space_prefix", True)),
        ),
    }
    if kind not in builders:
        raise MachineError(
            f"{path.name} has a tokenizer of the kind {kind}; accord reads {' and '.join(builders)} from GGUF. Use the safetensors version."
        )
    return builders[kind]()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
