"""Learning-rate schedules: pure functions of the optimizer step, as shares of the peak rate.

A length (`warmup`, `decay`) is a number of optimizer steps if it is an int, and a share of the
training if it is a float in [0, 1). With S steps in all, counted from 0, and w of warm-up:

    factor(s) = (s + 1) / w                     for s < w
    factor(s) = 1 - decline(t)                  after it

so that the first step already learns and the last one of the warm-up has the peak rate. t goes
from 0 at the start of the decay to 1 at S; each schedule has its own decline, to `final`, the
share of the peak rate that is left at S.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, Lt

from truesweep.errors import ConfigError

Length = Annotated[int, Ge(0)] | Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(kw_only=True, frozen=True)
class Schedule(ABC):
    """A linear warm-up, then a decline."""

    warmup: Length = 0.02

    def factor(self, step: int, total_steps: int) -> float:
        """The share of the peak rate at a step; past the end, the last value holds."""
        warmup = _steps(self.warmup, total_steps)
        if step < warmup:
            return (step + 1) / warmup
        start = self._decay_start(total_steps)
        t = (step - start) / max(1, total_steps - start)
        return 1 - self._decline(min(1.0, max(0.0, t)))

    def check(self, total_steps: int) -> None:
        """Raise a `ConfigError` if the warm-up leaves nothing of a training of `total_steps`."""
        warmup = _steps(self.warmup, total_steps)
        if warmup >= total_steps:
            raise ConfigError(
                f"scheduler.warmup={self.warmup} takes {warmup} of the {total_steps} steps of "
                f"training. Set it below {total_steps} or to a share such as 0.02, or set a larger "
                "trainer.max_steps or trainer.max_epochs."
            )

    def _decay_start(self, total_steps: int) -> int:
        return _steps(self.warmup, total_steps)

    @abstractmethod
    def _decline(self, t: float, /) -> float:
        """How far below the peak rate: 0 at t = 0, up to 1 at t = 1."""


@dataclass(kw_only=True, frozen=True)
class Constant(Schedule):
    """decline(t) = 0."""

    def _decline(self, _t: float, /) -> float:
        return 0.0


@dataclass(kw_only=True, frozen=True)
class Linear(Schedule):
    """decline(t) = (1 - final) t, right after the warm-up."""

    final: Share = 0.0

    def _decline(self, t: float, /) -> float:
        return (1 - self.final) * t


@dataclass(kw_only=True, frozen=True)
class Cosine(Schedule):
    """decline(t) = (1 - final) (1 - cos(pi t)) / 2, right after it (Loshchilov & Hutter 2017)."""

    final: Share = 0.0

    def _decline(self, t: float, /) -> float:
        return (1 - self.final) * (1 - math.cos(math.pi * t)) / 2


@dataclass(kw_only=True, frozen=True)
class WarmupStableDecay(Linear):
    """decline(t) = (1 - final) t over the last `decay` steps; 0 before (Hu et al. 2024)."""

    decay: Length = 0.2

    def check(self, total_steps: int) -> None:
        """Raise a `ConfigError` unless warm-up and decay together fit into `total_steps`."""
        super().check(total_steps)
        start, warmup = self._decay_start(total_steps), _steps(self.warmup, total_steps)
        if start < warmup:
            raise ConfigError(
                f"scheduler.decay={self.decay} begins at step {start} of {total_steps}, before the "
                f"warm-up has ended at {warmup}. Set a shorter scheduler.decay or scheduler.warmup."
            )

    def _decay_start(self, total_steps: int) -> int:
        return total_steps - _steps(self.decay, total_steps)


def _steps(length: int | float, total_steps: int) -> int:
    return length if isinstance(length, int) else round(length * total_steps)
