"""The fused functions: their gradients by finite differences, and whole models against the plain transformers + peft path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoHaConfig
from torch import Tensor, nn

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.models.adapters import PolicyModel, Want
from accord.models.fuse import NORMS
from accord.models.fused import GatedUnit, LoraLinears, Origin, RmsNorm, Rotate, gated_unit, rms_norm


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


# -- each function alone ------------------------------------------------------------------------------------------------------------


def test_rms_norm() -> None:
    inputs, weight = double(2, 3, 5), double(5, seed=1)
    plain = inputs / (inputs.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    assert torch.allclose(RmsNorm.apply(inputs, weight, 1e-3), plain, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-3), (inputs, weight))


@pytest.mark.parametrize("activation, plain", [("silu", nn.SiLU()), ("gelu", nn.GELU()), ("gelu_tanh", nn.GELU(approximate="tanh"))])
def test_gated_unit(activation: str, plain: Any) -> None:
    gate, up = double(4, 6), double(4, 6, seed=1)
    assert torch.allclose(GatedUnit.apply(gate, up, activation), plain(gate) * up, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: GatedUnit.apply(a, b, activation), (gate, up))


@pytest.mark.parametrize("adapters", [(0,), (1,), (2,), (1, 1), (2, 2, 2), (1, 0, 2)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_lora_linears(adapters: tuple[int, ...], with_bias: bool) -> None:
    inputs = double(2, 3, 5)
    scales = tuple((0.5, 2.0)[:count] for count in adapters)
    tensors: list[Tensor | None] = []
    plain = []
    for index, mine in enumerate(scales):
        out, seed = 4 + index, 10 * index
        weight, bias = double(out, 5, seed=seed + 1).detach(), double(out, seed=seed + 2).detach() if with_bias else None
        factors = [double(*shape, seed=seed + 3 + i) for i, shape in enumerate([(2, 5), (out, 2), (3, 5), (out, 3)][: 2 * len(mine)])]
        expected = inputs @ weight.T + (0 if bias is None else bias)
        for i, scale in enumerate(mine):
            expected = expected + scale * (inputs @ factors[2 * i].T) @ factors[2 * i + 1].T
        plain.append(expected)
        tensors += [weight, bias, *factors]
    found = LoraLinears.apply(inputs, None, scales, *tensors)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(found, plain, strict=True))
    assert torch.autograd.gradcheck(lambda x, *given: LoraLinears.apply(x, None, scales, *given), (inputs, *tensors))


def test_lora_linears_make_only_the_gradients_that_are_wanted() -> None:
    """A frozen adapter below a trainable one, an input without gradient (the lowest trained layer), an output that nothing reads."""
    inputs, weight = double(3, 5).detach(), double(4, 5, seed=1).detach()
    frozen = [double(2, 5, seed=2).detach(), double(4, 2, seed=3).detach()]
    down, up = double(2, 5, seed=4), double(4, 2, seed=5)
    unread = double(2, 5, seed=6), double(4, 2, seed=7)
    given = (weight, None, *frozen, down, up), (weight, None, *frozen, *unread)
    LoraLinears.apply(inputs, None, ((1.0, 1.0), (1.0, 1.0)), *given[0], *given[1])[0].sum().backward()
    assert down.grad is not None and up.grad is not None and inputs.grad is None and frozen[0].grad is None
    expected = torch.ones(3, 4, dtype=torch.float64)
    assert torch.allclose(up.grad, expected.T @ (inputs @ down.detach().T)) and torch.allclose(
        down.grad, (expected @ up.detach()).T @ inputs
    )
    assert all(not tensor.grad.any() for tensor in unread if tensor.grad is not None)


def kept_and_gradients(inputs: Tensor, *, made_again: bool) -> tuple[set[int], list[Tensor]]:
    """Norm, linear layer, gated unit, linear layer: the addresses of what is kept for the backward pass, less those of the two inputs of
    linear layers where they are kept, and all gradients."""
    leaves = [inputs.detach().clone().requires_grad_(), double(5, seed=1), double(2, 5, seed=2), double(4, 2, seed=3)]
    leaves += [double(2, 2, seed=4), double(3, 2, seed=5)]
    kept: list[Tensor] = []

    def origin(of: Tensor) -> Origin | None:
        return Origin.of(of) if made_again else None

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        normed = rms_norm(leaves[0], leaves[1], 1e-3)
        (wide,) = LoraLinears.apply(normed, origin(normed), ((0.5,),), double(4, 5, seed=6).detach(), None, leaves[2], leaves[3])
        gated = gated_unit(wide[:, :2], wide[:, 2:], "silu")
        (output,) = LoraLinears.apply(gated, origin(gated), ((2.0,),), double(3, 2, seed=7).detach(), None, leaves[4], leaves[5])
    addresses = {tensor.data_ptr() for tensor in kept}
    found = {place for place, tensor in enumerate((normed, gated)) if tensor.data_ptr() in addresses}
    return found, list(torch.autograd.grad(output.square().sum(), leaves))


def test_what_can_be_made_again_is_not_kept_and_changes_no_bit() -> None:
    inputs = double(3, 5)
    kept, expected = kept_and_gradients(inputs, made_again=False)
    not_kept, gradients = kept_and_gradients(inputs, made_again=True)
    assert kept == {0, 1} and not not_kept
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))


def test_what_was_changed_since_it_was_made_is_kept() -> None:
    made = gated_unit(double(3, 2), double(3, 2, seed=1), "silu")
    assert Origin.of(made) is not None
    with torch.no_grad():
        made.add_(1.0)
        assert Origin.of(gated_unit(double(3, 2), double(3, 2, seed=1), "silu")) is None
    assert Origin.of(made) is None


# -- whole models -------------------------------------------------------------------------------------------------------------------


def both(architecture: str, lora: Any = None, *, second: Any = None, **changes: Any) -> tuple[PolicyModel, PolicyModel]:
    """The same model twice, plain and fused, with one or two adapters that matter."""
    found = []
    for fused in (False, True):
        policy = PolicyModel(tiny.model(architecture, **changes), packed=True, fused=fused)
        policy.add_adapter("first", copy.deepcopy(lora) or tiny.lora(), seed=1)
        if second is not None:
            policy.add_adapter("second", copy.deepcopy(second), seed=2)
        tiny.shake(policy, *policy.adapters)
        found.append(policy)
    return found[0], found[1]


def results(policy: PolicyModel, units: list[Unit]) -> tuple[Tensor, dict[str, Tensor]]:
    policy.model.zero_grad()
    out = policy.forward(pack(units), policy.adapters, Want(logprobs=True, states=True), temperature=0.7)
    assert out.logprobs is not None and out.states is not None
    ((out.logprobs * torch.linspace(-1, 1, len(out.logprobs))).sum() + 0.1 * out.states.square().sum()).backward()
    return out.logprobs.detach(), {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_equal(plain: PolicyModel, fused: PolicyModel, units: list[Unit]) -> None:
    (expected, slopes), (found, found_slopes) = results(plain, units), results(fused, units)
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5)
    assert slopes.keys() == found_slopes.keys() and slopes
    for name, slope in slopes.items():
        assert float((found_slopes[name] - slope).norm()) <= 1e-5 * float(slope.norm()) + 1e-5, name


def units_of(lengths: list[tuple[int, list[int]]], seed: int = 0) -> list[Unit]:
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, tiny.VOCAB, (count,), generator=generator).tolist())

    return [Unit(ids(prompt), tuple(Branch(ids(answer)) for answer in answers), str(i)) for i, (prompt, answers) in enumerate(lengths)]


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "gpt2"])
def test_fused_equals_plain(architecture: str) -> None:
    changes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512} if architecture == "gpt2" else {}
    plain, fused = both(architecture, second=tiny.lora(3), **changes)
    assert_equal(plain, fused, units_of([(13, [7, 6, 1]), (2, [15])]))


@settings(max_examples=25, deadline=None)
@given(
    architecture=st.sampled_from(sorted(tiny.ARCHITECTURES)),
    lengths=st.lists(st.tuples(st.integers(1, 20), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=3),
    rank=st.integers(1, 5),
    stacked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_fused_equals_plain_on_anything(
    architecture: str, lengths: list[tuple[int, list[int]]], rank: int, stacked: bool, seed: int
) -> None:
    plain, fused = both(architecture, tiny.lora(rank), second=tiny.lora(2) if stacked else None, seed=seed)
    assert_equal(plain, fused, units_of(lengths, seed))


def test_full_fine_tuning_has_the_gradients_of_every_weight() -> None:
    units = units_of([(9, [4, 6])])
    for architecture in ("llama", "gemma3_text"):
        plain, fused = (PolicyModel(tiny.model(architecture), packed=True, fused=fused) for fused in (False, True))
        for policy in (plain, fused):
            policy.model.requires_grad_(True)
        assert_equal(plain, fused, units)


class Spy:
    """Counts how often the fused function runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
        self.calls, original = 0, function.apply

        def apply(*given: Any) -> Any:
            self.calls += 1
            return original(*given)

        monkeypatch.setattr(function, "apply", apply)


