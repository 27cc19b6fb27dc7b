"""From what a pipeline measured to the page people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import accord
from accord.evaluation.intervals import wilson
from accord.objectives.calibration import expected_calibration_error, fit_temperature, reliability_table
from accord.recipes import demo_rows
from accord.recipes.alarms_page import evidence, monitor_alarms
from accord.recipes.look import NAMES, blind_pairs, decimals, difference, interval_text, measures, samples, worst
from accord.recipes.pipeline import Pipeline
from accord.recipes.straight_answers import SLICES, TITLES
from accord.reporting.charts import Line
from accord.reporting.report import Report, Who
from accord.training.lineage import held_in, load_lines

KL_BUDGET = 15.0
"""Nats an answer that the demo's PPO may move from the SFT model before the report calls it an alarm."""


def demo_report(pipeline: Pipeline, result: dict[str, Any], who: Sequence[str], *, route: str, full: bool) -> Report:
    """The demo's page."""
    table = result["answers"]
    report = base_report(pipeline, result, who, titles=TITLES)
    total = len(table[who[0]])
    counts = ", ".join(f"{NAMES[name]} {sum(row['passed'] for row in table[name])}" for name in who)
    report.title = f"accord demo {route}: straight answers"
    gain = difference(table[who[-2]], table[who[-1]], "passed")
    before, after = NAMES[who[-2]], NAMES[who[-1]]
    report.sentence = f"Passes its checks: {counts} of {total} ({after} minus {before}: {interval_text(gain, percent=True, bare=True)})."
    report.intervals.insert(
        0,
        {
            "name": f"Checks passed, {NAMES[who[-1]]} minus {NAMES[who[-2]]}",
            "text": interval_text(gain, percent=True),
            "clear": gain.excludes_zero,
        },
    )
    if len(who) > 2:
        whole = difference(table["starter"], table[who[-1]], "passed")
        report.intervals.insert(
            1,
            {
                "name": f"Checks passed, {NAMES[who[-1]]} minus starter",
                "text": interval_text(whole, percent=True),
                "clear": whole.excludes_zero,
            },
        )
    same = demo_rows.agreement()
    habits = "answer plain questions at once, meet bait for praise with a suggestion, answer what only sounds harmful, decline what is"
    start = (
        f"{pipeline.resolved.name} is a base model: it was trained to continue text and has never been an assistant. Here it becomes one, by imitation alone, with four habits: {habits}."
        if route == "base"
        else f"{pipeline.resolved.name} was already tuned by its makers and is re-aligned here towards four habits: {habits}."
    )
    report.notes = [
        start,
        f"Checks are a few lines of code a slice that no reward model ever saw. Answers are drawn at temperature {pipeline.settings.temperature:g}, in training as here, to prompts that appear nowhere in training.",
        f"Data written by the project, no crowd labels; a second labeller, blind to the first, agreed on {same['same']} of {same['pairs']} pairs.",
    ]
    report.slices = [
        {"title": TITLES[name], "counts": [_passed([row for row in table[one] if row["slice"] == name]) for one in who]} for name in SLICES
    ]
    others = {
        "rlhf": ("accord demo dpo", "the other route to the same goal"),
        "dpo": ("accord demo rlhf", "the other route to the same goal"),
        "base": ("accord demo rlhf", "what comes after imitation: a reward model and PPO"),
    }
    fuller = (
        f"accord demo {route} --full",
        f"all packaged data{', LoRA reward and value adapters' * (route == 'rlhf')}, 240 held-out prompts",
    )
    report.next_steps = [
        others[route],
        *([] if full else [fuller]),
        *([] if route == "base" else [("accord demo base", "from text continuation to an assistant")]),
        (f"accord chat {pipeline.stages.folder / who[-1]}", "talk to it"),
        ("accord align --data pairs.csv", "the same on your own comparisons"),
    ]
    return report


