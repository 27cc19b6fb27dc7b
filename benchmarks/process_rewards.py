"""Do process rewards help a small model choose among its own answers? Training, first errors found, best-of-16, and the filler attack.

    python benchmarks/process_rewards.py --data ../shared/data

A process reward model learns from generated arithmetic with planted errors and BIG-Bench-Mistake's arithmetic; an outcome reward model from
the same solutions, by whether they end rightly. Both are heads on frozen features of one reader, SFT on 1,000 right solutions. They are asked
about solutions they have not seen, ProcessBench's GSM8K part among them, and choose among 16 answers to held-out problems, sampled from a
weaker model: SFT on 96 worked solutions, as in `benchmarks/reasoning.py`. Each stage takes at most a quarter of an hour; those already done are
skipped, so the command may be cut off and given again. Results go to `benchmarks/results/process_rewards.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from reasoning import keep
from safetensors.torch import load_file, save_file
from torch import Tensor

from accord import PRMConfig, PRMTrainer
from accord.data.arithmetic import ERRORS, MORE_ERRORS, Split, chains, planted_errors
from accord.data.read import read_examples
from accord.evaluation.intervals import paired_bootstrap
from accord.evaluation.process import first_error_table, labelled_first_error, process_bench
from accord.methods.prompts import as_prompt
from accord.models.heads import StepHead
from accord.models.opened import open_model
from accord.objectives.process import log_odds, minimum, soft_minimum, softmin_return
from accord.objectives.segments import segment_sum
from accord.objectives.selection import best_of_n, majority_vote, pass_at_k, weighted_vote
from accord.recipes.reasoning import Settings, imitate, in_points, problems
from accord.recipes.stages import Stages
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.numeric import find_number
from accord.rewards.process import ProcessRewardModel
from accord.rollouts.collect import collect
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout, content_hash

MISTAKES = "bigbench_mistake_arith/multistep_arithmetic.jsonl"
BENCH = "processbench_gsm8k/gsm8k.json"
SOLUTIONS, TESTED, ATTACKED, ANSWERS = 2000, 400, 150, 16
SETTINGS = Settings(seed=1, worked=96, task={"steps": (2, 3), "largest": 9, "largest_factor": 4, "limit": 60}, longest=48)
READER = replace(SETTINGS, worked=1000, sft={**SETTINGS.sft, "num_train_epochs": 1})
"""What both judges read with: a judge that cannot do the sums sees no error in them."""
PLANTED: dict[str, Any] = {"errors": (*ERRORS, *MORE_ERRORS), "share": 0.6, "answer_line": True}
"""Errors that a model makes too, and the line with the answer that it ends with: what is not practised is not seen."""
JUDGE: dict[str, Any] = {
    "backbone": "heads",
    "feature_layer": 20,
    "head_surprise": True,
    "head_width": 64,
    "num_train_epochs": 15,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1.0,
    "logging_steps": 100,
}
SIZES, SUBSETS, CURVE_STEPS = (50, 100, 200, 500, 1000), 3, 500
"""Labelled solutions that judges of the curve learn from, different sets of each size (one of the largest), optimizer steps."""
FILLER, FILLERS = "So far everything is in order.", 10


def planted(count: int, seed: int, split: Split, *, outcome: bool = False) -> list[Example]:
    """Generated solutions with their labels. outcome: True labels what follows the first error wrong too, False not at all."""
    return planted_errors(
        chains(count, seed=seed, split=split, **SETTINGS.task), seed=seed, after="wrong" if outcome else "none", **PLANTED
    )


def solutions(data: Path, *, outcome: bool) -> list[Example]:
    """What a judge learns from: labels up to the first error; of the outcome model's the last label says whether the answer is right."""
    made = planted(SOLUTIONS, 11, "train", outcome=outcome)
    found = [row for row in read_examples(str(data / MISTAKES)) if row.kind == "steps"]
    if outcome:
        # Its labels stop at the first error, so that most wrong solutions have none at their end.
        ends = [1 if row.columns["target"] == row.columns["answer"] else -1 for row in found]
        found = [replace(row, step_labels=(*(row.step_labels or ())[:-1], end)) for row, end in zip(found, ends, strict=True)]
    return [*made, *found]


