"""The devices of this machine as slots, and the jobs on them, each in processes of its own."""

import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path

import torch

from truesweep.errors import ConfigError, UserError
from truesweep.jobs.forks import serve_forks, unblock, warm_up
from truesweep.jobs.launch import launch
from truesweep.jobs.logs import log_into
from truesweep.jobs.processes import leave_with_parent
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.provenance import memory
from truesweep.runs.run import Run
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import BUSY
from truesweep.tasks.devices import JOBS_ON_GPU

MEMORY_PER_SLOT = 2 * 2**30
"""Main memory that a slot should have by default, bytes."""


@dataclass(frozen=True)
class Slot:
    """Room for a job's rank.

    Args:
        cores: The cores it runs on; empty where the system cannot bind processes to them.
        gpu: The GPU as `CUDA_VISIBLE_DEVICES` names it; None for the CPU.
        sharers: Slots that have the same GPU.
    """

    cores: frozenset[int]
    gpu: str | None = None
    sharers: int = 1


class Slots:
    """Slots of one kind, free or taken.

    Args:
        slots: All of them, free.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.all = list(slots)
        self._free = list(range(len(slots)))

    def __len__(self) -> int:
        return len(self.all)

    @property
    def largest(self) -> int:
        """The most devices that a job can ever have."""
        return len(self._different(range(len(self.all)), len(self.all)))

    def fits(self, count: int) -> bool:
        """Whether so many slots are free."""
        return len(self._different(self._free, count)) == count

    def take(self, count: int) -> list[int]:
        """Take free slots, of different GPUs."""
        chosen = self._different(self._free, count)
        assert len(chosen) == count, "a job is started where it fits"
        self._free = [number for number in self._free if number not in chosen]
        return chosen

    def give_back(self, numbers: Sequence[int]) -> None:
        """Make slots free again."""
        self._free = sorted([*self._free, *numbers])

    def _different(self, numbers: Sequence[int], count: int) -> list[int]:
        """The first slots, none of which shares its GPU with another."""
        chosen: dict[object, int] = {}
        for number in numbers:
            chosen.setdefault(self.all[number].gpu or number, number)
        return list(chosen.values())[:count]


def cpu_slots(count: int | None = None) -> Slots:
    """Slots that share out the cores evenly; where there are more slots than cores, they overlap.

    Args:
        count: How many; None: one a core, if there is memory enough for as many jobs.
    """
    cores = usable_cores()
    count = count or max(1, min(len(cores), memory() // MEMORY_PER_SLOT))
    return Slots([Slot(share) for share in _shares(cores, count)])


def gpu_slots(count: int | None = None) -> Slots:
    """Slots of one GPU each; where there are more slots than GPUs, jobs share them.

    Args:
        count: How many; None: one a GPU.
    """
    gpus = visible_gpus()
    if not gpus:
        return Slots([])
    shares = _shares(usable_cores(), count or len(gpus))
    places = [(share, gpus[i % len(gpus)]) for i, share in enumerate(shares)]
    sharers = Counter(gpu for _, gpu in places)
    return Slots([Slot(share, gpu, sharers[gpu]) for share, gpu in places])


def visible_gpus() -> list[str]:
    """The GPUs this process may use, by their names in `CUDA_VISIBLE_DEVICES`.

    They are counted through NVML, which leaves CUDA alone.
    """
    count = torch.cuda.device_count()
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = asked.split(",") if asked is not None else map(str, range(count))
    return [name.strip() for name in names][:count]


def usable_cores() -> list[int]:
    """The cores this process may use, no more than its control group has time for."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    cores = sorted(os.sched_getaffinity(0))
    return cores[: _quota(Path("/sys/fs/cgroup/cpu.max"))]


