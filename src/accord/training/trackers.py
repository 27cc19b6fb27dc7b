"""Experiment trackers through accelerate: the numbers of metrics.jsonl, sent where the user asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from accord.config.base import TrainingConfig
from accord.errors import ConfigError
from accord.training import processes


class Trackers:
    """Nothing when `report_to` is none; otherwise one or more of accelerate's trackers."""

    def __init__(self, config: TrainingConfig, folder: Path) -> None:
        names = [name.strip() for name in config.report_to.split(",") if name.strip() and name.strip() != "none"]
        self.accelerator: Any = None
        if not names or not processes.is_main():
            return
        from accelerate import Accelerator

        try:
            self.accelerator = Accelerator(log_with=cast("Any", names), project_dir=str(folder))
            plain = {key: value for key, value in config.to_dict().items() if isinstance(value, (int, float, str, bool))}
            self.accelerator.init_trackers("accord", config=plain)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"report_to={config.report_to!r}: {str(error).splitlines()[0]} Install the tracker, or use report_to='none'."
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        if self.accelerator is not None:
            self.accelerator.log({key: value for key, value in row.items() if isinstance(value, (int, float))}, step=int(row["step"]))

    def close(self) -> None:
        if self.accelerator is not None:
            self.accelerator.end_training()
