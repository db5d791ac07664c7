"""Memory and time of preparing plain text for a language model, and of finding it prepared.

    python benchmarks/data.py [--megabytes 10 100] [--tokenizers byte bpe]
    python benchmarks/data.py --megabytes 200 --tokenizers byte --processes 8 --kills 10 --sweep

The text is the source of the running Python's library, its words varied so that nothing repeats
exactly. Each size is prepared twice, each time in a process of its own that has imported all it
needs: memory is what it holds at its peak beyond that. `of tokenizers` is the speed of encoding
over that of `tokenizers` itself, whose `encode_batch` gets the same text in the same pieces.

`--processes` has so many ask for one new text at once, as the ranks and jobs of a sweep do, and
counts how many of them tokenize it; `--sweep` sweeps over one, with four jobs of two ranks at once;
`--kills` kills a preparation so many times, at moments that are spread over its stages, and counts
what each next one has to do again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from truesweep.data import Files, leakage, token_cache
from truesweep.data.cache import full_digest
from truesweep.data.encode import Encoder
from truesweep.data.kinds import TEXT
from truesweep.data.leakage import passages
from truesweep.data.prepare import prepare
from truesweep.data.texts import pieces
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


def prepare_counted(path: Path, name: str) -> float:
    """Seconds; and a line in `made` beside the text, if this process is the one that tokenizes."""
    inside: Any = token_cache
    encode = inside._encode

    def counted(*arguments: Any) -> None:
        with path.with_suffix(".made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        encode(*arguments)

    inside._encode = counted
    return measure(path, name)[0]


def share(path: Path, name: str, processes: int) -> str:
    """How long processes wait for a new text, and how many of them tokenize it."""
    command = [sys.executable, *sys.argv[:1], "--one", "counted", str(path), name]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    seconds = sorted(float(process.communicate()[0]) for process in started)
    made = path.with_suffix(".made").read_text().split()
    return (
        f"{processes} processes at once: all had it after {seconds[0]:.0f} to {seconds[-1]:.0f} s; "
        f"{len(set(made))} tokenized it, each split {len(made) / 3:.0f} times"
    )


WATCH = """
import os, sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".tokens.bin") and "+" in str(arguments[1]):
        with open(os.environ["MADE"], "a") as file:
            file.write(f"{os.getpid()} {os.path.basename(arguments[0])}\\n")

