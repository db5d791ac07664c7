"""Jobs as allocations of a cluster, submitted through submitit.

The driver may die at any time: the cluster goes on with what was submitted, and the driver that
comes back finds it in the queue, by the job's directory, and submits nothing twice.
"""

import getpass
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, environment_variables
from submitit.helpers import clean_env

from truesweep.errors import ConfigError
from truesweep.record.files import write_json
from truesweep.runs.run import Run
from truesweep.sweeps.executor import BUSY, NotNow
from truesweep.sweeps.planned import PlannedJob, trainer_of
from truesweep.sweeps.slurm.settings import SlurmSettings
from truesweep.sweeps.slurm.work import work

SCRIPTS = "slurm"
"""The folder in a job's directory of its batch scripts, and of what they said."""
SECONDS_TO_STOP = 30.0
"""How long jobs may take to save and leave before they are cancelled."""
SECONDS_TO_TRY_AGAIN = 60.0
"""How long no job is submitted after one was refused."""


SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Entry:
    """An allocation in the queue, waiting, running, or about to end.

    Args:
        id: Slurm's number of it.
        state: Such as `PENDING`, `RUNNING` or `COMPLETING`.
        script: The batch script that was submitted.
        comment: What it was submitted with.
    """

    id: str
    state: str
    script: str
    comment: str


def queue() -> dict[str, Entry]:
    """This user's allocations by their ids; one that has ended for good is not among them.

    Raises:
        OSError, subprocess.SubprocessError: Slurm does not answer.
    """
    lines = _run("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%o|%k")
    entries = (Entry(*line.split("|", 3)) for line in lines.splitlines())
    return {entry.id: entry for entry in entries}


def last_words(slurm_id: str) -> dict[str, str]:
    """What Slurm still knows of an allocation that has ended, such as `JobState` and `ExitCode`.

    Empty some minutes after its end (`MinJobAge` in slurm.conf).
    """
    try:
        words = _run("scontrol", "--oneliner", "show", "job", slurm_id).split()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def cancel(slurm_ids: Sequence[str], *options: str) -> None:
    """Cancel allocations, or with `--signal` send a signal to their jobs; one may be gone."""
    if slurm_ids:
        _try("scancel", "--quiet", *options, *slurm_ids)


def forbid_requeue(slurm_ids: Sequence[str]) -> None:
    """Let allocations end for good when they end next."""
    for slurm_id in slurm_ids:
        _try("scontrol", "update", f"JobId={slurm_id}", "Requeue=0")


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=SECONDS_TO_ANSWER
    )
    return done.stdout


def _try(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER)