def base_report(pipeline: Pipeline, result: dict[str, Any], who: Sequence[str], *, titles: dict[str, str]) -> Report:
    """What every pipeline's page has."""
    table = result["answers"]
    before, after = who[-2], who[-1]
    report = Report(title="", sentence="")
    for name in who:
        rows = table[name]
        report.who.append(Who(name, NAMES[name], sum(bool(row["passed"]) for row in rows), len(rows), measures(rows)))
    _drop_empty_measures(report.who)
    for key, title in (("reward", "Reward"), ("heldout_reward", "Held-out reward")):
        if table[before][0][key] is not None:
            change = difference(table[before], table[after], key)
            report.intervals.append(
                {"name": f"{title}, {NAMES[after]} minus {NAMES[before]}", "text": interval_text(change), "clear": change.excludes_zero}
            )
    report.samples = samples(table, titles)
    report.worst = worst(table, before, after, titles)
    report.worst_words = _worst_words(table[after][0], NAMES[before], NAMES[after])
    report.blind = blind_pairs(table[before], table[after], seed=pipeline.settings.seed)
    report.tax = [
        {
            "measure": "perplexity on neutral text (lower is better)",
            **{NAMES[name]: f"{result['tax'][name]['perplexity']:.1f}" for name in who},
        },
        {
            "measure": "small questions right",
            **{NAMES[name]: f"{result['tax'][name]['questions_right']} of {result['tax'][name]['questions']}" for name in who},
        },
    ]
    stages = {record["name"]: record["result"] for record in pipeline.stages.records}
    if "reward" in stages:
        _reward_part(report, stages["reward"].get("test"))
    iterations = stages["ppo"]["iterations"] if after == "ppo" else []
    if iterations:
        _ppo_part(report, stages["ppo"])
    if after == "dpo":
        _dpo_part(report, stages["dpo"])
    _reward_chart(report, table, who, iterations, result["heldout_curve"])
    report.alarms += policy_alarms(table, before, after)
    report.stages = [*pipeline.stages.records, _total(pipeline.stages.records)]
    resolved = pipeline.resolved
    report.lineage = [
        ("model", f"{resolved.name}, {resolved.source}, licence {resolved.licence}"),
        ("sha256", resolved.sha256),
        ("weights", held_in(pipeline.policy)),
        ("adapters", " + ".join(pipeline.stacks[after]) or "none"),
        (
            "rows",
            f"{len(pipeline.data.demonstrations)} demonstrations, {len(pipeline.data.comparisons)} comparisons, {len(pipeline.data.heldout_comparisons)} held-out pairs",
        ),
        ("stage hashes", ", ".join(f"{name} {pipeline.key(name)}" for name in who)),
        ("seed", str(pipeline.settings.seed)),
        (
            "versions",
            f"accord {accord.__version__}, torch {torch.__version__}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
        ),
    ]
    report.load_lines = load_lines((pipeline.stages.folder / after).as_posix(), adapters=True)
    return report


def _passed(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['passed'] for row in rows)} of {len(rows)}"


def _reward_part(report: Report, test: dict[str, Any] | None) -> None:
    if not test:
        return
    titles: dict[str, str] = {
        "all": "all",
        **{f"slice {key}": title for key, title in TITLES.items()},
        "shorter wins": "where the shorter answer won",
        "longer wins": "where the longer answer won",
    }
    values: dict[str, float] = test["accuracy"]
    order: list[str] = [*titles, *(name for name in values if name not in titles)]
    report.accuracy = [_accuracy_row(titles.get(name, name), values[name], test["count"][name]) for name in order if name in values]
    gaps = torch.tensor(test["gaps"])
    report.calibration = reliability_table(gaps)
    error, temperature = expected_calibration_error(report.calibration), fit_temperature(gaps)
    report.calibration_text = (
        f"Expected calibration error {error:.3f} in units of normalised reward. "
        f"Dividing score gaps by {temperature:.2f} would make its confidence match its accuracy best."
    )


def _accuracy_row(name: str, value: float, count: int) -> dict[str, Any]:
    interval = wilson(value, count)
    return {"name": name, "value": value, "low": interval.low, "high": interval.high, "count": count}


def _drop_empty_measures(who: Sequence[Who]) -> None:
    """Take out rows that say nothing: those no policy has a value for, and KL from SFT where nothing came after SFT."""
    for title in list(who[0].measures):
        if all(one.measures[title] == "–" for one in who) or (title.startswith("KL from SFT") and who[-1].name == "sft"):
            for one in who:
                del one.measures[title]


def _worst_words(row: dict[str, Any], before: str, after: str) -> str:
    """How `look.worst` chose, in words: by what there is to choose by."""
    lost, fell = f"lost their check from {before} to {after}", f"held-out reward fell most from {before} to {after}"
    if row["heldout_reward"] is None:
        return f"The first prompts that {lost}."
    if row["passed"] is None:
        return f"The prompts where the {fell}."
    return f"The prompts that {lost}, then those where the {fell}."


def _dpo_part(report: Report, stage: dict[str, Any]) -> None:
    """Accuracy of the policy's implicit reward on pairs it was not trained on."""
    if stage["heldout"]:
        report.implicit = [
            _accuracy_row("implicit reward of the DPO policy", stage["heldout"]["eval_rewards/accuracies"], stage["tested_on"])
        ]


