"""What a comparison says in words."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from truesweep import dotted
from truesweep.analysis.outcomes import pareto_points
from truesweep.analysis.ranges import edges
from truesweep.analysis.ranking import Standing, unfairness
from truesweep.figures import written
from truesweep.report.comparison import Comparison
from truesweep.report.outcomes import TOKENS
from truesweep.runs.snapshot import Snapshot
from truesweep.text import count, figure, label, number, plural, value

SAME = 1.05
"""Numbers that differ by less than this factor are one, for a search's start."""

Kind = Literal["good", "warn", "bad", ""]

AHEAD, WINNER = "Ahead", "Winner"
"""The titles of what is said of the best point."""
DUEL, SETTLED = "Duel", "Settled"
"""Those of what a duel has found, in its own report and in that of the sweep that it settles."""


@dataclass(frozen=True)
class Finding:
    """Something to know of a comparison.

    Args:
        title: What it is about.
        text: One or two sentences.
        kind: How good the news is.
        figure: A figure that stands out, if one does.
    """

    title: str
    text: str
    kind: Kind = ""
    figure: str | None = None


def findings(comparison: Comparison) -> list[Finding]:
    """All there is to say, the most important first."""
    return [one for say in _SAY for one in say(comparison)]


def _best(comparison: Comparison) -> list[Finding]:
    ranking, asked = comparison.ranking, comparison.found.asked
    if "duel" in asked:  # which judges by pairs of seeds
        return _fought(DUEL, dotted.get(asked, "duel.answer", []))
    if ranking.unlike:
        text = f"{ranking.text}{_comparable(comparison)}"
        return [Finding("Not comparable", text, "bad")]
    if ranking.best is None:
        return []
    figure = (
        f"{ranking.objective} {written(ranking.objective, ranking.best.mean, comparison.declared)}"
    )
    if len(ranking.standings) == 1:  # which has beaten none
        return [_only(comparison, ranking.best, figure)]
    settled = _fought(SETTLED, asked.get("settled") or [])
    if ranking.basis != "seeds" or ranking.tied:  # ahead with its own seed, or of equals: no win
        return [Finding(AHEAD, ranking.text, figure=figure), *settled]
    return [Finding(WINNER, ranking.text, "good", figure), *settled]


