"""Memory and time of preparing plain text for a language model, and of finding it prepared.

    python benchmarks/data.py [--megabytes 10 100] [--tokenizers byte bpe]

The text is the source of the running Python's library, its words varied so that nothing repeats
exactly. Each size is prepared twice, each time in a process of its own that has imported all it
needs: memory is what it holds at its peak beyond that. `of tokenizers` is the speed of encoding
over that of `tokenizers` itself, whose `encode_batch` gets the same text in the same pieces.
"""

import argparse
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from truesweep.data import Files
from truesweep.data.encode import Encoder, pieces
from truesweep.data.kinds import TEXT
from truesweep.data.prepare import prepare
from truesweep.data.tokenizers import Bpe, Byte, Char, TokenizerConfig

TOKENIZERS: dict[str, type[TokenizerConfig]] = {"byte": Byte, "bpe": Bpe, "char": Char}


def write_text(path: Path, size: int) -> None:
    """Write text of about so many bytes."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    words = "\n\n".join(file.read_text(errors="ignore") for file in sources).split(" ")
    rng, written = random.Random(0), 0
    with path.open("w") as file:
        while written < size:
            start = rng.randrange(len(words) - 2000)
            chunk = words[start : start + 2000]
            for i in range(0, len(chunk), 40):
                if chunk[i].isalpha():
                    chunk[i] = f"{chunk[i].capitalize()}{rng.randrange(1000)}"
            text = " ".join(chunk)
            file.write(text)
            written += len(text.encode())


def measure(path: Path, name: str) -> tuple[float, float]:
    """Seconds, and mebibytes at the peak."""
    tokenizer, before, started = TOKENIZERS[name](), held("VmRSS"), time.perf_counter()
    prepare(Files(train=str(path)), tokenizer, TEXT)
    return time.perf_counter() - started, held("VmHWM") - before


def speed(path: Path, name: str, size: int = 4 << 20) -> tuple[float, float]:
    """Bytes a second of ours and of `tokenizers`, each the better of three times."""
    with path.open() as file:
        text = file.read(size)
    tokenizer = TOKENIZERS[name]().build([text])
    backend, parts = tokenizer.backend_tokenizer, list(pieces(text))
    encoder, best = Encoder(tokenizer), [0.0, 0.0]
    for _ in range(3):
        started = time.perf_counter()
        for _ in encoder.batches([text]):
            pass
        between = time.perf_counter()
        for row in backend.encode_batch(parts, add_special_tokens=False):
            _ = row.ids
        taken = between - started, time.perf_counter() - between
        best = [max(b, len(text) / seconds) for b, seconds in zip(best, taken, strict=True)]
    return best[0], best[1]


def held(what: str) -> float:
    """Mebibytes of this process' memory: now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def main() -> None:
    """Measure each size and tokenizer, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--tokenizers", nargs="+", default=["byte", "bpe"], choices=TOKENIZERS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        how, path, name = asked.one
        print(*(measure if how == "measure" else speed)(Path(path), name))
        return
    print("| text | tokenizer | first, s | MiB | again, s | MiB | MB/s | of tokenizers |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for size in asked.megabytes:
            path = Path(folder, f"{size}.txt")
            write_text(path, size * 10**6)
            for name in asked.tokenizers:
                environment = {**os.environ, "TRUESWEEP_CACHE": f"{folder}/{size}-{name}"}
                found = []
                for how in ("measure", "measure", "speed"):
                    command = [sys.executable, *sys.argv, "--one", how, str(path), name]
                    output = subprocess.check_output(command, env=environment, text=True)
                    found.append([float(number) for number in output.split()])
                (first, most), (again, little), (ours, theirs) = found
                print(
                    f"| {size} MB | {name} | {first:.1f} | {most:.0f} | {again:.1f} | {little:.0f} "
                    f"| {ours / 1e6:.1f} | {ours / theirs:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
