"""The driver's decisions, with jobs that only pretend."""

import io
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from tests.sweeps.search_driver import on, search
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.files import write_json
from truesweep.runs.run import BusyError, Run
from truesweep.sweeps import driver
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display, most_telling, summary
from truesweep.sweeps.driver import drive
from truesweep.sweeps.progress import Board, Row, counts, seconds_left
from truesweep.sweeps.protocols import BUSY, LOST, Listed, NotNow
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.siblings import Either


class Pretended:
    """Jobs that end as soon as they are waited for, the first one first.

    Args:
        slots: How many devices there are.
        fails: How often each job fails before it does not.
    """

    def __init__(self, slots: int = 2, fails: dict[str, int] | None = None) -> None:
        self.slots = slots
        self.fails = fails or {}
        self.order: list[str] = []
        self.beside: list[int] = []
        self.resumed: list[str] = []
        self._running: list[Run] = []

    @property
    def where(self) -> str:
        return "Slurm"

    @property
    def running(self) -> list[Run]:
        return list(self._running)

    def check(self, trainer: TrainerSettings, label: str) -> None:
        assert trainer.local_ranks() <= self.slots

    def fits(self, job: Run) -> bool:
        return sum(other.devices for other in self._running) + job.devices <= self.slots

    def takes_up(self, job: Run) -> bool:
        return False

    def start(self, job: Run, resume: bool) -> None:
        assert self.fits(job)
        job.begin()
        self.order.append(job.label)
        self.resumed += [job.label] if resume else []
        self._running.append(job)
        self.beside.append(sum(other.devices for other in self._running))

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        if not self._running:
            time.sleep(min(timeout, 0.01))
            return []
        job = self._running.pop(0)
        if self.fails.get(job.label, 0):
            self.fails[job.label] -= 1
            job.end("failed", 1, "for a reason")
            return [(job, 1)]
        write_json(job.results, {"val/loss": 1.0})
        job.end("completed", 0)
        return [(job, 0)]

    def kill(self, job: Run) -> None:
        raise AssertionError

    def stop(self, signum: int) -> None:
        for job in self._running:
            job.end("preempted", 143)
        self._running = []


def sweep_of(path: Path, devices: Iterable[int]) -> tuple[SweepDirectory, list[Run]]:
    sweep = SweepDirectory(path / "s")
    sweep.ask([], [], Sweep(), {})
    jobs = [
        sweep.add(on(count, i), [], {}, label=f"j{i}", number=i, provenance={}, devices=count)
        for i, count in enumerate(devices)
    ]
    return sweep, jobs


def run(
    sweep: SweepDirectory, executor: Pretended, settings: Sweep | None = None
) -> tuple[int, str]:
    """Exit code, and what a pipe was told."""
    told = io.StringIO()
    display = Display("s", Board("val/loss", "min"), Console(file=told))
    code = drive(sweep, Listed(sweep.jobs()), executor, settings or Sweep(), display)
    return code, told.getvalue()


def test_the_biggest_go_first_and_small_ones_fill_up(tmp_path: Path) -> None:
    sweep, _ = sweep_of(tmp_path, [1, 1, 2, 1, 3])
    executor = Pretended(slots=3)
    code, _ = run(sweep, executor)
    assert code == 0
    assert executor.order == ["j4", "j2", "j0", "j1", "j3"]
    assert executor.beside == [3, 2, 3, 2, 3]


def test_failed_jobs_are_tried_again_and_then_listed(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1])
    executor = Pretended(slots=1, fails={"j0": 1, "j1": 5})
    code, told = run(sweep, executor, Sweep(retries=2))
    assert code == 1
    assert executor.order.count("j0") == 2
    assert executor.order.count("j1") == 3
    assert set(executor.resumed) == {"j0", "j1"}
    assert [job.state for job in jobs] == ["completed", "failed", "completed"]
    assert told.count("it is tried again") == 3
    assert f"failed: {jobs[1].id}  j1: for a reason" in told
    assert [row["state"] for row in sweep.read_jobs()] == [job.state for job in jobs]


