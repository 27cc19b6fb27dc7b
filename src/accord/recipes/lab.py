"""`accord lab`: true reward and proxy against the distance from the start, arm by arm, on one page and as JSON."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import accord
from accord.config.lab import LabOptions
from accord.errors import ConfigError
from accord.lab import bigram, exact, model
from accord.objectives.overoptimization import fit_law
from accord.recipes import demo_rows
from accord.recipes.stages import Stages
from accord.reporting.charts import Line, line_chart
from accord.reporting.report import Chart, Part, Report, write
from accord.training.setup import say
from accord.writing import write_text

LEVELS = ("exact", "bigram")
"""Those of `all`; the third, model, takes hours."""
OFTEN = ("single", "worst-case")
"""Arms of level model that run with every seed; the others run once."""
SMOOTH = 3
"""Rounds of level model whose mean is taken for a height: one is noisy."""
PLAN_SECONDS = 840
SHOWN = {
    "exact": ("single", "mean", "worst-case", "gold"),
    "bigram": ("single", "worst-case", "single, fresh labels each round", "gold"),
    "model": ("single", "worst-case", "single, fresh labels", "gold"),
}
"""Arms in the chart; the table has all."""


def run(options: LabOptions, world: model.World | None = None) -> Path:
    """Run the levels; returns the page's path. world: sizes of level model, other than its own."""
    if options.level not in (*LEVELS, "model", "all"):
        raise ConfigError(f'There is no level "{options.level}": {", ".join(LEVELS)}, model, all.')
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
        if level == "model":
            part, numbers[level] = _model(options, folder / "model", world or model.World())
        else:
            part, numbers[level] = (_exact if level == "exact" else _bigram)(options.seeds)
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


def _model(options: LabOptions, folder: Path, world: model.World) -> tuple[Part, dict[str, Any]]:
    """Level model, arm by arm; what is there is not made again."""
    names = list(model.ARMS) if options.arms is None else [name.strip() for name in options.arms.split(";")]
    for name in names:
        if name not in model.ARMS:
            raise ConfigError(f'--arms: there is no arm "{name}". There are: {"; ".join(model.ARMS)}.')
    rows = [row for row in demo_rows.heldout_prompts() if row.columns["slice"] == "safe"]
    stages = Stages(folder, say)
    numbers: dict[str, Any] = {}
    for seed in range(options.seeds):
        for name in names:
            if seed and name not in OFTEN:
                continue
            arm = model.ARMS[name]
            inputs = {"world": asdict(world), "arm": asdict(arm), "seed": seed, "prompts": [row.id for row in rows]}

            def work(place: Path, _: bool, arm: model.Arm = arm, seed: int = seed) -> dict[str, Any]:
                shutil.rmtree(place / "run", ignore_errors=True)
                return model.run(world, arm, seed, place / "run", rows)

            found = stages.run(f"{name}, seed {seed}", inputs, work, planned_seconds=PLAN_SECONDS)
            numbers.setdefault(name, []).append({"seed": seed, **found})
    return model_part(numbers), numbers


def model_part(numbers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Part:
    """What level model found, as a part of the page."""
    rows, lines = [], {}
    for name, runs in numbers.items():
        for run in runs:
            smooth = {key: smoothed([one[key] for one in run["rounds"]]) for key in ("gold", "proxy", "kl", "words")}
            first = run["alarms"][0] if run["alarms"] else None
            rows.append(
                [
                    f"{name}, seed {run['seed']}",
                    f"{run['rounds'][0]['gold']:+.2f}",
                    *_peak_and_end(smooth["kl"], smooth["gold"]),
                    f"{smooth['proxy'][-1]:+.2f}",
                    f"{smooth['words'][-1]:.0f}",
                    f"round {first['iteration']}, {first['cause']}" if first else "none",
                ]
            )
            if name in SHOWN["model"] and name not in lines:
                lines[name] = (smooth["kl"], smooth["gold"], smooth["proxy"])
    words = (
        "Level model: a real language model practises with PPO; the heads that it is paid by read its own frozen features and have learned from noisy "
        f"comparisons of the start's answers. Heights are means of {SMOOTH} rounds."
    )
    header = (
        "reward maximised",
        "true reward: start",
        "highest",
        "at KL",
        "at the end",
        "at KL",
        "proxy at the end",
        "words",
        "first alarm",
    )
    return Part("Model", words, header, rows, _charts(lines) if "single" in lines else [])


def smoothed(values: Sequence[float]) -> list[float]:
    """Means of `SMOOTH` rounds, the first of fewer."""
    return [statistics.fmean(values[max(0, n - SMOOTH + 1) : n + 1]) for n in range(len(values))]


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
