"""How a search chooses: a space as Optuna wants it, and its samplers by name."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from truesweep.compat import contains
from truesweep.config.overrides import as_text
from truesweep.config.space import Axis, Point, Space
from truesweep.errors import ConfigError
from truesweep.sweeps.settings import Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


Params = dict[str, Any]
"""What Optuna keeps of a point: a plain value by dimension."""


class Dimensions:
    """The dimensions of a space.

    A choice, a group and keys that are paired are categories; a range is integers, or numbers with
    a step; an interval is numbers, given to four digits.

    Args:
        space: What is varied.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._dimensions = {", ".join(a.key for a in axes): axes for axes in space.dimensions}
        self.distributions = {name: _distribution(axes) for name, axes in self._dimensions.items()}

    @property
    def numeric(self) -> bool:
        """Whether any dimension is a number."""
        return not all(_is_category(axes) for axes in self._dimensions.values())

    @property
    def finite(self) -> bool:
        """Whether all points can be listed."""
        return all(axes[0].values for axes in self._dimensions.values())

    def suit(self, trials: "Sequence[FrozenTrial]") -> bool:
        """Whether Optuna takes these dimensions in a study that has some trials already."""
        from optuna.distributions import check_distribution_compatibility

        try:
            for trial in trials:
                for name in self.distributions.keys() & trial.distributions.keys():
                    check_distribution_compatibility(
                        trial.distributions[name], self.distributions[name]
                    )
        except ValueError:
            return False
        return True

    def contain(self, params: Mapping[str, Any]) -> bool:
        """Whether a point, maybe of another space, is one of these."""
        return params.keys() == self.distributions.keys() and all(
            _contains(self.distributions[name], value) for name, value in params.items()
        )

    def point(self, params: Mapping[str, Any]) -> Point:
        """A suggestion as values of the swept keys, in the order of the axes."""
        together: Point = {}
        for name, axes in self._dimensions.items():
            together |= _values(axes, params[name])
        return {axis.key: together[axis.key] for axis in self._space.axes}

    def all(self) -> Iterator[Params]:
        """Every point, as Optuna would suggest it; the last dimension changes fastest."""
        sides = [_plain_values(axes) for axes in self._dimensions.values()]
        for values in itertools.product(*sides):
            yield dict(zip(self._dimensions, values, strict=True))

    def __len__(self) -> int:
        return math.prod(len(axes[0].values) for axes in self._dimensions.values())


def _is_category(axes: Sequence[Axis]) -> bool:
    return len(axes) > 1 or axes[0].kind == "choice"


def _distribution(axes: Sequence[Axis]) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if _is_category(axes):
        return CategoricalDistribution(_plain_values(axes))
    (axis,) = axes
    assert axis.low is not None
    assert axis.high is not None
    if axis.kind == "int":
        step = int(axis.step or 1)
        return IntDistribution(int(axis.low), int(axis.high), axis.log and step == 1, step)
    return FloatDistribution(axis.low, axis.high, axis.log and not axis.step, axis.step)


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    """Whether a value is there with its type: 1, 1.0 and true make different jobs."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return any(value == c and type(value) is type(c) for c in distribution.choices)
    number = int if isinstance(distribution, IntDistribution) else float
    return type(value) is number and contains(distribution, value)


def _plain_values(axes: Sequence[Axis]) -> list[Any]:
    """The values of a dimension, as Optuna keeps them: numbers, text, truth values or null."""
    if len(axes) > 1:
        rows = zip(*(axis.values for axis in axes), strict=True)
        return [", ".join(map(as_text, row)) for row in rows]
    return [
        value if value is None or isinstance(value, bool | int | float | str) else as_text(value)
        for value in axes[0].values
    ]


def _values(axes: Sequence[Axis], suggested: Any) -> Point:
    if _is_category(axes):
        index = _plain_values(axes).index(suggested)
        return {axis.key: axis.values[index] for axis in axes}
    (axis,) = axes
    return {axis.key: axis.rounded(suggested)}  # a step's last digit may differ


# -- samplers --------------------------------------------------------------------------------------

NEEDS = {"cmaes": ("cmaes",), "gp": ("scipy", "torch"), "qmc": ("scipy",)}
"""Packages that Optuna itself does not install, by sampler."""


def make_sampler(settings: Sweep, numeric: bool, entropy: list[int]) -> "BaseSampler":
    """The sampler that was asked for.

    Args:
        settings: The search's settings.
        numeric: Whether any swept key is a number rather than a choice.
        entropy: What chance depends on besides the seed, so that a resumed driver and one of
            several do not repeat what was suggested before. Low-discrepancy sequences go on by
            themselves, from the number of their points that the study keeps.

    Raises:
        ConfigError: It cannot work here.
    """
    import optuna

    _check(settings, numeric)
    seed = int(np.random.SeedSequence([settings.seed, *entropy]).generate_state(1)[0])
    samplers = optuna.samplers
    made: dict[str, Callable[[], BaseSampler]] = {
        # What runs beside it counts as bad meanwhile, so that slots do not get the same point.
        "tpe": lambda: samplers.TPESampler(
            seed=seed, constant_liar=True, n_startup_trials=_startup(settings.jobs)
        ),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda: samplers.GPSampler(
            seed=seed, n_startup_trials=_startup(settings.jobs), **_quiet_gp()
        ),
        "nsga2": lambda: samplers.NSGAIISampler(
            seed=seed, population_size=max(4, min(50, (settings.jobs or 200) // 4))
        ),
        "qmc": lambda: samplers.QMCSampler(
            seed=settings.seed, scramble=True, warn_independent_sampling=False
        ),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),  # its points are put into the queue
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return made[settings.sampler]()


def _check(settings: Sweep, numeric: bool) -> None:
    name = settings.sampler
    missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"sweeps.sampler={name} needs {' and '.join(missing)}, which is not installed: "
            f"pip install {' '.join(missing)}, or choose sweeps.sampler=tpe"
        )
    if name == "cmaes" and len(settings.objectives) > 1:
        raise ConfigError(
            "sweeps.sampler=cmaes knows one objective only; choose tpe or nsga2 for several"
        )
    if name == "cmaes" and not numeric:
        raise ConfigError(
            "sweeps.sampler=cmaes needs intervals or ranges, and all swept keys are choices; "
            "write interval(a,b) or range(a,b), or choose sweeps.sampler=tpe"
        )


def _startup(jobs: int | None) -> int:
    """Points drawn by chance at first: Optuna's ten, or a third of a small budget."""
    return 10 if jobs is None else max(3, min(10, jobs // 3))


def _quiet_gp() -> dict[str, Any]:
    """Choices are drawn by chance there, which Optuna 5 would warn of; 4 has no such argument."""
    import inspect

    from optuna.samplers import GPSampler

    known = inspect.signature(GPSampler).parameters
    return {"warn_independent_sampling": False} if "warn_independent_sampling" in known else {}
