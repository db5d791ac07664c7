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
            is_value_of(self.distributions[name], value) for name, value in params.items()
        )

    def point(self, params: Mapping[str, Any]) -> Point:
        """A suggestion as values of the swept keys, in the order of the axes."""
        together: Point = {}
        for name, axes in self._dimensions.items():
            together |= _values(axes, params[name])
        return {axis.key: together[axis.key] for axis in self._space.axes}

    def nearest(self, start: Mapping[str, Any]) -> Params:
        """The point next to some values; in the middle where nothing is said.

        Args:
            start: Values by key; those of keys that do not vary are left out.
        """
        return {
            name: _nearest(distribution, start.get(self._dimensions[name][0].name))
            for name, distribution in self.distributions.items()
        }

    def neighbours(self, params: Params, stride: float) -> Iterator[Params]:
        """The points one step away in one dimension, see `_steps`, and what goes with it."""
        for name, distribution in self.distributions.items():
            for value in _steps(distribution, params[name], stride):
                yield {**params, **self._taken_along(params, name, value), name: value}

    def _taken_along(self, params: Params, name: str, value: Any) -> Params:
        """What else changes when a dimension does, see `TAKES_ALONG`."""
        other, power = TAKES_ALONG.get(name, ("", 0.0))
        if other not in params or not _are_numbers([value, params[name], params[other]]):
            return {}
        moved = params[other] * (value / params[name]) ** power
        return {other: _nearest(self.distributions[other], moved)}

    def below(self, params: Params) -> Iterator[Params]:
        """The points two steps below in one dimension with a logarithmic scale.

        Learning rates that are much too high differ by chance, so that one step down may be up.
        """
        for name, distribution in self.distributions.items():
            if getattr(distribution, "log", False):
                one = min(_steps(distribution, params[name]), default=params[name])
                for value in _steps(distribution, one):
                    if value < one:
                        yield {**params, name: value}

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


def is_value_of(distribution: "BaseDistribution", value: Any) -> bool:
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


def _nearest(distribution: "BaseDistribution", wanted: Any) -> Any:
    """The value of a dimension next to one; its middle, where that is None or no number."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    number = wanted if isinstance(wanted, int | float) and not isinstance(wanted, bool) else None
    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = list(distribution.choices)
        if wanted in choices:
            return wanted
        if number is None or not _are_numbers(choices):
            return choices[(len(choices) - 1) // 2]
        if min(*choices, number) > 0:
            return min(choices, key=lambda one: abs(math.log(one / number)))
        return min(choices, key=lambda one: abs(one - number))
    limits: Any = distribution
    if number is None:
        both = limits.low, limits.high
        number = math.sqrt(both[0] * both[1]) if limits.log else sum(both) / 2
    number = min(max(number, limits.low), limits.high)
    if limits.step:
        number = limits.low + round((number - limits.low) / limits.step) * limits.step
    return round(number) if isinstance(distribution, IntDistribution) else float(number)


def _are_numbers(choices: Sequence[Any]) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in choices)


STRIDE = 3.0
"""By what factor a climb's step changes a number on a logarithmic scale."""
FINER = 3.0**0.5
"""The same where no such step is better."""
TAKES_ALONG = {"data.batch_size": ("optimizer.lr", 0.5)}
"""With a larger batch the best rate grows, by about the root for optimizers that scale their steps
(Malladi et al. 2022, arXiv 2205.10287): at the old rate neither batch would be seen at its best."""
PARTS = 8
"""How many of its steps cross an interval on a linear one."""


