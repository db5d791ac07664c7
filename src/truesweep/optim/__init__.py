"""Optimizers over parameter groups, and learning-rate schedules."""

from truesweep.optim.groups import ROLES, Role, parameter_groups
from truesweep.optim.muon_adamw import MuonAdamW
from truesweep.optim.optimizers import adamw, muon, sgd
from truesweep.optim.schedules import Constant, Cosine, Linear, Schedule, WarmupStableDecay

__all__ = [
    "ROLES",
    "Constant",
    "Cosine",
    "Linear",
    "MuonAdamW",
    "Role",
    "Schedule",
    "WarmupStableDecay",
    "adamw",
    "muon",
    "parameter_groups",
    "sgd",
]
