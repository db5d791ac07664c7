"""Real jobs of about a second, some of which come to grief, and drivers that can be killed."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.commands.conftest import SMALL, write_data
from truesweep.config.precedence import update
from truesweep.jobs.forks import serve_forks, warm_up
from truesweep.jobs.plan import checked
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.local import PRELOADED, LocalPool
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.settings import Sweep

MISHAPS = '''
"""A callback that notes every start, and spoils what it is told to."""

import json, os, signal, time
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "SLURM_PROCID")


class Mishap(pl.Callback):
    def __init__(
        self,
        how: Literal["none", "fail", "memory", "hog", "kill", "hang", "wait"] = "none",
        at: int = 3,
        slow: float = 0.0,
        once: bool = False,
    ) -> None:
        self.how, self.at, self.slow, self.once, self.step = how, at, slow, once, 0

    def on_train_start(self, trainer, module):
        self.step = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        row = {
            "job": Path(trainer.default_root_dir).name,
            "step": self.step,
            "ranks": trainer.world_size,
            "rank": trainer.global_rank,
            "pid": os.getpid(),
            "place": {name: os.environ[name] for name in PLACE if name in os.environ},
            "cores": sorted(os.sched_getaffinity(0)),
            "resident": int(Path("/proc/self/statm").read_text().split()[1]) * 4096,
            "held": sum(t.numel() for t in module.parameters()),
        }
        with open("starts.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\n")
        if self.once and self.step:
            self.how = "none"

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.step += 1
        time.sleep(self.slow)
        if self.step != self.at or self.how == "none":
            return
        if self.how == "fail":
            raise RuntimeError("nothing good comes of this")
        if self.how == "memory":
            self.ballast = torch.ones(64 * 2**20)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.how == "hog":  # until it is told to stop
            ballast = []
            while not module.stop_requested and len(ballast) < 40:
                ballast.append(torch.ones(16 * 2**20))
                time.sleep(0.1)
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "wait":  # until it is told to stop, or may go on
            while Path("wait").exists() and not module.stop_requested:
                time.sleep(0.01)
            return
        Path("hangs").touch()
        time.sleep(1000)
'''
FIXED = ["+callbacks.mishap._target_=mishaps.Mishap", "allowed_packages=[mishaps]"]
DIVERGES = {
    "optimizer.lr": 1e30,
    "trainer.gradient_clip_val": "null",
    "trainer.max_steps": 40,
    "trainer.val_check_interval": 40,
}


def make_sweep(
    folder: Path, points: Sequence[Mapping[str, Any]], name: str = "s", **settings: Any
) -> tuple[SweepDirectory, list[Run]]:
    """The directories of a sweep's jobs; the current folder must be `folder`."""
    data = write_data(folder)["classification"]
    (folder / "mishaps.py").write_text(MISHAPS)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    config = checked([*data, *SMALL, *FIXED, "optimizer=sgd", f"name={name}"])
    sweep = SweepDirectory(folder / "outputs/sweeps" / name)
    sweep.ask([], [], Sweep(**settings), {})
    jobs = []
    for number, point in enumerate(points):
        asked = [f"{key}={value}" for key, value in point.items()]
        jobs.append(
            sweep.add(
                update(config, asked),
                asked,
                point,
                label=" ".join(asked),
                number=number,
                provenance={},
                devices=int(point.get("trainer.devices", 1)),
                nodes=int(point.get("trainer.num_nodes", 1)),
            )
        )
    return sweep, jobs


def drive_here(sweep: SweepDirectory, slots: int = 2) -> int:
    """Drive a sweep in this process."""
    return drive(sweep, Listed(sweep.jobs()), LocalPool(slots), sweep.settings)


def start_driver(sweep: SweepDirectory) -> ForkServerProcess:
    """Drive a sweep in a process of its own."""
    warm_up(PRELOADED)
    driver = get_context("forkserver").Process(target=_drive, args=[sweep])
    driver.start()
    return driver


def _drive(sweep: SweepDirectory) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    serve_forks()
    sys.exit(drive_here(sweep))


def until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
