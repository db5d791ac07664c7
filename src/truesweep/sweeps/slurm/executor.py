"""Jobs as allocations of a cluster; those that ask for the same are submitted as one job array.

The driver may die at any time: the cluster goes on with what was submitted, and the driver that
comes back finds it in the queue, by the job's directory, and submits nothing twice. What there is
to know of an array, its batch script and a link to the directory of each of its jobs, is on disk
before it is submitted.
"""

import getpass
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from submitit.core.utils import environment_variables
from submitit.helpers import clean_env

from truesweep.compat import sbatch_script
from truesweep.errors import ConfigError, telling_line
from truesweep.interrupts import PREEMPTED
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.files import write_atomic, write_json
from truesweep.runs.run import Run
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import BUSY, ENDED, LOST, NotNow
from truesweep.sweeps.slurm.settings import SlurmSettings

log = logging.getLogger(__name__)

SCRIPTS = "slurm"
"""The folder in a job's directory of its batch script, and of what was said.

That in a sweep's directory has a folder for each array: its batch script, and links to its jobs.
"""
WORK = "-u -m truesweep.sweeps.slurm.work"
"""What Python is to run on the nodes; a job's directory follows, or a link to it."""
SECONDS_TO_STOP = 30.0
"""How long jobs may take to save and leave before they are cancelled."""
SECONDS_TO_TRY_AGAIN = 60.0
"""How long no job is submitted after one was refused."""
SECONDS_TO_ANSWER = 60
REMEDY = (
    "What it is asked for is set by hydra.launcher.KEY=…, such as partition, timeout_min, "
    "gpus_per_node or mem_gb"
)
MEMORY = re.compile(r"slurmstepd.*(exceeded .*memory limit|oom.kill)", re.IGNORECASE)
"""What Slurm says where it counts memory, and where the kernel does."""
HELD = re.compile(r"[Hh]eld|JobHold")
"""In Slurm's reason for an allocation that waits until somebody releases it.

Such as `JobHeldUser`, `JobHoldMaxRequeue`, or `launch failed requeued held`.
"""
UNKNOWN = re.compile(r"Invalid job id|not found")
"""How `scontrol` says that it knows no such job, or none any more."""
TIMES_TO_SUBMIT_ANEW = 3
"""How often a job is submitted anew that Slurm has lost, as when its controller was killed."""
LARGEST_ARRAY = 1000
"""Jobs of one array, where the cluster does not say how many it takes."""


@dataclass(frozen=True)
class Entry:
    """An allocation in the queue, waiting, running, or about to end.

    Args:
        id: Slurm's number of it, such as `12`, or `12_3` in an array.
        state: Such as `PENDING`, `RUNNING` or `COMPLETING`.
        script: The batch script that was submitted.
        reason: Why it waits, such as `Priority`; `None` if it does not.
        comment: What it was submitted with.
    """

    id: str
    state: str
    script: str
    reason: str
    comment: str

    @property
    def job(self) -> Path | None:
        """The directory of the job that was submitted by us, if it was."""
        folder, index = Path(self.script).parent, self.id.partition("_")[2]
        if index and folder.parent.name == SCRIPTS:
            return linked(folder / index)
        if folder.name == SCRIPTS:
            return folder.parent
        return Path(self.comment)  # by which version 0.1.0 told; it is the user's


def linked(path: Path) -> Path:
    """A job's directory, which an array's folder may hold as a link."""
    if not path.is_symlink():
        return path
    return Path(os.path.normpath(path.parent / path.readlink()))


def queue() -> dict[str, Entry]:
    """This user's allocations by their ids; one that has ended for good is not among them.

    Raises:
        OSError, subprocess.SubprocessError: Slurm does not answer.
    """
    lines = _run(
        "squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%o|%r|%k"
    )
    # A comment of another job may have lines of its own.
    found = (fields for line in lines.split("\n") if len(fields := line.split("|", 4)) == 5)
    return {fields[0]: Entry(*fields) for fields in found}


