"""How often a reward model puts the preferred answer first, on pairs it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accord.data.render import Renderer
from accord.errors import DataError
from accord.rewards.learned import RewardModel
from accord.types import Example


def accuracy_table(
    model: RewardModel, renderer: Renderer, pairs: Sequence[Example], known: dict[str, Tensor] | None = None
) -> dict[str, Any]:
    """Accuracy on pairs: overall, by the column `slice` when there is one, and apart for pairs that the shorter answer won. Ties are left out.

    Args:
        pairs: preferences (see `recipes.pairs.pairs_of` for rankings).
        known: features by row id that need not be computed again.
    Returns:
        `accuracy` and `count` by name, and `gaps`: the score of the chosen answer minus that of the rejected one, a pair each.
    Raises:
        DataError: if no pair has a preferred answer.
    """
    pairs = [row for row in pairs if row.probability != 0.5]
    if not pairs:
        raise DataError("No comparison has a preferred answer (all are ties, or there are none): accuracy needs at least one.")
    units = renderer.units(pairs)
    features = {} if known is None else known
    model.remember(units, features)
    scores = model.heads(torch.cat([features[unit.id] for unit in units])).mean(1).view(-1, 2)
    gaps = (scores[:, 0] - scores[:, 1]).tolist()
    table: dict[str, list[float]] = {"all": []}
    for row, unit, gap in zip(pairs, units, gaps, strict=True):
        right = 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0
        chosen, rejected = (len(branch.ids) for branch in unit.branches)
        names = ["all"] + ([f"slice {row.columns['slice']}"] if "slice" in row.columns else [])
        names += ["shorter wins"] if chosen < rejected else ["longer wins"] if chosen > rejected else []
        for name in names:
            table.setdefault(name, []).append(right)
    return {
        "accuracy": {name: sum(values) / len(values) for name, values in table.items()},
        "count": {name: len(values) for name, values in table.items()},
        "gaps": gaps,
    }
