"""This machine's devices, and the jobs on them."""

import signal
import time
from multiprocessing.connection import wait

from truesweep.errors import ConfigError
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run
from truesweep.sweeps.forks import warm_up
from truesweep.sweeps.planned import PlannedJob, trainer_of
from truesweep.sweeps.process import PRELOADED, JobProcess
from truesweep.sweeps.slots import Slots, cpu_slots, gpu_slots

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
    def running(self) -> list[Run]:
        """The jobs that were started and have not ended."""
        return [process.job for process, _, _ in self._running.values()]

    def check(self, job: PlannedJob | Run) -> None:
        """Make sure that there are as many devices as a job needs.

        Raises:
            ConfigError: There are fewer, or it needs several nodes, or certain devices.
        """
        trainer = trainer_of(job)
        slots = self._slots(trainer)
        if lacking := trainer.lacking():
            raise ConfigError(
                f"{job.label}: {lacking}; run the sweep on another machine or by "
                "hydra/launcher=slurm, or set trainer=cpu"
            )
        if job.nodes > 1:
            raise ConfigError(
                f"{job.label}: trainer.num_nodes={job.nodes} needs a cluster; set "
                "hydra/launcher=slurm, or trainer.num_nodes=1"
            )
        if slots is self.gpus and isinstance(named := trainer.devices, list):
            raise ConfigError(
                f"{job.label}: trainer.devices={named} names devices, but a sweep gives each job "
                f"those that are free; set trainer.devices={len(named)}"
            )
        if job.devices > slots.largest:
            kind = "GPUs" if slots is self.gpus else "slots on the CPU"
            raise ConfigError(
                f"{job.label}: trainer.devices={job.devices}, but there are {slots.largest} {kind} "
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
