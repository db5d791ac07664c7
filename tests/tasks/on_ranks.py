"""What several ranks find out together, about evaluations and learning rates.

`python -m tests.tasks.on_ranks MODULE FUNCTION` is one of them, in the current folder.
"""

import json
import os
import random
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer

from tests.commands.conftest import SMALL, WORDS
from tests.conftest import THREADS
from tests.processes import ROOT, Process
from truesweep.callbacks import Checkpoint, StopAfter
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import checked

SPLITS = ((1, 3), (5, 8), (7, 17))
"""Samples to validate on and to test on: fewer than ranks, and what ranks do not divide."""
SIZES = [size for pair in SPLITS for size in pair]
TASKS = {
    "lm": (["task=lm"], ".txt"),
    "mlm": (["task=mlm"], ".txt"),
    "translation": (["task=translation", "data.source=de", "data.target=en"], ""),
    "classification": (["task=classification"], ".tsv"),
    "sft": (["task=sft"], ".jsonl"),
    "dpo": (["task=dpo", "task.loss=simpo", "adapter=none"], ".jsonl"),
}
"""By task, how it is asked for, and how its files end."""
RATES = ["scheduler=linear", "scheduler.warmup=4", "scheduler.final=0.1", "optimizer.lr=0.2"]
RATES += ["trainer.max_steps=12", "trainer.log_every_n_steps=1", "optimizer=sgd"]

Figures = dict[str, dict[int, dict[str, float]]]
"""By task and number of samples."""


def write_samples(folder: Path) -> None:
    """Sentences of different lengths as text, as pairs, with a label, and as conversations."""
    draw = random.Random(0)
    for name, count in [("many", 40), *((f"n{size}", size) for size in SIZES)]:
        sentences = [draw.choices(WORDS, k=draw.randint(4, 9)) for _ in range(count)]
        lines = [" ".join(words) for words in sentences]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{name}.de").write_text("\n".join(lines) + "\n")
        kept = [" ".join([*words[:-1], "end"]) for words in sentences]
        (folder / f"{name}.en").write_text("\n".join(kept) + "\n")
        talks = [
            {"prompt": line, "chosen": better, "rejected": f"end {line}"}
            for line, better in zip(lines, kept, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(t)}\n" for t in talks))
        rows = [f"{line}\t{'ab'[line < 'm']}" for line in lines]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")


def parts_of(task: str, val: str, test: str, *overrides: str) -> Parts:
    """A run on the samples in the current folder, whose weights tell samples apart."""
    asked, end = TASKS[task]
    named = [f"data.train=many{end}", f"data.val={val}{end}", f"data.test={test}{end}"]
    asked = [*asked, "tokenizer=word", "data=files", *named, *SMALL, "model.init=default"]
    config = checked([*asked, "data.packing=false", "data.eval_batch_size=2", *overrides])
    return build(config)


def trainer_of(parts: Parts, steps: int | None = None) -> Trainer:
    """A trainer without display and records, for all steps or for some."""
    checkpoint = Checkpoint(directory=Path("checkpoints"))  # in the place of Lightning's own
    return parts.trainer.make(
        callbacks=[StopAfter(steps or parts.recipe.total_steps), checkpoint],
        loggers=[],
        checkpoint_io=checkpoint.files,
        directory="lightning",
    )


def validate(parts: Parts) -> Trainer:
    """Score the validation split; a training does so at the steps that its callback chooses."""
    trainer = trainer_of(parts)
    trainer.limit_val_batches = 1.0
    with quiet():
        trainer.validate(parts.task, datamodule=parts.data, verbose=False)
    return trainer


def figures(ranks: int) -> Figures:
    """All figures of all tasks."""
    found: Figures = {}
    for task in TASKS:
        found[task] = {}
        for val, test in SPLITS:
            parts = parts_of(task, f"n{val}", f"n{test}", f"trainer.devices={ranks}")
            if task in ("translation", "sft"):
                parts.task.generate_texts = _copies(parts)  # type: ignore[attr-defined]
            trainer = validate(parts)
            with quiet():
                trainer.test(parts.task, datamodule=parts.data, verbose=False)
            for split, size in (("val", val), ("test", test)):
                values = parts.task.evaluations[split]
                found[task][size] = {k.removeprefix(f"{split}/"): v for k, v in values.items()}
    return found


def _copies(parts: Parts) -> Any:
    """What an untrained model cannot do: texts that are neither right nor wrong."""
    decode = parts.task.tokenizer.batch_decode
    return lambda ids, mask: list(decode(ids, skip_special_tokens=True))


def rates(*overrides: str, resume: Path | None = None) -> list[float]:
    """The learning rates of a training, or of its rest, as it records them."""
    parts = parts_of("lm", "n3", "n3", *RATES, *overrides)
    found: list[float] = []

    def record(values: dict[str, float], step: int) -> None:
        found.extend([values["lr"]] if "lr" in values else [])

    parts.task.record = record  # type: ignore[method-assign]
    with quiet():
        trainer_of(parts).fit(parts.task, datamodule=parts.data, ckpt_path=resume)
    return found


def score_and_train(ranks: int) -> dict[str, Any]:
    """Figures and learning rates that one of several ranks finds."""
    return {"figures": figures(ranks), "rates": rates(f"trainer.devices={ranks}")}


def start(
    folder: Path, ranks: int, work: Callable[[int], Any] = score_and_train
) -> list[dict[str, Any]]:
    """Start so many ranks in a folder, each with their number, and give what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    world["PYTHONPATH"] = str(ROOT)
    named = [work.__module__, work.__qualname__]
    processes = [
        Process(["-m", __name__, *named], cwd=folder, env=os.environ | world | numbered(rank))
        for rank in range(ranks)
    ]
    assert [process.wait(300) for process in processes] == [0] * ranks
    return [torch.load(folder / f"{rank}-of-{ranks}.pt") for rank in range(ranks)]


def numbered(rank: int) -> dict[str, str]:
    """What tells a rank its place."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def main(module: str, work: str) -> None:
    """Do some work as one of several ranks."""
    torch.set_num_threads(THREADS)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    file = Path(f"{rank}-of-{ranks}.pt").absolute()
    torch.save(getattr(import_module(module), work)(ranks), file)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
