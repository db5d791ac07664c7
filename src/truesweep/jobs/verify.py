"""Proof, on a run's own configuration, that its numbers depend on nothing but that configuration.

A few steps are trained again and again, each time carried out in another way, and compared with the
first time: losses of all steps, and weights after the last.
"""

import copy
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from truesweep.config import freeze
from truesweep.errors import UserError
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.launch import launch
from truesweep.jobs.parts import make
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import write_atomic
from truesweep.record.rows import read

Verdict = Literal["identical", "equal to rounding", "differs", "not tried"]
LEFT = 143
"""The exit code of a training that was left after its last step here."""


@dataclass(frozen=True)
class Check:
    """One way of carrying the training out, compared with the first.

    Args:
        name: What was done differently.
        verdict: `identical`: bit for bit; `equal to rounding`: within the tolerance.
        loss_difference: The largest over the steps, relative; None where it was not tried.
        weight_difference: The largest over all weights, relative to the largest weight.
        note: Why it was not tried.
    """

    name: str
    verdict: Verdict
    loss_difference: float | None = None
    weight_difference: float | None = None
    note: str = ""


def tolerance(precision: str) -> float:
    """The largest relative difference that rounding explains at one of Lightning's precisions."""
    if precision.startswith("64"):
        return 1e-9
    return 1e-5 if precision == "32-true" else 1e-2


def verify(run: RunDirectory, steps: int) -> Iterator[Check]:
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
        first = _trained(folder / "first", config, [steps])
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
        group, name = key.split(".")
        changed[group][name] = value
    return changed


def _trained(path: Path, config: dict[str, Any], stops: list[int]) -> RunDirectory:
    """Train in a directory of its own, leaving after each of some steps and going on."""
    config = _changed(
        config | {"logger": None},
        {"trainer.log_every_n_steps": 1, "trainer.val_check_interval": stops[-1] + 1},
    )
    config["callbacks"] = {**config["callbacks"], "progress": None}
    run = RunDirectory.create(path, config=freeze(config), overrides=[], provenance={})
    for number, step in enumerate(stops):
        config["callbacks"]["leave"] = {"_target_": "truesweep.callbacks.LeaveAfter", "step": step}
        write_atomic(run.config, freeze(config))
        code = _launched(run, resume=number > 0)
        if code != LEFT:
            error = run.status.get("error") or "it ended before"
            raise UserError(f"step {step} was not reached ({error}); try fewer --steps")
    return run


def _launched(run: RunDirectory, resume: bool) -> int:
    """The exit code of the job, run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_job, args=(run, resume))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _job(run: RunDirectory, resume: bool) -> None:
    run.log(0).parent.mkdir(exist_ok=True)
    with run.log(0).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os._exit(launch(run, resume))


def _compare(name: str, first: RunDirectory, other: RunDirectory, limit: float) -> Check:
    losses, weights = _loss_difference(first, other), _weight_difference(first, other)
    if losses == weights == 0:
        return Check(name, "identical", losses, weights)
    verdict: Verdict = "equal to rounding" if max(losses, weights) <= limit else "differs"
    return Check(name, verdict, losses, weights)


def _loss_difference(first: RunDirectory, other: RunDirectory) -> float:
    mine, theirs = (
        {row["step"]: row["train/loss"] for row in read(run.metrics)} for run in (first, other)
    )
    if mine.keys() != theirs.keys():
        return float("inf")
    return float(max(abs(mine[step] - theirs[step]) / abs(mine[step]) for step in mine))


def _weight_difference(first: RunDirectory, other: RunDirectory) -> float:
    mine, theirs = (
        CheckpointFiles().load_checkpoint(run.checkpoints / "last.ckpt")["state_dict"]
        for run in (first, other)
    )
    if mine.keys() != theirs.keys():
        return float("inf")
    pairs = [(mine[key].double(), theirs[key].double()) for key in mine]
    scale = max(float(a.abs().max()) for a, _ in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / scale
