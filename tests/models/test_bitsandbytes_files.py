"""Checkpoints that bitsandbytes wrote in 4 bits, read without it: the numbers are those of its formula, and other formats are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

import tiny
from accord.config.dpo import DPOConfig
from accord.config.options import TrainOptions
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, MachineError
from accord.models.adapters import PolicyModel, Want
from accord.models.bitsandbytes_files import Codes, read_weights
from accord.models.load import load_model, resolve
from accord.models.small import NF4, SmallLinear
from accord.recipes.train import plan_memory

UNITS = [Unit((5, 6, 7, 8, 9), (Branch((10, 11, 12)), Branch((13, 2)))), Unit((20, 21), (Branch((22, 23, 24, 25, 2)),))]
DYNAMIC = torch.linspace(-1, 1, 256) ** 3
"""Any map does: bitsandbytes stores the one that it used."""


def quantised(weight: Tensor, *, blocksize: int = 64) -> tuple[dict[str, Tensor], Tensor]:
    """What bitsandbytes stores of a weight, and what it makes of it again: level * (map[byte] * nested_absmax + nested_offset)."""
    count = weight.numel()
    flat = torch.nn.functional.pad(weight.flatten(), (0, -count % blocksize)).view(-1, blocksize)
    tops = flat.abs().amax(1)
    offset = float(tops.mean())
    nested = torch.stack([(part - offset).abs().amax() for part in tops.split(256)])
    spread = nested.repeat_interleave(256)[: len(tops)]
    scales = ((tops - offset) / spread)[:, None].sub(DYNAMIC).abs().argmin(1).to(torch.uint8)
    levels = torch.tensor(NF4)
    codes = (flat / tops[:, None])[..., None].sub(levels).abs().argmin(-1)
    back = (levels[codes] * (DYNAMIC[scales.int()] * spread + offset)[:, None]).flatten()[:count].view(weight.shape)
    bytes_of = codes.flatten()[: count + count % 2].to(torch.uint8).view(-1, 2)
    state = {
        "quant_type": "nf4",
        "blocksize": blocksize,
        "dtype": "bfloat16",
        "shape": list(weight.shape),
        "nested_blocksize": 256,
        "nested_dtype": "float32",
        "nested_offset": offset,
    }
    return {
        "": (bytes_of[:, 0] << 4 | bytes_of[:, 1])[:, None],
        ".absmax": scales,
        ".quant_map": levels.clone(),
        ".nested_absmax": nested,
        ".nested_quant_map": DYNAMIC.clone(),
        ".quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }, back


def saved(folder: Path, **options: Any) -> Path:
    """`folder`/four as bitsandbytes writes it, in two files, and `folder`/whole with the numbers that it stands for, in float32."""
    model = tiny.model("llama", hidden_size=64, intermediate_size=96, head_dim=16, num_attention_heads=4)
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if "_proj" in name:
            parts, back = quantised(parameter.detach(), **options)
            tensors |= {f"{name}{part}": value for part, value in parts.items()}
            parameter.data = back
        else:
            parameter.data = parameter.detach().to(torch.bfloat16).float()
            tensors[name] = parameter.detach().to(torch.bfloat16)
    model.save_pretrained(folder / "whole")
    model.save_pretrained(folder / "four")
    (folder / "four" / "model.safetensors").unlink()
    config = json.loads((folder / "four" / "config.json").read_text(encoding="utf-8"))
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    (folder / "four" / "config.json").write_text(json.dumps({**config, "quantization_config": said}), encoding="utf-8")
    names = {}
    for number in range(2):  # parts of one weight lie in both
        part = {name: tensors[name].contiguous() for name in sorted(tensors)[number::2]}
        save_file(part, folder / "four" / f"model-{number}.safetensors", metadata={"format": "pt"})
        names |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "four" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}), encoding="utf-8")
    return folder / "four"


def loaded(folder: Path, weights: str = "auto") -> PolicyModel:
    return PolicyModel(load_model(resolve(folder, quiet=True), device="cpu", weights=weights), packed=True)


def results(policy: PolicyModel) -> tuple[Tensor, dict[str, Tensor]]:
    policy.add_adapter("policy", tiny.lora(), seed=1)
    tiny.shake(policy, "policy")
    out = policy.forward(pack(UNITS), policy.adapters, Want(logprobs=True))
    assert out.logprobs is not None
    (out.logprobs * torch.linspace(-1, 1, len(out.logprobs))).sum().backward()
    return out.logprobs.detach(), {name: p.grad for name, p in policy.trainable_parameters().items() if p.grad is not None}


def test_it_is_the_model_that_its_codes_stand_for(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    policy, whole = loaded(folder), loaded(folder.parent / "whole", "fp32")
    assert policy.held == "nf4" and not hasattr(policy.model.config, "quantization_config")
    layers = {name: module for name, module in policy.model.named_modules() if isinstance(module, SmallLinear) and module.kind == "nf4"}
    assert len(layers) == 14
    for name, layer in layers.items():
        assert torch.equal(layer.dense(), whole.model.get_submodule(name).weight), name
    found, expected = results(policy), results(whole)
    assert torch.allclose(found[0], expected[0], atol=1e-4) and expected[1] and found[1].keys() == expected[1].keys()
    for name, slope in expected[1].items():
        assert float((found[1][name] - slope).norm()) <= 1e-4 * float(slope.norm()) + 1e-6, name


def test_it_is_planned_for_in_four_bits(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    config = DPOConfig(tokens_per_microbatch=256)
    need = plan_memory(AutoConfig.from_pretrained(folder), TrainOptions(model=str(folder)), config)
    other = plan_memory(AutoConfig.from_pretrained(folder.parent / "whole"), TrainOptions(), DPOConfig(tokens_per_microbatch=256))
    assert config.weights == "nf4" and need.weights < other.weights


def test_other_forms_are_refused_in_a_line(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"stored in nf4 by bitsandbytes, and weights='int8' asks for another form"):
        loaded(folder, "int8")
    with pytest.raises(MachineError, match=r"as nf4 in blocks of 128, their scales in blocks of 256\. accord reads"):
        loaded(saved(tmp_path / "b", blocksize=128))

    def changed(rename: Any) -> None:
        for path in folder.glob("*.safetensors"):
            tensors = {rename(name): value for name, value in load_file(path).items()}
            save_file({name: value for name, value in tensors.items() if name}, path, metadata={"format": "pt"})

    changed(lambda name: "" if name.endswith("nested_quant_map") else name)
    with pytest.raises(MachineError, match="as nf4 whose scales are not quantised"):
        loaded(folder)
    changed(lambda name: name.replace("__nf4", "__fp4"))
    with pytest.raises(MachineError, match=r"_proj\.weight as fp4\. accord reads"):
        loaded(folder)


@pytest.mark.parametrize("shape", [(96, 64), (40, 72), (300, 200)])  # whole blocks, half a block at the end, several groups of scales
def test_bitsandbytes_itself_makes_the_same_numbers_of_them(shape: tuple[int, int], tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.02
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    parts = {f"layer.weight.{name}": value for name, value in state.as_dict(packed=True).items()}
    save_file({"layer.weight": codes, **parts}, tmp_path / "model.safetensors")
    ((name, found),) = read_weights(tmp_path, lambda name: True)
    assert name == "layer.weight" and isinstance(found, Codes)
    layer = SmallLinear(shape[1], shape[0], "nf4").take(found)
    assert torch.equal(layer.dense(), functional.dequantize_4bit(codes, state))