def test_no_job_of_a_search_that_is_over_is_queued(tmp_path: Path) -> None:
    settings = Sweep(method="search", jobs=8)
    sweep = SweepDirectory(tmp_path / "s")
    sweep.ask(["search"], [], settings, {})
    source = search(sweep.path, [Axis("model", values=("llama", "qwen3"), group=True)])
    assert sweep.planned == 8
    drive(
        sweep,
        source,
        Pretended(),
        settings,
        Display("s", Board("val/loss", "min"), Console(file=io.StringIO())),
    )
    assert (
        counts(Board("val/loss", "min").rows(sweep.jobs()), sweep.planned) == "2 jobs: 2 completed"
    )
    sweep.ask(["search", "more"], [], settings, {})
    assert sweep.planned == 8


def test_a_broken_job_leaves_the_others_alone(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1, 1])
    jobs[0].begin()
    (jobs[0].path / "status.json").write_text("")
    jobs[1].config.write_text("")

    class Spoils(Pretended):
        def wait(self, timeout: float) -> list[tuple[Run, int]]:
            ended = super().wait(timeout)
            for job, _ in ended:
                if job == jobs[2]:
                    job.results.write_text("")
            return ended

    code, told = run(sweep, Spoils(slots=1))
    assert code == 1
    assert [job.state for job in jobs] == ["broken", "broken", "broken", "completed"]
    assert "4 jobs: 1 completed, 3 broken" in told
    for job, name in zip(jobs, ("status.json", "config.yaml", "results.json"), strict=False):
        assert f"broken: {job.id}  {job.label}: {job.path / name}" in told


def test_a_job_that_has_lost_its_configuration_is_named_in_the_order_it_has(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1])
    assert run(sweep, Pretended())[0] == 0
    jobs[1].config.unlink()
    assert sweep.jobs() == jobs
    assert sweep.missing({"jobs": [job.id for job in jobs]}) == set()
    code, told = run(sweep, Pretended())
    assert code == 1
    assert "3 jobs: 2 completed, 1 broken" in told
    assert f"{jobs[1].config}: is missing. Restore it" in told
    jobs[1].config.write_text("seed: 1")
    (jobs[2].path / "job.json").unlink()
    assert f"{jobs[2].path / 'job.json'}: is missing. Restore it" in run(sweep, Pretended())[1]


def test_a_search_goes_on_without_a_job_that_cannot_be_read(tmp_path: Path) -> None:
    job = search(tmp_path / "s", jobs=3, sampler="random").ask()
    assert job is not None
    job.config.unlink()
    sweep, told = SweepDirectory(tmp_path / "s"), io.StringIO()
    settings = Sweep(method="search", jobs=3)
    sweep.ask([], [], settings, {})
    source = search(tmp_path / "s", jobs=3, sampler="random")
    display = Display("s", Board("val/loss", "min"), Console(file=told))
    code = drive(sweep, source, Pretended(), settings, display)
    assert code == 1
    assert sorted(one.state for one in sweep.jobs()) == ["broken", "completed", "completed"]
    assert f"{job.config}: is missing. Restore it" in told.getvalue()


def test_a_full_disk_ends_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1])
    monkeypatch.setattr(driver, "SECONDS_PER_SUMMARY", 0.0)
    tried: list[int] = []
    write = SweepDirectory.write_jobs

    def full(self: SweepDirectory, jobs: list[Run], settings: Sweep) -> None:
        tried.append(len(tried))
        if len(tried) < 3:
            raise OSError(28, "No space left on device")
        write(self, jobs, settings)

    monkeypatch.setattr(SweepDirectory, "write_jobs", full)
    code, told = run(sweep, Pretended(slots=1))
    assert code == 0
    assert [job.state for job in jobs] == ["completed"] * 3
    assert told.count("No space left") == 1
    assert [row["state"] for row in sweep.read_jobs()] == ["completed"] * 3


