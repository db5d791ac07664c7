"""`truesweep status`."""

from pathlib import Path

from truesweep import dotted
from truesweep.errors import ConfigError
from truesweep.jobs.directory import RunDirectory
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display, first_line
from truesweep.sweeps.job import Job
from truesweep.sweeps.progress import FAILED, Board, Mode


def status(directory: Path) -> int:
    """Show how far the jobs of a sweep are, or one run; asks nobody but their directories."""
    if SweepDirectory.is_sweep(directory):
        return _sweep(SweepDirectory.open(directory))
    if not (directory / "config.yaml").is_file():
        raise ConfigError(
            f"{directory} has neither sweep.yaml nor config.yaml: name the directory of a sweep, "
            "such as outputs/sweeps/NAME, or of a run, such as outputs/NAME/ID"
        )
    return _run(RunDirectory.open(directory))


def _sweep(sweep: SweepDirectory) -> int:
    settings = sweep.settings
    objective, mode = next(iter(settings.modes.items()))
    _show(sweep.name, sweep.jobs(), objective, mode, sweep.planned)
    return 0


def _run(run: RunDirectory) -> int:
    config = run.read_config()
    checkpoint = dotted.get(config, "callbacks.checkpoint", {})
    job = Job(run, run.job.get("varies", {}))
    objective = checkpoint.get("monitor", "val/loss")
    _show(str(config["name"]), [job], objective, checkpoint.get("mode", "min"), 0)
    return 0


def _show(name: str, jobs: list[Job], objective: str, mode: Mode, planned: int) -> None:
    board, display = Board(objective, mode), Display(name, objective)
    rows = board.rows(jobs)
    display.table(rows, planned, board.best(rows))
    for row in rows:
        if row.state in FAILED:
            display.console.print(f"{row.id}: {first_line(row.error)}", markup=False)
