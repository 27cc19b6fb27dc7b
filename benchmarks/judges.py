"""What judges are worth: `accord judge check` for small models, checklists, rules and a reward model from human labels, on LLMBar and PandaLM.

    python benchmarks/judges.py --data ../shared/data                        # every judge, 200 items of each: hours on two cores
    python benchmarks/judges.py --data ../shared/data --judges smollm2-pairwise rules --limit 20
    python benchmarks/judges.py --data ../shared/data --judges served --server http://127.0.0.1:8000/v1#NAME

LLMBar is its 100 natural and 319 adversarial items (Zeng et al. 2024), PandaLM its human-labelled test set (Wang et al. 2024); 200 of each
are drawn by seed 0. Answers of models lie in `runs/judges`, so an interrupted run goes on where it was;
each judge's table is written to `benchmarks/results/judges.json` when it is done, and skipped from then on (`--again` measures it anew).
`served` asks the same pairwise question of the same model behind a server, and compares each verdict with the one in this process.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord.ai_feedback.check import Labelled, Measured, labelled, measure, readable, table
from accord.ai_feedback.judges import Judge
from accord.ai_feedback.opening import open_judge
from accord.ai_feedback.scoring import reward_model_judge, rule_judge
from accord.ai_feedback.store import AnswerStore
from accord.config.judge import JudgingOptions
from accord.data.read import read_examples
from accord.errors import AccordError
from accord.types import Example

FILES = {
    "llmbar": ["llmbar/Natural.json", *(f"llmbar/Adversarial_{name}.json" for name in ("GPTInst", "GPTOut", "Manual", "Neighbor"))],
    "pandalm": ["pandalm_test/testset-v1.json"],
}
MODELS = {"smollm2": "smollm2-135m", "gemma3": "gemma3-270m"}
PROMPTS = ("pairwise", "rating", "rubric", "principle", "pairwise_reasoned")
RULES = ("longer", "shorter", "no-repetition", "no-refusal", "readable")
NAMES = [*(f"{model}-{prompt}" for model in MODELS for prompt in PROMPTS), "rules", "reward", "served"]
TRAIN_PAIRS = 1000


def rows(data: Path, limit: int) -> dict[str, list[Labelled]]:
    """The comparisons of each set, drawn by seed 0."""
    found: dict[str, list[Labelled]] = {}
    for name, files in FILES.items():
        everything = [row for file in files for row in readable(str(data / file))[0]]
        found[name] = labelled(random.Random(0).sample(everything, min(limit, len(everything))))
    return found


def judges_of(name: str, options: argparse.Namespace, store: AnswerStore) -> list[Judge]:
    """The judges that one name of the command line stands for."""
    if name == "rules":
        return [rule_judge(rule) for rule in RULES]
    if name == "reward":
        return [reward_model_judge(str(reward_model(options.data, options.work / "reward")))]
    if name == "served":
        return [open_judge(JudgingOptions(judge=options.server, timeout=600.0, concurrency=2), store)]
    model, _, prompt = name.partition("-")
    return [open_judge(JudgingOptions(judge=MODELS[model], prompt=prompt, accept_licence=options.accept_licence), store)]


def reward_model(data: Path, folder: Path) -> Path:
    """Five heads on frozen features of SmolLM2-135M from 1,000 human comparisons (Anthropic HH, helpful), as LOG.md's human labels have it."""
    from accord import RewardConfig, RewardTrainer
    from accord.models.opened import open_model

    if (folder / "reward.json").exists():
        return folder
    pairs = [row for row in read_examples(data / "hh_helpful_test/helpful.test.json.gz") if row.probability in (None, 1.0)]
    train = random.Random(0).sample(pairs, TRAIN_PAIRS)
    opened = open_model(MODELS["smollm2"])
    opened.renderer.max_prompt_length = 160
    config = RewardConfig(
        output_dir=str(folder), backbone="heads", num_heads=5, head_width=64, head_context=True, num_train_epochs=10, max_length=1024
    )
    trainer = RewardTrainer(opened.policy, config, [shortened(row) for row in train], processing_class=opened.tokenizer)
    trainer.train()
    trainer.save_model()
    return folder


def shortened(row: Example) -> Example:
    """The last turn of the prompt alone: LLMBar and PandaLM ask in one turn."""
    return replace(row, prompt=row.prompt[-1:])


def same_verdicts(judge: Judge, sets: dict[str, list[Labelled]], store: AnswerStore) -> dict[str, Any]:
    """The served judge beside the same one in this process: how far apart their probabilities are, and how many choices differ."""
    here = open_judge(JudgingOptions(judge=MODELS["smollm2"], prompt="pairwise"), store)
    comparisons = [row.comparison for some in sets.values() for row in some]
    pairs = list(zip(here.compare(comparisons), judge.compare(comparisons), strict=True))
    both = [(one, other) for one, other in pairs if one.probability is not None and other.probability is not None]
    gaps = [
        abs(one.probability - other.probability) for one, other in both if one.probability is not None and other.probability is not None
    ]
    return {
        "comparisons": len(pairs),
        "valid_in_both": len(both),
        "largest_difference": max(gaps, default=None),
        "mean_difference": sum(gaps) / len(gaps) if gaps else None,
        "different_choices": sum(one.choice != other.choice for one, other in both),
        "invalid_served": sorted({other.invalid for _, other in pairs if other.invalid}),
    }


def record_of(judge: Judge, found: Sequence[Measured], limit: int) -> dict[str, Any]:
    return {"about": judge.about(), "limit": limit, "date": time.strftime("%Y-%m-%d"), "data": [one.to_dict() for one in found]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judges", nargs="+", choices=NAMES, default=[name for name in NAMES if name != "served"])
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--server", help="for served: URL#MODEL")
    parser.add_argument("--work", type=Path, default=Path("runs/judges"), help="answers of models, and the reward model")
    parser.add_argument("--accept-licence", action="store_true", help="Gemma's")
    parser.add_argument("--again", action="store_true", help="measure judges that were measured before")
    options = parser.parse_args()
    if "served" in options.judges and not options.server:
        parser.error("served needs --server URL#MODEL")
    path = Path(__file__).parent / "results" / "judges.json"
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    sets = rows(options.data, options.limit)
    tell: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    with AnswerStore(options.work / "answers.sqlite") as store:
        for name in options.judges:
            if not options.again and written.get(name, {}).get("limit") == options.limit:
                continue
            made = judges_of(name, options, store)
            for judge in made:
                found = [measure(judge, some, data, tell=tell) for data, some in sets.items()]
                key = name if len(made) == 1 else judge.name
                written[key] = record_of(judge, found, options.limit)
                if name == "served":
                    written[key]["beside_in_process"] = same_verdicts(judge, sets, store)
                    print(json.dumps(written[key]["beside_in_process"], indent=1))
                path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
                print(f"{key}\n{table(found)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AccordError as error:
        sys.exit(str(error))
