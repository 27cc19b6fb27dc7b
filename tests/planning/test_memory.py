"""The planner's numbers against the real thing: parameter counts, LoRA counts, what the backward pass keeps, peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig

import tiny
from accord.config.options import TrainOptions
from accord.config.sft import SFTConfig
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, MachineError
from accord.models import free_memory
from accord.models.free_memory import available_memory
from accord.models.lora import lora_config
from accord.models.size import activation_bytes, choose_token_budget, measured, model_size
from accord.planning.memory import GB, MemoryNeed, check_fits, count_lora, count_parameters, predict, suggest, ways_to_fit
from accord.recipes.train import plan_memory

_COLUMNS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)
_TABLE = {
    # model: (transformers type, the columns above, weights as published)
    "SmolLM2-135M": ("llama", (49152, 576, 1536, 30, 9, 3, 64, True), 134_515_008),
    "SmolLM2-1.7B": ("llama", (49152, 2048, 8192, 24, 32, 32, 64, True), 1_711_376_384),
    "Llama-3.2-1B": ("llama", (128256, 2048, 8192, 16, 32, 8, 64, True), 1_235_814_400),
    "Qwen2.5-0.5B": ("qwen2", (151936, 896, 4864, 24, 14, 2, 64, True), 494_032_768),
    "Qwen2.5-3B": ("qwen2", (151936, 2048, 11008, 36, 16, 2, 128, True), 3_085_938_688),
    "Mistral-7B-v0.1": ("mistral", (32000, 4096, 14336, 32, 32, 8, 128, False), 7_241_732_096),
    "Gemma-3-270m": ("gemma3_text", (262144, 640, 2048, 18, 4, 1, 256, True), 268_098_176),
}
KNOWN = {
    name: (AutoConfig.for_model(kind, **dict(zip(_COLUMNS, shape, strict=True))), weights)
    for name, (kind, shape, weights) in _TABLE.items()
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_of_known_models_are_exact(name: str) -> None:
    config, published = KNOWN[name]
    assert count_parameters(config) == published


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_counts_equal_the_built_model_and_peft(architecture: str) -> None:
    model = tiny.model(architecture)
    size = model_size(model.config)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    for targets in ("all-linear", ["o_proj"]):
        config = tiny.lora(4)
        config.target_modules = targets
        wrapped = get_peft_model(tiny.model(architecture), config)
        assert count_lora(size, 4, targets) == wrapped.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_adapters_on_the_upper_layers_are_counted_as_they_are_made(architecture: str, share: float) -> None:
    policy = tiny.policy(architecture, num_hidden_layers=6)
    size = model_size(policy.model.config)
    policy.add_adapter("upper", lora_config(policy, rank=4, layers=share))
    assert count_lora(size, 4, lora_layers=share) == sum(parameter.numel() for parameter in policy.trainable_parameters().values())


def test_adapters_on_named_modules_only() -> None:
    policy = tiny.policy()
    policy.add_adapter("some", lora_config(policy, rank=4, target="q_proj, mlp.up_proj"))
    adapted = {key.split(".lora_")[0].rsplit(".", 1)[-1] for key in policy.trainable_parameters()}
    assert adapted == {"q_proj", "up_proj"}
    assert count_lora(model_size(policy.model.config), 4, ["q_proj", "mlp.up_proj"]) == sum(
        p.numel() for p in policy.trainable_parameters().values()
    )
    with pytest.raises(
        ConfigError, match=r"no module 'query'\. Its layers have down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    ):
        lora_config(policy, target="q_proj,query")


def test_counts_of_gpt2_whose_linears_are_transposed() -> None:
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=272)
    size = model_size(config)
    # A layer by hand: 3d^2 + 3d, d^2 + d, 4d^2 + 4d, 4d^2 + d and two norms of 2d; positions 1024 d; final norm 2d.
    assert size.parameters == 272 * 32 + 1024 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32
    assert count_lora(size, 2) == 2 * 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32))


def _kept_bytes(policy: object, stack: tuple[str, ...]) -> tuple[int, int]:
    """Bytes that autograd keeps for one packed forward pass, weights apart, and its tokens."""
    batch = pack([Unit(tuple(range(1, 33)), (Branch(tuple(range(1, 33))), Branch(tuple(range(1, 33)))))], torch.device("cpu"))
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.forward(batch, stack)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), batch.num_tokens


WIDER = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text", "olmo2", "phi3"])
def test_what_the_backward_pass_keeps(architecture: str) -> None:
    found = []
    for layers in (2, 6):
        policy = tiny.policy(architecture, num_hidden_layers=layers, **WIDER)
        kept, tokens = _kept_bytes(policy, policy.add_adapter("policy", tiny.lora(4)))
        found.append(kept / tokens)
    measured = (found[1] - found[0]) / 4  # a layer, embeddings and head apart
    size = model_size(tiny.model(architecture, num_hidden_layers=2, **WIDER).config)
    predicted = activation_bytes(size, context=64, rank=4) / size.layers
    assert 0.95 * measured <= predicted <= 1.15 * measured


def test_frozen_lower_layers_keep_nothing_for_the_backward_pass() -> None:
    found = []
    for layers in (4, 8):
        policy = tiny.policy(num_hidden_layers=layers, **WIDER)
        kept, tokens = _kept_bytes(policy, policy.add_adapter("policy", lora_config(policy, rank=4, layers=0.5)))
        found.append(kept / tokens)
    measured = (found[1] - found[0]) / 2  # two of the four more layers are adapted
    size = model_size(tiny.model(num_hidden_layers=8, **WIDER).config)
    assert 0.95 * measured <= activation_bytes(size, context=64, rank=4, lora_layers=0.5) / 4 <= 1.15 * measured


def test_the_command_line_plans_for_the_layers_it_adapts() -> None:
    """A micro-batch that takes one and a half times the free memory in all layers takes three quarters of it in the upper half."""
    config = KNOWN["SmolLM2-135M"][0]
    size = model_size(config)
    tokens = int(1.5 * (available_memory() - predict(size, token_budget=0).total) / activation_bytes(size, context=1024))

    def plan(share: float) -> MemoryNeed:
        settings = SFTConfig(dtype="float32", tokens_per_microbatch=tokens)
        return plan_memory(config, TrainOptions(lora_layers=share), settings)

    with pytest.raises(MachineError, match="accord sft on smollm2-135m needs"):
        plan(1.0)
    assert plan(0.5) == predict(size, token_budget=tokens, context=1024, lora_layers=0.5)


def test_the_upper_half_of_the_layers_is_a_way_out() -> None:
    size = model_size(KNOWN["SmolLM2-1.7B"][0])
    every, upper = (predict(size, token_budget=256, lora_layers=share).total for share in (1.0, 0.5))
    between = (every + upper) / 2
    assert suggest(size, between, token_budget=256).startswith("LoRA on the upper half of the layers (lora_layers 0.5)")
    assert "upper half" not in suggest(size, upper - 1, token_budget=256, lora_layers=0.5)
    assert "upper half" not in suggest(size, between, token_budget=256, rank=0) + suggest(size, between, token_budget=256, rank=None)


def test_eight_bit_moments_are_a_way_out_of_full_fine_tuning() -> None:
    size = model_size(KNOWN["SmolLM2-1.7B"][0])
    every, eight = (predict(size, token_budget=256, rank=None, optim=optim).total for optim in ("adamw", "adamw_8bit"))
    between = (every + eight) / 2
    assert suggest(size, between, token_budget=256, rank=None).startswith("Adam's moments in eight bits: --optim adamw_8bit")
    checkpointed = predict(size, token_budget=256, rank=None, checkpointing=True, longest=8192).total
    ways = [way.flags.split(" --tokens")[0] for way in ways_to_fit(size, checkpointed, token_budget=256, rank=None, longest=8192)]
    assert ways[0] == "--gradient_checkpointing true" and "--optim adamw_8bit --gradient_checkpointing true" not in ways
    sharded = ways_to_fit(size, eight, token_budget=256, rank=None, sharded=True)
    assert sharded and not any("--optim" in way.flags or "--weights" in way.flags for way in sharded)
    assert "eight bits" not in suggest(size, between, token_budget=256) + suggest(
        size, eight - 1, token_budget=256, rank=None, optim="adamw_8bit"
    )


SHAPES = {
    "small vocabulary": dict(zip(_COLUMNS, (2000, 512, 1408, 8, 8, 4, 64, False), strict=True)),
    "large vocabulary": dict(zip(_COLUMNS, (60000, 384, 1024, 6, 6, 2, 64, True), strict=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "mode"),
    [("small vocabulary", "lora"), ("large vocabulary", "full"), ("large vocabulary", "lora"), ("small vocabulary", "checkpointing")],
)
def test_peak_memory_is_predicted_within_a_quarter(shape: str, mode: str) -> None:
    settings = json.dumps({"config": SHAPES[shape], "mode": mode})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "peak_memory.py"), settings],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    size = model_size(AutoConfig.for_model("llama", **SHAPES[shape]))
    need = predict(
        size, rank=None if mode == "full" else 16, token_budget=measured["tokens"], context=160, checkpointing=mode == "checkpointing"
    )
    print(shape, mode, need.total - need.process, measured["peak"] - measured["before"], need.total, measured["peak"])
    assert need.total == pytest.approx(measured["peak"], rel=0.15)
    assert need.total - need.process == pytest.approx(measured["peak"] - measured["before"], rel=0.25)


def test_need_adds_up_by_hand() -> None:
    """A step trains or samples: the larger of the two counts. Full fine-tuning is 16 bytes a weight in fp32."""
    size = model_size(tiny.model("llama").config)
    full = predict(size, rank=None)
    assert full.weights + full.gradients + full.optimizer == 16 * size.parameters
    assert predict(size, rank=None, optim="adamw_8bit").optimizer == int((2 + 4 / 256) * size.parameters)
    assert full.adapters == full.merged == 0
    lora = predict(size, rank=4, adapters=3, trained_adapters=2, sample_rows=10, sample_tokens=100)
    one = count_lora(size, 4)
    assert (lora.adapters, lora.gradients, lora.optimizer) == (3 * one * 4, 2 * one * 4, 2 * one * 8)
    assert lora.merged == 4 * (sum(inputs * outputs for _, inputs, outputs in size.linears) + size.hidden * size.vocabulary)
    assert predict(size, rank=4, sample_rows=10, weight_bytes=2).merged == 2 * sum(inputs * outputs for _, inputs, outputs in size.linears)
    steady = lora.process + lora.weights + lora.adapters + lora.gradients + lora.optimizer
    assert lora.total == steady + max(lora.activations + lora.logits, lora.merged + lora.kv_cache)
    assert size.kv_floats == 2 * 2 * 2 * 8  # keys and values, layers, heads, width
    assert predict(size, rank=0).gradients == 0


def test_more_asked_is_never_predicted_smaller() -> None:
    size = model_size(KNOWN["SmolLM2-135M"][0])
    base = predict(size).total
    for change in ({"token_budget": 2048}, {"rank": 64}, {"rank": None}, {"sample_rows": 4096, "sample_tokens": 512}):
        assert predict(size, **change).total > base, change
    capped = replace(size, score_heads=9)
    assert predict(capped, context=2048).total > predict(capped).total > base
    assert predict(size, checkpointing=True).total < base
    assert predict(size, weight_bytes=2).total < base


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    size = model_size(KNOWN["SmolLM2-1.7B"][0])
    need = predict(size, rank=None)
    assert need.total > 27 * GB
    fitting = suggest(size, 12 * GB, rank=None)
    assert "LoRA" in fitting
    with pytest.raises(MachineError) as caught:
        check_fits(need, 12 * GB, what="SFT on smollm2-1.7b", fitting=fitting)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "SFT on smollm2-1.7b needs" in message and "12.0 GB are free" in message and "What would fit" in message and "\n" not in message
    check_fits(need, 12 * GB, force=True)
    check_fits(need, need.total)
    assert suggest(size, 3 * GB).startswith("weights held in four bits: --weights nf4")
    assert "million weights" in suggest(size, 1 * GB)
    assert suggest(size, 0) == ""


def test_what_is_suggested_fits() -> None:
    size = model_size(KNOWN["SmolLM2-135M"][0])
    assert predict(size, token_budget=4096).total > 3 * GB
    assert suggest(size, 3 * GB, token_budget=4096).startswith("micro-batches of 256 tokens")
    assert predict(size, token_budget=256).total <= 3 * GB


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_model_with_adapters_measures_as_its_config(architecture: str) -> None:
    policy = tiny.policy(architecture)
    expected = model_size(policy.model.config)
    policy.add_adapter("first", tiny.lora())
    config = tiny.lora()
    config.target_modules = ["q_proj", "lm_head"]
    policy.add_adapter("second", config)
    assert measured(policy.model, policy.adapters) == expected


@pytest.mark.parametrize(("device", "most"), [("cpu", 1024), ("cuda", 4096)])
@pytest.mark.parametrize("free", [-1.0, 0.0, 1e6, 1e9, 4e9, 1e11])
def test_the_token_budget_is_a_bounded_multiple_of_256(free: float, device: str, most: int) -> None:
    size = model_size(KNOWN["SmolLM2-135M"][0])
    budget = choose_token_budget(size, free, device=device)
    assert 256 <= budget <= most and budget % 256 == 0
    if budget > 256:
        assert budget * activation_bytes(size) <= free
    if free == 1e11:
        assert budget == most
    assert choose_token_budget(size, free, device=device, checkpointing=True) >= budget


def test_available_memory_is_what_the_system_says(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    assert 0 < available_memory() <= psutil.virtual_memory().total


def test_control_groups_limit_what_is_available(tmp_path: Path) -> None:
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    for folder, limit, used, cached in ((group, "max", 0, 0), (group.parent, "1000", 700, 100)):
        (folder / "memory.max").write_text(limit + "\n", encoding="ascii")
        (folder / "memory.current").write_text(f"{used}\n", encoding="ascii")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n", encoding="ascii")
    assert free_memory._group_memory(tmp_path, "0::/job/step\n") == 400
    assert free_memory._group_memory(tmp_path, "0::/\n") is None
    old = tmp_path / "memory" / "docker"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("500", encoding="ascii")
    (old / "memory.usage_in_bytes").write_text("450", encoding="ascii")
    (old / "memory.stat").write_text("total_inactive_file 20\n", encoding="ascii")
    assert free_memory._group_memory(tmp_path, "11:cpu,cpuacct:/docker\n4:memory:/docker\n") == 70
