"""Writes an ordinary model folder as a GGUF file (llama.cpp's format), tensor by tensor, with the official `gguf` package.

Linear layers are F16, Q8_0 or Q4_0; embeddings and LM head of a Q4_0 file are Q8_0, for what they lose is lost in every token. Norms and
biases stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.errors import ConfigError, MachineError
from accord.models import folders
from accord.models.gguf import made_config, open_gguf, read_config, read_tensor
from accord.models.gguf_settings import architecture_of, rotary_factors, rotary_of, write_settings
from accord.models.gguf_vocabulary import TokenFields, token_fields
from accord.models.tokens import leave_out_unembedded

KINDS = {"f16": 1, "q8_0": 7, "q4_0": 2}
"""How linear layers are written -> the file's number for it (llama.cpp's LLAMA_FTYPE)."""
BLOCK = 32
"""Weights that share a scale in Q8_0 and Q4_0; rows that are no whole number of blocks stay F16."""
LOST = {"F32": 1e-3, "F16": 1e-3, "Q8_0": 0.02, "Q4_0": 0.2}
"""Share of a tensor's norm that rounding takes at most: more means that it is another tensor."""
ROTARY = "rope_freqs.weight"


@dataclass(frozen=True)
class _Planned:
    """One tensor of the file."""

    name: str
    """In the folder."""
    theirs: str
    """In the file."""
    shape: tuple[int, ...]
    kind: Any
    """A `gguf.GGMLQuantizationType`."""