class SlurmExecutor:
    """Runs each job in an allocation of its own.

    A job that is preempted or reaches its time limit saves, exits with 143 and is requeued by its
    batch script; to the driver it is running all the while. `slurm.json` in a job's directory
    holds the allocation's id, `slurm/` the batch script and what it said.

    Args:
        settings: What each job asks for.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings
        self._running: dict[str, Run] = {}
        self._answered = False
        self._refused_until = -float("inf")
        self._polled_at = -float("inf")

    @property
    def running(self) -> list[Run]:
        """The jobs that were submitted and have not ended; some of them may be waiting."""
        return list(self._running.values())

    def check(self, job: PlannedJob | Run) -> None:
        """Make sure that Slurm is there; what it can give, it says when a job is submitted.

        Raises:
            ConfigError: It does not answer.
        """
        if not self._answered:
            _entries()
            self._answered = True

    def fits(self, job: Run) -> bool:
        """Whether one more job may be submitted; what the cluster has room for, it decides."""
        refused = time.monotonic() < self._refused_until
        return not refused and len(self._running) < self.settings.array_parallelism

    def takes_up(self, job: Run) -> bool:
        """Whether an earlier driver has submitted a job, and it waits or runs."""
        with self._later():
            return _submitted(job) is not None

    def start(self, job: Run, resume: bool) -> None:
        """Submit a job, or take up one that an earlier driver has submitted.

        It goes on from its checkpoint if it has one, whatever `resume` says: the cluster may have
        to start it again by itself.

        Raises:
            NotNow: Slurm refuses it, or does not answer, while other jobs are in its queue.
            ConfigError: The same, and there are none.
        """
        with self._later():
            slurm_id = _submitted(job) or self._submit(job)
        write_json(job.path / "slurm.json", {"id": slurm_id})
        self._running[slurm_id] = job

    @contextmanager
    def _later(self) -> Iterator[None]:
        """Try again in a while what fails where other jobs were taken: clusters limit how many."""
        try:
            yield
        except ConfigError as error:
            if not self._running:
                raise
            self._refused_until = time.monotonic() + max(
                SECONDS_TO_TRY_AGAIN, self.settings.poll_seconds
            )
            raise NotNow(str(error)) from None

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        """The jobs that have ended, with their exit codes; returns as soon as there is one.

        Args:
            timeout: The longest wait, seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            next_poll = self._polled_at + self.settings.poll_seconds
            time.sleep(max(0.0, min(next_poll, deadline) - time.monotonic()))
            ended = self._ended() if time.monotonic() >= next_poll else []
            if ended or time.monotonic() >= deadline:
                return ended

    def kill(self, job: Run) -> None:
        """End a job at once, wherever it is; `wait` then reports it."""
        ids = [slurm_id for slurm_id, each in self._running.items() if each == job]
        forbid_requeue(ids)
        cancel(ids, "--signal=KILL")
        cancel(ids)

    def stop(self, signum: int) -> None:
        """Let no job start any more, and ask those that run to save and leave; wait for 30 s.

        A driver that is killed, or loses its terminal, stops nothing: then the jobs go on.
        """
        ids = list(self._running)
        forbid_requeue(ids)
        cancel(ids, "--state=PENDING")
        cancel(ids, f"--signal={signal.Signals(signum).name.removeprefix('SIG')}")
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self._running and time.monotonic() < deadline:
            time.sleep(0.5)
            for slurm_id in self._gone():  # one that never ran has not failed
                del self._running[slurm_id]
        cancel(list(self._running))
        self._running.clear()

    def _submit(self, job: Run) -> str:
        executor = submitit.SlurmExecutor(job.path / SCRIPTS, python=self.settings.python)
        executor.update_parameters(
            **self.settings.options(
                name=f"{job.path.parent.name}/{job.id}",
                nodes=job.nodes,
                gpus=0 if trainer_of(job).is_cpu() else job.devices,
            )
        )
        try:
            with _outside_jobs():
                return str(executor.submit(work, str(job.path)).job_id)
        except (FailedSubmissionError, FailedJobError) as error:
            raise ConfigError(
                f"{job.label}: Slurm refuses the job: {error}\nWhat it is asked for is set by "
                "hydra.launcher.KEY=…, such as partition, timeout_min, gpus_per_node or mem_gb"
            ) from None

    def _ended(self) -> list[tuple[Run, int]]:
        return [(self._running[i], _exit_code(self._running.pop(i), i)) for i in self._gone()]

    def _gone(self) -> list[str]:
        """The allocations that are no longer in the queue."""
        self._polled_at = time.monotonic()
        try:
            there = queue()
        except (OSError, subprocess.SubprocessError):
            return []  # no news while Slurm is away
        return [slurm_id for slurm_id in self._running if slurm_id not in there]


def _submitted(job: Run) -> str | None:
    """The id of a job's allocation, if it waits or runs."""
    return next((entry.id for entry in _entries() if _is_of(entry, job)), None)


def _is_of(entry: Entry, job: Run) -> bool:
    """Whether an allocation is a job's: its batch script was written into the job's directory.

    Version 0.1.0 told by the comment, which is the user's.
    """
    script = Path(entry.script).parent == job.path / SCRIPTS
    return script or entry.comment == str(job.path)


def _entries() -> Collection[Entry]:
    """What waits or runs on the cluster.

    Raises:
        ConfigError: Slurm does not answer.
    """
    try:
        return queue().values()
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"Slurm does not answer: {error}. Type squeue to see what is wrong; "
            "hydra/launcher=local needs no Slurm"
        ) from None


def _exit_code(job: Run, slurm_id: str) -> int:
    """How a job has ended: as it says itself, or as Slurm does if it had no time to."""
    code = job.status.get("exit_code")
    if code is not None:
        return int(code)
    said = last_words(slurm_id)
    if said.get("ExitCode", "").startswith(f"{BUSY}:"):
        return BUSY
    state = said.get("JobState", "forgotten").replace("_", " ").lower()
    job.end(
        "failed",
        1,
        error=f"Slurm's job {slurm_id} was ended ({state}); see {job.path / SCRIPTS}",
    )
    return 1


@contextmanager
def _outside_jobs() -> Iterator[None]:
    """Submit as if from outside any job, where the driver itself may run."""
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env(("NNODES", "NODE_RANK", "GROUP_RANK")), environment_variables(**cluster):
        yield
