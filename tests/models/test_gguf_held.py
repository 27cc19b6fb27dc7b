"""GGUF files read directly: layers compute with the file's own blocks, or with codes made of them; nothing is converted on disk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import tiny
import tiny_gguf
from accord import SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, MachineError
from accord.models.adapters import PolicyModel, Want
from accord.models.blocks import HELD, Blocks
from accord.models.gguf_write import write_gguf
from accord.models.load import load_model, resolve
from accord.models.opened import open_model
from accord.models.save import base_hash
from accord.models.small import SmallLinear

gguf = pytest.importorskip("gguf")

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": False},
    "gemma3_text": {},
}
UNITS = [Unit((5, 6, 7, 8, 9), (Branch((10, 11, 12)), Branch((13, 2)))), Unit((20, 21), (Branch((22, 23, 24, 25, 2)),))]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(tmp_path: Path, architecture: str = "llama", kind: str = "q8_0") -> Path:
    folder, _ = tiny_gguf.saved(tmp_path / "folder", architecture, **FAMILIES[architecture])
    write_gguf(folder, tmp_path / "model.gguf", kind, title="tiny", licence="apache-2.0")
    return tmp_path / "model.gguf"


def loaded(path: Path, weights: str) -> PolicyModel:
    return PolicyModel(load_model(resolve(path, quiet=True), device="cpu", weights=weights), packed=True)


def results(policy: PolicyModel) -> tuple[Tensor, dict[str, Tensor]]:
    policy.add_adapter("policy", tiny.lora(), seed=1)
    tiny.shake(policy, "policy")
    out = policy.forward(pack(UNITS), policy.adapters, Want(logprobs=True, states=True))
    assert out.logprobs is not None and out.states is not None
    ((out.logprobs * torch.linspace(-1, 1, len(out.logprobs))).sum() + 0.1 * out.states.square().sum()).backward()
    return out.logprobs.detach(), {name: p.grad for name, p in policy.trainable_parameters().items() if p.grad is not None}


def assert_equal(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(found[0], expected[0], atol=1e-4)
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, slope in expected[1].items():
        assert float((found[1][name] - slope).norm()) <= 1e-4 * float(slope.norm()) + 1e-6, name


def float_files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.suffix in (".safetensors", ".bin", ".npy")]


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_it_is_the_model_that_transformers_reads(architecture: str, kind: str, tmp_path: Path, cache: Path) -> None:
    """Forward and backward, against transformers' own reader, which dequantises the file into float32; and nothing is written."""
    path = written(tmp_path, architecture, kind)
    policy = loaded(path, "gguf")
    layers = [module for module in policy.model.modules() if isinstance(module, SmallLinear)]
    assert policy.held == "gguf" and {layer.block for layer in layers} == {kind.upper()} and not float_files(cache)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert_equal(results(policy), results(PolicyModel(theirs, packed=True)))


@pytest.mark.parametrize("weights", ["bf16", "int8", "nf4"])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_codes_are_those_of_the_converted_model(kind: str, weights: str, tmp_path: Path, cache: Path) -> None:
    path = written(tmp_path, kind=kind)
    policy = loaded(path, weights)
    assert policy.held == weights and not float_files(cache)
    loaded(path, "fp32")
    assert len(float_files(cache)) == 1
    (folder,) = (one for one in (cache / "models").iterdir() if one.is_dir())
    (folder / "accord.json").unlink()  # an ordinary folder, which knows of no GGUF file
    converted = loaded(folder, weights)
    for (name, mine), (_, its) in zip(policy.model.state_dict().items(), converted.model.state_dict().items(), strict=True):
        assert torch.equal(mine, its), name


@pytest.mark.parametrize("kind", HELD)
def test_blocks_are_what_the_gguf_package_reads(kind: str) -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)).numpy()
    raw = gguf.quants.quantize(weight, gguf.GGMLQuantizationType[kind])
    blocks = Blocks(torch.from_numpy(np.ascontiguousarray(raw).view(np.uint8).reshape(6, -1)), kind, (6, 64))
    layer = SmallLinear(64, 6, "gguf").take(blocks)
    assert torch.equal(layer.dense(), blocks.dense()) and torch.equal(blocks.rows(torch.tensor([4, 1])), blocks.dense()[[4, 1]])
    expected = torch.from_numpy(gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).copy())
    assert torch.equal(layer.dense(), expected)
    assert torch.equal(layer.sample, expected.flatten()[::6].to(torch.bfloat16))
    assert np.abs(expected.numpy() - weight).max() < 0.5


