"""From what the user typed to a model and a tokenizer: a pinned name, a local folder, a GGUF file or a hub id."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from accord.config.base import SMALL_WEIGHTS
from accord.errors import ConfigError, MachineError
from accord.models import folders, registry
from accord.models.bitsandbytes_files import is_four_bit
from accord.models.cache import add_once, build_once, cache_folder, read_record, write_record
from accord.models.free_memory import available_memory, require
from accord.models.size import moment_bytes

CONVERSION = 1
"""Raised when conversion writes something else, so that an old cache is not mistaken for a new one."""
_HALF = {"F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is there, with where it came from."""

    name: str
    """What the user called it."""
    folder: str
    """A local transformers folder: config, safetensors, tokenizer."""
    source: str
    licence: str
    sha256: str
    """Of the artefact: the weights file of a pinned model or GGUF, the safetensors of a folder."""
    gguf: str = ""
    """The GGUF file that the model comes from: its weights need not be in the folder. "" where there is none."""

    def __str__(self) -> str:
        return f"{self.name}: from {self.source}, licence {self.licence}, sha256 {self.sha256[:16]}"


def resolve(
    name_or_path: str | Path, *, cache: Path | None = None, accept_licence: bool = False, files: Path | None = None, quiet: bool = False
) -> ResolvedModel:
    """Find a model; where it must be fetched or converted, do that once. Says name, source, licence and hash in one line.

    Args:
        name_or_path: a pinned name (`smollm2-135m`), a transformers folder, a `.gguf` file, or `ORG/NAME`, which asks the hub and
            nothing else, or `ORG/NAME@REVISION` of it. What exists on this disk is taken from it.
        cache: folder for converted models; None is the user's cache (ACCORD_CACHE).
        accept_licence: True accepts the licence of a model that wants it. False asks on the terminal.
        files: folder with a pinned model's files, for one that cannot be fetched (`stories260k`).
        quiet: True says nothing when nothing had to be fetched. False prints the line, once.
    Raises:
        ConfigError: if nothing has that name, or a licence was not accepted.
        MachineError: if it cannot be fetched, or is damaged.
    """
    text, path = str(name_or_path), Path(name_or_path).expanduser()
    models = (cache or cache_folder()) / "models"
    if text.lower() in registry.PINNED:
        found = _pinned(registry.PINNED[text.lower()], models, accept_licence, files)
    elif path.is_dir():
        found = _folder(text, path, "local folder")
    elif path.suffix.lower() == ".gguf":
        found = _gguf(text, path, models)
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?", text):
        found = _hub(text)
    else:
        raise registry.unknown_name(text)
    if not quiet:
        _say_once(str(found))
    return found


