"""A ranking in words."""

from collections.abc import Sequence

from truesweep import text
from truesweep.analysis.outcomes import Direction
from truesweep.analysis.standings import Basis, Standing

NAMED = 5
"""Tied points that are listed; of more, these and how many there are."""
LEADERS = 3
"""Points at most that are named as those to repeat."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Splits in words, by the first part of a figure's name."""


def describe(
    standings: Sequence[Standing], basis: Basis, objective: str, direction: Direction, alpha: float
) -> str:
    """Say which point is best and how sure that is."""
    if not standings:
        return f"No job has {objective}."
    best = standings[0]
    first = f"Best {objective}: {best.mean:.4g} with {_label(best)}"
    if len(standings) == 1:
        return f"{first}, the only point."
    if basis == "none":
        return (
            f"{first}. With one seed a point nothing is known about noise: a repetition may turn "
            "out otherwise. Add seeds to the leading points."
        )
    sure = f"{100 * (1 - alpha):.3g} % confidence over"
    if basis != "seeds":
        return f"{_on_split(standings, objective, direction, sure)} {_repeat(standings)}"
    tied = _tied(standings)
    if not tied:
        return f"{first}, better than {_others(standings)} ({sure} seeds)."
    return f"{first}. Not to be told apart from it ({sure} seeds): {_listed(tied)}."


def describe_unlike(differs: Sequence[str], objective: str) -> str:
    """Say why no point is best."""
    return (
        f"The runs differ in their {' and '.join(differs)}, so that {objective} of one says "
        "nothing about that of another: no run is called the best."
    )


def _on_split(
    standings: Sequence[Standing], objective: str, direction: Direction, sure: str
) -> str:
    """What a split tells of its runs, which is not what it tells of their configurations."""
    most, more = ("Lowest", "lower") if direction == "minimize" else ("Highest", "higher")
    best, tied = standings[0], _tied(standings)
    first = f"{most} {objective}: {best.mean:.4g} with {_label(best)}"
    split = " ".join(["this", *filter(None, [SPLITS.get(objective.partition("/")[0])]), "split"])
    where = f"on {split} ({sure} its samples)"
    if not tied:
        return f"{first}, {more} than {_others(standings)} {where}."
    return f"{first}; not to be told apart from it {where}: {_listed(tied)}."


def _repeat(standings: Sequence[Standing]) -> str:
    leaders = [standings[0], *(_tied(standings) or standings[1:2])]
    names = [_label(one) for one in leaders]
    which = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= LEADERS else "the leaders"
    return (
        "Seeds were not varied, and another seed may reorder them: "
        f"repeat {which} with sweeps.seeds=3."
    )


def _tied(standings: Sequence[Standing]) -> list[Standing]:
    return [one for one in standings[1:] if one.tied]


def _others(standings: Sequence[Standing]) -> str:
    few = {2: "the other one", 3: "both others"}
    return few.get(len(standings), f"all {len(standings) - 1} others")


def _listed(tied: Sequence[Standing]) -> str:
    named = "; ".join(_label(one) for one in tied[:NAMED])
    return f"{named} and {len(tied) - NAMED} more" if len(tied) > NAMED else named


def _label(one: Standing) -> str:
    return text.label(one.varies) or "one configuration"