sys.addaudithook(note)
"""
"""Run by each Python as it starts: writes down who opens a file of tokens to write it."""

SMALL = [
    *("task=lm", "data=files", "data.max_length=64", "data.batch_size=8", "trainer.max_steps=4"),
    *("model.depth=1", "model.width=32", "model.heads=2", "logger=none"),
    *("trainer.devices=2", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("optimizer.lr=0.001,0.002,0.004,0.008", "hydra.launcher.slots=8", "data.packing=true"),
]


def sweep(path: Path, name: str, folder: Path) -> str:
    """How often a sweep of four jobs on two ranks, all at once, tokenizes a new text."""
    (watching := folder / "watching").mkdir(exist_ok=True)
    (watching / "sitecustomize.py").write_text(WATCH)
    (made := path.with_suffix(".made")).write_text("")
    texts = [f"data.train={path}"]
    with path.open(errors="ignore") as whole:
        for split in ("val", "test"):
            (small := folder / f"{split}.txt").write_text(whole.read(50_000))
            texts.append(f"data.{split}={small}")
    environment = {**os.environ, "PYTHONPATH": str(watching), "MADE": str(made)}
    command = [sys.executable, "-m", "truesweep", "train", "-m", *SMALL, *texts]
    started = time.perf_counter()
    output = subprocess.check_output(
        [*command, f"tokenizer={name}"], env=environment, cwd=folder, text=True
    )
    jobs = sum(" completed " in line for line in output.splitlines())
    opened = [line.split() for line in made.read_text().splitlines()]
    return (
        f"a sweep: {jobs} jobs on 2 ranks each through after {time.perf_counter() - started:.0f} "
        f"s; processes that made tokens: {len({process for process, _ in opened})}, files of "
        f"tokens begun: {', '.join(sorted(file for _, file in opened))}"
    )


def kill(path: Path, name: str, kills: int, cache: Path) -> str:
    """What a preparation loses that is killed again and again, at moments all over it.

    Args:
        path: The text.
        name: The tokenizer's.
        kills: How many.
        cache: Where it is kept; what is there by now is the measure, and is made again.
    """
    command = [sys.executable, *sys.argv[:1], "--one", "measure", str(path), name]
    passed = sum(1 for _ in passages(TEXT.load(Files(train=str(path))).train, "text"))
    wholes = {
        "read": size_of(path),
        "divided": size_of(path),
        "tokenized": sum(map(size_of, cache.glob("tokens/*/train.text.tokens.bin"))),
        "compared": -(-passed // leakage._AT_ONCE),
    }
    shutil.rmtree(cache)
    lost: dict[str, list[float]] = {stage: [] for stage in wholes}
    for at in ((i + 0.5) / kills * len(wholes) for i in range(kills)):
        stage = [*wholes][int(at)]
        wanted = (0.05 + 0.9 * (at % 1)) * wholes[stage]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and progress(cache, stage)[1] < wanted:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept, begun = progress(cache, stage)
        lost[stage].append(begun - kept)
    subprocess.check_call(command, stdout=subprocess.DEVNULL)
    told = []
    for stage, whole in wholes.items():
        unit, word = (1, "parts") if stage == "compared" else (10**6, "MB")
        each = ", ".join(f"{of / unit:.1f}" for of in lost[stage])
        told.append(f"{stage} {each} of {whole / unit:.0f} {word}")
    return "lost by each kill: " + "; ".join(told)


def progress(cache: Path, stage: str) -> tuple[int, int]:
    """How much of a stage a kill would leave, and how much is begun: bytes, or parts compared."""
    if stage == "read":
        for folder in cache.glob("texts/.*.part"):
            kept = read_json(folder / "reading.json")
            return sum(size for size, _ in kept.values()), total(folder.glob("whole/*.txt"))
    if stage == "divided":
        for folder in cache.glob("texts/.*.part"):
            kept = read_json(folder / "division.json").get("kept", {})
            return sum(size for size, _ in kept.values()), total(folder.glob("*.txt"))
    if stage == "tokenized":
        for folder in cache.glob("tokens/.*.part"):
            state = read_json(folder / "train.text.json")
            kept = state.get("tokens", 0) * np.dtype(state.get("type", "uint16")).itemsize
            return kept, total(folder.glob("train.text.tokens.bin"))
    if stage == "compared":
        for file in cache.glob("leakage/.*.part/found/train.jsonl"):
            parts = file.read_bytes().count(b"\n")
            return parts, parts + 1
    return 0, 0


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if it is not there."""
    return json.loads(path.read_text()) if path.exists() else {}


def total(files: Iterable[Path]) -> int:
    """Bytes of files, as far as they are still there."""
    return sum(size_of(file) for file in files if file.exists())


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def digest(cache: Path) -> str:
    """Of all tokens that are kept, and of what leaks."""
    files = sorted([*cache.glob("tokens/*/*.tokens.bin"), *cache.glob("leakage/*/leakage.json")])
    return " ".join(full_digest(file) for file in files)


def held(what: str) -> float:
    """Mebibytes of this process' memory: now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def several(asked: argparse.Namespace, folder: Path) -> None:
    """Several processes at once, a sweep, and kills, for each size and tokenizer."""
    for size in asked.megabytes:
        path = folder / f"{size}.txt"
        write_text(path, size * 10**6)
        for name in asked.tokenizers:
            if asked.sweep:
                os.environ["TRUESWEEP_CACHE"] = str(folder / f"{size}-{name}-swept")
                print(f"{size} MB, {name}:", sweep(path, name, folder), flush=True)
                shutil.rmtree(folder / f"{size}-{name}-swept")
            if not asked.processes and not asked.kills:
                continue
            os.environ["TRUESWEEP_CACHE"] = str(cache := folder / f"{size}-{name}")
            path.with_suffix(".made").unlink(missing_ok=True)
            print(f"{size} MB, {name}:", share(path, name, max(1, asked.processes)), flush=True)
            expected = digest(cache)
            if asked.kills:
                print(kill(path, name, asked.kills, cache), flush=True)
                same = digest(cache) == expected
                print("tokens and leaks are the same" if same else "OTHER TOKENS OR LEAKS")


def main() -> None:
    """Measure each size and tokenizer, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--tokenizers", nargs="+", default=["byte", "bpe"], choices=TOKENIZERS)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        how, path, name = asked.one
        if how == "counted":
            print(prepare_counted(Path(path), name))
            return
        print(*(measure if how == "measure" else speed)(Path(path), name))
        return
    if asked.processes or asked.kills or asked.sweep:
        with tempfile.TemporaryDirectory() as folder:
            several(asked, Path(folder))
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
