"""Run in a process of its own: one training step of a random model, printing its memory before and at the peak as JSON.

Usage: peak_memory.py SETTINGS, a JSON object with `config` (of a Llama) and `mode`: lora, full, checkpointing or frozen.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import tiny
    from accord.data.packing import Branch, Unit, pack
    from accord.models.adapters import PolicyModel
    from accord.models.allocator import keep_freed_memory
    from accord.recipes.stages import peak_rss_gb

    keep_freed_memory()
    settings = json.loads(sys.argv[1])
    mode = settings["mode"]
    warm = tiny.policy()  # everything is imported and every kernel has run once
    warm.forward(pack([Unit((1, 2), (Branch((3, 4)),))], warm.device), ()).logprobs.sum().backward()
    tiny.policy().add_adapter("warm", tiny.lora())
    before = int(peak_rss_gb() * 1e9)
    torch.manual_seed(0)
    policy = PolicyModel(AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings["config"])).eval(), packed=True)
    stack = ()
    if mode in ("lora", "checkpointing"):
        stack = policy.add_adapter("policy", tiny.lora(16))
    if mode == "checkpointing":
        policy.enable_checkpointing()
    units = [Unit(tuple(range(1, 65)), tuple(Branch(tuple(range(1, 97))) for _ in range(2))) for _ in range(4)]  # 4 * 256 tokens
    batch = pack(units, policy.device)
    if mode == "frozen":
        with torch.no_grad():
            policy.forward(batch, stack)
    else:
        optimizer = torch.optim.AdamW(list(policy.trainable_parameters().values()), lr=1e-4)
        for _ in range(2):
            (-policy.forward(batch, stack).logprobs.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    print(json.dumps({"before": before, "peak": int(peak_rss_gb() * 1e9), "tokens": batch.num_tokens}))


if __name__ == "__main__":
    main()
