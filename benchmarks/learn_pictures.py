"""The pictures of docs/learn, each drawn from what was measured: results of the other benchmarks, and one run of the demo.

python benchmarks/learn_pictures.py --demo runs/demo-rlhf   # keeps the curves of a finished `accord demo`
python benchmarks/learn_pictures.py --next gemma3-270m      # keeps what a base model would say next, a second (asks for its licence once)
python benchmarks/learn_pictures.py --write                 # draws docs/images/learn/*.svg, which a test compares with the results
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kept import standing

from accord.reporting.charts import Line, bar_rows, interval_rows, line_chart

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images" / "learn"
QUESTION = "What is the capital of Italy?"
SHOWN = 6
WIDE = 560


def read(name: str) -> dict[str, Any]:
    """The kept results of a benchmark."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


# -- what is kept of runs ------------------------------------------------------------------------------------------------------------


def curve(folder: Path, *names: str) -> dict[str, list[float]]:
    """Numbers of a run's metrics.jsonl that stand together in a row, with their steps."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    whole = [row for row in rows if all(name in row for name in names)]
    return {name: [round(row[name], 5) for row in whole] for name in ("step", *names)}


def of_demo(folder: Path) -> dict[str, Any]:
    """Loss of imitation, reward and KL of PPO."""
    return {
        "sft": curve(folder / "sft", "loss"),
        "ppo": curve(folder / "ppo", "objective/scores", "objective/kl", "completions/mean_length"),
    }


def next_tokens(name: str) -> list[tuple[str, float]]:
    """What a model finds likeliest after the bare question, as text."""
    import torch

    from accord.models.opened import open_model

    opened = open_model(name, dtype="float32")
    ids = opened.tokenizer(QUESTION, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likely = opened.policy.model(ids).logits[0, -1].softmax(-1).topk(SHOWN)
    return [
        (opened.tokenizer.decode([token]), round(p, 4)) for p, token in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
    ]


# -- one picture each ----------------------------------------------------------------------------------------------------------------


def percent(text: str) -> float:
    """The number before the first % sign."""
    return float(text.split("%", 1)[0])


def bars(rows: Sequence[tuple[str, float]], unit: str = "%", maximum: float = 100.0, digits: int = 0) -> str:
    return bar_rows([(name, value, f"{value:.{digits}f} {unit}") for name, value in rows], maximum=maximum)


def base_models() -> str:
    likely: list[tuple[str, float]] = read("learn")["next"]
    return bar_rows(
        [(json.dumps(token, ensure_ascii=False), p, f"{p:.0%}") for token, p in likely], maximum=1.2 * max(p for _, p in likely)
    )


def imitation() -> str:
    run = read("learn")["sft"]
    return line_chart(
        [Line("loss of the answers' tokens", run["step"], run["loss"])], x_label="optimizer step", y_label="nats a token", width=WIDE
    )


def preferences() -> str:
    accuracy = read("demo_seeds")["42 ppo"]["reward accuracy"]
    return bars([("all", 100 * accuracy["all"]), *((name, 100 * accuracy[name]) for name in ("shorter wins", "longer wins"))])


def ppo() -> str:
    run = read("learn")["ppo"]
    return line_chart(
        [Line("reward of the round, each dot a round", run["objective/kl"], run["objective/scores"])],
        x_label="KL from the reference, nats an answer",
        y_label="reward",
        width=WIDE,
    )


def dpo() -> str:
    run = read("small_curves")["smollm2-135m"]["fp32"]
    steps = list(range(1, len(run["loss"]) + 1))
    lines = [Line(f"implicit reward of the {side} answer", steps, run["rewards"][side]) for side in ("chosen", "rejected")]
    return line_chart(lines, x_label="optimizer step of 8 pairs", y_label="beta (log pi - log ref)", width=WIDE)


def process_rewards() -> str:
    found = read("process_rewards")["choosing among 16 answers to 300 problems"]
    names = {"one answer": "one answer", "majority": "most frequent", "best by process": "best by steps", "any right": "any right"}
    return bars([(short, percent(found[name])) for name, short in names.items()])


def constitutional() -> str:
    slices = read("constitution")["rules"]["slices"]
    names = {"packaged harmful": "harmful", "XSTest unsafe": "XSTest unsafe", "XSTest safe": "XSTest safe"}
    rows = []
    for name, short in names.items():
        for stage in ("sft", "dpo"):
            rise = slices[name]["refusals rise by"][stage]
            rows.append((f"{short}, {stage.upper()}", rise["mean"], rise["low"], rise["high"]))
    return interval_rows(rows, middle=0.0, label="share of prompts that are refused more than before the stage", width=WIDE)


def debate() -> str:
    protocols = read("debate")["smollm2-short-verified"]["protocols"]
    rows = [(one["protocol"].replace("_", ", "), *(one["accuracy"][key] for key in ("mean", "low", "high"))) for one in protocols]
    return interval_rows(rows, label="decisions that are right", width=WIDE)


def rlaif() -> str:
    found = next(iter(read("rlaif").values()))["accuracy on people's labels"]
    rows = [(name, *(float(number) / 100 for number in re.findall(r"[\d.]+", text))) for name, text in found.items()]
    return interval_rows(rows, label="right on what people chose, by who gave the labels", width=WIDE)  # type: ignore[arg-type]


def rlhf_or_dpo() -> str:
    found = read("demo_seeds")
    passed = {
        who: [found[f"{seed} {method}"]["passed"][who]["all"] / 240 for seed in (42, 43, 44)]
        for who, method in (("sft", "ppo"), ("ppo", "ppo"), ("dpo", "dpo"))
    }
    rows = [(who.upper(), statistics.mean(shares), min(shares), max(shares)) for who, shares in passed.items()]
    return interval_rows(rows, label="checks passed of 240: mean, lowest and highest of three seeds", width=WIDE)


def how_many_labels() -> str:
    counts = [25, 50, 100, 150, 200, 300, 400, 600, 800, 1000]
    return line_chart(
        [Line("accuracy 0.65: known to plus or minus", counts, [196 * math.sqrt(0.65 * 0.35 / count) for count in counts])],
        x_label="held-out comparisons",
        y_label="points",
        width=WIDE,
    )


def laptop() -> str:
    found = {name.split(" ")[1]: run["peak GB"] for name, run in read("small_weights").items() if name.startswith("llama-3.2-1b ")}
    return bars([(weights, found[weights]) for weights in ("fp32", "bf16", "int8", "nf4")], "GB", max(found.values()), 1)


def rounds() -> str:
    found = read("rounds")
    start = statistics.mean(seed["start"]["true reward"] for seed in found["by seed"])
    names = {"at once": "all at once", "at once, KL 0.1": "the same, KL 0.1", "rounds": "eight rounds"}
    ends = {"the start": start} | {short: found["arms"][name]["true reward"][0] for name, short in names.items()}
    return bar_rows([(name, value, f"{value:.2f}") for name, value in ends.items()], maximum=max(ends.values()))


PICTURES: dict[str, Callable[[], str]] = {
    "1-base-models": base_models,
    "2-sft": imitation,
    "3-preferences": preferences,
    "4-ppo": ppo,
    "5-dpo": dpo,
    "6-process-rewards": process_rewards,
    "9-constitutional-ai": constitutional,
    "10-debate": debate,
    "11-rlaif": rlaif,
    "12-rlhf-or-dpo": rlhf_or_dpo,
    "13-how-many-labels": how_many_labels,
    "14-on-a-laptop": laptop,
    "15-what-is-next": rounds,
}
"""By the page that shows it. Pages without one show a picture that another benchmark draws."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="the folder of a finished accord demo")
    parser.add_argument("--next", help="a base model")
    parser.add_argument("--write", action="store_true", help="draw the pictures")
    given = parser.parse_args()
    path = RESULTS / "learn.json"
    results: dict[str, Any] = read("learn") if path.exists() else {}
    if given.demo:
        results |= of_demo(given.demo)
    if given.next:
        results["next"] = next_tokens(given.next)
    path.write_text(json.dumps(results) + "\n", encoding="utf-8")
    if given.write:
        IMAGES.mkdir(parents=True, exist_ok=True)
        for name, draw in PICTURES.items():
            (IMAGES / f"{name}.svg").write_text(standing(draw()), encoding="utf-8")


if __name__ == "__main__":
    main()
