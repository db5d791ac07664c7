"""What a job asks a cluster for."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt

from truesweep.errors import ConfigError


@dataclass(kw_only=True)
class SlurmSettings:
    """What each job asks Slurm for; the names are those of submitit's and Hydra's own launcher.

    A job's nodes are its `trainer.num_nodes`; each runs one task, which starts the node's ranks.

    Args:
        partition: The partition; None: the cluster's default, as everywhere below.
        account: The account that is charged.
        qos: The quality of service.
        constraint: Features that nodes must have.
        gres: Generic resources on each node, such as `gpu:a100:2`; those of GPUs are then not asked
            for by `gpus_per_node`.
        exclude: Nodes that must not be used, as text or a list.
        nodelist: Nodes that must be, likewise.
        comment: A comment, for whatever the cluster makes of it.
        timeout_min: Time limit of an allocation, minutes. A job that reaches it saves, is requeued
            and goes on in another allocation.
        cpus_per_task: Cores on each node, for all of its ranks and their data workers.
        gpus_per_node: GPUs on each node; None: `trainer.devices` for jobs that train on GPUs.
        mem_gb: Main memory on each node, GB.
        array_parallelism: The most jobs that wait or run on the cluster at once.
        signal_delay_s: How long before the time limit a job is told to save, seconds.
        max_requeues: How often a job that was preempted, or reached its time limit, is requeued.
        setup: Shell commands to run before a job, such as `module load cuda`.
        python: The command that starts Python on the nodes; None: this one.
        additional_parameters: Any other options of sbatch, such as `{licenses: foo}`; `true` is an
            option without a value, and `false` and null leave one out, also `requeue`.
        poll_seconds: How often Slurm is asked for the jobs that have ended.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | list[str] | None = None
    exclude: str | list[str] | None = None
    nodelist: str | list[str] | None = None
    comment: str | None = None
    timeout_min: Annotated[int, Gt(0)] = 60
    cpus_per_task: Annotated[int, Gt(0)] | None = None
    gpus_per_node: Annotated[int, Ge(0)] | None = None
    mem_gb: Annotated[float, Gt(0)] | None = None
    array_parallelism: Annotated[int, Gt(0)] = 256
    signal_delay_s: Annotated[int, Gt(0)] = 120
    max_requeues: Annotated[int, Ge(0)] = 1000
    setup: list[str] = field(default_factory=list)
    python: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    poll_seconds: Annotated[float, Gt(0)] = 5.0

    def __post_init__(self) -> None:
        if self.signal_delay_s + SECONDS_EARLY >= 60 * self.timeout_min:
            raise ConfigError(
                f"hydra.launcher.timeout_min={self.timeout_min}: jobs could be told to save as "
                f"soon as they begin, as that is {self.signal_delay_s} s before the time limit and "
                f"Slurm may be {SECONDS_EARLY} s early; ask for more minutes, or set a smaller "
                "hydra.launcher.signal_delay_s"
            )

    def options(self, *, name: str, nodes: int, gpus: int, array: int = 1) -> dict[str, Any]:
        """The parameters of a submission, as `compat.sbatch_script` takes them.

        Args:
            name: The job's name.
            nodes: Nodes of the allocation.
            gpus: GPUs that the job trains on, on each node.
            array: How many jobs are submitted as one array.
        """
        gpus = gpus if self.gpus_per_node is None else self.gpus_per_node
        further = {_spelt(key): value for key, value in self.additional_parameters.items()}
        if self.gpus_per_node is None and GPUS & {*further, *({"gres"} if self.gres else ())}:
            gpus = 0  # asked for in another way
        asked = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gres": _listed(self.gres),
            "exclude": _listed(self.exclude),
            "nodelist": _listed(self.nodelist),
            "comment": self.comment,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": gpus or None,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
        }
        several = {"map_count": array, "array_parallelism": array} if array > 1 else {}
        return {
            **{option: value for option, value in asked.items() if value is not None},
            **several,
            "job_name": name,
            "time": self.timeout_min,
            "nodes": nodes,
            "ntasks_per_node": 1,
            "wckey": None,
            "setup": [*self.setup, *BEFORE],
            "teardown": self._after(further.get("requeue", True) is not False),
            "srun_args": [f"--wait={SECONDS_FOR_OTHERS}"],
            "additional_parameters": _flags(
                {"requeue": True, "signal": f"TERM@{self.signal_delay_s}", **further}
            ),
        }

    def _after(self, requeue: bool) -> list[str]:
        if not requeue:
            return []
        again = f'[ "$code" -eq 143 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {self.max_requeues} ]'
        again += f" && ! grep -qs '{CANCELLED}' /dev/stderr"
        return ["code=$?", f'{again} && scontrol requeue "$SLURM_JOB_ID"', 'exit "$code"']


def _spelt(option: str) -> str:
    """An option as submitit names its own: `mail-type` and `mail_type` are one."""
    return option.strip("-").replace("-", "_")


def _listed(value: Any) -> Any:
    """Several nodes or resources as sbatch takes them."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _flags(options: dict[str, Any]) -> dict[str, Any]:
    """Options as submitit writes them; `false` and null are said by leaving one out."""
    given = {k: _listed(v) for k, v in options.items() if v is not None and v is not False}
    # By default a cluster may requeue or not, so that this one has an option of its own.
    return given | ({"no_requeue": True} if options["requeue"] is False else {})


GPUS = {"gres", "gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket"}
"""Options of sbatch that ask for GPUs, one of which is enough."""
SECONDS_EARLY = 60
"""How much earlier than asked for Slurm may send a signal."""
BEFORE = ["trap : TERM INT USR1"]
"""The batch script outlives signals, which are for the job: it is the one that requeues it."""
CANCELLED = r" JOB .* CANCELLED AT [^ ]* \*\*\*"
"""What Slurm writes to the errors of a batch script whose job somebody cancels, which is to end.

A time limit or a preemption has its reason before the asterisks, and a signal names a step.
"""
SECONDS_FOR_OTHERS = 60
"""How long a node's task may go on after another's has ended; the nodes end together."""
