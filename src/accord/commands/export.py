"""`accord export`: a run as something that needs no accord."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from accord.config.export import EXPORT_FORMS, ExportOptions
from accord.errors import ConfigError
from accord.models.opened import open_model
from accord.models.save import PROCESS, REWARD
from accord.models.small import widen
from accord.recipes.take_home import left_behind, take_home
from accord.rewards.export import export_classifier
from accord.rewards.learned import RewardModel
from accord.writing import whole_folder


def run(options: ExportOptions) -> int:
    source, target = Path(options.run), _target(options)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} {'is not empty' if target.is_dir() else 'is a file'}. Name a new folder: {_place(options)} FOLDER.")
    if options.sequence_classification:
        return _classifier(options, target)
    if not options.merged:
        if not source.is_dir():
            raise ConfigError(f"--merged false copies a run folder, and there is no folder {source}.")
        with whole_folder(target) as staged:
            shutil.copytree(source, staged, ignore=left_behind, dirs_exist_ok=True)
        print(f"Copied the adapter to {target}.")
        return 0
    _refuse_judges(source)
    form = options.to if options.to in EXPORT_FORMS else "merged"
    taken = take_home(options.run, form, target, prompts=options.prompts, force=options.force)
    loads = f' Load it with: AutoModelForCausalLM.from_pretrained("{target.as_posix()}")' if form == "merged" else ""
    print(f"Wrote {target}.{loads}\nLoaded again and compared: {taken.difference}.")
    print("\n".join([*taken.notes, *(["Serve it with:"] if taken.lines else []), *(f"  {line}" for line in taken.lines)]))
    return 0


def _target(options: ExportOptions) -> Path:
    if re.fullmatch(r"(gguf|q\d|f16|f32)[\w-]*", options.to, re.IGNORECASE) and options.to not in EXPORT_FORMS:
        raise ConfigError(
            f"accord export --to {options.to}: the forms are {', '.join(EXPORT_FORMS)}; a folder of that name is ./{options.to}."
        )
    if options.to not in EXPORT_FORMS:
        return Path(options.to)
    return Path(options.output_dir or Path("exports") / f"{Path(options.run).name.lower() or 'model'}-{options.to}")


def _place(options: ExportOptions) -> str:
    return "--output_dir" if options.to in EXPORT_FORMS else "--to"


def _classifier(options: ExportOptions, target: Path) -> int:
    source = Path(options.run)
    if not (source / REWARD).exists():
        raise ConfigError(
            f"{source} holds no reward model (no {REWARD}), so there is no classifier to write. Drop --sequence_classification."
        )
    opened = open_model(options.run, dtype="float32", force=options.force)  # adapters add up exactly in no half type
    widen(opened.policy.model)
    constant = export_classifier(RewardModel.load(opened.policy, source, opened.renderer), opened.tokenizer, target)
    print(f"Wrote {target}. score = logit {constant:+.4f}")
    return 0


def _refuse_judges(source: Path) -> None:
    if (source / PROCESS).exists():
        raise ConfigError(
            f"{source} is a process reward model, and no ordinary model folder has a place for its head. Add --to FOLDER --merged false to copy the run as it is."
        )
    if (source / REWARD).exists():
        raise ConfigError(
            f"{source} is a reward model, and a causal language model has no place for its heads. "
            "Add --to FOLDER --sequence_classification to write a classifier, or --to FOLDER --merged false to copy the run as it is."
        )
