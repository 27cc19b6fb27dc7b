"""The packed path gives the model's own log-probs and gradients, or the model keeps its own path and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from accord import PPOConfig, PPOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.models import support
from accord.models.adapters import PolicyModel, Want
from accord.models.heads import Reading
from accord.models.packed_attention import TreeLayout, UnsupportedAttention, packed_attention
from accord.models.padded_attention import PaddedPieces
from accord.training.loop import Loop

EXTRA: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gpt_neox": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1},
}
PACK = [*tiny.ARCHITECTURES, *EXTRA]
WANT = Want(logprobs=True, entropy=True, states=True, ends=(Reading(),))


def make(architecture: str) -> Any:
    return tiny.model(architecture, **EXTRA.get(architecture, {}))


def batch() -> Any:
    """Two prompts, three and one completions, longer than the tiny sliding window of 8, one with uncounted tokens."""
    generator = torch.Generator().manual_seed(3)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, tiny.VOCAB, (count,), generator=generator).tolist())

    masked = Branch(ids(6), (True, False, False, True, True, False))
    return pack([Unit(ids(13), (Branch(ids(7)), masked, Branch(ids(1)))), Unit(ids(2), (Branch(ids(15)),))])


def outputs(policy: PolicyModel, want: Want = WANT) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What one forward returns, and the gradients of a loss that reads all of it."""
    made = batch()
    out = policy.forward(made, policy.adapters, want, temperature=0.7)
    found = {"logprobs": out.logprobs, "entropy": out.entropy, "states": out.states, "ends": torch.cat(out.ends, -1)}
    weights = torch.linspace(-1, 1, len(made.targets))
    loss = (weights * found["logprobs"]).sum() + 0.1 * (weights[:, None] * found["states"]).sum() + 0.1 * found["ends"].square().sum()
    policy.model.zero_grad()
    loss.backward()
    return found, {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", PACK)
def test_packed_equals_rows(architecture: str) -> None:
    measured = PolicyModel(make(architecture))
    assert measured.packed and measured.note is None, measured.note
    packed, packed_gradients = outputs(measured)
    rows, row_gradients = outputs(PolicyModel(make(architecture), packed=False))
    for name, expected in rows.items():
        assert torch.allclose(packed[name], expected, atol=2e-5, rtol=1e-5), name
    assert packed_gradients.keys() == row_gradients.keys()
    for name, expected in row_gradients.items():
        # A key bias shifts every score of a query alike: its gradient is 0 and what is computed is rounding.
        assert float((packed_gradients[name] - expected).norm()) < 1e-5 * float(expected.norm()) + 1e-5, name


@pytest.mark.parametrize("packed", [True, False])
def test_greedy_tokens(packed: bool) -> None:
    """Every second target replaced by the token with the largest logit."""
    policy, made = tiny.policy(packed=packed), batch()
    states = policy.forward(made, (), Want(states=True)).states
    assert states is not None
    best = policy.logits(states).argmax(-1)
    hit = torch.arange(len(best)) % 2 == 0
    greedy = policy.forward(replace(made, targets=torch.where(hit, best, (best + 1) % tiny.VOCAB)), ()).greedy
    assert greedy is not None and greedy.tolist() == hit.tolist()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_heads_read_any_layers_of_one_pass(architecture: str) -> None:
    """Several heads read one pass: what each finds is what it finds alone."""
    readings = (
        Reading(1),
        Reading(context=True),
        Reading(2),
        Reading(1, context=True),
        Reading(1, surprise=True),
        Reading(None, True, True),
        Reading(),
    )
    packed, rows = (PolicyModel(make(architecture), packed=layout) for layout in (True, False))
    together = packed.forward(batch(), packed.adapters, Want(ends=readings)).ends
    for reading, found in zip(readings, together, strict=True):
        for model in (packed, rows):
            (alone,) = model.forward(batch(), model.adapters, Want(logprobs=False, ends=(reading,))).ends
            assert torch.allclose(found, alone, atol=2e-5, rtol=1e-5), reading
    assert not torch.allclose(together[0], together[-1], atol=1e-2)


def test_rows_equal_the_plain_model() -> None:
    """The fallback against transformers itself: log-softmax of the model's logits, one sequence at a time."""
    model = make("llama")
    made = batch()
    out = PolicyModel(model, packed=False).forward(made, (), temperature=0.7)
    expected = []
    with torch.no_grad():
        for unit in made.units:
            for branch in unit.branches:
                ids = torch.tensor([[*unit.prompt_ids, *branch.ids]])
                table = (model(ids).logits[0] / 0.7).log_softmax(-1)
                start = len(unit.prompt_ids)
                expected += [
                    table[start + i - 1, token] for i, token in enumerate(branch.ids) if branch.counted is None or branch.counted[i]
                ]
    assert torch.allclose(out.logprobs, torch.stack(expected), atol=1e-5)


FALLBACK: dict[str, dict[str, Any]] = {
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True, "new_decoder_architecture": False},
    "gpt_oss": {**tiny._SHAPE, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    "qwen3_next": {
        **tiny._SHAPE, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2"])
def test_half_precision_packs_though_it_rounds(architecture: str) -> None:
    """Two kinds of attention of one model differ by more than a twentieth of a nat in bfloat16: so may the packed one."""
    model = tiny.model(architecture, scale=0.4, num_hidden_layers=4).to(torch.bfloat16)
    policy = PolicyModel(model)
    assert policy.packed and policy.note is None, policy.note
    assert support._difference(policy) > support.LEAST_HALF  # or the test says nothing


def test_half_precision_does_not_hide_a_wrong_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaddedPieces, "attend", lambda self, query, *_: torch.zeros_like(query))
    policy = PolicyModel(tiny.model(scale=0.4, num_hidden_layers=4).to(torch.bfloat16))
    assert not policy.packed and policy.note is not None and "packed log-probs differ from the model's own" in policy.note


@pytest.mark.parametrize("architecture", FALLBACK)
def test_other_models_fall_back_and_say_so(architecture: str) -> None:
    config = AutoConfig.for_model(architecture, **{"vocab_size": tiny.VOCAB, **FALLBACK[architecture]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    policy = PolicyModel(model)
    assert not policy.packed
    assert policy.note is not None and "one row per completion" in policy.note and "\n" not in policy.note
    unit = Unit((5, 6, 7), (Branch((8, 9)), Branch((10,))))
    with torch.no_grad():
        logprobs = policy.forward(pack([unit]), ()).logprobs
        table = model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0].log_softmax(-1)
        other = model(torch.tensor([[5, 6, 7, 10]])).logits[0].log_softmax(-1)
    assert torch.allclose(logprobs, torch.stack((table[2, 8], table[3, 9], other[2, 10])), atol=1e-5)


def test_the_small_copy_of_the_check_stays_small() -> None:
    """Vocabulary and MLP have no part in how a model attends; of a 7B model two layers of full width took 1.8 GB."""
    policy = PolicyModel(tiny.model("llama", vocab_size=4096, intermediate_size=8192), packed=True)
    kept = {name: parameter.numel() for name, parameter in support._small_copy(policy).model.named_parameters()}
    hidden = policy.text_config.hidden_size
    assert sum(count for name, count in kept.items() if "mlp" in name) == 2 * 3 * support.FEW_INNER * hidden
    assert kept["model.embed_tokens.weight"] == support.FEW_TOKENS * hidden


@pytest.mark.parametrize(
    "keyword", [{"s_aux": torch.ones(4)}, {"position_bias": torch.ones(4)}, {"head_mask": torch.ones(4)}, {"dropout": 0.1}]
)
def test_unknown_attention_arguments_are_rejected(keyword: dict[str, Any]) -> None:
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    layout = TreeLayout(pack([Unit((1, 2), (Branch((3,)),))]))
    module = torch.nn.Identity()
    with pytest.raises(UnsupportedAttention, match="without layer_idx"):
        packed_attention(module, query, key, key, None, packed=layout)
    module.layer_idx = 0  # type: ignore[assignment]
    packed_attention(module, query, key, key, None, packed=layout, position_ids=torch.arange(3))
    with pytest.raises(UnsupportedAttention, match="attention argument"):
        packed_attention(module, query, key, key, None, packed=layout, **keyword)


def two_adapters(*, checkpointing: bool, packed: bool = True) -> PolicyModel:
    policy = tiny.policy(packed=packed)
    for name in ("sft", "ppo", "value"):
        policy.add_adapter(name, tiny.lora(), seed=len(policy.adapters))
    tiny.shake(policy, "sft", "ppo", "value")
    policy.train_only("ppo", "value")
    if checkpointing:
        policy.enable_checkpointing()
    return policy


@pytest.mark.parametrize("packed", [True, False])
def test_checkpointing_recomputes_with_the_same_stack(packed: bool) -> None:
    """Two stacks run forward before either is differentiated: recomputation must not see the other's adapters."""
    found = []
    for checkpointing in (False, True):
        policy = two_adapters(checkpointing=checkpointing, packed=packed)
        made = batch()
        logprobs = policy.forward(made, ("sft", "ppo")).logprobs
        states = policy.forward(made, ("sft", "value"), Want(logprobs=False, states=True)).states
        (logprobs.sum() + states.square().sum()).backward()
        found.append({name: p.grad.clone() for name, p in policy.trainable_parameters().items()})
    assert len(found[0]) == len(found[1]) > 0
    for name, expected in found[0].items():
        assert float(expected.norm()) > 0
        assert float((found[1][name] - expected).norm()) <= 1e-6 * float(expected.norm()), name


@pytest.mark.parametrize("packed", [True, False])
def test_checkpointing_really_recomputes(packed: bool) -> None:
    """Row by row as well: there each answer is a forward pass of its own."""
    policy, made = two_adapters(checkpointing=True, packed=packed), batch()
    calls: list[int] = []
    policy.layers[0].self_attn.register_forward_hook(lambda *arguments: calls.append(1))
    policy.forward(made, ("sft", "ppo")).logprobs.sum().backward()
    assert len(calls) == 2 * (1 if packed else sum(len(unit.branches) for unit in made.units))
    assert not any(module.training for module in policy.model.modules())


def test_checkpointing_in_a_ppo_step(tmp_path: Path) -> None:
    def score(completions: list[Any], **columns: Any) -> list[float]:
        return [len(completion[0]["content"]) / 10 for completion in completions]

    found = []
    for checkpointing in (False, True):
        args = PPOConfig(
            output_dir=str(tmp_path / str(checkpointing)), value="adapter", gradient_checkpointing=checkpointing, learning_rate=0.0, max_grad_norm=0.0,
            prompts_per_iteration=3, num_generations=2, max_new_tokens=6, skip_step0_checks=True,
        )  # fmt: skip
        trainer: Loop = PPOTrainer(args, tiny.tokenizer(), tiny.policy(), score, tiny.prompts(), peft_config=tiny.lora())
        tiny.shake(trainer.policy, "ppo", "value")
        with torch.no_grad():
            trainer.value_head.weight.fill_(0.3)
        trainer._build_optimizer()
        trainer.train_step(next(iter(trainer.batches(0))))
        found.append({name: p.grad.clone() for name, p in trainer.parameters().items()})
    for name, expected in found[0].items():
        assert float(expected.norm()) > 0
        assert float((found[1][name] - expected).norm()) <= 1e-6 * float(expected.norm()), name
