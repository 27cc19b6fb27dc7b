"""`accord align --rounds`: sample, judge, reward model, policy, new against old, and again; the same command goes on wherever it was stopped.

Every round learns its reward model anew from all labels so far. PPO and GRPO then go on from the policy of the round before, a little, with KL measured from the
model that was given: policies that started anew each time ran into new errors of the reward each time (`benchmarks/rounds.py`, docs/rounds.md). DPO, whose loss holds
it to its labels, starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from accord.annotation.accuracies import keep
from accord.annotation.assign import held_out
from accord.annotation.project import PROJECT, Project
from accord.config.options import AlignOptions
from accord.config.rounds import RoundsOptions
from accord.errors import DataError
from accord.evaluation.accuracy import accuracy_table
from accord.methods.prompts import KINDS, PromptQueue
from accord.models.adapters import Stack
from accord.models.opened import Opened
from accord.planning.here import prompts_counted
from accord.planning.work import SAMPLED_TOGETHER, Data, data_like
from accord.recipes.align import MIN_PROMPTS, decided, settings_of
from accord.recipes.demo import say
from accord.recipes.feedback import Feedback, feedback_of
from accord.recipes.look import answer_rows
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.pipeline_plan import PipelinePlan
from accord.recipes.rounds_page import RoundResult, Standing, measured_rewards, write_page
from accord.recipes.sampled import Drawn, prompts_to_answer
from accord.recipes.selection import ANSWERS, COMPARES, Question, ask, by_chance, known, question, scored
from accord.recipes.sittings import Labels, Wait, frozen_labels, labels_are_in, policy_name, project_of, remember
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.setup import examples
from accord.types import Example, Rollout, content_hash

PAGE = "rounds.html"
"""In the project's folder."""
HELDOUT = 0.2
"""Share of the prompts that a project made here holds out."""
AUDIT_LEAST = 30
"""Held-out labels from which a second reward model is made, which no policy is trained on."""
ARM_LEAST = 20
"""Labels of each arm from which the two are compared."""
GRPO: dict[str, Any] = {
    "per_device_train_batch_size": 24,
    "steps_per_generation": 4,
    "num_generations": 8,
    "learning_rate": 1e-3,
    "beta": 0.03,
    "save_steps": 8,
    "save_total_limit": 1,
}
"""As the demo's PPO: 12 prompts with 8 answers and 4 optimizer steps an iteration, the same rate and price of KL."""


def run_rounds(options: AlignOptions, rounds: RoundsOptions, wait: Wait | None = None) -> Path:
    """Go through the rounds; returns the path of the project's page (of the run's folder, for a dry run).

    Args:
        wait: serves the project while people judge. None stops there, with one line that says how to go on.
    Raises:
        ConfigError: if the project was begun with other settings, or a reward is not there.
        DataError: if there are too few prompts, or no label prefers an answer.
        MachineError: if it cannot fit in memory, or a package is missing.
    """
    folder = Path(options.output_dir or Path("runs") / f"rounds-{Path(rounds.project).name}")
    there = (Path(rounds.project) / PROJECT).is_file()
    prompts = prompts_of(options, Project(rounds.project).settings.heldout if there else HELDOUT)
    if options.dry_run:
        print(planned(options, rounds, prompts))
        return folder
    project = project_of(rounds, HELDOUT)
    with project.open_store() as store:
        remember(project, store, options, rounds)
        sitting = store.progress().round  # before the model is read: what people have not judged yet is waited for, or said, at once
        if rounds.feedback == "people" and sitting and not labels_are_in(project, store, sitting, wait):
            return project.folder / PAGE
        opened = _opened(options, rounds, prompts)[0]
        who = feedback_of(rounds, opened, options.seed)
        standing = Standing(project, store, options, rounds, opened, who.words if who is not None else "people", folder)
        loop = Loop(standing, prompts, who)
        if not loop.run(wait):
            return loop.page
    say(f"\n{loop.sentence}\nPage: {loop.page}   (peak memory {peak_rss_gb():.1f} GB)")
    return loop.page


@dataclass(frozen=True)
class Prompts:
    """What is asked in training, and what never is."""

    practice: list[Example]
    heldout: list[Example]


def prompts_of(options: AlignOptions, heldout: float) -> Prompts:
    """The different prompts of --data, split by a hash of the prompt as snapshots of labels are.

    Raises:
        DataError: if one side has too few.
    """
    found = {row.prompt_id: row for row in examples(options.data, kinds=KINDS, what="--data", columns=options.columns, seed=options.seed)}
    rows = [Example("prompt", row.prompt, plain=row.plain, columns=row.columns, where=row.where) for row in found.values()]
    held = {row.prompt_id for row in rows if held_out(row.prompt_id, heldout)}
    prompts = Prompts([row for row in rows if row.prompt_id not in held], [row for row in rows if row.prompt_id in held])
    if len(rows) < MIN_PROMPTS or len(prompts.heldout) < 2 or len(prompts.practice) < 2:
        raise DataError(
            f"{options.data} has {len(rows)} different prompts, {len(prompts.heldout)} of them held out ({100 * heldout:g} % by a hash); "
            f"rounds need {MIN_PROMPTS} or more, and two on either side. Give more prompts."
        )
    return prompts


