"""Runs that are killed and resumed, beside one that was not."""

import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from benchmarks.traps import stock
from benchmarks.traps.evaluation import start_from
from benchmarks.traps.events import Events, Moment, new_folder, notes
from benchmarks.traps.material import named, trained
from benchmarks.traps.ours import create, last_weights
from benchmarks.traps.processes import exit_code, struck
from benchmarks.traps.report import Section, number
from benchmarks.traps.splits import distance
from truesweep.commands.resume import resume
from truesweep.jobs.launch import launch
from truesweep.record.rows import read

SAMPLES, BATCH, EPOCHS, SAVE_EVERY, VALIDATE_EVERY = 80, 8, 3, 4, 5
STEPS_PER_EPOCH = SAMPLES // BATCH
STEPS = STEPS_PER_EPOCH * EPOCHS
CLOCK = ("time", "tokens_per_second", "flops_per_second", "mfu")
POINTS = 20


@dataclass(frozen=True)
class Ended:
    """What a run came to.

    Args:
        codes: Its exit codes, one a start.
        weights: At its end; None if it did not come to one.
        losses: By step, and whatever else was logged.
        samples: Of each step, over all ranks.
    """

    codes: Sequence[int | None]
    weights: Mapping[str, Tensor] | None
    losses: Mapping[Any, float]
    samples: Mapping[int, Sequence[int]]

    def missed_and_repeated(self) -> tuple[int, int]:
        """Samples that an epoch did not see, and those that it saw once more."""
        missed = repeated = 0
        for epoch in range(EPOCHS):
            steps = range(epoch * STEPS_PER_EPOCH + 1, (epoch + 1) * STEPS_PER_EPOCH + 1)
            seen = Counter(i for step in steps for i in self.samples.get(step, ()))
            missed += SAMPLES - len(seen)
            repeated += seen.total() - len(seen)
        return missed, repeated


def moments(count: int, seed: int) -> list[Moment]:
    """Different moments, of every kind in turn."""
    draw = random.Random(seed)

    def step() -> int:
        return draw.randint(SAVE_EVERY + 1, STEPS - 1)

    kinds: list[Callable[[], Moment]] = [
        lambda: Moment("after step", step()),
        lambda: Moment("validation", step() - SAVE_EVERY),
        lambda: Moment("saving", step() - SAVE_EVERY, seconds=draw.uniform(1e-4, 2e-2)),
        lambda: Moment("any time", 0, seconds=draw.uniform(0, 1)),
        lambda: Moment("in step", step(), signal.SIGTERM),
        lambda: Moment("before step", step()),
        lambda: Moment("in step", step()),
        lambda: Moment("validation", step() - SAVE_EVERY, signal.SIGTERM, everyone=False),
        lambda: Moment("any time", 0, signal.SIGTERM, seconds=draw.uniform(0, 1)),
        lambda: Moment("before step", step(), everyone=False),
        lambda: Moment("before step", draw.randint(1, SAVE_EVERY - 1)),
    ]
    return [kinds[i % len(kinds)]() for i in range(count)]


def measure(ranks: int) -> Section:
    """Strike both stacks, with and without workers, and compare with runs that are left alone."""
    rows = []
    for workers in (0, 2):
        for name, start in (("stock", stock_run), ("truesweep", our_run)):
            whole = start(workers, ranks, None)
            ends = [(m, start(workers, ranks, m)) for m in moments(POINTS, seed=ranks)]
            rows.append([str(workers), name, *compare(whole, ends)])
    return Section(
        title="Killed and resumed, " + ("1 rank" if ranks == 1 else f"{ranks} ranks"),
        text=(
            f"{POINTS} runs a row, each struck once: by SIGKILL at the start, in the middle or at "
            "the end of a step, in a validation, while a checkpoint is written, at any time, or "
            "before the first checkpoint, sent to all its processes or to the first one; or by "
            "SIGTERM in a step, in a validation or at any time. Each is then resumed, and compared "
            f"with a run that nobody disturbed. Dropout is on; {EPOCHS} epochs of {SAMPLES} "
            f"samples, a checkpoint every {SAVE_EVERY} steps. Lightning draws a new order of "
            "samples for what is left of an epoch, and keeps no random state. (Code 0 after "
            "SIGKILL: the run was over before its moment came.)"
        ),
        columns=[
            "workers",
            "",
            "the same bit for bit",
            "samples missed",
            "repeated",
            "largest difference of weights",
            "of logged values",
            "exit codes: SIGKILL",
            "SIGTERM",
            "resumed",
        ],
        rows=rows,
    )


