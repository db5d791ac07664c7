"""A Slurm cluster as the place where a sweep's jobs run."""

from truesweep.sweeps.slurm.executor import SlurmExecutor
from truesweep.sweeps.slurm.settings import SlurmSettings

__all__ = ["SlurmExecutor", "SlurmSettings"]
