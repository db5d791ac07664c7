from pathlib import Path

from truesweep.commands.sync import records_of
from truesweep.sweeps.closing import link_records
from truesweep.sweeps.directory import SweepDirectory


def record(folder: Path, name: str) -> Path:
    path = folder / "wandb" / name
    path.mkdir(parents=True)
    (path / f"{name}.wandb").touch()
    return path


def test_a_sweeps_records_are_found_in_one_place(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    own = record(sweep.path, "offline-run-3-summary")
    old, other = (record(sweep.path / job, f"offline-run-1-{job}") for job in ("a", "b"))
    (old.parent / "latest-run").symlink_to(old)
    link_records(sweep)
    names = {path.name for path in own.parent.iterdir()}
    assert names == {own.name, old.name, other.name}
    assert (own.parent / old.name / f"{old.name}.wandb").is_file()
    assert records_of(sweep.path) == [own]  # each is sent once, from its job

    (old / f"{old.name}.wandb").unlink()  # resumed: a new record takes its place
    old.rename(old.with_name("offline-run-2-a"))
    link_records(sweep)
    link_records(sweep)
    names = {path.name for path in own.parent.iterdir()}
    assert names == {own.name, "offline-run-2-a", other.name}
    sweep.path.rename(tmp_path / "moved")
    assert (tmp_path / "moved/wandb" / other.name / f"{other.name}.wandb").is_file()


def test_a_sweep_without_records_gets_no_folder_for_them(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    (sweep.path / "a").mkdir(parents=True)
    link_records(sweep)
    assert not (sweep.path / "wandb").exists()
