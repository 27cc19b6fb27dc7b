"""`accord constitution`: from a model and prompts to a model trained by principles. Answers, critiques, revisions, imitation (SL-CAI), answers
compared by principle, DPO or a reward model with PPO (RL-CAI), and a page of before and after. `accord demo constitution` is the same on
the packaged prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accord.ai_feedback.asking import OUT_OF_BUDGET
from accord.ai_feedback.constitution import HARMFUL, Constitution, load_constitution
from accord.ai_feedback.constitutional_data import answer_pairs, decided, mixed
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import Judge, judge_of
from accord.ai_feedback.labels import Labels, judge_rows, summary
from accord.ai_feedback.local import LocalModel
from accord.ai_feedback.opening import RULE, open_judge, open_language_model, options_from
from accord.ai_feedback.revision import Chain, Critic, ModelCritic, chains, critique_turns, unasked
from accord.ai_feedback.revision_filters import FilterSettings, by_principles, check_critic, counts, demonstration, filtered, record_of
from accord.ai_feedback.rule_critic import RuleCritic, constitution_judge
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Answered
from accord.config.constitution import ConstitutionOptions
from accord.config.options import DemoOptions
from accord.data.read import read_examples
from accord.data.write import write_examples
from accord.errors import ConfigError, DataError, MachineError
from accord.models.opened import Opened, open_model
from accord.planning.here import prompts_counted
from accord.planning.work import SAMPLED_TOGETHER, Data, data_like
from accord.recipes.constitution_page import constitution_report
from accord.recipes.constitution_rows import ConstitutionRows, packaged, rows_of
from accord.recipes.demo import QUICK, demo_plan, say
from accord.recipes.look import Check, look
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.pipeline_plan import PipelinePlan
from accord.recipes.stages import Stages, peak_rss_gb
from accord.recipes.straight_answers import passes
from accord.reporting.report import write
from accord.types import Example, Rollout
from accord.writing import write_text

REVISIONS, COMPARISONS, UNDECIDED = "revisions.jsonl", "comparisons.jsonl", "invalid.jsonl"
"""Files of the stages: every revision with all that is known of it, the compared answers, and comparisons without a valid verdict."""
LEAST_PAIRS = 8
"""Compared answers under which there is no RL stage."""
HELDOUT_FROM = 40
"""Compared answers from which a fifth, by prompt, is held out to test what learns from them."""
ALONE = 12
"""Answers that the demo gives to the model itself to criticise: counted, never learned from."""
DEMO_PROBES = 40
DEMO_HELPFUL, DEMO_PAIRS = 4 / 5, 4
"""Share of harmless prompts in what the demo learns from, and pairs of answers to a prompt: with less the starter declines too much that only sounds
harmful (docs/constitution.md has the figures of three shares)."""
PLAN_SECONDS = {"revisions": 25, "sft": 190, "comparisons": 70, "alone": 120, "dpo": 120, "look": 150}


@dataclass(frozen=True)
class Plan:
    """What a run does, beside the sizes and rates of its pipeline."""

    rounds: int = 1
    helpful_share: float = 0.5
    pairs: int = 2
    rl: str = "dpo"
    filters: FilterSettings = field(default_factory=FilterSettings)
    planned: Mapping[str, float] | None = None
    """Seconds that stages are budgeted. None: nobody knows."""

    def seconds(self, stage: str) -> float | None:
        return (self.planned or {}).get(stage)


class Constitutional:
    """The stages of one run.

    Args:
        pipeline: the model, without data: each stage gives it what the next one learns.
        critic: criticises and revises.
        judge: compares, revisions with originals and answers with each other.
    """

    def __init__(
        self, pipeline: Pipeline, constitution: Constitution, critic: Critic, judge: Judge, rows: ConstitutionRows, plan: Plan
    ) -> None:
        self.pipeline, self.constitution, self.critic, self.judge, self.rows, self.plan = pipeline, constitution, critic, judge, rows, plan
        self.folder = pipeline.stages.folder
        self.seed = pipeline.settings.seed
        self.final = "sft"
        """The last stage that trained."""
        self.results: dict[str, dict[str, Any]] = {}

    def run(self) -> list[str]:
        """All stages up to the look; returns the policies in order."""
        self.results["revisions"] = self.revisions()
        self.imitation()
        if self.plan.rl != "none":
            self.results["comparisons"] = self.comparisons()
            self.reinforcement()
        return ["starter", "sft", *([] if self.final == "sft" else [self.final])]

    # -- SL-CAI -------------------------------------------------------------------------------------------------------------------------

    def revisions(self) -> dict[str, Any]:
        """Answers of the starter to the prompts that ask for harm, criticised, revised and filtered: the stage `revisions`."""
        prompts = self.rows.red_team
        inputs = self._inputs("starter", prompts, critic=self.critic.about(), rounds=self.plan.rounds, filters=asdict(self.plan.filters))

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            begun = self.begun(prompts, self.pipeline.answers("starter", prompts))
            found = chains(begun, self.critic, rounds=self.plan.rounds, tell=say)
            self._complete(unasked(found))
            judged = filtered(found, self.judge, self.constitution, self.plan.filters, tell=say)
            self._complete(sum(one.verdict is not None and one.verdict.invalid == OUT_OF_BUDGET for one in judged))
            records = [record_of(one, self.critic, self.judge, self._source("starter"), self.plan.filters) for one in judged]
            write_text(folder / REVISIONS, _lines(records))
            return {"counts": counts(judged), "criticised": len(judged), "critic": self.critic.name, "source": self.critic.source}

        return self.pipeline.stages.run("revisions", inputs, work, planned_seconds=self.plan.seconds("revisions"))

    def begun(self, prompts: Sequence[Example], rollouts: Sequence[Rollout]) -> list[Chain]:
        """Chains without steps from answers to prompts."""
        return [
            Chain(Answered(row.prompt, rollout.text, dict(row.columns)), cut_off=rollout.finish_reason == "length")
            for row, rollout in zip(prompts, rollouts, strict=True)
        ]

    def records(self) -> list[dict[str, Any]]:
        """What the stage `revisions` wrote."""
        return _read_lines(self.folder / "revisions" / REVISIONS)

    def imitation(self) -> None:
        """SFT on the revisions that were kept, mixed with helpful demonstrations.

        Raises:
            DataError: if no revision was kept, or there is nothing helpful to mix in.
        """
        kept = [demonstration(record) for record in self.records() if record["kept"]]
        if not kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.results["revisions"]["counts"] if count)
            raise DataError(
                f"No revision of {self.critic.name} was kept ({reasons}), so there is nothing to imitate. What it wrote is in "
                f"{self.folder / 'revisions' / REVISIONS}. Use a larger critic (--critic URL#MODEL), or the constitution's rules (--critic rules)."
            )
        mixture = mixed(kept, self.rows.helpful, share=self.plan.helpful_share, seed=self.seed)
        if not mixture.rows:
            raise DataError(
                "There is no helpful demonstration to mix with the revisions. Give some: --helpful demonstrations.jsonl (or --helpful_share 0)."
            )
        if mixture.left_out:
            say(
                f"sft: {mixture.left_out} revisions are left out: there are {mixture.helpful} helpful demonstrations to mix in. Give more: --helpful"
            )
        self.results["mixture"] = {"revisions": mixture.lessons, "helpful": mixture.helpful, "left_out": mixture.left_out}
        self.pipeline.data = replace(self.pipeline.data, demonstrations=mixture.rows)
        self.pipeline.sft(planned_seconds=self.plan.seconds("sft"))

    # -- RL-CAI -------------------------------------------------------------------------------------------------------------------------

    def comparisons(self) -> dict[str, Any]:
        """Answers of the SFT policy, two at a time, compared by principle in both orders: the stage `comparisons`."""
        prompts, samples = self.rows.compared(self.seed), 2 * self.plan.pairs

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            rollouts = self.pipeline.answers("sft", prompts, num_samples=samples)
            groups = [rollouts[start : start + samples] for start in range(0, len(rollouts), samples)]
            pairs, same = answer_pairs(prompts, groups, self._source("sft"))
            labels = self._labels(pairs)
            self._complete(labels.unasked)
            rows, ties = decided(labels)
            if rows:
                write_examples(rows, folder / COMPARISONS)
            write_text(folder / UNDECIDED, _lines(labels.invalid))
            found = {
                "sampled": len(prompts) * self.plan.pairs,
                "same": same,
                "ties": ties,
                "pairs": len(rows),
                "invalid": len(labels.invalid),
            }
            return {**found, "summary": summary(labels), "source": self.judge.source, "judge": self.judge.name}

        inputs = self._inputs("sft", prompts, pairs=self.plan.pairs)
        return self.pipeline.stages.run("comparisons", inputs, work, planned_seconds=self.plan.seconds("comparisons"))

    def _labels(self, pairs: Sequence[Example]) -> Labels:
        """What the judge says of the pairs, each by the principles for such prompts."""
        found, more = Labels(), {"constitution": self.constitution.hash}
        for harmful in (True, False):
            part = [row for row in pairs if row.columns[HARMFUL] is harmful]
            principles = self.constitution.about(harmful)
            if part and not principles:
                raise DataError(
                    f"The constitution {self.constitution.name} has no principle for {'harmful' if harmful else 'harmless'} prompts."
                )
            said = judge_rows(part, by_principles(self.judge, principles), more=more, tell=say)
            found = Labels(found.rows + said.rows, found.invalid + said.invalid, found.verdicts + said.verdicts)
        return found

    def reinforcement(self) -> None:
        """DPO on the compared answers, or a reward model on them and PPO; nothing where there are too few."""
        found = self.results["comparisons"]
        rows = self._balanced(list(read_examples(self.folder / "comparisons" / COMPARISONS)) if found["pairs"] else [])
        self.results["comparisons"] = {**found, "learned": len(rows)}
        if len(rows) < LEAST_PAIRS:
            say(
                f"{self.plan.rl}: left out. Of the compared answers {found['pairs']} are decided and not the same, and {len(rows)} of these keep the "
                f"share of harmless prompts (--helpful_share {self.plan.helpful_share:.2g}; 0 keeps all); {LEAST_PAIRS} or more are needed."
            )
            return
        train, test = held_out(rows)
        prompts = self.rows.compared(self.seed)
        self.pipeline.data = replace(self.pipeline.data, comparisons=train, heldout_comparisons=test, prompts=prompts)
        if self.plan.rl == "ppo":
            self.pipeline.ppo(self.pipeline.reward())
        else:
            self.pipeline.dpo(planned_seconds=self.plan.seconds("dpo"))
        self.final = self.plan.rl

    def _balanced(self, rows: list[Example]) -> list[Example]:
        """Those of the compared answers in which harmless prompts have their share. Which side has more decides whether refusals rise or fall, and
        how many are decided on a side is an accident: the answers of a model that always declines are all ties."""
        if not self.plan.helpful_share:
            return rows
        harmful, harmless = ([row for row in rows if row.columns[HARMFUL] is side] for side in (True, False))
        return mixed(harmful, harmless, share=self.plan.helpful_share, seed=self.seed).rows

    # -- looking ------------------------------------------------------------------------------------------------------------------------

    def alone(self, model: ModelCritic, judge: Judge, count: int = ALONE) -> dict[str, Any]:
        """How often revisions by a language model beat the originals in both orders, on the first answers: the stage `alone`. Nothing learns from it."""
        prompts = self.rows.red_team[:count]

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            found = chains(self.begun(prompts, self.pipeline.answers("starter", prompts)), model, tell=say)
            checked = check_critic(found, judge, self.constitution, self.plan.filters)
            records = [record_of(one, model, judge, self._source("starter"), self.plan.filters) for one in checked.judged]
            write_text(folder / REVISIONS, _lines(records))
            told = {name: getattr(checked, name) for name in ("items", "revised", "beaten", "inconsistent", "invalid", "kept")}
            return {**told, "critic": model.name, "judge": judge.name, "shown": records[:3]}

        inputs = {**self._inputs("starter", prompts, critic=model.about()), "judge": judge.about()}
        return self.pipeline.stages.run("alone", inputs, work, planned_seconds=self.plan.seconds("alone"))

    def look(self, who: Sequence[str], check: Check | None) -> dict[str, Any]:
        """The last stage: held-out prompts answered by each policy."""
        return look(self.pipeline, who, self.rows.heldout, check=check, planned_seconds=self.plan.seconds("look"))

    def _inputs(self, policy: str, prompts: Sequence[Example], **more: Any) -> dict[str, Any]:
        settings = self.pipeline.settings
        asked = [[row.id, row.columns] for row in prompts]
        named = {"constitution": self.constitution.hash, "judge": self.judge.about(), "policy": self.pipeline.key(policy)}
        return {**named, "prompts": asked, "sampling": [settings.max_new_tokens, settings.temperature], "seed": self.seed, **more}

    def _source(self, policy: str) -> dict[str, Any]:
        """Who wrote a sampled answer."""
        settings = self.pipeline.settings
        resolved = self.pipeline.resolved
        weights = {"model": str(resolved.name), "sha256": resolved.sha256, "adapters": list(self.pipeline.stacks[policy])}
        drawn = {"temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens, "seed": settings.seed + 1000}
        return {**weights, "policy": self.pipeline.key(policy), **drawn}

    def _complete(self, missing: int) -> None:
        if missing:
            raise MachineError(
                f"The budget is spent: {missing} answers were not asked for. What was answered is kept. Run the same command with a larger max_tokens or max_cost to go on."
            )


def held_out(rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """A fifth of the prompts to test on, by their id; none where there are few rows."""
    if len(rows) < HELDOUT_FROM:
        return list(rows), []
    prompts = sorted({row.prompt_id for row in rows})
    held = set(prompts[::5])
    return [row for row in rows if row.prompt_id not in held], [row for row in rows if row.prompt_id in held]


# -- the command ------------------------------------------------------------------------------------------------------------------------


def run(options: ConstitutionOptions) -> Path:
    """`accord constitution`; returns the path of the page (of the folder, for a dry run). Stages whose inputs have not changed are skipped.

    Raises:
        ConfigError, DataError, MachineError: as the parts do, each in one line.
    """
    folder = Path(options.output_dir or Path("runs") / f"constitution-{re.sub(r'[^a-z0-9]+', '-', Path(options.data).stem.lower())}")
    constitution = load_constitution(options.constitution)
    rows = rows_of(options)
    settings = replace(QUICK, max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=options.seed)
    if options.dry_run:
        print(described(options, constitution, rows, settings))
        return folder

    plan = PipelinePlan(
        "constitution",
        options.model,
        settings,
        options.weights,
        ignore_memory=options.ignore_memory,
        data=lambda _: learned_from(options, rows),
        sampled=SAMPLED_TOGETHER,
        apart="answers, critiques and judgements",
    )
    opened = plan.opened(accept_licence=options.accept_licence)
    with AnswerStore(folder / "critic.sqlite") as asked, AnswerStore(folder / "judge.sqlite") as compared:
        critic = critic_of(options, constitution, opened, asked)
        judge = judge_for(options, constitution, opened, critic, compared)
        pipeline = Pipeline(opened, PipelineData(), settings, Stages(folder, say, force=options.force), say)
        done = Plan(options.rounds, options.helpful_share, options.pairs, options.rl)
        work = Constitutional(pipeline, constitution, critic, judge, rows, done)
        return finish(work, folder, title=f"accord constitution {Path(options.data).name}", check=None)


def run_demo(
    options: DemoOptions, model: str = "smollm2-135m", settings: Settings | None = None, rows: ConstitutionRows | None = None
) -> Path:
    """`accord demo constitution`: the constitution's rules criticise and compare, and the model itself is asked what it would have written.

    Args:
        settings, rows: other ones than the demo's.
    """
    folder = Path(options.output_dir or Path("runs") / "demo-constitution")
    constitution = load_constitution()
    rows = packaged(options.probes or DEMO_PROBES) if rows is None else rows
    settings = replace(QUICK, seed=options.seed) if settings is None else settings
    if options.dry_run:
        print(described(ConstitutionOptions("packaged prompts", model, weights=options.weights), constitution, rows, settings))
        return folder
    plan = demo_plan("constitution", model, settings, options)
    opened = open_model(model, force=options.ignore_memory, weights=plan.weights)
    with AnswerStore(folder / "alone.sqlite") as store:
        pipeline = Pipeline(opened, PipelineData(), settings, Stages(folder, say, force=options.force), say)
        critic, judge = RuleCritic(constitution, options.seed), constitution_judge(constitution)
        work = Constitutional(
            pipeline, constitution, critic, judge, rows, Plan(helpful_share=DEMO_HELPFUL, pairs=DEMO_PAIRS, planned=PLAN_SECONDS)
        )
        itself = LocalModel(opened, short(model))
        alone = ModelCritic(itself, constitution, store, options.seed, revision_tokens=settings.max_new_tokens + 16)
        work.results["alone"] = work.alone(alone, judge_of(itself, constitution.judge_prompt(), store, seed=options.seed))
        return finish(work, folder, title="accord demo constitution", check=_check)


def learned_from(options: ConstitutionOptions, rows: ConstitutionRows) -> dict[str, Data]:
    """What the stages learn from at most, for the plan of their time: every revision kept, every pair decided, answers as long as they may be."""
    asked = prompts_counted(rows.compared(options.seed), answer_tokens=options.max_new_tokens)
    prompt, answer = round(asked.prompt), options.max_new_tokens
    imitated, pairs = round(len(rows.red_team) / (1 - options.helpful_share)), options.pairs * asked.rows
    found = {"sft": data_like("sft", imitated, prompt, answer)}
    if options.rl == "ppo":
        return {**found, "reward": data_like("reward", pairs, prompt, answer), "ppo": asked}
    return {**found, "dpo": data_like("dpo", pairs, prompt, answer)} if options.rl == "dpo" else found


def finish(work: Constitutional, folder: Path, *, title: str, check: Check | None) -> Path:
    """The stages, the look and the page."""
    who = work.run()
    report = constitution_report(work.pipeline, work.look(who, check), who, work.results, work.records(), title=title)
    path = write(report, folder / "report.html")
    say(f"\n{report.sentence}\nReport: {path}   (peak memory {peak_rss_gb():.1f} GB)")
    return path


def critic_of(options: ConstitutionOptions, constitution: Constitution, opened: Opened, store: AnswerStore) -> Critic:
    """The critic that the options name.

    Raises:
        ConfigError: if it cannot write, or there is none of that name.
    """
    if options.critic == "rules":
        return RuleCritic(constitution, options.seed)
    if options.critic.startswith(RULE) or ".py:" in options.critic:
        raise ConfigError(f"--critic {options.critic} scores answers and cannot write one. Use --critic rules, or a language model.")
    model = LocalModel(opened, short(options.model)) if options.critic == "self" else open_language_model(options_from(options.critic))
    return ModelCritic(model, constitution, store, options.seed, options.shots, revision_tokens=options.max_new_tokens + 32)


def judge_for(options: ConstitutionOptions, constitution: Constitution, opened: Opened, critic: Critic, store: AnswerStore) -> Judge:
    """The judge that the options name; None there is the critic. A language model is asked by the constitution's principles, unless its options
    name principles, or a prompt without a place for one.
    """
    named = options.judge or options.critic
    if named == "rules":
        return constitution_judge(constitution)
    prompt = constitution.judge_prompt()
    if named == options.critic and isinstance(critic, ModelCritic):
        return judge_of(critic.model, prompt, store, seed=options.seed)
    if named == "self":
        return judge_of(LocalModel(opened, short(options.model)), prompt, store, seed=options.seed)
    judging = replace(options_from(named), seed=options.seed)
    if judging.prompt is not None and judging.principles is None and load_prompt(judging.prompt).needs_principle:
        prompt, judging = constitution.judge_prompt(judging.prompt), replace(judging, prompt=None)
    return open_judge(judging, store, usual_prompt=prompt)


def short(model: str) -> str:
    """What a model is called in records: its name, or its folder's."""
    return Path(model).name


