"""Names that users bring from TRL and transformers: taken where harmless, otherwise refused with what to use instead."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from typing import Any, TypeVar

from accord.errors import ConfigError

C = TypeVar("C", bound=type)

ALIASES = {
    "rpo_alpha": "sft_coefficient",
    "total_episodes": "num_iterations",
    "response_length": "max_new_tokens",
    "max_completion_length": "max_new_tokens",
    "init_kl_coef": "kl_coef",
    "max_new_tokens": "max_completion_length",
    "kl_coef": "beta",
    "cliprange": "epsilon",
    "warmup_steps": "warmup_ratio",
    "max_seq_length": "max_length",
    "eval_dataset_steps": "eval_steps",
}
"""Old or neighbouring names: refused with the new one, because the unit often differs."""

HARMLESS = {
    "bf16": "the dtype follows the hardware (dtype)",
    "fp16": "the dtype follows the hardware (dtype)",
    "tf32": "the dtype follows the hardware (dtype)",
    "use_cpu": "the device is chosen by what is there",
    "no_cuda": "the device is chosen by what is there",
    "dataloader_num_workers": "rows are rendered once, before training",
    "dataloader_pin_memory": "rows are rendered once, before training",
    "dataloader_drop_last": "the last batch is kept, with its own normaliser",
    "dataset_num_proc": "rows are rendered once, before training",
    "remove_unused_columns": "other columns are kept and passed through",
    "precompute_ref_log_probs": "reference log-probs are always computed once, before training (cache_reference keeps them for later runs)",
    "precompute_ref_batch_size": "the token budget decides (tokens_per_microbatch)",
    "padding_free": "there is no padding",
    "packing": "rows are always packed, each seeing only itself",
    "completion_only_loss": "only completion tokens are counted",
    "assistant_only_loss": "only assistant tokens are counted",
    "use_liger_kernel": "log-probs are always computed in chunks",
    "logging_strategy": "logging_steps decides",
    "save_strategy": "save_steps decides",
    "eval_strategy": "eval_steps decides",
    "evaluation_strategy": "eval_steps decides",
    "per_device_eval_batch_size": "the token budget decides (tokens_per_microbatch)",
    "run_name": "the run folder is the name",
    "overwrite_output_dir": "a run folder is never overwritten",
    "do_train": "call train()",
    "do_eval": "call evaluate()",
    "push_to_hub": "nothing is uploaded",
    "gradient_checkpointing_kwargs": "recomputation is never reentrant",
    "log_level": "one progress line is shown",
    "log_completions": "every answer is written to rollouts.jsonl",
    "disable_tqdm": "one progress line is shown",
}

REPLACED = {
    "truncation_mode": "prompts are cut on the left (max_prompt_length), answers on the right (max_length)",
    "loss_weights": "one loss_type and sft_coefficient",
    "sync_ref_model": "a fixed reference; train in rounds from the last run instead",
    "kl_estimator": "k1 in the reward (its gradient is exact); k3 is logged",
    "use_vllm": "the local sampler",
    "vllm_mode": "the local sampler",
    "generation_batch_size": "steps_per_generation, in batches of per_device_train_batch_size answers",
    "top_entropy_quantile": "all tokens: leaving some out biases the gradient",
    "entropy_coef": "beta, which holds the policy to where it started",
    "use_bias_correction_kl": "kl_in='reward', whose gradient needs no correction",
    "off_policy_mask_threshold": "truncated_importance_cap",
    "vllm_importance_sampling_cap": "truncated_importance_cap",
    "vllm_importance_sampling_mode": "importance_weights",
    "vllm_importance_sampling_clip_max": "truncated_importance_cap",
    "quantization_config": "dtype",
    "deepspeed": "fully_shard=True, with several processes (torchrun)",
    "fsdp": "fully_shard=True, with several processes (torchrun)",
}

SHARED_DIFFERENCES = (
    "the chat template is applied to plain strings too, answers end at their end token (nothing after it is learned), too long rows are cut and counted instead of "
    "dropped, dropout is off, bf16 only where it is fast"
)
DIFFERENCES = {
    "SFTConfig": "",
    "RewardConfig": "the loss is averaged over the whole step, not per micro-batch; five heads; ",
    "DPOConfig": "the loss is averaged over the whole step, not per micro-batch; the reference is the model before its first step, read once; ",
    "GRPOConfig": "the defaults are Dr. GRPO's (rewards are not divided by the group's standard deviation, losses not by an answer's length), KL is paid in the reward with k1, "
    "groups are kept whole; ",
    "RLOOConfig": "losses are divided by max_completion_length, ratios are clipped token by token; ",
    "KTOConfig": "the loss is averaged over the whole step, not per micro-batch; the reference is the model before its first step, read once; ",
}
"""What is different on purpose from the TRL class of the same name: docs/from-trl.md has the reasons, tests/parity both sides."""

_noticed: set[str] = set()
_scripted = False


def no_differences() -> None:
    """For the command line and recipes, whose users did not write a script for another library."""
    global _scripted
    _scripted = True


def accepts_known_names(config: C) -> C:
    """Class decorator: the constructor takes the names above and explains the rest."""
    plain_init = config.__init__  # type: ignore[misc]
    known = {field.name for field in dataclasses.fields(config)}

    def __init__(self: Any, *args: Any, **values: Any) -> None:
        for name in [name for name in values if name not in known]:
            value = values.pop(name)
            if name in HARMLESS:
                notice(f"{config.__name__}: {name}={value!r} is not needed: {HARMLESS[name]}.")
                continue
            raise ConfigError(unknown_name(config.__name__, name, known))
        plain_init(self, *args, **values)
        if config.__name__ in DIFFERENCES and not _scripted:
            notice(
                f"{config.__name__}: unlike TRL's, on purpose: {DIFFERENCES[config.__name__]}{SHARED_DIFFERENCES}. Why: docs/from-trl.md"
            )

    config.__init__ = __init__  # type: ignore[misc]
    return config


def unknown_name(where: str, name: str, known: set[str]) -> str:
    """One line for a name that is not a field: its replacement, or the nearest field."""
    if name in REPLACED:
        return f"{where} has no {name}. Use instead: {REPLACED[name]}."
    if name in ALIASES and ALIASES[name] in known:
        return f"{where} has no {name}. Its name here is {ALIASES[name]} (see its help for the unit)."
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"{where} has no {name}." + (f" Did you mean {near[0]}?" if near else " See --help-all for the fields.")


def notice(text: str) -> None:
    """Say something once in this process."""
    if text not in _noticed:
        _noticed.add(text)
        print(text, file=sys.stderr)
