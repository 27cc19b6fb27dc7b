"""DPO with LoRA on a base held in fewer bits: peak memory and speed at real shapes, each run in a process of its own.

python benchmarks/small_weights.py                          # every run: an hour or two on two quiet cores, up to 16 GB of memory and of disk
python benchmarks/small_weights.py --only "llama-3.2-1b nf4" "llama-3.2-1b fp32"
python benchmarks/small_weights.py --shapes tiny            # a trial of half a minute
python benchmarks/small_weights.py --write                  # puts the table into docs/small-weights.md, where a test compares it with the results

A checkpoint of random weights is written in bfloat16 to --disk, tensor by tensor; then `accord dpo` trains on it as on any other, and the
kernel says what its process took at most, reading the checkpoint included. fp32 rows are ordinary LoRA; bitsandbytes rows run its Linear4bit
on the CPU where the package is installed: as it comes, which on processors with AVX512-BF16 multiplies in bfloat16 whatever was asked for
where no gradient is wanted, and with that switched off (bitsandbytes-fp32).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kept import alone, put

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "small_weights.json", ROOT / "docs" / "small-weights.md"
HEADER = (
    "| shape, longest row in tokens | weights | peak memory GB | planned | loading s | tokens/s | training s | planned | other programs | processor |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
STARTER = "smollm2-135m"
DISTURBED = 0.05
BITSANDBYTES = ("bitsandbytes", "bitsandbytes-fp32")
WAYS = ("bf16", "int8", "nf4", "fp32", *BITSANDBYTES)
TILE = 1 << 24


@dataclass(frozen=True)
class Run:
    """One run."""

    shape: str
    weights: str
    tokens: int = 1024
    """Of a prompt with one of its answers; the other answer comes on top."""
    steps: int = 3

    @property
    def name(self) -> str:
        return f"{self.shape} {self.weights}"


RUNS = (
    *(Run("llama-3.2-1b", weights) for weights in WAYS),
    *(Run("qwen2.5-3b", weights, steps=2) for weights in WAYS),
    *(Run("llama-3.2-3b", weights, steps=2) for weights in WAYS),
    Run("mistral-7b", "int8", tokens=256, steps=1),
    Run("mistral-7b", "nf4", tokens=256, steps=1),
    *(Run("tiny", weights, tokens=256) for weights in WAYS),
)


# -- the checkpoint ------------------------------------------------------------------------------------------------------------------


def config_of(shape: str) -> Any:
    from transformers import AutoConfig

    from accord.planning import shapes

    if shape != "tiny":
        return shapes.config_of(shape)
    sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2}
    return AutoConfig.for_model("llama", vocab_size=49152, head_dim=64, tie_word_embeddings=True, **sizes)


def write_checkpoint(shape: str, folder: Path) -> None:
    """Random weights in bfloat16 and the starter's tokenizer; no more than one tensor is in memory. A shape with fewer tokens than the
    starter gets as many."""
    import torch
    from transformers import AutoModelForCausalLM

    from accord.models.load import load_tokenizer, resolve

    config, tokenizer = config_of(shape), load_tokenizer(resolve(STARTER, quiet=True))
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tile = (0.02 * torch.randn(TILE, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    header, place = {}, 0
    for name, shape_of_it in shapes.items():
        size = 2 * int(torch.Size(shape_of_it).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape_of_it), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode("utf-8")
    with (folder / "model.safetensors").open("wb") as target:
        target.write(struct.pack("<Q", len(text)) + text)
        for name, shape_of_it in shapes.items():
            left = int(torch.Size(shape_of_it).numel())
            source = torch.ones(min(left, TILE), dtype=torch.bfloat16) if name.endswith("norm.weight") else tile
            while left:
                part = source[: min(left, TILE)]
                target.write(part.view(torch.uint8).numpy().tobytes())
                left -= len(part)


def write_rows(folder: Path, tokens: int, count: int) -> Path:
    """Pairs of `tokens` a prompt with one answer, half of them the prompt's; about one token a word."""
    generator = random.Random(7)
    words = "the a cat dog house tree river stone light night day man child book road door water fire wind hill".split()

    def text(size: int) -> str:
        return " ".join(generator.choice(words) for _ in range(size))

    path = folder / "pairs.jsonl"
    half = tokens // 2 - 20
    rows = ({"prompt": f"{index} {text(half)}", "chosen": text(half), "rejected": text(half)} for index in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- in the run's own process --------------------------------------------------------------------------------------------------------


def child(run: Run, model: Path, rows: Path, folder: Path) -> dict[str, Any]:
    """Load, train, measure."""
    import psutil

    from accord.config.dpo import DPOConfig
    from accord.config.options import TrainOptions
    from accord.models.free_memory import available_memory
    from accord.models.lora import lora_config
    from accord.models.opened import open_model
    from accord.planning.here import trainer_plan
    from accord.recipes.stages import peak_rss_gb
    from accord.recipes.train import build

    free, started = available_memory(), time.perf_counter()
    config = DPOConfig(
        output_dir=str(folder / "run"),
        weights="auto" if run.weights in BITSANDBYTES else run.weights,
        gradient_checkpointing=True,
        max_length=run.tokens,
        per_device_train_batch_size=1,
        max_steps=run.steps,
        tokens_per_microbatch=256,  # a pair goes through whole where it is longer
        cache_reference=False,
        seed=1,
    )
    options = TrainOptions(model=str(model), data=str(rows), lora_r=16, force=True)
    if run.weights in BITSANDBYTES:
        opened = open_bitsandbytes(model, half=run.weights == "bitsandbytes")
    else:
        opened = open_model(str(model), dtype="float32", weights=run.weights, force=True)
    loading = time.perf_counter() - started
    data = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    trainer = build(options, config, opened, data, None, lora_config(opened.policy, rank=16))
    plan = trainer_plan(trainer, options, free) if run.weights not in BITSANDBYTES else None  # as the command does, before it trains
    started, process = time.perf_counter(), psutil.Process()
    own = sum(process.cpu_times()[:2])
    before = psutil.cpu_times()
    trainer.train()
    seconds = time.perf_counter() - started
    after, own = psutil.cpu_times(), sum(process.cpu_times()[:2]) - own
    busy = sum(getattr(after, name) - getattr(before, name) for name in ("user", "system", "nice"))
    steps = [row["step_seconds"] for row in trainer.log_history if "step_seconds" in row]
    return {
        "peak GB": round(peak_rss_gb(), 3),
        **({"planned GB": round(plan.need.total / 1e9, 3), "planned s": round(plan.seconds.total, 1)} if plan and plan.seconds else {}),
        "loading s": round(loading, 1),
        "tokens/s": round(trainer.num_tokens / sum(steps), 2),
        "tokens": trainer.num_tokens,
        "longest": run.tokens,
        "steps": trainer.global_step,
        "training s": round(seconds, 1),
        "loss": [round(row["loss"], 5) for row in trainer.log_history if "loss" in row],
        "foreign share": round(max(0.0, busy - own) / seconds / (os.cpu_count() or 1), 3),
    }


def open_bitsandbytes(folder: Path, *, half: bool) -> Any:
    """The same model with bitsandbytes' four-bit layers, asked to compute in float32 on the CPU.

    Args:
        half: True leaves them their products in bfloat16 where no gradient is wanted. False switches these off.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from accord.data.render import Renderer
    from accord.models.adapters import PolicyModel
    from accord.models.load import load_tokenizer, resolve
    from accord.models.opened import Opened
    from accord.models.tokens import stop_token_ids

    resolved = resolve(folder, quiet=True)
    four = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four, device_map={"": "cpu"}, dtype=torch.float32)
    if not half:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    tokenizer = load_tokenizer(resolved)
    return Opened(
        PolicyModel(model.eval()), tokenizer, Renderer(tokenizer, end_ids=stop_token_ids(tokenizer)), (), "bitsandbytes", resolved
    )


# -- the table -----------------------------------------------------------------------------------------------------------------------


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    shape, weights = name.split(" ")
    if "failed" in found:
        return f"| {shape} | {weights} | {found['failed']} | | | | | | | |"
    other = f"{found['foreign share']:.0%}" if found["foreign share"] > DISTURBED else ""
    memory, seconds = (f"{found[name]:{form}}" if name in found else "" for name, form in (("planned GB", ".2f"), ("planned s", ".0f")))
    return (
        f"| {shape}, {found['longest']} | {weights} | {found['peak GB']:.2f} | {memory} | {found['loading s']:.0f} | {found['tokens/s']:.1f} "
        f"| {found['training s']:.0f} | {seconds} | {other} | {found['capability']} |"
    )


def written(page: str, results: dict[str, Any]) -> str:
    """The page with the table of these results between its two marks."""
    return put(page, "\n".join((*HEADER, *(line(name, found) for name, found in results.items()))), "small_weights.py")


def measured(run: Run, model: Path, at_most: float) -> dict[str, Any]:
    """The result of a run in a process of its own; what went wrong where something did."""
    if run.weights in BITSANDBYTES:
        import importlib.util

        if importlib.util.find_spec("bitsandbytes") is None:
            return {"failed": "bitsandbytes is not installed"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = write_rows(folder, run.tokens, run.steps)
        return alone(__file__, [json.dumps(asdict(run)), str(model), str(rows), str(folder)], at_most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of runs; none: all but the tiny ones")
    parser.add_argument("--shapes", nargs="*", help="shapes to run")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--at-most", type=float, default=1800.0, help="seconds for each run")
    parser.add_argument("--disk", help="where checkpoints are written, up to 15 GB; none: the temporary folder")
    parser.add_argument("--write", action="store_true", help="put the kept results into docs/small-weights.md")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run, *places = given.child
        print(json.dumps(child(Run(**json.loads(run)), *map(Path, places))))
        return
    if given.list:
        print("\n".join(run.name for run in RUNS))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        return
    from peak import machine

    wanted = [
        run
        for run in RUNS
        if (not given.only or run.name in given.only) and (run.shape in given.shapes if given.shapes else run.shape != "tiny" or given.only)
    ]
    for shape in dict.fromkeys(run.shape for run in wanted):
        model = Path(tempfile.mkdtemp(prefix=f"{shape}-", dir=given.disk))
        try:
            subprocess.run([sys.executable, "-c", WRITE, str(Path(__file__).parent), shape, str(model)], check=True)
            for run in (run for run in wanted if run.shape == shape):
                found = {**measured(run, model, given.at_most), **machine()}
                print(line(run.name, found), flush=True)
                if shape == "tiny":
                    continue
                results[run.name] = found
                ordered = {each.name: results[each.name] for each in RUNS if each.name in results}
                RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        finally:
            shutil.rmtree(model, ignore_errors=True)


WRITE = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from small_weights import write_checkpoint; write_checkpoint(sys.argv[2], Path(sys.argv[3]))"
"""In a process of its own, whose memory is given back."""


if __name__ == "__main__":
    main()
