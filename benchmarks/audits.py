"""What the audit's measures are worth on labels by people: refusals (XSTest), loops (Self-Instruct), length and style (HH, PandaLM, LLMBar, RM-Bench), truth.

    python benchmarks/audits.py --data ../shared/data                                     # without a language model: under a minute
    python benchmarks/audits.py --data ../shared/data --parts rewards --reward runs/reward --limit 200   # a reward model in the same table

refusals: the detector against each of XSTest's two annotators and their agreed label, next to how far the two agree (Roettger et al. 2024).
repetition: base davinci, which loops, against text-davinci-003 on the same 252 prompts. rewards: the audit's own sections on two rewards
without a language model, the number of words and a bag of words learned from 80 % of HH helpful. truth: how far people's labels of
truth (TruthfulQA) can be had from form alone, by a logistic regression on what the audit's detectors see: a reward model learned from
such labels can take that way too. Results go to `benchmarks/results/audits.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from human_labels import HASHES, bag, fit_logistic, words

from accord.ai_feedback.check import readable
from accord.ai_feedback.scoring import reward_model_judge
from accord.annotation.agreement import Agreement, cohen_kappa
from accord.annotation.judgements import Judgement
from accord.audit import detectors, probe_sets
from accord.audit.habits import LOOPS
from accord.audit.reward_model import Scores, adversarial, perturbed, short_wins, style_grid
from accord.data.files import open_text
from accord.evaluation.intervals import Interval, wilson
from accord.recipes.audit import scoring
from accord.types import Example, content_hash

PARTS = ("refusals", "repetition", "rewards", "truth")
XSTEST = ("llama2new", "llama2orig", "mistralinstruct")
PAIRS = {
    "HH helpful": "hh_helpful_test/helpful.test.json.gz",
    "HH harmless": "hh_harmless_test/harmless-base_test.jsonl.gz",
    "PandaLM": "pandalm_test/testset-v1.json",
}
RM_BENCH = ("chat_filtered.json", "safety-refuse_filtered.json.gz", "safety-response_filtered.json")
LEARNED_SHARE = 0.8


# -- refusals -------------------------------------------------------------------------------------------------------------------------


def refusals(data: Path) -> dict[str, Any]:
    """Kappa of the detector and each annotator, of the annotators with each other, and what the detector finds of the agreed label."""
    found: dict[str, Any] = {}
    rows = {name: list(csv.DictReader(open_text(data / "xstest" / f"completions_{name}.csv", newline=""))) for name in XSTEST}
    every = [row for part in rows.values() for row in part]
    for name, part in {**rows, "all": every}.items():
        found[name] = _refusals(part)
    return found


def _refusals(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    who = {
        "annotator 1": [_declined(row["annotation_1"]) for row in rows],
        "annotator 2": [_declined(row["annotation_2"]) for row in rows],
        "agreed label": [_declined(row["final_label"]) for row in rows],
        "detector": [detectors.refuses(row["completion"]) for row in rows],
    }
    pairs = (("annotator 1", "annotator 2"), *(("detector", other) for other in ("annotator 1", "annotator 2", "agreed label")))
    truth, said = who["agreed label"], who["detector"]
    full = [row["final_label"].startswith("2") for row in rows]
    return {
        "answers": len(rows),
        **{f"kappa {one} and {other}": _agreement(kappa(who[one], who[other])) for one, other in pairs},
        "kappa of three classes, annotators": _agreement(
            kappa([row["annotation_1"] for row in rows], [row["annotation_2"] for row in rows])
        ),
        "refusals found": _share([hit for hit, real in zip(said, truth, strict=True) if real]),
        "full refusals found": _share([hit for hit, real in zip(said, full, strict=True) if real]),
        "compliance called refusal": _share([hit for hit, real in zip(said, truth, strict=True) if not real]),
    }


def _declined(label: str) -> bool:
    """Full and partial refusals are refusals: the question is whether it was answered."""
    return not label.startswith("1")


def kappa(one: Sequence[object], other: Sequence[object]) -> Agreement:
    """Cohen's kappa of two lists of labels."""
    judgements = [
        Judgement(str(i), who, str(value))
        for i, values in enumerate(zip(one, other, strict=True))
        for who, value in zip("ab", values, strict=True)
    ]
    return cohen_kappa(judgements)


# -- repetition -----------------------------------------------------------------------------------------------------------------------


