"""The kernels behind a student's epoch: matrix products, and attention fused or written out, by precision and length.

    python benchmarks/fused_attention.py

Medians of 15 repetitions after two. Attention: 12 heads of width 32, 4096 tokens in all, forwards and backwards, with a
mask. Products: those of a layer of width 384 on 4096 tokens. Writes
benchmarks/results/fused_attention.json, whose table is in docs/performance.md.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metakd import attention
from metakd.artifacts import environment, write_json

RESULT = Path(__file__).parent / "results" / "fused_attention.json"
TOKENS, HEADS, WIDTH, INNER = 4096, 12, 384, 1536
LENGTHS = (32, 64, 96, 128, 192, 256, 512)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def milliseconds(step: Callable[[], Any], repetitions: int = 15) -> float:
    times = []
    for _ in range(repetitions + 2):
        started = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - started))
    return round(median(times[2:]), 2)


def attend(length: int, dtype: torch.dtype, long: int) -> float:
    """Forwards and backwards, written out for texts under `long` tokens."""
    attention.LONG = long
    shape = TOKENS // length, length, HEADS, WIDTH // HEADS
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.ones(shape[0], 1, length, length, dtype=torch.bool)
    mask[:, :, :, -2:] = False

    def step() -> None:
        query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
        attention.attend(query, key, value, mask, 0.2).float().sum().backward()

    return milliseconds(step)


def product(dtype: torch.dtype) -> float:
    """Billions of operations a second of the largest product of a layer."""
    tokens, weights = torch.randn(TOKENS, WIDTH, dtype=dtype), torch.randn(INNER, WIDTH, dtype=dtype)

    def step() -> Tensor:
        return torch.nn.functional.linear(tokens, weights)

    return round(2e-6 * TOKENS * WIDTH * INNER / milliseconds(step), 1)


def table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md."""
    lines = ["| tokens | fused, bfloat16 | written out, bfloat16 | fused, float32 |", "|---:|---:|---:|---:|"]
    for length, found in results["attention_ms"].items():
        cells = (found["fused, bfloat16"], found["written out, bfloat16"], found["fused, float32"])
        lines.append(f"| {length} | " + " | ".join(f"{value:.1f}" for value in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    torch.manual_seed(0)
    by_length = {
        length: {
            "fused, bfloat16": attend(length, torch.bfloat16, 0),
            "written out, bfloat16": attend(length, torch.bfloat16, max(LENGTHS) + 1),
            "fused, float32": attend(length, torch.float32, 0),
        }
        for length in LENGTHS
    }
    products = {name: product(dtype) for name, dtype in PRECISIONS.items()}
    results = {"attention_ms": by_length, "products_gflops": products, "environment": environment()}
    write_json(RESULT, results)
    print(table(results), products, sep="\n")


if __name__ == "__main__":
    main()
