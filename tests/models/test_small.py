"""Layers held in fewer bits: what is held, by hand; products and gradients against the dequantised weight; bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accord.models import small
from accord.models.fused import LoraLinears
from accord.models.size import held_bytes
from accord.models.small import BLOCK, KINDS, NF4, SCALE_BLOCK, SmallLinear, held_as, nearest_levels, to_int8, to_nf4, widen


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def held(weight: Tensor, kind: str, bias: Tensor | None = None) -> SmallLinear:
    layer = SmallLinear(weight.shape[1], weight.shape[0], kind, bias=bias is not None).hold(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


# -- what is held -------------------------------------------------------------------------------------------------------------------


def test_the_levels_of_nf4_follow_from_their_definition() -> None:
    """Eight levels above zero and seven below, at quantiles of the normal distribution evenly spread between 1/2 and 0.9677083 (the paper's
    code), zero itself, all divided by the largest."""
    ends = 0.9677083
    above = torch.special.ndtri(torch.linspace(ends, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(ends, 0.5, 8, dtype=torch.float64)[:-1])
    levels = torch.cat((above, below, torch.zeros(1, dtype=torch.float64))).sort().values
    assert torch.allclose(torch.tensor(NF4, dtype=torch.float64), levels / levels.max(), atol=1e-6)
    assert len(NF4) == 16 and list(NF4) == sorted(NF4) and 0.0 in NF4


def test_a_block_of_nf4_by_hand() -> None:
    """64 weights that are the 16 levels four times over, times 3: codes 0 to 15, two a byte, the first in the upper half; the one scale is
    its own mean, so what is left of it is 0, and the weights come back as they were."""
    weight = 3.0 * torch.tensor(NF4).repeat(4)[None]
    codes, scales, coarse, mean = to_nf4(weight)
    assert codes.tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF] * 4
    assert float(mean) == 3.0 and scales[0] == 0 and len(scales) == SCALE_BLOCK and len(coarse) == 1
    assert torch.equal(held(weight, "nf4").dense(), weight)


def test_every_number_goes_to_the_nearest_level() -> None:
    """Every bfloat16 in [-1, 1], a million others, the levels, the middles between them and the edges of bins with both their neighbours;
    what is exactly between two levels in float32 goes to the lower one."""
    levels = torch.tensor(NF4, dtype=torch.float64)
    middles = ((levels[1:] + levels[:-1]) / 2).float()
    marked = torch.cat((middles, levels.float(), torch.arange(-32, 33) / 32))
    up, down = torch.full_like(marked, 2.0), torch.full_like(marked, -2.0)
    stored = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16).float()
    numbers = torch.cat(
        (torch.rand(1 << 20) * 2 - 1, stored[stored.abs() <= 1], marked, torch.nextafter(marked, up), torch.nextafter(marked, down))
    )
    numbers = numbers[numbers.abs() <= 1]
    assert torch.equal(nearest_levels(numbers).long(), (numbers[:, None] > middles).sum(1))


def test_scales_of_nf4_are_kept_in_eight_bits_around_their_mean() -> None:
    """Two blocks with largest weights 1 and 3: mean 2, and -1 and +1 are the ends of the 8-bit scale, exact."""
    weight = torch.cat((torch.tensor(NF4).repeat(4), 3.0 * torch.tensor(NF4).repeat(4)))[None]
    _, scales, coarse, mean = to_nf4(weight)
    assert float(mean) == 2.0 and float(coarse) == pytest.approx(1 / 448)
    assert scales.view(torch.float8_e4m3fn).float()[:3].tolist() == [-448.0, 448.0, 0.0]
    assert torch.allclose(held(weight, "nf4").dense(), weight, atol=1e-6)


def test_int8_by_hand() -> None:
    codes, scales = to_int8(torch.tensor([[2.54, -1.28, 0.005], [0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0]]  # steps of 0.02
    assert scales[0] == pytest.approx(0.02)
    assert not held(torch.zeros(2, 3), "int8").dense().any()


def test_bf16_is_exact_for_what_was_bf16() -> None:
    weight = normal(7, 5).to(torch.bfloat16)
    assert torch.equal(held(weight, "bf16").dense(), weight.float())
    assert held(weight, "bf16").weight.dtype == torch.int16  # adapters beside it stay float32


SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 200))


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_round_trips_stay_within_their_step(shape: tuple[int, int], seed: int, scale: float) -> None:
    weight = normal(*shape, seed=seed, scale=scale)
    assert bool(((held(weight, "bf16").dense() - weight).abs() <= weight.abs() / 256).all())
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((held(weight, "int8").dense() - weight).abs() <= 0.501 * step).all())
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK).abs().amax(1)
    # Half the widest gap between levels (-1 to -0.696), and a sixteenth of the scale's distance from the mean.
    limit = 0.1521 * blocks + (blocks - blocks.mean()).abs().amax() / 16
    error = (held(weight, "nf4").dense() - weight).flatten().abs()
    assert bool((error <= limit.repeat_interleave(BLOCK)[: len(error)] + 1e-12).all())


def test_error_of_normal_weights_is_what_is_known_of_it() -> None:
    """Relative root mean squares: NF4 about 9 %, int8 by rows of 4,096 below 1 %."""
    weight = normal(64, 4096)
    errors = {kind: float((held(weight, kind).dense() - weight).norm() / weight.norm()) for kind in KINDS}
    assert 0.08 < errors["nf4"] < 0.10 and 0.005 < errors["int8"] < 0.011 and errors["bf16"] < 0.003


# -- what is computed ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1 << 21, 512], ids=["whole", "in parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(small, "WIDENED", request.param)
    return int(request.param)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(shape=SHAPES, rows=st.integers(1, 9), with_bias=st.booleans(), widened=st.sampled_from([64, 1000, 1 << 21]))
def test_products_and_gradients_are_those_of_the_dequantised_weight(
    kind: str, shape: tuple[int, int], rows: int, with_bias: bool, widened: int
) -> None:
    bias = normal(shape[0], seed=3) if with_bias else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "WIDENED", widened // BLOCK * BLOCK)
        layer = held(normal(*shape, seed=1), kind, bias)
        inputs, pull = normal(2, rows, shape[1], seed=2).requires_grad_(), normal(2, rows, shape[0], seed=4)
        found = layer(inputs)
        (gradient,) = torch.autograd.grad((found * pull).sum(), inputs)
        weight = layer.dense()
    expected = F.linear(inputs, weight, bias)
    (slope,) = torch.autograd.grad((expected * pull).sum(), inputs)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-5) and torch.allclose(gradient, slope, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_nf4_that_share_scales_are_widened_together(kind: str, parts: int) -> None:
    """32 inputs: a block of 64 weights has two rows, and 256 of these blocks 512."""
    weight = normal(1100, 32)
    layer = held(weight, kind)
    spans = list(layer.spans())
    assert (
        spans[0].start == 0
        and spans[-1].stop == 1100
        and all(one.stop == other.start for one, other in zip(spans, spans[1:], strict=False))
    )
    if kind == "nf4" and parts == 512:
        assert [span.start for span in spans] == [0, 512, 1024]
    assert torch.equal(layer.dense(), torch.cat([layer.widened(rows, torch.float32).clone() for rows in spans]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapters", [(0,), (1,), (2, 1, 0)])
def test_the_fused_adapters_take_held_layers(kind: str, adapters: tuple[int, ...], parts: int) -> None:
    inputs = normal(2, 3, 48).double().requires_grad_()
    scales = tuple((0.5, 2.0)[:count] for count in adapters)
    layers: list[Any] = []
    plain: list[Any] = []
    for index, mine in enumerate(scales):
        out = 20 + index
        base = held(normal(out, 48, seed=index), kind, normal(out, seed=index + 5))
        factors = [
            normal(*shape, seed=10 * index + i).double().requires_grad_()
            for i, shape in enumerate([(2, 48), (out, 2), (3, 48), (out, 3)][: 2 * len(mine)])
        ]
        layers += [base, base.bias, *factors]
        plain += [base.dense().double(), base.bias.double(), *factors]
    variables = [inputs, *(one for one in layers if isinstance(one, Tensor) and one.requires_grad)]
    results = []
    for tensors in (layers, plain):
        outputs = LoraLinears.apply(inputs, None, scales, *tensors)
        results.append((outputs, torch.autograd.grad(sum(out.square().sum() for out in outputs), variables)))
    for i in (0, 1):
        assert all(torch.allclose(one, other, atol=1e-4, rtol=1e-5) for one, other in zip(results[0][i], results[1][i], strict=True))


# -- what it costs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(256, 1024), (100, 4096), (33, 63)])
def test_bytes_are_those_that_plans_count_on(kind: str, shape: tuple[int, int]) -> None:
    layer = held(normal(*shape), kind)
    bytes_held = layer.weight.nbytes + sum(buffer.nbytes for buffer in layer.buffers())
    # The last of nf4's blocks are filled up: to 64 weights, and to 256 scales.
    assert 0 <= bytes_held - held_bytes(kind, shape[1], shape[0]) <= (BLOCK // 2 + SCALE_BLOCK + 8 if kind == "nf4" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_pass_keeps_no_weight(kind: str) -> None:
    """Nothing but the codes that are there anyway: saved tensors hold the input of the adapter alone."""
    layer = held(normal(64, 128), kind)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(normal(5, 128).requires_grad_())
    assert sum(tensor.nbytes for tensor in kept) == 0
    down, up = normal(2, 128).requires_grad_(), normal(64, 2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        LoraLinears.apply(normal(5, 128), None, ((1.0,),), layer, None, down, up)
    assert sorted(tensor.numel() for tensor in kept) == sorted([5 * 128, 5 * 2, 2 * 128, 64 * 2])


def test_a_model_says_how_it_is_held_and_becomes_ordinary_again() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(held(normal(6, 4), "nf4", normal(6)), held(normal(5, 6), "bf16")))
    assert held_as(model) == "nf4" and held_as(nn.Linear(2, 2)) is None
    inputs = normal(3, 4)
    before = model(inputs)
    widen(model)
    assert held_as(model) is None and all(type(module) is nn.Linear for module in (model[1][0], model[1][1]))
    assert torch.allclose(model(inputs), before, atol=1e-5)
