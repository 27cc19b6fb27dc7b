"""Log-probabilities of counted tokens from hidden states, in chunks: a full (M, V) tensor of logits never exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32
from accord.objectives.workspace import workspace

WIDENED = 1 << 22
"""Numbers of an LM head that are widened at a time, about."""


def logprobs_from_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target] in at least fp32: (M, V) and (M,) to (M,)."""
    logits = at_least_fp32(logits)
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


class TokenLogprobs(NamedTuple):
    """What is known of each counted token from the distribution that predicts it."""

    logprobs: Tensor
    """(M,) in nats, with gradient."""
    entropy: Tensor | None
    """(M,) in nats, without gradient; None where it was not wanted."""
    greedy: Tensor
    """(M,) bool: True where no token has more probability."""


def chunked_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int = 256,
    want_entropy: bool = False,
) -> TokenLogprobs:
    """log softmax((hidden weight^T + bias) / temperature)[target] for each row.

    A frozen head (weight and bias without gradient) makes the gradient to `hidden` in forward, while the probabilities are at hand: one
    matrix product fewer than recomputing the logits in backward, which a trainable head needs.

    Args:
        hidden: states that predict the counted tokens. (M, d)
        weight: the LM head. One of fewer bits than `hidden` (bfloat16 under float32) is widened a part at a time. (V, d)
        targets: the counted tokens. (M,), int64
        bias: (V,) or None.
        temperature: divides the logits (after the soft cap), as sampling does.
        softcap: logits become softcap * tanh(logits / softcap); None leaves them.
        chunk_size: rows at a time: at most (chunk_size, V) logits are alive.
        want_entropy: also return the entropy of each distribution, without gradient.
    Returns:
        log-probs with gradient to hidden, weight and bias; entropies where wanted; whether each token is the most probable one.
    Raises:
        ShapeError: if shapes do not fit.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        raise ShapeError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, targets {tuple(targets.shape)} must be (M, d), (V, d), (M,)."
        )
    if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        function: Any = _TrainableHead
    else:
        function = _FrozenHead
    want_gradient = torch.is_grad_enabled() and hidden.requires_grad
    logprobs, entropy, greedy = function.apply(
        hidden, weight, bias, targets, (temperature, softcap, chunk_size, want_entropy, want_gradient)
    )
    return TokenLogprobs(logprobs, entropy if want_entropy else None, greedy)


Options = tuple[float, float | None, int, bool, bool]
"""temperature, softcap, chunk size, whether entropy and whether a gradient to hidden states is wanted."""


class _Chunk:
    """Log-probs and entropies of one chunk of rows, with its unnormalised probabilities: two buffers of (rows, V) at most, in pages of their own,
    and one more on the heap under a softcap."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: Options, buffers: list[Tensor]
    ) -> None:
        temperature, softcap, _, want_entropy, _ = options
        logits = at_least_fp32(_logits(hidden, weight, bias, buffers[0][: len(targets)]))
        self.targets, self.temperature, self.bend, self.dtype = targets, temperature, None, hidden.dtype
        if softcap is not None:
            tanh = logits.div_(softcap).tanh_()
            logits, self.bend = softcap * tanh, tanh.square_().neg_().add_(1.0)
        if temperature != 1.0:
            logits /= temperature
        logits -= logits.max(-1, keepdim=True).values
        chosen = logits.gather(1, targets[:, None])[:, 0]
        self.greedy = chosen == 0
        self.odds = torch.exp(logits, out=buffers[1][: len(targets)]) if want_entropy else logits.exp_()
        self.total = self.odds.sum(-1)
        self.logprobs = chosen - self.total.log()
        self.entropy = self.total.log() - torch.einsum("mv,mv->m", self.odds, logits) / self.total if want_entropy else None

    def slope(self, weight: Tensor) -> Tensor:
        """(rows, d) gradient of each row's log-prob by its hidden state. Uses the probabilities up."""
        chosen = weight[self.targets].to(self.dtype)
        if self.bend is not None:
            chosen = chosen * self.bend.gather(1, self.targets[:, None]).to(chosen.dtype)
            self.odds *= self.bend
        return (chosen - _weighted(self.odds.to(self.dtype), weight) / self.total[:, None].to(self.dtype)) / self.temperature

    def slope_by_logits(self) -> Tensor:
        """(rows, V) gradient of each row's log-prob by its raw logits. Uses the probabilities up."""
        slopes = self.odds.div_(-self.total[:, None])
        slopes.scatter_add_(1, self.targets[:, None], torch.ones_like(slopes[:, :1]))
        return (slopes if self.bend is None else slopes.mul_(self.bend)).div_(self.temperature)


