"""The fallback behind the same interface: one row per completion through the model's own attention, for models that cannot pack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from accord.data.packing import PackedBatch, places_of
from accord.models.answer_features import answer_features
from accord.models.checkpointing import checkpointing
from accord.objectives.logprobs import logprobs_from_logits
from accord.objectives.segments import at_least_fp32

if TYPE_CHECKING:
    from accord.models.adapters import Outputs, PolicyModel, Want


def forward_rows(policy: PolicyModel, batch: PackedBatch, stack: Sequence[str], want: Want, *, temperature: float = 1.0) -> Outputs:
    """The same outputs as the packed path, each completion run alone as [prompt; completion]: no padding, no mask, slower."""
    from accord.models.adapters import Outputs

    parts: dict[str, list[Tensor]] = {"logprobs": [], "entropy": [], "greedy": [], "states": []}
    ends: list[list[Tensor]] = [[] for _ in want.ends]
    completion = 0
    for span, unit in zip(batch.spans, batch.units, strict=True):
        start, prompt_end = span.prompt
        for (first, last), branch in zip(span.branches, unit.branches, strict=True):
            tokens = torch.cat((batch.tokens[: batch.prefix], batch.tokens[start:prompt_end], batch.tokens[first:last]))
            mine = batch.completion == completion
            sources, targets = batch.sources[mine], batch.targets[mine]
            rows = batch.prefix + torch.where(sources < prompt_end, sources - start, sources - first + (prompt_end - start))
            with policy.using(stack, packed=False), checkpointing(policy.model, policy.checkpointing):
                output = policy.model(input_ids=tokens[None], use_cache=False, output_hidden_states=want.states or bool(want.ends))
            logits = at_least_fp32(output.logits[0, rows]) / temperature
            if want.logprobs:
                parts["logprobs"].append(logprobs_from_logits(logits, targets))
                parts["greedy"].append(logits.gather(-1, targets[:, None])[:, 0] == logits.amax(-1))
            if want.entropy:
                log_p = logits.detach().log_softmax(-1)
                parts["entropy"].append(-(log_p.exp() * log_p).sum(-1))
            if want.states:
                parts["states"].append(output.hidden_states[-1][0, rows])
            for reading, found in zip(want.ends, ends, strict=True):
                last_layer = reading.layer in (None, policy.num_layers)
                hidden = output.hidden_states[-1] if last_layer else policy.final_norm(output.hidden_states[reading.layer])
                prompt = len(tokens) - (last - first)
                likely = output.logits.new_zeros(len(tokens), dtype=torch.float32)
                if reading.surprise:
                    near = at_least_fp32(output.logits[0, prompt - 1 : -1].detach())
                    likely[prompt:] = logprobs_from_logits(near, tokens[prompt:]).float()
                found.append(answer_features(hidden[0], places_of(prompt - 1, prompt, branch), reading, likely))
            completion += 1
    read = {name: torch.cat(values) if values else None for name, values in parts.items()}
    return Outputs(**read, ends=tuple(torch.cat(found) for found in ends))
