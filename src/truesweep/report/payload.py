"""What the page is made of: everything it shows, in plain values, and a run's words in short."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import truesweep
from truesweep import text
from truesweep.analysis.differences import ABSENT
from truesweep.analysis.importance import JOIN, importance
from truesweep.analysis.ranges import spacing_of
from truesweep.dotted import flatten
from truesweep.figures import BUILT_IN, Declared
from truesweep.report.comparison import Comparison
from truesweep.report.findings import findings, later_scorings
from truesweep.report.scaling import scaling
from truesweep.report.varying import comparable, setting
from truesweep.runs.history import Curve
from truesweep.runs.run import UNREADABLE, read_entries
from truesweep.runs.snapshot import Snapshot
from truesweep.secrets import scrub

FACTS = ("python", "packages", "git", "hardware", "data")
"""What is told of where a run's numbers come from."""


def payload(comparison: Comparison, filters: Sequence[str] = ()) -> dict[str, Any]:
    """All that the page shows.

    Args:
        comparison: The runs that are shown, and what is known of all.
        filters: The conditions that left these runs, for the page to say so.
    """
    runs = comparison.runs
    flat = comparable(runs)
    configs = _against_first(flat)
    facts = _against_first([_facts(run) for run in runs])
    return {
        "title": comparison.title,
        "filters": list(filters),
        "total": len(comparison.found.runs),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": truesweep.__version__,
        "objective": {"name": comparison.objective.name, "mode": comparison.objective.mode},
        "unit": comparison.unit,
        "figures": {
            name: {"digits": one.digits, "kind": one.kind}
            for name, one in {**comparison.declared, **_costs(comparison)}.items()
        },
        "findings": [asdict(finding) for finding in findings(comparison)],
        "importance": _importance(comparison),
        "scaling": scaling(comparison),
        "keys": [_key(comparison, key) for key in comparison.keys],
        "config": flat[0] if runs else {},
        "facts": _facts(runs[0]) if runs else {},
        "runs": [
            {**_run(comparison, run), "config": config, "facts": fact}
            for run, config, fact in zip(runs, configs, facts, strict=True)
        ],
    }


def _costs(comparison: Comparison) -> Declared:
    """What every run has besides the figures of its task."""
    return {name: one for name, one in BUILT_IN.items() if name not in comparison.declared}


def _key(comparison: Comparison, key: str) -> dict[str, Any]:
    values = [v for run in comparison.runs if (v := setting(run, key)) is not None]
    numbers = [number for v in values if (number := text.finite(v)) is not None]
    numeric = len(numbers) == len(values) and len(set(numbers)) > 1
    log = numeric and spacing_of(sorted(set(numbers))) == "log"
    return {"key": key, "short": comparison.short[key], "numeric": numeric, "log": log}


def _importance(comparison: Comparison) -> dict[str, Any]:
    """Shares, each beside what noise alone would give it, and what to keep in mind."""
    objective = comparison.objective
    found = importance(comparison.outcomes, objective.name, objective.direction)
    short = {k.removesuffix("._target_"): name for k, name in comparison.short.items()}
    names = {axis: JOIN.join(short[key] for key in axis.split(JOIN)) for axis in found.shares}
    joint = sorted(found.interactions.items(), key=lambda item: -item[1])[:3]
    return {
        "shares": [
            _share(names[axis], share, found.noise[axis]) | {"keys": axis.split(JOIN)}
            for axis, share in found.shares.items()
        ],
        "interactions": [
            _share(f"{names[a]} × {names[b]}", share, found.noise[a, b])
            for (a, b), share in joint
            if share > 0.01
        ],
        "method": found.method,
        "notes": list(found.notes),
    }


def _share(name: str, share: float, noise: float) -> dict[str, Any]:
    rounded = {"share": _round(share), "noise": _round(noise)}
    return {"name": name, **rounded, "distinguishable": share > noise}


