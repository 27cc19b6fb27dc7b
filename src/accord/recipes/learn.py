"""A policy that learns from each preference as it is given: two answers, a choice, and a few steps of DPO on it and on those before it.

What was asked, answered and preferred lies in a project's store beside the adapter, and everything shown is worked out from there. So a
learner that was killed goes on from its last checkpoint and learns again what it had learned since.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from accord.annotation.project import Project
from accord.annotation.results import Assignment
from accord.annotation.store import Store
from accord.config.dpo import DPOConfig
from accord.config.options import ChatOptions, LearnOptions, TrainOptions
from accord.data.annotation_examples import examples_of
from accord.data.packing import Branch, Unit, pack
from accord.data.snapshots import PROJECT
from accord.errors import ConfigError
from accord.methods.live_dpo import LiveDPO
from accord.models.adapters import Want
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.models.save import adapter_hash, base_hash
from accord.objectives.segments import segment_sum
from accord.recipes.conversation import checked, fitted, two_answers
from accord.recipes.learn_state import Look, State, asked_of
from accord.recipes.partner import Kept, Partner, Watch
from accord.recipes.train import plan_memory
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.setup import short_name
from accord.types import Annotation, Completion, Message, Rollout, Task, task_id

LABELS = "labels"
"""The project, in the run's folder."""
PROBE = "Why is it good to sleep enough?"
"""Asked at the start and again and again, unless --prompt says otherwise."""
SAVE_EVERY = 10
"""Preferences from one checkpoint to the next, and the most that a killed run learns again."""
LOOK_EVERY = 5
"""Preferences after which the fixed prompt is answered again, once nothing else waits."""
LATEST_LOOK = 15
"""Preferences after which it does not wait any longer."""


