"""How the frozen base of a run will be held: what `--weights auto` becomes, in a plan as in the run itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from accord.config.base import SMALL_WEIGHTS, TrainingConfig
from accord.models.bitsandbytes_files import is_four_bit
from accord.models.opened import weights_of
from accord.planning.plan import Place
from accord.training.setup import frozen_weights


@dataclass(frozen=True)
class Held:
    """How a base is held, and where the run is then."""

    weights: str
    """As `--weights`; auto where the base is held as it is computed with."""
    place: Place
    note: str = ""
    """What to say of it; "" where nothing was decided for want of memory."""


C = TypeVar("C", bound=TrainingConfig)


def held_so(config: C, weights: str) -> C:
    """The config with its base held so, whatever else it asks for: a checkpoint in 4 bits is nf4 beside any `dtype`."""
    config = copy.copy(config)
    config.weights = weights
    return config


def may_be_held_smaller(config: TrainingConfig) -> bool:
    """Whether `auto` may become bf16: not where another type is computed in, or weights are split over processes."""
    return config.dtype in ("auto", "float32") and not config.fully_shard


def how_held(
    weights: str,
    model: str,
    stored: Any,
    at: Callable[[str], Place],
    needed: Callable[[Place], float],
    *,
    frozen: bool = True,
    smaller: bool = True,
) -> Held:
    """`auto` is nf4 on a checkpoint that bitsandbytes wrote in 4 bits; on a run what its base was held in; on a CPU bf16, which is exact, where the
    checkpoint is in bfloat16 and fits in no other way. All else stays as it was asked for.

    Args:
        model: name, folder or run of the model.
        stored: the transformers config of its base.
        at: the place of the run with its base held in some way.
        needed: bytes that the run takes there, as small as it can be made.
        frozen: True where only an adapter or heads are trained. False where all weights are, which are never held smaller.
        smaller: True lets `auto` become bf16. False leaves it.
    Raises:
        ConfigError: if all weights are trained and the base is held in fewer bits, or the device has no such way.
    """
    if weights == "auto":
        weights = "nf4" if is_four_bit(stored) else weights_of(Path(model))
    if weights in SMALL_WEIGHTS and not frozen:
        raise frozen_weights(weights)
    place = at(weights)
    if weights != "auto" or not frozen or not smaller or not place.half or place.device != "cpu" or needed(place) <= place.have:
        return Held(weights, place)
    halved = replace(at("bf16"), have=place.have)  # what is free moves between two looks
    if needed(halved) > place.have:
        return Held(weights, place)
    return Held("bf16", halved, f"weights bf16: the checkpoint is, and in float32 it does not fit into {place.have / 1e9:.1f} GB")
