"""What one GPU does: plain loops, Hugging Face's Trainer and `truesweep train`, side by side.

    python benchmarks/gpu.py [--only gpt2 llama lm_char sweep] [--minutes 9] [--tiny]

One command for any card, no network. What it compiles takes most of its time: nothing is begun any
more after `--minutes`, and the ways that tell most come first. Every way trains the same model size
on the same windows of made-up words with AdamW, each in a process of its own:

- `nanogpt`: nanoGPT's model and loop (https://github.com/karpathy/nanoGPT) written out, compiled;
- `bare`: a loop over transformers' model, forward pass and loss compiled; `eager`: not compiled;
- `trainer`: Hugging Face's Trainer, compiled, if the package accelerate is there;
- `ours`: `truesweep train trainer=gpu`, as a user gets it; `graphs`: with `trainer.compile=graphs`.

Tokens per second are those of the steps after the warm-up; seconds to the first step include what
is compiled. A way that fails, or takes more than three minutes, is a row that says why. `sweep` is
the time of 16 jobs of a sweep on the one card. `--tiny` shows on a CPU that all of it runs.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from truesweep import text
from truesweep.commands.train import create_run
from truesweep.jobs.loggers import describe, finish, make_loggers
from truesweep.jobs.logs import logs
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import plan
from truesweep.jobs.rank import Rank, flops_per_target, use_processor
from truesweep.models import peak_flops

WAYS = ("nanogpt", "bare", "eager", "trainer", "ours")
FIRST = ("bare", "ours", "graphs", "nanogpt", "trainer", "eager")
"""The order that they are measured in."""
STEP_TOKENS = 2**15
"""Tokens of a step of the larger sizes; the made-up text has enough of them for all steps: at the
end of a pass through it, a smaller step would be compiled and counted as a whole one."""
JOBS = 16
LIMIT = 180
"""Seconds that a way may take, and the sweep: one that hangs does not take the time of all."""
LAST_WORDS = 25
"""Lines of a failed process that are printed."""
MARK = "measured: "
"""What the line begins with that a process tells its figures in."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained.

    Args:
        overrides: Of `truesweep train`.
        micro_batch: Windows in a forward pass of the other ways.
        steps: Optimizer steps.
        warm_up: Those of them that are not counted.
        ways: The ways that it is trained.
    """

    overrides: tuple[str, ...]
    micro_batch: int
    steps: int = 60
    warm_up: int = 20
    ways: tuple[str, ...] = WAYS


_ADAMW = ("optimizer=adamw", "optimizer.lr=6e-4", "scheduler.warmup=5")
_GPT2 = ("model=gpt2", "model.depth=12", "model.width=768", "model.heads=12")
_LLAMA = ("model=llama", "model.depth=16", "model.width=2048", "model.heads=32")
SIZES = {
    "gpt2": Size(
        overrides=(*_GPT2, *_ADAMW, "data.max_length=1024", "data.batch_size=32"), micro_batch=16
    ),
    "llama": Size(
        overrides=(
            *(*_LLAMA, "model.feed_forward=8192"),
            *(*_ADAMW, "data.max_length=2048", "data.batch_size=16"),
        ),
        micro_batch=4,
        steps=25,
        warm_up=10,
        ways=("bare", "trainer", "ours"),
    ),
    "lm_char": Size(
        overrides=("experiment=lm_char", "model.dropout=0"),
        micro_batch=64,
        steps=400,
        warm_up=100,
        ways=("bare", "eager", "ours", "graphs"),
    ),
}
TINY = Size(
    overrides=(
        *("model=gpt2", "model.depth=1", "model.width=16", "model.heads=2", "data.batch_size=4"),
        *("trainer.accelerator=cpu", "trainer.threads=1", "logger=none", "data.max_length=16"),
        *_ADAMW,
    ),
    micro_batch=2,
    steps=8,
    warm_up=2,
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a way was found to do.

    Args:
        tokens_per_second: After the warm-up.
        steps_per_second: Likewise.
        mfu: Share of the card's peak; None: that is not known.
        gibibytes: At the peak, of the card or, without one, of the process.
        first_step: Seconds from the model to the end of its first step.
        rows: Windows in a forward pass.
    """

    tokens_per_second: float
    steps_per_second: float
    mfu: float | None
    gibibytes: float
    first_step: float
    rows: int