def trained(base: str, data: Path, folder: Path, known: dict[str, Tensor], *, outcome: bool) -> dict[str, Any]:
    """A judge of steps, or of whole solutions by their last step.

    Args:
        known: features of solutions that the other judge has read already.
    """
    opened = open_model(base)
    config = PRMConfig(output_dir=str(folder), seed=5, train_on_last_step_only=outcome, **JUDGE)
    rows = solutions(data, outcome=outcome)
    trainer = PRMTrainer(opened.policy, config, rows, processing_class=opened.tokenizer, known_features=known)
    last = trainer.train()
    trainer.save_model()
    return {"rows": len(rows), "learned from": len(trainer.train_units), "accuracy": last["accuracy"], "steps": trainer.global_step}


def judge(base: str, folder: Path) -> ProcessRewardModel:
    opened = open_model(base)
    return ProcessRewardModel.load(opened.policy, folder, opened.renderer)


def step_accuracy(model: ProcessRewardModel, rows: Sequence[Example]) -> dict[str, float]:
    """Share of steps up to the first error that are called what they are, all of them, and wrong ones and right ones apart."""
    scores = model.score_solutions([row.prompt for row in rows], [[m.content for m in row.completions[0].messages] for row in rows])
    found: dict[int, list[bool]] = {1: [], -1: []}
    for row, own in zip(rows, scores, strict=True):
        for label, value in zip(row.step_labels or (), own.tolist(), strict=True):
            if label in found:
                found[label].append((value >= 0.5) == (label == 1))
            if label == -1:
                break
    return {"all steps": share([*found[1], *found[-1]]), "right steps": share(found[1]), "wrong steps": share(found[-1])}


def baselines(rows: Sequence[Example]) -> dict[str, float]:
    """F1 on first errors of a judge that finds none, and of one that guesses a step (or none) at random: the mean of 200 guesses."""
    known = [(row, error) for row in rows if (error := labelled_first_error(row.step_labels or ())) is not None]
    labelled = [error for _, error in known]
    dice = random.Random(0)
    guesses = [[dice.randrange(-1, len(row.completions[0].messages)) for row, _ in known] for _ in range(200)]
    return {
        "always right": first_error_table([-1] * len(labelled), labelled)["f1"],
        "random": round(sum(first_error_table(guess, labelled)["f1"] for guess in guesses) / len(guesses), 4),
    }


def first_errors(model: ProcessRewardModel, rows: Sequence[Example]) -> dict[str, float]:
    return {**process_bench(model, rows), **{f"f1 of {name}": value for name, value in baselines(rows).items()}}


def scores_of(heads: StepHead, answers: dict[str, Tensor], groups: list[list[Rollout]], *, outcome: bool) -> Tensor:
    """The score of each answer, (P, N): its least step, or for outcomes its last; -inf without a step.

    Args:
        answers: features of the answers, by `named`.
    """
    steps = {name: heads.right(features).detach() for name, features in answers.items()}
    found = {name: float(own[-1] if outcome else own.min()) for name, own in steps.items()}
    return torch.tensor([[found.get(named(r), float("-inf")) for r in group] for group in groups], dtype=torch.float64)


def learned_from_few(
    base: str, folder: Path, known: dict[str, Tensor], answers: dict[str, Tensor], groups: list[list[Rollout]], *, outcome: bool
) -> dict[str, dict[str, list[float]]]:
    """Success of the best of 16 and of the vote on each problem, mean over the sets of solutions, for each of `SIZES` labelled solutions.

    Args:
        known: features of solutions that have been read already.
        answers: features of the answers, by `named`.
    """
    opened = open_model(base)
    rows = planted(SOLUTIONS, 11, "train", outcome=outcome)[: SIZES[-1]]
    found: dict[str, dict[str, list[float]]] = {}
    for size in reversed(SIZES):
        sets = [rows[start : start + size] for start in range(0, len(rows), size)][:SUBSETS]
        tables = []
        for own in sets:
            config = PRMConfig(
                output_dir=str(folder / "curve"), seed=5, train_on_last_step_only=outcome, **{**JUDGE, "max_steps": CURVE_STEPS}
            )
            trainer = PRMTrainer(opened.policy, config, own, processing_class=opened.tokenizer, known_features=known)
            trainer.train()
            tables.append(scores_of(trainer.heads, answers, groups, outcome=outcome))
        each = [ways_to_choose(groups, {"it": table}) for table in tables]
        found[str(size)] = {
            way: [sum(values) / len(values) for values in zip(*(ways[f"{way} by it"] for ways in each), strict=True)]
            for way in ("best", "vote")
        }
    return found


