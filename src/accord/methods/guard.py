"""The guard of an online run: shows every round to the monitors, writes what they say, and acts when there is an alarm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accord.audit.agreeing import Measured, agreement, agreement_samples, sycophancy_verdict
from accord.audit.answers import Seen
from accord.audit.comparing import Limits, Verdict
from accord.audit.explained import paid_causes
from accord.audit.watch import SHOWN, Looked, Watch
from accord.audit.weighing import Weigher
from accord.data.packing import Unit
from accord.data.render import Renderer
from accord.methods.closed_holes import ClosedHoles
from accord.training import checkpoint, processes
from accord.training.setup import say
from accord.types import Completion, Message, Rollout, Task, task_id, to_json
from accord.writing import append_text, write_text

if TYPE_CHECKING:
    from accord.methods.online import OnlineTrainer

ALARMS, VERDICTS, DRIFT, TO_LABEL = "alarms.jsonl", "monitors.json", "drift.jsonl", "to_label.jsonl"
CLEAN, UNPROVEN = "clean", "unproven"
"""Folders: of the last checkpoint whose answers showed nothing on the way to an alarm, and of one whose answers are still to be looked at."""
MOST_ROLLBACKS = 3
"""A run that hacks its reward again after so many ends at its last clean checkpoint."""
LEAST_PRICE, MOST_PRICE = 0.05, 1.0
"""Reward (of variance 1) that a nat of KL costs after it was raised."""
EARNED = ("explained gain", "paid form")
"""Monitors of what the reward pays for a form."""
CLEAN_SAVES = 10
"""Clean checkpoints that a run writes at most, beside the first."""
PANEL = 8
"""Prompts of the drift panel."""


class Guard:
    """What watches one trainer.

    Args:
        trainer: the run; `config.monitors` False watches nothing.
    """

    def __init__(self, trainer: OnlineTrainer[Any]) -> None:
        config = trainer.config
        self.trainer, self.config = trainer, config
        self.watch = Watch(Limits(kl=config.kl_alarm))
        self.rollbacks = 0
        self.holes: list[list[str]] = []
        """Monitor and cause of the alarms that led to a rollback: from then on being on the way there is enough."""
        self.closed = ClosedHoles()
        self.panel: list[dict[str, str]] = []
        """What the start answered to a few prompts; they are answered again with the same draws."""
        self.agreed: list[float] | None = None
        """How much the start agreed with what a user feels (`audit.agreeing`); None where it cannot be asked."""
        self.agrees = False
        """Whether more than that was an alarm when it was last asked."""
        self.turns_back = self.stops = self.raises_kl = False
        """What the last round asks of the trainer."""

    # -- state ----------------------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "watch": self.watch.state(),
            "rollbacks": self.rollbacks,
            "holes": self.holes,
            "closed": self.closed.state(),
            "panel": self.panel,
            "agreed": self.agreed,
            "agrees": self.agrees,
        }

    def load(self, state: dict[str, Any] | None) -> None:
        """The inverse of `state`. None, of a checkpoint that an earlier release wrote: the watch begins here."""
        if state is not None:
            self.watch.load(state["watch"])
            self.rollbacks, self.holes, self.panel = int(state["rollbacks"]), list(state.get("holes", [])), list(state["panel"])
            self.agreed, self.agrees = state.get("agreed"), bool(state.get("agrees"))
            if "closed" in state:
                self.closed.load(state["closed"])

    def open(self) -> None:
        """Drop what a killed run wrote after the checkpoint that it goes on from; what was rolled back stays on record."""
        for name in (ALARMS, DRIFT, TO_LABEL):
            path = self.trainer.folder / name
            if processes.is_main() and path.exists():
                rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
                kept = [row for row in rows if self._stands(row)]
                write_text(path, "".join(_line(row) for row in kept))

    def _stands(self, row: dict[str, Any]) -> bool:
        about = row.get("columns", row)
        return about["iteration"] <= self.trainer.iteration or 0 < about.get("rollback", 0) <= self.rollbacks

    # -- a round --------------------------------------------------------------------------------------------------------------------------

    def before_round(self) -> None:
        """Keep this place as one to go back to, should the answers that are sampled now be clean. After a rollback the place stays what it
        was: a hole that was found once grows for some rounds before it is seen again."""
        if not self.config.monitors or self.config.on_alarm != "rollback" or self.rollbacks:
            return
        every = max(1, self._rounds() // CLEAN_SAVES)
        there = (self.trainer.folder / CLEAN / checkpoint.STATE).exists()
        if not there or self.trainer.iteration % every == 0:
            self._keep(UNPROVEN)

    def look(self, units: Sequence[Unit]) -> dict[str, float]:
        """Show the answers of a round to the monitors; returns metrics. `raise_kl` is done at once, the rest is asked of the trainer."""
        self.turns_back = self.stops = self.raises_kl = False
        if not self.config.monitors:
            return {}
        trainer = self.trainer
        if trainer.iteration == 0:
            self.panel = [_start_of(unit) for unit in units[:PANEL]]
            found = self._agreement()
            self.agreed = None if found is None else found[0]
        looked = self.watch.look(seen(units), trainer.iteration)
        asks = bool(looked.risen) or (trainer.iteration > 0 and trainer.iteration + 1 in (self._rounds() // 2, self._rounds()))
        if asks:
            looked = self._ask_agreement(looked)
        self._prove(clean=looked.clean)
        action = self._act(looked)
        if looked.verdicts and processes.is_main():
            self._write(looked, action, units)
        if asks:
            self._answer_panel()
        return looked.metrics()

    def less_closed(self, units: list[Unit]) -> list[Unit]:
        """The units of a round, charged for forms that a rollback has closed."""
        return self.closed.less(units, seen(units), self.watch.baseline) if self.closed.causes else units

    @property
    def over(self) -> bool:
        """Whether going back has not helped, so that the run ends where it stands: at its last clean checkpoint."""
        return self.rollbacks > MOST_ROLLBACKS

    def turn_back(self) -> None:
        """Stand at the last clean checkpoint. What led away from it is charged for from then on or, where that is no form, KL is dearer: else the same
        would happen again."""
        trainer, count, holes, closed = self.trainer, self.rollbacks + 1, self.holes, self.closed.state()
        assert trainer.optimizer is not None
        trainer.optimizer.state.clear()  # the first clean checkpoint has no moments
        trainer.go_back_to(trainer.folder / CLEAN)
        self.rollbacks, self.holes, self.turns_back = count, holes, False
        self.closed.load(closed)
        if self.raises_kl:
            trainer.raise_kl()
        if processes.is_main():
            for folder in checkpoint.folders(trainer.folder):
                if int(folder.name.rsplit("-", 1)[1]) > trainer.global_step:
                    shutil.rmtree(folder)
        self._keep(CLEAN)  # a run killed now goes on with the dearer KL
        if trainer.config.save_steps and trainer.global_step:
            trainer.save_checkpoint()

    # -- what is done ---------------------------------------------------------------------------------------------------------------------

    def _act(self, looked: Looked) -> str:
        """Decide; returns what is done, in words."""
        wanted, alarms, again = self.config.on_alarm, self._open(looked.alarms), self._again(looked)
        if not (alarms or again) or wanted == "warn":
            return "none" if wanted == "warn" or not looked.alarms else "none: it is charged for already"
        if wanted == "raise_kl":
            return self.trainer.raise_kl()
        if wanted == "rollback":
            self.turns_back = True
            self.holes += [[v.name, v.cause] for v in alarms if [v.name, v.cause] not in self.holes]
            new = self._close([v.cause for v in (*alarms, *again)])
            self.raises_kl = not new
            if self.rollbacks < MOST_ROLLBACKS:
                return f"back to the last clean checkpoint, {f'and {named(new)} costs from here on what it was paid' if new else 'with a dearer KL'}"
            return f"back to the last clean checkpoint, and stop: {MOST_ROLLBACKS} rollbacks did not help"
        self.stops = True
        return "stop"

    def _close(self, causes: Sequence[str]) -> list[str]:
        """Charge for those of these causes that are forms which the reward pays for; returns them."""
        baseline = self.watch.baseline
        if baseline is None or not self.trainer.compares_siblings:
            return []
        paid = paid_causes(baseline, self.watch.now)
        return self.closed.close([cause for cause in causes if cause in paid], self.watch.now)

    def _again(self, looked: Looked) -> list[Verdict]:
        """What is on the way to an alarm for which the run has gone back before."""
        return [v for v in self._open(looked.verdicts) if v.level == "watch" and [v.name, v.cause] in self.holes]

    def _open(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Those that ask for something. What the reward as it was would pay for a form that is charged for is none: whether there is more of
        the form has a monitor of its own."""
        return [v for v in verdicts if not (v.name in EARNED and v.cause in self.closed.causes)]

    def _keep(self, name: str) -> None:
        trainer = self.trainer
        tensors, moments = trainer._tensors()
        with trainer.policy.gathered():
            trainer._write_checkpoint(trainer.folder / name, tensors, moments)
        processes.wait()

    def _prove(self, *, clean: bool) -> None:
        """The place that was kept before this round becomes the one to go back to, or is forgotten. clean: True for the first."""
        place = self.trainer.folder / UNPROVEN
        if processes.is_main() and place.exists():
            if clean:
                shutil.rmtree(self.trainer.folder / CLEAN, ignore_errors=True)
                place.rename(self.trainer.folder / CLEAN)
            else:
                shutil.rmtree(place)
        processes.wait()

    def _rounds(self) -> int:
        steps = self.trainer.steps_per_iteration
        return -(-self.trainer.total_steps() // steps)

    def _agreement(self) -> Measured | None:
        trainer = self.trainer
        plain = Renderer(trainer.processing_class, end_ids=trainer.renderer.end_ids)  # neither cuts nor counts
        with trainer.policy.gathered():
            return agreement(Weigher(trainer.policy, trainer.stack, plain, trainer.token_budget))

    def _ask_agreement(self, looked: Looked) -> Looked:
        """What was found, and whether the policy agrees more with what a user feels than its start did."""
        found = self._agreement() if self.agreed is not None else None
        if found is None or self.agreed is None:
            return looked
        verdict = sycophancy_verdict(self.agreed, found, self.watch.limits)
        before, self.agrees = self.agrees, verdict.level == "alarm"
        return looked.with_verdict(verdict, agreement_samples(self.agreed, found, SHOWN), risen=self.agrees and not before)

    # -- files ----------------------------------------------------------------------------------------------------------------------------

    def _write(self, looked: Looked, action: str, units: Sequence[Unit]) -> None:
        trainer, number = self.trainer, self.trainer.iteration + 1
        trainer.folder.mkdir(parents=True, exist_ok=True)
        write_text(
            trainer.folder / VERDICTS,
            json.dumps({"schema": 1, "iteration": number, "verdicts": looked.rows()}, ensure_ascii=False, indent=1) + "\n",
        )
        rollback = {"rollback": self.rollbacks + 1} if self.turns_back else {}
        rows = {row["name"]: row for row in looked.rows()}
        for verdict in (*looked.risen, *self._again(looked)):
            row = {"iteration": number, **rows[verdict.name], "action": action, **rollback}
            append_text(trainer.folder / ALARMS, _line(row))
            done = "" if action == "none" else f" Done: {action}."
            say(
                f"{'ALARM' if verdict.level == 'alarm' else 'On the way again'} in round {number}, {verdict.cause}: {verdict.words}{done} The answers that show it are in {trainer.folder / ALARMS}."
            )
        if self.config.labelling_queue and looked.risen:
            tasks = [task for verdict in looked.risen for task in to_label(verdict.name, rows[verdict.name]["samples"], units)]
            lines = [{**to_json(task), "columns": {**task.columns, "iteration": number, **rollback}} for task in tasks]
            append_text(trainer.folder / TO_LABEL, "".join(map(_line, lines)))

    def _answer_panel(self) -> None:
        """What the policy answers now where the start answered what stands in the panel, with the same draws."""
        trainer = self.trainer
        known = {prompt.id: prompt for prompt in trainer.prompts}
        prompts = [known[row["prompt_id"]] for row in self.panel if row["prompt_id"] in known]
        sampling = replace(trainer._sampling(0), num_samples=1)
        with trainer.policy.gathered():
            answered: list[Rollout] = processes.gather(trainer.held_out_sampler.sample(processes.share(prompts), sampling))
        now = {rollout.prompt_id: rollout.text for rollout in answered}
        if processes.is_main():
            rows = [
                {
                    "iteration": trainer.iteration + 1,
                    "prompt_id": row["prompt_id"],
                    "prompt": row["prompt"],
                    "start": row["text"],
                    "now": now[row["prompt_id"]],
                }
                for row in self.panel
                if row["prompt_id"] in now
            ]
            append_text(trainer.folder / DRIFT, "".join(map(_line, rows)))


def named(causes: Sequence[str]) -> str:
    """These in words: a, b and c."""
    return " and ".join(filter(None, (", ".join(causes[:-1]), causes[-1])))


def dearer(price: float) -> float:
    """A price of KL doubled, to `LEAST_PRICE` at least and `MOST_PRICE` at most; one that is above that stays."""
    return max(price, min(max(2.0 * price, LEAST_PRICE), MOST_PRICE))


def seen(units: Sequence[Unit]) -> list[Seen]:
    """The answers of a round as monitors see them."""
    found: list[Seen] = []
    for unit in units:
        lengths = [branch.num_counted for branch in unit.branches]
        policy = [float(part.sum()) for part in unit.data["old_logprobs"].split(lengths)]
        reference = [float(part.sum()) for part in unit.data["ref_logprobs"].split(lengths)] if "ref_logprobs" in unit.data else None
        for index, (rollout, score) in enumerate(zip(unit.data["rollouts"], unit.data["scores"], strict=True)):
            count = max(lengths[index], 1)
            found.append(
                Seen(
                    rollout.prompt_id,
                    _asked(rollout),
                    rollout.text,
                    rollout.completion_ids,
                    rollout.finish_reason == "stop",
                    reward=score.value,
                    heldout=score.parts.get("heldout"),
                    disagreement=score.parts.get("disagreement"),
                    kl=None if reference is None else policy[index] - reference[index],
                    reference_nll=None if reference is None else -reference[index] / count,
                    surprise=-policy[index] / count,
                    benign=not harmful(rollout),
                )
            )
    return found


def harmful(rollout: Rollout) -> bool:
    """Whether the row says that its prompt asks for harm: a column `harmful` that is true, or `slice` or `type` with that word."""
    columns = rollout.columns
    return bool(columns.get("harmful")) or any(columns.get(name) == "harmful" for name in ("slice", "type"))


def to_label(alarm: str, samples: Sequence[dict[str, Any]], units: Sequence[Unit]) -> list[Task]:
    """Questions for people: each answer that shows an alarm beside another answer to its prompt, where there is a different one."""
    found: list[Task] = []
    by_prompt = {unit.id: unit.data["rollouts"] for unit in units}
    for sample in samples:
        siblings: list[Rollout] = by_prompt.get(sample["prompt_id"], [])
        other = next((r.text for r in siblings if r.text != sample["text"] and r.text.strip()), None)
        if other is None or not sample["text"].strip():
            continue
        completions = tuple(Completion((Message("assistant", text),)) for text in (sample["text"], other))
        prompt = siblings[0].prompt
        found.append(Task(task_id("pair", prompt, completions), "pair", prompt, completions, columns={"alarm": alarm}))
    return found


def _start_of(unit: Unit) -> dict[str, str]:
    first: Rollout = unit.data["rollouts"][0]
    return {"prompt_id": unit.id, "prompt": _asked(first), "text": first.text}


def _asked(rollout: Rollout) -> str:
    return rollout.prompt[-1].content if rollout.prompt else ""


def _line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
