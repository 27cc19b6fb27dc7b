"""The page of a project's rounds: labels, agreement, reward accuracy on every round's held-out pairs, policies, new against old, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import accord
from accord.annotation.accuracies import Measured
from accord.annotation.learning_curve import ceiling, labels_to_go
from accord.annotation.outlook import TARGET
from accord.annotation.panel import panel
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.config.options import AlignOptions
from accord.config.rounds import RoundsOptions
from accord.evaluation.intervals import Interval, paired_bootstrap, wilson
from accord.models.opened import Opened
from accord.recipes.alarms_page import monitor_alarms
from accord.recipes.look import decimals, interval_text, measures
from accord.recipes.report_page import policy_alarms
from accord.recipes.sittings import Counts, WinRate, counts, still_wanted, told_counts, win_rate
from accord.reporting.charts import Line, interval_rows, line_chart
from accord.reporting.report import Chart, Part, Report, Sample, Who, write
from accord.training.lineage import held_in, load_lines

SAMPLES = 8
"""Held-out prompts shown with every policy's answer."""


@dataclass(frozen=True)
class RoundResult:
    """What a round learned."""

    number: int
    snapshot: str
    """Hash of the labels it learned from."""
    stages: dict[str, Any]
    """Result of each stage by name."""
    test: list[tuple[int, float]]
    """For each held-out pair the round it was judged in, and by how much the reward model puts the preferred answer first."""
    older: dict[int, list[float]]
    """The same gaps of each earlier round's reward model, on the pairs that this round judged."""
    looked: dict[str, Any]
    """`answers` by policy (start, old, new) as rows of `look.Answer`, with `judged` where a judge scored them; `alike`: equal ones."""
    arms: dict[str, Any] | None
    """`labels` of each arm that two reward models learned from, and their `gaps` on the held-out pairs."""
    records: Sequence[dict[str, Any]]
    """Of its stages, for time and memory."""

    def answers(self, who: str) -> list[dict[str, Any]]:
        """Rows of one policy."""
        return self.looked["answers"][who]


@dataclass(frozen=True)
class Standing:
    """What the page is about."""

    project: Project
    store: Store
    options: AlignOptions
    rounds: RoundsOptions
    opened: Opened
    who: str
    """Who judges, in words."""
    folder: Path
    """Of the runs."""


Row = tuple[RoundResult, Counts, WinRate | None]


def write_page(path: Path, standing: Standing, results: Sequence[RoundResult]) -> str:
    """Write the page as things stand; returns its first sentence."""
    store = standing.store
    rows = [(result, counts(store, result.number), win_rate(store, result.number, result.looked["alike"])) for result in results]
    report = Report(title=f"accord align: rounds of {standing.project.folder.name}", sentence=sentence(rows, store))
    report.notes = _notes(standing, len(results))
    report.next_steps = _next_steps(standing, results)
    report.lineage = _lineage(standing, results)
    if results:
        report.parts = [_rounds_part(rows, store), _won_part(rows), _trust_part(results, store), _policies_part(results)]
        report.parts += [_arms_part(result) for result in results if result.arms]
        _policies(report, results)
        report.alarms += _won_alarms(rows)
        report.stages = [{**record, "name": f"round {result.number}, {record['name']}"} for result in results for record in result.records]
        report.load_lines = load_lines(_run(standing, results[-1].number).as_posix(), adapters=True)
    write(report, path)
    return report.sentence


def sentence(rows: Sequence[Row], store: Store) -> str:
    """The newest comparison that somebody made, or where the rounds stand."""
    for result, _, won in reversed(rows):
        if won is not None:
            old = f"round {result.number - 1}" if result.number > 1 else "the start"
            return f"Round {result.number} wins {rate_text(won.interval)} against {old}, ties half."
    stands = store.progress()
    return f"Sitting {stands.round}: {stands.answers} answers are in, {still_wanted(store, stands.round)} are wanted."


def rate_text(interval: Interval) -> str:
    """`62 % of 40 blind comparisons (47 to 75 %)`."""
    return f"{100 * interval.mean:.0f} % of {interval.count} blind comparisons ({100 * interval.low:.0f} to {100 * interval.high:.0f} %)"


