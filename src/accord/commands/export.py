"""`accord export`: a run as one ordinary model folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from accord.config.options import ExportOptions
from accord.errors import ConfigError
from accord.models.export import export_merged
from accord.models.opened import open_model
from accord.rewards.export import export_classifier
from accord.rewards.learned import RewardModel


def run(options: ExportOptions) -> int:
    source, target = Path(options.run), Path(options.to)
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"--to {target} is not empty. Name a new folder.")
    if not options.merged:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoint-*", "stack", "*.jsonl"), dirs_exist_ok=True)
        print(f"Copied the adapter to {target}.")
        return 0
    opened = open_model(options.run)
    if options.sequence_classification:
        reward = RewardModel.load(opened.policy, source, opened.renderer)
        constant = export_classifier(reward, opened.tokenizer, target)
        print(f"Wrote {target}. score = logit {constant:+.4f}")
        return 0
    export_merged(opened.policy, opened.stack, opened.tokenizer, target)
    print(f'Wrote {target}. Load it with: AutoModelForCausalLM.from_pretrained("{target.as_posix()}")')
    return 0
