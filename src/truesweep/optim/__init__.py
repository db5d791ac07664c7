"""Optimizers over parameter groups, and learning-rate schedules."""

from truesweep.optim.muon_adamw import (
    MuonAdamW,
    compile_ahead,
    set_found_inf,
    takes_found_inf,
)
from truesweep.optim.optimizers import (
    OVER_BASE,
    ROLES,
    Role,
    adamw,
    muon,
    parameter_groups,
    rescale,
    sgd,
)
from truesweep.optim.schedules import Constant, Cosine, Linear, Schedule, WarmupStableDecay

__all__ = [
    "OVER_BASE",
    "ROLES",
    "Constant",
    "Cosine",
    "Linear",
    "MuonAdamW",
    "Role",
    "Schedule",
    "WarmupStableDecay",
    "adamw",
    "compile_ahead",
    "muon",
    "parameter_groups",
    "rescale",
    "set_found_inf",
    "sgd",
    "takes_found_inf",
]
