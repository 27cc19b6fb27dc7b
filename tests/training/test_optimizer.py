"""AdamW with moments in eight bits: what it loses, what it keeps, what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from accord import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from accord.errors import ConfigError, DataError, MachineError
from accord.models.size import moment_bytes
from accord.training import optimizer
from accord.training.optimizer import BLOCK, FIRST, SECOND, SMALL, AdamW8bit, Moment

SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def numbers(*, signed: bool, blocks: int = 64, seed: int = 0) -> Tensor:
    """Of many sizes within a block, as gradients of different rows are."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(blocks, BLOCK, generator=generator) * torch.exp(2 * torch.randn(blocks, BLOCK, generator=generator))
    return found if signed else found.square()


@pytest.mark.parametrize("kind", [FIRST, SECOND])
def test_a_number_is_off_by_one_level_at_most(kind: Moment) -> None:
    """A level is 2^(16/127), or 2^(32/255): 9 %. What lies more than 16 (32) powers of two below its block's largest may be more."""
    given = numbers(signed=kind.signed)
    found = kind.widened(*kind.rounded(given, torch.rand(given.shape, generator=torch.Generator().manual_seed(1))))
    inside = given.abs() > given.abs().amax(1, keepdim=True) * 2.0 ** (kind.step * (2 - kind.levels))
    assert inside.float().mean() > 0.95
    assert ((found - given).abs() <= (2**kind.step - 1 + 1e-4) * given.abs())[inside].all()
    assert (found.sign() == given.sign())[inside].all()


@pytest.mark.parametrize("kind", [FIRST, SECOND])
def test_rounding_is_right_in_the_mean(kind: Moment) -> None:
    """4,000 draws of one row: each mean within five standard errors of the number, small ones under the lowest level too for the signed."""
    given = numbers(signed=kind.signed, blocks=1).expand(4000, BLOCK)
    found = kind.widened(*kind.rounded(given, torch.rand(given.shape, generator=torch.Generator().manual_seed(2)))).double()
    inside = torch.ones(BLOCK, dtype=torch.bool) if kind.signed else given[0] > given[0].max() * 2.0 ** (kind.step * (1 - kind.levels))
    error = (found.mean(0) - given[0]).abs()
    allowed = 5 * found.std(0) / 4000**0.5 + 2e-4 * given[0].abs()
    assert (error <= allowed)[inside].all()


@pytest.mark.parametrize("kind", [FIRST, SECOND])
def test_what_is_on_a_level_stays_there(kind: Moment) -> None:
    """Widened and rounded again nothing moves, whatever is drawn, and what shrinks as a whole by whole levels is not rounded at all."""
    given = numbers(signed=kind.signed)
    chances = torch.rand(3, *given.shape, generator=torch.Generator().manual_seed(3)).clamp(0.01, 0.99)
    levels = kind.widened(*kind.rounded(given, chances[0]))
    again = kind.widened(*kind.rounded(levels, chances[1]))
    torch.testing.assert_close(again, levels, rtol=1e-4, atol=0)
    less = 2.0 ** (-5 * kind.step)
    torch.testing.assert_close(kind.widened(*kind.rounded(levels * less, chances[2])), levels * less, rtol=1e-4, atol=0)


def test_a_block_of_zeros_and_the_rest_of_a_block() -> None:
    assert not FIRST.widened(*FIRST.rounded(torch.zeros(2, BLOCK), torch.full((2, BLOCK), 0.5))).any()
    zero = SECOND.widened(*SECOND.rounded(torch.zeros(2, BLOCK), torch.full((2, BLOCK), 0.5)))
    assert (zero >= 0).all() and zero.max() < 1e-30


def steps(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], count: int, shape: tuple[int, ...] = (70, 67)) -> list[Tensor]:
    """A parameter after each of so many steps on gradients with a mean and noise, both of many sizes. 4,690 numbers fill no whole block."""
    generator = torch.Generator().manual_seed(4)
    parameter = nn.Parameter(torch.ones(shape))
    chosen = make([parameter])
    size = torch.exp(torch.randn(shape, generator=generator))
    mean = 0.5 * size * torch.randn(shape, generator=generator)
    found = []
    for _ in range(count):
        parameter.grad = mean + size * torch.randn(shape, generator=generator)
        chosen.step()
        found.append(parameter.detach().clone())
    return found


def test_the_first_step_is_adamw() -> None:
    """Moments are rounded after they were used."""
    plain, ours = (steps(lambda given, kind=kind: kind(given, **SETTINGS), 1)[0] for kind in (torch.optim.AdamW, AdamW8bit))
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-7)


def test_small_parameters_are_adamw_at_every_step() -> None:
    shape = (SMALL - 1,)
    plain, ours = (steps(lambda given, kind=kind: kind(given, **SETTINGS), 20, shape)[-1] for kind in (torch.optim.AdamW, AdamW8bit))
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_it_goes_where_adamw_goes() -> None:
    """After 300 steps the way is within a tenth of AdamW's; another seed's rounding is as far, so none of it is a drift."""
    plain = steps(lambda given: torch.optim.AdamW(given, **SETTINGS), 300)[-1] - 1
    one, other = (steps(lambda given, seed=seed: AdamW8bit(given, **SETTINGS, seed=seed), 300)[-1] - 1 for seed in (0, 1))
    assert float((one - plain).norm() / plain.norm()) < 0.1
    assert not torch.equal(one, other)
    both = (one + other) / 2
    assert float((both - plain).norm()) < 0.9 * float((one - plain).norm())