def planned(options: AlignOptions, rounds: RoundsOptions, prompts: Prompts) -> str:
    """What the loop would do, said before it is done."""
    need = _opened(options, rounds, prompts)[1].need
    given = {key: value for key, value in {**vars(options), **vars(rounds)}.items() if value is not None}
    training, heldout = shares(rounds.labels, prompts)
    return "\n".join(
        [
            yaml.safe_dump({**given, "settings": asdict(settings_for(options))}, sort_keys=False).rstrip(),
            f"{len(prompts.practice)} prompts to practise on, {len(prompts.heldout)} held out",
            f"a round: {training} pairs to learn from and {heldout} held-out ones are judged, then {min(rounds.comparisons, len(prompts.heldout))} "
            f"comparisons of new and old; {rounds.rounds} rounds",
            f"memory about {need}",
        ]
    )


def settings_for(options: AlignOptions) -> Settings:
    """Those of `accord align`, with GRPO's."""
    return replace(settings_of(options), grpo={**GRPO, "max_steps": GRPO["steps_per_generation"] * options.iterations})


def shares(labels: int, prompts: Prompts) -> tuple[int, int]:
    """How many of a round's labels are on prompts that training uses and on held-out ones: as many as these are among all prompts."""
    held = round(labels * len(prompts.heldout) / (len(prompts.heldout) + len(prompts.practice)))
    held = min(max(1, held), labels - 1)
    return labels - held, held


def learned_from(options: AlignOptions, rounds: RoundsOptions, prompts: Prompts) -> dict[str, Data]:
    """What the stages of a round learn from, as many labels as there are halfway through, for the plan of their time; all answers are taken to be as
    long as they may be."""
    asked = prompts_counted(prompts.practice, answer_tokens=options.max_new_tokens)
    labels = math.ceil(shares(rounds.labels, prompts)[0] * (rounds.rounds + 1) / 2)
    pairs = {name: data_like(name, labels, round(asked.prompt), options.max_new_tokens) for name in ("reward", "dpo")}
    return {"reward": pairs["reward"], options.method: pairs.get(options.method, asked)}


def _opened(options: AlignOptions, rounds: RoundsOptions, prompts: Prompts) -> tuple[Opened, PipelinePlan]:
    plan = PipelinePlan(
        "align --rounds",
        options.model,
        settings_for(options),
        options.weights,
        ignore_memory=options.ignore_memory,
        data=lambda _: learned_from(options, rounds, prompts),
        rounds=rounds.rounds,
        sampled=SAMPLED_TOGETHER,
        apart="sampling what is judged, and judging it,",
    )
    return plan.opened(accept_licence=options.accept_licence), plan


