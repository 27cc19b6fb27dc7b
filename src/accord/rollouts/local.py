"""The local sampler: prompts encoded once, their cache shared out to the answers, finished rows leave the batch.

It drives the model's own forward through the packed-attention interface: a step decodes B rows as one packed axis of B tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accord.data.packing import Unit, pack
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.models.packed_attention import TreeLayout, grouped_attention
from accord.rollouts.random import uniform
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout


class LocalSampler:
    """Samples from the policy in this process.

    Args:
        policy: the model; its training weights are not touched.
        renderer: decodes ids to text, knows the end ids.
        stack: adapters to sample with.
        merge: True decodes from merged weights W + sBA (faster). False runs the adapters beside the base.
    """

    def __init__(self, policy: PolicyModel, renderer: Renderer, stack: Sequence[str], *, merge: bool = True) -> None:
        self.policy = policy
        self.renderer = renderer
        self.stack = tuple(stack)
        self.merge = merge

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        """`num_samples` rollouts for each prompt, siblings next to each other."""
        rows = [(prompt, index) for prompt in prompts for index in range(config.num_samples)]
        done: list[Rollout] = []
        packed = self.policy.packed
        with self.policy.merged(self.stack, packed=packed) if self.merge else self.policy.using(self.stack, packed=packed):
            for start in range(0, len(rows), config.max_batch):
                done += self._decode(rows[start : start + config.max_batch], config)
        return done

    def _decode(self, rows: list[tuple[Prompt, int]], config: SamplingConfig) -> list[Rollout]:
        if not self.policy.packed:
            return [self._decode_alone(prompt, index, config) for prompt, index in rows]
        cache, states = self._prefill(rows, config)
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        alive = list(range(len(rows)))
        for position in range(config.max_new_tokens):
            logits = self.policy.logits(states)
            draws = torch.tensor([uniform(config.seed, config.step, rows[r][0].id, rows[r][1], position) for r in alive], dtype=torch.float64)
            tokens, taken = draw(logits, draws.to(logits.device), config)
            for slot, (token, logprob) in enumerate(zip(tokens.tolist(), taken.tolist(), strict=True)):
                ids[alive[slot]].append(token)
                logprobs[alive[slot]].append(logprob)
            keep = [slot for slot, row in enumerate(alive) if ids[row][-1] not in self.renderer.end_ids]
            if not keep or position == config.max_new_tokens - 1:
                break
            if len(keep) < len(alive):
                cache.keep(keep)
                tokens = tokens[keep]
                alive = [alive[slot] for slot in keep]
            states = self._step(tokens, cache)
        return [self._rollout(prompt, index, ids[r], logprobs[r], config) for r, (prompt, index) in enumerate(rows)]

    def _prefill(self, rows: list[tuple[Prompt, int]], config: SamplingConfig) -> tuple[RowCache, Tensor]:
        """Encode each prompt of these rows once; returns their cache and the state that predicts each row's first token (B, d)."""
        order: dict[str, int] = {}
        for prompt, _ in rows:
            order.setdefault(prompt.id, len(order))
        first = {order[prompt.id]: prompt for prompt, _ in rows}
        units = [Unit(first[i].ids, ()) for i in range(len(order))]
        batch = pack(units, self.policy.device)
        owner = [order[prompt.id] for prompt, _ in rows]
        cache = RowCache(batch, owner, config.max_new_tokens)
        hidden = self._run(batch.tokens, batch.positions, cache)
        cache.start_decoding()
        last = torch.tensor([batch.spans[unit].prompt[1] - 1 for unit in owner], device=hidden.device)
        return cache, hidden[last]

    def _step(self, tokens: Tensor, cache: RowCache) -> Tensor:
        positions = cache.lengths.clone()
        hidden = self._run(tokens, positions, cache)
        cache.lengths += 1
        return hidden

    def _run(self, tokens: Tensor, positions: Tensor, layout: Any) -> Tensor:
        # The surrounding `merged` or `using` context has set adapters and attention already.
        output = self.policy.backbone(input_ids=tokens[None], position_ids=positions[None], use_cache=False, packed=layout)
        return output.last_hidden_state[0]

    def _decode_alone(self, prompt: Prompt, index: int, config: SamplingConfig) -> Rollout:
        """For models that cannot pack: one row through the model's own forward and cache."""
        ids: list[int] = []
        logprobs: list[float] = []
        tokens, past = torch.tensor([list(prompt.ids)], device=self.policy.device), None
        for position in range(config.max_new_tokens):
            if past is None and position:
                tokens = torch.tensor([[*prompt.ids, *ids]], device=self.policy.device)
            output = self.policy.model(input_ids=tokens, past_key_values=past, use_cache=True)
            past = getattr(output, "past_key_values", None)
            step = torch.tensor([uniform(config.seed, config.step, prompt.id, index, position)], dtype=torch.float64)
            token, logprob = draw(output.logits[:, -1].float(), step.to(output.logits.device), config)
            ids.append(int(token))
            logprobs.append(float(logprob))
            if ids[-1] in self.renderer.end_ids:
                break
            tokens = token[None]
        return self._rollout(prompt, index, ids, logprobs, config)

    def _rollout(self, prompt: Prompt, index: int, ids: list[int], logprobs: list[float], config: SamplingConfig) -> Rollout:
        stopped = bool(ids) and ids[-1] in self.renderer.end_ids
        return Rollout(
            prompt_id=prompt.id,
            prompt=prompt.messages,
            prompt_ids=prompt.ids,
            completion_ids=tuple(ids),
            text=self.renderer.decode(ids[:-1] if stopped else ids),
            sampler_logprobs=tuple(logprobs),
            finish_reason="stop" if stopped else "length",
            sample_index=index,
            policy_step=config.step,
            columns=prompt.columns,
        )


