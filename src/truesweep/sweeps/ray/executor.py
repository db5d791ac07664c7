"""Jobs on a Ray cluster, each a detached actor with a placement group of its own.

The driver may die at any time: the cluster goes on with what it was given, and the driver that
comes back finds each job's actor by its name, which follows from the job's directory, and starts
nothing twice.
"""

import hashlib
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError

from truesweep.compat import keep_ray_off_output
from truesweep.errors import ConfigError
from truesweep.interrupts import STOPPED
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run
from truesweep.sweeps.local import without_place
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import BUSY, ENDED, LOST
from truesweep.sweeps.ray.job import LOGS, Actor, Job, Reference, Start, why
from truesweep.sweeps.ray.settings import BYTES_PER_GB, RaySettings
from truesweep.text import plural

log = logging.getLogger(__name__)

NAMESPACE = "truesweep"
HEAD = "node:__internal_head__"
"""A resource that Ray gives the head node alone: an actor there lives as long as the cluster."""
CALLS = 1000
"""Calls that a job's actor answers at once: one of each driver that waits, and signals."""
SECONDS_TO_ANSWER = 10.0
"""How long a cluster's address may take to be connected to."""
MODE = "RAY_AUTH_MODE"
"""The variable that says whether Ray sends its token to a cluster whose address is given."""
SECONDS_TO_STOP = 30.0
"""How long jobs may take to save and leave before they are killed."""
SECONDS_TO_VANISH = 10.0
"""How long an actor that was ended may take until its name is free."""
SECONDS_PER_LOOK = 10.0
"""How often it is looked whether the nodes that are there can hold the jobs that wait."""


@dataclass(frozen=True)
class Need:
    """What a job asks for.

    Args:
        bundle: On each node, as Ray names it.
        nodes: How many nodes.
    """

    bundle: Mapping[str, float]
    nodes: int

    def __str__(self) -> str:
        return f"{plural(self.nodes, 'node')} with {_written(self.bundle)}"


@dataclass(frozen=True)
class HandedOver:
    """A job that Ray has, waiting or running.

    Args:
        job: The job.
        actor: The actor that looks after it.
        need: What it asks for.
    """

    job: Run
    actor: Actor
    need: Need


