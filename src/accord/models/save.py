"""Run folders that others can load: one ordinary peft adapter or transformers model, plus the stack it was made of.

A stack of LoRA adapters [S, P] is one LoRA of rank r_S + r_P: concatenate the A matrices and the scaled B matrices. That exact sum is
what the folder's `adapter_model.safetensors` holds, so `PeftModel.from_pretrained(base, folder)` gives the trained policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from accord.errors import DataError
from accord.models.adapters import PolicyModel, Stack
from accord.models.folders import read_json
from accord.models.sharding import plain_state
from accord.models.small import SmallLinear, some_of
from accord.models.tokens import set_stops
from accord.types import content_hash
from accord.writing import whole_folder

STACK = "stack.json"
REWARD = "reward.json"
"""What a folder with reward heads says about them (`rewards.learned`)."""
PROCESS = "process.json"
"""What a folder with a step head says about it (`rewards.process`)."""
HEADS = (REWARD, PROCESS)
"""A folder with one of these holds heads that score, not a policy."""


def save_policy(policy: PolicyModel, stack: Sequence[str], tokenizer: Any, folder: Path) -> None:
    """Write the policy `stack` as a standard folder: peft when there are adapters, transformers otherwise.

    Where weights are split over processes, this is for one of them, within `policy.gathered()`.

    Raises:
        MachineError: if it cannot be written; the folder is then as it was.
    """
    with whole_folder(folder) as target:
        _write_policy(policy, stack, tokenizer, target)


def _write_policy(policy: PolicyModel, stack: Sequence[str], tokenizer: Any, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    generation = getattr(policy.model, "generation_config", None)
    if generation is not None:
        set_stops(policy.model, tokenizer)
        generation.save_pretrained(folder)
    if not stack:
        policy.model.save_pretrained(folder, safe_serialization=True, state_dict=_state(policy, policy.model))
        return
    rows = []
    for position, name in enumerate(stack):
        target = folder / "stack" / f"{position}-{name}"
        _save_adapter(policy, name, target)
        rows.append({"name": name, "folder": f"stack/{position}-{name}", "hash": adapter_hash(policy, name)})
    base = getattr(policy.model.config, "_name_or_path", "")
    record = {"schema": 1, "base": base, "base_hash": base_hash(policy), "weights": policy.held, "adapters": rows}
    (folder / STACK).write_text(json.dumps(record, indent=1), encoding="utf-8")
    if all(_plain_lora(policy, name) for name in stack):
        _save_sum(policy, stack, folder)
    elif len(stack) == 1:
        _save_adapter(policy, stack[0], folder)


def adapter_hash(policy: PolicyModel, name: str) -> str:
    """Hash of an adapter's weights: the same adapter under another name has the same hash."""
    parts = []
    for key, parameter in sorted(policy.adapter_parameters(name).items()):
        value = parameter.detach().cpu().double()
        parts.append(
            [
                ".".join(part for part in key.split(".") if part != name),
                list(value.shape),
                float(value.sum()),
                float((value * value).sum()),
                float(value.flatten()[:: max(1, value.numel() // 64)].sum()),
            ]
        )
    return content_hash(parts)


def base_hash(policy: PolicyModel) -> str:
    """Hash of the weights under all adapters, from up to 64 numbers of each, as bfloat16: the same model in another dtype, or held in fewer
    bits, has the same hash."""
    small = {f"{key}.weight": module for key, module in policy.model.named_modules() if isinstance(module, SmallLinear)}
    parts = []
    for key, parameter in policy.model.named_parameters():
        names = [name for name in key.split(".") if name not in ("base_layer", "original_module")]
        if not set(names) & set(policy.adapters):
            some, shape = some_of(parameter), list(parameter.shape)
            if key in small and not parameter.is_floating_point():
                some, shape = small[key].sample, [small[key].out_features, small[key].in_features]
            parts.append([".".join(names), shape, some.float().tolist()])
    return content_hash(sorted(parts))


def check_base(policy: PolicyModel, record: dict[str, Any], folder: Path) -> None:
    """Insist that what a run folder holds was trained on this base.

    Args:
        record: what the folder says (`stack.json`, `reward.json`); one that says nothing passes.
    Raises:
        DataError: if it was trained on another one.
    """
    stated = record.get("base_hash")
    if stated is not None and stated != base_hash(policy):
        here = getattr(policy.model.config, "_name_or_path", "") or "the model in memory"
        raise DataError(
            f"{folder} was trained on another base model ({record.get('base') or 'made in memory'}) than {here}: its numbers would mean nothing. "
            "Start both from one base, or train it again on this one."
        )


def load_stack(policy: PolicyModel, folder: Path, *, prefix: str = "") -> Stack:
    """Load a run folder's adapters on top of this model's stack; adapters already there (by hash) are shared, not loaded twice.

    Args:
        prefix: put before the names of newly loaded adapters when they are taken.
    Raises:
        DataError: if the folder has no stack, is damaged, or was trained on another base.
    """
    path = folder / STACK
    if not path.exists():
        if not (folder / "adapter_config.json").exists():
            raise DataError(f"{folder} holds no adapters (no {STACK}, no adapter_config.json). Name a run folder or a peft folder.")
        rows = [{"name": folder.name.replace(".", "-"), "folder": ".", "hash": None}]
    else:
        record = read_json(path)
        check_base(policy, record, folder)
        rows = record["adapters"]
    known = {adapter_hash(policy, name): name for name in policy.adapters}
    stack: list[str] = []
    for row in rows:
        if row["hash"] in known:
            stack.append(known[row["hash"]])
            continue
        name = row["name"] if row["name"] not in policy.adapters else f"{prefix or 'loaded'}_{row['name']}"
        _load_adapter(policy, name, folder / row["folder"])
        policy.origins[name] = str(folder)
        stack.append(name)
    return tuple(stack)


def _load_adapter(policy: PolicyModel, name: str, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        policy.load_adapter(name, str(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"The adapter in {folder} cannot be put on this model: {reason}. Save the run again, or name its own base."
        ) from error


def _state(policy: PolicyModel, module: Any) -> dict[str, Tensor] | None:
    """State to save where the module's own `state_dict` is not it; None where it is."""
    return plain_state(module) if policy.sharding is not None else None


def _save_adapter(policy: PolicyModel, name: str, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = policy.peft.peft_config[name]
    state = get_peft_model_state_dict(policy.peft, _state(policy, policy.peft), adapter_name=name)
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    _save_config(config, policy, folder)


def _save_config(config: Any, policy: PolicyModel, folder: Path, **changes: Any) -> None:
    import copy

    config = copy.deepcopy(config)
    config.inference_mode = True
    config.base_model_name_or_path = config.base_model_name_or_path or getattr(policy.model.config, "_name_or_path", "")
    for key, value in changes.items():
        setattr(config, key, value)
    config.save_pretrained(str(folder))


def _plain_lora(policy: PolicyModel, name: str) -> bool:
    config = policy.peft.peft_config[name]
    simple = getattr(config, "r", 0) and not getattr(config, "use_dora", False) and not getattr(config, "lora_bias", False)
    odd = ("lora_variant", "lora_embedding_A")
    return bool(simple) and not any(name in getattr(layer, kind, {}) for layer in policy.tuner_layers() for kind in odd)


def _save_sum(policy: PolicyModel, stack: Sequence[str], folder: Path) -> None:
    """The stack as one adapter with scaling 1. What a module lacks of an adapter's (largest) rank is zeros, so all modules share one rank."""
    tensors: dict[str, Tensor] = {}
    layers = policy.tuner_layers()
    ranks = {name: max(int(layer.r[name]) for layer in layers if name in layer.r) for name in stack}
    targets: set[str] = set()
    for key, layer in policy.model.named_modules():
        if not hasattr(layer, "lora_A") or not any(name in layer.lora_A for name in stack):
            continue
        lefts, rights = [], []
        for name in stack:
            left, right = torch.zeros(ranks[name], layer.in_features), torch.zeros(layer.out_features, ranks[name])
            if name in layer.lora_A:
                left[: layer.r[name]] = layer.lora_A[name].weight.detach()
                right[:, : layer.r[name]] = layer.lora_B[name].weight.detach() * layer.scaling[name]
            lefts.append(left)
            rights.append(right)
        tensors[f"base_model.model.{key}.lora_A.weight"] = torch.cat(lefts, 0)
        tensors[f"base_model.model.{key}.lora_B.weight"] = torch.cat(rights, 1)
        seeing = policy.text_config is not policy.config  # what sees has modules of the same last names
        targets.add(key if seeing else key.rsplit(".", 1)[-1])
    rank = sum(ranks.values())
    chosen = [policy.peft.peft_config[name].layers_to_transform for name in stack]
    some = None if None in chosen else sorted({index for one in chosen for index in ([one] if isinstance(one, int) else one)})
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = policy.peft.peft_config[stack[-1]]
    _save_config(
        config,
        policy,
        folder,
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(targets),
        exclude_modules=None,
        layers_to_transform=some,
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        lora_dropout=0.0,
    )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, with one clear line when it is missing or damaged."""
    from safetensors import SafetensorError

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. Name a run folder made by accord.") from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]}).") from error