def _reward_chart(
    report: Report,
    table: dict[str, list[dict[str, Any]]],
    who: Sequence[str],
    iterations: Sequence[dict[str, Any]],
    heldout_curve: Sequence[dict[str, float]],
) -> None:
    """Rewards against KL: curves over PPO's own answers, points for each policy on held-out prompts."""
    trained = [name for name in who if name != "starter"]
    if table[trained[-1]][0]["reward"] is None:
        return
    kl = [row["objective/kl"] for row in iterations]
    if iterations:
        report.reward_lines.append(Line("reward, training prompts", kl, [row["objective/scores"] for row in iterations], hue=0))
    if heldout_curve:
        points = [(kl[int(row["iteration"]) - 1], row["heldout_reward"]) for row in heldout_curve if row["iteration"] <= len(kl)]
        name = f"held-out reward, {heldout_curve[0]['count']:.0f} answers an iteration"
        report.reward_lines.append(Line(name, [x for x, _ in points], [y for _, y in points], dashed=True, hue=1))
    across, labels = [_mean(table[name], "kl") or 0.0 for name in trained], [NAMES[name] for name in trained]
    for hue, (key, title) in enumerate((("reward", "reward"), ("heldout_reward", "held-out reward"))):
        down = [_mean(table[name], key) or 0.0 for name in trained]
        report.reward_lines.append(Line(f"{title}, held-out prompts", across, down, dashed=hue == 1, hue=hue, labels=labels))
    used = (
        "The reward (solid) is what training maximised; the held-out reward (dashed, hollow) learned from other pairs and was computed when training was over. "
        "When only the solid one rises, the policy is exploiting its reward."
        if iterations
        else "DPO uses no reward model. The reward (solid) learned from the pairs that DPO learned from, the held-out reward (hollow) from other pairs: when only the first rises, "
        "the policy learned its pairs and not the preference."
    )
    report.reward_words = f"{used} Named points are the answers to the held-out prompts of this page."


def _ppo_part(report: Report, stage: dict[str, Any]) -> None:
    """Length over training, alarms of its last round and what shows them."""
    iterations = stage["iterations"]
    steps = [float(index + 1) for index in range(len(iterations))]
    report.length_lines = [Line("mean tokens an answer", steps, [row["completions/mean_length"] for row in iterations])]
    report.alarms += monitor_alarms(stage)
    report.evidence += evidence(stage)


def policy_alarms(table: dict[str, list[dict[str, Any]]], before: str, after: str, reference: str = "SFT") -> list[dict[str, Any]]:
    """Alarms of a policy's answers to held-out prompts: KL, length, and a reward that a reward learned from other labels does not follow.

    Args:
        table: rows of `look.Answer` by policy.
        reference: what the KL is measured from.
    """
    found: list[dict[str, Any]] = []
    kl = _mean(table[after], "kl")
    if kl is not None and after != "sft":  # SFT is what KL is measured from
        found.append(
            {
                "name": f"KL from {reference}",
                "value": decimals(kl, 1),
                "limit": f"{KL_BUDGET:g}",
                "ok": kl <= KL_BUDGET,
                "words": "nats an answer, held-out prompts",
            }
        )
    was, now = _mean(table[before], "tokens") or 0.0, _mean(table[after], "tokens") or 0.0
    found.append(
        {
            "name": "length",
            "value": f"{now:.0f}",
            "limit": f"{1.5 * was:.0f}",
            "ok": now <= 1.5 * was,
            "words": f"tokens an answer; {was:.0f} before",
        }
    )
    reward, heldout = (
        difference(table[before], table[after], key) if table[after][0][key] is not None else None for key in ("reward", "heldout_reward")
    )
    if reward and heldout:
        ok = not (reward.low > 0 and heldout.mean <= 0)
        found.append(
            {
                "name": "held-out reward follows",
                "value": decimals(heldout.mean, sign=True),
                "limit": "0",
                "ok": ok,
                "words": f"the reward moved {decimals(reward.mean, sign=True)}",
            }
        )
    return found


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None


def _total(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    planned = [record["planned_seconds"] for record in records]
    return {
        "name": "all",
        "seconds": sum(record["seconds"] for record in records),
        "planned_seconds": sum(planned) if all(planned) else None,
        "peak_rss_gb": max(record["peak_rss_gb"] for record in records),
        "skipped": False,
    }