def write_gguf(folder: Path, path: Path, kind: str, *, title: str, licence: str = "not stated") -> None:
    """Write a transformers folder as one GGUF file.

    Args:
        folder: config, safetensors and a fast tokenizer.
        path: the file; written over.
        kind: one of KINDS.
        title: the model's name, for whoever loads it.
        licence: as the base's card says.
    Raises:
        ConfigError: if the architecture or something in its config cannot be written.
        MachineError: if the tokenizer cannot be written, or the folder is damaged.
    """
    import gguf
    from transformers import AutoTokenizer

    config = _settings(folder)
    architecture = architecture_of(config)
    tokenizer, rows = AutoTokenizer.from_pretrained(folder, local_files_only=True), int(config["vocab_size"])
    leave_out_unembedded(tokenizer, rows)
    tokens = token_fields(tokenizer, rows)
    planned = _plan(folder, config, architecture, kind)
    writer = gguf.GGUFWriter(path, architecture)
    try:
        writer.add_type("model")
        writer.add_name(title)
        if licence != "not stated":
            writer.add_license(licence)
        writer.add_file_type(KINDS[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        write_settings(writer, config, architecture)
        _write_tokens(writer, tokens)
        factors = rotary_factors(config)
        if factors is not None:
            writer.add_tensor_info(ROTARY, factors.shape, factors.dtype, factors.nbytes)
        for one in planned:
            writer.add_tensor_info(one.theirs, *_stored(one), raw_dtype=one.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for one, value in zip(planned, _values(folder, planned, config, architecture), strict=True):
            writer.write_tensor_data(gguf.quants.quantize(value, one.kind))
    finally:
        writer.close()


def check_gguf(path: Path, folder: Path) -> float:
    """Compare every tensor of a file, as accord's reader finds it, with the folder that it was written from.

    Returns:
        the largest share of a tensor's norm that rounding took.
    Raises:
        MachineError: naming a tensor that is missing or another one.
    """
    import numpy as np

    config = _settings(folder)
    known = {tensor.name: tensor for tensor in open_gguf(path).tensors}
    factors = rotary_factors(config)
    if factors is not None and not (ROTARY in known and np.array_equal(known[ROTARY].data, factors)):
        raise MachineError(f"{path} does not have the model's rotary frequencies. Export it again.")
    there = {one.name: one.theirs for one in _plan(folder, config, architecture_of(config), "f16")}
    worst = 0.0
    for weights in folders.weight_files(folder):
        for name, tensor in folders.read_tensors(weights, there.__contains__):
            found = known.get(there[name])
            value = tensor.float().numpy()
            mine = None if found is None else read_tensor(found, config, path)[1]
            if found is None or mine is None or mine.shape != value.shape:
                raise MachineError(f"{path} has no {there[name]} of the right shape: it was not written well. Export it again.")
            lost = float(np.linalg.norm(mine - value) / max(float(np.linalg.norm(value)), 1e-12))
            if not lost <= LOST[found.tensor_type.name]:
                raise MachineError(
                    f"{path}: {there[name]} is not the {name} it was written from ({lost:.1%} off). Use --to merged, and please report this."
                )
            worst = max(worst, lost)
    return worst


def load_written(path: Path, folder: Path) -> Any:
    """The transformers model that a written file holds, as the file describes it, in float32.

    Only the scaling of rotary positions, which accord does not read from GGUF, is taken from the folder that the file was made from.

    Raises:
        MachineError: if the file does not hold a whole model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    settings, reader = _settings(folder), open_gguf(path)
    rotary = None if rotary_of(settings)["rope_type"] == "default" else settings["rope_parameters"]
    config = read_config(reader, path, rotary=rotary)
    state = {}
    for tensor in reader.tensors:
        if tensor.name != ROTARY:
            name, value = read_tensor(tensor, config, path)
            state[name] = torch.tensor(value)  # a copy: what needed no widening is a view of the file
    model: Any = AutoModelForCausalLM.from_config(made_config(config), dtype=torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = "lm_head.weight" if config["tie_word_embeddings"] else ""
    if unexpected or [name for name in missing if name != tied]:
        raise MachineError(f"{path} does not hold the weights of {folder}. Export it again.")
    model.tie_weights()
    return model.eval()


# -- what is written ---------------------------------------------------------------------------------------------------------------


def _settings(folder: Path) -> dict[str, Any]:
    """The folder's config with the defaults of its class: config.json leaves them out."""
    from transformers import AutoConfig

    return dict(AutoConfig.from_pretrained(folder, local_files_only=True).to_dict())


def _plan(folder: Path, config: dict[str, Any], architecture: str, kind: str) -> list[_Planned]:
    """The tensors of the file, in the order of the folder's."""
    import gguf

    arch = {name: one for one, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    found = []
    for path in folders.weight_files(folder):
        for name, tensor in folders.read_header(path).items():
            if tied and name == "lm_head.weight":
                continue
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if theirs is None:
                raise ConfigError(f"GGUF has no place for {name} in a {architecture} model. Use --to merged.")
            shape = tuple(tensor["shape"])
            found.append(_Planned(name, theirs, shape, _kind(theirs, shape, kind)))
    return found


def _kind(theirs: str, shape: tuple[int, ...], kind: str) -> Any:
    from gguf import GGMLQuantizationType as Kinds

    if len(shape) < 2:
        return Kinds.F32
    if kind == "f16" or shape[-1] % BLOCK:
        return Kinds.F16
    outer = theirs.startswith(("token_embd", "output."))
    return Kinds.Q4_0 if kind == "q4_0" and not outer else Kinds.Q8_0


def _stored(one: _Planned) -> tuple[tuple[int, ...], Any, int]:
    """Shape, numpy type and bytes of a tensor in the file; blocks are counted in bytes."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import quant_shape_to_byte_shape

    weights, size = GGML_QUANT_SIZES[one.kind]
    plain = {"F32": np.float32, "F16": np.float16}.get(one.kind.name)
    shape = one.shape if plain else tuple(quant_shape_to_byte_shape(one.shape, one.kind))
    return shape, np.dtype(plain or np.uint8), math.prod(one.shape) // weights * size


def _values(folder: Path, planned: list[_Planned], config: dict[str, Any], architecture: str) -> Iterator[Any]:
    """The tensors as the file has them, in float32: Llama's queries and keys with neighbouring pairs, Gemma's norms with their 1."""
    import numpy as np

    wanted = {one.name for one in planned}
    heads = int(config["num_attention_heads"])
    key_heads = int(config.get("num_key_value_heads") or heads)
    for path in folders.weight_files(folder):
        for name, tensor in folders.read_tensors(path, wanted.__contains__):
            value = tensor.float().numpy()
            if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
                value = permute(value, heads if ".q_proj." in name else key_heads)
            elif architecture == "gemma3" and name.endswith("norm.weight"):
                value = value + np.float32(1.0)
            yield np.ascontiguousarray(value)


def permute(weight: Any, heads: int) -> Any:
    """The inverse of `gguf.unpermute`: the two halves of a head's rows become neighbouring pairs."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_tokens(writer: Any, tokens: TokenFields) -> None:
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(tokens.tokens)
    writer.add_token_types(tokens.types)
    if tokens.merges is not None:
        writer.add_token_merges(tokens.merges)
    if tokens.scores is not None:
        writer.add_token_scores(tokens.scores)
        writer.add_add_space_prefix(tokens.space_prefix)
    ids = {"bos": tokens.bos, "eos": tokens.eos, "eot": tokens.eot, "unk": tokens.unknown, "pad": tokens.pad}
    for name, index in ids.items():
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(tokens.add_bos)
    if tokens.template is not None:
        writer.add_chat_template(tokens.template)
