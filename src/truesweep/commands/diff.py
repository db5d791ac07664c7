"""`truesweep diff`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from truesweep import text
from truesweep.analysis.differences import ABSENT, Difference, differences
from truesweep.analysis.noise import Basis, noise
from truesweep.analysis.outcomes import sign, unlike
from truesweep.analysis.ranking import ALPHA, SPLITS
from truesweep.figures import STANDARD_ERROR, Declared, find, written
from truesweep.record.files import dump_json
from truesweep.report.objective import Objective, declared_by
from truesweep.report.outcomes import outcomes, paired
from truesweep.report.varying import config_columns
from truesweep.runs.run import Run
from truesweep.runs.snapshot import Snapshot, read_snapshot
from truesweep.terminal import console, titled, warn

VERSIONS = ("python", "packages", "git", "platform", "hardware")
"""What of a run's provenance is of versions."""
WIDTH = 120
"""Characters of a line at most, which keeps both sides in sight of each other."""
GIVES_WAY = {4: "noise", 3: "difference", 5: "whether it is beyond noise"}
"""In this order columns of the figures give way to a narrow terminal, and how they are called."""
LONGEST = 60
"""Characters of a list or mapping that are shown; `--json` has all."""
KNOWN_FROM = {
    "paired samples": "both evaluations sample by sample",
    "evaluation": "the standard error of each evaluation",
}


def diff(first: Path, second: Path, as_json: bool) -> int:
    """Print in what two runs differ: configuration, figures, versions, data."""
    a, b = (read_snapshot(Run.open(path)) for path in (first, second))
    warn((problem.rstrip(".") for run in (a, b) for problem in run.problems), stderr=True)
    groups, apart = _sides(a, b), _gaps(a, b)
    if as_json:
        noise = {name: _plain_gap(gap) for name, gap in apart.items()}
        plain = {name: _plain(found) for name, found in groups.items()}
        print(dump_json({**plain, "noise": noise}, indent=2))
        return 0
    out = console()
    out.width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    results = groups.pop("results")
    _print_values(out, a, b, "Configuration", groups.pop("configuration"))
    _print_figures(out, a, b, results, apart)
    for name, found in groups.items():
        _print_values(out, a, b, name.capitalize(), found)
    return 0


# -- in what two runs differ -------------------------------------------------------------------


def _sides(a: Snapshot, b: Snapshot) -> dict[str, list[Difference]]:
    """What differs between two runs, by subject; a subject in which they agree is empty."""
    return {
        "configuration": [Difference(k, *sides) for k, sides in config_columns([a, b]).items()],
        "results": differences(_outcome(a), _outcome(b)),
        "versions": differences(_some(a, VERSIONS), _some(b, VERSIONS)),
        "data": differences(a.provenance.get("data") or {}, b.provenance.get("data") or {}),
    }


def _some(run: Snapshot, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: run.provenance[name] for name in names if name in run.provenance}


def _outcome(run: Snapshot) -> dict[str, Any]:
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


def _gaps(a: Snapshot, b: Snapshot) -> dict[str, Gap]:
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


def _gap(a: Snapshot, b: Snapshot, objective: Objective) -> Gap | None:
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


# -- in print ----------------------------------------------------------------------------------