def _notes(standing: Standing, done: int) -> list[str]:
    options, rounds, store = standing.options, standing.rounds, standing.store
    wanted = still_wanted(store, store.progress().round) if rounds.feedback == "people" else 0
    share = standing.project.settings.random_share
    chosen = (
        f"From the second round on, double Thompson sampling over the reward model's heads chose the pairs, chance {100 * share:g} % of them."
        if rounds.select == "active"
        else "Chance chose all pairs."
    )
    goes_on = "starts anew from the model that was given" if options.method == "dpo" else "goes on from the one before"
    return [
        f"Labels come from {standing.who}. {done} of {rounds.rounds} rounds have learned, from {rounds.labels} pairs each.",
        *([f"{wanted} answers are wanted now."] if wanted else []),
        f"Each round's reward model learns anew from every label so far; its policy ({options.method.upper()}) {goes_on}. {chosen} "
        "Accuracies and win rates are of held-out prompts and of pairs that chance chose; a win rate's sides are shuffled and unnamed.",
    ]


def _next_steps(standing: Standing, results: Sequence[RoundResult]) -> list[tuple[str, str]]:
    folder = standing.project.folder
    found = [(f"accord annotate {folder}", "judge what is asked now")] if standing.rounds.feedback == "people" else []
    if results:
        run = _run(standing, results[-1].number)
        found += [(f"accord chat {run}", "talk to the newest policy"), (f"accord export {run} --to my-model", "one ordinary model folder")]
    return [*found, (f"accord project snapshot {folder}", "freeze the labels for other training")]


def _run(standing: Standing, number: int) -> Path:
    return standing.folder / f"round-{number}" / standing.options.method


def _lineage(standing: Standing, results: Sequence[RoundResult]) -> list[tuple[str, str]]:
    resolved = standing.opened.resolved
    threads = torch.get_num_threads()
    return [
        ("model", f"{resolved.name}, {resolved.source}, licence {resolved.licence}"),
        ("sha256", resolved.sha256),
        ("weights", held_in(standing.opened.policy)),
        ("adapters it was given with", " + ".join(standing.opened.stack) or "none"),
        *((f"labels of round {result.number}", f"snapshot {result.snapshot[:16]}") for result in results),
        ("seed", str(standing.options.seed)),
        ("versions", f"accord {accord.__version__}, torch {torch.__version__}, {threads} thread{'s' * (threads > 1)}"),
    ]


# -- parts ----------------------------------------------------------------------------------------------------------------------------


def _rounds_part(rows: Sequence[Row], store: Store) -> Part:
    """A row a round."""
    header = ("round", "labels", "ties", "agreement", "reward accuracy", "KL", "tokens", "wins against the one before")
    table: list[list[str]] = []
    words: list[str] = []
    for result, count, won in rows:
        judged = panel(store, result.number)
        alpha = judged.alpha.value
        share = accuracy(result.test)
        new = result.answers("new")
        table.append(
            [
                str(result.number),
                _labels_text(count),
                str(count.ties),
                "–" if alpha is None else f"alpha {alpha:.2f}",
                "–" if share is None else f"{share.mean:.2f} ({share.low:.2f} to {share.high:.2f})",
                decimals(_mean(new, "kl"), 1),
                decimals(_mean(new, "tokens"), 0),
                "–"
                if won is None
                else f"{100 * won.interval.mean:.0f} % ({100 * won.interval.low:.0f} to {100 * won.interval.high:.0f} %)",
            ]
        )
        words = list(judged.words) if alpha is not None else words
    told = " ".join(words)
    return Part("Rounds", f"KL in nats an answer from the start, tokens an answer, both on held-out prompts. {told}".strip(), header, table)


def _labels_text(count: Counts) -> str:
    """`80 simulated, 45 by the rule, 2 skipped`."""
    more = [f"{number} {what}" for number, what in ((count.selected, "by the rule"), (count.skipped, "skipped")) if number]
    return ", ".join([told_counts(count.sources) or "none", *more])


