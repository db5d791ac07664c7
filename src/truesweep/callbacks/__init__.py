"""What happens around the steps of a training."""

from truesweep.callbacks.checkpoint import Branches, Checkpoint, Replay, SaveFirst
from truesweep.callbacks.display import ProgressDisplay
from truesweep.callbacks.harness import Harness
from truesweep.callbacks.job import (
    Heartbeat,
    LeaveAfter,
    SameConfiguration,
    StopAfter,
    TakeUp,
    check_settled,
)
from truesweep.callbacks.preemption import SIGNALS, Preemption, Stopped, Told, stoppable, told
from truesweep.callbacks.stopping import EarlyStopping, Paused, Pruned, Pruning
from truesweep.callbacks.validation import Validation

__all__ = [
    "SIGNALS",
    "Branches",
    "Checkpoint",
    "EarlyStopping",
    "Harness",
    "Heartbeat",
    "LeaveAfter",
    "Paused",
    "Preemption",
    "ProgressDisplay",
    "Pruned",
    "Pruning",
    "Replay",
    "SameConfiguration",
    "SaveFirst",
    "StopAfter",
    "Stopped",
    "TakeUp",
    "Told",
    "Validation",
    "check_settled",
    "stoppable",
    "told",
]
