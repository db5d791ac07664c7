"""In what two runs differ."""

from typing import Any

from truesweep.analysis.differences import Difference, differences
from truesweep.report.run import Run

VERSIONS = ("python", "packages", "git", "platform", "hardware")


def sides(a: Run, b: Run) -> dict[str, list[Difference]]:
    """What differs between two runs, by subject; a subject in which they agree is empty."""
    return {
        "configuration": differences(a.config, b.config),
        "versions": differences(_some(a, VERSIONS), _some(b, VERSIONS)),
        "data": differences(a.provenance.get("data") or {}, b.provenance.get("data") or {}),
        "results": differences(_outcome(a), _outcome(b)),
    }


def _some(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: run.provenance[name] for name in names if name in run.provenance}


def _outcome(run: Run) -> dict[str, Any]:
    """How a run ended; one without results, how far it came."""
    so_far = {"step": run.step, "tokens": run.tokens} if not run.results else {}
    error = {} if run.error is None else {"error": run.error}
    return {"state": run.state, **error, **so_far, **run.results}