def _won_part(rows: Sequence[Row]) -> Part:
    """New against old."""
    judged = [(result.number, won) for result, _, won in rows if won is not None]
    table = [
        [
            f"round {number} against {f'round {number - 1}' if number > 1 else 'the start'}",
            f"{won.wins:g}",
            f"{won.ties:g}",
            f"{won.losses:g}",
            str(won.alike),
            f"{won.interval.mean:.2f}",
            f"{won.interval.low:.2f} to {won.interval.high:.2f}",
        ]
        for number, won in judged
    ]
    chart = interval_rows(
        [(f"round {number}", won.interval.mean, won.interval.low, won.interval.high) for number, won in judged],
        label="win rate against the round before, ties half",
    )
    words = (
        "One answer of each to the same held-out prompts, judged by whoever judges the labels. Equal answers are ties that nobody is asked."
    )
    header = ("", "won", "tied", "lost", "equal answers", "win rate", "95 % interval")
    return Part(
        "New against old", words, header, table, [Chart(chart, "At 0.5 the new policy is as good as the old one.")] if judged else []
    )


def _won_alarms(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A policy that clearly loses to the one before it."""
    return [
        {
            "name": f"round {result.number}: wins against the one before",
            "value": f"{100 * won.interval.mean:.0f} %",
            "limit": "50 %",
            "ok": won.interval.high >= 0.5,
            "words": f"alarm where all of the interval ({100 * won.interval.low:.0f} to {100 * won.interval.high:.0f} %) is below",
        }
        for result, _, won in rows
        if won is not None
    ]


def _trust_part(results: Sequence[RoundResult], store: Store) -> Part:
    """Every reward model on every round's held-out pairs: a reward model that went stale shows on the rounds that came after it."""
    tests = _tests(results)
    judged = sorted({number for test in tests.values() for number, _ in test})
    table: list[list[str]] = []
    lines: list[Line] = []
    for maker, test in tests.items():
        cells = [accuracy([(number, gap) for number, gap in test if number == wanted]) for wanted in judged]
        table.append([f"reward model of round {maker}", *("–" if one is None else f"{one.mean:.2f} of {one.count}" for one in cells)])
    for wanted in judged:
        points = [(maker, accuracy([(number, gap) for number, gap in test if number == wanted])) for maker, test in tests.items()]
        known = [(float(maker), share.mean) for maker, share in points if share is not None]
        lines.append(Line(f"pairs of round {wanted}", [maker for maker, _ in known], [value for _, value in known]))
    chart = line_chart(lines, x_label="reward model of round", y_label="accuracy")
    newest = accuracy(results[-1].test)
    agreement = panel(store, results[-1].number).same_decided.value
    known_sizes = [(one.labels, one.accuracy) for one in measured_rewards(results, Path())]
    said = "" if newest is None else f" {ceiling(newest.mean, agreement).words} {labels_to_go(known_sizes, TARGET).words}"
    return Part(
        "Can the reward models be trusted?",
        "Share of held-out pairs where the reward model puts the preferred answer first, by the round in which they were judged. Pairs of later rounds are answers of "
        f"later policies: a reward model that went stale is right less often on them.{said}",
        ("", *(f"pairs of round {number}" for number in judged)),
        table,
        [Chart(chart, "Held-out pairs, by the round that judged them.")],
    )


def _tests(results: Sequence[RoundResult]) -> dict[int, list[tuple[int, float]]]:
    """By round its reward model on the held-out pairs of every round: for each the round that judged it, and the gap."""
    return {result.number: [*result.test, *_later(result.number, results)] for result in results}


def measured_rewards(results: Sequence[RoundResult], folder: Path) -> list[Measured]:
    """How often each round's reward model is right, all of them on the same held-out pairs.

    Args:
        folder: of the runs.
    """
    shares = {number: accuracy(test) for number, test in _tests(results).items()}
    learned = {result.number: int(result.stages["reward"]["pairs"]) for result in results}
    return [
        Measured(learned[number], share.mean, share.count, (folder / f"round-{number}" / "reward").as_posix())
        for number, share in shares.items()
        if share is not None
    ]


def _later(maker: int, results: Sequence[RoundResult]) -> list[tuple[int, float]]:
    """How a round's reward model did on the pairs of later rounds."""
    return [(result.number, gap) for result in results for gap in result.older.get(maker, [])]


def accuracy(test: Sequence[tuple[int, float]]) -> Interval | None:
    """Share of pairs with the preferred answer first (equal scores half) and its interval; None without pairs."""
    if not test:
        return None
    right = sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for _, gap in test)
    return wilson(right / len(test), len(test))


