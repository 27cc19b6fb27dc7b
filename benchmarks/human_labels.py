"""Reward models and DPO on real human labels (Anthropic HH, test splits), against length alone and a bag of words.

    python benchmarks/human_labels.py --data ../shared/data            # every part, 1 to 2 hours on two cores
    python benchmarks/human_labels.py --data ../shared/data --parts helpful-lora helpful-heads

1,000 pairs train (a fixed choice by content hash), the others test; prompts are cut on the left to 160 tokens. Each part is written to
`benchmarks/results/human_labels.json` when it is done and skipped from then on; an interrupted part goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from accord.data.packing import split_by_budget
from accord.data.read import read_examples
from accord.evaluation.intervals import Interval, paired_bootstrap
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.recipes.stages import peak_rss_gb
from accord.training import checkpoint
from accord.types import Example, content_hash

FILES = {"helpful": "hh_helpful_test/helpful.test.json.gz", "harmless": "hh_harmless_test/harmless-base_test.jsonl.gz"}
TRAIN_PAIRS = 1000
PROMPT_TOKENS = 160
HASHES = 1 << 16
DPO_LEARNING_RATE = 5e-4
"""63 steps at the reward model's 1e-4 leave the margins of DPO near 0: its loss has a tenth of the slope (beta)."""
PARTS = ["helpful-baselines", "helpful-lora", "helpful-heads", "helpful-dpo", "harmless-baselines", "harmless-lora"]
OPTIONS: dict[str, Any] = {
    "per_device_train_batch_size": 16, "learning_rate": 1e-4, "lr_scheduler_type": "linear", "warmup_ratio": 0.05,
    "save_steps": 10, "save_total_limit": 1, "logging_steps": 5, "max_length": 1024, "tokens_per_microbatch": 1024,
}  # fmt: skip


def split(path: Path) -> tuple[list[Example], list[Example]]:
    """Train and test pairs, in the order of a hash of their content; pairs without a winner are left out."""
    rows = [row for row in read_examples(str(path)) if row.kind == "preference" and row.probability in (None, 1.0)]
    rows = list({row.id: row for row in rows}.values())
    rows.sort(key=lambda row: content_hash(["human labels", row.id]))
    return rows[:TRAIN_PAIRS], rows[TRAIN_PAIRS:]


# -- baselines ------------------------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    found = text.lower().split()
    return found + [f"{first} {second}" for first, second in zip(found, found[1:], strict=False)]


def bag(rows: Sequence[Example]) -> Tensor:
    """(R, HASHES) sparse difference of hashed word and word-pair counts, chosen minus rejected."""
    indices: list[list[int]] = [[], []]
    values: list[float] = []
    for index, row in enumerate(rows):
        for completion, sign in zip(row.completions, (1.0, -1.0), strict=True):
            for word in words(completion.text):
                indices[0].append(index)
                indices[1].append(int(content_hash(word, 8), 16) % HASHES)
                values.append(sign)
    return torch.sparse_coo_tensor(torch.tensor(indices), torch.tensor(values), (len(rows), HASHES)).coalesce()


def lengths(rows: Sequence[Example]) -> Tensor:
    """(R, 1) difference in characters, in thousands."""
    return torch.tensor([[(len(row.completions[0].text) - len(row.completions[1].text)) / 1000] for row in rows])


