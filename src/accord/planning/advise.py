"""Which method, and why: from what somebody has to the stages of a recipe. The rules are argued in docs/choosing.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from accord.config.plan import AdviseOptions

FEW, SOME, MANY = 100, 500, 2000
"""Comparisons: below the first only form can be learned, and no accuracy measured; with the second one habit; from the third a reward
model is worth having."""
SHARED = 50
"""Of the comparisons to collect, those that everybody judges."""
LABELS_AN_HOUR = 60
"""Comparisons that one person judges in an hour, at a minute each."""
JUDGE = "http://127.0.0.1:8000/v1#MODEL"
"""The judge of a recipe, to be replaced by one's own."""
PLACEHOLDERS = {
    "DATA.jsonl": "your file",
    "DEMONSTRATIONS.jsonl": "answers to imitate",
    "PROMPTS.jsonl": "prompts to answer",
    "PRINCIPLES.yaml": "your principles, by docs/constitution.md; everyday for accord's own",
    JUDGE: "who judges: a server and its model, or the name of a model here",
}
"""What of a recipe stands for something that only its reader has, and what that is."""
SOURCES = {
    "accord": "measured here: LOG.md",
    "arithmetic": "arithmetic: docs/choosing.md",
    "cai": "Bai et al. 2022, arXiv:2212.08073",
    "davids": "Gekhman et al. 2024, arXiv:2405.05904",
    "dpo": "Rafailov et al. 2023, arXiv:2305.18290",
    "falling": "Pal et al. 2024, arXiv:2402.13228",
    "grpo": "Shao et al. 2024, arXiv:2402.03300",
    "instructgpt": "Ouyang et al. 2022, arXiv:2203.02155",
    "kto": "Ethayarajh et al. 2024, arXiv:2402.01306",
    "lima": "Zhou et al. 2023, arXiv:2305.11206",
    "limits": "Yue et al. 2025, arXiv:2504.13837",
    "online": "Tang et al. 2024, arXiv:2405.08448",
    "overoptimization": "Gao et al. 2023, arXiv:2210.10760",
    "ppo_or_dpo": "Ivison et al. 2024, arXiv:2406.09279",
    "prm": "Lightman et al. 2023, arXiv:2305.20050",
    "pure": "Cheng et al. 2025, arXiv:2504.15275",
    "r1": "DeepSeek-AI 2025, arXiv:2501.12948",
    "rejection": "Yuan et al. 2023, arXiv:2308.01825",
    "rlaif": "Lee et al. 2023, arXiv:2309.00267",
    "judges": "Zheng et al. 2023, arXiv:2306.05685",
}


@dataclass(frozen=True)
class Reason:
    """One step of the argument."""

    text: str
    source: str = ""
    """A key of `SOURCES`; "" for plain logic."""

    def __str__(self) -> str:
        return f"{self.text} [{SOURCES[self.source]}]" if self.source else self.text


@dataclass(frozen=True)
class Stage:
    """One command with its options: what a recipe file holds."""

    command: str
    options: dict[str, Any]
    rows: int = 0
    """Rows that it learns from; 0 where it does not train by itself, or takes no time worth planning."""
    base: str = ""
    """The model that its own model, a run of an earlier stage, will be a run of; "" where it is no such run."""

    def placeholders(self) -> list[str]:
        """What is to be put in before it is run, each with what it stands for."""
        given = [str(one) for value in self.options.values() for one in (value if isinstance(value, list) else [value])]
        return [f"{name} ({what})" for name, what in PLACEHOLDERS.items() if any(name in one for one in given)]


@dataclass
class Advice:
    """What to do."""

    method: str
    """sft, dpo, kto, ppo, grpo, prm, rejection, cai, rlaif, rounds, collect or none."""
    title: str
    reasons: list[Reason]
    stages: list[Stage]
    labels: str
    """How many labels, in a sentence."""
    cautions: list[Reason] = field(default_factory=list)


