"""What is left of a training's speed beside busy processes on the same cores.

    python benchmarks/busy.py [KEY=VALUE]... [--steps 60] [--busy 1] [--rounds 3]

Each round trains alone and beside the busy processes, on as many threads as there are cores and on
one, and prints tokens per second of all the steps but the first ten. A process that computes
without end takes a core's share from each of the training's threads: of N cores, a training of N
threads beside K such processes is due N / (N + K) of its speed alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SETTINGS = {"as many threads as cores": [], "one thread": ["trainer.threads=1"]}
WARM_UP = 10
TRAIN = [sys.executable, "-m", "truesweep", "train", "logger=none", "name=busy"]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def speed(overrides: list[str]) -> float:
    """Tokens per second of one training."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*TRAIN, *overrides],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (record,) = Path(folder).glob("outputs/busy/*/metrics.jsonl")
        lines = record.read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "tokens_per_second" in row]
    return float(statistics.median(row["tokens_per_second"] for row in rows[1:]))


def main() -> None:
    """Measure rounds and print a line for each setting, then their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    every = [f"trainer.max_steps={asked.steps}", f"trainer.log_every_n_steps={WARM_UP}"]
    due = 0.0
    for name, settings in SETTINGS.items():
        alone, beside = [], []
        for _ in range(asked.rounds):
            alone.append(speed([*asked.overrides, *every, *settings]))
            with busy(asked.busy):
                beside.append(speed([*asked.overrides, *every, *settings]))
        one, other = statistics.median(alone), statistics.median(beside)
        threads = torch.get_num_threads()
        due = due or threads / (threads + asked.busy) * one
        print(
            f"{name}: alone {one:,.0f} tokens/s, beside {asked.busy} busy {other:,.0f}: "
            f"{other / due:.2f} of what all threads are due",
            flush=True,
        )


if __name__ == "__main__":
    main()
