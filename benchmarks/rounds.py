"""Do rounds of fresh labels beat as many labels at once? A simulated panel that errs on a quarter of the pairs, and the true reward.

    python benchmarks/rounds.py                       # sixteen seeds, about ten minutes on one core
    python benchmarks/rounds.py --arms "rounds, largest gap"     # that arm alone; the others are as the results have them
    python benchmarks/rounds.py --panel close         # people err more on close pairs: 24 % in all, by Bradley and Terry's law

The policy is the lab's bigram language model (`accord.lab.bigram`), whose true reward is a program. Everything else is what `accord align --rounds` runs:
the panel's flips, five reward heads with the demo's settings and their Bradley-Terry loss, learned anew from all labels so far, mean 0 and variance 1 on
the start's texts, the policy gradient with the other samples as baseline and the demo's price of KL from the start, each round's policy going on from the
one before, double Thompson sampling. Beside that rule stand two others: the pair whose predicted gap (the heads' mean) is the smallest, or the largest.

Every arm is asked for the same number of labels and makes the same number of updates from the same start. Differences are paired by seed.
Results go to `benchmarks/results/rounds.json`, those of the other panel to `rounds_close.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.evaluation.intervals import paired_bootstrap
from accord.lab.bigram import Log, Texts, optimise, reference, sample
from accord.lab.heads import Judged, fit_heads
from accord.models.heads import RewardHeads
from accord.recipes.demo import QUICK
from accord.recipes.feedback import turned
from accord.recipes.selection import ANSWERS, Pair, by_chance, double_thompson

RESULTS = {name: Path(__file__).parent / "results" / file for name, file in (("flat", "rounds.json"), ("close", "rounds_close.json"))}
"""By the panel."""
ROUNDS, LABELS, NOISE, UPDATES, TESTED, RANDOM_SHARE = 8, 250, 0.25, 200, 4000, 0.3
"""Rounds, labels and updates: 250 labels and 25 updates a round, or 2,000 labels and 200 updates at once."""
KL_COEF = float(QUICK.ppo["kl_coef"])
HIGHER_KL = 0.1
Errors = Callable[[float], float]
"""From how much better one text is to the probability that the panel prefers the other."""
PANELS: dict[str, Errors] = {"flat": lambda gap: NOISE, "close": lambda gap: 1 / (1 + math.exp(abs(gap)))}
Rule = Callable[[Tensor, str], Pair]
"""From the scores of a prompt's texts under each head, (A, K), and a key of draws to the pair that is asked."""
RULES: dict[str, Rule] = {
    "active": lambda scores, key: double_thompson(scores, 1, key)[0],
    "smallest gap": lambda scores, key: min(combinations(range(len(scores)), 2), key=gaps_of(scores)),
    "largest gap": lambda scores, key: max(combinations(range(len(scores)), 2), key=gaps_of(scores)),
}
ARMS = ("at once", "at once, KL 0.1", "rounds", *(f"rounds, {rule}" for rule in RULES))


def gaps_of(scores: Tensor) -> Callable[[Pair], float]:
    """How far apart the heads' mean puts two texts."""
    means = scores.mean(1).tolist()
    return lambda pair: abs(means[pair[0]] - means[pair[1]])


def judged(first: Texts, second: Texts, seed: int, name: str, errors: Errors) -> Judged:
    """What the panel says; texts that are equally good (a few in a hundred) are left out, as ties teach no order."""
    gaps = (first.gold() - second.gold()).tolist()
    ids = [f"{name}-{index}" for index in range(len(gaps))]
    said = [turned("tie" if gap == 0 else 0 if gap > 0 else 1, errors(gap), seed, 1, key) for gap, key in zip(gaps, ids, strict=True)]
    kept = [index for index, verdict in enumerate(said) if verdict != "tie"]
    wins = torch.tensor([said[index] == 0 for index in kept])[:, None]
    a, b = first.features()[kept].float(), second.features()[kept].float()
    return Judged(torch.where(wins, a, b), torch.where(wins, b, a), [ids[index] for index in kept])


def fresh(policy: Tensor, count: int, generator: torch.Generator, seed: int, name: str, errors: Errors) -> Judged:
    """Judged of independent pairs of the policy's texts."""
    return judged(sample(policy, count, generator), sample(policy, count, generator), seed, name, errors)