class Learner(Partner):
    """A model, the adapter that learns, and the store of what it learns from. Threads may share it: one at a time runs the model.

    Args:
        opened: the model to start from, which stays the reference.
        project: where questions, answers and preferences lie.
        store: the project's, opened.
        chat: how answers are drawn; the first prompt is the fixed one.
        options: how the adapter learns.
        config: of its trainer, with the run's folder.
    Raises:
        ConfigError: if the folder's run was started from something else, or answers would be the same at each draw.
    """

    kind = "learn"
    places = 2

    def __init__(self, opened: Opened, project: Project, store: Store, chat: ChatOptions, options: LearnOptions, config: DPOConfig) -> None:
        if chat.temperature == 0:
            raise ConfigError("accord chat --learn needs two different answers: give a --temperature above 0.")
        if chat.prompt and len(chat.prompt) > 1:
            raise ConfigError("accord chat --learn shows the answer to one --prompt at the start and now; more are given.")
        self.opened, self.project, self.store, self.chat, self.options = opened, project, store, chat, options
        self.title = chat.model
        lora = lora_config(opened.policy, rank=options.lora_r, alpha=2 * options.lora_r, layers=options.lora_layers)
        start = [base_hash(opened.policy)[:16], *(adapter_hash(opened.policy, name)[:16] for name in opened.stack)]
        self.trainer = LiveDPO(
            opened.policy,
            config,
            tokenizer=opened.tokenizer,
            peft_config=lora,
            start=opened.stack,
            made_of={"model": " + ".join(start), "lora_r": options.lora_r, "lora_layers": options.lora_layers},
        )
        self.model = threading.RLock()
        """Held by whoever runs or changes the model."""
        self.probe = chat.prompt[0] if chat.prompt else PROBE
        self._labels: dict[str, Annotation] = {}
        self._listing = threading.Lock()
        self._units: dict[str, Unit] = {}
        self._steps_on: dict[str, int] = {}
        self._samplers: dict[tuple[str, ...], LocalSampler] = {}
        self._asked = asked_of(store.tasks())
        self._at_start: Look | None = None
        self._now: Look | None = None
        self._learned_at_look = 0
        self.went_on = self.trainer.begin()
        self.sync()

    @property
    def kept(self) -> Kept:
        """The project and its store."""
        return Kept(self.project, self.store)

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.trainer.folder

    # -- asking and preferring --------------------------------------------------------------------------------------------------------------

    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Assignment:
        """Two different answers of the policy as it is now, stored as a task that is kept for whoever asked.

        Args:
            messages: turns of the user and the assistant by turns, from and to the user's. Old ones are left out where the model has no
                positions for them.
            watch: sees the answers grow, at the places where they will stand.
        Raises:
            DataError: if the turns are none, or the policy says the same again and again.
            ConfigError: if the last turn is too long for the model.
        """
        turns = checked(messages)
        system = [Message("system", self.chat.system)] if self.chat.system else []
        with self.model:
            prompt, ids = fitted(self.opened, [*system, *turns], self.chat.max_new_tokens)
            number = len(self._asked)
            order = shuffled(2, "places", self.chat.seed, number)
            pair = two_answers(self._sampler(self.trainer.prepared.stack), prompt, ids, self._sampling(number, 2), order, watch)
            gains = self._gains(pair)
            clicks = len(self._labels)
            answers = tuple(self._completion(rollout, gain, clicks) for rollout, gain in zip(pair, gains, strict=True))
            # The number keeps apart a pair that comes a second time.
            task = Task(f"{task_id('pair', tuple(prompt), answers)}.{number}", "pair", tuple(prompt), answers)
            self.store.add_tasks([task])
            self._asked += asked_of([task])
        return self.store.take(annotator, task.id, order)

    def prefer(
        self, annotator: str, assignment: Assignment, submission: str, choice: int | str, *, seconds: float | None = None
    ) -> Annotation:
        """Store which answer is better, to be learned from: its place in the task, or "tie". Raises as `Store.submit`."""
        task, token = assignment.task.id, assignment.token
        stored = self.store.submit(annotator, task, token, submission, "pair", {"choice": choice}, seconds=seconds)
        self.sync()
        return stored

    def undo(self, annotator: str, submission: str) -> Assignment | None:
        """Take the newest preference back: it is not used again, and what was learned from it stays learned. Raises as `Store.undo`."""
        found = self.store.undo(annotator, submission)
        self.sync()
        return found

    def sync(self) -> None:
        """See which preferences stand in the store, also those that another page put there."""
        with self._listing:
            found = self.store.annotations(kind="pair")
            self._labels = {label.id: label for label in found if label.value.get("choice") in (0, 1, "tie")}

    # -- learning ---------------------------------------------------------------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """Ids of the preferences that nothing was learned from yet, the oldest first."""
        done = set(self.trainer.learned)
        return [key for key in self._labels if key not in done]

    def step(self) -> dict[str, float] | None:
        """One optimizer step on the oldest preference that waits and some of those before it; None when none waits.

        Raises:
            DivergedError: if the loss is not finite; the weights are as they were.
        """
        with self.model:
            labels = self._labels
            key = next(iter(self.waiting()), None)
            if key is None or key not in labels:
                return None
            self._steps_on[key] = self._steps_on.get(key, 0) + 1
            values = self.trainer.learn([self._unit(labels[each]) for each in (key, *self._replayed(labels))], self._moved())
            if self._steps_on[key] == self.options.steps:
                self.trainer.learned.append(key)
                if len(self.trainer.learned) % SAVE_EVERY == 0:
                    self.trainer.save_checkpoint()
            return values

    def look(self) -> None:
        """Answer the fixed prompt as the policy is now, and the first time as it was at the start."""
        with self.model:
            if self._at_start is None:
                self._at_start = self._looked(self.trainer.prepared.reference, 0)
            self._now = self._looked(self.trainer.prepared.stack, self.trainer.global_step)
            self._learned_at_look = len(self.trainer.learned)

    @property
    def look_is_due(self) -> bool:
        """Whether the policy has moved enough since the fixed prompt was answered last."""
        return self._now is None or len(self.trainer.learned) - self._learned_at_look >= LOOK_EVERY

    @property
    def look_is_late(self) -> bool:
        """Whether it has moved so far since then that questions wait for the look."""
        return self._now is not None and len(self.trainer.learned) - self._learned_at_look >= LATEST_LOOK

    def save(self) -> Path:
        """Freeze the labels, and write adapter, lineage and a checkpoint to go on from; returns the run's folder."""
        with self.model:
            learned = [self._labels[key] for key in self.trainer.learned if key in self._labels]
            self.trainer.rows = [example.id for label in learned for example in self._examples(label)]
            if self._labels:
                frozen = self.project.freeze(self.store, replace_old=True)
                self.trainer.snapshots = {"train_dataset": [frozen.hash]}
            self.trainer.save()
        return self.folder

    def close(self) -> str:
        """Save, and close the store."""
        try:
            return f"Saved in {self.save()}. Opening the same again goes on from there."
        finally:
            self.store.close()

    def state(self) -> State:
        """Where it stands."""
        return State(
            clicks=len(self._labels),
            waiting=len(self.waiting()),
            steps=self.trainer.global_step,
            asked=tuple(self._asked),
            probe=self.probe,
            at_start=self._at_start,
            now=self._now,
            problem=self.problem,
        )

    # -- inside -----------------------------------------------------------------------------------------------------------------------------

    def _sampling(self, step: int, num_samples: int) -> SamplingConfig:
        chat = self.chat
        top_p = 1.0 if chat.top_p is None else chat.top_p
        return SamplingConfig(chat.max_new_tokens, num_samples, chat.temperature, top_p=top_p, seed=chat.seed, step=step)

    def _sampler(self, stack: Sequence[str]) -> LocalSampler:
        """The one for this stack: it merges and reorders the weights as they are at each call, which a few tokens make up for."""
        if tuple(stack) not in self._samplers:
            self._samplers[tuple(stack)] = LocalSampler(self.opened.policy, self.opened.renderer, stack)
        return self._samplers[tuple(stack)]

    @torch.no_grad()
    def _gains(self, pair: Sequence[Rollout]) -> list[float]:
        """log pi - log ref of each answer, both as sampled from: at the chat's temperature."""
        policy, prepared = self.opened.policy, self.trainer.prepared
        unit = Unit(pair[0].prompt_ids, tuple(Branch(rollout.completion_ids) for rollout in pair))
        self.trainer.keep_lower_states([unit])
        batch = pack([unit], policy.device)
        sums: list[torch.Tensor] = []
        for stack in (prepared.stack, prepared.reference):
            logprobs = policy.forward(batch, stack, Want(logprobs=True), temperature=self.chat.temperature).logprobs
            assert logprobs is not None
            sums.append(segment_sum(logprobs, batch.completion, len(pair)))
        return (sums[0] - sums[1]).tolist()

    def _completion(self, rollout: Rollout, gain: float, clicks: int) -> Completion:
        source: dict[str, Any] = {"kind": "sample", "model": self.chat.model, "seed": self.chat.seed, "step": self.trainer.global_step}
        source |= {"clicks": clicks, "kl_nats": round(gain, 4), "ids": list(rollout.completion_ids)}
        return Completion((Message("assistant", rollout.text),), rollout.finish_reason == "stop", source)

    def _moved(self) -> dict[str, float]:
        """KL and length of the newest answers, under the names that they have in other runs' metrics."""
        newest = self.state().newest
        return {} if newest is None else {"objective/kl": newest.kl_nats, "completions/mean_length": newest.tokens}

    def _looked(self, stack: Sequence[str], step: int) -> Look:
        system = [Message("system", self.chat.system)] if self.chat.system else []
        prompt, ids = fitted(self.opened, [*system, Message("user", self.probe)], self.chat.max_new_tokens)
        (rollout,) = self._sampler(stack).sample([Prompt("probe", tuple(ids), tuple(prompt))], self._sampling(-1, 1))
        return Look(rollout.text, len(rollout.completion_ids), step)

    def _replayable(self, labels: dict[str, Annotation]) -> list[str]:
        """The newest preferences that were learned from and still stand."""
        learned = [key for key in self.trainer.learned if key in labels]
        return learned[max(0, len(learned) - self.options.replay) :]

    def _replayed(self, labels: dict[str, Annotation]) -> list[str]:
        """The others of a step."""
        pool = self._replayable(labels)
        drawn = shuffled(len(pool), "replay", self.chat.seed, self.trainer.global_step)[: self.options.pairs - 1]
        return [pool[index] for index in drawn]

    def _unit(self, label: Annotation) -> Unit:
        """A preference as the trainer takes it, made once for as long as it may be replayed."""
        if label.id not in self._units:
            self._units = {key: self._units[key] for key in self._replayable(self._labels) if key in self._units}
            self._units[label.id] = self._made(label)
        return self._units[label.id]

    def _made(self, label: Annotation) -> Unit:
        """On the very tokens that were sampled."""
        (example,) = self._examples(label)
        sampled = [completion.source.get("ids") for completion in example.completions]
        if not all(sampled):  # of a task that came from elsewhere
            return self.opened.renderer.unit(example)
        prompt = tuple(self.opened.renderer.prompt_ids(example.prompt))
        return Unit(prompt, tuple(Branch(tuple(ids)) for ids in sampled), example.id, {"example": example})

    def _examples(self, label: Annotation) -> list[Any]:
        return examples_of(label, self.store.task(label.task))


