"""The optimizer: torch's AdamW, or AdamW whose two moments are held in eight bits each: 2 bytes a trained number where 8 are usual.

A moment is held as whole numbers on a logarithmic scale, 256 numbers around a common largest one, so that each is off by some percent of
itself however small it is beside its neighbours (eight-bit optimizers: Dettmers et al. 2022, https://arxiv.org/abs/2110.02861). The scale is the
same for all blocks: what decays as a whole moves by whole levels and is not rounded anew. A number falls to the level below or above it by
chance, so that its mean is right: a second moment moves by a thousandth a step, which the nearest of levels 9 % apart would never show.
What is drawn depends on the seed, the step and the parameter alone, so a resumed run draws the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from accord.errors import DataError
from accord.models.sharding import part_like

MOMENTS = ("exp_avg", "exp_avg_sq", "exp_avg_top", "exp_avg_sq_top")
"""Names of what is kept of a parameter; the last two in eight bits alone."""
BLOCK = 256
"""Numbers around one largest."""
SMALL = 4096
"""Parameters with fewer numbers (norms, biases) keep float32 moments."""
CHUNK, GPU_CHUNK = 1 << 18, 1 << 24
"""Numbers that are widened at a time: what is float32 of the moments stays in a processor's cache; a GPU has enough to do."""
OCTAVES_FIRST, OCTAVES_SECOND = 16.0, 32.0
"""Powers of two from the smallest level to the largest: the second moment is a square."""
LEVELS_FIRST, LEVELS_SECOND = 127, 255


def build_optimizer(groups: Iterable[Any], config: Any) -> torch.optim.Optimizer:
    """What a config's `optim` names, over groups of parameters."""
    settings = {
        "lr": float(config.learning_rate or 0.0),
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.weight_decay,
    }
    if config.optim == "adamw":
        return torch.optim.AdamW(groups, **settings)
    return AdamW8bit(groups, **settings, seed=config.seed)