def last_words(slurm_id: str) -> dict[str, str]:
    """What Slurm still knows of an allocation that has ended, such as `JobState` and `ExitCode`.

    Empty some minutes after its end (`MinJobAge` in slurm.conf). Of a part of an array that was
    cancelled before it began, nothing but that it was.

    Raises:
        OSError, subprocess.SubprocessError: Slurm does not answer.
    """
    words = _shown(slurm_id)
    if not words and "_" in slurm_id and _shown(slurm_id.partition("_")[0]):
        return {"JobState": "CANCELLED"}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _shown(slurm_id: str) -> list[str]:
    """What `scontrol` shows of a job, in words; none if it knows of none."""
    try:
        words = _run("scontrol", "--oneliner", "show", "job", slurm_id).split()
    except subprocess.SubprocessError as error:
        if UNKNOWN.search(str(error)):
            return []
        raise
    return words if any(word.startswith("JobState=") for word in words) else []


def cancel(slurm_ids: Sequence[str], *options: str) -> None:
    """Cancel allocations, or with `--signal` send a signal to their jobs; one may be gone."""
    if slurm_ids:
        _try("scancel", "--quiet", *options, *slurm_ids)


def forbid_requeue(slurm_ids: Sequence[str]) -> None:
    """Let allocations end for good when they end next."""
    if slurm_ids:
        _try("scontrol", "update", f"JobId={','.join(slurm_ids)}", "Requeue=0")


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER
    )
    if done.returncode:
        said = telling_line(done.stderr) or telling_line(done.stdout)
        raise subprocess.SubprocessError(
            said or f"{command[0]} ended with exit code {done.returncode}"
        )
    return done.stdout


def _try(*command: str) -> None:
    """Run a command that may fail, or go unanswered."""
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER)


class Refused(Exception):
    """Slurm does not take what is submitted; in its own words."""


@dataclass(frozen=True)
class _Submitted:
    """A job that was submitted, and not seen to end.

    Args:
        job: The job.
        told: When it had last told of itself by then, as its status has it.
    """

    job: Run
    told: str | None


