"""Tokens per second of `truesweep train` over a bare PyTorch loop; same model, data and optimizer.

    python benchmarks/throughput.py [KEY=VALUE]... [--steps 200] [--rounds 3]

A machine's speed drifts by more than what is measured, so both take turns step by step: after
each of our steps, the bare loop does one, on a model of its own. Ours is what a user gets, with
every row of metrics, progress and W&B's record, and all that lies between two steps counts. The
bare loop does what a step needs and nothing else: forward, backward, clipping, learning rate,
update.

A round's ratio is the median over our steps of what the bare one right after took over what ours
did; that of all steps together, rows of metrics included, stands beside it. The last step, to which
the validation at the end belongs, counts in neither.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from truesweep.commands.train import create_run
from truesweep.jobs.loggers import describe, finish, make_loggers
from truesweep.jobs.logs import logs
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import Plan, plan
from truesweep.jobs.rank import Rank, use_processor

WARM_UP = 20


class Turns(pl.Callback):
    """Lets the bare loop take a step after each of ours, and notes the seconds of both."""

    def __init__(self, bare_step: Callable[[], None]) -> None:
        self.bare_step = bare_step
        self.ours: list[float] = []
        self.bare: list[float] = []
        self._since = 0.0

    def on_train_start(self, *_: Any) -> None:
        """The first of our steps begins."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Our step ends, the other's begins and ends, our next begins."""
        now = time.perf_counter()
        self.ours.append(now - self._since)
        self.bare_step()
        self._since = time.perf_counter()
        self.bare.append(self._since - now)


def bare_loop(parts: Parts) -> Callable[[], None]:
    """A step of a loop with nothing around it."""
    model, recipe = parts.task.model.train(), parts.recipe
    optimizer = recipe.make_optimizer(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    bf16 = parts.trainer.precision == "bf16-mixed"
    batches = enumerate(_batches(parts, recipe.total_steps))

    def step() -> None:
        number, (inputs, labels) = next(batches)
        factor = recipe.schedule.factor(number, recipe.total_steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=inputs, use_cache=False).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip_val or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _batches(parts: Parts, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random windows, made beforehand."""
    dataset: Any = parts.prepared.train
    generator = torch.Generator().manual_seed(0)
    size = (steps, parts.source.batch_size)
    chosen = torch.randint(len(dataset) - 1, size, generator=generator).tolist()
    collated = [dataset.collate(row) for row in chosen]
    return [(batch["input_ids"], batch["labels"]) for batch in collated]


def measure(job: Plan, folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds of each of our steps after the warm-up but the last, and of each bare one."""
    run = create_run(job, folder / job.id)
    with logs(run, rank=0):
        parts = build(run.read_config())
        use_processor(parts)
        turns = Turns(bare_loop(build(run.read_config())))
        config = run.read_config()
        training = Rank(run, config, parts, make_loggers(config, describe(run, config)))
        training.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        training.fit(resume=False)
        finish(training.loggers, {}, exit_code=0)
    counted = slice(WARM_UP, -1)
    return [1e3 * s for s in turns.ours[counted]], [1e3 * s for s in turns.bare[counted]]


def main() -> None:
    """Measure rounds and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_intermixed_args()
    fixed = [f"trainer.max_steps={asked.steps}", f"trainer.val_check_interval={10 * asked.steps}"]
    ratios = []
    for number in range(asked.rounds):
        job = plan([*asked.overrides, *fixed, f"seed={number}"])
        with tempfile.TemporaryDirectory() as folder:
            ours, bare = measure(job, Path(folder))
        ratios.append(statistics.median(b / o for b, o in zip(bare, ours, strict=True)))
        print(
            f"ours {statistics.median(ours):.2f} ms/step, bare {statistics.median(bare):.2f} "
            f"ms/step, ratio {ratios[-1]:.3f}; of all steps {sum(bare) / sum(ours):.3f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.3f} of {len(ratios)} rounds")


if __name__ == "__main__":
    main()
