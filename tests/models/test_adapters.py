"""Adapter stacks: what the reference is, that only the newest moves, and that what is saved loads elsewhere to the same numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tiny
from accord import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.errors import ConfigError, DataError
from accord.models.adapters import PolicyModel, Want
from accord.models.export import export_merged
from accord.models.heads import RewardHeads
from accord.models.packed_attention import TreeLayout
from accord.models.save import adapter_hash, load_stack, save_policy
from accord.rewards.export import export_classifier
from accord.rewards.learned import RewardModel

UNITS = [Unit((5, 6, 7, 8), (Branch((9, 10, 11)), Branch((12, 2)))), Unit((20, 21), (Branch((22, 23, 24, 25, 2)),))]
ROW = torch.tensor([[5, 6, 7, 8, 12, 2]])
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def stacked(*names: str, **changes: Any) -> PolicyModel:
    """A model with shaken adapters of different rank and scale."""
    policy = tiny.policy(**changes)
    for index, name in enumerate(names):
        policy.add_adapter(name, tiny.lora(r=2 + 2 * index), seed=index)
        tiny.shake(policy, name, seed=index)
    return policy


def logprobs(policy: PolicyModel, stack: tuple[str, ...]) -> Tensor:
    with torch.no_grad():
        return policy.forward(pack(UNITS), stack).logprobs


def weights(policy: PolicyModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


# -- the stack ----------------------------------------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_nothing_and_the_reference_is_the_rest() -> None:
    policy = stacked("sft")
    after_sft = logprobs(policy, ("sft",))
    stack = policy.add_adapter("dpo", tiny.lora())
    assert stack == ("sft", "dpo")
    assert torch.allclose(logprobs(policy, stack), after_sft, atol=1e-6)
    tiny.shake(policy, "dpo", seed=4)
    assert torch.equal(logprobs(policy, ("sft",)), after_sft)  # the reference has not moved
    assert not torch.allclose(logprobs(policy, stack), after_sft, atol=1e-2)
    assert not torch.allclose(after_sft, logprobs(policy, ()), atol=1e-2)  # and it is not the base
    assert torch.allclose(logprobs(policy, ()), logprobs(tiny.policy(), ()), atol=1e-6)


def test_a_stack_is_the_sum_of_its_updates() -> None:
    """Against weights put together by hand: W + sum of scaling B A."""
    policy = stacked("sft", "dpo")
    plain = tiny.model()
    for name, module in plain.named_modules():
        layer = dict(policy.model.named_modules()).get(name)
        if hasattr(layer, "lora_A"):
            for adapter in ("sft", "dpo"):
                module.weight.data += 2.0 * layer.lora_B[adapter].weight.data @ layer.lora_A[adapter].weight.data
    assert torch.allclose(logprobs(policy, ("sft", "dpo")), logprobs(PolicyModel(plain, packed=True), ()), atol=1e-5)


def test_only_the_newest_adapter_trains() -> None:
    policy = stacked("sft", "dpo")
    assert all(".dpo." in name for name in policy.trainable_parameters())
    policy.forward(pack(UNITS), ("sft", "dpo")).logprobs.sum().backward()
    moved = {name for name, parameter in policy.model.named_parameters() if parameter.grad is not None}
    assert moved == set(policy.trainable_parameters()) == set(policy.adapter_parameters("dpo"))


def test_reference_is_unchanged_by_training(tmp_path: Path) -> None:
    policy = stacked("sft")
    before, hashed, base = logprobs(policy, ("sft",)), adapter_hash(policy, "sft"), weights(policy)
    args = DPOConfig(output_dir=str(tmp_path), max_steps=3, learning_rate=1e-2)
    trainer = DPOTrainer(policy, None, args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    trainer.train()
    assert trainer.prepared.stack == ("sft", "dpo") and trainer.prepared.reference == ("sft",)
    assert adapter_hash(policy, "sft") == hashed
    assert torch.equal(logprobs(policy, ("sft",)), before)
    now = weights(policy)
    for name, value in base.items():
        assert torch.equal(now[name], value), name
    assert not torch.allclose(logprobs(policy, ("sft", "dpo")), before, atol=1e-3)


def test_adapter_names(tmp_path: Path) -> None:
    policy = stacked("sft")
    with pytest.raises(ConfigError, match="already on this model"):
        policy.add_adapter("sft", tiny.lora())
    with pytest.raises(ConfigError, match="The stack names"):
        logprobs(policy, ("other",))
    with pytest.raises(DataError, match="holds no adapters"):
        load_stack(policy, tmp_path)


def test_an_adapters_weights_do_not_depend_on_what_was_drawn_before() -> None:
    hashes = []
    for draws in (0, 5):
        torch.manual_seed(draws)
        torch.randn(draws)
        policy = tiny.policy()
        policy.add_adapter("sft", tiny.lora(), seed=9)
        hashes.append(adapter_hash(policy, "sft"))
    assert hashes[0] == hashes[1]
    other = tiny.policy()
    other.add_adapter("sft", tiny.lora(), seed=10)
    assert adapter_hash(other, "sft") != hashes[0]


# -- merged weights -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_merged_equals_unmerged_and_leaves_the_weights(architecture: str) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4} if architecture == "gpt2" else {}
    policy = stacked("sft", "dpo", architecture=architecture, **sizes)
    before = weights(policy)
    batch = pack(UNITS)
    unmerged = logprobs(policy, ("sft", "dpo"))
    with torch.no_grad(), policy.merged(("sft", "dpo")):
        hidden = policy.backbone(
            input_ids=batch.tokens[None], position_ids=batch.positions[None], use_cache=False, packed=TreeLayout(batch)
        ).last_hidden_state[0]
        merged = policy.read(hidden, None, batch, Want(), 1.0).logprobs
        swapped = [layer for layer in policy.tuner_layers() if not layer._active_adapter]
    assert torch.allclose(merged, unmerged, atol=1e-5)
    assert architecture == "gpt2" or len(swapped) == len(policy.tuner_layers())  # gpt2's Conv1D keeps running unmerged
    now = weights(policy)
    assert now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)
    assert torch.equal(logprobs(policy, ("sft", "dpo")), unmerged)


@pytest.mark.parametrize("int8", [False, True])
def test_without_memory_for_a_second_set_the_adapters_run_beside_the_base(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = stacked("sft", "dpo")
    layers = policy.tuner_layers()
    held = [layer.get_base_layer().weight for layer in layers]
    needed = sum(weight.nbytes for weight in held)
    for free, merges in ((64e9, True), (2.1 * needed, True), (0.4 * needed, False)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=int(free)))
        stack = ("sft", "dpo")
        with policy.merged(stack, policy.holding(stack, prepack=True, int8=int8), rows=4, int8=int8):
            assert all(layer._active_adapter == ([] if merges else ["sft", "dpo"]) for layer in layers)
            assert merges or all(layer.get_base_layer().weight is weight for layer, weight in zip(layers, held, strict=True))


# -- folders that others load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("sft",), ("sft", "dpo")])
def test_saved_folder_loads_with_plain_peft(tmp_path: Path, names: tuple[str, ...]) -> None:
    policy = stacked(*names)
    save_policy(policy, names, tiny.tokenizer(), tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model(), str(tmp_path)).eval()
    with torch.no_grad():
        theirs = loaded(ROW).logits
        with policy.using(names, packed=False):
            ours = policy.model(ROW).logits
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert not torch.allclose(theirs, tiny.model()(ROW).logits, atol=1e-2)


def test_modules_that_one_adapter_lacks(tmp_path: Path) -> None:
    """Adapters on different modules are still one adapter when saved."""
    policy = stacked("sft")
    policy.add_adapter("dpo", LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], use_rslora=True, task_type="CAUSAL_LM"))
    tiny.shake(policy, "dpo", seed=8)
    save_policy(policy, ("sft", "dpo"), tiny.tokenizer(), tmp_path)
    with torch.no_grad(), policy.using(("sft", "dpo"), packed=False):
        ours = policy.model(ROW).logits
    loaded = PeftModel.from_pretrained(tiny.model(), str(tmp_path)).eval()
    assert torch.allclose(loaded(ROW).logits, ours, atol=1e-5)


SUMS: dict[str, dict[str, Any]] = {
    "upper layers": {"layers_to_transform": [1]},
    "one layer": {"layers_to_transform": 0},
    "ranks": {"rank_pattern": {"q_proj": 5, "down_proj": 1}, "alpha_pattern": {"up_proj": 3}},
    "excluded": {"exclude_modules": ["k_proj"]},
}


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("below", [False, True])
def test_what_adapters_choose_is_in_their_sum(kind: str, below: bool, tmp_path: Path) -> None:
    """Layers, ranks and modules of each adapter, alone and on one that has all of them."""
    policy = stacked("sft") if below else tiny.policy()
    policy.add_adapter("dpo", LoraConfig(r=3, lora_alpha=5, target_modules=ALL, task_type="CAUSAL_LM", **SUMS[kind]))
    tiny.shake(policy, "dpo", seed=8)
    save_policy(policy, policy.adapters, tiny.tokenizer(), tmp_path)
    with torch.no_grad(), policy.using(policy.adapters, packed=False):
        ours = policy.model(ROW).logits
    loaded = PeftModel.from_pretrained(tiny.model(), str(tmp_path)).eval()
    assert torch.allclose(loaded(ROW).logits, ours, atol=1e-5)


@pytest.mark.parametrize("kind", ["bias", "embedding"])
def test_what_is_no_plain_lora_is_saved_as_it_is(kind: str, tmp_path: Path) -> None:
    """And is sampled from beside the base, not merged without its bias."""
    config = tiny.lora(lora_bias=True) if kind == "bias" else tiny.lora()
    if kind == "embedding":
        config.target_modules = {"q_proj", "embed_tokens"}
    policy = tiny.policy("qwen2")
    if kind == "bias":
        config.target_modules = {"q_proj", "v_proj"}
    policy.add_adapter("sft", config)
    tiny.shake(policy, "sft")
    with torch.no_grad():
        for name, parameter in policy.adapter_parameters("sft").items():
            if name.endswith("bias") or "lora_embedding_A" in name:  # which peft starts with zeros
                parameter.fill_(0.3)
    batch, before = pack(UNITS), logprobs(policy, ("sft",))
    with torch.no_grad(), policy.merged(("sft",), policy.holding(("sft",), prepack=True), rows=4):
        hidden = policy.backbone(
            input_ids=batch.tokens[None], position_ids=batch.positions[None], use_cache=False, packed=TreeLayout(batch)
        ).last_hidden_state[0]
        assert torch.allclose(policy.read(hidden, {}, batch, Want(), 1.0).logprobs, before, atol=1e-5)
    save_policy(policy, ("sft",), tiny.tokenizer(), tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model("qwen2"), str(tmp_path)).eval()
    with torch.no_grad(), policy.using(("sft",), packed=False):
        assert torch.allclose(loaded(ROW).logits, policy.model(ROW).logits, atol=1e-5)


def test_load_stack_shares_adapters_by_hash(tmp_path: Path) -> None:
    source = stacked("sft", "dpo")
    save_policy(source, ("sft", "dpo"), tiny.tokenizer(), tmp_path)
    fresh = tiny.policy()
    assert load_stack(fresh, tmp_path) == ("sft", "dpo")
    assert torch.allclose(logprobs(fresh, ("sft", "dpo")), logprobs(source, ("sft", "dpo")), atol=1e-6)
    assert not fresh.trainable_parameters()
    # A model that already carries the first adapter takes only the second, and nothing the second time.
    half = stacked("sft")
    assert load_stack(half, tmp_path, prefix="reward") == ("sft", "dpo") and half.adapters == ["sft", "dpo"]
    assert load_stack(half, tmp_path, prefix="reward") == ("sft", "dpo") and half.adapters == ["sft", "dpo"]
    # Another adapter of the same name is another adapter.
    other = tiny.policy()
    other.add_adapter("sft", tiny.lora(), seed=99)
    tiny.shake(other, "sft", seed=99)
    stack = load_stack(other, tmp_path, prefix="reward")
    assert stack == ("reward_sft", "dpo") and other.adapters == ["sft", "reward_sft", "dpo"]
    assert torch.allclose(logprobs(other, stack), logprobs(source, ("sft", "dpo")), atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text"])
def test_export_merged_loads_with_plain_transformers(tmp_path: Path, architecture: str) -> None:
    policy = stacked("sft", "dpo", architecture=architecture)
    before = weights(policy)
    export_merged(policy, ("sft", "dpo"), tiny.tokenizer(), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad(), policy.using(("sft", "dpo"), packed=False):
        assert torch.allclose(loaded(ROW).logits, policy.model(ROW).logits, atol=1e-5)
    now = weights(policy)
    assert all(torch.equal(now[name], before[name]) for name in before)
    assert not (tmp_path / "adapter_config.json").exists()


def test_full_fine_tuning_is_saved_as_a_transformers_model(tmp_path: Path) -> None:
    policy = tiny.policy(seed=3)
    save_policy(policy, (), tiny.tokenizer(), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    saved = loaded.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in policy.model.state_dict().items())
    with torch.no_grad():
        assert torch.allclose(loaded(ROW).logits, policy.model(ROW).logits, atol=1e-5)


# -- reward models ------------------------------------------------------------------------------------------------------------------


def reward_model(layer: int | None = None, architecture: str = "llama") -> RewardModel:
    policy = stacked("sft", "reward", architecture=architecture)
    heads = RewardHeads(policy.hidden_size, 3, layer=layer, seed=2)
    model = RewardModel(policy, ("sft", "reward"), heads, Renderer(tiny.tokenizer()))
    features = torch.cat(model.features(UNITS))
    heads.standardise(features + torch.linspace(-1, 1, len(features))[:, None])
    heads.normalise(features)
    return model


@pytest.mark.parametrize("layer", [None, 1])
def test_reward_model_saved_and_loaded(tmp_path: Path, layer: int | None) -> None:
    model = reward_model(layer)
    model.save(tmp_path, tiny.tokenizer())
    loaded = RewardModel.load(tiny.policy(), tmp_path, Renderer(tiny.tokenizer()))
    assert loaded.heads.layer == layer
    assert torch.allclose(loaded.score(UNITS), model.score(UNITS), atol=1e-5)
    shared = RewardModel.load(model.policy, tmp_path, Renderer(tiny.tokenizer()))
    assert shared.stack == ("sft", "reward") and model.policy.adapters == ["sft", "reward"]
    assert torch.equal(shared.score(UNITS), model.score(UNITS))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text", "smollm3"])
@pytest.mark.parametrize("layer", [None, 1])
def test_exported_classifier_gives_our_score(tmp_path: Path, layer: int | None, architecture: str) -> None:
    model = reward_model(layer, architecture)
    constant = export_classifier(model, tiny.tokenizer(), tmp_path)
    assert abs(constant) > 1e-4
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert loaded.config.accord_score_constant == pytest.approx(constant)
    with torch.no_grad():
        theirs = [float(loaded(torch.tensor([[*unit.prompt_ids, *branch.ids]])).logits) for unit in UNITS for branch in unit.branches]
    ours = model.score(UNITS).mean(1)
    assert torch.allclose(torch.tensor(theirs) + constant, ours, atol=1e-4)
    assert float(ours.std()) > 1e-2


@pytest.mark.parametrize("backbone", ["lora", "heads"])
def test_trained_reward_model_reloads(tmp_path: Path, backbone: str) -> None:
    args = RewardConfig(output_dir=str(tmp_path), max_steps=3, learning_rate=1e-2, backbone=backbone, normalise_on="training")
    trainer = RewardTrainer(stacked("sft"), args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    trainer.train()
    trainer.save_model()
    ours = trainer.reward_model.score(trainer.train_units)
    assert torch.allclose(ours.mean(0), torch.zeros(5), atol=1e-4) and torch.allclose(ours.std(0, unbiased=False), torch.ones(5), atol=1e-3)
    loaded = RewardModel.load(tiny.policy(), tmp_path, trainer.renderer)
    assert torch.allclose(loaded.score(trainer.train_units), ours, atol=1e-4)