def _steps(distribution: "BaseDistribution", value: Any, stride: float = STRIDE) -> list[Any]:
    """The neighbours of a value: the next choices, or the next number up and down."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = list(distribution.choices)
        if not _are_numbers(choices):
            return [one for one in choices if one != value]
        ordered = sorted(choices)
        place = ordered.index(value)
        return [*ordered[place + 1 : place + 2], *ordered[max(0, place - 1) : place]]
    limits: Any = distribution
    if limits.log:
        both = [value * stride, value / stride]
    else:
        step = limits.step or (limits.high - limits.low) / PARTS
        both = [value + step, value - step]
    if isinstance(distribution, IntDistribution):
        both = [round(one) for one in both]
    kept = [min(max(one, limits.low), limits.high) for one in both]
    return [one for one in dict.fromkeys(kept) if one != value]


# -- climbing --------------------------------------------------------------------------------------

CLOSE = 1.15
"""Numbers on a logarithmic scale that differ by less than this factor are not worth a job."""

Tried = tuple[Params, float | None]
"""A point and its value, less being better: infinite where it failed, None while it runs."""


def climb(dimensions: Dimensions, tried: Sequence[Tried], finer: bool = False) -> Params | None:
    """The next point of a search that goes from the best point so far to a better one.

    First the neighbours of the best point, dimension by dimension, and what lies two steps below it
    on a logarithmic scale; once all of them are known to be worse, the vertex of a parabola through
    three values there. What waits counts with the value that is forecast.

    Args:
        dimensions: What is varied.
        tried: What is known, at least a start.
        finer: Whether smaller steps are worth a job, too.

    Returns:
        None where nothing is left to try, or not before what runs has ended.
    """
    ended = [one for one in tried if one[1] is not None]
    best = min(ended, key=lambda one: one[1] or 0.0)[0] if ended else tried[0][0]
    known = [params for params, _ in tried]
    near: list[tuple[Params, float]] = [
        (one, STRIDE) for one in dimensions.neighbours(best, STRIDE)
    ]
    near += [(one, STRIDE) for one in dimensions.below(best)]
    near += [(one, FINER) for one in dimensions.neighbours(best, FINER) if finer]
    for params, stride in near:
        if not any(_near(params, other, dimensions, stride) for other in known):
            return params
    if len(ended) < len(tried):
        return None
    for name, distribution in dimensions.distributions.items():
        if getattr(distribution, "log", False):
            line = {
                params[name]: value
                for params, value in ended
                if value is not None
                and all(params[other] == best[other] for other in best if other != name)
            }
            vertex = _vertex(line, best[name])
            if vertex is not None:
                return {**best, name: vertex}
    return None


def _near(one: Params, other: Params, dimensions: Dimensions, stride: float) -> bool:
    """Whether two points differ by less than half a step in each dimension."""
    for name, distribution in dimensions.distributions.items():
        if getattr(distribution, "log", False):
            if abs(math.log(one[name] / other[name])) > math.log(stride) / 2:
                return False
        elif one[name] != other[name] and not (
            isinstance(one[name], float) and math.isclose(one[name], other[name])
        ):
            return False
    return True


def _vertex(line: Mapping[float, float], best: float) -> float | None:
    """Where a parabola over the logarithm is least; None: not known, or tried."""
    ordered = sorted(line)
    place = ordered.index(best)
    if place in (0, len(ordered) - 1):
        return None
    near = ordered[place - 1 : place + 2]
    if min(near[1] / near[0], near[2] / near[1]) < math.sqrt(STRIDE):
        return None  # a vertex was tried: what is left is less than the noise of a job
    losses = [line[one] for one in near]
    if not all(map(math.isfinite, losses)):
        return None
    curvature, slope, _ = np.polyfit(np.log(near), losses, 2)
    if curvature <= 0:
        return None
    vertex = math.exp(-slope / (2 * curvature))
    vertex = type(best)(round(vertex) if isinstance(best, int) else vertex)
    if any(max(vertex / one, one / vertex) < CLOSE for one in ordered):
        return None
    return vertex


# -- samplers --------------------------------------------------------------------------------------

BY_VALUES = ("tpe", "gp")
"""Samplers that look at nothing but the points so far and their values."""
NEEDS = {"cmaes": ("cmaes",), "gp": ("scipy", "torch"), "qmc": ("scipy",)}
"""Packages that Optuna itself does not install, by sampler."""


def make_sampler(settings: Sweep, numeric: bool, entropy: list[int]) -> "BaseSampler":
    """The sampler that was asked for.

    Args:
        settings: The search's settings.
        numeric: Whether any swept key is a number rather than a choice.
        entropy: What chance depends on besides the seed, so that what was suggested before, or is
            to another driver, is not repeated. Low-discrepancy sequences go on by themselves, from
            the number of their points that the study keeps.

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
        # The points of these are put into the queue.
        "grid": lambda: samplers.RandomSampler(seed=seed),
        "climb": lambda: samplers.RandomSampler(seed=seed),
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
    if name in ("cmaes", "climb") and len(settings.objectives) > 1:
        raise ConfigError(
            f"sweeps.sampler={name} knows one objective only; choose tpe or nsga2 for several"
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
