"""Does GRPO teach a small model to reason, or would any reward have done it? Arithmetic in visible steps, with control arms.

    python benchmarks/reasoning.py --arms true:42 true:43 true:44 random:42 format-only:42 best-of:42 --svamp ../shared/data/svamp

The start is the starter model after SFT on a few worked solutions: it has seen the form and keeps to it now and then. Every arm goes on from it with
the same prompts and the same number of sampled answers, and is judged on the same 500 held-out problems, one greedy answer each, and once
more with answers that must begin with "####": forced, without steps. `best-of:SEED` is rejection-sampling fine-tuning on as many sampled
tokens as `true:SEED` took. An arm is one run; what is asked of it was written down before any was made (`RISE`, `MINUTES`). Stages already done are
skipped and one that was stopped goes on, so the command may be cut off and given again. Results go to `benchmarks/results/reasoning.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peak import machine

from accord import SFTConfig, SFTTrainer
from accord.evaluation.intervals import Interval, wilson
from accord.methods.prompts import as_prompt
from accord.models.opened import open_model
from accord.recipes.reasoning import Settings, adapter, answers, gain, imitate, in_points, practise, problems
from accord.recipes.rejection import best_answers, demonstrations
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.accuracy import AccuracyReward
from accord.rollouts.collect import collect
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Message, Rollout

ARMS = ("true", "random", "format-only", "inverted", "shuffled", "best-of")
RISE, MINUTES = 0.15, 15
"""Asked of every run with true rewards: the share of held-out problems that is right rises by so much, in so many minutes."""
FORCED = "####"
SVAMP_ITEMS, SVAMP_TOKENS = 300, 160
Answers = list[dict[str, Any]]


def best_of(settings: Settings, start: str, folder: Path, tokens: int) -> dict[str, Any]:
    """Rejection-sampling fine-tuning: answers to the same problems until so many tokens are sampled, of each problem a right one learned."""
    opened = open_model(start)
    group = settings.grpo["num_generations"]
    prompts = [as_prompt(row, opened.renderer) for row in problems(settings, held_out=False)]
    sampler, sampling = (
        LocalSampler(opened.policy, opened.renderer, opened.stack),
        SamplingConfig(settings.longest, group, seed=settings.seed),
    )
    groups: list[list[Rollout]] = []
    while tokens_in(groups) < tokens and len(groups) < len(prompts):
        more = len(groups) + settings.grpo["per_device_train_batch_size"] // group
        groups = collect(sampler, prompts[:more], sampling, folder / "samples.jsonl")
    grader = AccuracyReward("numeric")
    scored = [[replace(r, score=s) for r, s in zip(rollouts, grader.score(rollouts), strict=True)] for rollouts in groups]
    kept = demonstrations(best_answers(scored), {"kind": "sample"}, {prompt.id: True for prompt in prompts})
    config = SFTConfig(output_dir=str(folder), seed=settings.seed, **settings.sft)
    trainer = SFTTrainer(opened.policy, config, kept, processing_class=opened.tokenizer, peft_config=adapter(settings, opened))
    trainer.train()
    trainer.save_model()
    return {"kept": len(kept), "asked": len(groups), "sampled tokens": tokens_in(groups)}


def tokens_in(groups: Sequence[Sequence[Rollout]]) -> int:
    return sum(len(rollout.completion_ids) for rollouts in groups for rollout in rollouts)


def svamp(folder: Path) -> list[Example]:
    """The first 300 problems of SVAMP (Patel et al. 2021), which are about nothing that was practised."""
    found = json.loads((folder / "SVAMP.json").read_text(encoding="utf-8"))[:SVAMP_ITEMS]
    texts = [f"{row['Body'].strip().rstrip('.')}. {row['Question'].strip()}" for row in found]
    return [
        Example("prompt", (Message("user", text),), plain=True, columns={"answer": row["Answer"]}, where=row["ID"])
        for text, row in zip(texts, found, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["true:42", "true:43", "true:44", "random:42", "format-only:42", "best-of:42"])
    parser.add_argument("--steps", type=int, default=32, help="optimizer steps of 64 answers")
    parser.add_argument(
        "--svamp", type=Path, help="folder with SVAMP.json: 300 of its problems before and after true:SEED, the first named"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/reasoning"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "reasoning.json")
    given = parser.parse_args()
    arms = [(arm, *checked(arm, given.arms)) for arm in sorted(given.arms, key=lambda arm: not arm.startswith("true:"))]
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    settings = Settings(held_out=500, seed=1)
    settings = replace(settings, grpo={**settings.grpo, "max_steps": given.steps})
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    begun = {name: value for name, value in settings.__dict__.items() if name != "grpo"}
    about = {"settings": settings.__dict__}
    looks: dict[str, Answers] = {}
    curves: dict[str, dict[str, Any]] = {}

    def look(name: str, model: str, key: dict[str, Any], **options: Any) -> Answers:
        inputs = {**key, "model": model, **{name: str(value) for name, value in options.items() if name != "rows"}}
        return stages.run(f"look-{name}", inputs, lambda *_: {"answers": answers(settings, model, **options)})["answers"]

    stages.run("start", begun, lambda folder, _: imitate(settings, folder))
    stages.run("direct", {**begun, "worked": False}, lambda folder, _: imitate(settings, folder, worked=False))
    base = str(given.work / "start")
    before = {
        name: look(name, model, begun)
        for name, model in (("starter", settings.model), ("direct", str(given.work / "direct")), ("start", base))
    }
    before["start, forced"] = look("start-forced", base, begun, begin=FORCED, longest=8)
    results |= {name: share(rows) for name, rows in before.items()}
    for arm, kind, seed in arms:
        mine = replace(settings, seed=seed)

        def work(folder: Path, resume: bool, kind: str = kind, mine: Settings = mine) -> dict[str, Any]:
            if kind == "best-of":
                return best_of(mine, base, folder, curves[f"true:{mine.seed}"]["sampled tokens"])
            return practise(mine, base, folder, "none" if kind == "true" else kind, resume=resume)

        name, key = f"{kind}-{seed}", {**about, "arm": kind, "seed": seed}
        curves[arm] = stages.run(name, key, work)
        seconds = round(stages.records[-1]["seconds"])
        after = looks[arm] = look(name, str(given.work / name), key)
        change = gain(before["start"], after)
        results[arm] = {
            **share(after),
            "gain": in_points(change),
            "clear of zero": change.excludes_zero,
            "run": curves[arm],
            "seconds": seconds,
        }
        if kind == "true":
            forced = look(f"{name}-forced", str(given.work / name), key, begin=FORCED, longest=8)
            results[arm] |= {"forced": share(forced)["right"], "steps minus forced": in_points(gain(forced, after))}
        keep(given.results, results)
        print(arm, json.dumps({key: value for key, value in results[arm].items() if key != "run"}), flush=True)
    against = against_controls(looks)
    results |= {name: {"gain": in_points(change), "clear of zero": change.excludes_zero} for name, change in against.items()}
    results["asked and found"] = found_of(before["start"], looks, against, {arm: results[arm]["seconds"] for arm in looks})
    trained = next((f"{kind}-{seed}" for _, kind, seed in arms if kind == "true"), None)
    if given.svamp and trained:
        options: dict[str, Any] = {"rows": svamp(given.svamp), "longest": SVAMP_TOKENS}
        words = [look(f"svamp-{name}", str(given.work / name), {**about, "svamp": name}, **options) for name in ("start", trained)]
        results["SVAMP"] = {"start": share(words[0]), trained: share(words[1]), "gain": in_points(gain(*words))}
    results["peak GB"] = round(peak_rss_gb(), 2)
    results["machine"] = machine()
    keep(given.results, results)
    print(json.dumps(results["asked and found"], indent=1))


def checked(arm: str, arms: Sequence[str]) -> tuple[str, int]:
    """What an arm does, and its seed."""
    kind, _, number = arm.partition(":")
    if kind not in ARMS or not number.isdigit():
        raise SystemExit(f"There is no arm {arm!r}: name one of {', '.join(ARMS)} and a seed, such as true:42.")
    if kind == "best-of" and f"true:{number}" not in arms:
        raise SystemExit(f"{arm} samples as many tokens as true:{number} did: name that too (it is skipped where it is done).")
    return kind, int(number)


def share(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Right answers with their interval, those in the asked form where one is asked, mean length."""
    count = len(rows)
    right = wilson(sum(row["right"] for row in rows) / count, count)
    means = {name: round(sum(row[name] for row in rows) / count, 3) for name in ("form", "tokens") if name in rows[0]}
    return {"right": f"{100 * right.mean:.1f} % ({100 * right.low:.1f} to {100 * right.high:.1f}, {count})", **means}


