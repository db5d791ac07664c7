"""Two runs: in what they differ, and whether their figures differ by more than noise."""

import math
from dataclasses import dataclass
from typing import Any

from truesweep.analysis.differences import Difference, differences
from truesweep.analysis.noise import Basis, noise
from truesweep.analysis.outcomes import sign, unlike
from truesweep.analysis.ranking import ALPHA, SPLITS
from truesweep.report.objective import Objective, declared_by
from truesweep.report.outcomes import outcomes, paired
from truesweep.report.run import Run

VERSIONS = ("python", "packages", "git", "platform", "hardware")


def sides(a: Run, b: Run) -> dict[str, list[Difference]]:
    """What differs between two runs, by subject; a subject in which they agree is empty."""
    return {
        "configuration": differences(a.config, b.config),
        "results": differences(_outcome(a), _outcome(b)),
        "versions": differences(_some(a, VERSIONS), _some(b, VERSIONS)),
        "data": differences(a.provenance.get("data") or {}, b.provenance.get("data") or {}),
    }


def _some(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: run.provenance[name] for name in names if name in run.provenance}


def _outcome(run: Run) -> dict[str, Any]:
    """How a run ended; one without results, how far it came."""
    so_far = {"step": run.step, "tokens": run.tokens} if not run.results else {}
    error = {} if run.error is None else {"error": run.error}
    verdict = {"verdict": run.verdict} if run.verdict else {}
    return {"state": run.state, **error, **so_far, **run.results, **verdict}


@dataclass(frozen=True)
class Gap:
    """How far two runs' figures are apart, and how far chance alone may set them apart.

    Args:
        difference: The second run's figure minus the first one's.
        margin: How far the worse of two equals may be behind, at 95 % confidence; None where that
            is not known. Of the split's samples only: another seed may change more.
        basis: What it is known from, as a ranking of the two would have it.
        unlike: What the figure was measured on that differs, so that no run is the better.
    """

    difference: float
    margin: float | None
    basis: Basis
    unlike: tuple[str, ...] = ()

    @property
    def beyond(self) -> bool | None:
        """Whether they are further apart than noise explains; None where that is not known."""
        return None if self.margin is None else abs(self.difference) > self.margin


def gaps(a: Run, b: Run) -> dict[str, Gap]:
    """The figures of a split that both runs ended with, those of which one end is the better."""
    declared = declared_by([a, b])
    found = {
        f"{split}/{figure.name}": _gap(a, b, Objective(f"{split}/{figure.name}", figure.mode))
        for split in SPLITS
        if split != "train"
        for figure in declared.values()
        if figure.mode is not None
    }
    return {name: gap for name, gap in found.items() if gap is not None}


def _gap(a: Run, b: Run, objective: Objective) -> Gap | None:
    name = objective.name
    if not {name} <= a.results.keys() & b.results.keys():
        return None
    made = outcomes([a, b], [], [objective])
    values = [one.value(name) for one in made]
    if len(made) < 2 or not all(map(math.isfinite, values)):
        return None
    difference = values[1] - values[0]
    if differs := unlike(made):
        return Gap(difference, None, "none", differs)
    best_first = sorted(made, key=lambda one: sign(objective.direction) * one.value(name))
    known = noise([[one] for one in best_first], name, ALPHA, paired([a, b], name))
    margin = known.margins[1]
    return Gap(difference, None if math.isnan(margin) else margin, known.basis)
