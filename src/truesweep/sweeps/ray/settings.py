"""What a job asks a Ray cluster for."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt

BYTES_PER_GB = 1024**3


@dataclass(kw_only=True)
class RaySettings:
    """What each job asks Ray for.

    A job has a placement group of its own, with a bundle for each of its `trainer.num_nodes`,
    which lie on different nodes of the cluster.

    Args:
        address: Of the cluster, such as `10.0.0.1:6379`; None: `RAY_ADDRESS`, or the one that this
            machine belongs to.
        cpus_per_node: Cores on each node; None: one a rank.
        gpus_per_node: GPUs on each node; None: `trainer.devices` for jobs that train on GPUs.
        mem_gb: Main memory on each node, GB, which Ray counts and does not enforce.
        resources: Further resources on each node, such as `{accelerator_type:A100: 0.001}`.
        max_jobs: The most jobs that wait or run on the cluster at once.
        max_requeues: How often a job whose node was lost is started again.
        autoscaling: Whether the cluster adds nodes as they are asked for, so that a job may ask for
            what no node has yet.
        python: The command that starts Python on the nodes; None: that of the cluster.
    """

    address: str | None = None
    cpus_per_node: Annotated[int, Gt(0)] | None = None
    gpus_per_node: Annotated[int, Ge(0)] | None = None
    mem_gb: Annotated[float, Gt(0)] | None = None
    resources: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    max_jobs: Annotated[int, Gt(0)] = 64
    max_requeues: Annotated[int, Ge(0)] = 1000
    autoscaling: bool = False
    python: str | None = None

    def bundle(self, ranks: int, gpus: int) -> dict[str, float]:
        """What a job asks for on each of its nodes, as Ray names it.

        Args:
            ranks: Ranks on each node.
            gpus: GPUs that they train on.
        """
        gpus = gpus if self.gpus_per_node is None else self.gpus_per_node
        memory = None if self.mem_gb is None else round(self.mem_gb * BYTES_PER_GB)
        asked = {"CPU": self.cpus_per_node or ranks, "GPU": gpus, "memory": memory}
        return {**{name: float(value) for name, value in asked.items() if value}, **self.resources}
