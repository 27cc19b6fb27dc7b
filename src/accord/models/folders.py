"""What a transformers folder holds, known without reading its weights: files, sizes, dtypes, licence, hash."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.errors import DataError, MachineError
from accord.models.cache import remembered
from accord.models.registry import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of weights in safetensors files, and torch's names for them."""


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        MachineError: if it is missing or no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        if any((folder / name).is_file() for name in ("adapter_config.json", "stack.json", "reward.json")):
            raise MachineError(
                f"{folder} holds adapters or heads on another model and no model itself. Name its base model ({_base(folder)}), or export it merged first."
            )
        raise MachineError(f"{folder} has no config.json, so it is no model folder. Name the folder that save_pretrained wrote.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MachineError(f"{path} is not JSON ({error}). Fetch the model again.") from error
    if not isinstance(config, dict):
        raise MachineError(f"{path} holds no JSON object. Fetch the model again.")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """What a run folder says in one of its files.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({' '.join(str(error).split())[:120]}). Save the run again, or name a checkpoint of it."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged (it holds no JSON object). Save the run again, or name a checkpoint of it.")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, in order.

    Raises:
        MachineError: if there are none (only pickles are refused: they can run code), or a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MachineError(f"{index} is damaged. Fetch the model again.") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise MachineError(
                f"{folder} lacks {len(missing)} of its {len(names)} weight files (first: {missing[0]}). Fetch the model again."
            )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise MachineError(
            f"{folder} holds its weights only as {pickled[0]}, a format that can run code when it is opened, which accord refuses. "
            "Get the safetensors version of the model (on the hub, the branch refs/convert/safetensors often has one)."
        )
    raise MachineError(f"{folder} has no model.safetensors. Fetch the model again, or name another folder.")


def read_header(path: Path) -> dict[str, Any]:
    """Name, dtype, shape and place of every tensor in a safetensors file, whose length is checked against them.

    Raises:
        MachineError: if the file is cut or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as source:
        start = source.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise MachineError(f"{path} is cut or is no safetensors file ({size:,} bytes). Fetch it again.")
        try:
            header = json.loads(source.read(length))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise MachineError(f"{path} has a damaged header. Fetch it again.") from error
    if size != 8 + length + end:
        raise MachineError(f"{path} is cut: {size:,} bytes of {8 + length + end:,}. Fetch it again.")
    return header


def read_tensors(path: Path, wanted: Callable[[str], bool], *, codes: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file one after the other, each in memory of its own: a mapped file would count as this process's memory.

    Args:
        wanted: by name; the others are not read.
        codes: True also reads bytes. False refuses them.
    Raises:
        MachineError: as `read_header`, or if a tensor is of a type that is no plain number.
    """
    import torch

    types = {**DTYPES, "U8": "uint8"} if codes else DTYPES
    header = read_header(path)
    data = path.stat().st_size - max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    with path.open("rb") as source:
        for name, tensor in header.items():
            if not wanted(name):
                continue
            if tensor["dtype"] not in types:
                raise MachineError(
                    f"{path} holds {name} as {tensor['dtype']}, which is read as no plain number here. Name the unquantised model."
                )
            first, last = tensor["data_offsets"]
            raw = torch.empty(last - first, dtype=torch.uint8)
            source.seek(data + first)
            if last > first and source.readinto(raw.numpy().data) != last - first:
                raise MachineError(f"{path} ended while {name} was read. Fetch it again.")
            yield name, raw.view(getattr(torch, types[tensor["dtype"]])).view(tensor["shape"])


def check_weights(folder: Path) -> Counter[str]:
    """Every weight file looked at without reading the weights.

    Returns:
        bytes of weights by their stored dtype (safetensors' names: F32, BF16, F16, ...).
    Raises:
        MachineError: as `weight_files` and `read_header`.
    """
    sizes: Counter[str] = Counter()
    for path in weight_files(folder):
        for tensor in read_header(path).values():
            sizes[tensor["dtype"]] += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    return sizes


def item_bytes(dtype: str) -> int:
    """Bytes of one number of a safetensors dtype: F32, BF16, F8_E4M3, I64, BOOL, ..."""
    bits = re.match(r"[A-Z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 1


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights: of the one file, or of the files' hashes in order where there are several."""
    hashes = [remembered(path, "sha256", lambda path=path: sha256_of([path])) for path in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()


def on_the_hub(folder: Path) -> tuple[str, str] | None:
    """ORG/NAME and revision of a folder in the hub's own cache; None for any other folder."""
    *_, model, snapshots, revision = ("", "", "", *folder.parts)
    organisation, _, name = model.removeprefix("models--").partition("--")
    known = name and model.startswith("models--") and snapshots == "snapshots"
    return (f"{organisation}/{name}", revision) if known else None


def title(base: str) -> str:
    """What to call the model of a folder: its name on the hub, or the folder's."""
    hub = on_the_hub(Path(base))
    return hub[0] if hub else Path(base).name


def licence(folder: Path) -> str:
    """What the model card says about the licence, or "not stated"."""
    card = folder / "README.md"
    if card.is_file():
        for number, line in enumerate(card.read_text(encoding="utf-8", errors="replace").splitlines()[:80]):
            if number and line.strip() == "---":
                break
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("'\"") or "not stated"
    return "not stated"


def _base(folder: Path) -> str:
    for name, key in (("stack.json", "base"), ("adapter_config.json", "base_model_name_or_path"), ("reward.json", "base")):
        if (folder / name).is_file():
            try:
                return str(json.loads((folder / name).read_text(encoding="utf-8"))[key])
            except (ValueError, KeyError, TypeError):
                continue
    return "not stated"
