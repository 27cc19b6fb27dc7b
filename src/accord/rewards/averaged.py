"""One reward model whose weights are the average of several (WARM: Rame et al. 2024, arXiv:2401.12187): less noise of labels in it, at the cost of one.

The adapters' updates are averaged, not their factors: the sum of LoRAs is one LoRA, of the ranks together. Heads must be linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch

from accord.data.render import Renderer
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.models.heads import RewardHeads
from accord.rewards.learned import RewardModel


def averaged(policy: PolicyModel, folders: Sequence[Path], renderer: Renderer) -> RewardModel:
    """The reward models of these runs as one.

    Args:
        policy: the base that all of them lie on; gets one more adapter where the runs trained adapters.
        folders: runs with the same number of linear heads on the same layer, from the same start.
    Raises:
        ConfigError: naming what they do not share.
        DataError: if a folder holds no reward model, or one on another base.
    """
    models = [RewardModel.load(policy, folder, renderer) for folder in folders]
    first = models[0]
    for folder, model in zip(folders, models, strict=True):
        if model.policy is not policy:
            raise ConfigError(f"{folder} trained all weights of its model: only runs with adapters or frozen features are averaged.")
        if model.heads.width:
            raise ConfigError(
                f"{folder} has heads with a hidden layer (head_width={model.heads.width}), whose units mean other things in each run. Train with head_width 0."
            )
        if (model.heads.num_heads, model.heads.reading, model.stack[:-1]) != (first.heads.num_heads, first.heads.reading, first.stack[:-1]):
            raise ConfigError(
                f"{folder} and {folders[0]} differ in the number of heads, in what these read, or in what they start from: their weights have no average."
            )
    stack = first.stack
    if any(model.stack != stack for model in models):
        stack = (*stack[:-1], _averaged_adapter(policy, [model.stack[-1] for model in models]))
    return RewardModel(policy, stack, _averaged_heads([model.heads for model in models]), renderer)


def _averaged_heads(heads: Sequence[RewardHeads]) -> RewardHeads:
    """Heads whose normalised scores are the means of theirs: standardisation and normalisation are folded into weights and constants."""
    first = heads[0]
    result = RewardHeads(first.feature_center.shape[0], first.num_heads, layer=first.layer, context=first.context)
    with torch.no_grad():
        weights = [one.weight.float() / one.spread[:, None] / one.feature_spread for one in heads]
        constants = [-(one.center / one.spread) - weight @ one.feature_center for one, weight in zip(heads, weights, strict=True)]
        result.weight.copy_(torch.stack(weights).mean(0))
        result.center.copy_(-torch.stack(constants).mean(0))
    return result.to(first.weight.device)


def _averaged_adapter(policy: PolicyModel, names: Sequence[str]) -> str:
    """A frozen adapter that does what these do on average; returns its name.

    Raises:
        ConfigError: if they are not plain LoRA on the same modules.
    """
    configs = [policy.peft.peft_config[name] for name in names]
    layers = [layer for layer in policy.tuner_layers() if any(name in getattr(layer, "lora_A", {}) for name in names)]
    if (
        not layers
        or any(name not in layer.lora_A for layer in layers for name in names)
        or any(getattr(one, "use_dora", False) or one.rank_pattern for one in configs)
    ):
        raise ConfigError("Only reward runs with plain LoRA on the same modules can be averaged.")
    ranks = [int(layers[0].r[name]) for name in names]
    config = deepcopy(configs[0])
    config.r = config.lora_alpha = sum(ranks)
    config.use_rslora, config.rank_pattern, config.alpha_pattern = False, {}, {}
    trained = [name for name in policy.adapters if any(p.requires_grad for p in policy.adapter_parameters(name).values())]
    name = "averaged_" + "_".join(names)
    policy.add_adapter(name, config)
    with torch.no_grad():
        for layer in layers:
            layer.lora_A[name].weight.copy_(torch.cat([layer.lora_A[one].weight for one in names], 0))
            rights = [layer.lora_B[one].weight * layer.scaling[one] / len(names) for one in names]
            layer.lora_B[name].weight.copy_(torch.cat(rights, 1))
    policy.train_only(*trained)
    return name
