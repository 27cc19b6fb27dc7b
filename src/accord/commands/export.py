"""`accord export`: a run as one ordinary model folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from accord.config.options import ExportOptions
from accord.errors import ConfigError
from accord.models.export import export_merged
from accord.models.opened import open_model
from accord.models.save import PROCESS, REWARD
from accord.models.small import widen
from accord.rewards.export import export_classifier
from accord.rewards.learned import RewardModel
from accord.writing import whole_folder


def run(options: ExportOptions) -> int:
    source, target = Path(options.run), Path(options.to)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"--to {target} {'is not empty' if target.is_dir() else 'is a file'}. Name a new folder.")
    is_reward = (source / REWARD).exists()
    if options.sequence_classification and not is_reward:
        raise ConfigError(
            f"{source} holds no reward model (no {REWARD}), so there is no classifier to write. Drop --sequence_classification."
        )
    if not options.merged:
        if not source.is_dir():
            raise ConfigError(f"--merged false copies a run folder, and there is no folder {source}.")
        with whole_folder(target) as staged:
            shutil.copytree(source, staged, ignore=shutil.ignore_patterns("checkpoint-*", ".*", "*.jsonl"), dirs_exist_ok=True)
        print(f"Copied the adapter to {target}.")
        return 0
    if (source / PROCESS).exists():
        raise ConfigError(
            f"{source} is a process reward model, and no ordinary model folder has a place for its head. Add --merged false to copy the run as it is."
        )
    if is_reward and not options.sequence_classification:
        raise ConfigError(
            f"{source} is a reward model, and a causal language model has no place for its heads. "
            "Add --sequence_classification to write a classifier, or --merged false to copy the run as it is."
        )
    opened = open_model(options.run, dtype="float32", force=options.force)  # adapters add up exactly in no half type
    widen(opened.policy.model)
    if options.sequence_classification:
        reward = RewardModel.load(opened.policy, source, opened.renderer)
        constant = export_classifier(reward, opened.tokenizer, target)
        print(f"Wrote {target}. score = logit {constant:+.4f}")
        return 0
    export_merged(opened.policy, opened.stack, opened.tokenizer, target)
    print(f'Wrote {target}. Load it with: AutoModelForCausalLM.from_pretrained("{target.as_posix()}")')
    return 0
