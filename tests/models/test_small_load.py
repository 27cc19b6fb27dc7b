"""Models loaded with small weights: what is computed is what the dequantised model computes, whatever path runs it; what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.errors import AccordError, ConfigError, MachineError
from accord.models import small_load
from accord.models.adapters import PolicyModel, Want
from accord.models.load import load_model, resolve
from accord.models.merged import Holding
from accord.models.save import base_hash
from accord.models.size import held_bytes, measured
from accord.models.small import KINDS, SmallLinear, widen

WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama with its own head": ("llama", {"tie_word_embeddings": False}),
    "qwen2, with biases": ("qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", {}),
    "gemma2, with soft caps": ("gemma2", {}),
    "gemma3, with scaled embeddings": ("gemma3_text", {}),
}
UNITS = [Unit((5, 6, 7, 8, 9), (Branch((10, 11, 12)), Branch((13, 2)))), Unit((20, 21), (Branch((22, 23, 24, 25, 2)),))]


def saved(folder: Path, architecture: str = "llama", dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    model = tiny.model(architecture, **{**WIDE, **changes})
    for name, parameter in model.named_parameters():  # biases that matter
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path, weights: str, *, packed: bool | None = True) -> PolicyModel:
    return PolicyModel(load_model(resolve(folder, quiet=True), dtype="float32", device="cpu", weights=weights), packed=packed)


def adapted(policy: PolicyModel) -> PolicyModel:
    policy.add_adapter("first", tiny.lora(), seed=1)
    policy.add_adapter("second", tiny.lora(3), seed=2)
    tiny.shake(policy, "first", "second")
    return policy


def ordinary(policy: PolicyModel) -> PolicyModel:
    """The same model with float32 weights, those that it computes with."""
    widen(policy.model)
    return policy


def results(policy: PolicyModel) -> tuple[Tensor, dict[str, Tensor]]:
    policy.model.zero_grad()
    out = policy.forward(pack(UNITS), policy.adapters, Want(logprobs=True, states=True, entropy=True), temperature=0.8)
    assert out.logprobs is not None and out.states is not None
    assert out.logprobs.dtype == torch.float32 and out.states.dtype == torch.float32
    ((out.logprobs * torch.linspace(-1, 1, len(out.logprobs))).sum() + 0.1 * out.states.square().sum()).backward()
    return out.logprobs.detach(), {name: p.grad.clone() for name, p in policy.trainable_parameters().items()}


def assert_equal(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(found[0], expected[0], atol=1e-4)
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, slope in expected[1].items():
        assert float((found[1][name] - slope).norm()) <= 1e-4 * float(slope.norm()) + 1e-6, name


# -- what is computed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_log_probs_and_gradients_are_those_of_the_dequantised_model(case: str, kind: str, tmp_path: Path) -> None:
    architecture, changes = CASES[case]
    folder = saved(tmp_path / "base", architecture, **changes)
    policy = adapted(loaded(folder, kind))
    assert policy.held == kind and policy.dtype == torch.float32
    found = results(policy)
    assert_equal(found, results(ordinary(policy)))


@pytest.mark.parametrize("case", CASES)
def test_bf16_is_the_float32_run_of_a_checkpoint_released_so(case: str, tmp_path: Path) -> None:
    architecture, changes = CASES[case]
    folder = saved(tmp_path / "base", architecture, **changes)
    found, expected = results(adapted(loaded(folder, "bf16"))), results(adapted(loaded(folder, "fp32")))
    assert torch.allclose(found[0], expected[0], atol=2e-5)
    assert_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_and_unfused_layers_change_nothing(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    expected = results(adapted(loaded(folder, kind)))
    checkpointed = adapted(loaded(folder, kind))
    checkpointed.enable_checkpointing()
    assert_equal(results(checkpointed), expected)
    model = load_model(resolve(folder, quiet=True), dtype="float32", device="cpu", weights=kind)
    assert_equal(results(adapted(PolicyModel(model, packed=True, fused=False))), expected)  # peft's own forward


@pytest.mark.parametrize("case", CASES)
def test_packing_is_found_exact(case: str, tmp_path: Path) -> None:
    architecture, changes = CASES[case]
    policy = loaded(saved(tmp_path / "base", architecture, **changes), "nf4", packed=None)
    assert policy.note is None and policy.packed


def test_the_reference_is_the_base_without_the_newest_adapter(tmp_path: Path) -> None:
    policy = loaded(saved(tmp_path / "base"), "nf4")
    bare = policy.forward(pack(UNITS), ()).logprobs
    policy.add_adapter("policy", tiny.lora())
    assert torch.equal(policy.forward(pack(UNITS), ()).logprobs, bare)
    assert torch.equal(policy.forward(pack(UNITS), ("policy",)).logprobs, bare)  # B = 0
    tiny.shake(policy, "policy")
    assert not torch.allclose(policy.forward(pack(UNITS), ("policy",)).logprobs, bare, atol=1e-3)


@pytest.mark.parametrize("held", [Holding(False, False), Holding(True, False), Holding(True, True)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_sampling_runs_unmerged_merged_and_reordered(kind: str, held: Holding, tmp_path: Path) -> None:
    if held.prepacked and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch cannot reorder weights")
    policy = adapted(loaded(saved(tmp_path / "base", "qwen2", use_sliding_window=False), kind))
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    batch = pack(UNITS)
    with torch.no_grad():
        expected = policy.forward(batch, policy.adapters, Want(logprobs=False, states=True)).states
        logits = policy.logits(expected)
        with policy.merged(policy.adapters, held, rows=4):
            hidden = policy.backbone(
                input_ids=batch.tokens[None], position_ids=batch.positions[None], use_cache=False, packed=policy.layout(batch)
            ).last_hidden_state[0]
            found = hidden[batch.sources]
            assert torch.allclose(policy.logits(found), logits, atol=2e-4)
    assert torch.allclose(found, expected, atol=2e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in policy.model.modules() if isinstance(module, SmallLinear))


def test_a_second_set_is_made_where_there_is_room_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = adapted(loaded(saved(tmp_path / "base"), "nf4"))
    numbers = sum(inputs * outputs for _, inputs, outputs in measured(policy.model, policy.adapters).linears)
    for free, merges in ((2 * 4 * numbers - 1, False), (2 * 4 * numbers + 1, True)):
        monkeypatch.setattr("accord.models.merged.available_memory", lambda device="cpu", free=free: free)
        monkeypatch.setattr("accord.models.prepacked.available_memory", lambda device="cpu", free=free: free)
        assert policy.holding(policy.adapters, prepack=True) == Holding(merges, False)


# -- what is loaded -----------------------------------------------------------------------------------------------------------------


def test_a_base_is_known_by_what_it_was_before(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", tie_word_embeddings=False)
    hashes = {weights: base_hash(loaded(folder, weights)) for weights in ("fp32", *KINDS)}
    assert len(set(hashes.values())) == 1
    assert base_hash(loaded(saved(tmp_path / "other", seed=1, tie_word_embeddings=False), "nf4")) != hashes["nf4"]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", tie_word_embeddings=True)
    small, plain = (loaded(folder, weights).model for weights in (kind, "fp32"))
    assert measured(small) == measured(plain)
    stored = sum(t.nbytes for t in small.parameters()) + sum(
        b.nbytes for m in small.modules() if isinstance(m, SmallLinear) for b in m.buffers(recurse=False)
    )
    counted = sum(held_bytes(kind, inputs, outputs) for _, inputs, outputs in measured(small).linears)
    outer = small.get_input_embeddings().weight
    norms = sum(p.nbytes for name, p in small.named_parameters() if "norm" in name)
    assert outer.dtype == torch.bfloat16 and small.get_output_embeddings().weight is outer
    assert counted <= stored - outer.nbytes - norms <= counted * 1.1 + 4096  # the last blocks of nf4 are filled up


def test_what_is_stored_in_float32_stays_so_outside_the_layers(tmp_path: Path) -> None:
    policy = loaded(saved(tmp_path / "base", dtype=torch.float32, tie_word_embeddings=True), "int8")
    head = policy.model.get_output_embeddings()
    assert type(head) is torch.nn.Linear and head.weight.dtype == torch.float32
    assert head.weight is policy.model.get_input_embeddings().weight


def test_the_rest_of_the_folder_comes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "base", dtype=torch.float32)
    model = load_model(resolve(folder, quiet=True), weights="bf16")
    assert model.config._name_or_path == str(folder) and model.generation_config.eos_token_id == 2 and not model.training
    assert "stored in F32; bf16 rounds them to 8 bits" in capsys.readouterr().err


def test_a_weight_that_is_missing_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "base")
    path = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**{key: value for key, value in tensors.items() if key != name}, "extra.weight": torch.zeros(3)}, path)
    with pytest.raises(MachineError, match=rf"1 weights are missing .*first: {name}"):
        loaded(folder, "nf4")


def test_what_does_not_fit_is_refused_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve(saved(tmp_path / "base"), quiet=True)
    monkeypatch.setattr(small_load, "available_memory", lambda device: 1000)
    monkeypatch.setattr(small_load.folders, "read_tensors", lambda *given: pytest.fail("a weight was read"))
    with pytest.raises(MachineError, match=r"Loading .*weights='nf4' needs 0\.0 GB"):
        load_model(folder, weights="nf4")


@pytest.mark.parametrize(
    "config", [LoHaConfig(r=2, target_modules=["q_proj"]), tiny.lora(use_dora=True), tiny.lora(init_lora_weights="pissa")]
)
def test_adapters_that_read_the_bases_weights_are_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nf4"):
        loaded(saved(tmp_path / "base"), "nf4").add_adapter("policy", config)


def test_a_model_without_plain_linear_layers_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=tiny.VOCAB, eos_token_id=2, bos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(AccordError, match="no plain linear layers"):
        load_model(resolve(tmp_path / "gpt2", quiet=True), weights="int8")


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["bf16", "int8", "nf4"])
def test_a_held_layer_keeps_nothing_of_the_weight_it_was_made_of(kind: str, stored: torch.dtype, tmp_path: Path) -> None:
    """The few numbers that it is known by were a view of the whole weight, where that is bfloat16: it stayed in memory."""
    folder = saved(tmp_path / "base", dtype=stored)
    layers = [module for module in load_model(resolve(folder, quiet=True), weights=kind).modules() if isinstance(module, SmallLinear)]
    assert len(layers) > 10
    for layer in layers:
        assert layer.sample.untyped_storage().nbytes() <= 2 * 128
        assert layer.weight.untyped_storage().nbytes() <= layer.weight.nbytes + 64


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux's kernel counts it")
def test_the_full_precision_model_is_never_in_memory(tmp_path: Path) -> None:
    """100 million weights in layers, 200 MB on disk, loaded as nf4: far less than they take in either precision beyond what an empty process has."""
    folder = saved(tmp_path / "big", hidden_size=1024, intermediate_size=8192, num_hidden_layers=4, head_dim=256)
    script = (
        "import resource, sys; from accord.models.load import load_model, resolve; import transformers.models.llama.modeling_llama, accelerate, peft\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model = load_model(resolve(sys.argv[1], quiet=True), device='cpu', weights='nf4')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert int(done.stdout) * 1024 < 0.7 * on_disk