class RayExecutor:
    """Runs each job in a placement group of its own; a job that has no room yet waits in Ray.

    A job whose node is lost goes on from its last checkpoint, wherever there is room.

    Args:
        settings: What each job asks for.
    """

    def __init__(self, settings: RaySettings) -> None:
        self.settings = settings
        self._running: dict[Reference, HandedOver] = {}
        self._held: list[Need] = []  # what there were nodes for
        self._waiting: set[str] = set()  # jobs whose nodes are gone, as was told
        self._looked_at = -float("inf")
        self._lost = Counter[str]()

    @property
    def where(self) -> str:
        """Where jobs run, in words."""
        return "Ray"

    @property
    def running(self) -> list[Run]:
        """The jobs that were started and have not ended; some of them may be waiting."""
        return [each.job for each in self._running.values()]

    def check(self, trainer: TrainerSettings, label: str) -> None:
        """Make sure that Ray is there, and that its nodes can hold a job, or could before.

        Nodes that are lost while a sweep runs may be there again: jobs wait for them.

        Raises:
            ConfigError: It does not answer, or there are too few nodes with what the job needs,
                and nobody says that there will be more.
        """
        self._connect()
        need = self._need(trainer)
        lacking = _lacking(need)
        if lacking is None:
            self._held += [need] * (need not in self._held)
        elif need not in self._held and not self.settings.autoscaling:
            raise ConfigError(
                f"{label}: {lacking}. Ask "
                "for less (trainer.num_nodes, trainer.devices, hydra.launcher.cpus_per_node), or "
                "set hydra.launcher.autoscaling=true if the cluster adds nodes when asked"
            )

    def fits(self, job: Run) -> bool:
        """Whether one more job may be handed over; what the cluster has room for, it decides."""
        return len(self._running) < self.settings.max_jobs

    def takes_up(self, job: Run) -> bool:
        """Whether an earlier driver has handed over a job, and it waits or runs.

        Raises:
            ConfigError: Ray does not answer.
        """
        self._connect()
        return self._find(job) is not None

    def start(self, job: Run, resume: bool) -> None:
        """Hand a job over, or take it up if an earlier driver has.

        It goes on from its checkpoint if it has one, whatever `resume` says.

        Raises:
            ConfigError: Ray does not answer.
        """
        self._connect()
        need = self._need(trainer_of(job))
        (job.path / LOGS).mkdir(exist_ok=True)
        remote: Any = ray.remote(Job)
        actor = remote.options(
            name=_name(job),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources={HEAD: 0.001},
            max_concurrency=CALLS,
        ).remote(str(job.path), need.bundle, need.nodes)
        how = Start(self.settings.python, str(Path.cwd()), _environment())
        self._running[actor.run.remote(how)] = HandedOver(job, actor, need)

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        """The jobs that have ended, with their exit codes; returns as soon as there is one.

        Args:
            timeout: The longest wait, seconds.
        """
        if not self._running:
            time.sleep(timeout)
            return []
        self._tell_of_lost_nodes()
        ended, _ = ray.wait(list(self._running), timeout=timeout)
        codes = [(self._running[reference].job, self._collect(reference)) for reference in ended]
        return [(job, self._judge(job, code)) for job, code in codes]

    def kill(self, job: Run) -> None:
        """End a job at once, wherever it is; `wait` then reports it."""
        for each in self._running.values():
            if each.job == job:
                each.actor.stop.remote(int(signal.SIGKILL))

    def stop(self, signum: int) -> None:
        """Let no job begin any more, and ask those that run to save and leave; wait for 30 s.

        A driver that is killed, or loses its terminal, stops nothing: then the jobs go on.
        """
        for each in self._running.values():
            each.actor.stop.remote(int(signum))
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self._running and time.monotonic() < deadline:
            for reference in ray.wait(list(self._running), timeout=0.5)[0]:
                self._collect(reference)
        for job in self.running:
            self.kill(job)
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while self._running and time.monotonic() < deadline:
            for reference in ray.wait(list(self._running), timeout=0.5)[0]:
                self._collect(reference)
        for each in self._running.values():
            ray.kill(each.actor)
        self._running.clear()

    def _collect(self, reference: Reference) -> int | str | None:
        """What came of a job, as `Job.run` has it; its actor goes."""
        ended = self._running.pop(reference)
        try:
            result = cast(int | str | None, ray.get(reference))
        except RayError as error:
            result = why(error)
        ray.kill(ended.actor)
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while self._find(ended.job) is not None and time.monotonic() < deadline:
            time.sleep(0.02)  # or it would be found instead of a new one
        return result

    def _judge(self, job: Run, code: int | str | None) -> int:
        """An exit code as a driver takes it; notes in the job's status what it had no time to."""
        if isinstance(code, str):
            deadline = time.monotonic() + SECONDS_TO_STOP
            while job.alive and time.monotonic() < deadline:
                time.sleep(0.1)  # a process that has lost its actor saves, and says that it did
            if job.state not in ENDED:
                job.end("failed", 1, code)
            return 1
        if code is None:
            self._lost[job.id] += 1
            if self._lost[job.id] <= self.settings.max_requeues:
                return LOST
            lost = plural(self._lost[job.id], "time")
            job.end("failed", 1, f"the Ray node that it ran on was lost, {lost} in all")
            return 1
        if code > 0 and code not in (BUSY, *STOPPED) and job.state != "failed":
            job.end("failed", 1, f"it ended with exit code {code}; see {job.path / LOGS}")
        return code

    def _tell_of_lost_nodes(self) -> None:
        """Say once of each job that waits for nodes that are no longer there that it does."""
        if self.settings.autoscaling or time.monotonic() - self._looked_at < SECONDS_PER_LOOK:
            return
        self._looked_at = time.monotonic()
        for each in self._running.values():
            lacking = None if each.job.alive else _lacking(each.need)
            if lacking and each.job.id not in self._waiting:
                log.warning("%s: waits for nodes that join: it %s", each.job.label, lacking)
            (self._waiting.add if lacking else self._waiting.discard)(each.job.id)

    def _need(self, trainer: TrainerSettings) -> Need:
        ranks = trainer.local_ranks()
        bundle = self.settings.bundle(ranks, 0 if trainer.is_cpu() else ranks)
        return Need(bundle, trainer.num_nodes)

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        address = self.settings.address or os.environ.get("RAY_ADDRESS") or "auto"
        heard = False
        keep_ray_off_output()
        try:
            heard = _knock(address)
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
            )
        except (OSError, RuntimeError, ValueError) as error:
            which = "on this machine" if address == "auto" else f"at {address}"
            if "mismatch" in str(error):  # of versions, in lines
                raise ConfigError(
                    f"The Ray cluster {which} cannot be joined. {' '.join(str(error).split())}. "
                    "Install the same Ray and the same Python here and on its nodes"
                ) from None
            token = ""
            if heard and MODE not in os.environ:  # of which Ray then sends none
                token = f". If it asks for Ray's token, set {MODE}=token here, too"
            raise ConfigError(
                f"No Ray cluster answers {which}: {_first_sentence(error)}. Start one with ray "
                "start --head, or name one by hydra.launcher.address=HOST:PORT; "
                f"hydra/launcher=local needs none{token}"
            ) from None

    def _find(self, job: Run) -> Actor | None:
        try:
            return ray.get_actor(_name(job), namespace=NAMESPACE)
        except ValueError:
            return None


def _knock(address: str) -> bool:
    """Make sure that somebody listens at an address, for whom Ray would wait for minutes.

    Returns:
        Whether there is an address.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        return True
    return False


def _name(job: Run) -> str:
    """What a job's actor is called: nothing else has the same directory."""
    path = str(job.path.resolve())
    return f"{job.path.parent.name}/{job.id}/{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def _environment() -> dict[str, str]:
    """The driver's environment, without its place among other processes, GPUs or cluster."""
    own = without_place(os.environ)
    return {k: v for k, v in own.items() if not k.startswith("RAY_") and k not in DEVICES}


DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that Ray sets for what it gives a job."""


def _lacking(need: Need) -> str | None:
    """What a cluster does not have for a job, in words; None: it could hold it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    able = [node for node in nodes if _holds(node, need.bundle)]
    if len(able) >= need.nodes:
        return None
    has = f"of the {plural(len(nodes), 'node')} of the Ray cluster {len(able)} have that"
    return f"needs {need}, but {has}"


def _holds(node: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    """Whether a node that did nothing else could hold a bundle."""
    return all(node.get(name, 0) >= amount for name, amount in bundle.items())


def _written(bundle: Mapping[str, float]) -> str:
    amounts: dict[str, Any] = {**bundle}
    if "memory" in amounts:
        amounts["GB of memory"] = amounts.pop("memory") / BYTES_PER_GB
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(" .")
