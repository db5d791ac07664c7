"""Which implementation of attention a model runs."""

from typing import Literal

import torch

Attention = Literal["eager", "sdpa", "flash_attention_2", "flex_attention"]

_LONGEST_EAGER = 256  # tokens; on a CPU the fused kernels are slower up to here


def choose_attention(asked: Attention | None, max_length: int) -> Attention | None:
    """What was asked for, else the fastest; None leaves it to transformers (SDPA if it can)."""
    if asked is not None or torch.cuda.is_available() or max_length > _LONGEST_EAGER:
        return asked
    return "eager"
