"""Reward heads with a hidden layer, against the same sum written with loops; where they may not go."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import tiny
from accord.data.packing import Branch, Unit
from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.models.heads import RewardHeads
from accord.models.lora import lora_config
from accord.models.partial import LowerStates, keep_lower_states
from accord.rewards.export import export_classifier
from accord.rewards.learned import RewardModel
from accord.rewards.scorer import distinct


def shaken() -> RewardHeads:
    heads = RewardHeads(6, 2, width=3, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        heads.readout.copy_(torch.randn(2, 3, generator=generator))
        heads.bias.copy_(torch.randn(2, 3, generator=generator))
    heads.standardise(torch.randn(9, 6, generator=generator) * 2 + 1)
    return heads


def test_hidden_layer_by_hand() -> None:
    heads = shaken()
    ends = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    found = heads.raw(ends)
    for row in range(4):
        features = [(float(ends[row, i]) - float(heads.feature_center[i])) / float(heads.feature_spread[i]) for i in range(6)]
        for head in range(2):
            score = 0.0
            for unit in range(3):
                x = sum(float(heads.weight[head, unit, i]) * features[i] for i in range(6)) + float(heads.bias[head, unit])
                score += float(heads.readout[head, unit]) * x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
            assert float(found[row, head].detach()) == pytest.approx(score, abs=1e-5)


def test_a_hidden_layer_starts_at_zero_and_its_heads_differ() -> None:
    heads = RewardHeads(6, 2, width=3)
    assert not heads.raw(torch.randn(4, 6)).any()
    assert not torch.equal(heads.weight[0], heads.weight[1])


def test_saved_loaded_and_refused_as_a_linear_classifier(tmp_path: Path) -> None:
    policy = tiny.policy()
    renderer = Renderer(tiny.tokenizer())
    model = RewardModel(policy, (), RewardHeads(policy.hidden_size, 2, width=3, layer=1, seed=4), renderer)
    with torch.no_grad():
        model.heads.readout.normal_(generator=torch.Generator().manual_seed(1))
    units = [Unit((5, 6, 7), (Branch((8, 9)), Branch((10,))))]
    model.save(tmp_path, tiny.tokenizer())
    loaded = RewardModel.load(tiny.policy(), tmp_path, renderer)
    assert (loaded.heads.width, loaded.heads.layer) == (3, 1)
    assert torch.equal(loaded.score(units), model.score(units)) and model.score(units).any()
    with pytest.raises(ConfigError, match="head_width=0"):
        export_classifier(model, tiny.tokenizer(), tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()


def test_answers_that_repeat_are_read_once_from_their_kept_states() -> None:
    """Merging keeps each answer's own states: the scores are those of a full pass, and no lower layer runs again."""
    policy = tiny.policy(num_hidden_layers=4)
    policy.add_adapter("top", lora_config(policy, rank=4, layers=0.5))
    tiny.shake(policy, "top")
    model = RewardModel(policy, ("top",), RewardHeads(policy.hidden_size, 2, seed=4), Renderer(tiny.tokenizer()))
    units = [
        Unit((5, 6, 7), (Branch((8, 9)), Branch((10,)), Branch((8, 9))), "a"),
        Unit((5, 6, 7), (Branch((11, 12, 13)), Branch((10,))), "b"),
        Unit((20, 21), (Branch((8, 9)),), "c"),
    ]
    expected = model.score(units)
    assert keep_lower_states(policy, units, ("top",), 1000) == 2
    merged = distinct(units)
    assert [[branch.ids for branch in unit.branches] for unit in merged] == [[(8, 9), (10,), (11, 12, 13)], [(8, 9)]]
    kept = merged[0].data["lower"]
    assert isinstance(kept, LowerStates) and len(kept.states) == merged[0].num_tokens
    calls: list[int] = []
    hook = policy.layers[0].register_forward_hook(lambda *_: calls.append(1))
    found = model.score(units)
    hook.remove()
    assert not calls
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layer", [1, None])
def test_context_is_the_prompt_the_answer_and_its_end(packed: bool, layer: int | None, tmp_path: Path) -> None:
    """Against transformers alone, row by row: last prompt token, mean over the answer, last token, after the final norm, side by side."""
    policy = tiny.policy(packed=packed)
    heads = RewardHeads(3 * policy.hidden_size, 2, width=3, layer=layer, context=True, seed=4)
    heads.readout.data.normal_(generator=torch.Generator().manual_seed(3))
    model = RewardModel(policy, (), heads, Renderer(tiny.tokenizer()))
    shared = tuple(range(30, 42))  # long enough to be encoded once for both rows
    units = [Unit((*shared, 5, 6), (Branch((8, 9, 10)), Branch((11,)))), Unit((*shared, 7), (Branch((12, 13)),))]
    found = torch.cat(model.features(units))
    expected = []
    for unit in units:
        for branch in unit.branches:
            with torch.no_grad():
                states = policy.model(torch.tensor([[*unit.prompt_ids, *branch.ids]]), output_hidden_states=True).hidden_states
            hidden = states[-1][0] if layer is None else policy.final_norm(states[layer])[0]
            start = len(unit.prompt_ids)
            expected.append(torch.cat((hidden[start - 1], hidden[start:].mean(0), hidden[-1])))
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    model.save(tmp_path, tiny.tokenizer())
    loaded = RewardModel.load(tiny.policy(), tmp_path, model.renderer)
    assert loaded.heads.context and torch.allclose(loaded.score(units), model.score(units), atol=1e-6)


def test_heads_that_read_the_prompt_are_no_classifier(tmp_path: Path) -> None:
    model = RewardModel(tiny.policy(), (), RewardHeads(96, 2, context=True, seed=4), Renderer(tiny.tokenizer()))
    with pytest.raises(ConfigError, match="head_context=False"):
        export_classifier(model, tiny.tokenizer(), tmp_path / "classifier")
