"""How many tokens go through the model at once: chosen from free memory when a run starts, then the same to its end."""

from __future__ import annotations

from accord.config.base import TrainingConfig
from accord.models.adapters import PolicyModel
from accord.models.free_memory import available_memory
from accord.models.size import choose_token_budget, logit_bytes, measured, moment_bytes
from accord.training import processes
from accord.training.setup import say


def token_budget(config: TrainingConfig, policy: PolicyModel) -> int:
    """`tokens_per_microbatch`; where it is None, what half of the free memory holds, on the process that has least. Put into the config.

    Args:
        policy: loaded, with its adapters, so that their memory is taken already.
    """
    if config.tokens_per_microbatch is None:
        size, device = measured(policy.model, policy.adapters), policy.device
        have = available_memory(str(device))
        if device.type == "cpu":
            have //= processes.on_this_machine()
        trained = sum(
            parameter.nbytes + parameter.numel() * moment_bytes(config.optim, parameter.itemsize)
            for parameter in policy.trainable_parameters().values()
        )
        budget = choose_token_budget(
            size,
            have - trained - logit_bytes(size),
            device=device.type,
            weight_bytes=policy.dtype.itemsize,
            context=config.max_length or 1024,
            checkpointing=config.gradient_checkpointing,
        )
        config.tokens_per_microbatch, least = min(processes.gather_objects((budget, have)))
        say(f"tokens_per_microbatch {config.tokens_per_microbatch}, from {least / 1e9:.1f} GB of free memory.")
    return config.tokens_per_microbatch