def _run(comparison: Comparison, run: Snapshot) -> dict[str, Any]:
    return {
        "id": run.id,
        "label": label(comparison, run),
        "path": str(run.directory.path),
        "state": run.state,
        "values": [setting(run, key) for key in comparison.keys],
        "objective": comparison.objective.of(run),
        "rank": comparison.rank(run),
        "tied": comparison.tied(run),
        **_seeds(comparison, run),
        "verdict": _verdict(run),
        "step": run.step,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "cost": run.cost,
        "flops": run.flops,
        "results": {k: v for k, v in run.results.items() if isinstance(v, int | float | str)},
        "command": " ".join(map(str, run.provenance.get("command") or [])),
        "clock": [[step, tokens, _round(time)] for step, tokens, time in run.history.clock],
        "curves": {name: _curve(curve) for name, curve in run.history.curves.items()},
        "problem": " ".join(run.problems) or None,
        **excerpts(run, brief=len(comparison.runs) > 100),
    }


def _seeds(comparison: Comparison, run: Snapshot) -> dict[str, Any]:
    """The mean of a run and those that differ from it by their seed, and its deviation."""
    standing = comparison.standing(run)
    if standing is None or standing.deviation is None:
        return {}
    return {"mean": _round(standing.mean), "deviation": _round(standing.deviation)}


def _verdict(run: Snapshot) -> dict[str, Any] | None:
    kind = run.verdict.get("kind")
    if not kind:
        return None
    grave = {"healthy": "good", "diverged": "bad", "unjudged": ""}.get(kind, "warn")
    return {"kind": kind, "text": run.verdict["text"], "grave": grave}


def label(comparison: Comparison, run: Snapshot) -> str:
    """A run's short name: as its sweep calls it, or by what varies if that is more."""
    given = run.job.get("label")
    if given and (not run.varies or set(comparison.keys) <= set(run.varies)):
        return text.relabel(str(given))
    values = ((key, setting(run, key)) for key in comparison.keys)
    parts = [
        f"{comparison.short[key]}={text.value(value)}" for key, value in values if value is not None
    ]
    return " ".join(parts) or run.id


def _curve(curve: Curve) -> list[Any]:
    return [curve.steps, [_round(v) for v in curve.values], curve.recorded]


def _round(value: float | None) -> float | None:
    return None if value is None else text.rounded(value, 6)


def _facts(run: Snapshot) -> dict[str, Any]:
    return flatten({name: run.provenance[name] for name in FACTS if name in run.provenance})


def _against_first(flats: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Of each mapping what differs from the first: [changed or added, keys that are absent]."""
    if not flats:
        return []
    first = flats[0]
    return [
        [
            {key: value for key, value in flat.items() if first.get(key, ABSENT) != value},
            [key for key in first if key not in flat],
        ]
        for flat in flats
    ]


TRACEBACK = "Traceback (most recent call last)"
TAIL = 20_000
"""Bytes at the end of a log in which its last error is looked for."""


def excerpts(run: Snapshot, brief: bool = False) -> dict[str, Any]:
    """The error with the end of its log, samples, and later scorings.

    Args:
        run: The run.
        brief: Shorter ones, where there are many runs.
    """
    broken = run.state in ("failed", "interrupted")
    rows, width = (1, 300) if brief else (3, 1200)
    return {
        "error": run.error,
        "log": scrub(_last_error(run, 1500 if brief else 4000)) if broken else "",
        "tables": _tables(run.directory.tables, rows, width),
        "evaluations": later_scorings(run),
    }


def _last_error(run: Snapshot, width: int) -> str:
    """The last traceback of the first rank that has one, or the end of the first rank's log."""
    logs = sorted((run.directory.path / "logs").glob("rank*.log"))
    ends = [_end(log) for log in logs]
    raised = [text[text.rfind(TRACEBACK) :] for text in ends if TRACEBACK in text]
    return (raised or ends or [""])[0].strip()[-width:]


def _end(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _tables(path: Path, rows: int, width: int) -> dict[str, Any]:
    """The first rows of each table, long texts cut."""
    try:
        tables = read_entries(path)
        return {
            name: [columns, [[_cut(cell, width) for cell in row] for row in _some(name, all, rows)]]
            for name, (columns, all) in tables.items()
        }
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, ValueError, AttributeError, TypeError) as error:
        return {"damaged": [["why"], [[str(error)]]]}


def _some(name: str, all: list[list[Any]], rows: int) -> list[list[Any]]:
    return all[: 40 if name == "classes" else rows]


def _cut(cell: Any, width: int) -> Any:
    return f"{cell[:width]}…" if isinstance(cell, str) and len(cell) > width else cell