def test_the_fused_path_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    spies = [Spy(monkeypatch, function) for function in (LoraLinears, RmsNorm, GatedUnit)]
    _, fused = both("llama")
    results(fused, units_of([(3, [2])]))
    assert [spy.calls for spy in spies] == [2 * 4, 2 * 2 + 1, 2]


@pytest.mark.parametrize("what", ["dora", "rslora", "bias", "loha", "trainable base"])
def test_fallbacks(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not plain LoRA on a frozen layer takes peft's own path, beside fused norms, and gives peft's numbers."""
    configs: dict[str, Any] = {
        "dora": tiny.lora(use_dora=True),
        "rslora": tiny.lora(use_rslora=True),
        "bias": tiny.lora(lora_bias=True),
        "loha": LoHaConfig(r=2, alpha=4, target_modules=["q_proj", "up_proj"]),
        "trainable base": tiny.lora(),
    }
    spy = Spy(monkeypatch, LoraLinears)
    plain, fused = both("llama", configs[what])
    if what == "trainable base":
        for policy in (plain, fused):
            for parameter in policy.model.parameters():
                parameter.requires_grad_(True)
    assert_equal(plain, fused, units_of([(5, [3, 4])]))
    assert spy.calls == (2 * 4 if what == "rslora" else 0)  # rslora is plain LoRA with another scale


def test_dropout_in_training_mode_takes_peft_s_path(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, LoraLinears)
    _, fused = both("llama", tiny.lora(lora_dropout=0.5))
    with torch.no_grad():
        fused.peft.train()
        fused.peft(torch.tensor([[5, 6, 7]]))
        assert spy.calls == 0
        fused.peft.eval()
        fused.peft(torch.tensor([[5, 6, 7]]))
        assert spy.calls == 2 * 6  # q, k, v, o, gate with up, down


def test_norm_classes_exist() -> None:
    """The names in the pattern are those of this transformers: a renamed class would lose its fusion in silence."""
    import transformers.models as models

    for name in NORMS:
        family = name.removesuffix("RMSNorm").lower()
        module = __import__(f"transformers.models.{family}.modeling_{family}", fromlist=[name])
        assert models and hasattr(module, name), name


def test_copies_of_a_model_run_on_their_own_weights() -> None:
    """A deep copy must not run through the original's modules."""
    _, fused = both("llama")
    row = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = fused.model(row).logits
        copied = copy.deepcopy(fused.model)
        for parameter in fused.model.parameters():
            parameter.zero_()
        assert torch.equal(copied(row).logits, before)


def test_rotate() -> None:
    inputs = double(2, 3, 2, 6)
    angles = torch.randn(3, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    half = torch.cat((-inputs[..., 3:], inputs[..., :3]), -1)
    assert torch.allclose(Rotate.apply(inputs, cos, sin), inputs * cos + half * sin, atol=1e-12)
    uneven = torch.randn(
        3, 1, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )  # halves that differ, as some scalings have
    assert torch.autograd.gradcheck(lambda x: Rotate.apply(x, cos, uneven), (inputs,))