def _quota(file: Path) -> int | None:
    """Cores' worth of time in a control group: the file holds microseconds and their period."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
    except OSError:
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))


def _shares(cores: Sequence[int], count: int) -> list[frozenset[int]]:
    """Neighbouring cores for each of `count` slots, at least one."""
    if count >= len(cores):
        return [frozenset([cores[i % len(cores)]]) for i in range(count)]
    edges = [len(cores) * i // count for i in range(count + 1)]
    return [frozenset(cores[a:b]) for a, b in pairwise(edges)]


PRELOADED = ("truesweep.libraries", __name__, "typer", "rich.progress")
"""Modules that the server imports once, for all jobs."""
PLACE = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
    "WANDB_SERVICE",
)
PLACE_PREFIXES = ("TORCHELASTIC_", "SLURM_", "PMI_", "PMIX_", "OMPI_")
"""Variables that tell a process its place among others; a job is started without any."""
SECONDS_TO_VANISH = 5.0
"""How long killed processes may take to let go of a run."""


class JobProcess:
    """A job that was started; its processes are a session and a process group of their own.

    Args:
        job: What is run.
        slots: Where.
        resume: Go on from a checkpoint.
    """

    def __init__(self, job: Run, slots: Sequence[Slot], resume: bool) -> None:
        warm_up(PRELOADED)
        self.job = job
        self.started = time.time()
        cores = frozenset[int]().union(*(slot.cores for slot in slots))
        where = environment(os.environ, slots), cores, len(slots)
        arguments = (str(job.path), *where, resume)
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_main, args=arguments, name=job.id)
        self._process.start()

    @property
    def sentinel(self) -> int:
        """Ready when the job has ended; see `multiprocessing.connection.wait`."""
        return self._process.sentinel

    @property
    def ended(self) -> bool:
        """Whether its main process is gone."""
        return self._process.exitcode is not None

    def send(self, signum: int) -> None:
        """Send a signal to the main process, which hands it on to its ranks."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signum)

    def kill(self) -> None:
        """Kill all of its processes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self.send(signal.SIGKILL)  # it may not lead a group yet

    def close(self) -> int:
        """Kill what a job has left behind, and give its exit code."""
        code = self._process.exitcode
        assert code is not None, "a job is closed after its end"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while code != BUSY and self.job.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process.close()
        return code

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid


def without_place(inherited: Mapping[str, str]) -> dict[str, str]:
    """An environment without another job's place in it."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in PLACE and not name.startswith(PLACE_PREFIXES)
    }


def environment(inherited: Mapping[str, str], slots: Sequence[Slot]) -> dict[str, str]:
    """A job's environment: the driver's, without another job's place in it, with its own GPUs."""
    gpus = [slot.gpu for slot in slots if slot.gpu is not None]
    own = without_place(inherited) | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    own.pop(JOBS_ON_GPU, None)
    sharers = max(slot.sharers for slot in slots)
    return own | ({JOBS_ON_GPU: str(sharers)} if sharers > 1 else {})


def _main(
    directory: str, environment: dict[str, str], cores: frozenset[int], ranks: int, resume: bool
) -> None:
    """A job's main process; ends with its exit code, whatever its threads do."""
    os.setsid()
    unblock()
    run = Run(Path(directory))
    code = 1
    try:
        _settle_in(run, environment, cores)
        if ranks > 1:
            serve_forks()
        leave_with_parent()
        code = launch(run, resume)
    except UserError as error:
        code = _not_started(run, error)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _not_started(run: Run, error: UserError) -> int:
    print(error, file=sys.stderr)
    if run.alive:  # in another driver's hands
        return BUSY
    run.end("failed", 1, str(error))
    return 1