def against_controls(looks: dict[str, Answers]) -> dict[str, Interval]:
    """Right answers of each arm `true:SEED` minus those of every other arm to the same problems, from each arm's answers."""
    pairs = [(one, other) for one, other in itertools.product(looks, looks) if one.startswith("true:") and not other.startswith("true:")]
    return {f"{one} minus {other}": gain(looks[other], looks[one]) for one, other in pairs}


def found_of(
    before: Answers, looks: dict[str, Answers], against: dict[str, Interval], seconds: dict[str, int]
) -> dict[str, dict[str, bool]]:
    """Of each run with true rewards, whether it did what is asked. `best-of` is no control here: it learns from true rewards as well."""
    found: dict[str, dict[str, bool]] = {}
    for arm in (arm for arm in looks if arm.startswith("true:")):
        change = gain(before, looks[arm])
        controls = [interval for name, interval in against.items() if name.startswith(f"{arm} minus ") and "best-of" not in name]
        found[arm] = {
            f"rises by {100 * RISE:.0f} points": change.mean >= RISE,
            "interval above zero": change.low > 0,
            f"above {len(controls)} controls": bool(controls) and all(interval.low > 0 for interval in controls),
            f"in {MINUTES} minutes": seconds[arm] <= 60 * MINUTES,
        }
    return found


def keep(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
