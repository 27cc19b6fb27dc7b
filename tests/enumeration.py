"""All 27 sequences of a tabular policy (3 tokens, length 3): policy-gradient estimators become exact sums, with no Monte-Carlo noise."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

VOCABULARY, LENGTH = 3, 3
SEQUENCES = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
"""(27, 3)"""
COMPLETION = torch.arange(len(SEQUENCES)).repeat_interleave(LENGTH)
"""(81,): which sequence each token of the flat axis belongs to."""
PREFIXES = sum(VOCABULARY**t for t in range(LENGTH))


def table(seed: int) -> Tensor:
    """Random logits of every prefix: (13, 3) fp64, with gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(PREFIXES, VOCABULARY, generator=generator, dtype=torch.float64).requires_grad_()


def token_logprobs(logits: Tensor) -> Tensor:
    """log pi(y_t | y_<t) of every token of every sequence on the flat axis: (81,)."""
    logprobs = logits.log_softmax(-1)
    rows = []
    for sequence in SEQUENCES.tolist():
        index, offset = 0, 0
        for t, token in enumerate(sequence):
            rows.append(logprobs[offset + index, token])
            offset += VOCABULARY**t
            index = index * VOCABULARY + token
    return torch.stack(rows)


def sequence_probabilities(logits: Tensor) -> Tensor:
    """pi(y): (27,), sums to 1."""
    return token_logprobs(logits).view(-1, LENGTH).sum(1).exp()


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0].flatten()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))