def test_a_job_whose_end_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = sweep_of(tmp_path, [1])

    class Dies(Pretended):
        def wait(self, timeout: float) -> list[tuple[Run, int]]:
            return [(self._running.pop(0), 1)]

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(driver, "name_failure", full)
    code, told = run(sweep, Dies(slots=1))
    assert code == 1
    assert "No space left" in told


class Paused(Pretended):
    """A node that is lost when a job on it has just paused."""

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        if not self._running or len(self.order) > 1:
            return super().wait(timeout)
        job = self._running.pop()
        job.update_status(step=4)
        job.end("paused", 0)
        return [(job, LOST)]


def test_a_job_that_has_paused_waits_though_its_node_was_lost(tmp_path: Path) -> None:
    sweep, (job,) = sweep_of(tmp_path, [1])
    executor = Paused()
    code, told = run(sweep, executor)
    assert (code, job.state) == (0, "paused")
    assert executor.order == ["j0"]
    assert "paused     " in told


def test_fail_fast_stops_the_others(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1])
    code, told = run(sweep, Pretended(slots=2, fails={"j0": 1}), Sweep(fail_fast=True))
    assert code == 1
    assert [job.state for job in jobs] == ["failed", "preempted", "queued"]
    assert "truesweep resume" in told


def test_no_job_starts_when_time_is_up(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1])
    code, told = run(sweep, Pretended(), Sweep(hours=1e-9))
    assert code == 0
    assert [job.state for job in jobs] == ["queued", "queued"]
    assert "2 queued" in told


def test_a_jobs_turn_that_another_driver_has_taken_is_waited_for(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1])

    class Elsewhere(Pretended):
        """The other driver ends its job when it is looked at for the second time."""

        def wait(self, timeout: float) -> list[tuple[Run, int]]:
            if not self._running and claimed is not None:
                write_json(jobs[0].results, {"val/loss": 1.0})
                jobs[0].end("completed", 0)
                claimed.__exit__(None, None, None)
            return super().wait(timeout)

    claimed = jobs[0].claim()
    claimed.__enter__()
    jobs[0].begin()
    executor = Elsewhere()
    code, told = run(sweep, executor)
    assert code == 0
    assert executor.order == ["j1"]
    assert "2 completed" in told


def test_a_job_that_turns_out_to_be_claimed_is_not_a_failure(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1])

    class Late(Pretended):
        def wait(self, timeout: float) -> list[tuple[Run, int]]:
            if len(self.order) == 1 and self._running:
                self._running.clear()
                return [(jobs[0], BUSY)]
            return super().wait(timeout)

    executor = Late()
    assert run(sweep, executor)[0] == 0
    assert executor.order == ["j0", "j0"]


def test_a_job_that_another_driver_begins_before_this_one_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, (job, _) = sweep_of(tmp_path, [1, 1])

    def branch(self: Either, one: Run) -> None:
        if one == job:  # which it is found to train where a state is to be taken over
            write_json(job.results, {"val/loss": 1.0})
            job.end("completed", 0)
            raise BusyError(f"{job.path} is being worked on")

    monkeypatch.setattr(Either, "branch", branch)
    executor = Pretended()
    code, told = run(sweep, executor)
    assert code == 0, told
    assert executor.order == ["j1"]


class Limited(Pretended):
    """A cluster that takes one job after the other, and one never."""

    def __init__(self, never: str) -> None:
        super().__init__()
        self.never = never
        self.refused = False

    def fits(self, job: Run) -> bool:
        return not (self.refused and self._running)

    def start(self, job: Run, resume: bool) -> None:
        self.refused = bool(self._running) or job.label == self.never
        if self._running:
            raise NotNow("submit limit")
        if self.refused:
            raise ConfigError("too much memory")
        super().start(job, resume)


