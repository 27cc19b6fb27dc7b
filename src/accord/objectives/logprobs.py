"""Log-probabilities of counted tokens from hidden states, in chunks: a full (M, V) tensor of logits never exists."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32


def logprobs_from_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target] in at least fp32: (M, V) and (M,) to (M,)."""
    logits = at_least_fp32(logits)
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


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
) -> tuple[Tensor, Tensor | None]:
    """log softmax((hidden weight^T + bias) / temperature)[target] for each row, with logits recomputed in backward.

    Args:
        hidden: states that predict the counted tokens. (M, d)
        weight: the LM head. (V, d)
        targets: the counted tokens. (M,), int64
        bias: (V,) or None.
        temperature: divides the logits (after the soft cap), as sampling does.
        softcap: logits become softcap * tanh(logits / softcap); None leaves them.
        chunk_size: rows at a time: at most (chunk_size, V) logits are alive.
        want_entropy: also return the entropy of each distribution, without gradient.
    Returns:
        log-probs (M,) in nats with gradient to hidden, weight and bias, and entropies (M,) or None.
    Raises:
        ShapeError: if shapes do not fit.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        raise ShapeError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, targets {tuple(targets.shape)} must be (M, d), (V, d), (M,)."
        )
    logprobs, entropy = cast(
        "tuple[Tensor, Tensor]",
        _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature, softcap, chunk_size, want_entropy),  # type: ignore[no-untyped-call]
    )
    return logprobs, entropy if want_entropy else None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Final logits of a chunk in at least fp32, and tanh(raw / softcap), which backward needs."""
    logits = at_least_fp32(hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T))
    tanh = None
    if softcap is not None:
        tanh = torch.tanh(logits / softcap)
        logits = softcap * tanh
    return (logits if temperature == 1.0 else logits / temperature), tanh


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        softcap: float | None,
        chunk: int,
        want_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprobs = torch.empty(len(targets), dtype=dtype, device=hidden.device)
        entropy = torch.empty_like(logprobs) if want_entropy else logprobs.new_empty(0)
        for start in range(0, len(targets), chunk):
            stop = start + chunk
            logits, _ = _logits(hidden[start:stop], weight, bias, temperature, softcap)
            normaliser = logits.logsumexp(-1)
            logprobs[start:stop] = logits.gather(1, targets[start:stop, None])[:, 0] - normaliser
            if want_entropy:
                probabilities = (logits - normaliser[:, None]).exp_()
                entropy[start:stop] = normaliser - (probabilities * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.options = (temperature, softcap, chunk)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        gradient = gradients[0]
        hidden, weight, bias, targets = ctx.saved_tensors
        temperature, softcap, chunk = ctx.options
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = torch.zeros_like(bias) if need_bias and bias is not None else None
        for start in range(0, len(targets), chunk):
            stop = start + chunk
            logits, tanh = _logits(hidden[start:stop], weight, bias, temperature, softcap)
            # d logprob / d logits = one_hot - softmax
            grad_logits = logits.softmax(-1).neg_()
            rows = torch.arange(grad_logits.shape[0], device=grad_logits.device)
            grad_logits[rows, targets[start:stop]] += 1.0
            grad_logits *= (gradient[start:stop] / temperature)[:, None]
            if tanh is not None:
                grad_logits *= 1.0 - tanh * tanh
            grad_logits = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start:stop] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad_logits.T, hidden[start:stop])
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None
