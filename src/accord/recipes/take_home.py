"""A model taken home: written in the form asked for, loaded again from what was written, and compared before anything is called done."""

from __future__ import annotations

import gc
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.data.render import Renderer
from accord.errors import ConfigError, MachineError
from accord.evaluation.same_answers import Answers, Difference, difference, greedy_answers
from accord.models.adapters import PolicyModel, Stack
from accord.models.export import export_merged
from accord.models.folders import on_the_hub, read_json
from accord.models.free_memory import available_memory, require
from accord.models.gguf import read_tokenizer
from accord.models.gguf_settings import architecture_of
from accord.models.gguf_vocabulary import chat_template_of
from accord.models.gguf_write import check_gguf, load_written, write_gguf
from accord.models.load import ResolvedModel, load_model, load_tokenizer, resolve
from accord.models.modelfile import modelfile
from accord.models.opened import Opened, base_of, open_model, weights_of
from accord.models.save import STACK
from accord.models.size import measured
from accord.models.small import widen
from accord.models.tokens import stop_token_ids
from accord.recipes.demo_rows import heldout_prompts
from accord.training.lineage import CARD, RECORD, exported_card
from accord.writing import whole_folder

LIMITS = {"merged": 1e-3, "adapter": 1e-3, "gguf-f16": 0.1}
"""Nats by which log-probs may differ; the other forms round weights, and what that costs is said."""
NEAR = 0.9
"""Share of tokens below which a file in four bits is told to be far from its model."""
ADAPTER = "adapter_config.json"
ADAPTERS = "stack"
"""Where a run folder keeps each adapter of its stack."""
PLAIN = ("merged", "adapter")
"""Forms that Python loads; the others are GGUF files."""
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of its `--max-lora-rank` from 8 on."""
_NO_PART = shutil.ignore_patterns("checkpoint-*", ".*", "*.jsonl", "*.html", "*.yaml", "*.sqlite*")


def left_behind(folder: str, names: list[str]) -> set[str]:
    """What of a run folder is no part of its model: rows, pages, checkpoints, and every folder that a run keeps beside (labels, with the
    names of those who gave them) but the one of its adapters."""
    place = Path(folder)

    def part(name: str) -> bool:
        inside = place.name == ADAPTERS and (place / name / ADAPTER).is_file()
        return inside or name == ADAPTERS or not (place / name).is_dir()

    return {name for name in names if not part(name)} | _NO_PART(folder, names)


@dataclass(frozen=True)
class Taken:
    """What was written."""

    form: str
    folder: Path
    difference: Difference
    notes: tuple[str, ...]
    """What to know about it."""
    lines: tuple[str, ...]
    """Commands that serve it."""


def take_home(source: str, form: str, folder: Path, *, prompts: int = 8, force: bool = False) -> Taken:
    """Write a model in one form.

    Args:
        source: a run folder, or any model by name.
        form: one of `config.export.EXPORT_FORMS`.
        folder: where; must be empty or new.
        prompts: how many answers are compared.
        force: True loads the model however little memory is free. False refuses what cannot fit.
    Raises:
        ConfigError: if the form has no place for this model.
        DataError, MachineError: if what was written does not load, or answers as another model; nothing is left of it then.
    """
    if form == "adapter" and not (Path(source) / ADAPTER).is_file():
        raise ConfigError(
            f"--to adapter copies a run's adapter, and {source} has no {ADAPTER}: it is a whole model, or its adapters add up to none that peft "
            "reads. Use --to merged."
        )
    # Adapters add up exactly in no half type. What a CPU held in fewer bits is widened here, which no GPU does.
    opened = open_model(source, dtype="float32", device=_device(Path(source)), force=force)
    if form not in PLAIN:
        architecture_of(opened.policy.model.config.to_dict())
    written = _Written(source, form, opened, force=force)
    before = greedy_answers(opened.policy, opened.stack, opened.renderer, questions(prompts))
    with whole_folder(folder) as staged:
        written.model(opened, staged)
        del opened
        gc.collect()
        notes = written.notes() if form == "adapter" else written.on_full_precision()
        notes += written.file(staged) if form not in PLAIN else []
        found = difference(before, *written.loaded(staged, before, force=force))
        if not found.largest <= LIMITS.get(form, float("inf")):
            raise MachineError(
                f"What was written for {folder} answers as another model: {found}. Nothing of it is kept; please report this."
            )
        if form == "gguf-q4_0" and found.same_tokens < NEAR:
            notes.append("Four bits cost this model much, as they do small ones: --to gguf-q8_0 stays nearer.")
        shutil.rmtree(staged / "merged", ignore_errors=True)
        written.card(staged, found)
        if form == "adapter" and written.held != "gguf":
            notes += _elsewhere(staged)
    lines = serving_lines(form, folder, written.name, ollama=written.for_ollama, folder_of_base=written.held != "gguf")
    return Taken(form, folder, found, tuple(notes), tuple(lines))


def questions(count: int) -> list[str]:
    """Packaged prompts that no training set has, from all kinds of them."""
    rows = heldout_prompts()
    return [rows[index * len(rows) // count].prompt[0].content for index in range(count)]


def serving_lines(form: str, folder: Path, name: str, *, ollama: bool = True, folder_of_base: bool = True) -> Iterator[str]:
    """The commands that serve what was written: vLLM, llama.cpp, Ollama.

    Args:
        ollama: False leaves out Ollama, which would not know the chat template.
        folder_of_base: False where the base of an adapter is no folder that vLLM reads.
    """

    def at(*parts: str) -> str:
        return shlex.quote(folder.joinpath(*parts).as_posix())

    if form == "merged":
        yield f"vllm serve {at()} --served-model-name {name}"
    elif form == "adapter":
        if not folder_of_base:
            return
        config = read_json(folder / ADAPTER)
        if (room := _vllm_rank(config)) is None:
            return
        base = shlex.quote(config["base_model_name_or_path"])
        # vLLM takes the base's tokenizer, template and stops; the run has its own
        own = f"--tokenizer {at()} " if (folder / "tokenizer_config.json").is_file() else ""
        own += f"--generation-config {at()} " if (folder / "generation_config.json").is_file() else ""
        own += f"--revision {config['revision']} " if config.get("revision") else ""
        yield f"vllm serve {base} {own}--enable-lora --max-lora-rank {room} --lora-modules {name}={at()}"
    else:
        yield f"llama-server -m {at(_file(name, form))} --jinja"
        if ollama:
            yield f"ollama create {name} -f {at('Modelfile')} && ollama run {name}"


def _elsewhere(staged: Path) -> list[str]:
    """Name the base of an adapter as other machines know it, by its name on the hub; returns what to say where it has none."""
    hub = on_the_hub(Path(base_of(staged)))
    if hub is None:
        return ["Its base is a folder of this machine: take that along, or export the run --to merged."]
    for path in [staged / STACK, *staged.rglob(ADAPTER)]:
        if path.is_file():
            said = read_json(path)
            said |= {"base": "@".join(hub)} if path.name == STACK else {"base_model_name_or_path": hub[0], "revision": hub[1]}
            path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return []


def _vllm_rank(config: dict[str, Any]) -> int | None:
    """The `--max-lora-rank` with which vLLM reads a peft adapter; None for what it does not read: DoRA, biases, other kinds, ranks above 512."""
    plain = config.get("peft_type") == "LORA" and not config.get("use_dora") and config.get("bias", "none") == "none"
    ranks = (config["r"], *config.get("rank_pattern", {}).values()) if plain else ()
    return next((room for room in VLLM_RANKS if room >= max(ranks)), None) if plain else None


# -- one form -----------------------------------------------------------------------------------------------------------------------


class _Written:
    """What is known of the model while it is written and loaded again: little enough to let the model itself go."""

    def __init__(self, source: str, form: str, opened: Opened, *, force: bool) -> None:
        self.source, self.form, self.force = Path(source), form, force
        self.name, self.base, self.licence = _name(self.source), opened.resolved.name, opened.resolved.licence
        self.base_folder = Path(opened.resolved.folder)
        self.started = _started(self.source)
        self.tokenizer = opened.tokenizer
        self.stops = stop_token_ids(opened.tokenizer, opened.policy.model.generation_config)
        self.held, self.device = opened.policy.held, _device(self.source)
        self.for_ollama = True

    def model(self, opened: Opened, staged: Path) -> None:
        """Copy the adapter, or merge the model into a folder, which of a GGUF file goes away again."""
        if self.form == "adapter":
            shutil.copytree(self.source, staged, ignore=left_behind, dirs_exist_ok=True)
            self._brought(staged, "LICENSE*", "NOTICE*")
            return
        weights = measured(opened.policy.model, opened.policy.adapters).parameters
        if not self.force:
            # In float32: what was held in fewer bits, a copy with the adapters added, and the model that is written.
            copies = 3 if self.held else 2
            require(4 * copies * weights, available_memory("cpu"), what="accord export", fitting="--to adapter")
        widen(opened.policy.model)
        export_merged(opened.policy, opened.stack, self.tokenizer, staged if self.form == "merged" else staged / "merged")
        self._brought(staged, "LICENSE*", "NOTICE*")
        if (
            self.form == "merged"
        ):  # llama.cpp's converter reads a Gemma by the first, which transformers does not write; servers read pictures by the others
            self._brought(staged, "tokenizer.model", "preprocessor_config.json", "processor_config.json")
        if (self.source / RECORD).is_file():
            shutil.copy(self.source / RECORD, staged)

    def _brought(self, staged: Path, *patterns: str) -> None:
        """Files that the base came with; of a run of all weights, which is its own base, they lie where that started."""
        for folder in self.base_folder, self.started:
            for path in [path for pattern in patterns for path in folder.glob(pattern)] if folder is not None else ():
                if path.is_file() and not (staged / path.name).exists():
                    shutil.copy(path, staged)

    def file(self, staged: Path) -> list[str]:
        """The GGUF file of the merged folder, checked tensor by tensor, and its Modelfile; returns what to say of them."""
        path = staged / _file(self.name, self.form)
        write_gguf(staged / "merged", path, _kind(self.form), title=self.name, licence=self.licence)
        lost = check_gguf(path, staged / "merged")
        text, own = modelfile(self.tokenizer, path.name, self.stops)
        (staged / "Modelfile").write_text(text, encoding="utf-8")
        notes = [
            f"{path.name}: {path.stat().st_size / 1e6:.3g} MB; rounding takes {lost:.2g} of a weight matrix at most (share of its norm)."
        ]
        if not own:
            notes.append(
                "Ollama's templates have no words for this chat template, and Ollama does not read the one inside the GGUF file: it would send "
                "plain text. Serve the file with llama-server --jinja."
            )
        self.for_ollama = own
        return notes

    def notes(self) -> list[str]:
        """What to say of an adapter."""
        if self.held == "gguf":
            return ["vLLM wants the base as a folder of safetensors: accord export BASE --to merged writes one."]
        notes = (
            [] if _vllm_rank(read_json(self.source / ADAPTER)) else ["vLLM does not read an adapter of this kind: --to merged is for it."]
        )
        if elsewhere := self._held_by_bitsandbytes():
            return [
                *notes,
                f"The adapter was trained on its base held in {elsewhere} by bitsandbytes, and compared on the base in full precision.",
            ]
        released = read_json(self.base_folder / "config.json")
        if self.held is None or (self.held == "bf16" and "bfloat16" in (released.get("dtype"), released.get("torch_dtype"))):
            return notes  # it is the base as it was released
        return [
            *notes,
            f"The adapter was trained on its base held in {self.held}; on the base in full precision its log-probs differ by that rounding.",
        ]

    def on_full_precision(self) -> list[str]:
        """What to say of a merge onto other numbers than the adapter was trained on."""
        if not (elsewhere := self._held_by_bitsandbytes()):
            return []
        return [
            f"The run held its base in {elsewhere} by bitsandbytes; this is its adapter on the base in full precision: log-probs differ by that rounding."
        ]

    def _held_by_bitsandbytes(self) -> str | None:
        """How a run on a GPU held its base, which is opened in full precision here; None for all others."""
        if self.held is not None or not (self.source / RECORD).is_file():
            return None
        asked = read_json(self.source / RECORD).get("config", {}).get("weights")
        return asked if asked in ("int8", "nf4") else None

    def loaded(self, staged: Path, before: Answers, *, force: bool) -> tuple[PolicyModel, Stack, Renderer]:
        """What was written, as whoever gets it loads it: of a run folder what peft reads, of a GGUF file what the file says."""
        if self.form == "adapter":
            base = resolve(base_of(staged), quiet=True)
            policy = PolicyModel(load_model(base, dtype="float32", device=self.device, force=force, weights=weights_of(staged)))
            policy.load_adapter("taken", str(staged))
            return policy, ("taken",), self._renderer(self.tokenizer)
        if self.form == "merged":
            resolved = ResolvedModel(self.name, str(staged), "what was written", self.licence, "")
            policy = PolicyModel(load_model(resolved, dtype="float32", force=force))
            return policy, (), self._renderer(load_tokenizer(resolved))
        path = staged / _file(self.name, self.form)
        self._check_tokenizer(path, len(before.prompts))
        return PolicyModel(load_written(path, staged / "merged")), (), self._renderer(self.tokenizer)

    def card(self, staged: Path, found: Difference) -> None:
        """The model card of what was written."""
        record = read_json(self.source / RECORD) if (self.source / RECORD).is_file() else None
        (staged / CARD).write_text(exported_card(record, self.base, self.form, str(found)), encoding="utf-8")

    def _renderer(self, tokenizer: Any) -> Renderer:
        return Renderer(tokenizer, end_ids=self.stops)

    def _check_tokenizer(self, path: Path, count: int) -> None:
        """The file's own tokenizer and template must give the ids that the model was trained on."""
        its = read_tokenizer(path)
        if its.chat_template != chat_template_of(self.tokenizer):
            raise MachineError(f"{path.name} holds another chat template than the model's. Use --to merged, and please report this.")
        for question in questions(count):
            text = self.tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
            mine, found = (one(text, add_special_tokens=False)["input_ids"] for one in (self.tokenizer, its))
            if mine != found:
                raise MachineError(f"{path.name}: its tokenizer cuts {question!r} into other tokens than the model's. Use --to merged.")


def _started(source: Path) -> Path | None:
    """The folder of the base that a run started from; None for what is no run, or where the base is not there."""
    if not (source / RECORD).is_file():
        return None
    base = read_json(source / RECORD).get("base")
    return Path(base) if isinstance(base, str) and base and Path(base).is_dir() else None


def _device(source: Path) -> str:
    """Where a model is opened and compared: what a run held in fewer bits on a CPU, on a CPU."""
    return "cpu" if weights_of(source) != "auto" else "auto"


def _kind(form: str) -> str:
    return "q8_0" if form == "ollama" else form.removeprefix("gguf-")


def _file(name: str, form: str) -> str:
    return f"{name}-{_kind(form)}.gguf"


def _name(source: Path) -> str:
    """A short name that servers accept."""
    words = f"{source.parent.name}-{source.name}" if source.is_dir() and source.parent.name not in ("", "runs") else source.name
    return re.sub(r"[^a-z0-9.-]+", "-", words.lower()).strip("-.") or "model"