class SlurmExecutor:
    """Runs each job in an allocation of its own.

    A job that is preempted or reaches its time limit saves, exits with 143 and is requeued by its
    batch script; to the driver it is running all the while. `slurm.json` in a job's directory
    holds the allocation's id, `slurm/` what it said.

    Args:
        settings: What each job asks for.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings
        self._asked: list[Run] = []  # to be submitted
        self._submitted: dict[str, _Submitted] = {}
        self._lost = Counter[str]()
        self._held: set[str] = set()
        self._answered = False
        self._took_any = False
        self._refused_until = -float("inf")
        self._polled_at = -float("inf")

    @property
    def where(self) -> str:
        """Where jobs run, in words."""
        return "Slurm"

    @property
    def running(self) -> list[Run]:
        """The jobs that were started and have not ended; some of them may be waiting."""
        return [*self._asked, *(each.job for each in self._submitted.values())]

    def check(self, trainer: TrainerSettings, label: str) -> None:
        """Make sure that Slurm is there; what it can give, it says when a job is submitted.

        Raises:
            ConfigError: It does not answer.
        """
        if not self._answered:
            _allocations()
            self._answered = True

    def fits(self, job: Run) -> bool:
        """Whether one more job may be submitted; what the cluster has room for, it decides."""
        refused = time.monotonic() < self._refused_until
        return not refused and len(self.running) < self.settings.array_parallelism

    def takes_up(self, job: Run) -> bool:
        """Whether an earlier driver has submitted a job, and it waits or runs.

        Raises:
            NotNow: Slurm does not answer, and has taken jobs before.
            ConfigError: The same, and it never has.
        """
        try:
            return job.path in _allocations()
        except ConfigError as error:
            if not self._took_any:
                raise
            raise self._later(str(error)) from None

    def start(self, job: Run, resume: bool) -> None:
        """Take note of a job; `wait` submits it with others, or takes it up from the queue.

        It goes on from its checkpoint if it has one, whatever `resume` says: the cluster may have
        to start it again by itself.
        """
        self._asked.append(job)

    def _later(self, reason: str, jobs: Sequence[Run] = ()) -> NotNow:
        """What to raise where other jobs were taken: clusters limit how many."""
        seconds = max(SECONDS_TO_TRY_AGAIN, self.settings.poll_seconds)
        self._refused_until = time.monotonic() + seconds
        return NotNow(reason, jobs)

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        """The jobs that have ended, with their exit codes; returns as soon as there is one.

        Args:
            timeout: The longest wait, seconds.

        Raises:
            NotNow: Slurm refuses jobs while others are in its queue, or does not answer.
            ConfigError: The same, and it has never taken any.
        """
        deadline = time.monotonic() + timeout
        if failed := self._submit_asked():
            return failed
        while True:
            next_poll = self._polled_at + self.settings.poll_seconds
            time.sleep(max(0.0, min(next_poll, deadline) - time.monotonic()))
            ended = self._ended() if time.monotonic() >= next_poll else []
            if ended or time.monotonic() >= deadline:
                return ended

    def kill(self, job: Run) -> None:
        """End a job at once, wherever it is; `wait` then reports it."""
        self._asked = [each for each in self._asked if each != job]
        ids = [slurm_id for slurm_id, each in self._submitted.items() if each.job == job]
        forbid_requeue(ids)
        cancel(ids, "--signal=KILL")
        cancel(ids)

    def stop(self, signum: int) -> None:
        """Let no job start any more, and ask those that run to save and leave; wait for 30 s.

        A driver that is killed, or loses its terminal, stops nothing: then the jobs go on.
        """
        self._asked.clear()
        ids = list(self._submitted)
        forbid_requeue(ids)
        cancel(ids, "--state=PENDING")
        cancel(ids, f"--signal={signal.Signals(signum).name.removeprefix('SIG')}")
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self._submitted and time.monotonic() < deadline:
            time.sleep(0.5)
            for slurm_id in self._gone():  # one that never ran has not failed
                del self._submitted[slurm_id]
        cancel(list(self._submitted))
        self._submitted.clear()

    def _submit_asked(self) -> list[tuple[Run, int]]:
        """Submit what was asked for, unless it is in the queue; gives a job that never can be."""
        if not self._asked:
            return []
        asked, self._asked = self._asked, []
        try:
            known = _allocations()
        except ConfigError as error:
            return self._refuse([(job, error) for job in asked])
        for job in asked:
            if job.path in known:
                self._take(known[job.path], job)
        new = [job for job in asked if job.path not in known]
        return self._refuse([one for group in self._alike(new) for one in self._submit(group)])

    def _refuse(self, refused: Sequence[tuple[Run, Exception]]) -> list[tuple[Run, int]]:
        """Put jobs off while there are others or nobody answers; else give up the first of them."""
        if not refused:
            return []
        job, reason = refused[0]
        if self._submitted or (self._took_any and not isinstance(reason, Refused)):
            raise self._later(str(reason), [each for each, _ in refused])
        if not self._took_any:
            raise ConfigError(str(reason))
        job.end("failed", 1, str(reason))
        self._asked = [each for each, _ in refused[1:]]
        return [(job, 1)]

    def _alike(self, jobs: Sequence[Run]) -> Iterator[Sequence[Run]]:
        """Jobs that ask for the same, as many as an array takes."""
        groups: dict[tuple[Any, ...], list[Run]] = {}
        for job in jobs:
            groups.setdefault((*_needs(job).values(), job.path.parent), []).append(job)
        for group in groups.values():
            most = self._largest_array if len(group) > 1 else 1
            yield from (group[i : i + most] for i in range(0, len(group), most))

    @cached_property
    def _largest_array(self) -> int:
        """How many jobs an array may have; 1 on a cluster that takes none."""
        try:
            found = re.search(r"MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config"))
        except (OSError, subprocess.SubprocessError):
            found = None
        return max(1, int(found[1])) if found else LARGEST_ARRAY

    def _submit(self, jobs: Sequence[Run]) -> list[tuple[Run, Exception]]:
        """Submit jobs as an array; one that is refused by halves, as there may be a limit.

        Returns:
            The jobs that were not submitted, and why.
        """
        try:
            ids = self._sbatch(jobs)
        except Refused as error:
            if len(jobs) > 1:
                half = len(jobs) // 2
                refused = self._submit(jobs[:half])
                if not refused:
                    return self._submit(jobs[half:])
                return [*refused, *((job, refused[-1][1]) for job in jobs[half:])]
            said = f"{jobs[0].label}: Slurm refuses the job: {error}\n{REMEDY}"
            return [(jobs[0], Refused(said))]
        except (OSError, subprocess.SubprocessError) as error:  # it may have been submitted
            unanswered = f"{jobs[0].label}: Slurm does not answer: {error}"
            return [(job, ConfigError(unanswered)) for job in jobs]
        for slurm_id, job in zip(ids, jobs, strict=True):
            self._take(slurm_id, job)
        return []

    def _take(self, slurm_id: str, job: Run) -> None:
        write_json(job.path / "slurm.json", {"id": slurm_id})
        self._submitted[slurm_id] = _Submitted(job, job.status.get("updated"))
        self._took_any = True

    def _sbatch(self, jobs: Sequence[Run]) -> list[str]:
        """Submit one job, or several as an array; their ids.

        Raises:
            Refused: Slurm does not take them.
            OSError, subprocess.SubprocessError: It does not answer.
        """
        name = jobs[0].path.parent.name
        for job in jobs:
            (job.path / SCRIPTS).mkdir(exist_ok=True)
        if len(jobs) == 1:
            name, folder = f"{name}/{jobs[0].id}", jobs[0].path / SCRIPTS
            said, directory = folder, shlex.quote(str(jobs[0].path))
        else:
            folder = _links(jobs)
            said = folder / "%a" / SCRIPTS
            directory = f'{shlex.quote(str(folder))}/"$SLURM_ARRAY_TASK_ID"'
        options = self.settings.options(name=name, **_needs(jobs[0]), array=len(jobs))
        python = self.settings.python or shlex.quote(sys.executable)
        script = folder / "submission.sh"
        write_atomic(script, sbatch_script(f"{python} {WORK} {directory}", said, options))
        with _outside_jobs():
            given = _submitted("sbatch", str(script))
        return [given] if len(jobs) == 1 else [f"{given}_{index}" for index in range(len(jobs))]

    def _ended(self) -> list[tuple[Run, int]]:
        ended = []
        for slurm_id in self._gone():
            code = self._exit_code(slurm_id)
            if code is not None:
                ended.append((self._submitted.pop(slurm_id).job, code))
        return ended

    def _exit_code(self, slurm_id: str) -> int | None:
        """How a job has ended: as it says itself, or as Slurm does if it had no time to.

        None: that is not known yet.
        """
        one = self._submitted[slurm_id]
        job, status = one.job, one.job.status
        code, spoke = status.get("exit_code"), status.get("updated") != one.told
        if code is not None and spoke and code != PREEMPTED:
            return int(code)
        try:
            said = last_words(slurm_id)
        except (OSError, subprocess.SubprocessError):
            return None
        its_code = said.get("ExitCode", "").partition(":")[0]
        cancelled = said.get("JobState", "").startswith("CANCELLED")
        if code is not None and not cancelled and (spoke or its_code == str(code)):
            return int(code)
        if its_code == str(BUSY):
            return BUSY
        if not said and job.alive:
            return None  # until Slurm, which has lost it, ends it
        self._lost[job.id] += not said
        if not said and self._lost[job.id] <= TIMES_TO_SUBMIT_ANEW:
            log.warning("%s: Slurm knows nothing of its job %s any more", job.label, slurm_id)
            return LOST
        state = said.get("JobState", "forgotten").replace("_", " ").lower()
        how = ", ".join([state, *_by_signal(said.get("ExitCode", "")), *_for_memory(job, slurm_id)])
        job.end("failed", 1, f"Slurm's job {slurm_id} was ended ({how}); see {job.path / SCRIPTS}")
        return 1

    def _gone(self) -> list[str]:
        """The allocations that are no longer in the queue, or have nothing left to do there.

        One whose node does not answer any more is in it for minutes after its job is done.
        """
        self._polled_at = time.monotonic()
        try:
            there = queue()
        except (OSError, subprocess.SubprocessError):
            return []  # no news while Slurm is away
        self._tell_of_holds(there)
        return [
            slurm_id
            for slurm_id, each in self._submitted.items()
            if (entry := there.get(slurm_id)) is None
            or (entry.state == "COMPLETING" and each.job.state in ENDED)
        ]

    def _tell_of_holds(self, there: Mapping[str, Entry]) -> None:
        """Say of each job that is held since the last look what lets it go on."""
        held = {i for i in self._submitted if i in there and HELD.search(there[i].reason)}
        for slurm_id in sorted(held - self._held):
            log.warning(
                "%s: Slurm holds its job %s (%s) until you, or an administrator, type "
                "scontrol release %s",
                *(self._submitted[slurm_id].job.label, slurm_id, there[slurm_id].reason, slurm_id),
            )
        self._held = held


def _links(jobs: Sequence[Run]) -> Path:
    """A new folder in a sweep's directory for an array, in which its jobs are links."""
    folder = jobs[0].path.parent / SCRIPTS / uuid4().hex[:12]
    folder.mkdir(parents=True)
    for index, job in enumerate(jobs):
        link = folder / str(index)
        link.symlink_to(os.path.relpath(job.path, folder), target_is_directory=True)
    return folder


