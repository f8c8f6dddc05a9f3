"""The kernels behind a student's epoch: matrix products, and attention fused or written out, by precision and length.

    python benchmarks/fused_attention.py [--output benchmarks/results/fused_attention-avx2.json]

Medians of 15 repetitions after two, with the allocator tuned as in training. Attention: 12 heads of width 32, 4096
tokens in all, with a mask, forwards and backwards, or forwards alone. Products: those of a linear layer of width 384
and 1536 on 4096 tokens, forwards and its weights' gradient, by torch's choice of library and by oneDNN. Layers: a whole
linear layer in float32 by either, forwards, and forwards and backwards; --layers measures them alone. Adds to
--output, by default benchmarks/results/fused_attention.json; the tables are in docs/evidence-details.md.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from metakd.models import attention, linear
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import allocator_tuned, environment

RESULT = Path(__file__).parent / "results" / "fused_attention.json"
TOKENS, HEADS, WIDTH, INNER = 4096, 12, 384, 1536
LENGTHS = (32, 64, 96, 128, 192, 256, 512)
LAYERS = ((32, 128), (32, 384), (128, 128), (128, 384), (416, 128), (416, 384), (1024, 384), (4096, 384))


def milliseconds(step: Callable[[], Any], repetitions: int = 15) -> float:
    times = []
    for _ in range(repetitions + 2):
        started = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - started))
    return round(median(times[2:]), 4)


def attend(length: int, dtype: torch.dtype, long: int, backwards: bool = True) -> float:
    """Written out for texts under `long` tokens in bfloat16."""
    attention.LONG = long
    shape = TOKENS // length, length, HEADS, WIDTH // HEADS
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.ones(shape[0], 1, length, length, dtype=torch.bool)
    mask[:, :, :, -2:] = False

    def step() -> None:
        query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
        with torch.set_grad_enabled(backwards):
            output = attention.attend(query, key, value, mask, 0.2)
        if backwards:
            output.float().sum().backward()

    return milliseconds(step)


def onednn_product(x: Tensor, weight: Tensor) -> Tensor:
    """x · weightᵀ, as `metakd.models.linear` computes it."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def products(dtype: torch.dtype, by: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
    """Billions of operations a second."""
    tokens, weights = torch.randn(TOKENS, WIDTH, dtype=dtype), torch.randn(INNER, WIDTH, dtype=dtype)
    gradient = torch.randn(TOKENS, INNER, dtype=dtype)
    steps = {"forwards": lambda: by(tokens, weights), "weights' gradient": lambda: by(gradient.t(), tokens.t())}
    return {name: round(2e-6 * TOKENS * WIDTH * INNER / milliseconds(step), 1) for name, step in steps.items()}


def layer(tokens: int, width: int) -> dict[str, float]:
    """Milliseconds of a layer of as many outputs as inputs."""
    model, x, times = nn.Linear(width, width), torch.randn(tokens, width, requires_grad=True), dict[str, float]()
    linear.SMALL = 0
    for name, kind in (("torch's", nn.Linear), ("oneDNN's", linear.QuickLinear)):
        model.__class__ = kind
        with torch.no_grad():
            times[f"{name}, forwards"] = milliseconds(lambda: model(x), 99)
        times[f"{name}, and backwards"] = milliseconds(lambda: model(x).sum().backward(), 99)
    return times


def table(results: dict[str, Any]) -> str:
    """The tables of docs/evidence-details.md."""
    parts = {"tokens": ("attention_ms", 1), "tokens, width": ("layers_ms", 2), "products": ("products_gflops", 0)}
    rows = list[str]()
    for head, (name, digits) in parts.items():
        for place, (row, values) in enumerate(results.get(name, {}).items()):
            if not place:
                rows += ["", f"| {head} | " + " | ".join(values) + " |", "|---:|" + "---:|" * len(values)]
            rows.append(f"| {row} | " + " | ".join(f"{value:.{digits}f}" for value in values.values()) + " |")
    return "\n".join(rows[1:])


def kernels() -> dict[str, Any]:
    """Attention and products."""
    always = max(LENGTHS) + 1
    by_length = {
        length: {
            "fused, bfloat16": attend(length, torch.bfloat16, 0),
            "written out, bfloat16": attend(length, torch.bfloat16, always),
            "fused, float32": attend(length, torch.float32, 0),
            "fused, bfloat16, forwards": attend(length, torch.bfloat16, 0, backwards=False),
            "written out, bfloat16, forwards": attend(length, torch.bfloat16, always, backwards=False),
        }
        for length in LENGTHS
    }
    by_library = {
        "float32, torch's": products(torch.float32, torch.nn.functional.linear),
        "float32, oneDNN's": products(torch.float32, onednn_product),
        "bfloat16, torch's": products(torch.bfloat16, torch.nn.functional.linear),
    }
    return {"attention_ms": by_length, "products_gflops": by_library}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    with allocator_tuned():
        results["layers_ms"] = {f"{tokens}, {width}": layer(tokens, width) for tokens, width in LAYERS}
        results["layers_environment"] = environment()
        if not options.layers:
            results |= kernels() | {"environment": environment()}
    write_json(options.output, results)
    print(table(results))


if __name__ == "__main__":
    main()