METHODS = {
    "sft": "supervised fine-tuning (SFT)",
    "dpo": "direct preference optimisation (DPO)",
    "kto": "Kahneman-Tversky optimisation (KTO)",
    "ppo": "a reward model, then PPO",
    "grpo": "GRPO on a checked reward",
    "prm": "a process reward model, to choose among answers",
    "rejection": "rejection sampling: imitate the model's own right answers",
    "cai": "Constitutional AI",
    "rlaif": "AI feedback: a judge labels, DPO learns",
    "rounds": "rounds of fresh labels",
    "collect": "collect labels first",
    "none": "no training",
}
THERE_ALREADY = Reason("it compares two answers to each prompt that are there already; rounds (online) have the model write them")
SLOWER = {"ppo": "dpo", "grpo": "rejection", "rounds": "dpo"}
"""What to fall back on where the hours do not suffice. A judge that need not be asked in rounds labels once: rlaif."""
LABELLED = ("demonstrations", "pairs", "rankings", "ratings", "thumbs", "steps")
"""Feedback that is nothing where there are no rows of it."""


def advise(asked: AdviseOptions, *, instead_of: str | None = None) -> Advice:
    """The method for a situation.

    Args:
        asked: `feedback` and `labels` are set.
        instead_of: a method that was found to take too long; None for a first answer.
    """
    method, reasons = _choose(asked)
    if instead_of is not None and method == instead_of:
        slower = method
        method = "rlaif" if asked.feedback == "judge" else SLOWER[method]
        reasons = [
            *reasons,
            *([THERE_ALREADY] if method == "rlaif" else []),
            Reason(f"{METHODS[slower]} would be the better choice with more time or a faster machine: {_why_slow(slower)}"),
        ]
    advice = Advice(method, METHODS[method], reasons, _stages(method, asked), _labels(method, asked), _cautions(method, asked))
    if asked.base and method not in ("sft", "collect", "none", "prm"):
        advice.reasons.append(
            Reason("a base model only continues text, so it is taught to answer first: SFT before everything else", "instructgpt")
        )
    return advice


def _choose(asked: AdviseOptions) -> tuple[str, list[Reason]]:
    have, count = asked.feedback or "nothing", asked.labels or 0
    if have in LABELLED and not count:
        have = "nothing"
    if asked.goal == "knowledge":
        return "none", [
            Reason("preferences say which answer is better, not what is true: RLHF changes how a model answers with what it knows"),
            Reason(
                "fine-tuning on facts that it does not know makes it invent others: give it documents to read (retrieval) instead", "davids"
            ),
        ]
    return {
        "demonstrations": _of_demonstrations,
        "pairs": _of_comparisons,
        "rankings": _of_comparisons,
        "ratings": _of_single_answers,
        "thumbs": _of_single_answers,
        "steps": _of_steps,
        "checkable": _of_checkable,
        "principles": _of_principles,
        "judge": _of_a_judge,
        "prompts": _of_nothing,
        "nothing": _of_nothing,
    }[have](asked, count)