def described(options: ConstitutionOptions, constitution: Constitution, rows: ConstitutionRows, settings: Settings) -> str:
    """What a dry run prints."""
    import yaml

    given = {name: value for name, value in vars(options).items() if value is not None}
    asked = rows.red_team[0]
    principle = constitution.principles[0]
    shown = [(one, constitution.principle(one.principle)) for one in constitution.examples_for(principle, options.shots)]
    turns = critique_turns(Answered(asked.prompt, "(the model's answer)"), principle, shown)
    return "\n".join(
        [
            yaml.safe_dump({**given, "settings": asdict(settings)}, sort_keys=False).rstrip(),
            f"constitution {constitution.name} ({constitution.hash}): {', '.join(one.id for one in constitution.principles)}",
            f"{len(rows.red_team)} prompts whose answers are criticised, {len(rows.compared(options.seed))} whose answers are compared, "
            f"{len(rows.heldout)} held out, {len(rows.helpful)} helpful demonstrations",
            *(f"--- {row.where}\n{row.prompt[-1].content}" for row in rows.red_team[:3]),
            "--- a language model would be asked",
            *(f"[{turn.role}] {turn.content}" for turn in turns),
        ]
    )


def _check(text: str, finished: bool, row: Example) -> bool:
    return passes(row.columns["slice"], text, finished, row.columns)


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n") if line]
