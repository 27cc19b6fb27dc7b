"""Labels of a judge beside labels of people: reward heads on one cached feature pass, learned from each, tested on what people said.

    python benchmarks/rlaif.py --data ../shared/data                                # SmolLM2-135M as judge: an hour on two cores
    python benchmarks/rlaif.py --data ../shared/data --judge rule:longer --pairs 200 # minutes

Comparisons of Anthropic's HH (helpful, test split) with at most 120 words, drawn by seed 0, each judged in both orders. Five folds by
prompt; in each, five heads on frozen SmolLM2-135M learn from the same rows and are asked about the fold left out, where the label is
people's. Arms: people, the judge (soft labels), both (people for one half of the rows, the judge for the other), that half of people's
alone, and coins. The judge itself is asked about the same rows. Differences are paired, with bootstrap intervals over comparisons.
Answers of the judge lie in `runs/rlaif`, so the command may be cut off and given again; results go to `benchmarks/results/rlaif.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from accord import RewardConfig, RewardTrainer
from accord.ai_feedback.check import labelled, measure, table
from accord.ai_feedback.opening import open_judge
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import comparison_of
from accord.config.judge import JudgingOptions
from accord.data.read import read_examples
from accord.evaluation.intervals import paired_bootstrap
from accord.models.opened import Opened, open_model
from accord.recipes.stages import peak_rss_gb
from accord.types import Example, content_hash

FILE = "hh_helpful_test/helpful.test.json.gz"
MODEL = "smollm2-135m"
MOST_WORDS, FOLDS, LONGEST = 120, 5, 512
ARMS = ("people", "judge", "both", "half of people's", "coins")
HEADS: dict[str, Any] = {
    "backbone": "heads",
    "num_heads": 5,
    "head_width": 64,
    "head_context": True,
    "num_train_epochs": 10,
    "weight_decay": 1.0,
    "seed": 7,
}


def drawn(data: Path, count: int) -> list[Example]:
    """Comparisons that people decided, short ones, as many prompts as rows."""
    found: dict[str, Example] = {}
    for row in read_examples(data / FILE):
        words = sum(len(message.content.split()) for message in (*row.prompt, *(m for c in row.completions for m in c.messages)))
        if words <= MOST_WORDS and row.probability in (None, 1.0) and row.completions[0].text != row.completions[1].text:
            found.setdefault(row.prompt_id, row)
    if len(found) < count:
        raise SystemExit(f"{data / FILE} has {len(found)} such comparisons and --pairs {count} are asked for.")
    return random.Random(0).sample(list(found.values()), count)


def fold(row: Example) -> int:
    return int(content_hash(["fold", row.prompt_id], 8), 16) % FOLDS


def first_half(row: Example) -> bool:
    """One half of all rows, by their prompt."""
    return int(content_hash(["half", row.prompt_id], 8), 16) % 2 == 0


def labelled_by(arm: str, rows: Sequence[Example], said: dict[str, float]) -> list[Example]:
    """The rows with the labels of an arm. Answers stay where they are, people's choice first: a label against people is a probability under 0.5.

    Args:
        said: probability, by the judge, that the answer which people chose is the better one; by row id.
    """
    by = {
        "people": lambda row: 1.0,
        "judge": lambda row: said[row.id],
        "both": lambda row: 1.0 if first_half(row) else said[row.id],
        "half of people's": lambda row: 1.0,
        "coins": lambda row: float(int(content_hash(["coin", row.id], 8), 16) % 2),
    }[arm]
    kept = [row for row in rows if first_half(row)] if arm == "half of people's" else rows
    return [replace(row, probability=by(row)) for row in kept]


def heard(arm: str, rows: Sequence[Example], said: dict[str, float], opened: Opened, known: dict[str, Tensor]) -> dict[str, float]:
    """Right (1), tied (0.5) or wrong (0) on each row, by heads that learned from the other folds."""
    found: dict[str, float] = {}
    for number in range(FOLDS):
        train = labelled_by(arm, [row for row in rows if fold(row) != number], said)
        config = RewardConfig(output_dir="runs/rlaif/heads", normalise=False, max_length=LONGEST, logging_steps=10**6, **HEADS)
        trainer = RewardTrainer(opened.policy, config, train, processing_class=opened.tokenizer, known_features=known)
        trainer.train()
        tested = trainer.make_units([row for row in rows if fold(row) == number])
        trainer.reward_model.remember(tested, known)
        for unit in tested:
            chosen, rejected = trainer.heads.raw(known[unit.id].to(opened.policy.device)).mean(1).tolist()
            found[unit.id] = float(chosen > rejected) + 0.5 * float(chosen == rejected)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hh_helpful_test")
    parser.add_argument("--judge", default=MODEL, help="anything that accord judge takes")
    parser.add_argument("--prompt", help="which question a language model is asked; accord judge's usual one if left out")
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--accept-licence", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/rlaif"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "rlaif.json")
    given = parser.parse_args()
    rows = drawn(given.data, given.pairs)
    tell = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    with AnswerStore(given.work / "answers.sqlite") as store:
        judge = open_judge(JudgingOptions(judge=given.judge, prompt=given.prompt, accept_licence=given.accept_licence), store)
        asked = measure(judge, labelled(rows), "HH helpful", tell=tell)
        verdicts = judge.compare([comparison_of(row) for row in rows])
    said = {row.id: verdict.soft_label for row, verdict in zip(rows, verdicts, strict=True) if verdict.soft_label is not None}
    used = [row for row in rows if row.id in said]
    opened, known = open_model(MODEL), dict[str, Tensor]()
    right: dict[str, dict[str, float]] = {}
    for arm in ARMS:
        right[arm] = heard(arm, used, said, opened, known)
        tell(f"{arm}: {100 * sum(right[arm].values()) / len(right[arm]):.1f} % of {len(right[arm])}")
    ids = list(right["people"])
    result: dict[str, Any] = {
        "judge": judge.about(),
        "date": time.strftime("%Y-%m-%d"),
        "comparisons": len(ids),
        "without a valid verdict": len(rows) - len(used),
        "the judge itself": asked.to_dict(),
        "accuracy on people's labels": {arm: interval([scores[one] - 0.5 for one in ids], 0.5) for arm, scores in right.items()},
        "differences": {
            f"{one} minus {other}": interval([right[one][row] - right[other][row] for row in ids])
            for one, other in (
                ("judge", "people"),
                ("both", "people"),
                ("both", "half of people's"),
                ("judge", "coins"),
                ("people", "coins"),
            )
        },
        "peak GB": round(peak_rss_gb(), 2),
    }
    kept = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    kept[judge.name] = result
    given.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(table([asked]))
    print(json.dumps({name: result[name] for name in ("accuracy on people's labels", "differences")}, indent=1))


def interval(values: Sequence[float], above: float = 0.0) -> str:
    """Mean and 95 % interval in per cent, of values that `above` was taken from."""
    found = paired_bootstrap(values)
    mean, low, high = (100 * (value + above) for value in (found.mean, found.low, found.high))
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})" if above else f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