def named(rollout: Rollout) -> str:
    """The same for the same answer to the same problem."""
    return content_hash([rollout.prompt_id, rollout.text])


def read_answers(model: ProcessRewardModel, groups: list[list[Rollout]], path: Path) -> dict[str, Any]:
    """What a judge reads of each different answer that has a step, kept in a file."""
    different = {named(rollout): rollout for group in groups for rollout in group if model.renderer.split(rollout.text)}
    features = model.features([model.renderer.rollout(rollout) for rollout in different.values()])
    save_file({name: own.contiguous() for name, own in zip(different, features, strict=True)}, path)
    return {"answers": len(different)}


def ways_to_choose(groups: list[list[Rollout]], scores: dict[str, Tensor]) -> dict[str, list[float]]:
    """Success of each way to choose among the answers, a number a problem."""
    grader = AccuracyReward("numeric")
    right = torch.tensor([[float(score.value or 0) for score in grader.score(group)] for group in groups], dtype=torch.float64)
    finals = [[number.value if number else None for number in (find_number(r.text)[0] for r in group)] for group in groups]
    worth = [dict(zip(names, row.tolist(), strict=True)) | {None: 0.0} for names, row in zip(finals, right, strict=True)]
    ways: dict[str, list[float]] = {"one answer": right.mean(1).tolist()}
    ways["majority"] = [values[majority_vote(names)] for names, values in zip(finals, worth, strict=True)]  # type: ignore[index]
    for name, table in scores.items():
        ways[f"best by {name}"] = best_of_n(table, right, n=ANSWERS).tolist()
        weights = table.clamp_min(0).tolist()
        voted = [weighted_vote(names, own) for names, own in zip(finals, weights, strict=True)]
        ways[f"vote by {name}"] = [values[winner] for winner, values in zip(voted, worth, strict=True)]  # type: ignore[index]
    ways["any right"] = pass_at_k(right, k=ANSWERS).tolist()
    return ways


def chosen(groups: list[list[Rollout]], scores: dict[str, Tensor]) -> dict[str, Any]:
    """The success of each way, and paired differences with intervals over problems."""
    ways = ways_to_choose(groups, scores)
    found: dict[str, Any] = {name: f"{100 * sum(values) / len(values):.1f} %" for name, values in ways.items()}
    for mine, other in (("best", "majority"), ("best", "best by outcome"), ("vote", "majority"), ("vote", "vote by outcome")):
        gain = paired_bootstrap([a - b for a, b in zip(ways[f"{mine} by process"], ways[other], strict=True)])
        found[f"{mine} by process minus {other}"] = {"gain": in_points(gain), "clear of zero": gain.excludes_zero}
    return found


def curve(majority: list[float], by: dict[str, dict[str, dict[str, list[float]]]]) -> dict[str, Any]:
    """For each number of labelled solutions: success of both judges, and paired differences with intervals over problems."""
    found: dict[str, Any] = {}
    for size in map(str, SIZES):
        found[size] = {
            f"{way} by {name}": f"{100 * mean(table[size][way]):.1f} %" for name, table in by.items() for way in ("best", "vote")
        }
        for way in ("best", "vote"):
            mine = by["process"][size][way]
            for other, theirs in (("majority", majority), (f"{way} by outcome", by["outcome"][size][way])):
                gain = paired_bootstrap([a - b for a, b in zip(mine, theirs, strict=True)])
                found[size][f"{way} by process minus {other}"] = {"gain": in_points(gain), "clear of zero": gain.excludes_zero}
    return found


def attack(model: ProcessRewardModel, rows: Sequence[Example]) -> dict[str, str]:
    """Ten filler steps behind every solution: what that adds to each way to make one number of the steps, with its interval."""
    plain = [[m.content for m in row.completions[0].messages] for row in rows]
    padded = [[*steps, *[FILLER] * FILLERS] for steps in plain]
    before, after = (model.score_solutions([row.prompt for row in rows], texts) for texts in (plain, padded))
    ways = {
        "sum of probabilities": lambda v, s: segment_sum(v, s, 1),
        "sum of log-odds": log_odds,
        "minimum": minimum,
        "PURE's softmin, T 0.1": lambda v, s: softmin_return(v, s, temperature=0.1),
        "softmin, T 0.02 (what RL pays)": lambda v, s: soft_minimum(v, s, temperature=0.02),
    }
    found = {}
    for name, way in ways.items():
        values = [[float(way(v.cpu().double(), torch.zeros(len(v), dtype=torch.int64))) for v in own] for own in (before, after)]
        change = paired_bootstrap([b - a for a, b in zip(*values, strict=True)])
        raised = share([b > a for a, b in zip(*values, strict=True)])
        found[name] = f"{change.mean:+.4f} ({change.low:+.4f} to {change.high:+.4f}), raised in {100 * raised:.0f} %"
    return found


