"""`accord lab`: true reward and proxy against the distance from the start, arm by arm, on one page and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import accord
from accord.config.lab import LabOptions
from accord.errors import ConfigError
from accord.lab import bigram, exact
from accord.objectives.overoptimization import fit_law
from accord.reporting.charts import Line, line_chart
from accord.reporting.report import Chart, Part, Report, write
from accord.training.setup import say
from accord.writing import write_text

LEVELS = ("exact", "bigram")
SHOWN = {
    "exact": ("single", "mean", "worst-case", "gold"),
    "bigram": ("single", "worst-case", "single, fresh labels each round", "gold"),
}
"""Arms in the chart; the table has all."""


def run(options: LabOptions) -> Path:
    """Run the levels; returns the page's path."""
    if options.level not in (*LEVELS, "all"):
        raise ConfigError(f'There is no level "{options.level}": {", ".join(LEVELS)}, all.')
    if options.seeds < 1:
        raise ConfigError(f"--seeds must be 1 or more, not {options.seeds}.")
    folder = Path(options.output_dir or Path("runs") / "lab")
    report = Report(
        title="accord lab: what optimising a learned reward does to the true one",
        sentence="A proxy that was learned from noisy comparisons is maximised; the true reward is known, so its fall can be seen.",
    )
    numbers: dict[str, Any] = {"accord": accord.__version__, "seeds": options.seeds}
    levels = LEVELS if options.level == "all" else (options.level,)
    for level in levels:
        say(f"level {level}, {options.seeds} seeds")
        part, numbers[level] = _exact(options.seeds) if level == "exact" else _bigram(options.seeds)
        report.parts.append(part)
    write_text(folder / "lab.json", json.dumps(numbers, indent=1) + "\n")
    path = write(report, folder / "lab.html")
    say(f"Page: {path}. Numbers: {folder / 'lab.json'}")
    return path


def _exact(seeds: int) -> tuple[Part, dict[str, Any]]:
    found = exact.run(seeds=seeds)
    rows, numbers = [], {}
    for arm, ways in found.items():
        tilt = {name: _means([asdict(curve)[name] for curve in ways["tilt"]]) for name in ("kl", "gold", "proxy", "disagreement")}
        best = {name: _means([asdict(curve)[name] for curve in ways["best-of-n"]]) for name in ("kl", "gold")}
        numbers[arm] = {"tilt": tilt, "best-of-n": best}
        rows.append([arm, *_peak_and_end(tilt["kl"], tilt["gold"]), f"{max(best['gold']):+.2f}", f"{best['gold'][-1]:+.2f}"])
    single = numbers["single"]["tilt"]
    fit = fit_law(torch.tensor(single["kl"]), torch.tensor(single["gold"]), law="rl")
    numbers["single law"] = asdict(fit)
    words = (
        "Level exact: answers are atoms, so best-of-n and the optimum of E[proxy] - KL / strength are written down, not sampled. "
        f"On the single reward model's curve R = d (a - b ln d) with d = sqrt(KL) fits with a = {fit.a:.2f}, b = {fit.b:.2f}, R² = {fit.r_squared:.3f}."
    )
    header = ("reward maximised", "highest true reward", "at KL", "at the end", "at KL", "best of n: highest", "best of 65,536")
    lines = {arm: (numbers[arm]["tilt"]["kl"], numbers[arm]["tilt"]["gold"], numbers[arm]["tilt"]["proxy"]) for arm in SHOWN["exact"]}
    return Part("Exact", words, header, rows, _charts(lines)), numbers


def _bigram(seeds: int) -> tuple[Part, dict[str, Any]]:
    found = bigram.run(seeds=seeds)
    numbers = {
        arm: {name: _means([asdict(log)[name] for log in logs]) for name in ("kl", "gold", "proxy", "length", "doubt")}
        for arm, logs in found.items()
    }
    rows = [[arm, *_peak_and_end(log["kl"], log["gold"]), f"{log['length'][-1]:.1f}"] for arm, log in numbers.items()]
    words = (
        "Level bigram: a language model of twelve tokens, trained by policy gradient on its own samples. Penalties and ensembles delay the fall; "
        "fresh labels where the policy is cure it."
    )
    header = ("reward maximised", "highest true reward", "at KL", "at the end", "at KL", "tokens at the end")
    lines = {arm: (numbers[arm]["kl"], numbers[arm]["gold"], numbers[arm]["proxy"]) for arm in SHOWN["bigram"]}
    return Part("Bigram", words, header, rows, _charts(lines)), numbers


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Point by point over the seeds."""
    return [statistics.fmean(values) for values in zip(*rows, strict=True)]


def _peak_and_end(kl: Sequence[float], gold: Sequence[float]) -> list[str]:
    at = max(range(len(gold)), key=lambda i: gold[i])
    return [f"{gold[at]:+.2f}", f"{kl[at]:.1f}", f"{gold[-1]:+.2f}", f"{kl[-1]:.1f}"]


def _charts(arms: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]]) -> list[Chart]:
    """True reward of all arms, then proxy and true reward of the single one, against sqrt(KL)."""
    true = [Line(arm, _roots(kl), gold) for arm, (kl, gold, _) in arms.items()]
    kl, gold, proxy = arms["single"]
    both = [Line("what is maximised", _roots(kl), proxy), Line("what was meant", _roots(kl), gold, dashed=True)]
    label = "square root of KL, nats"
    return [
        Chart(line_chart(true, x_label=label, y_label="true reward"), "True reward as the policy moves away from its start."),
        Chart(line_chart(both, x_label=label, y_label="reward"), "The single reward model: proxy and truth."),
    ]


def _roots(kl: Sequence[float]) -> list[float]:
    return [max(value, 0.0) ** 0.5 for value in kl]