class Loop:
    """The rounds of one project, with the model in memory.

    Args:
        feedback: who judges; None: people.
    """

    def __init__(self, standing: Standing, prompts: Prompts, feedback: Feedback | None) -> None:
        self.standing, self.prompts, self.feedback = standing, prompts, feedback
        self.project, self.store, self.options, self.rounds = standing.project, standing.store, standing.options, standing.rounds
        self.opened, self.folder, self.settings = standing.opened, standing.folder, settings_for(standing.options)
        longest = self.options.max_new_tokens
        self.to_answer = {
            name: prompts_to_answer(rows, self.opened, longest)
            for name, rows in (("practice", prompts.practice), ("heldout", prompts.heldout))
        }
        self.policies: list[Stack] = [self.opened.stack]
        """The model that was given, then each round's policy."""
        self.keys: list[str] = []
        """What each of these policies and the reward models beside them depend on."""
        self.rewards: list[RewardModel] = []
        """Each round's."""
        self.results: list[RoundResult] = []
        self.stages: dict[int, Stages] = {}
        self.page = self.project.folder / PAGE
        self.sentence = ""

    def run(self, wait: Wait | None) -> bool:
        """All rounds and the last comparison; False where labels are still wanted."""
        for number in range(1, self.rounds.rounds + 1):
            self.ask(number)
            if not self._judged(number, wait):
                return False
            self.learn(number)
            self._write_page()
        if not self._judged(self.rounds.rounds + 1, wait):
            return False
        self._write_page()
        return True

    def _judged(self, sitting: int, wait: Wait | None) -> bool:
        if self.feedback is not None:
            return True
        self._write_page()
        return labels_are_in(self.project, self.store, sitting, wait)

    def _write_page(self) -> None:
        self.sentence = write_page(self.page, self.standing, self.results)

    def _stages(self, number: int) -> Stages:
        if number not in self.stages:
            self.stages[number] = Stages(
                self.folder / f"round-{number}", lambda text: say(f"round {number}: {text}"), force=self.options.force
            )
        return self.stages[number]

    # -- what is asked ------------------------------------------------------------------------------------------------------------------

    def ask(self, number: int) -> None:
        """Sample pairs from the policy as it is and put them into the project; a judge or a panel labels them at once."""
        drawn = Drawn(replace(self.opened, stack=self.policies[-1]), self.options.model)
        active = self.rounds.select == "active" and bool(self.rewards)
        counts: dict[str, int] = dict(zip(("practice", "heldout"), shares(self.rounds.labels, self.prompts), strict=True))
        sides = {name: self._to_sample(name, count, number, active=active and name == "practice") for name, count in counts.items()}

        def work(_: Path, resume: bool) -> dict[str, Any]:
            before = known([task for task in self.store.tasks() if task.round < number or task.columns.get(COMPARES) is not None])
            told: dict[str, Any] = {}
            questions: list[Question] = []
            for name, (prompts, config) in sides.items():
                groups = drawn(prompts, config, self.project.round_folder(number) / f"samples-{name}.jsonl", f"{name} prompts")
                found = ask(
                    groups,
                    counts[name],
                    round=number,
                    source=drawn.source(config, policy=policy_name(number - 1), round=number),
                    asked=before,
                    scores=self._scores(groups, number) if active and name == "practice" else None,
                    key=("pairs", self.options.seed),
                )
                questions += found.questions
                told[name] = {"pairs": len(found.questions), "alike": found.alike, "repeated": found.repeated}
            self.put(questions)
            self._tell(number, told)
            return told

        inputs = {
            "stage": "ask",
            "model": drawn.model,
            "sides": {name: [[prompt.id for prompt in prompts], asdict(config)] for name, (prompts, config) in sides.items()},
            "labels": counts,
            "reward": self.keys[-1] if active else None,
        }
        self._stages(number).run("ask", inputs, work)

    def _to_sample(self, side: str, wanted: int, number: int, *, active: bool) -> tuple[list[Prompt], SamplingConfig]:
        """A round's prompts, each once before any comes again, and how often each is answered."""
        prompts = self.to_answer[side]
        count = min(wanted, len(prompts))
        queue = PromptQueue(prompts, self.options.seed)
        queue.position = (number - 1) * count
        answers = math.ceil(wanted / count) * ANSWERS["active" if active else "random"]
        config = SamplingConfig(self.options.max_new_tokens, answers, self.settings.temperature, seed=self.options.seed, step=number)
        return queue.take(count, number), config

    def _scores(self, groups: Sequence[Sequence[Rollout]], number: int) -> Mapping[str, Tensor]:
        """What each head says of the different answers to the prompts whose pairs are chosen by the rule."""
        control = by_chance([group[0].prompt_id for group in groups], self.project.settings.random_share, self.options.seed, number)
        return scored(groups, self.rewards[-1], but=control)

    def put(self, questions: Sequence[Question]) -> None:
        """Add tasks, with their labels where no person gives them. What is there already stays as it is."""
        self.store.add_tasks(question.task for question in questions)
        if self.feedback is not None and questions:
            self.store.record(self.feedback.label(questions, self.project.rules.overlap))

    def _tell(self, number: int, told: Mapping[str, Mapping[str, int]]) -> None:
        alike, repeated = (sum(part[name] for part in told.values()) for name in ("alike", "repeated"))
        if alike:
            say(f"round {number}: {alike} prompts got the same answer each time: nothing to compare.")
        if repeated:
            say(f"round {number}: {repeated} pairs were asked before and are not asked again.")

    # -- what is learned ----------------------------------------------------------------------------------------------------------------

    def learn(self, number: int) -> None:
        """Reward model, policy and a look at both, on the labels that are in."""
        labels = frozen_labels(self.project, self.store, number)
        pipeline = self._pipeline(number, labels)
        reward = pipeline.reward()
        audit = pipeline.reward("heldout_reward", heldout=True) if len(labels.heldout) >= AUDIT_LEAST else None
        method = self.options.method
        stack = pipeline.dpo() if method == "dpo" else pipeline.ppo(reward) if method == "ppo" else pipeline.grpo(reward)
        looked = self._look(number, pipeline, reward, audit)
        arms = self._arms(number, labels) if self.rounds.select == "active" and number == self.rounds.rounds else None
        self.policies.append(stack)
        self.keys.append(content_hash([pipeline.key("reward"), pipeline.key(method)]))
        older = self._older(number, pipeline, labels)
        self.rewards.append(reward)
        stages = {record["name"]: record["result"] for record in pipeline.stages.records}
        test = [(int(row.columns.get("round", 0)), gap) for row, gap in zip(labels.heldout, _gaps(stages["reward"]), strict=True)]
        self.results.append(RoundResult(number, labels.snapshot, stages, test, older, looked, arms, pipeline.stages.records))
        keep(self.project.round_folder(number), measured_rewards(self.results, self.folder))

    def _pipeline(self, number: int, labels: Labels) -> Pipeline:
        data = PipelineData(comparisons=labels.train, heldout_comparisons=labels.heldout, prompts=self.prompts.practice)
        settings = replace(self.settings, seed=self.options.seed + number)
        stages = self._stages(number)
        pipeline = Pipeline(self.opened, data, settings, stages, stages.say)
        pipeline.without_imitation()
        if number > 1:
            pipeline.go_on_from(self.policies[-1], self.keys[-1])
        return pipeline

    def _older(self, number: int, pipeline: Pipeline, labels: Labels) -> dict[int, list[float]]:
        """By how much each earlier round's reward model puts the preferred answer first, on the held-out pairs that this round judged."""
        rows = [row for row in labels.heldout if int(row.columns.get("round", 0)) == number]
        if not rows or not self.rewards:
            return {}

        def work(_: Path, resume: bool) -> dict[str, Any]:
            known: dict[str, Tensor] = {}
            return {"gaps": [accuracy_table(reward, pipeline.renderer, rows, known)["gaps"] for reward in self.rewards]}

        inputs = {"stage": "older rewards", "rewards": self.keys[: number - 1], "rows": [row.id for row in rows]}
        found = pipeline.stages.run("older_rewards", inputs, work)
        return dict(enumerate(found["gaps"], start=1))

    def _look(self, number: int, pipeline: Pipeline, reward: RewardModel, audit: RewardModel | None) -> dict[str, Any]:
        """Answers of the first, the old and the new policy to held-out prompts, measured; new and old go into the next sitting, blind."""
        method = self.options.method
        who = {"start": "sft", **({"old": "old"} if number > 1 else {}), "new": method}
        prompts = self.prompts.heldout[: self.rounds.comparisons]
        rewards = {name: model for name, model in (("reward", reward), ("heldout_reward", audit)) if model is not None}

        def work(_: Path, resume: bool) -> dict[str, Any]:
            table = {name: pipeline.answers(stack, prompts) for name, stack in who.items()}
            measured = pipeline.measure(table, rewards)
            answers = {name: answer_rows(prompts, rollouts, measured[name]) for name, rollouts in table.items()}
            if self.feedback is not None:
                for name, rollouts in table.items():
                    for row, value in zip(answers[name], self.feedback.scores(rollouts), strict=True):
                        row["judged"] = value
            questions = self._compared(number, table["old" if number > 1 else "start"], table["new"])
            self.put(questions)
            return {"answers": answers, "alike": len(prompts) - len(questions)}

        inputs = {
            "stages": [pipeline.key("sft"), pipeline.key(method), *(pipeline.key(name) for name in rewards)],
            "old": self.keys[-1] if number > 1 else None,
            "prompts": [[row.id, row.columns] for row in prompts],
        }
        return pipeline.stages.run("look", inputs, work)

    def _compared(self, number: int, old: Sequence[Rollout], new: Sequence[Rollout]) -> list[Question]:
        """A task of the next sitting for each prompt that the two policies answer differently."""
        about = {"kind": "sample", "model": self.options.model}
        sources = [{**about, "policy": policy_name(number - 1)}, {**about, "policy": policy_name(number)}]
        return [
            question((first, second), number + 1, sources, {COMPARES: number})
            for first, second in zip(old, new, strict=True)
            if first.text != second.text
        ]

    def _arms(self, number: int, labels: Labels) -> dict[str, Any] | None:
        """Two reward models from as many labels of each arm, from rounds that had both, tested on the same held-out pairs."""
        later = [row for row in labels.train if decided(row) and int(row.columns.get("round", 0)) > 1]
        arms = {name: [row for row in later if row.columns.get("arm", "random") == name] for name in ("random", "selected")}
        count = min(map(len, arms.values()))
        if count < ARM_LEAST or not labels.heldout:
            return None
        gaps: dict[str, list[float]] = {}
        for name, rows in arms.items():
            pipeline = self._pipeline(number, replace(labels, train=rows[:count]))
            pipeline.reward(f"arm_{name}")
            gaps[name] = _gaps(pipeline.stages.records[-1]["result"])
        return {"labels": count, "gaps": gaps}


def _gaps(result: Mapping[str, Any]) -> list[float]:
    """Score gaps on the held-out pairs that a reward model was tested on."""
    return result["test"]["gaps"] if "test" in result else []
