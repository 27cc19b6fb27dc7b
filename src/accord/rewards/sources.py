"""From what a user names (run folders, names, file.py:function) to what scores answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.models.save import PROCESS
from accord.rewards.averaged import averaged
from accord.rewards.combine import LearnedReward, RewardSource, weighted
from accord.rewards.learned import RewardModel
from accord.rewards.named import reward_of
from accord.rewards.process import ProcessReward, ProcessRewardModel


def load_rewards(
    models: Sequence[str] | None,
    functions: Sequence[str] | None,
    policy: PolicyModel,
    renderer: Renderer,
    *,
    aggregation: str | None = None,
) -> list[RewardSource]:
    """Reward models, then functions, each with the weight that stands behind a star (runs/reward*0.5).

    Args:
        models: run folders of reward models; several joined by + for the average of their weights, or by commas for the members of one
            ensemble; with `aggregation`, of process reward models too.
        functions: names of `named.NAMED` or `file.py:function`.
        policy: the base that reward models lie on.
        aggregation: how the steps' scores of a process reward model become one. None refuses such a run.
    Raises:
        ConfigError: if a weight is no number, a file or a function is not there.
        DataError: if a folder holds no reward model, or one on another base.
    """
    found: list[RewardSource] = []
    for spec in models or ():
        path, weight = weighted(spec)
        folder = Path(path)
        if aggregation is not None and (folder / PROCESS).exists():
            found.append(ProcessReward(ProcessRewardModel.load(policy, folder, renderer), aggregation, weight, folder.name))
        elif "+" in path and not folder.exists():
            folders = [Path(part) for part in path.split("+")]
            found.append(LearnedReward(averaged(policy, folders, renderer), weight, "+".join(one.name for one in folders)))
        elif "," in path and not folder.exists():
            folders = [Path(part.strip()) for part in path.split(",")]
            first, *others = (RewardModel.load(policy, one, renderer) for one in folders)
            found.append(LearnedReward(first, weight, ",".join(one.name for one in folders), others=tuple(others)))
        else:
            found.append(LearnedReward(RewardModel.load(policy, folder, renderer), weight, folder.name))
    return [*found, *(reward_of(spec) for spec in functions or ())]
