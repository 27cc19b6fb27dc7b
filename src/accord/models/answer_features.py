"""What heads read of a forward pass: states at chosen places, and how likely the model found what stands there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from accord.data.packing import PackedBatch, Place
from accord.models.heads import Reading
from accord.models.take import take


def answer_features(hidden: Tensor, places: Sequence[Place], reading: Reading, likely: Tensor | None) -> Tensor:
    """What heads read of hidden states (N, d) at C places: the state of the last token, (C, d); with `context` the state of the prompt's
    last token, the mean over the completion and the last token side by side, (C, 3 d); with `surprise` `SURPRISE` numbers behind them.

    Args:
        likely: log-probability of each token of the completions; needed for `surprise` alone. (N,)
    """

    def at(positions: list[int]) -> Tensor:
        return take(hidden, torch.tensor(positions, dtype=torch.int64, device=hidden.device))

    found = [at([place.stop - 1 for place in places])]
    if reading.context:
        means = torch.stack([hidden[place.first : place.stop].mean(0) for place in places])
        found = [at([place.prompt for place in places]), means, *found]
    if reading.surprise:
        assert likely is not None
        texts = [(likely[place.begin : place.stop], likely[place.first : place.stop]) for place in places]
        numbers = torch.stack([torch.stack([way(text) for text in both for way in (torch.sum, torch.min, torch.mean)]) for both in texts])
        found.append(numbers.to(hidden.dtype))
    return torch.cat(found, dim=-1)


@torch.no_grad()
def likelihoods(hidden: Tensor, batch: PackedBatch, logprobs: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Log-probability of each token of a completion, counted or not, where it lies on the token axis; 0 elsewhere. (N,), no gradient

    Args:
        hidden: final states. (N, d)
        logprobs: from states (M, d) and the tokens that follow them (M,) to log-probabilities (M,).
    """
    spans = [(span.prompt[1] - 1, *branch) for span in batch.spans for branch in span.branches]
    targets = torch.tensor([at for _, first, last in spans for at in range(first, last)], device=hidden.device)
    sources = torch.tensor([at for prompt, first, last in spans for at in (prompt, *range(first, last - 1))], device=hidden.device)
    found = hidden.new_zeros(len(hidden), dtype=torch.float32)
    found[targets] = logprobs(hidden[sources], batch.tokens[targets]).float()
    return found
