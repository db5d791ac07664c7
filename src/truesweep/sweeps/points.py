"""The points of a sweep that are planned, and their seeds."""

from collections.abc import Sequence

from truesweep.config.space import Point, Space
from truesweep.errors import ConfigError
from truesweep.sweeps.request import Asked

PROBES = 20
"""Random points of a search's space that are checked beforehand, besides its corners."""


def choose_points(asked: Asked, notes: list[str]) -> list[Point]:
    """All points of a grid, or random ones; of a search some that it may come to.

    Args:
        asked: The sweep.
        notes: Gets what the user may want to know.

    Raises:
        ConfigError: The space does not fit the method.
    """
    points = _choose(asked, notes)
    if not points:
        raise ConfigError("every point of the space is excluded; mend sweeps.exclude")
    return points


def _choose(asked: Asked, notes: list[str]) -> list[Point]:
    settings, space = asked.settings, asked.space
    if settings.method == "search":
        return _probes(space)
    if settings.method == "grid":
        points = space.grid()
        if settings.jobs is not None and len(points) > settings.jobs:
            raise ConfigError(
                f"the grid has {len(points)} points, more than sweeps.jobs={settings.jobs}; "
                "raise it, or try some of them with sweeps.method=random"
            )
        return points
    assert settings.jobs is not None, "random points have a number"
    points = space.sample(settings.jobs)
    if len(points) < settings.jobs:
        notes.append(f"the space has no more than {len(points)} points")
    return points


def _probes(space: Space) -> list[Point]:
    """Points of a search's space: each value, or each end, of every axis, and some by chance."""
    middle = space.sample(PROBES)
    corners = [
        {**middle[0], **dict(zip((axis.key for axis in axes), values, strict=True))}
        for axes in space.dimensions
        if middle
        for values in zip(*(axis.values or (axis.low, axis.high) for axis in axes), strict=True)
    ]
    probes: list[Point] = []
    for point in [*corners, *middle]:
        if point not in probes and not space.excluded(point):
            probes.append(point)
    return probes


def base_seed(asked: Asked) -> int:
    """The configuration's own seed, from which a number of seeds counts up."""
    point = next(iter(asked.space.sample(1)), {})
    return int(asked.composer().compose(point).config["seed"])


def choose_seeds(asked: Asked) -> Sequence[int | None]:
    """The seeds of each point; all points come to their first before any comes to its second."""
    if asked.settings.seeds == 1:
        return [None]
    return asked.settings.seed_list(base_seed(asked))