def load_config(resolved: ResolvedModel, *, trust_remote_code: bool = False) -> Any:
    """The model's transformers config.

    Raises:
        ConfigError: if the model needs its own code, or transformers does not know it.
        MachineError: if what config.json says is no model.
    """
    from transformers import AutoConfig

    _refuse_foreign_code(resolved, folders.read_config(Path(resolved.folder)), trust_remote_code)
    try:
        return AutoConfig.from_pretrained(resolved.folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (
        Exception
    ) as error:  # whatever a check of the sizes meets first: a division by zero, a missing key, an error of huggingface_hub's own
        reason = " ".join(str(error).split())[:200]
        raise MachineError(f"{resolved.folder}/config.json describes no model ({reason}). Fetch the model again.") from error


def load_model(
    resolved: ResolvedModel,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    trained: bool = False,
    optim: str = "adamw",
    force: bool = False,
    weights: str = "auto",
) -> Any:
    """The causal language model, whole, in evaluation mode (no dropout).

    Args:
        dtype: auto (see `pick_dtype`), float32, bfloat16 or float16.
        device: auto (see `pick_device`), cpu, cuda, cuda:1, mps.
        trust_remote_code: True runs Python code that came with the model. False refuses models that need it.
        trained: True also asks for memory for a gradient and two Adam moments of every weight. False for the weights alone.
        optim: whose moments these are: adamw or adamw_8bit.
        force: True loads it however little memory is free. False refuses, before a weight is read, what cannot fit.
        weights: auto holds them in `dtype`, fp32 in float32; bf16, int8 or nf4 hold those of frozen linear layers smaller
            (`models.small`), gguf as the GGUF file does that the model comes from.
    Raises:
        ConfigError: if the model needs its own code, or transformers does not know it.
        MachineError: if it does not fit in memory, or if weights are damaged, missing or of another shape, so that a part of the model would be random.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from accord.models.allocator import keep_freed_memory
    from accord.models.threads import fit_threads

    keep_freed_memory()
    fit_threads()
    folder = Path(resolved.folder)
    config = folders.read_config(folder)
    known = load_config(resolved, trust_remote_code=trust_remote_code)
    if is_four_bit(config):
        if weights not in ("auto", "nf4"):
            raise ConfigError(
                f"{resolved.name} is stored in nf4 by bitsandbytes, and weights={weights!r} asks for another form. Leave weights at auto."
            )
        weights = "nf4"
    elif config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise MachineError(
            f"{resolved.name} is quantised ({method}), and accord trains on float weights. Name the unquantised model, a GGUF file, or one that bitsandbytes wrote in nf4."
        )
    place = pick_device() if device == "auto" else device
    if weights in SMALL_WEIGHTS:
        return _load_small(resolved, known, weights, place, force=force)
    _convert_once(resolved)
    stored = folders.check_weights(folder)
    kind = torch.float32 if weights == "fp32" else pick_dtype(place) if dtype == "auto" else getattr(torch, dtype)
    if not force:
        _check_memory(resolved, stored, kind.itemsize, place, trained=trained, optim=optim)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, KeyError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MachineError(f"{resolved.name} cannot be loaded from {folder}: {reason}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    model, report = loaded
    lost = sorted([*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])])
    if lost:
        raise MachineError(
            f"{resolved.name}: {len(lost)} weights are missing or of another shape in {folder} (first: {lost[0]}); they would be random. Fetch the model again."
        )
    if report["unexpected_keys"]:
        left = sorted(report["unexpected_keys"])
        say(f"{resolved.name}: {len(left)} stored weights are not part of the language model and were left out (first: {left[0]}).")
    main = stored.most_common(1)[0][0]
    if main in _HALF and kind == torch.float32:
        say(
            f"{resolved.name}: stored in {_HALF[main]}, computed in float32 (this hardware has no fast {_HALF[main]}, or float32 was asked for)."
        )
    return model.to(place).eval()


def check_device(weights: str, device: str) -> None:
    """Refuse, before anything is planned or read, what a device has no products for.

    Raises:
        ConfigError: for the blocks of a GGUF file on a GPU.
    """
    if weights == "gguf" and device.startswith("cuda"):
        raise ConfigError("weights='gguf' is computed with on a CPU. On a GPU use bf16, int8 or nf4.")


def _load_small(resolved: ResolvedModel, config: Any, weights: str, place: str, *, force: bool) -> Any:
    """On a GPU bitsandbytes holds int8 and nf4, and bf16 is a dtype that it computes in; elsewhere the weights are ours (`models.small`)."""
    from accord.models.small_load import load_small

    if weights == "gguf" and not resolved.gguf:
        raise ConfigError(f"weights='gguf' holds the blocks of a GGUF file, and {resolved.name} is none. Use bf16, int8 or nf4.")
    if place.startswith("cuda"):
        check_device(weights, place)
        _convert_once(resolved)
        if weights == "bf16":
            return load_model(resolved, dtype="bfloat16", device=place, force=force)
        return _load_bitsandbytes(resolved, weights, place)
    if resolved.gguf and not Path(resolved.gguf).is_file() and weights != "gguf" and _converted(resolved).is_file():
        resolved = replace(resolved, gguf="")  # its weights are in the folder too
    if resolved.gguf:
        _there(resolved.gguf)
    model, notes = load_small(resolved, config, weights, place, force=force)
    for note in notes:
        say(note)
    return model


def _convert_once(resolved: ResolvedModel) -> None:
    """Have the folder of a model that comes from a GGUF file hold its weights in float32."""
    target = _converted(resolved)
    if not resolved.gguf or target.is_file():
        return
    from accord.models.gguf import convert_weights

    say(f"{resolved.name}: converted to float32 in {resolved.folder}, once.")
    add_once(target, lambda path: convert_weights(_there(resolved.gguf), path))


def _converted(resolved: ResolvedModel) -> Path:
    return Path(resolved.folder) / "model.safetensors"


def _there(gguf: str) -> Path:
    if not Path(gguf).is_file():
        raise MachineError(f"The weights are in {gguf}, which is not there any more. Name the GGUF file where it is now as --model, once.")
    return Path(gguf)


def _load_bitsandbytes(resolved: ResolvedModel, weights: str, place: str) -> Any:
    import importlib.util

    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MachineError(f"weights={weights!r} on a GPU needs bitsandbytes, which is not installed: pip install bitsandbytes.")
    options: dict[str, Any] = {"load_in_8bit": True}
    if weights == "nf4":
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        options["bnb_4bit_compute_dtype"] = torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(
        resolved.folder,
        quantization_config=BitsAndBytesConfig(**options),
        device_map={"": place},
        dtype=torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
    )
    return model.eval()


def load_tokenizer(resolved: ResolvedModel, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer: pad token never the end token, always a chat template; both from existing tokens and said in a line. Special tokens that
    the model of the same folder does not embed are left out.

    Raises:
        ConfigError: if it has no end token, or needs its own code.
        MachineError: if the folder has no readable tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from accord.models.tokens import cuts_as_written, ensure_pad, ensure_template, leave_out_unembedded

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolved.folder, local_files_only=True, trust_remote_code=trust_remote_code)
        if not cuts_as_written(tokenizer, Path(resolved.folder)):
            named = {
                key: getattr(tokenizer, key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")
            }  # GPT-2's class knows them
            tokenizer = PreTrainedTokenizerFast.from_pretrained(resolved.folder, local_files_only=True)
            for key, token in named.items():
                if getattr(tokenizer, key) is None and token in tokenizer.get_vocab():
                    setattr(tokenizer, key, token)
    except Exception as error:  # tokenizers raises bare Exception for a damaged tokenizer.json
        reason = " ".join(str(error).split())[:200]
        raise MachineError(f"The tokenizer of {resolved.name} cannot be read from {resolved.folder}: {reason}") from error
    described = (Path(resolved.folder) / "config.json").is_file()
    text = load_config(resolved, trust_remote_code=trust_remote_code).get_text_config() if described else None
    rows = getattr(text, "vocab_size", None) or len(tokenizer)
    for note in (ensure_pad(tokenizer), ensure_template(tokenizer), leave_out_unembedded(tokenizer, rows)):
        if note:
            _say_once(f"{resolved.name}: {note}.")
    return tokenizer


def pick_device() -> str:
    """The best device there is: cuda, else mps, else cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(device: str) -> Any:
    """bfloat16 on CUDA of capability 8 or more, else float32.

    On a CPU always float32: where its products of bfloat16 are fast (AVX-512 BF16, 2.1 times float32's), everything around them is not, and
    training took 1.8 times as long, sampling 13 times (LOG.md, 2026-11-28).
    """
    import torch

    fast = device.startswith("cuda") and torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if fast else torch.float32


def say(text: str) -> None:
    """One line for the user, from the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


@cache
def _say_once(text: str) -> None:
    """Where a model comes from: a command opens it more than once."""
    say(text)


# -- the four forms ---------------------------------------------------------------------------------------------------------------


def _pinned(model: registry.PinnedModel, models: Path, accept_licence: bool, files: Path | None) -> ResolvedModel:
    target = models / f"{model.name}-{model.sha256[:12]}-v{CONVERSION}"
    given = files or os.environ.get(model.folder_variable or "")
    source = f"{model.packages[0].name} {model.packages[0].version} on PyPI" if model.packages else "the files of llama2.c"
    found = ResolvedModel(model.name, str(target), source, model.licence, model.sha256)
    if read_record(target) is not None:
        return found
    if model.folder_variable:
        if not given:
            raise ConfigError(
                f"{model.name} cannot be fetched. Set {model.folder_variable} to the folder with its files (stories260K.bin, tok512.bin)."
            )
        from accord.models.stories import convert_stories

        build_once(target, lambda folder: convert_stories(Path(given), folder), asdict(found))
        return found
    if not registry.licence_accepted(model, accept_licence):
        with tempfile.TemporaryDirectory() as temporary:
            registry.ask_for_licence(model, registry.fetch_terms(model, Path(temporary)))
    say(f"Fetching {model.title}, {model.size / 1e6:.0f} MB, licence {model.licence} ({model.licence_url}), once.")
    build_once(target, lambda folder: _fetch(model, folder), asdict(found))
    return found


def _fetch(model: registry.PinnedModel, folder: Path) -> None:
    from accord.models.gguf import convert

    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        convert(registry.fetch_weights(model, Path(temporary)), folder)
        if model.notice:
            (folder / "LICENSE.txt").write_text(registry.fetch_terms(model, Path(temporary)) + "\n", encoding="utf-8")
            (folder / "NOTICE.txt").write_text(model.notice + "\n", encoding="utf-8")


def _gguf(name: str, path: Path, models: Path) -> ResolvedModel:
    if not path.is_file():
        raise MachineError(f"There is no file {path}.")
    from accord.models.gguf import describe, licence

    sha256 = registry.sha256_of([path])
    # Never the folder of a name: somebody's copy of the starter's file is not where the starter came from.
    target = models / f"{path.name}-{sha256[:12]}-v{CONVERSION}"
    known = read_record(target)
    found = ResolvedModel(name, str(target), str(path), licence(path) if known is None else known["licence"], sha256, str(path.absolute()))
    build_once(target, lambda folder: describe(path, folder), asdict(found))
    if known is not None and known.get("gguf") != found.gguf:
        write_record(target, asdict(found))
    return found


def _folder(name: str, path: Path, source: str) -> ResolvedModel:
    record = read_record(path)
    if record is not None:
        return ResolvedModel(**{**record, "folder": str(path)})
    folders.read_config(path)
    folders.check_weights(path)
    # Absolute: run folders name their base by it, and are opened from other places.
    return ResolvedModel(name, str(path.absolute()), source, folders.licence(path), folders.weights_sha256(path))


def _hub(name: str) -> ResolvedModel:
    """A model of the hub, at a revision if one is named, through huggingface_hub's own cache; pickles are not even downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.py", "*.txt", "tokenizer.model", "README.md", "LICENSE*", "NOTICE*"]
    try:
        name, _, revision = name.partition("@")
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted, ignore_patterns=["*/*", "consolidated*"]))
    except GatedRepoError as error:
        raise MachineError(
            f"{name} wants its licence accepted on its hub page first; then log in with `hf auth login` and run again."
        ) from error
    except RepositoryNotFoundError as error:
        raise MachineError(
            f"The hub has no model {name} that you may see, and there is no folder of that name here. Check the spelling."
        ) from error
    except LocalEntryNotFoundError as error:
        raise MachineError(
            f"The hub cannot be reached, {name} was not downloaded before, and there is no folder of that name here."
        ) from error
    except (OSError, ValueError) as error:
        raise MachineError(f"{name} could not be fetched from the hub: {' '.join(str(error).split())[:200]}") from error
    if not list(folder.glob("*.safetensors")):
        raise MachineError(
            f"{name} has no safetensors weights on the hub (pickled weights can run code and are refused). Choose a model that has them."
        )
    return _folder(name, folder, f"the hub, revision {folder.name[:12]}")


