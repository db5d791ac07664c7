"""`truesweep train -m`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from truesweep.commands.duel import settle
from truesweep.compat import no_callbacks
from truesweep.config.overrides import normalize
from truesweep.errors import ConfigError, refusing
from truesweep.record.files import dump_json, write_atomic
from truesweep.record.provenance import collect
from truesweep.secrets import redact_argv
from truesweep.sweeps import start
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import PACKAGE, check_room, is_ours, make_executor
from truesweep.sweeps.planned import check_objectives
from truesweep.sweeps.planning import plan_candidates
from truesweep.sweeps.plugins import JobFailed, JobRunner, Outcome, candidates, hand_out, outcome
from truesweep.sweeps.progress import FAILED, Board
from truesweep.sweeps.protocols import Executor, JobSource, Listed
from truesweep.sweeps.request import Asked, ask
from truesweep.sweeps.summary import Page, sum_up
from truesweep.sweeps.wandb_sweep import wandb_sweep
from truesweep.terminal import console


def sweep(
    overrides: Sequence[str], config_dirs: Sequence[Path], dry_run: bool, as_json: bool = False
) -> int:
    """Check a whole sweep, then run its jobs: all by ourselves, or with a plugin of Hydra's."""
    asked = ask(overrides, config_dirs)
    launcher, sweeper = asked.multirun.launcher, asked.multirun.sweeper
    for node in (launcher, sweeper):
        _check_installed(str(node.get("_target_", PACKAGE)))
    executor = make_executor(launcher) if is_ours(launcher) else None
    if not is_ours(sweeper):
        if dry_run:
            raise ConfigError(
                f"--dry-run: only {sweeper['_target_']} itself knows what it will run"
            )
        task = SweepTask(asked, executor, start.record(asked, launcher, None))
        return _through_hydra(task, partial(_sweep, task))
    plan = start.prepare(asked, executor, dry_run, silent=as_json)
    asked = start.with_start(asked, plan)
    if as_json:
        print(dump_json(start.plain_plan(asked, plan), indent=2))
    if dry_run:
        return 0
    directory, provenance = start.record(asked, launcher, plan), collect(redact_argv(sys.argv), {})
    source = start.make_source(asked, directory, provenance, plan)
    if executor is not None:
        code = drive(directory, source, executor, asked.settings)
        return settle(directory) if asked.settings.settle and code == 0 else code
    task = SweepTask(asked, None, directory)
    return _through_hydra(task, partial(_launch, task, source))


def print_jobs(form: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """Make a sweep's jobs and start none: a command for each, for whatever starts them.

    The commands may run anywhere that sees the same files, in any order, and be repeated.

    Raises:
        ConfigError: The jobs are not known beforehand, or the form is not.
    """
    if form != "json":
        raise ConfigError(f"--jobs {form}: expected json")
    asked = ask(overrides, config_dirs)
    if asked.settings.method == "search" or not is_ours(asked.multirun.sweeper):
        raise ConfigError("--jobs: a search chooses its jobs by the results of others; start it")
    plan = start.prepare(asked, None, silent=True)
    directory = start.record(asked, {}, plan)
    jobs = start.add_jobs(directory, plan.jobs, collect(redact_argv(sys.argv), {}))
    rows = [
        {
            "id": job.id,
            "label": job.label,
            "state": job.state,
            "devices": job.devices,
            "nodes": job.nodes,
            "command": [sys.executable, "-m", "truesweep", "resume", str(job.path)],
        }
        for job in jobs
    ]
    print(dump_json({"sweep": str(directory.path), "jobs": rows}, indent=2))
    return 0


def write_wandb_sweep(
    overrides: Sequence[str], config_dirs: Sequence[Path], file: Path, dry_run: bool = False
) -> int:
    """Write a sweep for W&B's agents, and say how they are started; a dry run prints it."""
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file, or delete it")
    config = wandb_sweep(ask(overrides, config_dirs))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if dry_run:
        print(text, end="")
        return 0
    write_atomic(file, text)
    entity, project = config.get("entity"), config["project"]
    whose = f"--entity {entity} " if entity else ""
    console().print(
        f"Written to {file}. To run it:\n  wandb sweep {whose}--project {project} {file}\n"
        f"  wandb agent {entity or 'ENTITY'}/{project}/SWEEP_ID   (as often as you like)",
        soft_wrap=True,
    )
    return 0


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
        display = Display(self.asked.name, Board.of(settings))
        display.conclude(display.board.rows(jobs), 0, self.directory.path)
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


def _check_installed(target: str) -> None:
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


def _through_hydra(task: SweepTask, work: Callable[[HydraContext], None]) -> int:
    """Have another plugin do its work, and sum the sweep up; gives the exit code."""
    _settle(task.asked.multirun.master, task.directory)
    try:
        work(HydraContext(task.asked.multirun.loader, no_callbacks()))
    except JobFailed:  # told by plugins that give up at the first failure
        pass
    except (SystemExit, KeyboardInterrupt):  # told to stop
        if task.executor is None:
            Page(task.directory).write()
        raise
    return task.conclude()


def _sweep(task: SweepTask, context: HydraContext) -> None:
    """Have another sweeper choose the jobs; what runs them, ours too, is its launcher."""
    with _refusing("sweeper", task.directory):
        sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=context, task_function=task, config=task.asked.multirun.master
        )
        sweeper.sweep(normalize(task.asked.lines, task.asked.config_dirs))


def _launch(task: SweepTask, source: JobSource, context: HydraContext) -> None:
    """Have another launcher run our jobs: all at once, or of a search one after the other."""
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
