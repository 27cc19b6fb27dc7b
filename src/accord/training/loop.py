"""The one training loop: totals of the whole step first, then micro-batches by a token budget, then one optimizer step.

Every loss is a local sum divided by a total over the whole step and all processes, so neither the split into micro-batches nor the
number of processes changes anything but rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from accord.config.base import TrainingConfig
from accord.data.packing import Unit, pack_by_budget
from accord.errors import ConfigError, DataError, DivergedError
from accord.models.sharding import part_like, whole
from accord.training import checkpoint, generators, lineage, processes
from accord.training.best import Best, check_can_evaluate
from accord.training.budget import token_budget
from accord.training.callbacks import Callbacks
from accord.training.interrupts import Interrupts
from accord.training.metrics import Metrics
from accord.training.optimizer import MOMENTS, build_optimizer, moments_of, restore_moments
from accord.training.progress import Progress
from accord.training.setup import Prepared, say
from accord.training.trackers import Trackers
from accord.writing import append_text, write_text

if TYPE_CHECKING:
    from transformers import TrainerState


@dataclass
class StepBatch:
    """What one optimizer step learns from, over all processes."""

    units: Sequence[Unit]
    epoch: float = 0.0
    boundary: bool = True
    """True: after this step the run can be saved and resumed. False: an online method is still using this iteration's rollouts."""
    metrics: dict[str, float] = field(default_factory=dict)
    """More to log with this step, already reduced."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run was saved. `args[0]` is the checkpoint."""