def open_learner(chat: ChatOptions, options: LearnOptions, *, runs: Path = Path("runs")) -> Learner:
    """Open the model, and the run's folder with its project; a new one is made. Close the learner at the end.

    Args:
        runs: where the run's folder is made if the options name none.
    Raises:
        ConfigError, DataError, MachineError: if something given is wrong, or cannot be opened.
    """
    config = DPOConfig(
        learning_rate=options.learning_rate,
        beta=options.beta,
        lr_scheduler_type="constant",
        per_device_train_batch_size=options.pairs,
        save_total_limit=2,
        cache_reference=False,
        seed=chat.seed,
    )
    training = TrainOptions(chat.model, lora_r=options.lora_r, lora_layers=options.lora_layers, force=chat.force)
    opened = open_model(
        chat.model,
        accept_licence=chat.accept_licence,
        before_loading=lambda found: plan_memory(found, training, config),
        weights=lambda: config.weights,
    )
    folder = Path(options.output_dir or runs / f"learn-{_short(chat.model, opened)}")
    config.output_dir = str(folder)
    labels = folder / LABELS
    if (labels / PROJECT).is_file():
        project = Project(labels)
    else:
        project = Project.new(labels, name=folder.name, gold_rate=0.0, repeat_rate=0.0, heldout=0.0)
    store = project.open_store()
    try:
        return Learner(opened, project, store, chat, options, config)
    except BaseException:
        store.close()
        raise


def _short(model: str, opened: Opened) -> str:
    return Path(model).name.lower() if opened.stack else short_name(opened.policy)
