"""The kept results of `reasoning.py`, `instructions.py`, `grpo_curves.py` and `process_rewards.py` as tables and curves of docs/reasoning.md.

python benchmarks/reasoning_page.py             # prints the tables
python benchmarks/reasoning_page.py --write     # puts them into docs/reasoning.md and the curves into docs/images
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kept

from accord.reporting.charts import Line, line_chart

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "reasoning.md", ROOT / "docs" / "images"
WINDOW = 4
"""Steps of which a point of a curve is the mean."""
ARMS = {
    "starter": "the starter model", "direct": "SFT on answers without steps", "start": "SFT on 72 worked solutions: where every arm begins",
    "true": "GRPO, right or wrong", "best-of": "rejection sampling, as many sampled tokens as true:42", "random": "GRPO, coins",
    "format-only": "GRPO, the form alone",
}  # fmt: skip
"""What is done to the model, by the first part of a row's name."""
GAINED = ("gain", "seconds")


def named(name: str) -> str:
    """What a row says it is: `true:42` is GRPO, right or wrong, seed 42."""
    kind, _, seed = name.partition(":")
    return f"{ARMS[kind]}{f', seed {seed}' if seed else ''}"


def arms_table(results: dict[str, Any]) -> str:
    """Held-out answers that are right, and the gain over the start, of every arm."""
    rows = ["| model | right: %, 95 % interval, problems | gain over the start | seconds of training |", "|---|---|---|---|"]
    for name, found in results.items():
        if name.partition(":")[0] not in ARMS or "right" not in found:
            continue
        rows.append("| " + " | ".join((named(name), found["right"], *(str(found.get(key, "")) for key in GAINED))) + " |")
    if word_problems := results.get("SVAMP"):
        shares = "; ".join(f"{name} {found['right']}" for name, found in word_problems.items() if name != "gain")
        rows += ["", f"SVAMP (word problems of another kind, for which nothing was trained): {shares}; {word_problems['gain']}."]
    return "\n".join(rows)


def curves_table(found: dict[str, Any]) -> str:
    """Both libraries' mean rewards in each ten of forty steps."""
    summary = found["summary"]
    rows = ["| steps | accord | TRL 1.16 | difference |", "|---|---|---|---|"]
    means = summary["means of ten steps"]
    for place, (ours, theirs, difference) in enumerate(zip(means["accord"], means["trl"], summary["differences"], strict=True)):
        rows.append(f"| {10 * place + 1} to {10 * place + 10} | {ours:.3f} | {theirs:.3f} | {difference:+.3f} |")
    rise, verdict = summary["TRL's rise"], "within" if summary["within"] else "NOT within"
    return "\n".join((*rows, "", f"TRL's rise {rise:.3f}; margin {summary['margin']:.3f}: {verdict}."))


def process_table(found: dict[str, Any]) -> str:
    """How often the first error is found, beside judges that look at nothing."""
    rows = [
        "| solutions | first errors found, F1 | always right | random | of wrong solutions | of right ones |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("held-out steps", "ProcessBench GSM8K"):
        one = found[name]
        values = (one["f1"], one["f1 of always right"], one["f1 of random"], one["accuracy_erroneous"], one["accuracy_correct"])
        rows.append(
            f"| {name} ({one['erroneous']} wrong, {one['correct']} right) | " + " | ".join(f"{value:.2f}" for value in values) + " |"
        )
    return "\n".join(rows)


def choosing_table(found: dict[str, Any]) -> str:
    """How often each way to choose among sampled answers is right, and the differences with their intervals."""
    name = next(name for name in found if name.startswith("choosing among"))
    ways = {way: value for way, value in found[name].items() if isinstance(value, str)}
    gains = {way: value for way, value in found[name].items() if not isinstance(value, str)}
    rows = [f"| {name} | right |", "|---|---|", *(f"| {way} | {value} |" for way, value in ways.items()), ""]
    rows += ["| difference | points, 95 % interval over problems |", "|---|---|"]
    rows += [f"| {way} | {one['gain']}{'' if one['clear of zero'] else ', **not clear of zero**'} |" for way, one in gains.items()]
    return "\n".join(rows)


def labelled_table(found: dict[str, Any]) -> str:
    """How often what two judges choose is right, by the number of solutions that they learned from."""
    sizes = found["labelled solutions"]
    differences = ("best by process minus majority", "best by process minus best by outcome")
    ways = ("best by process", "best by outcome", "vote by process", "vote by outcome")
    rows = ["| labelled solutions | " + " | ".join((*ways, *differences)) + " |", "|---" * (1 + len(ways) + len(differences)) + "|"]
    for size, one in sizes.items():
        gains = [f"{one[name]['gain']}{'' if one[name]['clear of zero'] else ', **not clear of zero**'}" for name in differences]
        rows.append(f"| {size} | " + " | ".join((*(one[way] for way in ways), *gains)) + " |")
    return "\n".join(rows)


def filler_table(found: dict[str, Any]) -> str:
    """What ten filler steps add to each way to make one number of the steps."""
    name = next(name for name in found if name.endswith("filler steps add"))
    rows = [f"| {name} to | change, 95 % interval over solutions |", "|---|---|"]
    return "\n".join((*rows, *(f"| {way} | {change} |" for way, change in found[name].items())))


def smooth(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The last step and the mean of every `WINDOW` steps."""
    starts = range(0, len(values) - WINDOW + 1, WINDOW)
    return [float(i + WINDOW) for i in starts], [statistics.mean(values[i : i + WINDOW]) for i in starts]


def picture(results: dict[str, Any], key: str, label: str) -> str:
    """Curves of every arm that was practised, as a picture that stands alone."""
    hues = {"true": 0, "random": 1, "format-only": 2}
    lines = []
    for name, found in results.items():
        kind = name.partition(":")[0]
        if kind in hues and "run" in found:
            x, y = smooth(found["run"][key])
            lines.append(Line(named(name), x, y, dashed=kind != "true", hue=hues[kind]))
    drawn = line_chart(lines, x_label="optimizer steps of 64 sampled answers", y_label=label)
    return kept.standing(drawn)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def parts() -> dict[str, str]:
    """The tables of the page by the name of their place."""
    return {
        "arithmetic": arms_table(read("reasoning")),
        "instructions": arms_table(read("instructions")),
        "curves": curves_table(read("grpo_curves")),
        "process": process_table(read("process_rewards")),
        "choosing": choosing_table(read("process_rewards")),
        "labelled": labelled_table(read("process_rewards")),
        "filler": filler_table(read("process_rewards")),
    }


def written(page: str, tables: dict[str, str]) -> str:
    """The page with these tables between their marks."""
    for name, table in tables.items():
        page = kept.put(page, table, "reasoning_page.py", name)
    return page


def pictures() -> dict[str, str]:
    """The pictures of the page by file name."""
    return {
        "reasoning.svg": picture(read("reasoning"), "right", "share of sampled answers that are right"),
        "instructions.svg": picture(read("instructions"), "kept", "share of constraints kept"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables and curves into docs/")
    given = parser.parse_args()
    tables = parts()
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
        for name, drawn in pictures().items():
            (IMAGES / name).write_text(drawn, encoding="utf-8")
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