def _policies_part(results: Sequence[RoundResult]) -> Part:
    """How policies moved from round to round."""
    numbers = [float(result.number) for result in results]
    start = results[0].answers("start")
    charts = [
        Chart(
            line_chart(
                [Line("KL", numbers, [_mean(result.answers("new"), "kl") for result in results])], x_label="round", y_label="KL, nats"
            ),
            "How far each policy is from the start.",
        ),
        Chart(
            line_chart(
                [
                    Line(
                        "tokens", [0.0, *numbers], [_mean(start, "tokens"), *(_mean(result.answers("new"), "tokens") for result in results)]
                    )
                ],
                x_label="round, 0 is the start",
                y_label="tokens an answer",
            ),
            "A reward that can be had by talking longer shows here first.",
        ),
    ]
    if all(row.get("judged") is not None for result in results for row in (*result.answers("start"), *result.answers("new"))):
        values = [_mean(start, "judged"), *(_mean(result.answers("new"), "judged") for result in results)]
        chart = line_chart([Line("score", [0.0, *numbers], values)], x_label="round, 0 is the start", y_label="score")
        charts.insert(0, Chart(chart, "What the judge, or the truth behind the simulated panel, gives the answers to held-out prompts."))
    return Part("Policies", charts=charts)


def _arms_part(result: RoundResult) -> Part:
    """Two reward models from as many labels of each arm."""
    assert result.arms is not None
    gaps: dict[str, list[float]] = result.arms["gaps"]
    right = {name: [float(gap > 0) + 0.5 * (gap == 0) for gap in found] for name, found in gaps.items()}
    shares = {name: wilson(sum(found) / len(found), len(found)) for name, found in right.items()}
    change = paired_bootstrap([new - old for old, new in zip(right["random"], right["selected"], strict=True)])
    table = [[name, str(result.arms["labels"]), f"{one.mean:.2f}", f"{one.low:.2f} to {one.high:.2f}"] for name, one in shares.items()]
    words = (
        "Two reward models, from as many labels each of pairs that chance chose and of pairs that the rule chose, in the rounds that had both. Tested on held-out "
        f"pairs that chance chose: selected minus random {interval_text(change, percent=True, bare=True)}, {change.count} pairs."
    )
    return Part("What choosing the pairs brought", words, ("pairs chosen", "labels", "accuracy", "95 % interval"), table)


# -- policies -------------------------------------------------------------------------------------------------------------------------


def _policies(report: Report, results: Sequence[RoundResult]) -> None:
    """Detectors, alarms and samples of the start and of every round's policy."""
    policies = {"start": results[0].answers("start"), **{f"round {result.number}": result.answers("new") for result in results}}
    for name, rows in policies.items():
        report.who.append(Who(name, name, 0, len(rows), _measures(rows)))
    for title in list(report.who[0].measures):
        if all(one.measures[title] == "–" for one in report.who):
            for one in report.who:
                del one.measures[title]
    for result in results:
        table = {"start": result.answers("start"), "new": result.answers("new")}
        practised = next((stage for stage in result.stages.values() if "iterations" in stage), {})
        found = [*policy_alarms(table, "start", "new", "the start"), *monitor_alarms(practised)]
        report.alarms += [{**alarm, "name": f"round {result.number}: {alarm['name']}"} for alarm in found]
        if result.answers("new")[0].get("judged") is not None:
            report.intervals.append(_judged_interval(result))
    for index, row in enumerate(policies["start"][:SAMPLES]):
        answers = [
            {"who": name, "text": rows[index]["text"], "passed": None, "finished": rows[index]["finished"]}
            for name, rows in policies.items()
        ]
        report.samples.append(Sample(str(row["slice"]), row["prompt"], answers))


def _measures(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    found = measures(rows, "the start")
    # Each round has a reward model of its own: their scores are no one scale.
    del found["reward"], found["held-out reward"]
    if all(row.get("judged") is not None for row in rows):
        found["score of who judges"] = decimals(_mean(rows, "judged"))
    return found


def _judged_interval(result: RoundResult) -> dict[str, Any]:
    pairs = zip(result.answers("start"), result.answers("new"), strict=True)
    change = paired_bootstrap(
        [new["judged"] - old["judged"] for old, new in pairs if old.get("judged") is not None and new.get("judged") is not None]
    )
    name = f"Score of who judges, round {result.number} minus the start"
    return {"name": name, "text": interval_text(change), "clear": change.excludes_zero}


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else 0.0