def _submitted(*command: str) -> str:
    """The number that Slurm gives what a command submits.

    Raises:
        Refused: None.
        OSError, subprocess.SubprocessError: Slurm does not answer.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER
    )
    given = re.search(r"job (\d+)", done.stdout)
    if done.returncode or given is None:
        raise Refused((done.stderr or done.stdout).strip() or f"exit code {done.returncode}")
    return given[1]


def _allocations() -> dict[Path | None, str]:
    """The ids of what waits or runs on the cluster, by the jobs' directories.

    Raises:
        ConfigError: Slurm does not answer.
    """
    try:
        return {entry.job: entry.id for entry in queue().values()}
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"Slurm does not answer: {str(error).rstrip(' .')}. Type squeue to see what is wrong; "
            "hydra/launcher=local needs no Slurm"
        ) from None


def _needs(job: Run) -> dict[str, int]:
    """Nodes of a job, and GPUs on each."""
    trainer = trainer_of(job)
    return {"nodes": trainer.num_nodes, "gpus": 0 if trainer.is_cpu() else trainer.local_ranks()}


def _by_signal(exit_code: str) -> list[str]:
    """The signal that ended a batch script or what it waited for, as Slurm writes exit codes."""
    found = re.fullmatch(r"(\d+):(\d+)", exit_code)
    number = int(found[2]) or int(found[1]) - 128 if found else 0
    return [f"by {signal.Signals(number).name}"] if number in set(signal.Signals) else []


def _for_memory(job: Run, slurm_id: str) -> list[str]:
    """What Slurm said on the nodes of a job if it took too much memory, which its state may not."""
    logs = sorted((job.path / SCRIPTS).glob(f"{slurm_id}_*_log.err"))
    lines = [line for log in logs for line in log.read_text(errors="replace").split("\n")]
    said = [line.strip() for line in lines if MEMORY.search(line)]
    return [f"out of memory: {said[-1]}"] if said else []


@contextmanager
def _outside_jobs() -> Iterator[None]:
    """Submit as if from outside any job, where the driver itself may run."""
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env(("NNODES", "NODE_RANK", "GROUP_RANK")), environment_variables(**cluster):
        yield
