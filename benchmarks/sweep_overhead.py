"""What a launcher adds to the jobs of a sweep: ours, Hydra's basic one, and hydra-joblib-launcher.

    python benchmarks/sweep_overhead.py [--jobs 24] [--steps 400] [--slots 2] [--install-joblib]

All three run the same jobs, from directories that were made beforehand, each job on one thread. A
job's own time is from its `started` to its `finished` in `status.json`; the overhead per job is
the slots' time, from the start of the launcher's process to its end, less the jobs' own, divided
by the number of jobs. Ours gives every job a process, an environment and cores of its own; the
basic launcher runs one after the other in one process, joblib's in workers that live on.

A slot is idle while no job's own time runs in it although jobs wait: starting and ending a process
counts as idle.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from truesweep.config.precedence import update
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import checked
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.local import LocalPool
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.settings import Sweep

FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.depth=2", "model.width=64", "model.heads=2", "data.max_length=64"),
    *("data.batch_size=16", "trainer.val_check_interval=100"),
]


def prepare(folder: Path, name: str, jobs: int, steps: int) -> SweepDirectory:
    """Jobs that differ by their seed."""
    config = checked([*FIXED, f"trainer.max_steps={steps}", f"name={name}"])
    sweep = SweepDirectory(folder / name)
    sweep.ask([], [], Sweep(), {})
    for seed in range(jobs):
        point = {"seed": seed}
        changed = update(config, [f"seed={seed}"])
        sweep.add(changed, [], point, label=f"seed={seed}", number=seed, provenance={})
    return sweep


def work_ours(sweep: SweepDirectory, slots: int) -> None:
    drive(sweep, Listed(sweep.jobs()), LocalPool(slots), sweep.settings)


def work_hydras(arguments: Sequence[str]) -> None:
    """An ordinary Hydra application whose task is one of the jobs."""
    import hydra
    from omegaconf import DictConfig

    @hydra.main(version_base=None, config_path=None)
    def one(config: DictConfig) -> None:
        job = SweepDirectory(Path(config.sweep)).jobs()[config.job]
        launch(job)

    sys.argv = [sys.argv[0], *arguments]
    one()


def measure(sweep: SweepDirectory, slots: int, *arguments: str) -> dict[str, float]:
    """Run a launcher in a process of its own."""
    jobs = sweep.jobs()
    began = time.perf_counter()
    with (sweep.path / "launcher.log").open("w") as log:
        subprocess.run([sys.executable, __file__, *arguments], stdout=log, stderr=log, check=True)
    wall = time.perf_counter() - began
    times = sorted(map(own_time, (job.status for job in jobs)))
    own = sum(end - start for start, end in times)
    assert all(job.state == "completed" for job in jobs)
    return {
        "wall": round(wall, 1),
        "own time per job": round(own / len(jobs), 2),
        "overhead per job": round((wall * slots - own) / len(jobs), 2),
        "idle": round(idle_share(times, slots), 4),
    }


def own_time(status: dict[str, str]) -> tuple[float, float]:
    """When a job started and when it ended, seconds since 1970."""
    start, end = (datetime.fromisoformat(status[name]) for name in ("started", "finished"))
    return start.timestamp(), end.timestamp()


def idle_share(times: Sequence[tuple[float, float]], slots: int) -> float:
    """Share of the slots' time, from the first start to the last one, in which none worked."""
    first, last = times[0][0], times[-1][0]
    busy = sum(min(end, last) - start for start, end in times)
    return 1 - busy / (slots * (last - first)) if last > first else 0.0


def hydras(sweep: SweepDirectory, jobs: int, *more: str) -> list[str]:
    numbers = ",".join(map(str, range(jobs)))
    where = f"hydra.sweep.dir={sweep.path / 'hydra'}"
    return ["--hydra", "-m", f"+job={numbers}", f"+sweep={sweep.path}", where, *more]


def has_joblib(install: bool, folder: Path) -> bool:
    """Whether hydra-joblib-launcher can be used, maybe from a folder of its own."""
    if install:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(folder), "hydra-joblib-launcher", "joblib"], check=True)
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return True
    return find_spec("hydra_plugins.hydra_joblib_launcher") is not None


def main() -> None:
    """Measure the launchers one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--install-joblib", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours, basic, joblib = (
            prepare(folder, name, asked.jobs, asked.steps) for name in ("ours", "basic", "joblib")
        )
        launchers = {
            "truesweep": (ours, asked.slots, ["--ours", str(ours.path), str(asked.slots)]),
            "hydra basic": (basic, 1, hydras(basic, asked.jobs)),
        }
        if has_joblib(asked.install_joblib, folder / "packages"):
            more = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={asked.slots}"]
            launchers["hydra joblib"] = joblib, asked.slots, hydras(joblib, asked.jobs, *more)
        for name, (sweep, slots, arguments) in launchers.items():
            row = {"launcher": name, "jobs": asked.jobs, "slots": slots}
            print(json.dumps(row | measure(sweep, slots, *arguments)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        work_ours(SweepDirectory(Path(sys.argv[2])), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--hydra"]:
        work_hydras(sys.argv[2:])
    else:
        main()