def _of_demonstrations(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    return "sft", [
        Reason("demonstrations say what to write and not what to avoid: imitate them"),
        Reason("a thousand good ones teach form; more of the same add little", "lima"),
    ]


def _of_comparisons(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    ranked = [Reason("a ranking of K answers is K(K-1)/2 comparisons that lean on each other: it counts as one row", "instructgpt")]
    reasons = ranked if asked.feedback == "rankings" else []
    if count < FEW and asked.people:
        return "collect", [
            *reasons,
            Reason(
                f"{count} comparisons are too few to learn from and to measure on: with 20 held out, an accuracy is known to 22 points",
                "arithmetic",
            ),
        ]
    if asked.online and asked.people and count < MANY:
        return "rounds", [
            *reasons,
            Reason(
                "somebody can judge again, so ask about what the model says now: labels of old answers say little of new ones", "online"
            ),
            Reason("with a quarter of the labels wrong, eight rounds of 250 beat 2,000 at once", "accord"),
        ]
    if asked.online and count >= SOME:
        return "ppo", [
            *reasons,
            Reason(
                "the model may sample in training, and the labels suffice for a reward model: PPO then does a little better than DPO",
                "ppo_or_dpo",
            ),
            Reason("the reward model can be checked on its own before anything is optimised against it", "overoptimization"),
        ]
    return "dpo", [
        *reasons,
        Reason(
            f"comparisons, {'too few for a reward model' if asked.online else 'and no sampling while training'}: DPO learns from them directly, "
            "with no reward model to make or to fool",
            "dpo",
        ),
        Reason("it is the cheapest: a pass over the reference once, then plain training"),
    ]


def _of_single_answers(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    reasons = [
        Reason("answers judged one by one, each to another prompt, are no comparisons: KTO needs none", "kto"),
        Reason(
            "uneven numbers of good and bad ones are evened out: weight times count of the good over that of the bad is to be 1 to 1.5, so with many "
            "good ones set undesirable_weight to about good / bad, with many bad ones desirable_weight to bad / good",
            "kto",
        ),
    ]
    if asked.feedback == "ratings":
        reasons.append(
            Reason(
                "call a grade good from a threshold on (a column label of true and false in your file): grades of different people and prompts "
                "are no common scale"
            )
        )
    return "kto", reasons


def _of_steps(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    return "prm", [
        Reason("labels of steps train a process reward model; choosing the best of N by it beats choosing by the outcome alone", "prm"),
        Reason(
            "training against it alone is exploited within a few hundred steps, so it chooses, and right answers stay the reward", "pure"
        ),
    ]


def _of_checkable(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    return "grpo", [
        Reason("a program says what is right: a reward that cannot be flattered, and no labels to collect", "r1"),
        Reason("GRPO compares answers to the same problem, so it needs no critic; the reward it does need is your check", "grpo"),
        Reason("it sharpens what the model can already do: measure first that some of 8 answers are right", "limits"),
    ]


def _of_principles(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    return "cai", [
        Reason("principles can label: a critic revises answers by them (to imitate), a judge compares answers by them (to prefer)", "cai"),
        Reason(
            "a small model is no critic of itself (of 40 revisions by one of 135 million weights none won in both orders): let a larger one "
            "criticise, or rules that your principles name",
            "accord",
        ),
    ]


def _of_a_judge(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    reasons = [
        Reason("a stronger model's judgements can stand in for people's, at about their agreement with each other", "rlaif"),
        Reason(
            "judges prefer the first and the longer answer: ask both orders, and measure it on labels of people before you use it", "judges"
        ),
    ]
    if not asked.online:
        reasons.append(THERE_ALREADY)
    if asked.online:
        return "rounds", [
            *reasons,
            Reason("it can judge again: rounds of fresh answers keep the labels about what the model says now", "online"),
        ]
    return "rlaif", reasons


def _of_nothing(asked: AdviseOptions, count: int) -> tuple[str, list[Reason]]:
    if not asked.people:
        return "none", [
            Reason("no labels, nobody to give any, nothing that checks answers, no principles, no judge: nothing says what better is"),
            Reason("write the instruction into the system prompt, and look at 50 answers: that is free, and shows what to label"),
        ]
    return "collect", [
        Reason(
            "people can judge, and a comparison of two of the model's own answers takes a minute and no expertise in writing", "instructgpt"
        )
    ]


def _why_slow(method: str) -> str:
    return "every update needs fresh answers, and sampling is most of its time" if method != "rounds" else "each round samples and trains"


def _labels(method: str, asked: AdviseOptions) -> str:
    count = asked.labels or 0
    people = max(1, asked.people)
    each = math.ceil(((SOME - SHARED) / people + SHARED) / LABELS_AN_HOUR)
    hours = f"about {each} hour{'s' * (each > 1)} {f'for each of {people} people' if people > 1 else 'for one person'}"
    held = count // 5
    hold_out = (
        f"hold out a fifth ({held}: accuracy to {100 * 1.96 * math.sqrt(0.25 / held):.0f} points)"
        if held >= 20
        else "too few to hold any out"
    )
    return {
        "sft": f"{count} demonstrations: 50 to 200 teach a form, about 1,000 an assistant; better ones beat more of them",
        "dpo": f"{count} comparisons: {FEW} show in the form of answers, {SOME} teach one habit, {MANY} and more several; {hold_out}",
        "ppo": f"{count} comparisons: a reward model wants {SOME} for one habit and {MANY} and more beyond; {hold_out}",
        "kto": f"{count} judged answers: about twice as many as comparisons for the same effect, so 1,000 for one habit; at least 50 of either kind",
        "grpo": "no labels: 500 to 5,000 problems, of which the model solves between a tenth and nine tenths",
        "rejection": "no labels: 500 to 5,000 problems; only right answers are imitated",
        "prm": f"{count} solutions with labelled steps: 500 to 1,000 for one kind of problem; `accord prm label` makes more by sampling",
        "cai": "no labels: 100 to 1,000 prompts that tempt the model, as many harmless ones, and 5 to 15 principles",
        "rlaif": f"100 to 200 comparisons of people, to measure the judge with; then {MANY} and more of its own",
        "rounds": "50 to 250 fresh comparisons a round, 3 to 8 rounds; a fifth of them on held-out prompts",
        "collect": f"{SOME} comparisons ({hours}), {SHARED} of them by everybody, to see whether people agree",
        "none": "none",
    }[method]


def _cautions(method: str, asked: AdviseOptions) -> list[Reason]:
    count = asked.labels or 0
    found = []
    if method in ("dpo", "ppo", "rounds") and asked.feedback in ("pairs", "rankings") and count < 200:
        found.append(Reason("under 200 comparisons expect a change of form, not of habits; read what it writes", "accord"))
    if method in ("dpo", "rlaif"):
        found.append(Reason("the log-probability of chosen answers falls too; sft_coefficient keeps them likely", "falling"))
    if method in ("ppo", "rounds"):
        found.append(
            Reason("any learned reward is exploited in the end: watch length and a reward model of other labels", "overoptimization")
        )
    if method in ("grpo", "rejection"):
        found.append(
            Reason("a check pays for what it sees: read answers that pass, and look for those that are right by chance or by form")
        )
    if method in ("kto", "prm") and count < FEW:
        found.append(Reason(f"under {FEW} of them expect little, and nothing that can be measured"))
    if method == "rounds" and count and asked.feedback in ("pairs", "rankings"):
        found.append(
            Reason(
                "the rounds ask for labels of the model's own answers, and read the prompts of your file alone: so the first stage learns your labels"
            )
        )
    if asked.goal == "reasoning" and method in ("dpo", "kto", "ppo"):
        found.append(Reason("preferences teach what solutions look like; if a program can check them, GRPO learns what is right", "grpo"))
    if method == "cai":
        found.append(
            Reason("a prompt without a column harmful counts as asking for what the principles forbid: mark harmless ones harmful: false")
        )
    if method == "sft" and count < 50:
        found.append(Reason("under 50 demonstrations a few of them in the prompt do as much"))
    return found


def _stages(method: str, asked: AdviseOptions) -> list[Stage]:
    """The commands, in order. The first data file is the user's; later stages name the folders of earlier ones."""
    model, count, data = asked.model or "smollm2-135m", asked.labels or 0, asked.data
    start, first = model, []
    under = ""
    if (
        asked.base
        and method in ("dpo", "kto", "grpo", "rejection", "rlaif", "rounds", "cai")
        and asked.feedback not in ("pairs", "rankings")
    ):
        start, under = "runs/plan-sft", model
        first = [Stage("sft", {"model": model, "data": "DEMONSTRATIONS.jsonl", "num_train_epochs": 2, "output_dir": start}, SOME)]
    both = {"model": start, "data": data}
    preference = {**both, "beta": 0.1, "sft_coefficient": 0.1, "num_train_epochs": 2 if count < MANY else 1, "output_dir": "runs/plan-dpo"}
    ranked_or_base = asked.feedback == "rankings" or (asked.base and asked.feedback == "pairs")
    if method == "sft":
        return [Stage("sft", {**both, "num_train_epochs": 3 if count < 500 else 2, "output_dir": "runs/plan-sft"}, count)]
    if method == "dpo" and ranked_or_base:
        return [Stage("align", {**both, "method": "dpo", "output_dir": "runs/plan-align"}, count)]
    if method == "dpo":
        return [*first, Stage("dpo", preference, count, under)]
    if method == "ppo" and (asked.base or count < MANY):
        return [Stage("align", {**both, "method": "ppo", "output_dir": "runs/plan-align"}, count)]
    if method == "ppo":
        longest = 128
        reward = {**both, "num_train_epochs": 1, "max_new_tokens": longest, "output_dir": "runs/plan-reward"}
        policy = {
            **both,
            "reward_model": ["runs/plan-reward"],
            "num_iterations": 50,
            "prompts_per_iteration": 16,
        }
        return [
            Stage("reward", reward, count),
            Stage("ppo", {**policy, "max_new_tokens": longest, "kl_coef": 0.05, "output_dir": "runs/plan-ppo"}, count),
        ]
    if method == "kto":
        return [*first, Stage("kto", {**both, "beta": 0.1, "num_train_epochs": 2, "output_dir": "runs/plan-kto"}, count, under)]
    if method == "grpo":
        options = {**both, "reward": ["accuracy"], "num_generations": 8, "per_device_train_batch_size": 64, "max_completion_length": 256}
        return [
            *first,
            Stage(
                "grpo",
                {**options, "scale_rewards": "none", "beta": 0.0, "max_steps": 100, "output_dir": "runs/plan-grpo"},
                count or SOME,
                under,
            ),
        ]
    if method == "rejection":
        options = {
            **both,
            "reward": ["accuracy"],
            "best_of": 8,
            "sample_tokens": 256,
            "num_train_epochs": 2,
            "output_dir": "runs/plan-sft-own",
        }
        return [*first, Stage("sft", options, count or SOME, under)]
    if method == "prm":
        return [Stage("prm", {**both, "num_train_epochs": 2, "output_dir": "runs/plan-prm"}, count)]
    if method == "cai":
        own = {"constitution": "PRINCIPLES.yaml", "critic": JUDGE, "rl": "dpo", "output_dir": "runs/plan-constitution"}
        return [*first, Stage("constitution", {**both, **own}, count or SOME, under)]
    if method == "rlaif":
        judged = {"data": data, "judge": JUDGE, "to": "judged.jsonl"}
        return [Stage("judge", judged), *first, Stage("dpo", {**preference, "data": "judged.jsonl"}, count or MANY, under)]
    if method == "rounds":
        who: dict[str, Any] = {"feedback": "people"}
        if asked.feedback == "judge":
            who = {"feedback": "judge", "reward": [f"judge={JUDGE}"]}
        elif count and ranked_or_base:
            start, under = "runs/plan-align/dpo", model
            first = [Stage("align", {**both, "method": "dpo", "output_dir": "runs/plan-align"}, count)]
        elif count:
            start, under = "runs/plan-dpo", model
            first = [Stage("dpo", preference, count)]
        return [*first, Stage("align", {**both, "model": start, "method": "ppo", "rounds": 4, "labels": 100, **who}, 100, under)]
    if method == "collect":
        return [Stage("annotate", {"project": "labels", "data": data if asked.feedback == "prompts" else "PROMPTS.jsonl", "model": model})]
    return []
