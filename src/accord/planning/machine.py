"""How fast this machine is at what training is made of, measured in a second or two; and, from data sheets, how fast some others are.

Everything is measured at the shapes of the model in question: a product of narrow matrices runs at a fraction of the peak, and the
peak says little about it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accord.errors import ConfigError
from accord.models.size import LOGIT_ROWS, ModelSize

if TYPE_CHECKING:
    from torch import Tensor

MEASURED_VOCABULARY = 16384
"""Largest part of an LM head that is measured; the rest is taken to be as fast."""
STREAMED_BYTES = 256e6
"""Weights read one after the other when few rows are measured: more than the caches hold."""
MOST_SETS = 16
COLD_BYTES = 96e6
"""Operands that products and additions take in turn when they are measured, because a run finds its own in memory and not in the caches either."""
ATTENDED = 256
"""Queries and keys of the attention that is measured."""


@dataclass(frozen=True)
class Speeds:
    """What a machine does in a second."""

    name: str
    products: float
    """FLOP/s of the layers' products with a micro-batch."""
    narrow: float
    """FLOP/s of the adapters' products."""
    attention: float
    """FLOP/s of attention."""
    head: float
    """FLOP/s of the LM head, softmax included."""
    memory: float
    """Bytes/s read and written by operations that touch each number once."""
    streamed: float
    """Bytes/s of weights that are multiplied with few rows, as in sampling."""
    call: float
    """Seconds of the smallest operation."""

    @property
    def sentence(self) -> str:
        return f"{self.name}: {self.products / 1e9:.0f} GF/s in this model's products, {self.memory / 1e9:.0f} GB/s through memory"


@dataclass(frozen=True)
class Hardware:
    """A machine that is not here."""

    title: str
    tflops: float
    """Peak of products in the precision that training uses there (bfloat16 on GPUs that have it, else float16 or float32), 10^12/s."""
    gb_per_second: float
    """Peak of its memory."""
    memory_gb: float
    weight_bytes: int
    """2: weights in bfloat16. 4: in float32."""
    source: str


HARDWARE = {
    "laptop": Hardware("a laptop with 16 GB and no GPU", 0.25, 40, 13, 4, "four AVX2 cores; 3 GB left to the system"),
    "laptop-8gb": Hardware("a laptop with 8 GB and no GPU", 0.25, 40, 5.5, 4, "four AVX2 cores; 2.5 GB left to the system"),
    "t4": Hardware("one T4 (16 GB)", 8.1, 320, 15, 4, "NVIDIA T4 data sheet: float32, for it has no bfloat16"),
    "rtx4090": Hardware("one RTX 4090 (24 GB)", 165, 1008, 23, 2, "NVIDIA Ada data sheet: dense bfloat16, float32 sums"),
    "a10g": Hardware("one A10G (24 GB)", 70, 600, 22.5, 2, "AWS g5 and NVIDIA A10 data sheets: dense bfloat16"),
    "a100-40": Hardware("one A100 (40 GB)", 312, 1555, 39, 2, "NVIDIA A100 data sheet"),
    "a100": Hardware("one A100 (80 GB)", 312, 2039, 79, 2, "NVIDIA A100 data sheet"),
    "h100": Hardware("one H100 (80 GB)", 989, 3350, 79, 2, "NVIDIA H100 SXM data sheet: dense bfloat16"),
}
"""Nothing has been run on these: times for them are arithmetic."""
SHARE_OF_PEAK = {2: 0.40, 4: 0.60}
"""What training reaches of a data sheet's peak: 0.3 to 0.45 on GPUs in bfloat16, 0.5 to 0.7 on CPUs in float32, by weight bytes."""


def hardware_named(name: str) -> Hardware:
    """Raises ConfigError, listing them, if there is none of that name."""
    if name not in HARDWARE:
        raise ConfigError(f"--hardware {name!r}: choose this (measured here), {', '.join(HARDWARE)}.")
    return HARDWARE[name]


def data_sheet(hardware: Hardware) -> Speeds:
    """Speeds from a data sheet."""
    reached = SHARE_OF_PEAK[hardware.weight_bytes] * hardware.tflops * 1e12
    bandwidth = 0.7 * hardware.gb_per_second * 1e9
    call = 5e-6 if hardware.gb_per_second > 100 else 2e-6
    return Speeds(hardware.title, reached, 0.3 * reached, 0.5 * reached, 0.8 * reached, bandwidth, bandwidth, call)


def seconds(work: Callable[[], object], repeats: int = 7, at_most: float = 60.0) -> float:
    """Median of `repeats` timings after one warm-up; fewer of them where they would take longer than `at_most` seconds together."""
    work()
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < repeats and (not found or time.perf_counter() - begun < at_most):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def gemm_gflops(size: int = 1536, repeats: int = 7) -> float:
    """fp32 GF/s of a square product: what shares of the peak are shares of."""
    import torch

    left, right, out = (torch.randn(size, size) for _ in range(3))
    return 2 * size**3 / seconds(lambda: torch.mm(left, right, out=out), repeats) / 1e9


def read_gb_per_second(megabytes: int = 400) -> float:
    """Bandwidth of reading an array larger than the caches once."""
    import torch

    array = torch.ones(megabytes * 250_000)
    return array.numel() * 4 / seconds(array.sum) / 1e9


