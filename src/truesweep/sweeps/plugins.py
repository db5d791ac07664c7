"""Jobs that other plugins of Hydra's start, or ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from truesweep.config.compose import Composer
from truesweep.config.overrides import as_text, parse
from truesweep.jobs.launch import launch
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planning import Candidate, plan_candidates
from truesweep.sweeps.protocols import ENDED
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.start import add_jobs

DIRECTORY, LABEL = "job_directory", "job_label"
"""Keys by which another launcher's process learns which job it is to run."""

Overrides = Sequence[str]


class JobFailed(RuntimeError):
    """A job has failed; its directory says why."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended, as Hydra's sweepers want to know it.

    Args:
        value: The objective, or several.
        error: Set if the job failed.
    """

    value: Any
    error: JobFailed | None


def hand_out(job: Run) -> list[str]:
    """The overrides by which another launcher starts a job; all else stands in its directory."""
    return [f"++{DIRECTORY}={as_text(str(job.path))}", f"++{LABEL}={as_text(job.label)}"]


@dataclass(frozen=True)
class JobRunner:
    """Runs one job, in a process of another launcher's; small enough to be sent there.

    Args:
        name: The sweep's name.
        path: Its directory.
        settings: Its settings.
        config_dirs: The user's own folders of configuration.
        provenance: Where numbers come from, but for the data.
    """

    name: str
    path: Path
    settings: Sweep
    config_dirs: list[Path]
    provenance: dict[str, Any]

    def run(self, config: Mapping[str, Any], overrides: Overrides) -> Any:
        """Run the job that was handed out or, if another sweeper chose it, make it first.

        Args:
            config: What Hydra has composed.
            overrides: What it has composed it from.

        Returns:
            The objective, or several.

        Raises:
            JobFailed: It failed.
            SystemExit: It was told to stop, and has saved.
        """
        handed_out = config.get(DIRECTORY)
        job = self._make(overrides) if handed_out is None else Run.open(Path(str(handed_out)))
        print(f"{job.id}  {job.label}", flush=True)
        if job.state not in ENDED:
            code = launch(job, resume=bool(job.status))
            if code in (130, 143):
                raise SystemExit(code)
        ended = outcome(job, self.settings)
        if ended.error is not None:
            raise ended.error
        return ended.value

    def _make(self, overrides: Overrides) -> Run:
        plan = plan_candidates(self.name, candidates([overrides], self.config_dirs, ()))
        return add_jobs(SweepDirectory(self.path), plan.jobs, self.provenance)[0]


def candidates(
    requests: Sequence[Overrides], config_dirs: Sequence[Path], fixed: Sequence[str]
) -> list[Candidate]:
    """Jobs that another sweeper asks for, each by all of its overrides.

    Args:
        requests: The overrides of each.
        config_dirs: The user's own folders of configuration.
        fixed: The overrides that all have in common, as the user has written them.
    """
    composer = Composer(config_dirs)
    common = {o.lstrip("+") for o in fixed}
    return [
        Candidate(partial(composer.compose, list(request)), _varies(request, common))
        for request in requests
    ]


def outcome(job: Run, settings: Sweep) -> Outcome:
    """How a job ended."""
    if job.state not in ENDED:
        return Outcome(None, JobFailed(f"{job.label}: {job.error}"))
    values = [job.objective(name, mode) for name, mode in settings.modes.items()]
    return Outcome(values[0] if len(values) == 1 else tuple(values), None)


def _varies(request: Overrides, common: set[str]) -> dict[str, Any]:
    parsed = [parse(override) for override in request if override.lstrip("+") not in common]
    return {one.key_or_group: one.value() for one in parsed}
