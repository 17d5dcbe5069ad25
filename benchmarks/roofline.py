"""What a card's memory leaves of the limit of matrix products, by counting:
`python -m benchmarks.roofline --products 3b=843.9,8b=339.3,1b=2238`.

The products of W1 run at the speed that part `limit` measured. All else is taken at the memory's speed, each
number read and written once: what lies between the products, and in decoding each sequence's own keys and
values. Nothing of it overlaps with the products, which keep the memory busy themselves. An engine that is as
fast as this wastes nothing but what two kernels could share.
"""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.work import SHAPES, W1, Shape

ITEM = 2  # bytes of a number in 16 bits
SAMPLES = 2048


def bytes_between(shape: Shape) -> int:
    """Of a token in a layer: two sums with norms (two numbers read, two written), rotating queries and keys
    and writing the values, attention (queries read, its output written), and SiLU times gate."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms, rotation = 2 * 4 * shape.hidden, 2 * (queries + keys) + 2 * keys
    return ITEM * (norms + rotation + 2 * queries + 3 * shape.inter)


def bound(shape: Shape, products: float, bandwidth: float) -> tuple[float, float]:
    """Samples per second, and the seconds of `SAMPLES` samples that are not products.

    Args:
        products: samples per second of the products alone.
        bandwidth: of the memory, bytes per second.
    """
    steps = W1.new_tokens - 1
    tokens = SAMPLES * (W1.own_tokens + steps)
    read = SAMPLES * (W1.own_tokens + steps // 2) * 2 * shape.kv_heads * shape.head_dim * ITEM * shape.layers
    other = (tokens * shape.layers * bytes_between(shape) + steps * read) / bandwidth
    return SAMPLES / (SAMPLES / products + other), other


def main(
    products: Annotated[str, typer.Option(help="shape=samples/s of the products alone, comma-separated.")],
    bandwidth: Annotated[float, typer.Option(help="Of the memory, TB/s.")] = 3.35,
) -> None:
    """Print the bound of each shape."""
    print("| shape | products alone, samples/s | KB between them, a token and layer | other s | at most |")
    print("|---|---:|---:|---:|---:|")
    for part in products.split(","):
        name, speed = part.split("=")
        most, other = bound(SHAPES[name], float(speed), bandwidth * 1e12)
        print(f"| {name} | {speed} | {bytes_between(SHAPES[name]) / 1e3:.0f} | {other:.2f} | {most:.0f} |")


if __name__ == "__main__":
    typer.run(main)
