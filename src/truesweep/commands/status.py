"""`truesweep status`."""

from dataclasses import asdict
from pathlib import Path

from truesweep import dotted
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display, first_line, paused
from truesweep.sweeps.progress import FAILED, Board


def status(directory: Path, as_json: bool = False) -> int:
    """Show how far the jobs of a sweep are, or one run; asks nobody but their directories."""
    if SweepDirectory.is_sweep(directory):
        return _sweep(SweepDirectory.open(directory), as_json)
    return _run(Run.open(directory, or_sweep=True), as_json)


def _sweep(sweep: SweepDirectory, as_json: bool) -> int:
    return _show(sweep.name, sweep.jobs(), Board.of(sweep.settings), sweep.planned, as_json)


def _run(run: Run, as_json: bool) -> int:
    config = run.read_config()
    checkpoint = dotted.get(config, "callbacks.checkpoint", {})
    board = Board(checkpoint.get("monitor", "val/loss"), checkpoint.get("mode", "min"))
    return _show(str(config["name"]), [run], board, 0, as_json)


def _show(name: str, jobs: list[Run], board: Board, planned: int, as_json: bool) -> int:
    rows = board.rows(jobs)
    best = board.best(rows)
    if as_json:
        shown = {
            "name": name,
            "objective": board.objective,
            "mode": board.mode,
            "planned": max(planned, len(rows)),
            "best": None if best is None else best.id,
            "jobs": [asdict(row) for row in rows],
        }
        print(dump_json(shown, indent=2))
        return 0
    display = Display(name, board)
    display.table(rows, planned)
    for line in paused(rows, jobs):
        display.console.print(line, soft_wrap=True)
    for row in rows:
        if row.state in FAILED:
            display.console.print(f"{row.id}: {first_line(row.error)}")
    return 0
