"""Reads checkpoints that bitsandbytes wrote in 4 bits (NF4, scales quantised once more) without bitsandbytes: their codes are held as they are.

Beside `NAME.weight`, two codes a byte, lie `.absmax` (a byte for each 64 weights), `.nested_quant_map` (what these bytes stand for),
`.nested_absmax` (a scale for each 256 of them) and a JSON text with their mean and the shape (bitsandbytes, `functional.QuantState.as_dict`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import MachineError
from accord.models import folders
from accord.models.size import BLOCK, SCALE_BLOCK

STATE = "quant_state.bitsandbytes__nf4"
PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", STATE)


@dataclass(frozen=True)
class Codes:
    """A weight in NF4, row after row, laid out as `small.to_nf4` does."""

    codes: Tensor
    scales: Tensor
    coarse: Tensor
    mean: Tensor
    levels: Tensor
    """(256,): what each byte of `scales` stands for, before `coarse` and `mean`."""
    shape: tuple[int, ...]


def is_four_bit(config: Any) -> bool:
    """Whether a checkpoint says that bitsandbytes wrote it in 4 bits.

    Args:
        config: its config.json, or the transformers config made of it.
    """
    said = config.get("quantization_config") if isinstance(config, dict) else getattr(config, "quantization_config", None)
    said = said if isinstance(said, dict) or said is None else said.to_dict()
    return bool(said) and str(said.get("quant_method", "")) == "bitsandbytes" and bool(said.get("load_in_4bit"))


def read_weights(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor | Codes]]:
    """The weights one after the other, each in memory of its own.

    Args:
        wanted: by name; the others are not read.
    Raises:
        MachineError: if codes are of another format (fp4, other blocks, scales not quantised), or parts of one are missing.
    """
    paths = folders.weight_files(folder)
    parts: dict[str, Tensor] = {}  # two hundredths of the codes; the parts of one weight may lie in two files
    for path in paths:
        parts.update(folders.read_tensors(path, lambda name: _is_part(name), codes=True))
    for path in paths:
        for name, tensor in folders.read_tensors(path, lambda name: not _is_part(name) and wanted(name), codes=True):
            yield name, _codes(name, tensor, parts, folder) if tensor.dtype == torch.uint8 else tensor


def _is_part(name: str) -> bool:
    return ".weight." in name


def _codes(name: str, tensor: Tensor, parts: dict[str, Tensor], folder: Path) -> Codes:
    from accord.models.small import NF4

    found = {part: parts[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in parts}
    if STATE not in found:
        other = next(
            (key.rsplit("__", 1)[-1] for key in parts if key.startswith(f"{name}.quant_state.bitsandbytes__")), "an unknown format"
        )
        raise _other(folder, name, other)
    state = json.loads(bytes(found[STATE].tolist()))
    if len(found) < len(PARTS):
        raise _other(folder, name, "nf4 whose scales are not quantised")
    if (state["blocksize"], state["nested_blocksize"]) != (BLOCK, SCALE_BLOCK):
        raise _other(folder, name, f"nf4 in blocks of {state['blocksize']}, their scales in blocks of {state['nested_blocksize']}")
    if not torch.equal(found["quant_map"].float(), torch.tensor(NF4)):
        raise _other(folder, name, "nf4 with other levels")
    shape = tuple(int(size) for size in state["shape"])
    blocks = -(-shape[0] * shape[1] // BLOCK)
    sizes = len(tensor.flatten()), len(found["absmax"]), len(found["nested_absmax"])
    if sizes != ((shape[0] * shape[1] + 1) // 2, blocks, -(-blocks // SCALE_BLOCK)):
        raise _other(folder, name, f"parts that do not fit its shape {shape}")
    return Codes(
        F.pad(tensor.flatten(), (0, blocks * BLOCK // 2 - sizes[0])),
        F.pad(found["absmax"], (0, -blocks % SCALE_BLOCK)),
        found["nested_absmax"].float(),
        torch.tensor(float(state["nested_offset"])),
        found["nested_quant_map"].float(),
        shape,
    )


def _other(folder: Path, name: str, found: str) -> MachineError:
    return MachineError(
        f"{folder} holds {name} as {found}. accord reads bitsandbytes' nf4 in blocks of {BLOCK} with its scales quantised (double quantisation). Name the unquantised model."
    )
