"""Checkpoints of a sweep within a budget."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.sweeps.search_driver import on
from tests.sweeps.test_driver import Pretended
from truesweep.commands.resume import go_on, resume
from truesweep.commands.status import status
from truesweep.errors import ConfigError
from truesweep.jobs.rank import newest_checkpoint
from truesweep.record.checkpoints import CheckpointFiles, has_optimizer
from truesweep.record.files import write_json
from truesweep.runs.run import Run, State
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import held, keep_within
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.progress import Board
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.settings import Sweep

WEIGHTS = 400_000
"""Bytes of a job's weights; its optimizer's state takes twice as many."""
LOSSES = (2.0, 1.0, 3.0, 4.0)


def save(path: Path, optimizer: bool) -> None:
    weights = torch.zeros(WEIGHTS // 4)
    state: dict[str, Any] = {"state_dict": {"w": weights}}
    if optimizer:
        state |= {"optimizer_states": [{"m": torch.cat([weights, weights])}], "lr_schedulers": []}
    CheckpointFiles().save_checkpoint(state, path)


def end(job: Run, state: State, loss: float) -> None:
    """Leave what a job does that comes to this."""
    job.begin()
    save(job.checkpoints / "last.ckpt", optimizer=True)
    save(job.checkpoints / "best.ckpt", optimizer=state != "completed")
    job.update_status(step=10, saved_step=10)
    if state == "completed":
        write_json(job.results, {"val/loss": loss})
    job.end(state, 1 if state == "failed" else 0)


def sweep_of(path: Path, losses: Sequence[float], seeds: int = 1, **settings: Any) -> list[Run]:
    sweep = SweepDirectory(path)
    sweep.ask([], [], Sweep(**settings), {})
    return [
        sweep.add(
            {**on(1, i % seeds), "loss": loss // seeds},
            [],
            {"loss": loss},
            label=f"loss={loss}",
            number=i,
            provenance={},
        )
        for i, loss in enumerate(losses)
    ]


def whole(job: Run) -> bool:
    last = job.checkpoints / "last.ckpt"
    return last.exists() and has_optimizer(CheckpointFiles().load_checkpoint(last))


def test_the_worst_lose_their_optimizer_first_and_then_their_last_checkpoint(
    tmp_path: Path,
) -> None:
    jobs = sweep_of(tmp_path / "s", LOSSES)
    for job, loss in zip(jobs, LOSSES, strict=True):
        end(job, "completed", loss)
    asked, full = Sweep(), held(jobs)
    assert full == pytest.approx(4 * 4 * WEIGHTS, rel=0.02)
    assert keep_within(full, jobs, asked) == []
    assert keep_within(full - WEIGHTS, jobs, asked) == [jobs[3]]
    assert [whole(job) for job in jobs] == [True, True, True, False]
    assert jobs[3].status["dropped"] == "optimizer"
    assert keep_within(full - 5 * WEIGHTS, jobs, asked) == [jobs[2], jobs[0]]
    assert [whole(job) for job in jobs] == [False, True, False, False]
    assert held(jobs) <= full - 5 * WEIGHTS
    assert keep_within(0, jobs, asked) == [jobs[3], jobs[2], jobs[0]]  # all that can be
    names = [{file.name for file in job.checkpoints.glob("*.ckpt")} for job in jobs]
    assert names == [{"best.ckpt"}, {"best.ckpt", "last.ckpt"}, {"best.ckpt"}, {"best.ckpt"}]
    assert whole(jobs[1])
    assert keep_within(0, jobs, asked) == []
    for job in jobs:  # every file is as its checksum says
        CheckpointFiles().load_checkpoint(job.checkpoints / "best.ckpt")


def test_what_may_go_on_keeps_all_it_has(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path / "s", range(6))
    ends: list[State] = ["completed", "completed", "paused", "failed", "pruned", "running"]
    for job, state in zip(jobs, ends, strict=True):
        end(job, state, float(job.number))
    before = [(job.checkpoints / "last.ckpt").read_bytes() for job in jobs]
    assert keep_within(0, jobs, Sweep()) == [jobs[4], jobs[1]]
    for i in (0, 2, 3, 5):
        assert (jobs[i].checkpoints / "last.ckpt").read_bytes() == before[i]
        assert "dropped" not in jobs[i].status
    best = CheckpointFiles().load_checkpoint(jobs[4].checkpoints / "best.ckpt")
    assert not has_optimizer(best)  # pruned is for good


def test_one_that_is_being_made_longer_is_left_alone(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path / "s", LOSSES[:2])
    for job, loss in zip(jobs, LOSSES, strict=False):
        end(job, "completed", loss)
    with jobs[0].claim():
        assert keep_within(0, jobs, Sweep()) == []
    assert whole(jobs[0])


def test_all_seeds_of_the_best_point_are_kept(tmp_path: Path) -> None:
    """The mean decides: one seed of another point is the best of all jobs."""
    losses = (2.0, 2.0, 1.0, 4.0)
    jobs = sweep_of(tmp_path / "s", (2, 3, 4, 5), seeds=2)
    for job, loss in zip(jobs, losses, strict=True):
        end(job, "completed", loss)
    assert keep_within(0, jobs, Sweep()) == [jobs[2], jobs[3]]


class Ends(Pretended):
    """Jobs that leave checkpoints."""

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        if not self._running:
            return []
        job = self._running.pop(0)
        end(job, "completed", job.varies["loss"])
        return [(job, 0)]


def test_a_sweep_says_what_it_dropped_and_its_jobs_go_on_no_more(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = sweep_of(workplace / "s", LOSSES, disk="0.1MB")
    sweep = SweepDirectory(workplace / "s")
    told = io.StringIO()
    display = Display("s", Board("val/loss", "min"), Console(file=told))
    assert drive(sweep, Listed(jobs), Ends(), sweep.settings, display, last=False) == 0
    said = told.getvalue()
    line = f"sweeps.disk: 3 jobs keep weights only, and cannot go on: {jobs[0].id}, {jobs[2].id}"
    assert line in said
    assert f"dropped    {jobs[3].id}  loss=4.0" in said
    assert "sweeps.disk=0.1MB: 2.81 MB are held by best checkpoints" in said
    assert status(sweep.path) == 0
    assert line in capsys.readouterr().out
    assert whole(jobs[1])
    assert newest_checkpoint(jobs[1]) == jobs[1].checkpoints / "last.ckpt"
    with pytest.raises(ConfigError, match=r"keeps no state to go on from.*train --from"):
        resume(jobs[0].path, ["trainer.max_steps=20"])
    # Without a wish there is nothing to refuse.
    assert go_on(jobs[0], [], "it") == 0
    assert "it is complete; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "size"), [("20GB", 20e9), ("1.5 tb", 1.5e12), ("300MB", 3e8), (None, None)]
)
def test_a_size_is_read(given: str | None, size: float | None) -> None:
    assert Sweep(disk=given).budget == size


@pytest.mark.parametrize("given", ["20", "much", "-1GB", "20GB "])
def test_what_is_no_size_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=f"sweeps.disk={given}: is no size"):
        Sweep(disk=given)
