"""Other engines against accord's own sampler: what a compiled or converted decoding step, a static cache or continuous batching would buy.

    python benchmarks/engines.py                       # about 5 minutes on two cores; OpenVINO and llama.cpp where they are installed
    python benchmarks/engines.py --parts step

step: one decoding step of 64 rows over 128 keys with the starter's shapes, as torch runs it, from prepacked weights (accord's products),
through torch.compile, and converted to OpenVINO. whole: 64 answers of 64 tokens to 8 prompts of 96, sampled by accord and by transformers'
`generate` with its caches and by its continuous batching, and by llama.cpp (`pip install llama-cpp-python`) with the prompt's cache shared.
stacked: two adapters' tokens through the frozen layers one after the other, and as one pass. All in fp32; the median of alternating runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
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
from accord.models.registry import PINNED, fetch_weights
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


def write_f32(source: Path, target: Path) -> None:
    """The GGUF file with every tensor dequantised to fp32."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """llama.cpp with `PROMPTS * GROUP` sequences in one context: each prompt decoded once, its cache shared by its answers."""

    def __init__(self, model: Path) -> None:
        import llama_cpp as api

        self.api, rows = api, PROMPTS * GROUP
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(str(model).encode(), api.llama_model_default_params())
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = PROMPTS * PROMPT + rows * ANSWER, PROMPTS * PROMPT, 512
        options.n_seq_max, options.kv_unified = rows, True
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        options.type_k = options.type_v = api.GGML_TYPE_F32
        self.context = api.llama_init_from_model(self.model, options)
        self.batch = api.llama_batch_init(PROMPTS * PROMPT, 0, 1)

    def decode(self, entries: list[tuple[int, int, int, bool]]) -> Tensor:
        """Logits (reads, VOCABULARY) of the entries (token, position, sequence, read) that are read."""
        api, batch = self.api, self.batch
        batch.n_tokens = len(entries)
        for index, (token, position, sequence, read) in enumerate(entries):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, read
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        assert api.llama_decode(self.context, batch) == 0
        reads = [index for index, entry in enumerate(entries) if entry[3]]
        import numpy as np

        rows = [np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, index), shape=(VOCABULARY,)) for index in reads]
        return torch.from_numpy(np.stack(rows))

    def sample(self, ids: Tensor) -> Tensor:
        """(PROMPTS * GROUP, ANSWER) tokens after `ids` (PROMPTS, PROMPT)."""
        memory, rows = self.api.llama_get_memory(self.context), PROMPTS * GROUP
        self.api.llama_memory_clear(memory, True)
        logits = self.decode(
            [(int(token), at, prompt * GROUP, at == PROMPT - 1) for prompt, row in enumerate(ids) for at, token in enumerate(row)]
        ).repeat_interleave(GROUP, 0)
        for row in range(rows):
            if row % GROUP:
                self.api.llama_memory_seq_cp(memory, row - row % GROUP, row, -1, -1)
        drawn = []
        for step in range(ANSWER):
            drawn.append(torch.multinomial(logits.softmax(-1), 1)[:, 0])
            if step < ANSWER - 1:
                logits = self.decode([(int(token), PROMPT + step, row, True) for row, token in enumerate(drawn[-1])])
        return torch.stack(drawn, 1)

    def agrees(self, model: Any, ids: Tensor) -> None:
        """Raises if the logits after the first prompt are not those of the transformers model."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        found = self.decode([(int(token), at, 0, at == PROMPT - 1) for at, token in enumerate(ids[0])])[0]
        expected = model(input_ids=ids[:1]).logits[0, -1]
        difference = float((found - expected).abs().max() / expected.abs().max())
        assert difference < 1e-2, f"llama.cpp computes something else: {difference}"


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
    folder = tempfile.TemporaryDirectory()
    try:
        written = Path(folder.name) / "f32.gguf"
        write_f32(fetch_weights(PINNED["smollm2-135m"], Path(folder.name)), written)
        engine = LlamaCpp(written)
        engine.agrees(bare, ids)
        runs["llama.cpp"] = lambda: engine.sample(ids)
    except ImportError:
        print("llama-cpp-python is not installed: left out")
    for name in list(runs):
        try:
            runs[name]()
        except Exception as error:  # an engine that does not run here is a finding
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            del runs[name]
    return {name: round(s, 2) for name, s in alternate(runs, 2).items()} | {"gemm GF/s": round(gemm_gflops(), 1)}


class TwoStacks:
    """The starter's linear layers with two adapters, forward and backward on `tokens` tokens each: policy and critic, say."""

    def __init__(self, tokens: int, rank: int = 16) -> None:
        shapes = [(WIDTH, (HEADS + 2 * KV_HEADS) * HEAD), (HEADS * HEAD, WIDTH), (WIDTH, 2 * MIDDLE), (MIDDLE, WIDTH)]
        self.tokens = tokens
        self.layers = [
            (torch.randn(out, into), [(torch.randn(rank, into), torch.randn(out, rank)) for _ in range(2)], torch.randn(2 * tokens, into))
            for into, out in shapes
        ]

    def apart(self) -> list[Tensor]:
        """One adapter's tokens after the other's."""
        found = []
        for weight, adapters, inputs in self.layers:
            for half, (down, up) in zip(inputs.split(self.tokens), adapters, strict=True):
                output = half @ weight.T
                found.append(self._adapt(output, half, down, up, output @ weight))
        return found

    def stacked(self) -> list[Tensor]:
        """The base's products over both, the adapters each on its slice."""
        found = []
        for weight, adapters, inputs in self.layers:
            output = inputs @ weight.T
            back = output @ weight
            for half, out, gradient, (down, up) in zip(*(x.split(self.tokens) for x in (inputs, output, back)), adapters, strict=True):
                found.append(self._adapt(out, half, down, up, gradient))
        return found

    def _adapt(self, output: Tensor, inputs: Tensor, down: Tensor, up: Tensor, back: Tensor) -> Tensor:
        """Adds the adapter's part to the output and to the inputs' gradient (the output stands for its own gradient) and makes A's and B's."""
        narrow, narrow_back = inputs @ down.T, output @ up
        _ = narrow_back.T @ inputs, output.T @ narrow
        output.addmm_(narrow, up.T)
        return back.addmm_(narrow_back, down)


@torch.no_grad()
def stacked_part() -> dict[str, Any]:
    """Two passes with an adapter each over one stacked pass: above 1 the stacked pass is faster."""
    torch.manual_seed(0)
    found: dict[str, Any] = {"gemm GF/s": round(gemm_gflops(), 1)}
    for tokens in (64, 256, 1024):
        stacks = TwoStacks(tokens)
        for one, other in zip(stacks.apart(), stacks.stacked(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-1)
        seconds = alternate({"apart": stacks.apart, "stacked": stacks.stacked}, 25)
        found[f"{tokens} tokens each"] = round(seconds["apart"] / seconds["stacked"], 3)
    return found


PARTS = {"step": step_part, "whole": whole_part, "stacked": stacked_part}


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
