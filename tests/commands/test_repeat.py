"""`train --from DIR`: a run that is repeated, and in what it is not the same."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, write_data
from truesweep.commands.train import create_run, train
from truesweep.errors import ConfigError
from truesweep.jobs.extend import change
from truesweep.jobs.plan import plan, plan_again
from truesweep.runs.run import Run

ASKED = [*SMALL, "model.depth=1", "trainer.max_steps=2", "name=x"]


@pytest.fixture
def run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that was started in a folder `first`; commands are now typed in another."""
    (workplace / "first").mkdir()
    (workplace / "second").mkdir()
    monkeypatch.chdir(workplace / "first")
    data = write_data(Path())
    made = create_run(plan([*data["lm"], *ASKED]), Path("outputs/x/1"))
    monkeypatch.chdir(workplace / "second")
    return made


def said_of(run: Run, overrides: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert train(overrides, [], run.path, dry_run=True) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_length_replaces_the_other_kind(run: Run) -> None:
    with chdir(run.started_in):
        job = plan_again(run.path, ["trainer.max_epochs=1"])
    assert job.config["trainer"]["max_steps"] is None
    assert job.total_steps == job.steps_per_epoch > 2


def test_data_are_found_from_where_the_run_was_started(
    run: Run, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "second/text.txt").write_text("another file of that name\n" * 400)
    assert train(["name=again"], [], run.path, dry_run=False) == 0
    assert Path.cwd() == workplace / "second"
    (again,) = (workplace / "second/outputs/again").iterdir()
    known, found = (Run(path).read_provenance() for path in (run.path, again))
    assert found["data"] == known["data"]
    assert found["directory"] == known["directory"]
    out = capsys.readouterr().out
    assert f"truesweep generate {again.relative_to(Path.cwd())}\n" in out
    assert "Note" not in out


def test_a_plain_repeat_is_told_to_take_another_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.started_in)
    job = plan_again(run.path, [])
    kept = create_run(job, Path("outputs/x", job.id))
    with pytest.raises(ConfigError, match=rf"train --from outputs/x/{kept.path.name} name=again"):
        train([], [], kept.path, dry_run=False)


def test_other_data_and_another_schedule_are_noted(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Note" not in said_of(run, ["optimizer.lr=1e-3"], capsys)
    with chdir(run.started_in):
        change(run, ["trainer.max_steps=4"])
    assert "Note: 1 was made longer on its way; this trains 4 steps" in said_of(run, [], capsys)
    (run.started_in / "text.txt").write_text("".join(f"other words {n}\n" for n in range(400)))
    assert "data.train (text.txt): the data have changed since 1 began" in said_of(run, [], capsys)