class Clock:
    """Notes when steps have ended, and waits for the card only where it must.

    Args:
        size: How many there are.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self.done = 0
        self.first = self.warm = self.end = 0.0
        self.started = time.perf_counter()

    def step(self) -> None:
        """A step has ended."""
        self.done += 1
        if self.done in (1, self.size.warm_up, self.size.steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.first = self.first or now
            if self.done == self.size.warm_up:
                self.warm = now
            self.end = now


class Ticks(pl.Callback):
    """Tells a clock of our steps: one has ended, with all that belongs to it, as the next begins.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.begun = False

    def on_train_batch_start(self, *_: Any) -> None:
        """Another step begins."""
        if self.begun:
            self.clock.step()
        self.begun = True


class GPT(nn.Module):
    """nanoGPT's model: no biases, tied tables, a vocabulary filled up to a multiple of 64."""

    def __init__(self, vocabulary: int, context: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(-(-vocabulary // 64) * 64, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return _loss(functional.linear(self.norm(x), self.tokens.weight), labels)


class Block(nn.Module):
    """Attention and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        shapes = (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)
        self.qkv, self.out, self.up, self.down = (nn.Linear(*s, bias=False) for s in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """The next features [batch, length, width]."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        z: Tensor = self.down(functional.gelu(self.up(self.norms[1](x))))
        return x + z


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def batches(parts: Parts, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random full windows on the device, made beforehand: inputs and labels [batch, length]."""
    dataset: Any = parts.prepared.train
    generator = torch.Generator().manual_seed(0)
    size = (steps, parts.source.batch_size)
    chosen = torch.randint(len(dataset) - 1, size, generator=generator).tolist()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for batch in [dataset.collate(row) for row in chosen]:
        yield batch["input_ids"].to(device), batch["labels"].to(device)


def loop(way: str, parts: Parts, size: Size, clock: Clock) -> None:
    """A loop with nothing around it."""
    cuda = torch.cuda.is_available()
    model: nn.Module = parts.task.model.train()
    if way == "nanogpt":
        config = parts.task.model.config
        shape = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
        model = GPT(config.vocab_size, parts.source.max_length, *shape)
    model.to("cuda" if cuda else "cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.1, fused=True)

    def plainly(ids: Tensor, labels: Tensor) -> Tensor:
        if isinstance(model, GPT):
            return cast(Tensor, model(ids, labels))
        return _loss(model(input_ids=ids, use_cache=False).logits, labels)

    loss_of: Callable[[Tensor, Tensor], Tensor] = plainly
    if cuda and way != "eager":
        loss_of = torch.compile(plainly)
    for ids, labels in batches(parts, size.steps):
        micro = list(zip(ids.split(size.micro_batch), labels.split(size.micro_batch), strict=True))
        for part in micro:
            with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                loss = loss_of(*part) / len(micro)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step()


def hugging_face(parts: Parts, size: Size, clock: Clock, folder: Path) -> None:
    """Hugging Face's Trainer over the same model."""

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    cuda = torch.cuda.is_available()
    dataset: Any = parts.prepared.train
    windows = [dataset.collate([i])["input_ids"][0] for i in range(len(dataset) - 1)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=size.steps,
        per_device_train_batch_size=size.micro_batch,
        gradient_accumulation_steps=max(1, parts.source.batch_size // size.micro_batch),
        learning_rate=6e-4,
        weight_decay=0.1,
        optim="adamw_torch_fused",
        bf16=cuda,
        torch_compile=cuda,
        use_cpu=not cuda,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    data = cast(Any, [{"input_ids": window, "labels": window} for window in windows])
    Trainer(parts.task.model, arguments, train_dataset=data, callbacks=[Steps()]).train()


def ours(size: Size, clock: Clock, asked: Sequence[str], folder: Path) -> Parts:
    """`truesweep train`; a step more than the others, so that the validation at the end is none."""
    steps = f"trainer.max_steps={size.steps + 1}"
    job = plan([*asked, steps, f"trainer.val_check_interval={10 * size.steps}"])
    run = create_run(job, folder / job.id)
    with logs(run, rank=0):
        config = run.read_config()
        parts = build(config)
        use_processor(parts)
        clock.started = time.perf_counter()
        training = Rank(run, config, parts, make_loggers(config, describe(run, config)))
        training.trainer.callbacks.append(Ticks(clock))  # type: ignore[attr-defined]
        training.fit(resume=False)
        finish(training.loggers, {}, exit_code=0)
    return parts


def measure(way: str, size: Size, asked: Sequence[str], folder: Path) -> Measured:
    """Train in this process, one way.

    Args:
        way: One of `WAYS`.
        size: What is trained.
        asked: All overrides of `truesweep train` but for its length.
        folder: For what is written.
    """
    clock, rows = Clock(size), size.micro_batch
    if way in ("ours", "graphs"):
        asked = [*asked, *(["trainer.compile=graphs"] if way == "graphs" else [])]
        parts = ours(size, clock, asked, folder)
        rows = parts.data.micro_batch_size
    else:
        parts = build(plan([*asked, f"trainer.max_steps={size.steps}"]).config)
        use_processor(parts)
        clock.started = time.perf_counter()
        if way == "trainer":
            hugging_face(parts, size, clock, folder)
        else:
            loop(way, parts, size, clock)
    steps = (size.steps - size.warm_up) / (clock.end - clock.warm)
    tokens = steps * parts.source.batch_size * parts.source.max_length
    cuda = torch.cuda.is_available()
    card = torch.cuda.get_device_name() if cuda else ""
    peak = peak_flops(card, "bf16-mixed")
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    return Measured(
        tokens_per_second=tokens,
        steps_per_second=steps,
        mfu=None if peak is None else tokens * flops_per_target(parts) / peak,
        gibibytes=(torch.cuda.max_memory_allocated() if cuda else held) / 2**30,
        first_step=clock.first - clock.started,
        rows=rows,
    )


def write_words(folder: Path, vocabulary: int, words: int) -> list[str]:
    """So many made-up words in files, all of them in turn; the overrides that name them."""
    syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
    known = ["".join(parts) for parts in islice(product(syllables, repeat=3), vocabulary)]
    rng = np.random.default_rng(0)
    for name, size in (("train", words), ("val", words // 50)):
        order = [*range(vocabulary)] * (size // vocabulary) + [0] * (size % vocabulary)
        lines = np.array_split(rng.permutation(order), max(1, size // 1000))
        content = "\n".join(" ".join(known[i] for i in line) for line in lines)
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    train, val = (folder / f"{name}.txt" for name in ("train", "val"))
    return [
        *("data=files", f"data.train={train}", f"data.val={val}", f"data.test={val}"),
        *("tokenizer=word", f"tokenizer.vocab_size={vocabulary}"),
    ]


def overrides(name: str, size: Size, folder: Path) -> list[str]:
    """What `truesweep train` is asked for, its data included."""
    if name == "lm_char":
        return ["trainer=gpu", *size.overrides]
    if size is TINY:
        return [*size.overrides, *write_words(folder, 97, 2_000)]
    words = (size.steps + 2) * STEP_TOKENS
    return ["trainer=gpu", *size.overrides, *write_words(folder, 50_257, words)]


class Failed(Exception):
    """A process came to grief; what it said last."""


def run(command: Sequence[str], folder: Path) -> str:
    """What a process prints. Its own processes end with it, and what it says is no pipe of theirs.

    Raises:
        Failed: It fails, after its last words were printed, or does not end within `LIMIT`.
    """
    with (folder / "said").open("w+") as said, (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=errors, start_new_session=True
        )
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end within {LIMIT} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = [line for line in errors.read().splitlines() if line.strip()]
            print("\n".join(lines[-LAST_WORDS:]), file=sys.stderr, flush=True)
            raise Failed(lines[-1][:200] if lines else f"exit code {process.returncode}")
        return said.read()


def sweep(tiny: bool, folder: Path) -> float:
    """Seconds of a sweep's jobs on one card, from the command to its end.

    Raises:
        Failed: A job fails, or it does not end.
    """
    asked = ["experiment=lm_char", "trainer=gpu", "trainer.max_steps=200", "logger=none"]
    if tiny:
        asked = [*TINY.overrides, "trainer.max_steps=10", *write_words(folder, 97, 2_000)]
    seeds = ",".join(map(str, range(2 if tiny else JOBS)))
    command = [sys.executable, "-m", "truesweep", "train", "-m", *asked, f"seed={seeds}"]
    started = time.perf_counter()
    run(command, folder)
    return time.perf_counter() - started


def apart(way: str, name: str, tiny: bool, folder: Path) -> Measured | Failed:
    """`measure` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", way, name]
    try:
        said = run([*command, *(["--tiny"] * tiny)], folder)
        found = next(line for line in reversed(said.splitlines()) if line.startswith(MARK))
    except Failed as error:
        return error
    except StopIteration:
        return Failed("it says nothing")
    return Measured(**json.loads(found.removeprefix(MARK)))


def row(name: str, way: str, found: Measured | Failed, bare: Measured | None) -> str:
    """A row of the table; rates over the bare loop's."""
    if isinstance(found, Failed):
        return f"| {name} | {way} | failed: {found} |"
    rate = found.tokens_per_second
    cells = [
        text.count(rate),
        "" if bare is None else f"{rate / bare.tokens_per_second:.3f}",
        f"{found.steps_per_second:.1f}",
        "" if found.mfu is None else text.percent(found.mfu),
        f"{found.gibibytes:.2f}",
        text.duration(found.first_step),
        str(found.rows),
    ]
    return f"| {name} | {way} | {' | '.join(cells)} |"


def main() -> None:
    """Measure all that is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*SIZES, "sweep"], default=[*SIZES, "sweep"])
    parser.add_argument("--tiny", action="store_true", help="on a CPU, in about a minute")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=9, help="nothing is begun after them")
    asked = parser.parse_args()
    ends = time.perf_counter() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if asked.one:
            way, name = asked.one
            size = TINY if asked.tiny else SIZES[name]
            one = measure(way, size, overrides(name, size, folder), folder)
            print(f"{MARK}{json.dumps(asdict(one))}")
            return
        if not (asked.tiny or torch.cuda.is_available()):
            parser.error("there is no GPU here; --tiny shows on a CPU that all of it runs")
        card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(f"{card}, torch {torch.__version__}\n")
        print("| size | way | tokens/s | of bare | steps/s | MFU | GiB | first step | rows |")
        print("|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        for name in [name for name in asked.only if name in SIZES]:
            bare = None
            for way in sorted(SIZES[name].ways, key=FIRST.index):
                if way == "trainer" and find_spec("accelerate") is None:
                    continue
                if way == "graphs" and asked.tiny:  # a CPU has none
                    continue
                if time.perf_counter() > ends:
                    print(f"| {name} | {way} | left out, for want of time |", flush=True)
                    continue
                found = apart(way, name, asked.tiny, folder)
                bare = found if way == "bare" and isinstance(found, Measured) else bare
                print(row(name, way, found, bare), flush=True)
        if "sweep" in asked.only:
            jobs = 2 if asked.tiny else JOBS
            try:
                late = time.perf_counter() > ends
                took = "none" if late else text.duration(sweep(asked.tiny, folder))
            except Failed as error:
                took = f"failed: {error}"
            print(f"\n{jobs} jobs of a sweep: {took}")


if __name__ == "__main__":
    main()
