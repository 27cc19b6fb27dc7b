"""Linear layers whose frozen weights are held in 16, 8 or 4 bits and widened to float32 a few rows at a time, as they are used.

bf16 is exact for checkpoints that were released so. int8 has a scale for each output. nf4 (Dettmers et al. 2023, arXiv:2305.14314) has 16
levels made for normal weights, a scale for each 64 of them, and these scales themselves in 8 bits. gguf is a GGUF file's own blocks. Products are float32, forward and
backward; neither keeps a widened weight.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.models.allocator import fresh
from accord.models.bitsandbytes_files import Codes
from accord.models.blocks import Blocks, widen_blocks
from accord.models.size import BLOCK, SCALE_BLOCK

KINDS = ("bf16", "int8", "nf4")
WIDENED = 1 << 21
"""Numbers widened at a time, about: 8 MB, which the processor's cache still holds when they are multiplied."""
QUANTISED = 1 << 18
"""Numbers quantised at a time: with what lies between 4 MB."""
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The levels of NF4, Appendix E of the paper: quantiles of the normal distribution, scaled to [-1, 1], with an exact zero."""
LARGEST_FLOAT8 = 448.0
_TINY = 1e-30
_THREAD = threading.local()


class SmallLinear(nn.Linear):
    """y = x W^T + b with W frozen and held as `kind`.

    `weight` holds codes and nothing to compute with: the bits of bfloat16, int8, two codes of NF4 a byte, or a file's blocks. They are integers, so that nobody
    takes them for weights, and adapters beside them stay float32.

    Args:
        inputs, outputs: features.
        kind: one of KINDS, or gguf.
        bias: True makes room for a bias. False has none.
    """

    def __init__(self, inputs: int, outputs: int, kind: str, *, bias: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = inputs, outputs, kind
        self.weight = nn.Parameter(torch.empty(0, dtype=torch.int8, device="meta"), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs, device="meta"), requires_grad=False) if bias else None)
        self.scales: Tensor | None
        self.coarse: Tensor | None
        self.mean: Tensor | None
        self.levels: Tensor | None
        """Of nf4: what the bytes of `scales` stand for; None: float8."""
        for name in ("scales", "coarse", "mean", "levels"):
            self.register_buffer(name, None)
        self.block = ""
        """Of gguf: the file's name of the type of its blocks."""
        self.sample = torch.empty(0)
        """Up to 64 of the weights as they were (`some_of`): what the base is known by, however it is held."""

    def hold(self, weight: Tensor) -> SmallLinear:
        """Take over the numbers of a float weight (out, in)."""
        self.sample = some_of(weight)
        if self.kind == "bf16":
            codes = weight.to(torch.bfloat16).contiguous().view(torch.int16)
        elif self.kind == "int8":
            codes, self.scales = to_int8(weight)
        else:
            codes, self.scales, self.coarse, self.mean = to_nf4(weight)
        self.weight = nn.Parameter(codes, requires_grad=False)
        return self

    def take(self, blocks: Blocks | Codes) -> SmallLinear:
        """Take over a weight as a GGUF file or bitsandbytes stores it."""
        if isinstance(blocks, Codes):
            self.weight = nn.Parameter(blocks.codes, requires_grad=False)
            self.scales, self.coarse, self.mean, self.levels = blocks.scales, blocks.coarse, blocks.mean, blocks.levels
            self.sample = some_of(self.dense())
            return self
        step = max(1, self.out_features * self.in_features // 64)
        places = torch.arange(0, self.out_features * self.in_features, step)
        rows = places.div(self.in_features, rounding_mode="floor")
        self.sample = blocks.rows(rows).gather(1, (places % self.in_features)[:, None])[:, 0].to(torch.bfloat16)
        self.weight, self.block = nn.Parameter(blocks.raw, requires_grad=False), blocks.kind
        return self

    def forward(self, input: Tensor) -> Tensor:
        return SmallProduct.apply(input, self)  # type: ignore[no-any-return]

    def times(self, inputs: Tensor) -> Tensor:
        """(N, in) to (N, out), with the bias. Without gradient."""
        output = fresh((len(inputs), self.out_features), inputs)
        for rows in self.spans():
            torch.mm(inputs, self.widened(rows, inputs.dtype).T, out=output[:, rows])
        return output if self.bias is None else output.add_(self.bias)

    def back(self, gradient: Tensor, into: Tensor | None = None) -> Tensor:
        """(N, out) gradient by the output to (N, in) by the input; added to `into` where that is given."""
        into = fresh((len(gradient), self.in_features), gradient).zero_() if into is None else into
        for rows in self.spans():
            into.addmm_(gradient[:, rows], self.widened(rows, gradient.dtype))
        return into

    def dense(self) -> Tensor:
        """The whole weight, (out, in) in float32: a copy of its own."""
        found = torch.empty(self.out_features, self.in_features, device=self.weight.device)
        for rows in self.spans():
            found[rows] = self.widened(rows, torch.float32)
        return found

    def spans(self) -> Iterator[slice]:
        """Rows that are widened together; those of nf4 begin where a block of scales does."""
        unit = BLOCK * SCALE_BLOCK
        step = unit // math.gcd(unit, self.in_features) if self.kind == "nf4" else 1
        count = max(1, WIDENED // (self.in_features * step)) * step
        return (slice(start, min(start + count, self.out_features)) for start in range(0, self.out_features, count))

    def widened(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows of the weight, in a buffer that the next call writes over."""
        size = (rows.stop - rows.start) * self.in_features
        if self.kind == "nf4":
            return self._widened_nf4(rows.start * self.in_features, size, dtype)
        found = _buffer(size, dtype, self.weight.device).view(-1, self.in_features)
        if self.kind == "bf16":
            return found.copy_(self.weight[rows].view(torch.bfloat16))
        if self.kind == "gguf":
            return widen_blocks(self.weight[rows], self.block, found)
        assert self.scales is not None
        return found.copy_(self.weight[rows]).mul_(self.scales[rows, None])

    def _widened_nf4(self, first: int, size: int, dtype: torch.dtype) -> Tensor:
        assert self.scales is not None and self.coarse is not None and self.mean is not None
        blocks = -(-size // BLOCK)
        found = _buffer(blocks * BLOCK, dtype, self.weight.device)
        codes = self.weight[first // 2 : first // 2 + blocks * BLOCK // 2]
        torch.index_select(_pairs(dtype, self.weight.device), 0, codes.int(), out=found.view(-1, 2))
        block, groups = first // BLOCK, -(-blocks // SCALE_BLOCK)
        scales = self.scales[block : block + groups * SCALE_BLOCK]
        fine = scales.view(torch.float8_e4m3fn).to(dtype) if self.levels is None else self.levels[scales.int()].to(dtype)
        group = block // SCALE_BLOCK
        scales = fine.view(-1, SCALE_BLOCK).mul_(self.coarse[group : group + groups, None]).add_(self.mean)
        scales = (scales.clamp_min_(0.0) if self.levels is None else scales).view(-1)[:blocks]  # bitsandbytes has no bound
        return found.view(-1, BLOCK).mul_(scales[:, None]).view(-1)[:size].view(-1, self.in_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, kind={self.kind}, bias={self.bias is not None}"


class SmallProduct(torch.autograd.Function):
    """x W^T + b of a `SmallLinear`; the weight is widened again in backward, so the input's gradient costs no memory beyond itself."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: SmallLinear) -> Tensor:
        ctx.layer = layer
        return layer.times(inputs.reshape(-1, layer.in_features)).view(*inputs.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        layer, gradient = ctx.layer, gradients[0]
        return layer.back(gradient.reshape(-1, layer.out_features)).view(*gradient.shape[:-1], layer.in_features), None


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, in) in -127..127 and the scale of each output, (out,): the largest of its weights is 127."""
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)
    count = max(1, WIDENED // weight.shape[1])
    for start in range(0, len(weight), count):
        rows = slice(start, start + count)
        part = weight[rows].float()
        scales[rows] = part.abs().amax(1).clamp_min_(_TINY) / 127
        codes[rows] = (part / scales[rows, None]).round_().to(torch.int8)
    return codes, scales


def to_nf4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes of a weight, row after row, and its scales, quantised once more (section 3 of the paper).

    Returns:
        codes, two a byte, the first in the upper four bits; 8-bit scales of blocks of 64 (the bits of float8_e4m3fn), less their mean;
        the scale of each 256 of them; their mean.
    """
    flat = weight.reshape(-1)
    blocks = -(-flat.numel() // BLOCK)
    codes = torch.empty(blocks * BLOCK // 2, dtype=torch.uint8, device=weight.device)
    tops = torch.empty(blocks, device=weight.device)
    for start in range(0, blocks, QUANTISED // BLOCK):
        part = flat[start * BLOCK : start * BLOCK + QUANTISED].float()
        part = F.pad(part, (0, -len(part) % BLOCK)).view(-1, BLOCK)
        top = part.abs().amax(1)
        levels = nearest_levels((part / top.clamp_min(_TINY)[:, None]).view(-1)).view(-1, 2)
        tops[start : start + len(part)] = top
        codes[start * BLOCK // 2 :][: len(levels)] = levels[:, 0] << 4 | levels[:, 1]
    mean = tops.mean()
    shifted = F.pad(tops - mean, (0, -blocks % SCALE_BLOCK)).view(-1, SCALE_BLOCK)
    coarse = shifted.abs().amax(1).clamp_min_(_TINY) / LARGEST_FLOAT8
    fine = (shifted / coarse[:, None]).to(torch.float8_e4m3fn)
    return codes, fine.view(-1).view(torch.uint8), coarse, mean


def nearest_levels(numbers: Tensor) -> Tensor:
    """Indices in NF4, uint8, of the levels nearest to numbers (N,) in [-1, 1]; the lower one of two as near.

    No bin of 1/32 holds two middles between levels, so that one comparison decides: six times as fast as a binary search.
    """
    first, middle = _bins(numbers.device)
    bins = ((numbers + 1) * 32).to(torch.int32).clamp_(0, len(first) - 1)
    return first.index_select(0, bins) + (numbers > middle.index_select(0, bins))


def held_as(model: nn.Module) -> str | None:
    """How the linear layers of a model are held: one of KINDS, or gguf; None where they are ordinary ones."""
    kinds = {module.kind for module in model.modules() if isinstance(module, SmallLinear)}
    return next((kind for kind in ("gguf", *reversed(KINDS)) if kind in kinds), None)  # the LM head is bf16 in all of them


def some_of(weight: Tensor) -> Tensor:
    """Up to 64 numbers of a weight, evenly spread, as bfloat16."""
    return weight.detach().flatten()[:: max(1, weight.numel() // 64)].to(torch.bfloat16).cpu()


@torch.no_grad()
def widen(model: nn.Module) -> None:
    """Make every held layer an ordinary float32 one, with the numbers that it computed with. The model then takes four bytes a weight."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SmallLinear):
                plain = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None, device="meta")
                plain.weight = nn.Parameter(child.dense(), requires_grad=False)
                if child.bias is not None:
                    plain.bias = child.bias
                setattr(parent, name, plain)


def _buffer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for `size` numbers, one a thread: fresh memory would cost a page fault every 4 kB, more than the widening itself."""
    buffers: dict[Any, Tensor] = _THREAD.__dict__.setdefault("buffers", {})
    if (found := buffers.get((dtype, device))) is None or found.numel() < size:
        found = buffers[dtype, device] = torch.empty(size, dtype=dtype, device=device)
    return found[:size]


@lru_cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256, 2): the two levels of each byte of codes."""
    levels = torch.tensor(NF4, dtype=torch.float32).to(dtype)
    return torch.stack((levels.repeat_interleave(16), levels.repeat(16)), dim=1).to(device)


@lru_cache
def _bins(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each 1/32 from -1 to 1: the level at its lower edge, and where the next one begins, in the middle between the two."""
    levels = torch.tensor(NF4, dtype=torch.float64)
    middles = ((levels[1:] + levels[:-1]) / 2).float()
    edges = torch.arange(65) / 32 - 1
    first = torch.bucketize(edges, middles)
    return first.to(torch.uint8).to(device), F.pad(middles, (0, 1), value=math.inf)[first].to(device)
