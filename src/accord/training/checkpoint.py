"""Checkpoints: tensors in safetensors, the rest in JSON, a whole folder or none. Never a pickle, never a half."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from accord.errors import DataError
from accord.training import processes
from accord.writing import whole_folder

SCHEMA = 1
TENSORS = "training.safetensors"
STATE = "trainer_state.json"
ADVICE = "The run is as it was at its last checkpoint; free disk space and resume."


def write(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any], extra: Any = None) -> None:
    """Write a checkpoint folder atomically.

    Args:
        folder: final place; replaced when it exists.
        tensors: parameters, optimizer moments and method state by name.
        state: JSON-able rest.
        extra: called with the temporary folder, to add files (the model itself).
    Raises:
        MachineError: if the disk is full; nothing half-written is left.
    """
    with whole_folder(folder, replace=True, advice=ADVICE) as temporary:
        if extra is not None:
            extra(temporary)
        # Copies: tied or sliced storage must not be shared inside one file.
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, temporary / TENSORS)
        text = json.dumps({"schema": SCHEMA, **state}, ensure_ascii=False, indent=1)
        (temporary / STATE).write_text(text, encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint.

    Raises:
        DataError: if a file is missing, cut short, or was written by a newer release.
    """
    state = read_state(folder)
    with _readable(folder):
        return load_file(folder / TENSORS), state


def read_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors. Raises as `read` does."""
    with _readable(folder):
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state.get("schema", 0) > SCHEMA:
        raise DataError(f"{folder} was written by a newer accord (schema {state['schema']}). Upgrade accord to resume it.")
    return state


@contextmanager
def _readable(folder: Path) -> Generator[None]:
    """One line for what cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a checkpoint: {Path(error.filename or '').name or TENSORS} is missing. Name a checkpoint-N folder of the run."
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder} is damaged ({str(error).splitlines()[0]}). Resume from an earlier checkpoint of the run.") from error


def folders(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    found = [
        (int(match.group(1)), path)
        for path in run.glob("checkpoint-*")
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(found)]


def prune(run: Path, keep: int | None, best: str | None = None) -> None:
    """Delete the oldest checkpoints beyond `keep`, never the best one. None keeps all."""
    if keep is None:
        return
    for path in folders(run)[: -max(keep, 1)]:
        if path.name != best:
            shutil.rmtree(path, ignore_errors=True)


def find(run: Path, wanted: str | bool | None) -> Path | None:
    """The checkpoint to resume from: True takes the last one, a path takes that one, None or False none.

    Raises:
        DataError: if there is none.
    """
    if wanted is None or wanted is False or wanted == "False":
        return None
    if wanted is True or wanted in ("True", "true", "last"):
        found = folders(run)
        if not found:
            raise DataError(f"{run} has no checkpoint to resume from. Start it without --resume_from_checkpoint.")
        return found[-1]
    path = Path(str(wanted))
    if not (path / STATE).exists() and folders(path):
        return folders(path)[-1]
    return path


def surroundings() -> dict[str, Any]:
    """What bit-for-bit equality depends on; compared at resume. Another number of processes adds the same terms in another order."""
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processes": processes.world(),
    }