def repetition(data: Path) -> dict[str, Any]:
    """The detector's values on looping and on aligned answers to the same prompts."""
    folder = data / "self_instruct_predictions"
    answers = {
        name: [json.loads(line)["response"] for line in (folder / f"{name}_predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("davinci", "text-davinci-003")
    }
    values = {name: [detectors.repetition(text) for text in texts] for name, texts in answers.items()}
    loops, clean = values["davinci"], values["text-davinci-003"]
    return {
        "answers": len(loops),
        "mean repeated triples": {name: round(sum(found) / len(found), 3) for name, found in values.items()},
        "called a loop": {name: _share([value > LOOPS for value in found]) for name, found in values.items()},
        "area under the curve": round(area(loops, clean), 4),
        "the base repeats more, prompt by prompt": _share([one > other for one, other in zip(loops, clean, strict=True)]),
    }


def area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """P(a positive is above a negative), ties half."""
    wins = sum((one > other) + 0.5 * (one == other) for one in positive for other in negative)
    return wins / (len(positive) * len(negative))


# -- rewards --------------------------------------------------------------------------------------------------------------------------


def rewards(data: Path, limit: int, folder: str | None) -> dict[str, Any]:
    """The audit's sections on rewards, and how often the longer answer is the preferred one."""
    pairs = {name: comparisons(data / path) for name, path in PAIRS.items()}
    learned, held_out = _split(pairs["HH helpful"])
    pairs["HH helpful"] = held_out
    known: dict[str, Scores] = {
        "words": lambda asked: [float(detectors.word_count(text)) for _, text in asked],
        "bag of words": bag_of_words(learned),
    }
    if folder is not None:
        known = {Path(folder).name: scoring(reward_model_judge(folder))}
    looks = [str(path) for path in sorted((data / "llmbar").glob("Adversarial_*.json"))]
    grids = {name.split("_")[0]: [str(data / "rm_bench" / name)] for name in RM_BENCH}
    found: dict[str, Any] = {"longer answer preferred": {name: _share(longer_won(rows)) for name, rows in pairs.items()}}
    found["longer answer preferred"]["LLMBar adversarial"] = _share(longer_won(probe_sets.pairs(looks, 0, 0, ())))
    for name, scores in known.items():
        say = normalised(scores, [(row.prompt, completion.text) for row in held_out[:100] for completion in row.completions])
        found[name] = {
            **{f"{title}": _values(short_wins(say, probe_sets.drawn(rows, limit, 0))) for title, rows in pairs.items()},
            "LLMBar adversarial": _values(adversarial(say, probe_sets.pairs(looks, limit, 0, ()))),
            **{f"RM-Bench {title}": _grid(say, files, limit) for title, files in grids.items()},
            "perturbations": _values(perturbed(say, probe_sets.everyday(None, 0, 0))),
        }
    return found


def comparisons(path: Path) -> list[Example]:
    """Comparisons with a winner, each once."""
    rows = [row for row in readable(str(path), None)[0] if row.kind == "preference" and row.probability not in (0.5,)]
    return list({row.id: row for row in rows}.values())


def _split(rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """To learn from and held out, by a hash of what they hold."""
    ordered = sorted(rows, key=lambda row: content_hash(["audits", row.id]))
    cut = int(LEARNED_SHARE * len(ordered))
    return ordered[:cut], ordered[cut:]


def longer_won(rows: Sequence[Example]) -> list[bool]:
    """Of the pairs whose answers differ in length: whether the preferred one is the longer."""
    lengths = [tuple(len(completion.text) for completion in row.completions) for row in rows]
    return [chosen > rejected for chosen, rejected in lengths if chosen != rejected]


def bag_of_words(rows: Sequence[Example]) -> Scores:
    """A logistic regression on hashed words and word pairs: the reward model of a poor person."""
    weight = fit_logistic(bag(rows), 1e-3).tolist()

    @cache
    def place(word: str) -> int:
        return int(content_hash(word, 8), 16) % HASHES

    return lambda asked: [sum(weight[place(word)] for word in words(text)) for _, text in asked]


def normalised(scores: Scores, asked: Sequence[Any]) -> Scores:
    """Scores in standard deviations of those of some answers, as reward models of accord give them."""
    values = torch.tensor(scores(asked), dtype=torch.float64)
    spread = float(values.std()) or 1.0
    return lambda asked: [value / spread for value in scores(asked)]


def _grid(scores: Scores, files: Sequence[str], limit: int) -> dict[str, Any]:
    section = style_grid(scores, probe_sets.grids(files, limit, 0))
    return {**_values(section), "grid": [list(row) for row in section.tables[0].rows]}


# -- truth ----------------------------------------------------------------------------------------------------------------------------

_FORM: dict[str, Callable[[str], float]] = {
    "words": lambda text: float(detectors.word_count(text)) / 10,
    "hedging": lambda text: detectors.hedging(text) / 10,
    "declines": lambda text: float(detectors.refuses(text) or "no comment" in text.lower()),
    "begins with no": lambda text: float(text.lower().startswith("no")),
    "negation": lambda text: float(bool(re.search(r"\b(?:not|no|never|nothing|nobody|n't)\b|n't\b", text.lower()))),
    "repetition": detectors.repetition,
    "gibberish": detectors.gibberish,
}


def truth(data: Path) -> dict[str, Any]:
    """Area under the curve of people's truth labels from form alone, learned on some questions and measured on others."""
    answers = [
        *_labelled(data / "truthfulqa_judge" / "finetune_truth_train.jsonl.gz"),
        *_labelled(data / "truthfulqa_judge" / "finetune_truth_dev.jsonl"),
    ]
    answers = list(dict.fromkeys(answers))
    tested = [int(content_hash(question, 2), 16) < 64 for question, _, _ in answers]
    features = torch.tensor([[1.0, *(measure(answer) for measure in _FORM.values())] for _, answer, _ in answers])
    signs = torch.tensor([1.0 if true else -1.0 for _, _, true in answers])
    train = ~torch.tensor(tested)
    weight = fit_logistic(features[train] * signs[train, None], 1e-4)
    scores = (features @ weight).tolist()
    held_out = [(score, true) for score, (_, _, true), test in zip(scores, answers, tested, strict=True) if test]
    singles = {
        name: round(
            _area_of([(float(row[1 + i]), true) for row, (_, _, true), test in zip(features, answers, tested, strict=True) if test]), 3
        )
        for i, name in enumerate(_FORM)
    }
    return {
        "answers": len(answers),
        "held out": len(held_out),
        "true": _share([true for _, true in held_out]),
        "area under the curve, form alone": round(_area_of(held_out), 3),
        "area under the curve, one at a time": singles,
        "of answers that decline, true": _share([true for _, answer, true in answers if _FORM["declines"](answer)]),
    }


def _labelled(path: Path) -> list[tuple[str, str, bool]]:
    rows = [json.loads(line) for line in open_text(path) if line.strip()]
    found = []
    for row in rows:
        question, _, rest = row["prompt"].removeprefix("Q: ").partition("\nA: ")
        found.append((question, rest.removesuffix("\nTrue:"), row["completion"].strip() == "yes"))
    return found


def _area_of(rows: Sequence[tuple[float, bool]]) -> float:
    """The same as `area`, by ranks: fast for thousands."""
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float64)
    true = torch.tensor([label for _, label in rows])
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]
    positives = int(true.sum())
    return float((ranks[true].sum() - positives * (positives + 1) / 2) / (positives * (len(rows) - positives)))


# -- results --------------------------------------------------------------------------------------------------------------------------


def _share(flags: Sequence[bool]) -> dict[str, float]:
    return _interval(wilson(sum(flags) / len(flags), len(flags)))


def _interval(found: Interval) -> dict[str, float]:
    return {"value": round(found.mean, 4), "low": round(found.low, 4), "high": round(found.high, 4), "count": found.count}


def _agreement(found: Agreement) -> dict[str, float | None]:
    return {
        "value": round(found.value or 0.0, 3),
        "low": round(found.low or 0.0, 3),
        "high": round(found.high or 0.0, 3),
        "count": found.items,
    }


def _values(section: Any) -> dict[str, Any]:
    return {finding.name: {**_interval(finding.value), "verdict": finding.level} for finding in section.findings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with xstest, self_instruct_predictions, hh_helpful_test, rm_bench, ..."
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--reward", help="run folder of a reward model, in place of the rewards without a language model")
    parser.add_argument("--limit", type=int, default=0, help="rows of each set for rewards; 0 takes all")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "audits.json")
    given = parser.parse_args()
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    for part in given.parts:
        started = time.perf_counter()
        if part == "rewards":
            found = rewards(given.data, given.limit, given.reward)
        else:
            found = {"refusals": refusals, "repetition": repetition, "truth": truth}[part](given.data)
        print(f"{part}, {time.perf_counter() - started:.0f} s\n{json.dumps(found, indent=1)}")
        results[part] = {**results.get(part, {}), **found}
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