def share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / max(1, len(flags)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bigbench_mistake_arith and processbench_gsm8k")
    parser.add_argument("--work", type=Path, default=Path("runs/process-rewards"))
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "process_rewards.json")
    given = parser.parse_args()
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    results: dict[str, Any] = {}

    def done(name: str, inputs: dict[str, Any], work: Any) -> Any:
        """One stage; its result stands in the file at once."""
        results[name] = stages.run(name, inputs, work)
        results["peak GB"] = round(max(record["peak_rss_gb"] for record in stages.records), 2)
        keep(given.results, results)
        return results[name]

    done("judged", {"settings": SETTINGS.__dict__}, lambda folder, _: imitate(SETTINGS, folder))
    done("reader", {"settings": READER.__dict__}, lambda folder, _: imitate(READER, folder))
    base, reader = str(given.work / "judged"), str(given.work / "reader")
    about = {"settings": SETTINGS.__dict__, "reader": READER.__dict__, "judge": JUDGE, "solutions": SOLUTIONS, "planted": PLANTED}
    known: dict[str, Tensor] = {}
    for name in ("process", "outcome"):
        done(
            f"judge-{name}",
            {**about, "name": name},
            lambda folder, _, name=name: trained(reader, given.data, folder, known, outcome=name == "outcome"),
        )
    tested = planted(TESTED, 12, "heldout")
    bench = [row for row in read_examples(str(given.data / BENCH)) if row.kind == "steps"]

    def judged(name: str) -> ProcessRewardModel:
        return judge(reader, given.work / f"judge-{name}")

    asked = {**about, "tested": TESTED}
    done("held-out steps", asked, lambda *_: {**step_accuracy(judged("process"), tested), **first_errors(judged("process"), tested)})
    done("ProcessBench GSM8K", asked, lambda *_: first_errors(judged("process"), bench))
    done(f"{FILLERS} filler steps add", {**asked, "filler": [FILLER, ATTACKED]}, lambda *_: attack(judged("process"), tested[:ATTACKED]))

    sampling = SamplingConfig(SETTINGS.longest, ANSWERS, seed=9)
    questions = problems(replace(SETTINGS, held_out=given.problems), held_out=True)

    def sampled(folder: Path) -> list[list[Rollout]]:
        opened = open_model(base)
        prompts = [as_prompt(row, opened.renderer) for row in questions]
        return collect(LocalSampler(opened.policy, opened.renderer, opened.stack), prompts, sampling, folder / "answers.jsonl")

    answered = {"settings": SETTINGS.__dict__, "problems": given.problems}
    about |= answered
    done("sampled", answered, lambda folder, _: {"tokens": sum(len(r.completion_ids) for group in sampled(folder) for r in group)})
    groups = sampled(given.work / "sampled")
    kept = given.work / "answers-read" / "features.safetensors"
    stages.run("answers-read", about, lambda folder, _: read_answers(judged("process"), groups, folder / kept.name))
    answers = load_file(kept)
    scores = {name: scores_of(judged(name).heads, answers, groups, outcome=name == "outcome") for name in ("process", "outcome")}
    results[f"choosing among {ANSWERS} answers to {len(groups)} problems"] = chosen(groups, scores)
    keep(given.results, results)

    few = {**about, "sizes": SIZES, "sets": SUBSETS, "steps": CURVE_STEPS}
    by = {
        name: stages.run(
            f"few-{name}",
            few,
            lambda folder, _, name=name: learned_from_few(reader, folder, known, answers, groups, outcome=name == "outcome"),
        )
        for name in ("process", "outcome")
    }
    majority = ways_to_choose(groups, {})["majority"]
    results["labelled solutions"] = curve(majority, by)
    keep(given.results, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
