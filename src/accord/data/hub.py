"""Datasets of the hub, through `datasets` and its cache: one split, and only the files of that split."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.errors import DataError, MachineError

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/([A-Za-z0-9][\w.-]*))?")
"""`ORG/NAME`, or `ORG/NAME/CONFIG` for a dataset that has several."""


def hub_rows(source: str, split: str | None) -> Iterable[Mapping[str, object]]:
    """The rows of one split; the files of others are not fetched (`load_dataset` fetches all).

    Args:
        source: ORG/NAME or ORG/NAME/CONFIG.
        split: None takes "train", or the only one there is.
    Raises:
        DataError: if there is no such dataset, configuration or split.
        MachineError: if the hub cannot be reached and the split was not read before, or `datasets` is missing.
    """
    found = HUB_ID.fullmatch(source)
    assert found is not None
    name, config = found.groups()
    datasets = datasets_library()
    try:
        try:
            files = datasets.load_dataset_builder(name, config).config.data_files
        except (OSError, ValueError):
            kept = _builder(datasets, name, config, split or "train", only_kept=True)
            if kept is None:
                raise
            return kept.as_dataset(split or "train")
        if not files:
            return datasets.load_dataset(name, config, split=split or "train")
        split = split_name([str(known) for known in files], split, source)
        builder = _builder(datasets, name, config, split)
        builder.config.data_files = type(files)({split: files[split]})
        builder.download_and_prepare(verification_mode="no_checks")  # the card's numbers are those of all splits
        return builder.as_dataset(split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"There is no file {source} here and no dataset of that name on the hub that you may read.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise _explained(datasets, source, name, error) from error


def split_name(splits: Sequence[str], split: str | None, name: str) -> str:
    """The split that is meant: the one asked for, else "train", else the only one.

    Raises:
        DataError: if none is, naming those there are.
    """
    if split is None:
        split = "train" if "train" in splits else splits[0] if len(splits) == 1 else None
    if split is None or split not in splits:
        example = f": {name}@{splits[0]}" if splits and name != "The dataset" else " as the split"
        asked = "" if split is None else f' and no split "{split}"'
        raise DataError(f"{name} has the splits {', '.join(splits) or '(none)'}{asked}; name one of them{example}.")
    return split


def datasets_library() -> Any:
    """The package `datasets`.

    Raises:
        MachineError: if it is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise MachineError("Reading saved datasets and hub ids needs datasets: pip install datasets") from error


def _builder(datasets: Any, name: str, config: str | None, split: str, *, only_kept: bool = False) -> Any:
    """The dataset with a cache of its own for this split, where a later run finds it without the hub.

    Args:
        only_kept: True gives None when nothing is kept there.
    """
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "one-split" / split
    if only_kept and not cache.is_dir():
        return None
    return datasets.load_dataset_builder(name, config, cache_dir=str(cache))


def _explained(datasets: Any, source: str, name: str, error: Exception) -> DataError | MachineError:
    reason = " ".join(str(error).split())
    if "Config name is missing" in reason or ("BuilderConfig" in reason and "not found" in reason):
        configs: list[str] = datasets.get_dataset_config_names(name)
        return DataError(f"{name} has the configurations {', '.join(configs)}; name one of them: {name}/{configs[0]}.")
    return MachineError(f"There is no file {source} here, and the hub dataset {source} cannot be loaded: {reason[:200]}")
