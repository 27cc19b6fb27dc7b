"""A beginning that prompts share is encoded once, and every row still sees exactly what it sees alone."""

from __future__ import annotations

import pytest
import torch

import tiny
from accord.data.packing import SHORTEST_PREFIX, Branch, Unit, pack, shared_prefix
from accord.models.adapters import PolicyModel, Want
from accord.models.heads import Reading

HEADER = tuple(range(20, 33))
UNITS = [
    Unit((*HEADER, 5, 6, 7), (Branch((8, 9, 10, 11, 2)), Branch((40, 41, 2), (False, True, True)))),
    Unit((*HEADER, 50), (Branch((51, 52)),)),
    Unit((*HEADER, 5, 61, 62, 63, 64, 65, 66, 67, 68, 69), (Branch((70,)), Branch((71, 72)))),
]
WANT = Want(logprobs=True, entropy=True, states=True, ends=(Reading(),))


def policy(architecture: str, packed: bool = True) -> PolicyModel:
    made = tiny.policy(architecture, packed=packed)
    made.add_adapter("sft", tiny.lora())
    tiny.shake(made, "sft")
    return made


def run(model: PolicyModel, groups: list[list[Unit]]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model.model.zero_grad()
    found: dict[str, list[torch.Tensor]] = {}
    for units in groups:
        out = model.forward(pack(units), ("sft",), WANT, temperature=0.7)
        (out.logprobs.sum() + 0.1 * out.states.square().sum() + 0.1 * out.ends[0].sum()).backward()
        for name, value in (("logprobs", out.logprobs), ("entropy", out.entropy), ("states", out.states), ("ends", out.ends[0])):
            found.setdefault(name, []).append(value.detach())
    return {name: torch.cat(parts) for name, parts in found.items()}, {
        name: p.grad.clone() for name, p in model.trainable_parameters().items()
    }


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_together_is_as_alone(architecture: str) -> None:
    batch = pack(UNITS)
    assert batch.prefix == len(HEADER) and batch.num_tokens == sum(unit.num_tokens for unit in UNITS) - 2 * len(HEADER)
    alone, alone_gradients = run(policy(architecture), [[unit] for unit in UNITS])
    for model in (policy(architecture), policy(architecture, packed=False)):
        together, gradients = run(model, [UNITS])
        for name, expected in alone.items():
            assert torch.allclose(together[name], expected, atol=2e-5), name
        for name, expected in alone_gradients.items():
            assert float((gradients[name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-6, name


def test_what_is_shared() -> None:
    def units(*prompts: tuple[int, ...]) -> list[Unit]:
        return [Unit(prompt, (Branch((1,)),)) for prompt in prompts]

    assert shared_prefix(units(HEADER)) == 0  # alone
    assert shared_prefix(units(HEADER, HEADER)) == len(HEADER) - 1  # the last prompt token predicts each row's first token
    assert shared_prefix(units((*HEADER, 1), (*HEADER, 2), (*HEADER[:10], 3))) == 10
    assert shared_prefix(units((*HEADER[: SHORTEST_PREFIX - 1], 1), (*HEADER[: SHORTEST_PREFIX - 1], 2))) == 0  # too short
    assert shared_prefix(units((9, *HEADER), HEADER)) == 0
