"""Proof, on a run's own configuration, that its numbers depend on nothing but that configuration.

A few steps are trained again and again, each time carried out in another way, and compared with the
first time: losses of all steps, and weights after the last.
"""

import copy
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from truesweep import dotted
from truesweep.errors import UserError
from truesweep.jobs.launch import launch
from truesweep.jobs.logs import log_into
from truesweep.jobs.parts import make
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.frozen import freeze
from truesweep.record.rows import read
from truesweep.runs.run import Run

Verdict = Literal["identical", "equal to rounding", "differs", "not tried"]
INITIAL = "initial.ckpt"
LEFT = 143
"""The exit code of a training that was left after its last step here."""


@dataclass(frozen=True)
class Check:
    """One way of carrying the training out, compared with the first.

    Args:
        name: What was done differently.
        verdict: `identical`: bit for bit; `equal to rounding`: within the tolerance.
        loss_difference: The largest over the steps, relative to the largest loss; None where it
            was not tried.
        weight_difference: The norm of the difference over that of the whole update: how far
            the first training is from where it began.
        note: Why it was not tried.
    """

    name: str
    verdict: Verdict
    loss_difference: float | None = None
    weight_difference: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences, see `Check`, that rounding explains."""

    losses: float
    weights: float

    def verdict(self, losses: float, weights: float) -> Verdict:
        """What differences mean."""
        if losses == weights == 0:
            return "identical"
        rounding = losses <= self.losses and weights <= self.weights
        return "equal to rounding" if rounding else "differs"


def tolerance(precision: str) -> Tolerance:
    """What rounding explains at one of Lightning's precisions.

    In six steps, weights of sound trainings (all tasks, all optimizers) were seen to differ by up
    to 1e-14 in fp64, 2e-5 in fp32 and 0.09 in bf16; those of micro-batches that are averaged
    equally by 7e-4 to 0.03, which 16 bits may hide.
    """
    if precision == "64-true":
        return Tolerance(1e-9, 1e-9)
    return Tolerance(1e-5, 1e-4) if precision == "32-true" else Tolerance(1e-2, 0.2)


def verify(run: Run, steps: int) -> Iterator[Check]:
    """Compare ways of carrying out the first steps of a run; the run itself is left as it is.

    Args:
        run: A run's directory.
        steps: Optimizer steps that each way trains.

    Raises:
        UserError: The configuration cannot be trained at all.
    """
    config = run.read_config()
    folder = run.path / "verification"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        keep = {"_target_": "truesweep.callbacks.SaveFirst", "path": str(folder / INITIAL)}
        first = _trained(folder / "first", _changed(config, {"callbacks.initial": keep}), [steps])
        limit = tolerance(config["trainer"]["precision"])
        for name, changes, stops, note in _ways(config, steps):
            if note:
                yield Check(name, "not tried", note=note)
                continue
            other = _trained(folder / "other", _changed(config, changes), stops)
            yield _compare(name, first, other, limit)
            shutil.rmtree(other.path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Weights = dict[str, torch.Tensor]

Way = tuple[str, dict[str, Any], list[int], str]
"""A name, changed keys, the steps after which it is left (and resumed), why it cannot be done."""


def _ways(config: dict[str, Any], steps: int) -> Iterator[Way]:
    trainer: TrainerSettings = make(config, "trainer")
    yield "trained again", {}, [steps], ""
    half = steps // 2
    yield f"stopped after {half} steps and resumed", {}, [half, steps], ""
    share = -(-config["data"]["batch_size"] // trainer.world_size)
    size = max(1, share // 3)
    yield (
        f"in micro-batches of {size}",
        {"data.micro_batch_size": size},
        [steps],
        "" if share > 1 else "a batch of one sample cannot be split",
    )
    workers = 0 if config["data"]["num_workers"] else 2
    yield f"with {workers} workers", {"data.num_workers": workers}, [steps], ""
    ranks = 2 if trainer.world_size == 1 else 1
    few = ranks == 2 and not trainer.is_cpu() and torch.accelerator.device_count() < ranks
    yield (
        f"on {ranks} device{'s' * (ranks > 1)}",
        {"trainer.devices": ranks, "trainer.num_nodes": 1, "trainer.strategy": "auto"},
        [steps],
        "this machine has one" if few else "",
    )


def _changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    for key, value in changes.items():
        dotted.put(changed, key, value)
    return changed


def _trained(path: Path, config: dict[str, Any], stops: list[int]) -> Run:
    """Train in a directory of its own, leaving after each of some steps and going on."""
    config = _changed(
        config | {"logger": None},
        {"trainer.log_every_n_steps": 1, "trainer.val_check_interval": stops[-1] + 1},
    )
    config["callbacks"] = {**config["callbacks"], "progress": None}
    run = Run.create(path, config=freeze(config), overrides=[], provenance={})
    for number, step in enumerate(stops):
        config["callbacks"]["leave"] = {"_target_": "truesweep.callbacks.LeaveAfter", "step": step}
        run.write_config(config, {"overrides": []})
        code = _launched(run, resume=number > 0)
        if code != LEFT:
            error = run.status.get("error") or "it ended before"
            raise UserError(f"step {step} was not reached ({error}); try fewer --steps")
    return run


def _launched(run: Run, resume: bool) -> int:
    """The exit code of the job, run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_job, args=(run, resume))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _job(run: Run, resume: bool) -> None:
    log_into(run.log(0))
    os._exit(launch(run, resume))


def _compare(name: str, first: Run, other: Run, limit: Tolerance) -> Check:
    losses, weights = _loss_difference(first, other), _weight_difference(first, other)
    return Check(name, limit.verdict(losses, weights), losses, weights)


def _loss_difference(first: Run, other: Run) -> float:
    """The largest difference over the largest loss: a step without targets has none."""
    mine, theirs = (
        {row["step"]: row["train/loss"] for row in read(run.metrics)} for run in (first, other)
    )
    if mine.keys() != theirs.keys():
        return math.inf
    apart = max(_apart(loss, theirs[step]) for step, loss in mine.items())
    largest = max((abs(loss) for loss in mine.values() if math.isfinite(loss)), default=0.0)
    return _relative(apart, largest)


def _apart(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    difference = abs(a - b)
    return difference if math.isfinite(difference) else math.inf


def _weight_difference(first: Run, other: Run) -> float:
    """Over the update, since weights that hardly move, as in warm-up, hardly differ either.

    Norms, since AdamW divides a gradient near zero by itself: single elements are all noise.
    """
    mine, theirs, initial = (
        CheckpointFiles().load_checkpoint(path)["state_dict"]
        for path in (
            first.checkpoints / "last.ckpt",
            other.checkpoints / "last.ckpt",
            first.path.parent / INITIAL,
        )
    )
    if mine.keys() != theirs.keys():
        return math.inf
    return _relative(_distance(mine, theirs), _distance(mine, initial))


def _relative(difference: float, size: float) -> float:
    if not difference:
        return 0.0
    return difference / size if size else math.inf


def _distance(a: Weights, b: Weights) -> float:
    return math.hypot(*(float((a[key].double() - b[key].double()).norm()) for key in a))
