"""Transformers models, new ones from a few numbers or pretrained ones, for a head."""

from transformers.utils import logging

from truesweep.models.adapters import Lora, add_adapter
from truesweep.models.dropout import SampleDropout, drops, recompute_layers, recomputes_layers
from truesweep.models.heads import PRESETS, Head
from truesweep.models.pretrained import Pretrained
from truesweep.models.scratch import Scratch
from truesweep.models.size import (
    Activations,
    Flops,
    ParameterCount,
    activations,
    count_parameters,
    flops_per_token,
    peak_flops,
)

__all__ = [
    "PRESETS",
    "Activations",
    "Flops",
    "Head",
    "Lora",
    "ParameterCount",
    "Pretrained",
    "SampleDropout",
    "Scratch",
    "activations",
    "add_adapter",
    "count_parameters",
    "drops",
    "flops_per_token",
    "peak_flops",
    "recompute_layers",
    "recomputes_layers",
]

logging.disable_progress_bar()  # weights of our size load at once, and commands print results only
