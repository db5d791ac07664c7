"""Tokens per second of `truesweep train` over a bare PyTorch loop; same model, data and optimizer.

    python benchmarks/throughput.py [KEY=VALUE]... [--steps 150] [--pairs 5]

Both run in turn, A B A B …, in this process; the ratio is taken pair by pair, since a machine's
speed drifts. The bare loop does what a step needs and nothing else: forward, backward, clipping,
learning rate, update. Ours is what a user gets: every row of metrics, progress, W&B's record.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from truesweep.callbacks import steps_done
from truesweep.commands.train import create_run
from truesweep.jobs.logs import logs
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import Plan, plan
from truesweep.jobs.rank import Job, use_processor

WARM_UP = 20


class Timer(pl.Callback):
    """The time from the end of the warm-up to the last step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Take the time."""
        done = steps_done(trainer)
        if done == WARM_UP:
            self.started = time.perf_counter()
        if done == self.steps:
            self.seconds = time.perf_counter() - self.started


def ours(job: Plan, steps: int, folder: Path) -> float:
    """Seconds a step of `truesweep train`."""
    run = create_run(job, folder)
    with logs(run, rank=0):
        parts = build(run.read_config())
        use_processor(parts)
        training = Job(run, run.read_config(), parts)
        timer = Timer(steps)
        training.trainer.callbacks.append(timer)  # type: ignore[attr-defined]
        training.fit(resume=False)
        training.close(exit_code=0)
    return timer.seconds / (steps - WARM_UP)


def bare(parts: Parts, steps: int) -> float:
    """Seconds a step of a loop with nothing around it."""
    model, recipe = parts.task.model.train(), parts.recipe
    optimizer = recipe.make_optimizer(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    bf16 = parts.trainer.precision == "bf16-mixed"
    batches = _batches(parts, steps)
    started = 0.0
    for step, (inputs, labels) in enumerate(batches):
        if step == WARM_UP:
            started = time.perf_counter()
        factor = recipe.schedule.factor(step, recipe.total_steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=inputs, use_cache=False).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip_val or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) / (steps - WARM_UP)


def _batches(parts: Parts, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random windows, made beforehand."""
    dataset: Any = parts.prepared.train
    generator = torch.Generator().manual_seed(0)
    size = (steps, parts.source.batch_size)
    chosen = torch.randint(len(dataset) - 1, size, generator=generator).tolist()
    collated = [dataset.collate(row) for row in chosen]
    return [(batch["input_ids"], batch["labels"]) for batch in collated]


def main() -> None:
    """Measure pairs and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    fixed = [f"trainer.max_steps={asked.steps}", f"trainer.val_check_interval={10 * asked.steps}"]
    ratios = []
    for pair in range(asked.pairs):
        job = plan([*asked.overrides, *fixed, f"seed={pair}"])
        with tempfile.TemporaryDirectory() as folder:
            our_seconds = ours(job, asked.steps, Path(folder))
        parts = build(job.config)
        bare_seconds = bare(parts, asked.steps)
        tokens = parts.source.batch_size * parts.source.max_length
        ratios.append(bare_seconds / our_seconds)
        print(
            f"pair {pair}: ours {1e3 * our_seconds:.1f} ms/step ({tokens / our_seconds:,.0f} "
            f"tokens/s), bare {1e3 * bare_seconds:.1f} ms/step, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.3f} of {len(ratios)} pairs")


if __name__ == "__main__":
    main()