def _buffers(hidden: Tensor, weight: Tensor, options: Options) -> list[Tensor]:
    """What every chunk writes its logits to, and, where entropies are wanted, its probabilities."""
    shape = (min(options[2], len(hidden)), len(weight))
    return [workspace(shape, hidden), *([workspace(shape, at_least_fp32(hidden[:1]))] if options[3] else [])]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, logits: Tensor) -> Tensor:
    """hidden weight^T + bias, in the type of the hidden states, written to `logits`."""
    if weight.dtype == hidden.dtype:
        return torch.mm(hidden, weight.T, out=logits) if bias is None else torch.addmm(bias, hidden, weight.T, out=logits)
    for rows, part in _widened(weight, hidden.dtype):
        torch.mm(hidden, part.T, out=logits[:, rows])
    return logits if bias is None else logits.add_(bias)


def _weighted(slopes: Tensor, weight: Tensor) -> Tensor:
    """slopes weight, in the type of the slopes: (rows, V) and (V, d) to (rows, d)."""
    if weight.dtype == slopes.dtype:
        return slopes @ weight
    found = slopes.new_zeros(len(slopes), weight.shape[1])
    for rows, part in _widened(weight, slopes.dtype):
        found.addmm_(slopes[:, rows], part)
    return found


def _widened(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """A weight in another type, some rows at a time, in one buffer that each part writes over."""
    count = max(1, WIDENED // weight.shape[1])
    buffer = torch.empty(min(count, len(weight)), weight.shape[1], dtype=dtype, device=weight.device)
    for start in range(0, len(weight), count):
        rows = slice(start, min(start + count, len(weight)))
        yield rows, buffer[: rows.stop - rows.start].copy_(weight[rows])


def _forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, entropies, which tokens are greedy, gradients of log-probs by hidden state; second and last empty when not wanted."""
    _, _, chunk, want_entropy, want_slope = options
    logprobs = torch.empty(len(targets), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    entropy = torch.empty_like(logprobs) if want_entropy else logprobs.new_empty(0)
    greedy = torch.empty_like(targets, dtype=torch.bool)
    slope = torch.empty_like(hidden) if want_slope else hidden.new_empty(0)
    buffers = _buffers(hidden, weight, options)
    for start in range(0, len(targets), chunk):
        rows = slice(start, start + chunk)
        part = _Chunk(hidden[rows], weight, bias, targets[rows], options, buffers)
        logprobs[rows], greedy[rows] = part.logprobs, part.greedy
        if part.entropy is not None:
            entropy[rows] = part.entropy
        if want_slope:
            slope[rows] = part.slope(weight)
    return logprobs, entropy, greedy, slope


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: Options) -> tuple[Tensor, ...]:
        logprobs, entropy, greedy, slope = _forward(hidden, weight, bias, targets, options)
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(entropy, greedy)
        return logprobs, entropy, greedy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None].to(slope.dtype), None, None, None, None


class _TrainableHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: Options) -> tuple[Tensor, ...]:
        logprobs, entropy, greedy, _ = _forward(hidden, weight, bias, targets, (*options[:4], False))
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.options = (*options[:3], False, False)
        ctx.mark_non_differentiable(entropy, greedy)
        return logprobs, entropy, greedy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad_hidden, grad_weight = (torch.zeros_like(tensor) if need else None for tensor, need in ((hidden, needs[0]), (weight, needs[1])))
        grad_bias = torch.zeros_like(bias) if bias is not None and needs[2] else None
        buffers = _buffers(hidden, weight, ctx.options)
        for start in range(0, len(targets), ctx.options[2]):
            rows = slice(start, start + ctx.options[2])
            slopes = _Chunk(hidden[rows], weight, bias, targets[rows], ctx.options, buffers).slope_by_logits()
            slopes = slopes.mul_(gradients[0][rows, None]).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = _weighted(slopes, weight)
            if grad_weight is not None:
                grad_weight.addmm_(slopes.T, hidden[rows])
            if grad_bias is not None:
                grad_bias += slopes.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None
