"""Sweeps that other plugins of Hydra's carry out: their sweepers choose, their launchers run.

Our own sweeps do not pass here.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from truesweep.compat import no_callbacks
from truesweep.config.compose import Composer
from truesweep.config.overrides import as_text, normalize, parse
from truesweep.config.roots import search_roots
from truesweep.errors import ConfigError, refusing
from truesweep.interrupts import STOPPED
from truesweep.jobs.launch import launch
from truesweep.record.provenance import collect
from truesweep.runs.run import Run
from truesweep.secrets import redact_argv
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import PACKAGE, check_room
from truesweep.sweeps.planned import check_objectives
from truesweep.sweeps.planning import Candidate, plan_candidates, sharing
from truesweep.sweeps.progress import FAILED, Board
from truesweep.sweeps.protocols import ENDED, Executor, JobSource, Listed
from truesweep.sweeps.request import Asked
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.siblings import Siblings, started_by_itself
from truesweep.sweeps.start import add_jobs
from truesweep.sweeps.summary import Page, sum_up

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

    def __call__(self, config: DictConfig) -> Any:
        """Run one job as Hydra's task function."""
        return self.run(config, list(HydraConfig.get().overrides.task))

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
            with started_by_itself(job):
                code = launch(job, resume=bool(job.status))
            if code in STOPPED:
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


# -- the sweep as a plugin sees it -----------------------------------------------------------------


class SweepTask:
    """A sweep as Hydra's task function, which its plugins call for each job, and ours for many.

    Args:
        asked: The sweep.
        executor: What runs its jobs; None where another launcher does.
        directory: Its directory.
    """

    def __init__(self, asked: Asked, executor: Executor | None, directory: SweepDirectory) -> None:
        self.asked = asked
        self.executor = executor
        self.directory = directory
        self.provenance = collect(redact_argv(sys.argv), {})
        self.runner = JobRunner(
            asked.name, directory.path, asked.settings, asked.config_dirs, self.provenance
        )

    def __call__(self, config: DictConfig) -> Any:
        """Run one job, in a process of another launcher's."""
        return self.runner(config)

    def __reduce__(self) -> Any:
        """To another process only that is sent which runs a job."""
        return copy, (self.runner,)

    def run_some(self, requests: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run the jobs that another sweeper asks for on our executor.

        Raises:
            UserError: One of them cannot run; none was started.
            SystemExit: The sweep was told to stop, and the jobs have saved.
        """
        assert self.executor is not None
        fixed = normalize(self.asked.fixed, search_roots(self.asked.config_dirs))
        wanted = candidates(requests, self.asked.config_dirs, fixed)
        settings, plan = self.asked.settings, plan_candidates(self.asked.name, wanted)
        check_objectives(plan.jobs, settings)
        new, old = sharing(self.directory, plan.jobs, settings)
        check_disk(new, self.directory.path)
        check_room(self.executor, plan.jobs)
        jobs = add_jobs(self.directory, [*old, *new], self.provenance)
        code = drive(self.directory, Listed(jobs), self.executor, settings, last=False)
        if code in STOPPED:
            raise SystemExit(code)
        by_id = {job.id: job for job in jobs}
        return [outcome(by_id[name], settings) for name in plan.ids]

    def conclude(self) -> int:
        """Sum up a sweep that another plugin has run; gives the exit code."""
        settings, jobs = self.asked.settings, self.directory.jobs()
        Siblings(self.directory).tidy()
        self.directory.write_jobs(jobs, settings)
        display = Display(self.asked.name, Board.of(settings))
        display.conclude(display.board.rows(jobs), 0, self.directory.path)
        sum_up(self.directory, display)
        return int(any(job.state in FAILED for job in jobs))


def check_installed(target: str) -> None:
    """Make sure that a launcher or a sweeper is among Hydra's plugins.

    Raises:
        ConfigError: It is not.
    """
    if target.startswith(PACKAGE) or target in Plugins.instance().class_name_to_class:
        return
    module = ([*target.split("."), ""])[1].replace("_", "-")
    raise ConfigError(
        f"{target}: no plugin of Hydra's that is installed here; type pip install {module}"
    )


def run_by_sweeper(task: SweepTask) -> int:
    """Have another sweeper choose the jobs; what runs them, ours too, is its launcher.

    Returns:
        The exit code.
    """
    with _as_hydra(task) as context, _refusing("sweeper", task.directory):
        sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=context, task_function=task, config=task.asked.multirun.master
        )
        sweeper.sweep(normalize(task.asked.lines, search_roots(task.asked.config_dirs)))
    return task.conclude()


def run_by_launcher(task: SweepTask, source: JobSource) -> int:
    """Have another launcher run our jobs: all at once, or of a search one after the other.

    Returns:
        The exit code.
    """
    with _as_hydra(task) as context:
        with _refusing("launcher", task.directory):
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=task, config=task.asked.multirun.master
            )
        while not source.exhausted:
            first = source.ask()
            rest = iter(source.ask, None) if isinstance(source, Listed) else ()
            jobs = [] if first is None else [first, *rest]
            launcher.launch([hand_out(job) for job in jobs], initial_job_idx=0)
            for job in jobs:
                source.tell(job)
    return task.conclude()


@contextmanager
def _as_hydra(task: SweepTask) -> Iterator[HydraContext]:
    """What another plugin works in; whatever ends its work, the sweep can be summed up."""
    _settle(task.asked.multirun.master, task.directory)
    try:
        yield HydraContext(task.asked.multirun.loader, no_callbacks())
    except JobFailed:  # told by plugins that give up at the first failure
        pass
    except (SystemExit, KeyboardInterrupt):  # told to stop
        if task.executor is None:
            Page(task.directory).write()
        raise


@contextmanager
def _refusing(kind: str, directory: SweepDirectory) -> Iterator[None]:
    """Take what a plugin raises before there is a job for a fault of its settings."""
    try:
        yield
    except JobFailed:
        raise
    except Exception as error:
        if directory.jobs():
            raise
        with refusing(lambda reason: f"hydra.{kind}, as it is set, cannot start: {reason}"):
            raise error


def _settle(master: DictConfig, directory: SweepDirectory) -> None:
    """Have Hydra's other plugins write nothing but into the sweep's directory."""
    settings = {
        "hydra.sweep.dir": str(directory.path),
        "hydra.sweep.subdir": ".",
        "hydra.output_subdir": None,
    }
    with open_dict(master):
        for key, value in settings.items():
            OmegaConf.update(master, key, value)
            master.hydra.overrides.hydra.append(f"{key}={'null' if value is None else value}")
        # Logging is the jobs' own.
        master.hydra.overrides.hydra.extend(["hydra/job_logging=none", "hydra/hydra_logging=none"])
        master.hydra.hydra_logging = {"root": None}
        master.hydra.job_logging = {"root": None}
