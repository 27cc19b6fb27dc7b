"""Where a run comes from: config, data hashes, parents, versions and seed in `run.json`, and a model card that people can read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.config.base import SMALL_WEIGHTS, TrainingConfig
from accord.models.folders import title
from accord.types import content_hash
from accord.writing import write_text

if TYPE_CHECKING:
    from accord.models.adapters import PolicyModel
    from accord.training.setup import Prepared

RECORD = "run.json"
CARD = "README.md"
JUDGES = ("reward", "prm")
"""Methods whose runs score answers and write none."""
LIBRARIES = ("accord", "torch", "transformers", "peft", "tokenizers", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def data_record(ids: list[str], snapshots: Sequence[str] = ()) -> dict[str, Any]:
    """How many rows, one hash over their content hashes, in order, and the hashes of the project snapshots they came from."""
    return {"rows": len(ids), "hash": content_hash(ids), **({"snapshots": list(snapshots)} if snapshots else {})}


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json`, whole or not at all, and have `runs/last` name the folder. A finished run gets its model card first."""
    if record["finished"]:
        write_text(folder / CARD, model_card(record))
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    point_last(folder)


def point_last(folder: Path) -> None:
    """Have `last` beside a run folder under `runs/` name it: a link, or a one-line file where links are not allowed."""
    if folder.parent.name != "runs":
        return
    last = folder.parent / "last"
    try:
        if last.is_symlink() or last.is_file():
            last.unlink()
        last.symlink_to(folder.name, target_is_directory=True)
    except OSError:
        if not last.is_dir():
            last.write_text(folder.name + "\n", encoding="utf-8")


def load_lines(folder: str, *, adapters: bool) -> str:
    """Three lines that load a run's policy and its tokenizer, without accord.

    Args:
        adapters: True for a folder that peft reads, False for a whole model.
    """
    library, name = ("peft", "AutoPeftModelForCausalLM") if adapters else ("transformers", "AutoModelForCausalLM")
    return (
        f"from {library} import {name}\nfrom transformers import AutoTokenizer\n"
        f'model, tokenizer = {name}.from_pretrained("{folder}"), AutoTokenizer.from_pretrained("{folder}")'
    )


def exported_card(record: dict[str, Any] | None, base: str, form: str, checked: str) -> str:
    """The card of an exported model: its run's, with what was written and how it compared.

    Args:
        record: the run's (`run.json`). None: the model came from no run.
        base: the model that it was made from, for that case.
        form: merged, adapter, gguf-q8_0, ...
        checked: what the comparison found.
    """
    about = f"## Export\n\nWritten as {form}, loaded again and compared with the model it was made from: {checked}.\n"
    if record is not None:
        return f"{model_card(record, form=form)}\n{about}"
    name = title(base)
    return f"---\nbase_model: {name}\ntags: [accord]\n---\n\n# {name}\n\nOnly exported by accord, not trained. The model's own licence applies.\n\n{about}"


def model_card(record: dict[str, Any], *, form: str | None = None) -> str:
    """A short, honest model card in markdown with the header that hubs read.

    Args:
        form: what of the run lies beside the card, by `accord export`'s names; only what Python loads has lines that load it. None: the run.
    """
    data = "\n".join(f"- {name}: {part['rows']} rows, content hash `{part['hash'][:16]}`" for name, part in record["data"].items())
    numbers = "\n".join(
        f"| {name} | {value:.4g} |"
        for name, value in sorted(record["metrics"].items())
        if isinstance(value, (int, float)) and value == value
    )
    skipped = f"\nChecks that were skipped: {', '.join(record['skipped_checks'])}.\n" if record["skipped_checks"] else ""
    held = held_line(record["weights"], form) if record.get("weights") in SMALL_WEIGHTS and record["weights"] != "gguf" else ""
    base = title(record["base"]) or "a model made in memory"  # a cache folder's name has the model's name and hash in it
    library = ("peft" if record["adapters"] and form != "merged" else "transformers") if form in (None, "adapter", "merged") else None
    lines = load_lines("this folder", adapters=library == "peft") if library and record["method"] not in JUDGES else ""
    load = f"\n```python\n{lines}\n```\n" if lines else ""
    parents = "".join(f"\nAdapter {parent['adapter']} is the one of {Path(parent['run']).name}.\n" for parent in record["parents"])
    frozen = record["config"].get("backbone") == "heads"
    without = "none, the heads read the base model as it is" if frozen else "none, all weights were trained"
    return f"""---
base_model: {base}
{f"library_name: {library}" + chr(10) if library else ""}tags: [accord, {record["method"]}]
---

# {record["method"].upper()} on {base}

Trained with accord {record["versions"]["accord"]} (`{record["method"]}`, seed {record["seed"]}). The base model's licence applies; the settings are in `{RECORD}`.

Adapters, bottom first: {", ".join(record["adapters"]) or without}.
{parents}{held}{skipped}
## Data

{data or "- none recorded"}

## Last metrics

| metric | value |
|---|---|
{numbers}
{load}
## Limits

Metrics of a training run say how well an objective was met on its own data. They are no evidence of helpfulness, truth or safety elsewhere: look at samples, and measure on prompts of your own.
"""


def held_line(weights: str, form: str | None) -> str:
    """What a card says of a base that was held in fewer bits: where its adapter lies, or what the adapter was added to."""
    if form in (None, "adapter"):
        after = "on the base in full precision the adapter's log-probs differ by that rounding"
    else:
        after = "the adapter was merged onto the numbers that it was trained on, that rounding included"
    return f"\nThe base was held in {weights} in training: {after}.\n"


def held_in(policy: PolicyModel) -> str:
    """How a model's weights are held: bf16, int8, nf4 or gguf, or the type that they are computed with."""
    return policy.held or str(policy.dtype).removeprefix("torch.")


def record_of(
    method: str,
    prepared: Prepared,
    config: TrainingConfig,
    data: dict[str, list[str]],
    snapshots: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What `run.json` says when a run starts.

    Args:
        data: content hashes of the rows, by the name of the dataset.
        snapshots: hashes of the project snapshots that rows came from, by the name of the dataset. None: none did.
    """
    policy = prepared.policy
    return {
        "schema": 1,
        "method": method,
        "base": getattr(policy.model.config, "_name_or_path", ""),
        "weights": held_in(policy),
        "adapters": list(prepared.stack),
        "parents": [{"adapter": name, "run": policy.origins[name]} for name in prepared.reference if name in policy.origins],
        "config": config.to_dict(),
        "data": {name: data_record(ids, (snapshots or {}).get(name, ())) for name, ids in data.items() if ids},
        "seed": config.seed,
        "versions": versions(),
        "skipped_checks": ["step 0: policy and reference, sampler and trainer agree"] if config.skip_step0_checks else [],
        "packed": policy.packed,
        "finished": False,
    }