def chosen(
    policy: Tensor, heads: RewardHeads, count: int, generator: torch.Generator, seed: int, name: str, errors: Errors, rule: Rule
) -> Judged:
    """Judged of pairs that a rule chose among four texts each, and a share that chance chose."""
    candidates = ANSWERS["active"]
    texts = sample(policy, count * candidates, generator)
    with torch.no_grad():
        scores = heads(texts.features().float()).view(count, candidates, -1)
    names = [f"{name}-{index}" for index in range(count)]
    control = by_chance(names, RANDOM_SHARE, seed, name)
    pairs = [(0, 1) if key in control else rule(scores[index], f"{seed}|{key}") for index, key in enumerate(names)]
    one, other = (torch.tensor([index * candidates + pair[side] for index, pair in enumerate(pairs)]) for side in (0, 1))
    return judged(picked(texts, one), picked(texts, other), seed, name, errors)


def picked(texts: Texts, rows: Tensor) -> Texts:
    return Texts(texts.tokens[rows], texts.before[rows], texts.written[rows])


def learned(labels: Judged, start: Texts, seed: int) -> RewardHeads:
    """Five heads with the demo's settings: width, rate, weight decay, batches, epochs."""
    settings = QUICK.reward
    heads = fit_heads(
        labels, seed=seed, width=settings["head_width"], batch=settings["per_device_train_batch_size"], epochs=settings["num_train_epochs"],
        rate=settings["learning_rate"], decay=settings["weight_decay"],
    )  # fmt: skip
    heads.normalise(start.features().float())
    return heads


def trained(
    heads: RewardHeads, policy: Tensor, start: Tensor, seed: int, updates: int, log: Log | None = None, beta: float = KL_COEF
) -> tuple[Tensor, Log]:
    """The policy after some updates towards the heads' mean, near the start."""

    @torch.no_grad()
    def reward(texts: Texts) -> Tensor:
        return heads(texts.features().float()).mean(1).double()

    @torch.no_grad()
    def doubt(texts: Texts) -> Tensor:
        return heads(texts.features().float()).std(1).double()

    generator = torch.Generator().manual_seed(1000 + seed)
    return optimise(reward, policy, start, generator, updates=updates, doubt=doubt, log=log, beta=beta)


def measured(policy: Tensor, heads: RewardHeads, log: Log, labels: Judged, seed: int) -> dict[str, float]:
    """True reward and length of the policy, where its reward led it on the way, and how often its reward is right on fresh pairs of its own texts."""
    generator = torch.Generator().manual_seed(5000 + seed)
    texts, others = sample(policy, TESTED, generator), sample(policy, TESTED, generator)
    with torch.no_grad():
        gaps = heads(texts.features().float()).mean(1) - heads(others.features().float()).mean(1)
    truth = texts.gold() - others.gold()
    apart = truth != 0
    return {
        "true reward": float(texts.gold().mean()),
        "best true reward on the way": max(log.gold),
        "proxy": log.proxy[-1],
        "kl": log.kl[-1],
        "length": float(texts.length().mean()),
        "accuracy on its own texts": float(((gaps > 0) == (truth > 0))[apart].double().mean()),
        "labels": float(len(labels.ids)),
    }


def at_once(start: Tensor, seen: Texts, seed: int, errors: Errors, beta: float) -> dict[str, float]:
    """All labels from the start, one reward model, one policy."""
    labels = fresh(start, ROUNDS * LABELS, torch.Generator().manual_seed(seed + 100), seed, "start", errors)
    heads = learned(labels, seen, seed)
    policy, log = trained(heads, start, start, seed, UPDATES, beta=beta)
    return measured(policy, heads, log, labels, seed)


