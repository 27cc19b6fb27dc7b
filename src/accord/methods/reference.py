"""Reference log-probabilities of a dataset, computed once and kept on its units; and, for later runs, in the user's cache.

`ReferenceTrainer` is what the trainers that learn from them have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from accord.config.dpo import DPOConfig
from accord.config.kto import KTOConfig
from accord.data.packing import Unit, pack, split_by_budget
from accord.data.render import Renderer
from accord.errors import ConfigError, DivergedError, MachineError
from accord.methods.reference_cache import ReferenceCache, Values, row_hash, tokenizer_hash
from accord.models.adapters import PolicyModel, Stack, Want
from accord.models.fingerprint import model_fingerprint
from accord.objectives.segments import segment_sum
from accord.training import processes
from accord.training.known_arguments import explains_arguments
from accord.training.offline import OfflineTrainer
from accord.training.setup import Rows, say
from accord.types import content_hash


class ReferenceLogprobs:
    """Sums of log-probs over each completion under the reference policy.

    Args:
        policy: the model being trained; before its first step, `stack` on it is the reference.
        stack: the reference's adapters.
        ref_model: another model to use instead.
        renderer: made the rows.
        cache: True reads what earlier runs with the same reference have computed, and leaves what is new for later ones. False
            computes every row.
    """

    def __init__(self, policy: PolicyModel, stack: Stack, ref_model: Any, renderer: Renderer, *, cache: bool = True) -> None:
        self.is_start = ref_model is None
        self.model, self.stack, self.renderer, self.cached = policy, stack, renderer, cache
        self._cache: ReferenceCache | None = None
        if ref_model is not None:
            if ref_model is policy.model:
                raise ConfigError(
                    "model and ref_model are the same object: the reference would move with the policy. Leave ref_model out, or pass a copy."
                )
            self.model = ref_model if isinstance(ref_model, PolicyModel) else PolicyModel(ref_model)
            self.stack = tuple(self.model.adapters)

    def fill(self, units: Sequence[Unit], token_budget: int, *, moved: bool = False) -> None:
        """Set `unit.data["reference"]` to a tuple of floats, one a completion, where it is missing. Processes share the work.

        Args:
            token_budget: tokens a forward pass.
            moved: True: the base weights have been trained, so the model no longer is its own reference. False: they are as at the start.
        Raises:
            ConfigError: if the start of the policy is asked about new rows after its weights moved.
        """
        missing = [(row_hash(unit), unit) for unit in units if "reference" not in unit.data]
        if not missing:
            return
        if moved and self.is_start:
            raise ConfigError(
                "The reference is the model before training, whose weights full fine-tuning has changed. Give these rows as eval_dataset at the start, or pass ref_model."
            )
        values = self._read([row for row, _ in missing])
        if values:
            count = sum(row in values for row, _ in missing)
            say(
                f"reference log-probs of {count} rows read from the cache"
                + (f", {len(missing) - count} to compute." if count < len(missing) else ".")
            )
        new = {row: unit for row, unit in missing if row not in values}
        if new:
            values |= self._keep(dict(zip(new, self._compute(list(new.values()), token_budget), strict=True)))
        for row, unit in missing:
            unit.data["reference"] = values[row]

    @torch.no_grad()
    def check_start(self, policy: PolicyModel, stack: Stack, units: Sequence[Unit]) -> None:
        """Step 0: where the policy starts as its own reference, their log-probs must agree, on two of these units.

        Raises:
            DivergedError: if they do not.
        """
        known = [unit for unit in units if "reference" in unit.data][:2]
        if not self.is_start or not known:
            return
        batch = pack(known, policy.device)
        logprobs = policy.forward(batch, stack, Want(logprobs=True)).logprobs
        assert logprobs is not None
        sums = segment_sum(logprobs, batch.completion, batch.num_completions)
        reference = sums.new_tensor([value for unit in known for value in unit.data["reference"]])
        lengths = [branch.num_counted for unit in known for branch in unit.branches]
        check_same_policy(sums - reference, max(lengths), policy.dtype)

    @torch.no_grad()
    def _compute(self, units: list[Unit], token_budget: int) -> list[Values]:
        found: list[Values] = []
        for part in split_by_budget(processes.share(units), token_budget):
            batch = pack(part, self.model.device)
            logprobs = self.model.forward(batch, self.stack, Want(logprobs=True)).logprobs
            assert logprobs is not None
            sums = iter(segment_sum(logprobs, batch.completion, batch.num_completions).tolist())
            found += [tuple(next(sums) for _ in unit.branches) for unit in part]
        return processes.gather(found)

    # One process reads and writes the cache, so that all have the same values whatever other runs do meanwhile.

    def _read(self, rows: list[str]) -> dict[str, Values]:
        if not self.cached:
            return {}
        if self._cache is None and processes.is_main():
            self._cache = ReferenceCache(model_fingerprint(self.model, self.stack), tokenizer_hash(self.renderer))
        return processes.gather_objects(self._cache.read(rows) if self._cache else {})[0]

    def _keep(self, found: dict[str, Values]) -> dict[str, Values]:
        if not self.cached:
            return found
        finite = {row: values for row, values in found.items() if all(map(math.isfinite, values))}
        if self._cache is not None and finite:
            try:
                found |= self._cache.add(finite)
            except MachineError as error:
                say(f"The reference log-probs are not kept for later runs: {error}")
        return processes.gather_objects(found)[0]


class ReferenceTrainer(OfflineTrainer):
    """A trainer whose loss compares the policy with a reference on fixed rows.

    Args:
        ref_model: the reference policy; None takes the model before training (with adapters: the stack without the new one).
    """

    @explains_arguments
    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: DPOConfig | KTOConfig | None = None,
        train_dataset: Rows = None,
        eval_dataset: Rows = None,
        processing_class: Any = None,
        callbacks: Iterable[Any] | None = None,
        peft_config: Any = None,
        *,
        tokenizer: Any = None,
        columns: dict[str, str] | None = None,
        start: Stack | None = None,
    ) -> None:
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            callbacks,
            peft_config,
            tokenizer=tokenizer,
            columns=columns,
            start=start,
        )
        cache = cast("DPOConfig | KTOConfig", self.config).cache_reference
        self.reference = ReferenceLogprobs(self.policy, self.prepared.reference, ref_model, self.renderer, cache=cache)

    def compared(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """The units that the loss needs reference log-probs of."""
        return units

    def prepare_units(self, units: Sequence[Unit]) -> None:
        self.reference.fill(self.compared(units), self.token_budget, moved=self.prepared.full and self.global_step > 0)

    def before_training(self) -> None:
        super().before_training()
        if not self.config.skip_step0_checks:
            self.reference.check_start(self.policy, self.prepared.stack, self.compared(self.train_units))

    def surroundings(self) -> dict[str, Any]:
        return {**super().surroundings(), "reference": reference_digest(self.compared(self.train_units))}


def check_same_policy(gaps: Tensor, longest: int, dtype: torch.dtype) -> None:
    """Raise if policy and reference, which should be one model before the first step, are not.

    Args:
        gaps: log pi - log ref of whole answers, nats. (C,)
        longest: tokens of the longest of them.
        dtype: of the model: rounding is larger in half precision.
    Raises:
        DivergedError: if an answer differs by more than rounding.
    """
    gap = float(gaps.abs().max())
    limit = (1e-4 if dtype.itemsize >= 4 else 5e-2) * max(longest, 10)
    if not gap <= limit:
        raise DivergedError(
            f"Before the first step policy and reference differ by {gap:.2g} nat on {longest} tokens: the loss would not start at its known value. "
            "Check that ref_model is the model you start from and that the adapter is fresh; skip_step0_checks=True trains anyway."
        )


def reference_digest(units: Sequence[Unit]) -> str:
    """Hash of the reference log-probs on these units: the same when a run that is resumed goes on with the same values."""
    return content_hash([unit.data.get("reference") for unit in units])
