"""The local sampler: prompts encoded once, their cache shared out to the answers, finished rows replaced by waiting ones.

It drives the model's own forward through the packed-attention interface: a step decodes B rows as one packed axis of B tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.data.packing import Unit, pack
from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.models.int8 import int8_problem
from accord.models.load import say
from accord.models.merged import Holding
from accord.rollouts.random import uniform
from accord.rollouts.row_cache import Entering, RowCache
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout

WEIGHTS = ("exact", "int8")
Watch = Callable[[str, int, Sequence[int]], None]
"""Told an answer's prompt id, its sample index and its token ids so far, after each token."""


class LocalSampler:
    """Samples from the policy in this process.

    Args:
        policy: the model; its training weights are not touched.
        renderer: decodes ids to text, knows the end ids.
        stack: adapters to sample with.
        merge: True decodes from merged weights W + sBA (faster). False runs the adapters beside the base.
        prepack: True has the merged weights reordered for the processor where it can (faster). Needs `merge`.
        weights: "exact" draws from the policy itself. "int8" draws from its merged weights rounded to int8, faster for many rows: another
            distribution, and the log-probabilities noted are its own. Where that cannot be done, one line says why and sampling is exact.
    """

    def __init__(
        self,
        policy: PolicyModel,
        renderer: Renderer,
        stack: Sequence[str],
        *,
        merge: bool = True,
        prepack: bool = True,
        weights: str = "exact",
    ) -> None:
        self.policy = policy
        self.renderer = renderer
        self.stack = tuple(stack)
        self.merge = merge
        self.prepack = prepack
        if weights not in WEIGHTS:
            raise ConfigError(f"LocalSampler: weights={weights!r} must be one of {', '.join(WEIGHTS)}.")
        problem = int8_problem(policy.model) if weights == "int8" else None
        if problem:
            say(f"Sampling is exact, in the model's own precision: {problem}, so int8 weights are not used.")
        self.int8 = weights == "int8" and not problem
        self.held: Holding | None = None
        """How the weights are held: chosen from free memory at the first call, then the same at each; None before."""

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig, *, watch: Watch | None = None) -> list[Rollout]:
        """`num_samples` rollouts for each prompt, siblings next to each other.

        Args:
            watch: sees answers grow. None: nobody does.
        """
        rows = [_Row(prompt, index) for prompt in prompts for index in range(config.num_samples)]
        packed = self.policy.packed
        together = min(config.max_batch, len(rows))
        with self.policy.gathered(), self._weights(packed, together):
            if packed:
                self._decode(rows, config, watch)
            else:
                for row in rows:
                    self._decode_alone(row, config, watch)
        return [self._rollout(row, config) for row in rows]

    def _weights(self, packed: bool, rows: int) -> AbstractContextManager[None]:
        """The adapters of `stack` in the weights or beside them, as the first call found memory for."""
        if not (self.merge or self.int8):
            return self.policy.using(self.stack, packed=packed)
        if self.held is None:
            self.held = self.policy.holding(self.stack, prepack=self.prepack, int8=self.int8)
        return self.policy.merged(self.stack, self.held, packed=packed, rows=rows, int8=self.int8)

    def _decode(self, rows: list[_Row], config: SamplingConfig, watch: Watch | None) -> None:
        """Decode up to `max_batch` rows side by side; as rows end, others take their place."""
        if not rows:
            return
        waiting = rows[::-1]
        longest = max(len(row.prompt.ids) for row in rows)
        cache = RowCache(min(config.max_batch, len(rows)), longest, config.max_new_tokens, self.policy.device)
        alive: list[_Row] = []
        states = torch.empty(0)
        while alive or waiting:
            free = cache.slots - len(alive)
            # Few rows at a time would be encoded at the price of many: wait until a quarter of the places is free.
            if waiting and (not alive or free >= min(len(waiting), max(1, cache.slots // 4))):
                entering = [waiting.pop() for _ in range(min(free, len(waiting)))]
                first = self._admit(entering, cache)
                states = torch.cat((states, first)) if alive else first
                alive += entering
            tokens = self._draw(states, alive, config)
            if watch:
                for row in alive:
                    watch(row.prompt.id, row.index, row.ids)
            unfinished = [
                slot for slot, row in enumerate(alive) if row.ids[-1] not in self.renderer.end_ids and len(row.ids) < config.max_new_tokens
            ]
            if len(unfinished) < len(alive):
                order = cache.keep(unfinished)
                alive, tokens = [alive[slot] for slot in order], tokens[torch.tensor(order, dtype=torch.int64, device=tokens.device)]
            if alive:
                states = self._step(tokens, cache)

    def _draw(self, states: Tensor, alive: list[_Row], config: SamplingConfig) -> Tensor:
        """The next token of each row, noted on the row."""
        draws = torch.tensor(
            [uniform(config.seed, config.step, row.prompt.id, row.index, len(row.ids)) for row in alive], dtype=torch.float64
        )
        tokens, taken = draw(self.policy.logits(states), draws.to(states.device), config)
        for row, token, logprob in zip(alive, tokens.tolist(), taken.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
        return tokens

    def _admit(self, rows: list[_Row], cache: RowCache) -> Tensor:
        """Encode each prompt of these rows once and give them places in the cache; returns the state that predicts each row's first token (B, d)."""
        return torch.cat([self._encode(part, cache) for part in _by_prompt_tokens(rows)])

    def _encode(self, rows: list[_Row], cache: RowCache) -> Tensor:
        """The same for rows whose prompts go through the model at once."""
        order: dict[str, int] = {}
        for row in rows:
            order.setdefault(row.prompt.id, len(order))
        first = {order[row.prompt.id]: row.prompt for row in rows}
        batch = pack([Unit(first[i].ids, ()) for i in range(len(order))], self.policy.device)
        owner = [order[row.prompt.id] for row in rows]
        hidden = self._run(batch.tokens, batch.positions, Entering(cache, batch))
        cache.enter([len(first[unit].ids) for unit in range(len(order))], owner)
        last = torch.tensor([batch.spans[unit].prompt[1] - 1 for unit in owner], device=hidden.device)
        return hidden[last]

    def _step(self, tokens: Tensor, cache: RowCache) -> Tensor:
        hidden = self._run(tokens, cache.lengths, cache)
        cache.advance()
        return hidden

    def _run(self, tokens: Tensor, positions: Tensor, layout: Any) -> Tensor:
        # The surrounding `merged` or `using` context has set adapters and attention already.
        output = self.policy.backbone(input_ids=tokens[None], position_ids=positions[None], use_cache=False, packed=layout)
        return output.last_hidden_state[0]

    def _decode_alone(self, row: _Row, config: SamplingConfig, watch: Watch | None) -> None:
        """For models that cannot pack: one row through the model's own forward and cache."""
        tokens, past = torch.tensor([list(row.prompt.ids)], device=self.policy.device), None
        for position in range(config.max_new_tokens):
            if past is None and position:
                tokens = torch.tensor([[*row.prompt.ids, *row.ids]], device=self.policy.device)
            output = self.policy.model(input_ids=tokens, past_key_values=past, use_cache=True)
            past = getattr(output, "past_key_values", None)
            step = torch.tensor([uniform(config.seed, config.step, row.prompt.id, row.index, position)], dtype=torch.float64)
            token, logprob = draw(output.logits[:, -1].float(), step.to(output.logits.device), config)
            row.ids.append(int(token))
            row.logprobs.append(float(logprob))
            if watch:
                watch(row.prompt.id, row.index, row.ids)
            if row.ids[-1] in self.renderer.end_ids:
                break
            tokens = token[None]

    def _rollout(self, row: _Row, config: SamplingConfig) -> Rollout:
        stopped = bool(row.ids) and row.ids[-1] in self.renderer.end_ids
        return Rollout(
            prompt_id=row.prompt.id,
            prompt=row.prompt.messages,
            prompt_ids=row.prompt.ids,
            completion_ids=tuple(row.ids),
            text=self.renderer.decode(row.ids[:-1] if stopped else row.ids),
            sampler_logprobs=tuple(row.logprobs),
            finish_reason="stop" if stopped else "length",
            sample_index=row.index,
            policy_step=config.step,
            columns=row.prompt.columns,
        )


@dataclass(eq=False)
class _Row:
    """One answer being written."""

    prompt: Prompt
    index: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def _by_prompt_tokens(rows: list[_Row]) -> list[list[_Row]]:
    """Rows in their order, cut where their different prompts would be more than `PROMPT_TOKENS` at once."""
    parts: list[list[_Row]] = []
    seen: set[str] = set()
    room = 0
    for row in rows:
        new = 0 if row.prompt.id in seen else len(row.prompt.ids)
        if not parts or (new and new > room):
            parts.append([])
            seen, room, new = set(), PROMPT_TOKENS, len(row.prompt.ids)
        parts[-1].append(row)
        seen.add(row.prompt.id)
        room -= new
    return parts


PROMPT_TOKENS = 4096
"""Tokens of prompts that are encoded at once: with long prompts and many rows, their activations would be most of the memory."""
BLOCK = 256


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
    logits = _truncated(logits if config.temperature == 1 else logits / config.temperature, config)
    logits = logits - logits.amax(-1, keepdim=True)
    odds = logits.exp()
    if missing := -logits.shape[1] % BLOCK:
        odds = F.pad(odds, (0, missing))
    odds = odds.view(len(logits), -1, BLOCK)
    # Two short searches instead of one through the cumulative sum of the whole vocabulary: first the block of tokens, then the token.
    # A block is summed in fp32, 1e-7 of it off at most (a copy of the vocabulary in float64 would take longer than all the rest here).
    blocks = odds.sum(-1).double().cumsum(-1)
    total = blocks[:, -1:]
    target = uniforms[:, None] * total
    block = torch.searchsorted(blocks, target, right=True).clamp_max(blocks.shape[1] - 1)
    before = torch.where(block > 0, blocks.gather(1, (block - 1).clamp_min(0)), 0.0)
    inside = odds.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    # Rounding may leave the target a little beyond the block's sum: the last token with any odds is then meant.
    inside_target = torch.minimum(target - before, inside[:, -1:] * (1 - 1e-12))
    tokens = block * BLOCK + torch.searchsorted(inside, inside_target, right=True)
    return tokens[:, 0], logits.gather(1, tokens)[:, 0] - total[:, 0].log().float()


def _truncated(logits: Tensor, config: SamplingConfig) -> Tensor:
    if config.top_k:
        kept = logits.topk(min(config.top_k, logits.shape[1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kept, float("-inf"))
    if config.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(1, index, before > config.top_p), float("-inf"))
    return logits