class RowCache:
    """Keys and values of B rows, preallocated. During prefill it stands in for the prompts' layout and copies them to their rows."""

    def __init__(self, prompts: Any, owner: list[int], room: int) -> None:
        self.prompts = prompts
        self.tree = TreeLayout(prompts)
        self.owner = owner
        lengths = [span.prompt[1] - span.prompt[0] for span in prompts.spans]
        self.size = max(lengths[unit] for unit in owner) + room
        self.lengths = torch.tensor([lengths[unit] for unit in owner], device=prompts.tokens.device)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.decoding = False

    def start_decoding(self) -> None:
        self.decoding = True

    def keep(self, slots: list[int]) -> None:
        """Drop every row but these."""
        index = torch.tensor(slots, device=self.lengths.device)
        self.lengths = self.lengths[index]
        for store in (self.keys, self.values):
            for layer in store:
                store[layer] = store[layer][index]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None) -> Tensor:
        if not self.decoding:
            self.keys[layer], self.values[layer] = self._spread(key), self._spread(value)
            return self.tree.attend(layer, query, key, value, scale=scale, window=window, softcap=softcap)
        rows = torch.arange(len(self.lengths), device=query.device)
        self.keys[layer][rows, :, self.lengths] = key[0].transpose(0, 1)
        self.values[layer][rows, :, self.lengths] = value[0].transpose(0, 1)
        used = int(self.lengths.max()) + 1
        seen = torch.arange(used, device=query.device)[None, :]
        mask = seen <= self.lengths[:, None]
        if window is not None:
            mask &= seen > (self.lengths - window)[:, None]
        output = grouped_attention(
            query[0].transpose(0, 1).unsqueeze(2), self.keys[layer][:, :, :used], self.values[layer][:, :, :used], mask[:, None, None, None, :], scale, softcap
        )
        return output.squeeze(2).transpose(0, 1).unsqueeze(0)

    def _spread(self, packed: Tensor) -> Tensor:
        rows = packed.new_zeros(len(self.owner), packed.shape[1], self.size, packed.shape[3])
        for row, unit in enumerate(self.owner):
            start, end = self.prompts.spans[unit].prompt
            rows[row, :, : end - start] = packed[0, :, start:end]
        return rows


def draw(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """One token a row by inverting the cumulative distribution, and its log-probability under the distribution drawn from.

    Args:
        logits: (B, V) fp32, not yet divided by the temperature.
        uniforms: (B,) float64 in [0, 1).
    Returns:
        tokens (B,) int64 and log-probabilities (B,). At temperature 0 the most likely token, with its log-probability at temperature 1.
    """
    if config.temperature == 0:
        logprobs = logits.log_softmax(-1)
        tokens = logits.argmax(-1)
        return tokens, logprobs.gather(1, tokens[:, None])[:, 0]
    logprobs = _truncated(logits / config.temperature, config).log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    # Rounding leaves the total a little off 1; scaling the target keeps the last token reachable and nothing beyond it.
    target = (uniforms * cumulative[:, -1]).unsqueeze(1)
    tokens = torch.searchsorted(cumulative, target, right=True).clamp_max(logits.shape[1] - 1)
    return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]


def _truncated(logits: Tensor, config: SamplingConfig) -> Tensor:
    if config.top_k:
        kept = logits.topk(min(config.top_k, logits.shape[1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kept, float("-inf"))
    if config.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(1, index, before > config.top_p), float("-inf"))
    return logits

