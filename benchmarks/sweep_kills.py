"""Kill the driver of a sweep (SIGKILL) at random moments, go on, and look for what is lost.

    python benchmarks/sweep_kills.py [--kills 20] [--jobs 12] [--steps 300] [--seed 0]

A sweep is started by `truesweep train -m`, and killed while it is planned, while its jobs'
directories are made, while they run, or while it is summed up. It goes on by the same command and
by `truesweep resume`, in turn, until it ends by itself. A sweep that is done before all kills is
followed by another.

After each kill: processes of the sweep that are alive 30 s later (orphans). At the end of a sweep:
jobs that do not exist or did not complete (lost), completed jobs that were started again, and steps
of a job's record that stand in it twice (repeated); whether every job's figures are those of the
same sweep, never disturbed (different); and whether the driver that ended by itself gave another
exit code than 0 (failed). `killed` counts the kills by what was being done.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from truesweep.record.rows import read
from truesweep.runs.run import Run
from truesweep.sweeps.directory import ROOT, SweepDirectory

FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.depth=2", "model.width=64", "model.heads=2", "data.max_length=64"),
    *("data.batch_size=16", "trainer.val_check_interval=100", "trainer.log_every_n_steps=1"),
    *("callbacks.checkpoint.every_n_steps=20", "model.dropout=0.1", "hydra.launcher.slots=2"),
]
SECONDS_TO_LEAVE = 30.0
SECONDS_PER_LOOK = 0.05
CLOCKS = ("time", "tokens_per_second", "flops_per_second", "mfu")
TIMED = ("train/seconds", "train/flops_per_second", "train/mfu")
Phase = Literal["planning", "making", "running", "concluding"]
PHASES: tuple[Phase, ...] = ("planning", "making", "running", "concluding")


@dataclass
class Disturbed:
    """A sweep of jobs that differ by their seed, and the ways to drive it.

    Args:
        folder: Where its commands are typed.
        name: Its name.
        jobs: How many jobs it has.
        steps: Optimizer steps of each.
    """

    folder: Path
    name: str
    jobs: int
    steps: int
    drivers: int = field(default=0, init=False)

    @property
    def directory(self) -> SweepDirectory:
        """Where it lies."""
        return SweepDirectory(self.folder / ROOT / self.name)

    @property
    def log(self) -> Path:
        """What its drivers say."""
        return self.folder / f"{self.name}.log"

    @property
    def begun(self) -> bool:
        """Whether anything of it exists."""
        return self.directory.asked.exists()

    @property
    def phase(self) -> Phase:
        """What is being done, as far as its files tell."""
        jobs = self.directory.jobs()
        if not self.begun:
            return "planning"
        if len(jobs) < self.jobs:
            return "making"
        return "concluding" if all(job.state == "completed" for job in jobs) else "running"

    def drive(self) -> subprocess.Popen[bytes]:
        """Start it, or go on: by the command that started it and by `resume`, in turn."""
        arguments = ["train", "-m", *FIXED, f"seed=range(0,{self.jobs})"]
        arguments += [f"trainer.max_steps={self.steps}", f"name={self.name}"]
        if self.drivers % 2 and self.begun:
            arguments = ["resume", str(self.directory.path)]
        self.drivers += 1
        command = [sys.executable, "-m", "truesweep", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)


def time_phases(sweep: Disturbed) -> dict[Phase, float]:
    """Let a sweep end by itself; how long each phase took, seconds."""
    driver, seconds = sweep.drive(), dict.fromkeys(PHASES, 0.0)
    while driver.poll() is None:
        began, phase = time.monotonic(), sweep.phase
        time.sleep(SECONDS_PER_LOOK)
        seconds[phase] += time.monotonic() - began
    assert driver.returncode == 0, sweep.log.read_text()
    return seconds


def aim(sweep: Disturbed, rng: random.Random) -> Phase | None:
    """A phase that the next driver will come to; None: there is nothing left to do."""
    if not sweep.begun:
        return rng.choice(("planning", "making"))
    if sweep.phase == "concluding":
        return None
    return rng.choice(("planning", "running", "running", "concluding"))


def comes(sweep: Disturbed, phase: Phase) -> Callable[[], bool]:
    """What tells that a driver, which is about to be started, has come to a phase."""
    before = pids(sweep)
    return {
        "planning": lambda: True,
        "making": lambda: sweep.begun,
        "running": lambda: pids(sweep) != before,
        "concluding": lambda: sweep.phase == "concluding",
    }[phase]


def pids(sweep: Disturbed) -> list[Any]:
    return [job.status.get("pid") for job in sweep.directory.jobs()]


def end_family(driver: subprocess.Popen[bytes]) -> int:
    """Kill a driver; how many of its processes do not leave by themselves."""
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(family, SECONDS_TO_LEAVE)
    return sum(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in alive)


def finished(sweep: Disturbed) -> dict[str, str]:
    """When the jobs that are done have ended."""
    jobs = sweep.directory.jobs()
    return {job.id: job.status["finished"] for job in jobs if job.state == "completed"}


def figures(job: Run) -> tuple[Any, ...]:
    """The record of a job, and its results, without what clocks say."""
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in read(job.metrics)]
    results = {k: v for k, v in job.read_results().items() if k not in TIMED}
    return rows, results


class Experiment:
    """Kills sweeps and counts what becomes of them.

    Args:
        kills: How often a driver is killed.
        longest: The longest wait before a kill while jobs run, seconds.
        rng: Chooses the moments.
    """

    def __init__(self, kills: int, longest: float, rng: random.Random) -> None:
        self.kills = kills
        self.rng = rng
        self.seconds = dict.fromkeys(PHASES, longest)  # at most, from a phase's begin to a kill
        self.expected: dict[int, tuple[Any, ...]] = {}
        self.killed = Counter[Phase]()
        names = ("sweeps", "lost", "repeated", "orphans", "different", "failed")
        self.counted = dict.fromkeys(names, 0)

    def learn(self, sweep: Disturbed) -> None:
        """What comes of a sweep that nobody disturbs."""
        took = time_phases(sweep)
        self.seconds = {**took, "running": self.seconds["running"]}
        self.expected = {job.varies["seed"]: figures(job) for job in sweep.directory.jobs()}

    def disturb(self, sweep: Disturbed) -> None:
        """Kill a sweep's drivers until one ends by itself, and look at what there is."""
        self.counted["sweeps"] += 1
        code, done = None, dict[str, str]()
        while code is None:
            code = self.drive(sweep)
            now = finished(sweep)
            self.counted["repeated"] += sum(now.get(name) != when for name, when in done.items())
            done = now
            text = f"killed {self.killed.total()} times, {len(done)} jobs of {sweep.name} done"
            print(text, file=sys.stderr)
        self.count(sweep, code)

    def drive(self, sweep: Disturbed) -> int | None:
        """Drive a sweep; its exit code, or None: it was killed."""
        phase = aim(sweep, self.rng) if self.killed.total() < self.kills else None
        if phase is None:
            return sweep.drive().wait()
        has_come = comes(sweep, phase)
        driver = sweep.drive()
        while driver.poll() is None and not has_come():
            time.sleep(SECONDS_PER_LOOK)
        try:
            return driver.wait(self.rng.uniform(0, self.seconds[phase]))
        except subprocess.TimeoutExpired:
            self.killed[sweep.phase] += 1
            self.counted["orphans"] += end_family(driver)
            return None

    def count(self, sweep: Disturbed, code: int) -> None:
        """Compare a sweep that has ended by itself with the undisturbed one."""
        if code != 0:
            self.counted["failed"] += 1
            print(sweep.log.read_text(), file=sys.stderr)
        jobs = {job.varies["seed"]: job for job in sweep.directory.jobs()}
        for seed, undisturbed in self.expected.items():
            if seed not in jobs or jobs[seed].state != "completed":
                self.counted["lost"] += 1
                continue
            steps = [row["step"] for row in read(jobs[seed].metrics)]
            self.counted["repeated"] += steps != sorted(set(steps))
            self.counted["different"] += figures(jobs[seed]) != undisturbed


def main() -> None:
    """Kill, go on, count, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill, at most")
    asked = parser.parse_args()
    experiment = Experiment(asked.kills, asked.longest, random.Random(asked.seed))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        experiment.learn(Disturbed(folder, "undisturbed", asked.jobs, asked.steps))
        while experiment.killed.total() < asked.kills:
            name = f"killed{experiment.counted['sweeps']}"
            experiment.disturb(Disturbed(folder, name, asked.jobs, asked.steps))
    kills, killed = experiment.killed.total(), dict(experiment.killed)
    print(json.dumps({"jobs": asked.jobs, "kills": kills, **experiment.counted, "killed": killed}))


if __name__ == "__main__":
    main()