def _fought(title: str, answers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What duels have found, as their directories keep it."""
    return [
        Finding(title, str(one["text"]), "good" if one["won"] else "", str(one["title"]))
        for one in answers
    ]


def _only(comparison: Comparison, best: Standing, figure: str) -> Finding:
    others = {one.point for one in comparison.unfinished} - {best.point}
    if not others:
        return Finding("Only point", comparison.ranking.text, figure=figure)
    which = f"{figure} with {label(best.varies)}" if best.varies else figure
    text = f"{which}; {plural(len(others), 'other point')} not trained to the end."
    return Finding("Only finished point", text, figure=figure)


def _waiting(comparison: Comparison) -> list[Finding]:
    """What a search has paused, and how to go on with it."""
    waiting = [run for run in comparison.runs if run.state == "paused"]
    if not waiting:
        return []
    longest = max(waiting, key=lambda run: run.step)  # of equals the best so far
    named = f"{longest.id} ({label(longest.varies)})" if longest.varies else longest.id
    text = (
        f"{len(waiting)} of {len(comparison.runs)} runs are paused, by what is forecast of their "
        f"ends, and keep their state. Trained the longest: {named}, {longest.step:,} steps. To "
        f"train it on: truesweep resume {os.path.relpath(longest.directory.path)}"
    )
    return [Finding("Waiting", text)]


def _shared(comparison: Comparison) -> list[Finding]:
    """What runs have in common with another was trained once: what that spent and saved."""
    runs = comparison.runs
    shares = [_share_of_another(run) for run in runs]
    if not any(shares):
        return []
    amounts: Mapping[str, Sequence[float]] = {
        "steps": [run.step for run in runs],
        comparison.unit: [run.tokens for run in runs],
        "FLOP": [run.flops or 0.0 for run in runs],
    }
    told = []
    for what, each in amounts.items():
        saved = sum(amount * share for amount, share in zip(each, shares, strict=True))
        if saved:
            told.append(f"{count(sum(each) - saved)} {what} spent, {count(saved)} saved")
    text = (
        f"{sum(map(bool, shares))} of {len(runs)} runs went on from steps that another had "
        f"trained: {'; '.join(told)}. The figures of each run are of its whole training."
    )
    return [Finding("Shared", text)]


def _share_of_another(run: Snapshot) -> float:
    """The share of a run's steps that another has trained for it."""
    step = number(dotted.get(run.provenance, "branched.step", 0)) or 0.0
    return step / run.step if 0 < step <= run.step else 0.0


def _comparable(comparison: Comparison) -> str:
    """What to rank by instead, where only the tokens differ."""
    split = comparison.objective.name.partition("/")[0]
    names = [
        f"{split}/{f.name}" for f in comparison.declared.values() if f.mode and not f.per_token
    ]
    ended = [run.results for run in comparison.runs if run.results]
    known = [name for name in names if ended and all(name in results for results in ended)]
    if not known or not set(comparison.ranking.unlike) <= set(TOKENS):
        return ""
    return f" Rank by --objective {known[0]}, which does not depend on the tokens."


def _front(comparison: Comparison) -> list[Finding]:
    directions = {one.name: one.direction for one in comparison.objectives}
    if len(directions) < 2 or comparison.ranking.unlike:
        return []
    front = pareto_points(comparison.outcomes, directions)
    names = {one.point: one.id.rpartition("/")[2] for one in comparison.outcomes}
    listed = "; ".join(
        f"{names[point]} ({_told(comparison, figures)})"
        for point, figures in list(front.items())[:8]
    )
    text = f"No run is better in one and no worse in the others than: {listed}."
    return [Finding(f"Best in {' and '.join(directions)}", text)] if front else []


def _told(comparison: Comparison, figures: Mapping[str, float]) -> str:
    declared = comparison.declared
    return ", ".join(f"{name} {written(name, value, declared)}" for name, value in figures.items())


def _start(comparison: Comparison) -> list[Finding]:
    """How far the point that a search began with was from what came out ahead."""
    start, best = comparison.found.settings.get("start"), comparison.ranking.best
    if not isinstance(start, Mapping) or best is None:
        return []
    told = []
    for key, first in start.items():
        came, began = number(best.varies.get(key)), number(first)
        if came and began and came > 0 and began > 0:
            off = max(came / began, began / came)
            said = "where the search began" if off < SAME else f"{figure(off, 2)} times off"
            told.append(f"{key}={value(came)}, {said} ({value(began)})")
    return [Finding("Start", f"Ahead is {'; '.join(told)}.")] if told else []


def _edges(comparison: Comparison) -> list[Finding]:
    found = edges(comparison.ranking, [*comparison.outcomes, *comparison.unfinished])
    text = " ".join(one.text for one in found)
    return [Finding("Edge of the range", text, "warn")] if found else []


def _unfair(comparison: Comparison) -> list[Finding]:
    found = unfairness(comparison.outcomes, comparison.ranking, comparison.unit)
    text = " ".join(one.text for one in found)
    kind: Kind = "warn" if any(one.favours_best for one in found) else ""
    return [Finding("Not the same chance", text, kind)] if found else []


def _verdicts(comparison: Comparison) -> list[Finding]:
    told = [run for run in comparison.runs if run.verdict.get("text")]
    if not told:
        return []
    words = _kinds(told)
    text = f"{words}, of {len(comparison.runs)} runs.{_of_best(comparison)}"
    return [Finding("Verdicts", text, "warn")]


def _of_best(comparison: Comparison) -> str:
    """What is said of the winner's runs, which a filter or an order may have put anywhere."""
    runs = [run for run in comparison.runs if comparison.rank(run) == 1 and run.verdict.get("kind")]
    if not any(run.verdict.get("text") for run in runs):
        return ""
    if len(runs) == 1:
        return f" The best run: {runs[0].verdict['text']}"
    return f" Of the best point's {len(runs)} runs: {_kinds(runs)}."


def _kinds(runs: Sequence[Snapshot]) -> str:
    counts = Counter(run.verdict["kind"] for run in runs)
    return ", ".join(f"{number} {kind}" for kind, number in counts.most_common())


def _failures(comparison: Comparison) -> list[Finding]:
    failed = [run for run in comparison.runs if run.state == "failed"]
    if not failed:
        return []
    errors = Counter(_first_line(run) for run in failed)
    error, count = errors.most_common(1)[0]
    often = f"; most often ({count}): {error}" if len(failed) > 1 else f": {error}"
    return [Finding("Failed", f"{len(failed)} of {len(comparison.runs)} runs{often}", "bad")]


def _first_line(run: Snapshot) -> str:
    return next(iter((run.error or "").splitlines()), "no reason given")[:160]


def _test_looked_at(comparison: Comparison) -> list[Finding]:
    count = sum(later_scorings(run) for run in comparison.runs)
    said = []
    if comparison.objective.name.startswith("test/"):
        said.append("The runs are ranked by their test split.")
    if count:
        times = f"{count} more time{'s' * (count > 1)}"
        said.append(f"Test splits were scored {times} after the runs' own single scoring.")
    if not said:
        return []
    said.append("A test split that choices are made by is a validation split.")
    return [Finding("Test split", " ".join(said), "warn")]


_SAY: Sequence[Callable[[Comparison], list[Finding]]] = (
    _best,
    _front,
    _waiting,
    _shared,
    _start,
    _edges,
    _unfair,
    _verdicts,
    _failures,
    _test_looked_at,
)


def later_scorings(run: Snapshot) -> int:
    """How often the run's own test split was scored after the run itself had."""
    try:
        return max(0, len(run.directory.test_scorings) - 1)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0