def _settle_in(run: Run, environment: dict[str, str], cores: frozenset[int]) -> None:
    """Own log, environment, cores and folder."""
    log_into(run.log(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(max(1, len(cores)))
    os.chdir(run.started_in)


SECONDS_TO_STOP = 30.0
"""How long jobs may take to save and leave before they are killed."""


class LocalPool:
    """An executor on slots of this machine; a slot that becomes free can be taken at once.

    Args:
        slots: How many jobs of one device run beside each other; None: one a GPU for jobs on GPUs,
            one a core, if there is memory enough, for jobs on the CPU.
    """

    def __init__(self, slots: int | None = None) -> None:
        warm_up(PRELOADED)  # before planning has started threads
        self.gpus = gpu_slots(slots)
        self.cores = cpu_slots(slots)
        self._running: dict[str, tuple[JobProcess, Slots, list[int]]] = {}

    @property
    def where(self) -> str:
        """Its slots, in words."""
        slots = [(self.gpus, "on GPUs"), (self.cores, "on the CPU")]
        return ", ".join(
            f"{len(one)} slot{'s' * (len(one) > 1)} {on}" for one, on in slots if len(one)
        )

    @property
    def running(self) -> list[Run]:
        """The jobs that were started and have not ended."""
        return [process.job for process, _, _ in self._running.values()]

    def check(self, trainer: TrainerSettings, label: str) -> None:
        """Make sure that there are as many devices as a job needs.

        Raises:
            ConfigError: There are fewer, or it needs several nodes, or certain devices.
        """
        slots = self._slots(trainer)
        if lacking := trainer.lacking():
            raise ConfigError(
                f"{label}: {lacking}; run the sweep on another machine, by "
                "hydra/launcher=slurm or ray, or set trainer=cpu"
            )
        if trainer.num_nodes > 1:
            raise ConfigError(
                f"{label}: trainer.num_nodes={trainer.num_nodes} needs a cluster; set "
                "hydra/launcher=slurm or ray, or trainer.num_nodes=1"
            )
        if slots is self.gpus and isinstance(named := trainer.devices, list):
            raise ConfigError(
                f"{label}: trainer.devices={named} names devices, but a sweep gives each job "
                f"those that are free; set trainer.devices={len(named)}"
            )
        if (needed := trainer.local_ranks()) > slots.largest:
            kind = "GPUs" if slots is self.gpus else "slots on the CPU"
            raise ConfigError(
                f"{label}: trainer.devices={needed}, but there are {slots.largest} {kind} "
                "here. Lower it, or give hydra.launcher.slots (slots may share cores, not GPUs)"
            )

    def fits(self, job: Run) -> bool:
        """Whether as many devices are free as a job needs."""
        return self._slots(trainer_of(job)).fits(job.devices)

    def takes_up(self, job: Run) -> bool:
        """No: the jobs of another driver of this machine are that one's."""
        return False

    def start(self, job: Run, resume: bool) -> None:
        """Start a job on free devices."""
        slots = self._slots(trainer_of(job))
        taken = slots.take(job.devices)
        process = JobProcess(job, [slots.all[number] for number in taken], resume)
        self._running[job.id] = process, slots, taken

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        """The jobs that have ended, with their exit codes; nothing of them is left.

        Args:
            timeout: The longest wait, seconds.
        """
        processes = [process for process, _, _ in self._running.values()]
        if processes:
            wait([process.sentinel for process in processes], timeout)
        else:
            time.sleep(timeout)
        return [(process.job, self._remove(process)) for process in processes if process.ended]

    def kill(self, job: Run) -> None:
        """End a job at once, with all of its processes."""
        self._running[job.id][0].kill()

    def stop(self, signum: int) -> None:
        """Ask every job to save and leave; kill those that have not left after 30 s."""
        for process, _, _ in self._running.values():
            process.send(signum)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self._running and time.monotonic() < deadline:
            self.wait(0.2)
        for process, _, _ in self._running.values():
            process.send(signal.SIGKILL)
        while self._running:
            self.wait(0.2)

    def _remove(self, process: JobProcess) -> int:
        _, slots, taken = self._running.pop(process.job.id)
        code = process.close()
        slots.give_back(taken)
        return code

    def _slots(self, trainer: TrainerSettings) -> Slots:
        on_gpu = len(self.gpus) > 0 and not trainer.is_cpu()
        return self.gpus if on_gpu else self.cores
