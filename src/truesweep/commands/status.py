"""`truesweep status`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from truesweep import dotted
from truesweep.errors import ConfigError
from truesweep.figures import Mode
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display, first_line
from truesweep.sweeps.progress import FAILED, Board


def status(directory: Path, as_json: bool = False) -> int:
    """Show how far the jobs of a sweep are, or one run; asks nobody but their directories."""
    if SweepDirectory.is_sweep(directory):
        return _sweep(SweepDirectory.open(directory), as_json)
    if not (directory / "config.yaml").is_file():
        raise ConfigError(
            f"{directory} has neither sweep.yaml nor config.yaml: name the directory of a sweep, "
            "such as outputs/sweeps/NAME, or of a run, such as outputs/NAME/ID"
        )
    return _run(Run.open(directory), as_json)


def _sweep(sweep: SweepDirectory, as_json: bool) -> int:
    settings = sweep.settings
    objective, mode = next(iter(settings.modes.items()))
    show = _print_json if as_json else _show
    show(sweep.name, sweep.jobs(), objective, mode, sweep.planned)
    return 0


def _run(run: Run, as_json: bool) -> int:
    config = run.read_config()
    checkpoint = dotted.get(config, "callbacks.checkpoint", {})
    objective = checkpoint.get("monitor", "val/loss")
    show = _print_json if as_json else _show
    show(str(config["name"]), [run], objective, checkpoint.get("mode", "min"), 0)
    return 0


def _show(name: str, jobs: list[Run], objective: str, mode: Mode, planned: int) -> None:
    display = Display(name, Board(objective, mode))
    rows = display.board.rows(jobs)
    display.table(rows, planned)
    for row in rows:
        if row.state in FAILED:
            display.console.print(f"{row.id}: {first_line(row.error)}")


def _print_json(name: str, jobs: list[Run], objective: str, mode: Mode, planned: int) -> None:
    board = Board(objective, mode)
    rows = board.rows(jobs)
    best = board.best(rows)
    shown: dict[str, Any] = {"name": name, "objective": objective, "mode": mode}
    shown |= {"planned": max(planned, len(rows)), "best": None if best is None else best.id}
    print(dump_json({**shown, "jobs": [asdict(row) for row in rows]}, indent=2))
