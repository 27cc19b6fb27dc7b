"""The demo's own routes on a tiny model, a handful of packaged rows and a few steps: seconds where the demo takes minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
from accord.config.options import DemoOptions
from accord.recipes import demo_rows
from accord.recipes.demo import FULL, QUICK, run_route
from accord.recipes.pipeline import Pipeline, PipelineData, Settings
from accord.recipes.stages import Stages
from accord.types import Example


def model_folder(folder: Path, architecture: str = "llama", *, template: bool = True, **changes: Any) -> str:
    """A tiny model and its tokenizer as people have them: a folder. template: True gives it a chat template, False none (a base model)."""
    tiny.model(architecture, **changes).save_pretrained(folder)
    tiny.tokenizer(template=template).save_pretrained(folder)
    return str(folder)


def small(settings: Settings, **changes: Any) -> Settings:
    """The same settings with a few steps of everything."""
    return replace(
        settings,
        lora_r=2,
        lora_alpha=4,
        sft={**settings.sft, "max_steps": 2, "per_device_train_batch_size": 4},
        reward={**settings.reward, "max_steps": 4, "per_device_train_batch_size": 8},
        ppo={**settings.ppo, "num_iterations": 3, "prompts_per_iteration": 3, "num_generations": 2, "num_mini_batches": 1},
        dpo={**settings.dpo, "max_steps": 2, "per_device_train_batch_size": 4},
        max_new_tokens=8,
        **changes,
    )


def first(rows: list[Example], per_slice: int) -> list[Example]:
    """The first rows of each slice."""
    found: dict[str, list[Example]] = {}
    for row in rows:
        found.setdefault(row.columns["slice"], []).append(row)
    return [row for part in found.values() for row in part[:per_slice]]


def data() -> PipelineData:
    train, rankings = first(demo_rows.pairs("train"), 3), demo_rows.rankings(1)
    return PipelineData(demo_rows.demonstrations(2), [*train, *rankings], first(demo_rows.pairs("heldout"), 3), [*train, *rankings])


def pipeline(
    model: str, folder: Path, *, full: bool = False, said: list[str] | None = None, weights: str = "auto", **changes: Any
) -> Pipeline:
    lines = [] if said is None else said
    settings = small(FULL if full else QUICK, **changes)
    return Pipeline(model, data(), settings, Stages(folder, lines.append), lines.append, weights=weights)


def run(
    model: str,
    folder: Path,
    route: str,
    *,
    full: bool = False,
    probes: int = 3,
    said: list[str] | None = None,
    weights: str = "auto",
) -> tuple[Pipeline, str]:
    """One route from SFT to the report; returns the pipeline and the page."""
    made = pipeline(model, folder, full=full, said=said, weights=weights)
    page = run_route(made, DemoOptions(route=route, full=full, probes=probes, output_dir=str(folder)), folder)
    return made, page.read_text(encoding="utf-8")