def _check_memory(resolved: ResolvedModel, stored: Counter[str], itemsize: int, place: str, *, trained: bool, optim: str) -> None:
    """Weights are read into the computer's memory first, then moved to the device."""
    numbers = sum(size // folders.item_bytes(name) for name, size in stored.items())
    each = {"cpu": itemsize, place: itemsize * 2 + moment_bytes(optim, 4) if trained else itemsize}
    for where, size in each.items():
        have = available_memory(where)
        fitting = f"a model of at most {have / size / 1e6:.0f} million weights"
        if trained and numbers * itemsize < have:
            fitting = f"LoRA (pass a peft_config), or {fitting}"
        what = f"Training all weights of {resolved.name}" if trained else f"Loading {resolved.name}"
        require(numbers * size, have, what=what, fitting=fitting)


def _refuse_foreign_code(resolved: ResolvedModel, config: dict[str, Any], trusted: bool) -> None:
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type", "")
    if trusted and config.get("auto_map"):
        return
    if kind not in CONFIG_MAPPING:
        if config.get("auto_map"):
            raise ConfigError(
                f"{resolved.name} needs Python code of its own ({kind}), and accord runs none that came with a model. Choose another model "
                "(in Python, once you have read it: load_model(resolve(name), trust_remote_code=True))."
            )
        raise ConfigError(
            f"{resolved.name}: this transformers does not know the model type {kind!r}. Upgrade transformers, or choose another model."
        )
