"""Experiment trackers through accelerate: the numbers of metrics.jsonl, sent where the user asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from accord.config.base import TrainingConfig
from accord.errors import ConfigError
from accord.training import processes


class Trackers:
    """Nothing when `report_to` is none; otherwise one or more of accelerate's trackers.

    Raises:
        ConfigError: if there is no tracker of a name, or it is not installed (accelerate itself would go on without it).
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.names = [name.strip() for name in config.report_to.split(",") if name.strip() and name.strip() != "none"]
        self.accelerator: Any = None
        if not self.names:
            return
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import LoggerType

        known, installed = {kind.value for kind in LoggerType} - {"all"}, {str(kind) for kind in get_available_trackers()}
        for name in self.names:
            if name not in known:
                raise ConfigError(
                    f"report_to={config.report_to!r}: there is no tracker {name!r}. The trackers are {', '.join(sorted(known))}; none uses metrics.jsonl alone."
                )
            if name not in installed:
                raise ConfigError(
                    f"report_to={config.report_to!r}: {name} is not installed. pip install {name.replace('_', '-')}, or use report_to='none'."
                )

    def open(self, folder: Path) -> None:
        """Begin the run at every tracker, from the first process."""
        if not self.names or not processes.is_main():
            return
        from accelerate import Accelerator

        self.accelerator = Accelerator(log_with=cast("Any", self.names), project_dir=str(folder))
        plain = {key: value for key, value in self.config.to_dict().items() if isinstance(value, (int, float, str, bool))}
        self.accelerator.init_trackers("accord", config=plain)

    def log(self, row: dict[str, Any]) -> None:
        if self.accelerator is not None:
            self.accelerator.log({key: value for key, value in row.items() if isinstance(value, (int, float))}, step=int(row["step"]))

    def close(self) -> None:
        if self.accelerator is not None:
            self.accelerator.end_training()