def test_a_second_moment_decays_though_a_step_is_less_than_a_level() -> None:
    """Of half of the numbers the gradient falls to a hundredth: with beta2 0.999 a step is a 90th of a level, and rounding to the nearest
    would leave them where they are. After 2,000 steps exp(-2) of a second moment is left."""
    size = 64 * BLOCK
    parameter = nn.Parameter(torch.zeros(size))
    chosen = AdamW8bit([parameter], lr=0.0)
    quiet = torch.arange(size) % 2 == 0
    generator = torch.Generator().manual_seed(5)
    for step in range(2400):
        grad = torch.randn(size, generator=generator)
        parameter.grad = torch.where(quiet & (step >= 400), 0.0, grad)
        chosen.step()
        if step == 399:
            before = second(chosen, parameter)
    left = second(chosen, parameter)[quiet].mean() / before[quiet].mean()
    assert float(left) == pytest.approx(0.999**2000, rel=0.1)
    assert float(second(chosen, parameter)[~quiet].mean()) == pytest.approx(1 - 0.999**2400, rel=0.05)


def second(chosen: AdamW8bit, parameter: nn.Parameter) -> Tensor:
    state = chosen.state[parameter]
    return SECOND.widened(state["exp_avg_sq"], state["exp_avg_sq_top"]).view(-1)[: parameter.numel()]


def test_two_bytes_a_number() -> None:
    parameter = nn.Parameter(torch.zeros(1 << 16))
    parameter.grad = torch.ones_like(parameter)
    chosen = AdamW8bit([parameter])
    chosen.step()
    taken = sum(value.nbytes for value in chosen.state[parameter].values()) - 4  # the step's number
    assert taken == int(moment_bytes("adamw_8bit", 4) * parameter.numel())


def test_chunks_change_nothing_but_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter of several chunks, the last not full: its first step is AdamW's all the same, its second within rounding."""
    monkeypatch.setattr(optimizer, "CHUNK", 2 * BLOCK)
    plain, ours = (steps(lambda given, kind=kind: kind(given, **SETTINGS), 2) for kind in (torch.optim.AdamW, AdamW8bit))
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours[1], plain[1], rtol=1e-2, atol=2e-3)


def test_transposed_parameters_move() -> None:
    parameter = nn.Parameter(torch.ones(64, 128).T)
    parameter.grad = torch.ones(128, 64)
    AdamW8bit([parameter], lr=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.full((128, 64), 0.9))


def test_bfloat16_weights_move() -> None:
    parameter = nn.Parameter(torch.ones(8192, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    AdamW8bit([parameter], lr=0.1).step()
    torch.testing.assert_close(parameter.detach().float(), torch.full((8192,), 0.9), rtol=0, atol=4e-3)


# -- in a run ------------------------------------------------------------------------------------------------------------------------


def trained(folder: Path, optim: str, **settings: Any) -> SFTTrainer:
    """All weights of a tiny model, whose embeddings alone are large enough for eight bits."""
    args = SFTConfig(output_dir=str(folder), learning_rate=3e-3, max_steps=12, per_device_train_batch_size=4, optim=optim, **settings)
    trainer = SFTTrainer(tiny.policy(), args, tiny.demonstrations(), processing_class=tiny.tokenizer())
    trainer.train()
    return trainer


def test_a_run_learns_what_it_learns_with_adamw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "SMALL", 1)
    plain, ours = (
        [row["loss"] for row in trained(tmp_path / name, name).log_history if "grad_norm" in row] for name in ("adamw", "adamw_8bit")
    )
    assert plain[-1] < plain[0] - 0.5
    assert max(abs(one - other) for one, other in zip(ours, plain, strict=True)) < 0.1 * (plain[0] - plain[-1])
    assert ours != plain


def test_other_names_mean_the_same() -> None:
    assert DPOConfig(optim="adamw_torch_fused").optim == "adamw" and DPOConfig(optim="adamw_bnb_8bit").optim == "adamw_8bit"
    with pytest.raises(ConfigError, match=r"optim='adamw_8bits' must be one of adamw, .*Did you mean 'adamw_8bit'"):
        DPOConfig(optim="adamw_8bits")
    with pytest.raises(ConfigError, match="adamw with fully_shard"):
        DPOConfig(optim="adamw_8bit", fully_shard=True)


@pytest.mark.parametrize(("first", "then"), [("adamw", "adamw_8bit"), ("adamw_8bit", "adamw")])
def test_a_checkpoint_of_the_other_optimizer_is_refused(first: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "SMALL", 1)
    trained(tmp_path / "run", first, save_steps=6)
    with pytest.raises(DataError, match=f"moments of --optim {first}, and this run has --optim {then}. Resume with --optim {first}"):
        trained(tmp_path / "run", then, resume_from_checkpoint=True)


def test_loading_asks_for_the_moments_that_there_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All weights of a model by its name: 16 bytes each are asked for, 10 with moments in eight bits."""
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    count = sum(parameter.numel() for parameter in tiny.model().parameters())
    monkeypatch.setattr("accord.models.load.available_memory", lambda *_: 12 * count)
    rows = tiny.demonstrations()
    with pytest.raises(MachineError, match="Training all weights"):
        SFTTrainer(str(tmp_path / "model"), SFTConfig(output_dir=str(tmp_path / "run")), rows)
    SFTTrainer(str(tmp_path / "model"), SFTConfig(output_dir=str(tmp_path / "run"), optim="adamw_8bit"), rows)
    assert f"about {count * 10.016 / 1e9:.1f} GB" in capsys.readouterr().err


def test_an_adapter_trains_with_it(tmp_path: Path) -> None:
    args = DPOConfig(output_dir=str(tmp_path), max_steps=3, optim="adamw_8bit", per_device_train_batch_size=4)
    trainer = DPOTrainer(tiny.policy(), None, args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    trainer.train()
    assert isinstance(trainer.optimizer, AdamW8bit) and trainer.global_step == 3
