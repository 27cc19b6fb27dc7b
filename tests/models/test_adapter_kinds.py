"""What a stack can hold, and what it refuses: whatever peft puts on a model is read by every pass of its stack and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model

import tiny
from accord import SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.models.save import save_policy
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig

REFUSED: dict[str, tuple[Any, str]] = {
    "prompt": (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "puts learned tokens before the prompt"),
    "prefix": (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "puts learned tokens before the prompt"),
    "modules": (tiny.lora(modules_to_save=["lm_head"]), "modules_to_save=.* the reference would read too"),
    "tokens": (tiny.lora(trainable_token_indices=[3, 4]), "trainable_token_indices=.* the reference would read too"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_part_of_a_stack_is_refused(kind: str, tmp_path: Path) -> None:
    """As a new adapter, in a peft model that is passed, and in a folder that is loaded."""
    config, message = REFUSED[kind]
    with pytest.raises(ConfigError, match=message):
        tiny.policy().add_adapter("sft", config)
    given = get_peft_model(tiny.model(), config)
    with pytest.raises(ConfigError, match=message):
        PolicyModel(given, packed=True)
    given.save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        tiny.policy().load_adapter("sft", str(tmp_path))
    args = SFTConfig(output_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=message):
        SFTTrainer(tiny.policy(), args, tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=config)


def test_adapters_on_the_head_are_plain_lora() -> None:
    dora = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], use_dora=True, task_type="CAUSAL_LM")
    with pytest.raises(ConfigError, match="LM head must be plain LoRA"):
        tiny.policy().add_adapter("sft", dora)


HEAD = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "up_proj", "lm_head"], task_type="CAUSAL_LM")


def headed(**changes: Any) -> PolicyModel:
    policy = tiny.policy(**changes)
    policy.add_adapter("sft", HEAD)
    tiny.shake(policy, "sft")
    return policy


@pytest.mark.parametrize("tied", [False, True])
def test_lora_on_the_head_is_read_saved_and_sampled_from(tied: bool, tmp_path: Path) -> None:
    policy = headed(tie_word_embeddings=tied)
    unit = Unit((5, 6, 7), (Branch((8, 9, 2)),))
    found = policy.forward(pack([unit]), ("sft",)).logprobs
    with torch.no_grad():
        table = policy.peft(torch.tensor([[5, 6, 7, 8, 9, 2]])).logits[0].log_softmax(-1)
        base = policy.forward(pack([unit]), ()).logprobs
    assert found is not None and base is not None
    assert torch.allclose(found, table[[2, 3, 4], [8, 9, 2]], atol=1e-5) and not torch.allclose(found, base, atol=1e-2)
    found.sum().backward()
    assert all(bool(parameter.grad.any()) for name, parameter in policy.trainable_parameters().items() if "lm_head" in name)
    rollouts = LocalSampler(policy, Renderer(tiny.tokenizer(), end_ids=[2]), ("sft",)).sample(
        [Prompt("p", (5, 6, 7))], SamplingConfig(8, 3)
    )
    drawn = Unit((5, 6, 7), tuple(Branch(rollout.completion_ids) for rollout in rollouts))
    with torch.no_grad():
        again = policy.forward(pack([drawn]), ("sft",)).logprobs
    assert torch.allclose(again, torch.tensor([value for rollout in rollouts for value in rollout.sampler_logprobs]), atol=1e-4)
    save_policy(policy, ("sft",), tiny.tokenizer(), tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model(tie_word_embeddings=tied), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(torch.tensor([[5, 6, 7, 8, 9, 2]])).logits[0].log_softmax(-1), table, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5})],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_off(architecture: str, changes: dict[str, Any], checkpointing: bool) -> None:
    """The model's and the adapter's, from the first pass on, and while checkpointed layers are computed again."""
    results = []
    for share in (0.0, 0.5):
        options = changes if share else {name: 0.0 if name.endswith("pdrop") else value for name, value in changes.items()}
        policy = PolicyModel(tiny.model(architecture, **options).train(), packed=True)
        policy.add_adapter("sft", tiny.lora(lora_dropout=share, fan_in_fan_out=architecture == "gpt2"))
        tiny.shake(policy, "sft")
        if checkpointing:
            policy.enable_checkpointing()
        for _ in range(2):
            policy.model.zero_grad()
            out = policy.forward(pack([Unit((5, 6, 7), (Branch((8, 9, 2)),))]), ("sft",)).logprobs
            assert out is not None
            out.sum().backward()
        slopes = torch.cat([parameter.grad.flatten() for parameter in policy.trainable_parameters().values()])
        results.append((out.detach(), slopes))
    assert torch.equal(results[0][0], results[1][0]) and float((results[0][1] - results[1][1]).norm()) <= 1e-6 * float(results[0][1].norm())