class Loop:
    """A trainer: subclasses say what a step is made of and what it costs.

    Subclasses implement `parameters`, `total_steps`, `batches`, `totals` and `loss`, and may implement `statistics`, `evaluate`,
    `method_state`, `load_method_state` and `write_model`.
    """

    metric_names: Sequence[str] = ("loss",)
    """What the progress line shows."""
    best_metric: str = "eval_loss"
    """What makes an evaluation the best one, unless `metric_for_best_model` says otherwise."""

    def __init__(self, config: TrainingConfig, prepared: Prepared, callbacks: Iterable[Any] = ()) -> None:
        processes.start()
        self.config = config
        self.prepared, self.folder = prepared, prepared.folder
        self.policy, self.renderer, self.processing_class = prepared.policy, prepared.renderer, prepared.tokenizer
        self.model = self.policy.peft if self.policy.peft is not None else self.policy.model
        self.global_step = 0
        self.epoch = 0.0
        self.log_history: list[dict[str, Any]] = []
        self.best = Best(config.metric_for_best_model or self.best_metric, config.early_stopping_patience)
        self.token_budget = token_budget(config, prepared.policy)
        self.num_tokens = 0
        self._stop = False
        self._last: dict[str, Any] | None = None
        self._saved_step = self._evaluated_step = 0
        self.callbacks = Callbacks(self, callbacks)
        self.trackers = Trackers(config)
        self.optimizer: torch.optim.Optimizer | None = None

    # -- for subclasses -----------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by a name that stays the same when the run is resumed."""
        raise NotImplementedError

    def total_steps(self) -> int:
        raise NotImplementedError

    def batches(self, start: int) -> Iterator[StepBatch]:
        """One item an optimizer step, from step `start` on."""
        raise NotImplementedError

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        """This process's part of the step's normalisers."""
        raise NotImplementedError

    def statistics(self, units: Sequence[Unit], totals: dict[str, float]) -> dict[str, float]:
        """Sums over the whole step that a loss needs before any backward, without gradient. Reduced over processes."""
        return {}

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        """The loss of some of the step's units: a sum over them divided by `totals` (which hold `statistics` too)."""
        raise NotImplementedError

    def losses(self, units: Sequence[Unit], totals: dict[str, float]) -> Iterator[tuple[Tensor, Metrics]]:
        """Losses that are differentiated one after the other: a backward never spans two adapter stacks. Usually one."""
        yield self.loss(units, totals)

    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out data, named `eval_...`; empty when there are none."""
        return {}

    def can_evaluate(self) -> bool:
        """True when there are held-out rows."""
        return False

    def derived(self, values: dict[str, float]) -> dict[str, float]:
        """Metrics that are computed from other, reduced ones."""
        return {}

    def method_state(self) -> dict[str, Any]:
        """JSON-able state of the method beyond parameters and optimizer."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """The inverse of `method_state`."""

    def write_model(self, folder: Path) -> None:
        """Write what a user would load. Called on one process, with whole weights."""

    def data_ids(self) -> dict[str, list[str]]:
        """Content hashes of the rows this run learns from, by dataset: for the lineage."""
        return {}

    def data_snapshots(self) -> dict[str, list[str]]:
        """Hashes of the project snapshots that those rows came from, by dataset: for the lineage."""
        return {}

    def surroundings(self) -> dict[str, Any]:
        """What a resumed run must share with the one that was stopped to go on bit for bit."""
        return {**checkpoint.surroundings(), "weights": self.policy.held}

    def before_training(self) -> None:
        """Checks and precomputation, before step 0 and before the weights of a checkpoint are read."""

    # -- the loop -------------------------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None) -> dict[str, Any]:
        """Train to the end. Returns the last metrics.

        Args:
            resume_from_checkpoint: True takes this run's last checkpoint, a path takes that one, None starts fresh.
        Raises:
            Interrupted: after Ctrl-C, once the run is saved.
            DivergedError: if the loss or the gradient is not finite.
        """
        check_can_evaluate(self.config, has_rows=self.can_evaluate())
        wanted = resume_from_checkpoint if resume_from_checkpoint is not None else self.config.resume_from_checkpoint
        source = checkpoint.find(self.folder, wanted)
        if source is not None and self.config.output_dir is None:
            self.folder = self.prepared.folder = source.parent  # the run goes on where it is
        if source is not None:
            self._keep_token_budget(source)
        elif self.global_step == 0 and (old := checkpoint.folders(self.folder)):
            raise ConfigError(
                f"{self.folder} holds {old[-1].name} of an earlier run, and the two would mix. Go on from it (--resume_from_checkpoint true), "
                "name another output_dir, or delete the folder."
            )
        with self.policy.gathered():
            self.before_training()
        self._shard()
        self._build_optimizer()
        if source is not None:
            self._resume(source)
        self._open_metrics()
        self.trackers.open(self.folder)
        self._last = None
        self._write_lineage()
        self.callbacks.call("on_train_begin")
        last: dict[str, Any] = {}
        at_boundary = True
        with Interrupts() as interrupts, Progress(self.total_steps(), self.global_step, self.num_tokens, self.metric_names) as progress:
            started = time.perf_counter()
            for step_batch in self.batches(self.global_step):
                self.callbacks.before_step()
                last = {**self.train_step(step_batch), **step_batch.metrics}
                last["step_seconds"] = time.perf_counter() - started
                at_boundary = step_batch.boundary
                self._after_step(step_batch, last, progress)
                started = time.perf_counter()
                # All processes leave at the same step, whichever of them got the signal.
                if step_batch.boundary and any(processes.gather_objects(interrupts.wanted)):
                    raise Interrupted(str(self.save_checkpoint()))
                if (self._stop and step_batch.boundary) or self.global_step >= self.total_steps():
                    break
        # Where max_steps cuts an iteration short, the last checkpoint stays the one before it: there is no going on from its middle.
        if self.config.save_steps and self._saved_step != self.global_step and at_boundary:
            self.save_checkpoint()
        if self.config.load_best_model_at_end and self.best.checkpoint:
            self._load_tensors(checkpoint.read(self.folder / self.best.checkpoint)[0])
        self._last = last or next((row for row in reversed(self.log_history) if "grad_norm" in row), {})
        self._write_lineage()
        self.trackers.close()
        self.callbacks.call("on_train_end")
        return last

    def train_step(self, step_batch: StepBatch) -> dict[str, float]:
        """One optimizer step. Returns reduced metrics; the gradient norm is before clipping."""
        assert self.optimizer is not None
        units = processes.share(step_batch.units)
        totals = processes.total(self.totals(units))
        totals |= processes.total(self.statistics(units, totals))
        metrics = Metrics()
        self.optimizer.zero_grad(set_to_none=True)
        for part, counts in self._in_step(self.micro_batches(units), step_batch.units):
            for loss, part_metrics in self.losses(part, totals):
                if loss.requires_grad:
                    (loss if counts else 0.0 * loss).backward()
                if counts:
                    metrics.total("loss", loss.detach())
                    metrics.merge(part_metrics)
            if counts:
                metrics.total("tokens", sum(unit.num_tokens for unit in part))
        parameters = list(self.parameters().values())
        processes.sum_gradients(parameters)
        norm = processes.gradient_norm(parameters)
        values = metrics.compute()
        if not math.isfinite(norm) or not math.isfinite(values.get("loss", 0.0)):
            raise DivergedError(
                f"Step {self.global_step + 1}: the loss is {values.get('loss')} and the gradient norm {norm}. The weights of the last step are kept. "
                "Lower learning_rate, or look for extreme rewards or empty rows in the data."
            )
        limit = self.config.max_grad_norm
        if limit and norm > limit:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(limit / (norm + 1e-6))
        rate = self.learning_rate(self.global_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        self.global_step += 1
        self.epoch = step_batch.epoch
        self.num_tokens += int(values.pop("tokens", 0))
        values |= self.derived(values)
        return {**values, "grad_norm": norm, "learning_rate": rate, "num_tokens": float(self.num_tokens)}

    def micro_batches(self, units: Sequence[Unit]) -> list[list[Unit]]:
        """Units put together as the token budget allows, in any order: losses, statistics and metrics are sums over the step.

        Processes may have different numbers of them: gradients meet after the last one.
        """
        return pack_by_budget(units, self.token_budget)

    def _in_step(self, parts: list[list[Unit]], units: Sequence[Unit]) -> Iterator[tuple[list[Unit], bool]]:
        """Micro-batches, and whether they count. Where weights are split over processes, each passes through the model as often as the
        one that has most to do."""
        passes = len(parts) if self.policy.sharding is None else max(processes.gather_objects(len(parts)))
        yield from ((part, True) for part in parts)
        for _ in range(passes - len(parts)):
            yield [min(units, key=lambda unit: unit.num_tokens)], False

    def learning_rate(self, step: int) -> float:
        """The rate of a step (0-based): a pure function, so there is no scheduler state. Warm-up, then constant, linear or cosine to 0."""
        config, total = self.config, max(self.total_steps(), 1)
        base = float(config.learning_rate or 0.0)
        warmup = math.ceil(config.warmup_ratio * total)
        if step < warmup:
            return base * step / max(1, warmup)
        share = (step - warmup) / max(1, total - warmup)
        if config.lr_scheduler_type == "linear":
            return base * max(0.0, 1.0 - share)
        if config.lr_scheduler_type == "cosine":
            return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
        return base

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups; a group's `scale` multiplies the learning rate."""
        return [{"params": list(self.parameters().values())}]

    def _shard(self) -> None:
        if not self.config.fully_shard:
            return
        if processes.active():
            self.policy.shard()
        else:
            say("fully_shard: one process has all the weights; start several with torchrun to split them.")

    def _build_optimizer(self) -> None:
        if not self.parameters():
            raise DataError("Nothing to train: no parameter requires a gradient. Give a peft_config, or unfreeze the model.")
        self.optimizer = build_optimizer(self.parameter_groups(), self.config)

    # -- after a step ---------------------------------------------------------------------------------------------------------------

    def _after_step(self, step_batch: StepBatch, metrics: dict[str, Any], progress: Progress) -> None:
        config = self.config
        row = {"step": self.global_step, "epoch": round(self.epoch, 6), **metrics}
        self.callbacks.after_step(boundary=step_batch.boundary)
        if config.logging_steps and (self.global_step % config.logging_steps == 0 or step_batch.metrics):
            self.log(row)
        progress.advance(self.global_step, row)
        if not step_batch.boundary:
            return
        if config.eval_steps and self._due(config.eval_steps, self._evaluated_step):
            self.evaluate_and_compare()
        if config.save_steps and self._due(config.save_steps, self._saved_step):
            self.save_checkpoint()

    def _due(self, every: int, last: int) -> bool:
        """At the first boundary at or after each multiple. Not read from the disk, which another process may be ahead on."""
        return self.global_step // every > last // every

    def evaluate_and_compare(self) -> None:
        """Evaluate and log; save the run when it was never better, end it when its patience is at an end."""
        self._evaluated_step = self.global_step
        values = self.evaluate()
        if not values:
            return
        self.log({"step": self.global_step, "epoch": round(self.epoch, 6), **values})
        self.callbacks.call("on_evaluate", metrics=values)
        try:
            better = self.best.consider(values, self.global_step)
        except ConfigError as error:
            raise ConfigError(f"{error} The run is saved in {self.save_checkpoint()}: resume it with another name.") from error
        if better and (self.config.load_best_model_at_end or self.config.save_steps):
            self.best.checkpoint = self._checkpoint_folder().name
            self.save_checkpoint()
        if self.best.exhausted:
            self.stop()

    def stop(self) -> None:
        """End training after the current step (of an online method: iteration)."""
        self._stop = True

    @property
    def state(self) -> TrainerState:
        """Where the run stands, as transformers' trainers and callbacks know it."""
        from transformers import TrainerState

        best = self.best
        return TrainerState(
            epoch=self.epoch,
            global_step=self.global_step,
            max_steps=self.total_steps(),
            logging_steps=self.config.logging_steps,
            eval_steps=self.config.eval_steps,
            save_steps=self.config.save_steps,
            num_input_tokens_seen=self.num_tokens,
            log_history=self.log_history,
            best_metric=best.value,
            best_global_step=best.step,
            best_model_checkpoint=str(self.folder / best.checkpoint) if best.checkpoint else None,
            is_local_process_zero=processes.is_local_main(),
            is_world_process_zero=processes.is_main(),
        )

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl and `log_history`, once over all processes."""
        self.log_history.append(row)
        if processes.is_main():
            append_text(self.folder / "metrics.jsonl", json.dumps(row, ensure_ascii=False) + "\n")
        self.trackers.log(row)
        self.callbacks.call("on_log", logs=row)

    # -- checkpoints ------------------------------------------------------------------------------------------------------------------

    def _checkpoint_folder(self) -> Path:
        return self.folder / f"checkpoint-{self.global_step}"

    def save_checkpoint(self) -> Path:
        """Everything needed to go on as if nothing had happened. Returns its folder."""
        folder = self._checkpoint_folder()
        tensors, moments = self._tensors()
        with self.policy.gathered():
            self._write_checkpoint(folder, tensors, moments)
        self._saved_step = self.global_step
        processes.wait()
        self.callbacks.call("on_save")
        return folder

    def _write_checkpoint(self, folder: Path, tensors: dict[str, Tensor], moments: dict[str, float]) -> None:
        if processes.is_main():
            state = {
                "global_step": self.global_step,
                "epoch": self.epoch,
                "num_tokens": self.num_tokens,
                "max_steps": self.total_steps(),
                "token_budget": self.token_budget,
                "log_history": self.log_history,
                "best": self.best.state(),
                "optimizer_steps": moments,
                "generators": generators.states(),
                "surroundings": self.surroundings(),
                "method": self.method_state(),
            }
            checkpoint.write(folder, tensors, state, extra=self.write_model)
            checkpoint.prune(self.folder, self.config.save_total_limit, self.best.checkpoint)

    def _tensors(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What a checkpoint holds, whole; processes put it together, and the one that writes it has it."""
        assert self.optimizer is not None
        tensors: dict[str, Tensor] = {}
        steps: dict[str, float] = {}
        for name, parameter in self.parameters().items():
            moments = moments_of(self.optimizer, parameter)
            if moments:
                steps[name] = float(self.optimizer.state[parameter]["step"])
            for kind, tensor in {"parameter": parameter, **moments}.items():
                found = whole(tensor)
                if processes.is_main():
                    tensors[f"{kind}/{name}"] = found
        tensors |= {f"buffer/{name}": value for name, value in self.buffers().items()}
        return tensors, steps

    def buffers(self) -> dict[str, Tensor]:
        """Tensors of the method that are not trained but belong to its state."""
        return {}

    def _load_tensors(self, tensors: dict[str, Tensor], steps: dict[str, float] | None = None) -> None:
        assert self.optimizer is not None
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                if f"parameter/{name}" not in tensors:
                    raise DataError(f"The checkpoint has no {name}: it was made with another model or adapter. Start a new run.")
                parameter.copy_(part_like(tensors[f"parameter/{name}"], parameter))
                if steps is not None and name in steps:
                    found = {kind: tensors[f"{kind}/{name}"] for kind in MOMENTS if f"{kind}/{name}" in tensors}
                    restore_moments(self.optimizer, parameter, found, steps[name])
            for name, buffer in self.buffers().items():
                buffer.copy_(tensors[f"buffer/{name}"])

    def _keep_token_budget(self, folder: Path) -> None:
        """That of the run that is resumed, whatever is free now: other micro-batches would be rounded otherwise."""
        kept = int(checkpoint.read_state(folder)["token_budget"])
        if kept != self.token_budget:
            say(f"tokens_per_microbatch {kept}, as in the run that is resumed.")
        self.token_budget = self.config.tokens_per_microbatch = kept

    def _resume(self, folder: Path) -> None:
        tensors, state = checkpoint.read(folder)
        self.global_step = self._saved_step = self._evaluated_step = int(state["global_step"])
        self.epoch = float(state["epoch"])
        self.num_tokens = int(state["num_tokens"])
        self.log_history = list(state["log_history"])
        self.best.load(state["best"] or {})
        if self.best.checkpoint and folder.parent.resolve() != self.folder.resolve():
            self.best.checkpoint = str(folder.parent.resolve() / self.best.checkpoint)
        self._load_tensors(tensors, state["optimizer_steps"])
        generators.restore(state["generators"])
        self.load_method_state(state["method"])
        if processes.is_main():
            changed = [
                f"{key} {state['surroundings'].get(key)} -> {value}"
                for key, value in self.surroundings().items()
                if state["surroundings"].get(key) != value
            ]
            exact = "bit for bit" if not changed else "not bit for bit, because of " + ", ".join(changed)
            print(f"Resuming {folder} at step {self.global_step} of {self.total_steps()} ({exact}).")

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write what a user would load; once training is over and the model lies in the run's own folder, the run is finished."""
        folder = Path(output_dir or self.folder)
        with self.policy.gathered():
            if processes.is_main():
                self.write_model(folder)
        if folder.resolve() == self.folder.resolve():
            self.policy.origins |= {name: str(self.folder) for name in self.prepared.stack[len(self.prepared.reference) :]}
            if self._last is not None:
                self._write_lineage(finished=True)

    def _write_lineage(self, *, finished: bool = False) -> None:
        """`run.json`: before the first step, with the last metrics after the last one, finished with a model card once the model is saved."""
        if processes.is_main():
            record = lineage.record_of(self.config.method, self.prepared, self.config, self.data_ids(), self.data_snapshots())
            stands = {"finished": finished, "steps": self.global_step, "total_steps": self.total_steps()}
            lineage.write(self.folder, {**record, **stands, "metrics": self._last or {}})

    def _open_metrics(self) -> None:
        """Keep the rows up to the step we stand at: a killed run may have logged steps that its last checkpoint does not hold."""
        if processes.is_main():
            write_text(self.folder / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.log_history))