def compare(whole: Ended, ends: Sequence[tuple[Moment, Ended]]) -> list[str]:
    """The cells of a row."""
    counted = [end.missed_and_repeated() for _, end in ends]
    weights = [_difference_of_weights(end, whole) for _, end in ends]
    losses = [_difference_of_losses(end, whole) for _, end in ends]
    for (moment, end), w, loss, count in zip(ends, weights, losses, counted, strict=True):
        print(moment, end.codes, f"weights {w:g} values {loss:g} samples {count}", flush=True)
    same = sum(w == loss == 0 for w, loss in zip(weights, losses, strict=True))
    return [
        f"{same} of {len(ends)}",
        *(str(sum(numbers)) for numbers in zip(*counted, strict=True)),
        number(max(weights)),
        number(max(losses)),
        _codes(end.codes[0] for m, end in ends if m.signum == signal.SIGKILL),
        _codes(end.codes[0] for m, end in ends if m.signum == signal.SIGTERM),
        _codes(end.codes[-1] for _, end in ends),
    ]


def _codes(codes: Any) -> str:
    return ", ".join(f"{code} ({n})" for code, n in sorted(Counter(codes).items(), key=str))


def _difference_of_weights(a: Ended, b: Ended) -> float:
    if a.weights is None or b.weights is None:
        return float("inf")
    return distance(a.weights, b.weights)


def _difference_of_losses(a: Ended, b: Ended) -> float:
    if a.losses.keys() != b.losses.keys():
        return float("inf")
    return max(abs(a.losses[key] - b.losses[key]) for key in b.losses)


# -- ours -----------------------------------------------------------------------------------------


def our_run(workers: int, ranks: int, moment: Moment | None) -> Ended:
    """`truesweep train`, struck at a moment, and `truesweep resume`."""
    folder = new_folder()
    run = create(
        *named("lm", train="eighty", val="n17", test="n5"),
        *start_from(trained("lm", 0.1)),
        f"data.batch_size={BATCH}",
        f"data.num_workers={workers}",
        f"trainer.devices={ranks}",
        f"trainer.max_steps={STEPS}",
        f"trainer.val_check_interval={VALIDATE_EVERY}",
        "trainer.log_every_n_steps=1",
        f"callbacks.checkpoint.every_n_steps={SAVE_EVERY}",
        "+callbacks.events._target_=benchmarks.traps.events.Events",
        f"callbacks.events.folder={folder}",
        "optimizer=adamw",
        "data.eval_batch_size=4",
    )
    codes = [struck(launch, run, folder=folder, moment=moment)]
    if moment:
        codes.append(exit_code(resume, run.path))
    rows = {
        (row["step"], key): value
        for row in read(run.metrics)
        for key, value in row.items()
        if key not in CLOCK
    }
    done = run.status.get("state") == "completed"
    weights = last_weights(run) if done else None
    return Ended(codes, weights, rows, _samples(folder))


def _samples(folder: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for (step, _), samples in notes(folder, "samples").items():
        found.setdefault(step, []).extend(samples)
    return found


# -- stock ----------------------------------------------------------------------------------------


def stock_run(workers: int, ranks: int, moment: Moment | None) -> Ended:
    """`ModelCheckpoint`, and `ckpt_path="last"`."""
    folder = new_folder()
    asked = (folder, trained("lm", 0.1), workers, ranks)
    codes = [struck(stock_fit, *asked, False, folder=folder, moment=moment)]
    if moment:
        codes.append(exit_code(stock_fit, *asked, True))
    done = folder / "done.pt"
    weights = torch.load(done) if done.exists() else None
    losses = {step: loss for (step, rank), loss in notes(folder, "loss").items() if rank == 0}
    return Ended(codes, weights, losses, _samples(folder))


def stock_fit(folder: Path, model: Path, workers: int, ranks: int, again: bool) -> None:
    """Train with checkpoints, from the last one if there is one."""
    pl.seed_everything(0, workers=True, verbose=False)
    data = {"persistent_workers": workers > 0, "num_workers": workers}
    train = stock.loader("lm", model, Path("eighty"), BATCH // ranks, shuffle=True, **data)
    val = stock.loader("lm", model, Path("n17"), 4)
    saving = ModelCheckpoint(folder, every_n_train_steps=SAVE_EVERY, save_last=True)
    trainer = stock.trainer(
        ranks,
        max_epochs=EPOCHS,
        val_check_interval=VALIDATE_EVERY,
        callbacks=[saving, Events(folder=str(folder))],
        enable_checkpointing=True,
    )
    module = stock.Stock("lm", model)
    trainer.fit(module, train, val, ckpt_path="last" if again else None)
    torch.save(module.model.state_dict(), folder / "done.pt")
