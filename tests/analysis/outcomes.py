"""Sweeps made up for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from truesweep.analysis.outcomes import Outcome


def outcome(value: float | None, **changes: Any) -> Outcome:
    """A job whose loss is a value; each of its own point unless it says otherwise."""
    varies = changes.pop("varies", {})
    point = changes.pop("point", repr(varies) if varies else str(value))
    known: dict[str, Any] = {"id": f"{point}/{changes.get('seed')}", "objectives": {"loss": value}}
    return Outcome(**{**known, **changes}, point=point, varies=varies)


def seeded(
    truths: Sequence[float], noise: float, seeds: int, draw: np.random.Generator
) -> list[Outcome]:
    """A sweep of one key `k`, whose point i has the loss truths[i] give or take a seed's noise."""
    return [
        outcome(truth + noise * float(draw.standard_normal()), seed=seed, varies={"k": i})
        for i, truth in enumerate(truths)
        for seed in range(seeds)
    ]