def in_rounds(start: Tensor, seen: Texts, seed: int, errors: Errors, rule: Rule | None = None) -> dict[str, float]:
    """As many labels an eighth at a time, each from the policy as it is then.

    rule: chooses pairs from the second round on. None leaves all to chance.
    """
    generator = torch.Generator().manual_seed(seed + 100)
    policy, log = start, Log()
    labels = fresh(start, LABELS, generator, seed, "round 1", errors)
    heads = learned(labels, seen, seed)
    for number in range(1, ROUNDS + 1):
        if number > 1:
            name = f"round {number}"
            if rule is None:
                labels += fresh(policy, LABELS, generator, seed, name, errors)
            else:
                labels += chosen(policy, heads, LABELS, generator, seed, name, errors, rule)
            heads = learned(labels, seen, seed)
        policy, log = trained(heads, policy, start, 100 * number + seed, UPDATES // ROUNDS, log)
    return measured(policy, heads, log, labels, seed)


def one_seed(seed: int, wanted: Sequence[str], errors: Errors) -> dict[str, dict[str, float]]:
    """The start and the arms that are wanted."""
    generator = torch.Generator().manual_seed(seed)
    start = reference(generator)
    seen = sample(start, 2000, generator)
    arms: dict[str, Callable[[], dict[str, float]]] = {
        "at once": lambda: at_once(start, seen, seed, errors, KL_COEF),
        "at once, KL 0.1": lambda: at_once(start, seen, seed, errors, HIGHER_KL),
        "rounds": lambda: in_rounds(start, seen, seed, errors),
        **{f"rounds, {name}": partial(in_rounds, start, seen, seed, errors, rule) for name, rule in RULES.items()},
    }
    return {"start": {"true reward": float(seen.gold().mean())}, **{name: arms[name]() for name in wanted}}


DIFFERENCES = {
    "rounds minus at once": ("rounds", "at once", "true reward"),
    "rounds minus the best of at once on the way": ("rounds", "at once", "best true reward on the way"),
    "rounds minus at once, KL 0.1": ("rounds", "at once, KL 0.1", "true reward"),
    "active minus random": ("rounds, active", "rounds", "true reward"),
    "smallest gap minus random": ("rounds, smallest gap", "rounds", "true reward"),
    "largest gap minus random": ("rounds, largest gap", "rounds", "true reward"),
    "smallest gap minus active": ("rounds, smallest gap", "rounds, active", "true reward"),
    "active minus at once": ("rounds, active", "at once", "true reward"),
}
"""Of the first arm's true reward and a number of the second one's."""


def summary(seeds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Means and standard deviations of each arm that was run, and paired differences with their intervals over seeds."""
    arms = {
        name: {
            key: [statistics.fmean(seed[name][key] for seed in seeds), statistics.stdev(seed[name][key] for seed in seeds)]
            for key in seeds[0][name]
        }
        for name in ARMS
        if name in seeds[0]
    }
    found = {
        what: paired_bootstrap([seed[new]["true reward"] - seed[old][key] for seed in seeds])
        for what, (new, old, key) in DIFFERENCES.items()
        if new in arms and old in arms
    }
    return {"arms": arms, **{what: {"mean": one.mean, "low": one.low, "high": one.high} for what, one in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--panel", choices=list(PANELS), default="flat", help="flat: errs on a quarter of all pairs; close: more on close ones"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="these alone; the others are taken from the results")
    chosen_options = parser.parse_args()
    results = RESULTS[chosen_options.panel]
    before: dict[str, Any] = {"by seed": [], "seconds": 0}
    if len(chosen_options.arms) < len(ARMS) and results.exists():
        before = json.loads(results.read_text(encoding="utf-8"))
    known = before["by seed"]
    torch.set_num_threads(1)
    began = time.process_time()
    found: list[dict[str, dict[str, float]]] = []
    for seed in range(chosen_options.first_seed, chosen_options.first_seed + chosen_options.seeds):
        found.append({**(known[seed] if known else {}), **one_seed(seed, chosen_options.arms, PANELS[chosen_options.panel])})
        told = ", ".join(f"{name} {values['true reward']:.2f}" for name, values in found[-1].items())
        print(f"seed {seed}: {told}   ({time.process_time() - began:.0f} s)", flush=True)
    about = {
        "rounds": ROUNDS, "labels a round": LABELS, "panel": chosen_options.panel, "noise": NOISE if chosen_options.panel == "flat" else None, "updates": UPDATES, "kl_coef": KL_COEF, "seeds": len(found),
        "seconds": before["seconds"] + round(time.process_time() - began),
    }  # fmt: skip
    report = {"schema": 1, **about, **summary(found), "by seed": found}
    results.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "by seed"}, indent=1))


if __name__ == "__main__":
    main()
