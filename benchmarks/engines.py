"""Other engines against accord's own sampler: what a compiled or converted decoding step, a static cache or continuous batching would buy.

    python benchmarks/engines.py                       # about 5 minutes on two cores; OpenVINO only where it is installed
    python benchmarks/engines.py --parts step

step: one decoding step of 64 rows over 128 keys with the starter's shapes, as torch runs it, from prepacked weights (accord's products),
through torch.compile, and converted to OpenVINO. whole: 64 answers of 64 tokens to 8 prompts of 96, sampled by accord and by transformers'
`generate` with its caches and by its continuous batching. All in fp32; the median of alternating runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peak import gemm_gflops
from torch import Tensor, nn

from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.models.load import load_model, load_tokenizer, resolve
from accord.models.lora import lora_config
from accord.models.prepacked import prepacked_linear
from accord.models.tokens import stop_token_ids
from accord.recipes.stages import peak_rss_gb
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, MIDDLE, VOCABULARY = 30, 576, 9, 3, 64, 1536, 49152
ROWS, KEYS = 64, 128
PROMPTS, GROUP, PROMPT, ANSWER = 8, 8, 96, 64


class Layer(nn.Module):
    """A Llama layer that decodes one token a row; norms and rotations cost next to nothing and every engine has them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_after = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * KV_HEADS) * HEAD, bias=False)
        self.out = nn.Linear(HEADS * HEAD, WIDTH, bias=False)
        self.gate_up = nn.Linear(WIDTH, 2 * MIDDLE, bias=False)
        self.down = nn.Linear(MIDDLE, WIDTH, bias=False)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(ROWS, WIDTH) with keys and values (ROWS, KV_HEADS, KEYS, HEAD)."""
        query = self.qkv(self.norm(states))[:, : HEADS * HEAD].view(ROWS, KV_HEADS, HEADS // KV_HEADS, HEAD)
        states = states + self.out(F.scaled_dot_product_attention(query, keys, values).reshape(ROWS, HEADS * HEAD))
        gate, up = self.gate_up(self.norm_after(states)).chunk(2, -1)
        return states + self.down(F.silu(gate) * up)


class Step(nn.Module):
    """One decoding step of all layers and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            states = layer(states, keys[index], values[index])
        return self.head(states)


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, one after the other, `repeats` times, after one warm-up of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


@torch.no_grad()
def step_part() -> dict[str, Any]:
    """Milliseconds a step and share of the matrix-product peak; every engine's logits are compared with torch's."""
    torch.manual_seed(0)
    model = Step().eval()
    inputs = (torch.randn(ROWS, WIDTH), *(torch.randn(LAYERS, ROWS, KV_HEADS, KEYS, HEAD) for _ in range(2)))
    runs: dict[str, Callable[[], Any]] = {"torch": lambda: model(*inputs)}
    prepacked = Step().eval()
    prepacked.load_state_dict(model.state_dict())
    for module in prepacked.modules():
        if isinstance(module, nn.Linear):
            module.__dict__["forward"] = prepacked_linear(module.weight, None, ROWS)
    runs["prepacked, as accord"] = lambda: prepacked(*inputs)
    compiled: Any = torch.compile(model)
    runs["torch.compile"] = lambda: compiled(*inputs)
    try:
        import openvino

        converted = openvino.convert_model(model, example_input=inputs)
        engine = openvino.Core().compile_model(
            converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        )
        arrays = [tensor.numpy() for tensor in inputs]
        runs["OpenVINO"] = lambda: torch.from_numpy(engine(arrays)[0])
    except ImportError:
        print("OpenVINO is not installed: left out")
    expected = model(*inputs)
    for name, run in runs.items():
        difference = float((run() - expected).abs().max() / expected.abs().max())
        assert difference < 1e-4, f"{name} computes something else: {difference}"
    peak = gemm_gflops()
    seconds = alternate(runs, 15)
    products = LAYERS * (WIDTH * (HEADS + 2 * KV_HEADS) * HEAD + HEADS * HEAD * WIDTH + 3 * WIDTH * MIDDLE) + WIDTH * VOCABULARY
    work = 2 * ROWS * products + 4 * LAYERS * ROWS * HEADS * KEYS * HEAD
    return {
        "gemm GF/s": round(peak, 1),
        **{name: {"ms": round(1e3 * s, 1), "share of peak": round(work / s / 1e9 / peak, 3)} for name, s in seconds.items()},
    }


@torch.no_grad()
def whole_part() -> dict[str, Any]:
    """Seconds for all answers: accord from an adapter it merges itself, transformers from the bare base, which is less work."""
    from transformers import GenerationConfig

    resolved = resolve("smollm2-135m")
    tokenizer = load_tokenizer(resolved)
    policy = PolicyModel(load_model(resolved, dtype="float32"))
    policy.add_adapter("bench", lora_config(policy), seed=1)
    renderer = Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, policy.model.generation_config))
    ids = torch.randint(1000, 40000, (PROMPTS, PROMPT), generator=torch.Generator().manual_seed(0))
    prompts = [Prompt(str(i), tuple(row.tolist())) for i, row in enumerate(ids)]
    sampler = LocalSampler(policy, renderer, ("bench",))
    sampler.renderer.end_ids = ()  # every answer has its full length
    config = SamplingConfig(max_new_tokens=ANSWER, num_samples=GROUP, seed=1)
    bare = load_model(resolved, dtype="float32").eval()
    rows = ids.repeat_interleave(GROUP, 0)

    def generate(**options: Any) -> Any:
        settings = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=ANSWER, min_new_tokens=ANSWER, pad_token_id=0, eos_token_id=2, **options
        )
        return bare.generate(rows, attention_mask=torch.ones_like(rows), generation_config=settings)

    def continuous() -> Any:
        settings = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=ANSWER, eos_token_id=-1, pad_token_id=0)
        found = bare.generate_batch(rows.tolist(), generation_config=settings)
        assert len(found) == len(rows) and all(len(one.generated_tokens) == ANSWER for one in found.values())

    runs: dict[str, Callable[[], Any]] = {
        "accord": lambda: sampler.sample(prompts, config),
        "transformers, dynamic cache": generate,
        "transformers, static cache": lambda: generate(cache_implementation="static", disable_compile=True),
        "transformers, static cache, compiled": lambda: generate(cache_implementation="static"),
        "transformers, continuous batching": continuous,
    }
    for name in list(runs):
        try:
            runs[name]()
        except Exception as error:  # an engine that does not run here is a finding
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            del runs[name]
    return {name: round(s, 2) for name, s in alternate(runs, 2).items()} | {"gemm GF/s": round(gemm_gflops(), 1)}


PARTS = {"step": step_part, "whole": whole_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "engines.json")
    given = parser.parse_args()
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    for part in given.parts:
        results[part] = PARTS[part]() | {"peak GB": round(peak_rss_gb(), 2)}
        print(part, json.dumps(results[part]), flush=True)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