def test_what_cannot_be_started_now_is_started_later_or_has_failed(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1, 1, 1])
    executor = Limited(never="j2")
    code, told = run(sweep, executor)
    assert code == 1
    assert executor.order == ["j0", "j1", "j3"]
    assert [job.state for job in jobs] == ["completed", "completed", "failed", "completed"]
    assert "j1: submit limit" in told
    assert "j2: too much memory" in told


def test_a_sweep_whose_first_job_is_refused_is_refused(tmp_path: Path) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1])
    with pytest.raises(ConfigError, match="too much memory"):
        run(sweep, Limited(never="j0"))
    assert [job.state for job in jobs] == ["queued", "queued"]


def row(number: int, state: str, **values: float) -> Row:
    fields = {"seconds": 0.0, "left": None, "ended": 0.0, "best": None}
    return Row(str(number), f"j{number}", state, 1, 4, None, error=None, **{**fields, **values})  # type: ignore[arg-type]


def test_where_there_is_no_room_for_all_the_most_telling_rows_are_shown() -> None:
    rows = [row(i, "completed", ended=float(i)) for i in range(300)]
    rows += [row(i, "queued") for i in range(300, 500)]
    rows[10] = row(10, "failed")
    rows[301] = row(301, "running")
    shown = most_telling(rows, 4)
    assert [r.id for r in shown] == ["10", "298", "299", "301"]
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=80, height=20)
    rows[7] = row(7, "completed", best=1.5)
    with Display("s", Board("val/loss", "min"), console) as display:
        display.show(rows, 0)
    assert "best job: 7  j7  val/loss 1.500" in told.getvalue()
    assert "and 488 more" in told.getvalue()
    assert "500 jobs: 299 completed, 1 failed, 1 running, 199 queued" in told.getvalue()


@pytest.mark.parametrize(("width", "columns"), [(79, "job varies state val/f1_macro"), (120, "")])
def test_columns_make_room_for_what_varies(width: int, columns: str) -> None:
    label = "lr=0.01 batch_size=16 depth=2 max_epochs=1"
    rows = [Row("1a2b3c4d", label, "running", 120, 392, 2.1, 0.5, 9.0, 80.0, 0.0, None)]
    told = io.StringIO()
    console = Console(file=told, width=width, force_terminal=True, color_system=None)
    display = Display("s", Board("val/f1_macro", "max"), console)
    console.print(summary(display, rows, rows, 0))
    heading, _, line = told.getvalue().splitlines()[1:4]
    everything = "job varies state step loss val/f1_macro left"
    assert heading.split() == (columns or everything).split()
    assert label in line


def test_time_is_estimated_from_the_first_finished_job_on() -> None:
    rows = [row(0, "running", seconds=10.0), row(1, "running", seconds=20.0)]
    assert seconds_left(rows, 6) is None
    rows.append(row(2, "completed", seconds=60.0))
    # 50 and 40 s of those that run, and three more of a minute, two beside each other
    assert seconds_left(rows, 6) == pytest.approx((50 + 40 + 3 * 60) / 2)
    assert counts(rows, 6) == "6 jobs: 1 completed, 2 running, 3 queued"


def test_a_board_reads_what_has_changed(tmp_path: Path) -> None:
    _, jobs = sweep_of(tmp_path, [1])
    board = Board("val/loss", "min")
    assert board.rows(jobs)[0].state == "queued"
    jobs[0].begin()
    assert board.rows(jobs)[0].state == "interrupted"
    assert board.rows(jobs, {jobs[0].id})[0].state == "running"
    write_json(jobs[0].results, {"val/loss": 0.5})
    jobs[0].end("completed", 0)
    done = board.rows(jobs)[0]
    assert (done.state, done.best) == ("completed", 0.5)


def test_a_search_that_has_tried_every_point_has_none_queued(tmp_path: Path) -> None:
    sweep, _ = sweep_of(tmp_path, [1, 1])
    code, told = run(sweep, Pretended(), Sweep(method="search", jobs=6))
    assert code == 0
    assert "2 jobs: 2 completed\n" in told