def test_one_block_of_four_bits_by_hand() -> None:
    """Step 0.5; byte k holds the code of weight k below and of weight k + 16 above: (8 + k % 8) and 3 are k % 8 / 2 and -2.5."""
    codes = np.array([(8 + k % 8) | 3 << 4 for k in range(16)], dtype=np.uint8)
    raw = np.concatenate((np.array([0.5], dtype=np.float16).view(np.uint8), codes))
    layer = SmallLinear(32, 1, "gguf").take(Blocks(torch.from_numpy(raw)[None], "Q4_0", (1, 32)))
    assert layer.dense().flatten().tolist() == [k % 8 / 2 for k in range(16)] + [-2.5] * 16


def test_a_run_goes_on_as_it_began(tmp_path: Path, cache: Path) -> None:
    """A run folder opens its base as blocks again; what it was trained on is the same base in full precision."""
    path = written(tmp_path, kind="q4_0")
    opened = open_model(str(path), weights="gguf")
    rows = [{"prompt": "a", "completion": "b c"}] * 4
    config = SFTConfig(output_dir=str(tmp_path / "run"), max_steps=2, learning_rate=1e-2, tokens_per_microbatch=256)
    trainer = SFTTrainer(opened.policy, config, rows, processing_class=opened.tokenizer, peft_config=tiny.lora())
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["weights"] == "gguf"
    again = open_model(str(tmp_path / "run"))
    assert again.policy.held == "gguf" and not float_files(cache)
    whole = open_model(str(tmp_path / "run"), weights="fp32")
    assert whole.policy.held is None and base_hash(whole.policy) == base_hash(again.policy)
    batch = pack(UNITS)
    with torch.no_grad():
        found, expected = (one.policy.forward(batch, one.stack).logprobs for one in (again, whole))
    assert found is not None and expected is not None and torch.allclose(found, expected, atol=1e-5)


def test_a_file_that_moved_is_named_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    folder = resolve(path, quiet=True).folder
    shutil.move(path, tmp_path / "elsewhere.gguf")
    with pytest.raises(MachineError, match=r"model\.gguf, which is not there any more"):
        loaded(Path(folder), "gguf")
    with pytest.raises(MachineError, match=r"model\.gguf, which is not there any more"):
        loaded(Path(folder), "fp32")
    (tmp_path / "here").mkdir()
    here = Path(shutil.move(tmp_path / "elsewhere.gguf", tmp_path / "here" / "model.gguf"))
    assert resolve(here, quiet=True).folder == folder
    assert loaded(Path(folder), "gguf").held == "gguf"
    loaded(Path(folder), "fp32")
    here.unlink()  # what is left is the converted folder
    assert loaded(Path(folder), "nf4").held == "nf4" and loaded(Path(folder), "fp32").held is None


def test_what_is_no_gguf_file_and_what_is_rounded_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "plain", "llama")
    with pytest.raises(ConfigError, match=r"holds the blocks of a GGUF file, and .* is none\. Use bf16, int8 or nf4"):
        loaded(folder, "gguf")
    loaded(written(tmp_path, kind="q4_0"), "nf4")
    assert re.search(r"stored in Q\d_0 and rounded once more to nf4; weights gguf holds them as they are\.", capsys.readouterr().err)


def test_blocks_that_layers_do_not_compute_with(tmp_path: Path) -> None:
    """Q5_0: 22 bytes for 32 weights. It is refused as it is, and read where it is rounded."""
    path = written(tmp_path)
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(tmp_path / "five.gguf", "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    five = gguf.GGMLQuantizationType.Q5_0
    for tensor in reader.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if value.ndim == 2:
            writer.add_tensor(tensor.name, gguf.quants.quantize(value, five), raw_dtype=five)
        else:
            writer.add_tensor(tensor.name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConfigError, match=r"as Q5_0, and weights='gguf' computes with Q8_0, .*Use --weights int8 or nf4"):
        loaded(tmp_path / "five.gguf", "gguf")
    assert loaded(tmp_path / "five.gguf", "int8").held == "int8"


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux's kernel counts it")
def test_the_full_precision_model_is_never_in_memory(tmp_path: Path) -> None:
    """34 million weights in layers, 68 MB in float32 for each of two such files: loading takes little more than the blocks."""
    path = tmp_path / "big"
    folder, _ = tiny_gguf.saved(path, "llama", hidden_size=1024, intermediate_size=2560, num_hidden_layers=4, head_dim=256)
    write_gguf(folder, tmp_path / "big.gguf", "q8_0", title="tiny", licence="apache-2.0")
    script = (
        "import resource, sys; from accord.models.load import load_model, resolve\n"
        "import transformers.models.llama.modeling_llama, accelerate, peft, gguf\n"
        "resolved = resolve(sys.argv[1], quiet=True)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model = load_model(resolved, device='cpu', weights='gguf')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "big.gguf")], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 1.6 * (tmp_path / "big.gguf").stat().st_size
