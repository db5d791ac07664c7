"""What happens around the steps of a training."""

from truesweep.callbacks.agreement import SameConfiguration
from truesweep.callbacks.checkpoint import Checkpoint, SaveFirst
from truesweep.callbacks.display import ProgressDisplay
from truesweep.callbacks.early_stopping import EarlyStopping
from truesweep.callbacks.heartbeat import Heartbeat
from truesweep.callbacks.length import LeaveAfter, StopAfter
from truesweep.callbacks.preemption import SIGNALS, Preemption, Stopped, Told, stoppable, told
from truesweep.callbacks.pruning import Pruned, Pruning
from truesweep.callbacks.validation import Validation

__all__ = [
    "SIGNALS",
    "Checkpoint",
    "EarlyStopping",
    "Heartbeat",
    "LeaveAfter",
    "Preemption",
    "ProgressDisplay",
    "Pruned",
    "Pruning",
    "SameConfiguration",
    "SaveFirst",
    "StopAfter",
    "Stopped",
    "Told",
    "Validation",
    "stoppable",
    "told",
]