def moments_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimizer keeps of a parameter, by name, the step apart; empty before its first step."""
    return {name: value for name, value in optimizer.state.get(parameter, {}).items() if name != "step"}


def restore_moments(optimizer: torch.optim.Optimizer, parameter: Tensor, found: Mapping[str, Tensor], step: float) -> None:
    """Put back what `moments_of` gave, split over processes as the parameter is.

    Raises:
        DataError: if it is another optimizer's.
    """
    eight = isinstance(optimizer, AdamW8bit)
    like = _empty(parameter) if eight else {"exp_avg": parameter, "exp_avg_sq": parameter}
    expected = {name: tuple(value.shape) for name, value in like.items() if name != "step"}
    if {name: tuple(value.shape) for name, value in found.items()} != expected:
        asked, other = ("adamw_8bit", "adamw") if eight else ("adamw", "adamw_8bit")
        raise DataError(
            f"The checkpoint holds Adam's moments of --optim {other}, and this run has --optim {asked}. Resume with --optim {other}."
        )
    optimizer.state[parameter] = {"step": torch.tensor(step)} | {name: part_like(value, like[name]) for name, value in found.items()}


class Moment:
    """How one of the moments is held: `levels` steps of a logarithmic scale, signed or not.

    Signed codes are int8, 0 is zero. Unsigned ones are uint8 and 0 is the smallest level: a second moment that fell to zero would let its
    first divide by epsilon.
    """

    def __init__(self, octaves: float, levels: int, *, signed: bool) -> None:
        self.step = octaves / levels
        self.levels, self.signed = levels, signed
        self.dtype = torch.int8 if signed else torch.uint8

    def widened(self, codes: Tensor, tops: Tensor) -> Tensor:
        """Numbers [blocks, BLOCK] of codes of that shape and the level of each block's largest [blocks]."""
        level = (codes.abs() if self.signed else codes).float()
        numbers = torch.exp2((level + (tops.float() - self.levels).unsqueeze(1)) * self.step)
        return numbers * codes.sign() if self.signed else numbers

    def rounded(self, numbers: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and tops of numbers [blocks, BLOCK]; `chance` [blocks, BLOCK] from [0, 1) decides which of the two nearest levels."""
        height = numbers.abs() if self.signed else numbers
        height = torch.log2(height.clamp_min(torch.finfo(torch.float32).tiny)).div_(self.step)
        tops = height.amax(1).sub_(1e-3).ceil_()  # the level itself where rounding put the largest a hair above it
        height -= (tops - self.levels).unsqueeze(1)
        lower = height.floor()
        slope = (
            self.step * math.log(2) / (2**self.step - 1)
        )  # of the share of the way in numbers, at the level below, by that in logarithms
        share = height - lower
        up = share * (slope + (1 - slope) * share)
        if self.signed:
            below = lower < 1
            up = torch.where(below, torch.exp2((height - 1).mul_(self.step)), up)  # between 0 and the smallest level
            lower = lower.masked_fill_(below, 0)
        codes = lower.add_(chance < up).clamp_(0, self.levels)
        if self.signed:
            codes *= numbers.sign()
        return codes.to(self.dtype), tops.to(torch.int16)


FIRST, SECOND = Moment(OCTAVES_FIRST, LEVELS_FIRST, signed=True), Moment(OCTAVES_SECOND, LEVELS_SECOND, signed=False)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with its moments in eight bits; computes in float32.

    Args:
        params: parameters, or groups of them.
        seed: with a parameter's place and its step, decides how moments are rounded.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step for every parameter with a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    self._update(parameter, group, place)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        if not state:
            state |= _empty(parameter)
        state["step"] += 1
        step = int(state["step"])
        generator = torch.Generator(parameter.device).manual_seed(hash((self.seed, step, place)))
        values, grads = parameter.reshape(-1), parameter.grad.reshape(-1)  # pyright: ignore[reportOptionalMemberAccess]
        chunk = CHUNK if parameter.device.type == "cpu" else GPU_CHUNK
        small = parameter.numel() < SMALL
        for start in range(0, values.numel(), chunk):
            part = slice(start, min(start + chunk, values.numel()))
            grad = grads[part].float()
            rows = slice(start // BLOCK, -(-part.stop // BLOCK))
            if small:
                first, second = state["exp_avg"], state["exp_avg_sq"]
            else:
                first = FIRST.widened(state["exp_avg"][rows], state["exp_avg_top"][rows])
                second = SECOND.widened(state["exp_avg_sq"][rows], state["exp_avg_sq_top"][rows])
            flat_first, flat_second = first.view(-1)[: grad.numel()], second.view(-1)[: grad.numel()]
            if step == 1:
                second.zero_()  # codes have no zero
            flat_first.lerp_(grad, 1 - group["betas"][0])
            flat_second.mul_(group["betas"][1]).addcmul_(grad, grad, value=1 - group["betas"][1])
            values[part] = _moved(values[part].float(), flat_first, flat_second, step, group)
            if not small:
                chance = torch.rand(first.shape, generator=generator, device=first.device)
                state["exp_avg"][rows], state["exp_avg_top"][rows] = FIRST.rounded(first, chance)
                state["exp_avg_sq"][rows], state["exp_avg_sq_top"][rows] = SECOND.rounded(second, chance)
        if not parameter.is_contiguous():  # `values` was a copy
            parameter.copy_(values.view(parameter.shape))


def _empty(parameter: Tensor) -> dict[str, Tensor]:
    """The state before the first step."""
    step = torch.tensor(0.0)
    if parameter.numel() < SMALL:
        return {"step": step} | {
            name: torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device) for name in ("exp_avg", "exp_avg_sq")
        }
    blocks = -(-parameter.numel() // BLOCK)
    state = {"step": step}
    for name, kind in (("exp_avg", FIRST), ("exp_avg_sq", SECOND)):
        state[name] = torch.zeros((blocks, BLOCK), dtype=kind.dtype, device=parameter.device)
        state[f"{name}_top"] = torch.zeros(blocks, dtype=torch.int16, device=parameter.device)
    return state


def _moved(values: Tensor, first: Tensor, second: Tensor, step: int, group: dict[str, Any]) -> Tensor:
    """AdamW's step: decoupled decay, then the first moment over the root of the second, both without their bias."""
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    scale = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    return values.mul(1 - rate * group["weight_decay"]).addcdiv_(first, scale, value=-rate / (1 - beta1**step))
