"""Memory and time of the loss of a language model, through its logits and through its last layer.

    python benchmarks/loss_memory.py [--rows 4096] [--width 128] [--bf16]

Each way runs in a process of its own: forward and backward of the last layer and the loss, on a
CPU. Memory is what the process holds at its peak beyond what it held before.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional

from truesweep.metrics.likelihood import linear_nll, token_nll

VOCABULARIES = (4_000, 50_257, 152_000)
WAYS = ("logits", "layer", *(["torch"] if hasattr(functional, "linear_cross_entropy") else []))
"""`torch`: its own operation, since 2.13."""


def measure(way: str, vocabulary: int, rows: int, width: int, bf16: bool) -> tuple[float, float]:
    """Mebibytes at the peak, and seconds of the second of two steps."""
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width).mul_(0.02).requires_grad_()
    labels = torch.randint(vocabulary, (rows,))
    seconds, before = 0.0, held()
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(way, hidden, weight, labels)
        loss.backward()
        hidden.grad = weight.grad = None
        seconds = time.perf_counter() - started
    return held() - before, seconds


def loss_of(
    way: str, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The sum of the negative log-likelihoods."""
    if way == "logits":
        return token_nll(functional.linear(hidden, weight), labels)[0]
    if way == "layer":
        return linear_nll(hidden, weight, None, labels)[0]
    options = torch.nn.LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)


def held() -> float:
    """Mebibytes at this process' peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Measure each way at each vocabulary, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        way, vocabulary = asked.one
        print(*measure(way, int(vocabulary), asked.rows, asked.width, asked.bf16))
        return
    print(f"{asked.rows} rows of {asked.width}, {'bf16' if asked.bf16 else 'fp32'}")
    print("| vocabulary | way | MiB | of logits' | s | of logits' |\n|--:|---|--:|--:|--:|--:|")
    for vocabulary in VOCABULARIES:
        base: list[float] = []
        for way in WAYS:
            command = [sys.executable, *sys.argv, "--one", way, str(vocabulary)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = [float(number) for number in output.split()]
            base = base or found
            memory, seconds = found
            shares = f"{memory / base[0]:.2f} | {seconds:.2f} | {seconds / base[1]:.2f}"
            print(f"| {vocabulary:,} | {way} | {memory:,.0f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