def _print_values(
    out: Console, a: Snapshot, b: Snapshot, title: str, found: Sequence[Difference]
) -> None:
    """What somebody chose, or what was there, on both sides."""
    if not found:
        out.print(Text.assemble((f"{title}: ", "bold"), ("the same", "dim")))
        return
    table = titled(title)
    for name in ("", a.id, b.id):
        table.add_column(name, overflow="fold")
    table.columns[0].min_width = min(max(len(one.key) for one in found), out.width // 2)
    for one in found:
        table.add_row(Text(one.key), *(Text(_shown(value)) for value in (one.a, one.b)))
    out.print(table)


def _print_figures(
    out: Console, a: Snapshot, b: Snapshot, found: Sequence[Difference], apart: Mapping[str, Gap]
) -> None:
    """What was measured, how far it is apart, and whether that is more than noise."""
    rows = [one for one in found if _is_row(one.key)]
    if not rows:
        out.print(Text.assemble(("Figures: ", "bold"), ("the same", "dim")))
        return
    declared = declared_by([a, b])
    heads = ["", a.id, b.id, "difference", "noise", ""]
    cells = [
        [one.key.removesuffix(".kind"), *_figure(one, declared), *_noise(apart.get(one.key))]
        for one in rows
    ]
    table = titled("Figures")
    shown, left_out = _fitting([heads, *cells], out.width)
    for index in shown:
        justify = "right" if 0 < index < 5 else "left"
        table.add_column(heads[index], justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*(Text(row[index]) for index in shown))
    out.print(table)
    if left_out:
        names = ", ".join(GIVES_WAY[index] for index in left_out)
        out.print(Text(f"Left out to fit: {names}. --json has all.", "dim"))
    for sentence in _sentences(apart, with_noise=5 in shown):
        out.print(Text(sentence, "dim"))


def _is_row(key: str) -> bool:
    """Not what stands behind a verdict, nor what is told by the column of noise."""
    behind = key.startswith("verdict.") and key != "verdict.kind"
    return not behind and not key.endswith(STANDARD_ERROR)


def _figure(one: Difference, declared: Declared) -> list[str]:
    """Both sides and their difference; the two in the same decimals."""
    figure = find(one.key, declared)
    sides = [one.a, one.b]
    cells = ["—" if side is ABSENT else written(one.key, side, declared) for side in sides]
    if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in sides):
        return [*cells, ""]
    if all(isinstance(side, float) for side in sides) and (not figure or figure.kind == "figure"):
        cells = text.figures(sides, figure.digits if figure else 4)
    return [*cells, _signed(one.key, one.b - one.a, declared)]


def _signed(key: str, difference: float, declared: Declared) -> str:
    """With its sign; of a figure two digits, of all else as it is written."""
    figure = find(key, declared)
    if isinstance(difference, float) and (not figure or figure.kind == "figure"):
        return text.signed(difference)
    return f"{'-' if difference < 0 else '+'}{written(key, abs(difference), declared)}"


def _fitting(lines: Sequence[Sequence[str]], room: int) -> tuple[list[int], list[int]]:
    """The columns that say something and have room beside each other, and those that have none."""
    widths = [max(map(len, column)) + len("│  ") for column in zip(*lines, strict=True)]
    said = [any(column) for column in zip(*lines[1:], strict=True)]
    shown = [index for index in range(len(widths)) if index < 3 or said[index]]
    whole = list(shown)
    for index in GIVES_WAY:
        if sum(widths[i] for i in shown) >= room and index in shown:
            shown.remove(index)
    return shown, sorted(set(whole) - set(shown))


def _noise(gap: Gap | None) -> list[str]:
    if gap is None or gap.beyond is None:
        return ["", ""]
    return [f"±{text.figure(gap.margin, 2)}", "beyond noise" if gap.beyond else "within noise"]


def _sentences(apart: Mapping[str, Gap], *, with_noise: bool) -> list[str]:
    """What is to be known of the figures, and of noise where that is shown."""
    said = []
    bases = {gap.basis for gap in apart.values() if gap.margin is not None and with_noise}
    known = [words for basis, words in KNOWN_FROM.items() if basis in bases]
    if known:
        said.append(
            "Noise: how far the worse of two equals may be behind by the choice of samples "
            f"({text.value(100 * (1 - ALPHA))} % confidence, from {' or '.join(known)}). "
            "Another seed may change more."
        )
    unlike = dict.fromkeys(what for gap in apart.values() for what in gap.unlike)
    if unlike:
        said.append(
            f"The runs differ in their {' and '.join(unlike)}: their figures say nothing "
            "about which is the better."
        )
    return said


def _shown(value: Any) -> str:
    shown = "—" if value is ABSENT else text.value(value, digits=None)
    nested = isinstance(value, list | tuple | Mapping)
    return f"{shown[: LONGEST - 1]}…" if nested and len(shown) > LONGEST else shown


def _plain(found: Sequence[Difference]) -> dict[str, dict[str, Any]]:
    """What one side lacks is left out there, and so is no null."""
    return {
        one.key: {
            side: value for side, value in (("a", one.a), ("b", one.b)) if value is not ABSENT
        }
        for one in found
    }


def _plain_gap(gap: Gap) -> dict[str, Any]:
    known = {"difference": gap.difference, "margin": gap.margin, "basis": gap.basis}
    return {**known, "beyond": gap.beyond, "unlike": list(gap.unlike)}
