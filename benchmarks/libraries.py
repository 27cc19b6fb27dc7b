"""Four-bit layers and eight-bit Adam of bitsandbytes and torchao on this processor, beside accord's and plain float32.

    pip install bitsandbytes torchao
    python benchmarks/libraries.py            # two minutes on two cores; what is not installed is left out and said
    python benchmarks/libraries.py --write    # puts both tables into docs/small-weights.md, where a test compares them with the results

layers: an MLP matrix of the Llama-3.2-1B shape (8192 x 2048) in NF4 with scales of 64 quantised once more, 1,024 tokens, forward and the
gradient of the input. moments: a step of AdamW on as many numbers, and how far 300 steps on noisy gradients lead from torch's AdamW.
Each in a process of its own; times are medians of alternating calls, the library's and the float32 one's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kept import alone, put
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "libraries.json", ROOT / "docs" / "small-weights.md"
OUTPUTS, INPUTS, TOKENS, TIMES = 8192, 2048, 1024, 7
WAYS = ("accord", "bitsandbytes", "torchao")
CLEAR = Path("/proc/self/clear_refs")
"""Of Linux."""
HEADERS = {
    "layers": (
        "| four-bit layer | rounding, ns a weight | forward and backward, of float32's time | memory beside the codes, MB | off by |",
        "|---|---|---|---|---|",
    ),
    "moments": (
        "| eight-bit AdamW | a step, ns a number | of torch's AdamW's time | the way of 300 steps, away from AdamW's |",
        "|---|---|---|---|",
    ),
}


def paired(ours: Callable[[], Any], plain: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of the one, and the median ratio of neighbours."""
    seconds: list[float] = []
    ratios: list[float] = []
    ours(), plain()
    for _ in range(TIMES):
        started = time.perf_counter()
        ours()
        between = time.perf_counter()
        plain()
        seconds.append(between - started)
        ratios.append(seconds[-1] / (time.perf_counter() - between))
    return statistics.median(seconds), statistics.median(ratios)


# -- layers --------------------------------------------------------------------------------------------------------------------------


def layer_of(way: str, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The product with a weight that is held in NF4."""
    if way == "accord":
        from accord.models.small import SmallLinear

        return SmallLinear(INPUTS, OUTPUTS, "nf4").hold(weight)
    if way == "torchao":
        from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import linear_nf4, to_nf4  # pyright: ignore[reportMissingImports]

        held = to_nf4(weight.float(), 64, 256)
        return lambda inputs: linear_nf4(inputs, held)
    import bitsandbytes as bnb  # pyright: ignore[reportMissingImports]

    layer = bnb.nn.Linear4bit(INPUTS, OUTPUTS, bias=False, compute_dtype=torch.float32, compress_statistics=True, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(weight.float(), requires_grad=False, compress_statistics=True, quant_type="nf4")
    layer.to("cpu")
    layer.support_avx512bf16_for_cpu = False  # it would compute in bfloat16
    return layer


def layers(way: str) -> dict[str, Any]:
    from accord.recipes.stages import peak_rss_gb

    torch.manual_seed(0)
    weight = (0.02 * torch.randn(OUTPUTS, INPUTS)).to(torch.bfloat16)
    layer_of(way, weight[:, :INPUTS].clone())  # imported and warm
    started = time.perf_counter()
    layer = layer_of(way, weight)
    rounding = time.perf_counter() - started
    inputs, away = torch.randn(TOKENS, INPUTS, requires_grad=True), torch.randn(TOKENS, OUTPUTS)

    def through(product: Callable[[Tensor], Tensor]) -> None:
        product(inputs).backward(away)
        inputs.grad = None

    CLEAR.write_text("5", encoding="utf-8")  # the peak is what is there now
    before = peak_rss_gb()
    through(layer)
    beside = 1e3 * (peak_rss_gb() - before)
    plain = weight.float()
    _, ratio = paired(lambda: through(layer), lambda: through(lambda given: F.linear(given, plain)))
    with torch.no_grad():
        off = float((layer(torch.eye(INPUTS)) - plain.T).norm() / plain.norm())
    return {"ns": round(1e9 * rounding / weight.numel(), 1), "ratio": round(ratio, 2), "MB": round(beside), "off": round(off, 4)}


# -- moments -------------------------------------------------------------------------------------------------------------------------


def adam(way: str, parameter: nn.Parameter) -> torch.optim.Optimizer:
    """AdamW at 0.001, without decay."""
    if way == "accord":
        from accord.training.optimizer import AdamW8bit

        return AdamW8bit([parameter], lr=1e-3)
    if way == "torchao":
        from torchao.optim import AdamW8bit as Theirs  # pyright: ignore[reportMissingImports]

        return Theirs([parameter], lr=1e-3, weight_decay=0.0)
    if way == "bitsandbytes":
        import bitsandbytes as bnb  # pyright: ignore[reportMissingImports]

        return bnb.optim.AdamW8bit([parameter], lr=1e-3, weight_decay=0.0)
    return torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.0)


def way_of(way: str, steps: int = 300) -> Tensor:
    """Where so many steps lead from zero; gradients are a mean and noise twice as large, of sizes that vary as the exponential of a normal number."""
    generator = torch.Generator().manual_seed(1)
    size = torch.exp(torch.randn(64, 1024, generator=generator))
    mean = 0.5 * size * torch.randn(size.shape, generator=generator)
    parameter = nn.Parameter(torch.zeros(size.shape))
    chosen = adam(way, parameter)
    for _ in range(steps):
        parameter.grad = mean + size * torch.randn(size.shape, generator=generator)
        chosen.step()
    return parameter.detach()


def moments(way: str) -> dict[str, Any]:
    torch.manual_seed(0)
    ours, plain = (nn.Parameter(torch.randn(OUTPUTS, INPUTS)) for _ in range(2))
    ours.grad, plain.grad = torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS, INPUTS)
    seconds, ratio = paired(adam(way, ours).step, adam("torch", plain).step)
    expected = way_of("torch")
    off = float((way_of(way) - expected).norm() / expected.norm())
    return {"ns": round(1e9 * seconds / ours.numel(), 1), "ratio": round(ratio, 2), "off": round(off, 3)}


# -- the tables ----------------------------------------------------------------------------------------------------------------------


def line(part: str, way: str, found: dict[str, Any]) -> str:
    """One row."""
    name = f"{way} {found['version']}" if found["version"] else way
    beside = f" {found['MB']} |" if part == "layers" else ""
    return f"| {name} | {found['ns']:.0f} | {found['ratio']:.2f} |{beside} {found['off']:.1%} |"


def written(page: str, results: dict[str, Any]) -> str:
    """The page with both tables of these results between their marks."""
    for part, header in HEADERS.items():
        rows = [line(part, way, results[part][way]) for way in WAYS if way in results[part]]
        page = put(page, "\n".join((*header, *rows)), "libraries.py", part)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the kept results into docs/small-weights.md")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        part, way = given.child
        print(json.dumps({"layers": layers, "moments": moments}[part](way)))
        return
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    from importlib.metadata import version

    from peak import machine

    results: dict[str, Any] = {part: {} for part in HEADERS}
    for part, rows in results.items():
        for way in WAYS:
            if importlib.util.find_spec(way) is None:
                print(f"{part} {way}: not installed")
                continue
            found = alone(__file__, [part, way], 900.0)
            if "failed" in found:
                print(f"{part} {way}: {found['failed']}")
                continue
            rows[way] = {**found, "version": "" if way == "accord" else version(way), **machine()}
            print(line(part, way, rows[way]), flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
