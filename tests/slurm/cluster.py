"""A Slurm of two nodes on this machine: munge, a controller and two daemons, on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("alpha", "beta")
CPUS = 2
MEMORY = 16_000
"""MB of each node, for Slurm."""
SECONDS_TO_START = 20


class NotStartable(RuntimeError):
    """This machine cannot run a Slurm."""


@dataclass(frozen=True)
class Cluster:
    """A Slurm that runs.

    Args:
        folder: Of its keys, sockets, state and logs.
        stack: What ends with it.
    """

    folder: Path
    stack: ExitStack

    @property
    def conf(self) -> Path:
        """Its configuration file."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """In which its commands talk to it."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def serve(self, *command: str) -> None:
        """Start one of its daemons."""
        log = self.folder / f"{'-'.join([command[0], *command[3:]])}.out"
        self.stack.enter_context(_daemon(command, log, self.environment))

    def lose(self, node: str) -> None:
        """Have a node die at once, with all that Slurm runs on it."""
        ids = _ask(self.environment, "squeue", "-ho%A", f"-w{node}")
        steps = tuple(f"slurmstepd: [{one}." for one in ids)
        daemon = psutil.Process(int((self.folder / f"slurmd.{node}.pid").read_text()))
        found = (p for p in psutil.process_iter() if _title(p).startswith(steps))
        of_steps = [p for p in found if self._is_its(p)]  # another Slurm here has the same numbers
        below = [child for step in of_steps for child in step.children(recursive=True)]
        for process in [daemon, *of_steps, *below]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # The controller finds out by itself, some minutes later.
        _ask(
            self.environment, "scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=died"
        )

    def _is_its(self, process: psutil.Process) -> bool:
        """Whether a process belongs to this Slurm."""
        with suppress(OSError):  # its title overwrites the first variables, where psutil stops
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            return f"SLURM_CONF={self.conf}".encode() in environment.split(b"\0")
        return False

    def restart_controller(self) -> None:
        """Kill what decides for the cluster, and start it again, without its last seconds."""
        psutil.Process(int((self.folder / "slurmctld.pid").read_text())).kill()
        self.serve("slurmctld", "-D")

    def bring_back(self, node: str) -> None:
        """Start a node that has died, and wait until it is there."""
        self.serve("slurmd", "-D", "-N", node)
        self.await_nodes()

    def await_nodes(self) -> None:
        """Wait until all nodes are there and have nothing to do.

        Raises:
            NotStartable: They do not come up.
        """
        asked = "sinfo", "-hNo%T"
        _until(lambda: _ask(self.environment, *asked) == ["idle"] * len(NODES), self.folder)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a Slurm as the current user until the block ends.

    Args:
        folder: For keys, sockets, state and logs.

    Raises:
        NotStartable: A program is missing or does not come up.
    """
    missing = [name for name in PROGRAMS if not _program(name)]
    if missing:
        raise NotStartable(f"{', '.join(missing)}: not found; apt-get install slurm-wlm munge")
    with ExitStack() as stack:
        socket_path = stack.enter_context(_munge(folder))
        _write_configuration(folder, socket_path)
        running = Cluster(folder, stack)
        running.serve("slurmctld", "-D")
        for node in NODES:
            running.serve("slurmd", "-D", "-N", node)
        running.await_nodes()
        stack.callback(_cancel_all, running.environment)
        yield running


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def _munge(folder: Path) -> Iterator[Path]:
    """The service that vouches for who sends a message; its socket."""
    key, address = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    command = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={address}"]
    for kind in ("log", "pid", "seed"):
        command.append(f"--{kind}-file={folder / f'munge.{kind}'}")
    with _daemon(command, folder / "munge.out", dict(os.environ)):
        _until(address.exists, folder)
        yield address


def _write_configuration(folder: Path, munge_socket: Path) -> None:
    ports = _free_ports(1 + len(NODES))
    user = Path(f"/proc/{os.getpid()}").owner()
    lines = [
        "ClusterName=tests",
        f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"SlurmctldPort={ports[0]}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool.%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.%n.pid",
        # How long a requeued job waits, 120 s by default; 5 is the least.
        f"AuthInfo=socket={munge_socket},cred_expire=5",
        "ProctrackType=proctrack/linuxproc",  # needs no cgroups
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        f"DefMemPerCPU={MEMORY // CPUS}",
        "SchedulerParameters=sched_interval=1,sched_min_interval=1,batch_sched_delay=0",
        "JobRequeue=1",
        "ReturnToService=2",
        "MpiDefault=none",
        "KillWait=30",
        # A job that asks for memory is killed for more; that needs no cgroups either.
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=1",
        "JobAcctGatherParams=OverMemoryKill",
        "SlurmdParameters=config_overrides",  # the CPUs below, whatever the machine has
        "GresTypes=seat",
    ]
    for name, port in zip(NODES, ports[1:], strict=True):
        has = f"CPUs={CPUS} RealMemory={MEMORY} Gres=seat:{CPUS} State=UNKNOWN"
        lines.append(f"NodeName={name} NodeAddr=127.0.0.1 Port={port} {has}")
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP")
    (folder / "gres.conf").write_text(f"Name=seat Count={CPUS}\n")  # stands for GPUs
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def _program(name: str) -> str:
    """Its path, also where Debian puts daemons; empty if it is not installed."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or ""


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def _daemon(command: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    program, *arguments = command
    with log.open("wb") as out:
        process = subprocess.Popen(
            [_program(program), *arguments],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(environment: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def _cancel_all(environment: dict[str, str]) -> None:
    """Leave no job behind: the daemons would."""
    deadline = time.monotonic() + SECONDS_TO_START
    while (left := _ask(environment, "squeue", "-ho%i")) and time.monotonic() < deadline:
        _ask(environment, "scancel", "--signal=KILL", "--full", *left)
        _ask(environment, "scancel", *left)
        time.sleep(0.2)


def _until(ready: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not ready():
        if time.monotonic() > deadline:
            logs = "\n".join(
                path.read_text(errors="replace")[-500:] for path in folder.glob("*.out")
            )
            raise NotStartable(f"Slurm did not start within {SECONDS_TO_START} s:\n{logs}")
        time.sleep(0.1)
