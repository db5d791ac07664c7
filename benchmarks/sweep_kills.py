"""Kill the driver of a sweep (SIGKILL) at random moments, resume it, and look for what is lost.

    python benchmarks/sweep_kills.py [--kills 20] [--jobs 12] [--steps 300] [--seed 0]

After each kill: processes of the sweep that are alive 30 s later (orphans). At the end of a sweep:
jobs that did not complete (lost), completed jobs that were started again, and steps of a job's
record that stand in it twice or are missing (repeated); and whether every job's figures are those
of the same sweep, never disturbed. A sweep that is done before all kills is followed by another.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from truesweep.config.update import update
from truesweep.jobs.plan import checked
from truesweep.record.rows import read
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.job import Job
from truesweep.sweeps.settings import Sweep

FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.depth=2", "model.width=64", "model.heads=2", "data.max_length=64"),
    *("data.batch_size=16", "trainer.val_check_interval=100", "trainer.log_every_n_steps=1"),
    *("callbacks.checkpoint.every_n_steps=20", "model.dropout=0.1"),
]
SECONDS_TO_LEAVE = 30.0
CLOCKS = ("time", "tokens_per_second")


def prepare(folder: Path, name: str, jobs: int, steps: int) -> SweepDirectory:
    """Jobs that differ by their seed."""
    config, _ = checked([*FIXED, f"trainer.max_steps={steps}", f"name={name}"])
    sweep = SweepDirectory(folder / name)
    sweep.ask([], [], Sweep(), {"slots": 2})
    for seed in range(jobs):
        changed = update(config, [f"seed={seed}"])
        sweep.add(changed, [], {"seed": seed}, label=f"seed={seed}", number=seed, provenance={})
    return sweep


def start(sweep: SweepDirectory) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "truesweep", "resume", str(sweep.path)]
    with (sweep.path / "driver.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def kill_at_random(sweep: SweepDirectory, longest: float, rng: random.Random) -> int | None:
    """Kill a driver some time after its first job has begun; the orphans, or None: it was done."""
    driver = start(sweep)
    before = states(sweep)
    while driver.poll() is None and states(sweep) == before:
        time.sleep(0.05)
    try:
        driver.wait(rng.uniform(0, longest))
        return None
    except subprocess.TimeoutExpired:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        _, alive = psutil.wait_procs(family, SECONDS_TO_LEAVE)
        return sum(p.status() != psutil.STATUS_ZOMBIE for p in living(alive))


def living(processes: list[psutil.Process]) -> Iterator[psutil.Process]:
    return (process for process in processes if process.is_running())


def states(sweep: SweepDirectory) -> list[Any]:
    return [job.run.status.get("pid") for job in sweep.jobs()]


def finished(sweep: SweepDirectory) -> dict[str, str]:
    """When the jobs that are done have ended."""
    return {job.id: job.run.status["finished"] for job in sweep.jobs() if job.state == "completed"}


def figures(job: Job) -> tuple[Any, ...]:
    """The record of a job, and its results, without what clocks say."""
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in read(job.run.metrics)]
    results = {k: v for k, v in job.run.read_results().items() if k != "train/seconds"}
    return rows, results


def main() -> None:
    """Kill, resume, count, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill, at most")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    counted = {"kills": 0, "sweeps": 0, "lost": 0, "repeated": 0, "orphans": 0, "different": 0}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = prepare(folder, "undisturbed", asked.jobs, asked.steps)
        assert start(whole).wait() == 0
        expected = [figures(job) for job in whole.jobs()]
        while counted["kills"] < asked.kills:
            sweep = prepare(folder, f"killed{counted['sweeps']}", asked.jobs, asked.steps)
            counted["sweeps"] += 1
            disturb(sweep, asked.kills, asked.longest, rng, counted)
            jobs = sweep.jobs()
            counted["lost"] += sum(job.state != "completed" for job in jobs)
            for job, undisturbed in zip(jobs, expected, strict=True):
                steps = [row["step"] for row in read(job.run.metrics)]
                counted["repeated"] += steps != sorted(set(steps))
                counted["different"] += figures(job) != undisturbed
    print(json.dumps({"jobs": asked.jobs, **counted}))


def disturb(
    sweep: SweepDirectory, kills: int, longest: float, rng: random.Random, counted: dict[str, int]
) -> None:
    """Kill and resume until the sweep is done or killed often enough; then let it end."""
    done: dict[str, str] = {}
    while True:
        last = counted["kills"] >= kills
        orphans = kill_at_random(sweep, 1e6 if last else longest, rng)
        counted["kills"] += orphans is not None
        counted["orphans"] += orphans or 0
        now = finished(sweep)
        counted["repeated"] += sum(now.get(name) != when for name, when in done.items())
        done = now
        print(f"killed {counted['kills']} times, {len(done)} jobs done", file=sys.stderr)
        if orphans is None:
            return


if __name__ == "__main__":
    main()
