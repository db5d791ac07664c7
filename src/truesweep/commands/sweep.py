"""`truesweep train -m`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from truesweep.compat import no_callbacks
from truesweep.config.overrides import normalize
from truesweep.errors import ConfigError
from truesweep.record.provenance import collect
from truesweep.secrets import redact_argv
from truesweep.sweeps import start
from truesweep.sweeps.ask import Asked, ask
from truesweep.sweeps.closing import Page, sum_up
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.executor import Executor
from truesweep.sweeps.foreign import JobFailed, JobRunner, Outcome, candidates, hand_out, outcome
from truesweep.sweeps.launchers import check_room, check_sweeper, is_ours, make_executor
from truesweep.sweeps.planned import check_disk, check_objectives
from truesweep.sweeps.planning import SweepPlan, plan_candidates
from truesweep.sweeps.progress import FAILED, Board
from truesweep.sweeps.source import Listed


def sweep(overrides: Sequence[str], config_dirs: Sequence[Path], dry_run: bool) -> int:
    """Check a whole sweep, then run its jobs, through Hydra's sweeper and launcher."""
    asked = ask(overrides, config_dirs)
    master = asked.multirun.master
    launcher, sweeper = _node(master, "launcher"), _node(master, "sweeper")
    if is_ours(sweeper):
        check_sweeper(sweeper)
    executor = make_executor(launcher) if is_ours(launcher) else None
    plan = start.prepare(asked, executor, dry_run) if is_ours(sweeper) else None
    if dry_run and plan is None:
        raise ConfigError(f"--dry-run: only {sweeper['_target_']} itself knows what it will run")
    if dry_run:
        return 0
    task = SweepTask(asked, plan, executor, start.record(asked, launcher, plan))
    _settle(master, task.directory)
    plugin = Plugins.instance().instantiate_sweeper(
        hydra_context=HydraContext(asked.multirun.loader, no_callbacks()),
        task_function=task,
        config=master,
    )
    try:
        code = plugin.sweep(normalize(asked.lines, config_dirs))
    except JobFailed:  # told by sweepers that give up at the first failure
        code = 1
    except (SystemExit, KeyboardInterrupt):  # told to stop
        if executor is None:
            Page(task.directory).write()
        raise
    return int(code) if plan is not None else task.conclude()


class SweepTask:
    """A sweep as Hydra's task function: what our plugins run, and what others call for each job.

    Args:
        asked: The sweep.
        plan: Its jobs; None where another sweeper chooses them.
        executor: What runs them; None where another launcher does.
        directory: Its directory.
    """

    def __init__(
        self,
        asked: Asked,
        plan: SweepPlan | None,
        executor: Executor | None,
        directory: SweepDirectory,
    ) -> None:
        self.asked = asked
        self.plan = plan
        self.executor = executor
        self.directory = directory
        self.provenance = collect(redact_argv(sys.argv), {})

    def __call__(self, config: DictConfig) -> Any:
        """Run one job, in a process of another launcher's."""
        return JobTask(self.runner)(config)

    def __reduce__(self) -> Any:
        """To another process only that is sent which runs a job."""
        return JobTask, (self.runner,)

    @property
    def runner(self) -> JobRunner:
        """What runs one job."""
        asked = self.asked
        return JobRunner(
            asked.name, self.directory.path, asked.settings, asked.config_dirs, self.provenance
        )

    def run(self) -> int:
        """Run the planned jobs on our executor; gives the exit code."""
        assert self.executor is not None
        source = start.make_source(self.asked, self.directory, self.provenance, self.plan)
        return drive(self.directory, source, self.executor, self.asked.settings)

    def run_by(self, launch: Callable[[list[list[str]]], Any]) -> int:
        """Have another launcher run the planned jobs; gives the exit code."""
        source = start.make_source(self.asked, self.directory, self.provenance, self.plan)
        while not source.exhausted:
            first = source.ask()
            rest = iter(source.ask, None) if isinstance(source, Listed) else ()
            jobs = [] if first is None else [first, *rest]
            launch([hand_out(job) for job in jobs])
            for job in jobs:
                source.tell(job)
        return self.conclude()

    def run_some(self, requests: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run the jobs that another sweeper asks for on our executor.

        Raises:
            UserError: One of them cannot run; none was started.
            SystemExit: The sweep was told to stop, and the jobs have saved.
        """
        assert self.executor is not None
        fixed = normalize(self.asked.fixed, self.asked.config_dirs)
        wanted = candidates(requests, self.asked.config_dirs, fixed)
        plan = plan_candidates(self.asked.name, wanted)
        check_objectives(plan.jobs, self.asked.settings)
        check_disk(plan.jobs, self.directory.path)
        check_room(self.executor, plan.jobs)
        jobs = start.add_jobs(self.directory, plan.jobs, self.provenance)
        settings = self.asked.settings
        code = drive(self.directory, Listed(jobs), self.executor, settings, last=False)
        if code in (130, 143):
            raise SystemExit(code)
        by_id = {job.id: job for job in jobs}
        return [outcome(by_id[name], settings) for name in plan.ids]

    def conclude(self) -> int:
        """Sum up a sweep that another plugin has run; gives the exit code."""
        settings, jobs = self.asked.settings, self.directory.jobs()
        self.directory.write_jobs(jobs, settings)
        board = Board(settings.objectives[0], settings.modes[settings.objectives[0]])
        rows = board.rows(jobs)
        display = Display(self.asked.name, settings.objectives[0])
        display.conclude(rows, 0, board.best(rows), self.directory.path)
        sum_up(self.directory, display)
        return int(any(job.state in FAILED for job in jobs))


class JobTask:
    """Runs one job as Hydra's task function.

    Args:
        runner: Knows the sweep.
    """

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner

    def __call__(self, config: DictConfig) -> Any:
        """Run the job that a configuration names or, if another sweeper composed it, is."""
        return self.runner.run(config, list(HydraConfig.get().overrides.task))


def _node(master: DictConfig, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(master.hydra[name], resolve=True)
    return cast(dict[str, Any], node)


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
