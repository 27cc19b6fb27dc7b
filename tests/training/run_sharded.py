"""Trains tiny models whose weights are split over processes, for test_sharding.

    torchrun --nproc_per_node 2 run_sharded.py FOLDER PLAIN SETTINGS CASE...

A case is METHOD, METHOD-upper, METHOD-full or METHOD-full-checkpointing. Each is trained in FOLDER/CASE from the start, and in FOLDER/CASE-resumed from the checkpoint after two steps that an
unsplit run left in PLAIN/CASE.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.loop import Loop
from training.run_training import build


def trained(case: str, folder: Path, settings: dict[str, Any], resume: Path | None = None) -> Loop:
    """The trainer of a case after training."""
    method, *kinds = case.split("-")
    trainer = build(
        method, folder, [], {**settings, "gradient_checkpointing": "checkpointing" in kinds}, full="full" in kinds, upper="upper" in kinds
    )
    trainer.train(None if resume is None else str(resume))
    return trainer


def sampled(trainer: Loop) -> list[list[Any]]:
    """What the trained policy answers: more to do on the first process than on the others, so that none may wait for another."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    prompts = [Prompt(f"p{i}", tuple(range(30 + i, 34 + 3 * i))) for i in range(4 if rank == 0 else 1)]
    found = LocalSampler(trainer.policy, trainer.renderer, trainer.prepared.stack).sample(prompts, SamplingConfig(12 - 4 * rank, 2))
    return [[list(rollout.completion_ids), list(rollout.sampler_logprobs)] for rollout in found]


def classes(trainer: Loop) -> dict[str, Any]:
    """What the model is made of on this process."""
    parameters = list(trainer.policy.model.parameters())
    return {
        "layers": all(isinstance(layer, FSDPModule) for layer in trainer.policy.layers),
        "split": all(isinstance(parameter, DTensor) for parameter in parameters),
        "here": sum(parameter.to_local().numel() for parameter in parameters),
        "whole": sum(parameter.numel() for parameter in parameters),
    }


def main() -> None:
    torch.set_num_threads(1)
    folder, plain, settings = Path(sys.argv[1]), Path(sys.argv[2]), {**json.loads(sys.argv[3]), "fully_shard": True}
    for case in sys.argv[4:]:
        trainer = trained(case, folder / case, settings)
        after = {"classes": classes(trainer), "sampled": sampled(trainer), "evaluated": trainer.evaluate()}
        trainer.save_model(folder / case / "saved")
        (folder / case / f"after-{dist.get_rank()}.json").write_text(json.dumps(after), encoding="utf-8")
        trained(case, folder / f"{case}-resumed", settings, plain / case / "checkpoint-2")


if __name__ == "__main__":
    main()