def fit_logistic(features: Tensor, penalty: float) -> Tensor:
    """Weights that maximise the likelihood of `chosen` from feature differences, with an L2 penalty."""
    weight = torch.zeros(features.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        margin = (features @ weight[:, None])[:, 0]
        loss = -torch.nn.functional.logsigmoid(margin).mean() + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def baselines(train: list[Example], test: list[Example]) -> dict[str, list[float]]:
    """Margins on the test rows of length alone and of a bag of words, both fitted on the training rows."""
    found = {}
    for name, make, penalty in (("length", lengths, 0.0), ("bag of words", bag, 1e-3)):
        weight = fit_logistic(make(train), penalty)
        found[name] = (make(test) @ weight[:, None])[:, 0].tolist()
    return found


# -- models ---------------------------------------------------------------------------------------------------------------------------


def resumable(folder: Path) -> bool | None:
    return True if checkpoint.folders(folder) else None


def lora_reward(
    opened: Opened, train: list[Example], test: list[Example], folder: Path, layers: float
) -> tuple[list[float], dict[str, Any]]:
    config = RewardConfig(
        output_dir=str(folder), head_learning_rate_scale=10.0, max_prompt_length=PROMPT_TOKENS, normalise=False, seed=1, **OPTIONS
    )
    trainer = RewardTrainer(opened.policy, config, train, None, opened.tokenizer, peft_config=lora_config(opened.policy, layers=layers))
    trainer.train(resume_from_checkpoint=resumable(folder))
    trainer.save_model()
    model, units = trainer.reward_model, trainer.renderer.units(test)
    margins: list[float] = []
    for part in split_by_budget(units, 8192):
        scores = model.score(part, 2048).mean(1).view(-1, 2)
        margins += (scores[:, 0] - scores[:, 1]).tolist()
    return margins, {"tokens trained": trainer.num_tokens, "tokens tested": sum(unit.num_tokens for unit in units)}


def head_rewards(opened: Opened, train: list[Example], test: list[Example], folder: Path) -> dict[str, list[float]]:
    """Five heads on the frozen starter's features, three seeds; the backbone runs once over all rows."""
    features: dict[str, Tensor] = {}
    found = {}
    for seed in (1, 2, 3):
        config = RewardConfig(
            output_dir=str(folder / str(seed)), backbone="heads", seed=seed, num_train_epochs=20, learning_rate=1e-3, weight_decay=0.5, per_device_train_batch_size=64,
            max_prompt_length=PROMPT_TOKENS, logging_steps=50, tokens_per_microbatch=2048, normalise=False,
        )  # fmt: skip
        trainer = RewardTrainer(opened.policy, config, train, None, opened.tokenizer, known_features=features)
        trainer.train()
        units = trainer.renderer.units(test)
        trainer.reward_model.remember(units, features)
        scores = trainer.heads(torch.cat([features[unit.id] for unit in units])).mean(1).view(-1, 2)
        found[f"heads, seed {seed}"] = (scores[:, 0] - scores[:, 1]).tolist()
    return found


def dpo(opened: Opened, train: list[Example], test: list[Example], folder: Path, layers: float) -> tuple[list[float], dict[str, Any]]:
    """Margins of implicit rewards on the test rows."""
    config = DPOConfig(
        output_dir=str(folder), beta=0.1, max_prompt_length=PROMPT_TOKENS, seed=1, **OPTIONS | {"learning_rate": DPO_LEARNING_RATE}
    )
    trainer = DPOTrainer(opened.policy, None, config, train, None, opened.tokenizer, peft_config=lora_config(opened.policy, layers=layers))
    trainer.train(resume_from_checkpoint=resumable(folder))
    trainer.save_model()
    margins: list[float] = []
    with torch.no_grad():
        for part in split_by_budget(trainer.renderer.units(test), 8192):
            trainer.keep_lower_states(part)
            trainer.prepare_units(part)
            for small in split_by_budget(part, 1024):
                pair = trainer._pair(small)
                margins += (config.beta * ((pair.chosen - pair.ref_chosen) - (pair.rejected - pair.ref_rejected))).tolist()
    return margins, {"tokens trained": trainer.num_tokens}


# -- results --------------------------------------------------------------------------------------------------------------------------


def right(margins: Sequence[float]) -> list[float]:
    return [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]


def summary(margins: list[float], test: list[Example], against: dict[str, list[float]]) -> dict[str, Any]:
    """Accuracy, apart for pairs that the shorter and the longer answer won, and paired differences from the baselines."""
    mine = right(margins)
    shorter = [len(row.completions[0].text) < len(row.completions[1].text) for row in test]
    found: dict[str, Any] = {"accuracy": interval(paired_bootstrap(mine)), "margin": interval(paired_bootstrap(margins))}
    for name, wanted in (("shorter wins", True), ("longer wins", False)):
        found[name] = interval(paired_bootstrap([value for value, short in zip(mine, shorter, strict=True) if short is wanted]))
    for name, other in against.items():
        found[f"minus {name}"] = interval(paired_bootstrap([a - b for a, b in zip(mine, right(other), strict=True)]))
    return found


def interval(found: Interval) -> dict[str, float]:
    return {"mean": round(found.mean, 4), "low": round(found.low, 4), "high": round(found.high, 4), "rows": found.count}


def run(part: str, data: Path, work: Path, layers: float) -> dict[str, Any]:
    """One part; returns summaries by name, margins kept in the work folder for later comparisons."""
    domain, _, what = part.partition("-")
    train, test = split(data / FILES[domain])
    started = time.perf_counter()
    margins: dict[str, list[float]] = {}
    info: dict[str, Any] = {"train": len(train), "test": len(test)}
    if what == "baselines":
        margins = baselines(train, test)
    else:
        opened = open_model("smollm2-135m")
        if what == "lora":
            margins["LoRA reward model"], more = lora_reward(opened, train, test, work / part, layers)
            info |= more | {"lora_layers": layers}
        elif what == "heads":
            margins = head_rewards(opened, train, test, work / part)
        else:
            margins["DPO, implicit reward"], more = dpo(opened, train, test, work / part, layers)
            info |= more | {"lora_layers": layers}
    stored = work / f"{domain}-margins.json"
    every = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    every |= margins
    stored.write_text(json.dumps(every), encoding="utf-8")
    against = {} if what == "baselines" else {name: every[name] for name in ("length", "bag of words") if name in every}
    info |= {"seconds": round(time.perf_counter() - started), "peak GB": round(peak_rss_gb(), 2)}
    return {**info, "results": {name: summary(values, test, against) for name, values in margins.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hh_helpful_test and hh_harmless_test")
    parser.add_argument("--work", type=Path, default=Path("runs/human-labels"), help="checkpoints and margins")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "human_labels.json")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--lora-layers", type=float, default=0.5, help="share of the layers, from the top, that get adapters")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    for part in given.parts:
        if part not in results:
            results[part] = run(part, given.data, given.work, given.lora_layers)
            given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for name, found in results[part]["results"].items():
            print(
                part,
                "·",
                name,
                "·",
                ", ".join(f"{key} {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})" for key, value in found.items()),
            )


if __name__ == "__main__":
    main()