def measure(size: ModelSize, *, tokens: int = 1024, rank: int = 16, rows: int = 0, at_most: float = 0.25) -> Speeds:
    """Measure this machine's CPU at the shapes of a model.

    Args:
        tokens: of a micro-batch.
        rank: of its adapters.
        rows: sampled side by side; 0 measures nothing for sampling.
        at_most: seconds for each of the five to ten measurements, a warm-up apart.
    """
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a run draws the same whether or not it was planned
        return Speeds(
            name=f"this machine, {torch.get_num_threads()} threads",
            products=_products(size, tokens, at_most),
            narrow=_narrow(size, tokens, rank or 16, at_most),
            attention=_attention(size, at_most),
            head=_head(size, at_most),
            memory=_memory(size, tokens, at_most),
            streamed=_streamed(size, rows, at_most) if rows else 0.0,
            call=_call(),
        )


def shapes(size: ModelSize) -> Counter[tuple[int, int]]:
    """How often each (inputs, outputs) occurs among the linear layers."""
    return Counter((inputs, outputs) for _, inputs, outputs in size.linears)


def in_turn(make: Callable[[], tuple[Tensor, ...]], work: Callable[..., object]) -> Callable[[], object]:
    """`work` on operands that are cold each time: as many sets from `make` as `COLD_BYTES` hold, in turn."""
    first = make()
    count = int(COLD_BYTES // sum(tensor.nbytes for tensor in first))
    sets = itertools.cycle([first, *(make() for _ in range(min(count, MOST_SETS) - 1))])
    return lambda: work(*next(sets))


def _products(size: ModelSize, tokens: int, at_most: float) -> float:
    """Forward and by-input products of each shape of linear layer, each as often as it occurs."""
    import torch

    flops = taken = 0.0
    for (inputs, outputs), count in shapes(size).items():
        forward = in_turn(lambda i=inputs, o=outputs: (torch.randn(tokens, i), torch.randn(o, i)), lambda given, weight: given @ weight.T)
        back = in_turn(lambda i=inputs, o=outputs: (torch.randn(tokens, o), torch.randn(o, i)), torch.mm)
        for work in (forward, back):
            flops += count * 2 * tokens * inputs * outputs
            taken += count * seconds(work, at_most=at_most / 4)
    return flops / taken


def _narrow(size: ModelSize, tokens: int, rank: int, at_most: float) -> float:
    """x A^T, then its product with B^T added to an output, for the commonest shape."""
    import torch

    (inputs, outputs), _ = shapes(size).most_common(1)[0]
    down, up = torch.randn(rank, inputs), torch.randn(outputs, rank)
    work = in_turn(
        lambda: (torch.randn(tokens, inputs), torch.zeros(tokens, outputs)),
        lambda given, out: out.addmm_(torch.mm(given, down.T), up.T, alpha=0.5),
    )
    return 2 * tokens * rank * (inputs + outputs) / seconds(work, at_most=at_most)


def _attention(size: ModelSize, at_most: float) -> float:
    import torch
    import torch.nn.functional as F

    width = 64
    heads = max(1, size.query_floats // width)
    query, key, value = (torch.randn(1, heads, ATTENDED, width) for _ in range(3))
    taken = seconds(lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True), at_most=at_most)
    return 4 * ATTENDED**2 * heads * width / taken


def _head(size: ModelSize, at_most: float) -> float:
    """Log-probs of one chunk with their gradient by hidden states, as training does it."""
    import torch

    from accord.objectives.logprobs import chunked_logprobs

    vocabulary = min(size.vocabulary, MEASURED_VOCABULARY)
    weight, targets = torch.randn(vocabulary, size.hidden), torch.zeros(LOGIT_ROWS, dtype=torch.int64)
    states = (
        torch.randn(LOGIT_ROWS, size.hidden) / size.hidden**0.5
    ).requires_grad_()  # wider logits have denormal probabilities: twenty times as slow

    def work() -> None:
        with torch.enable_grad():
            chunked_logprobs(states, weight, targets)

    return 4 * LOGIT_ROWS * size.hidden * vocabulary / seconds(work, at_most=at_most)


def _memory(size: ModelSize, tokens: int, at_most: float) -> float:
    """Two arrays as wide as a layer's widest output into a third, which does not exist before."""
    import torch

    widest = max(outputs for _, _, outputs in size.linears)
    work = in_turn(lambda: (torch.randn(tokens, widest), torch.randn(tokens, widest)), torch.mul)
    return 3 * 4 * tokens * widest / seconds(work, at_most=at_most)


def _streamed(size: ModelSize, rows: int, at_most: float) -> float:
    """Bytes of weights a second in products with so many rows, the weights laid out as the sampler has them."""
    import torch
    from torch import nn

    from accord.models.prepacked import can_prepack, prepacked_linear

    counts = shapes(size)
    per_layer = sum(4 * inputs * outputs * count for (inputs, outputs), count in counts.items()) / size.layers
    copies = max(1, min(size.layers, int(STREAMED_BYTES // per_layer)))
    runs = []
    for (inputs, outputs), count in counts.items():
        given = torch.randn(rows, inputs)
        for _ in range(max(1, round(count / size.layers))):
            layers = [nn.Linear(inputs, outputs, bias=False) for _ in range(copies)]
            fast = can_prepack(layers[0])
            runs += [(prepacked_linear(layer.weight, None, rows) if fast else layer, given, layer.weight.nbytes) for layer in layers]

    def work() -> None:
        for run, given, _ in runs:
            run(given)

    return sum(size for _, _, size in runs) / seconds(work, at_most=at_most)


def _call() -> float:
    import torch

    one = torch.ones(1)

    def work() -> None:
        for _ in range(200):
            one.add(1.0)

    return seconds(work) / 200
