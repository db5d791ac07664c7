"""`truesweep duel`: who is better, by runs with the same seeds."""

import json
import re
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import SMALL, truesweep
from tests.sweeps.test_trunks import WSD, assert_same
from truesweep.analysis.duel import judge
from truesweep.commands import app
from truesweep.commands.beginnings import Beginning, Common
from truesweep.commands.duel import Match, Terms, duel, foretold, read_contenders
from truesweep.commands.resume import resume_sweep
from truesweep.commands.show import of_directory
from truesweep.commands.sweep import sweep
from truesweep.errors import ConfigError
from truesweep.report import compare
from truesweep.report.findings import findings
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.launchers import make_executor
from truesweep.sweeps.start import add_jobs

TERMS = Terms(None, 0.05, 0.0, 20, None, dry_run=True, json=False)
TINY = ["model.depth=1", "trainer.max_steps=4", "trainer.val_check_interval=4"]


@pytest.mark.slow
def test_a_run_is_beaten_and_the_same_command_again_trains_nothing(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, *TINY, "optimizer.lr=1e-4", "name=x"]
    assert truesweep("train", *asked, cwd=workplace).code == 0
    (run,) = (workplace / "outputs/x").iterdir()
    fight = ["duel", str(run), "optimizer.lr=0.02", "--json"]
    done = truesweep(*fight, cwd=workplace)
    assert done.code == 0, done.out + done.err
    told = json.loads(done.out)
    found = told["duels"]["B"]
    assert (found["verdict"], found["seeds"]) == ("better", 4)
    assert found["low"] < found["difference"] < found["high"] < 0
    values = {letter: one["values"] for letter, one in told["contenders"].items()}
    assert values["A"].keys() == values["B"].keys() == {"0", "1", "2", "3"}
    # Of seed 0, the run itself was trained again, to the same figure.
    assert told["common"]["B"]["order"]
    results = json.loads((run / "results.json").read_text())
    assert values["A"]["0"] == results["val/loss"]
    jobs = sorted((workplace / "outputs/sweeps").glob("duel-*/*/status.json"))
    assert len(jobs) == 8
    before = [path.stat().st_mtime_ns for path in jobs]
    again = truesweep(*fight[:-1], cwd=workplace)
    assert again.code == 0, again.out + again.err
    assert "B is better than A by" in again.out
    assert "begins with all of its" in again.out
    assert "Winner" not in again.out  # by another statistic, of seeds that are not paired
    assert [path.stat().st_mtime_ns for path in jobs] == before


def test_secrets_of_contenders_are_not_kept() -> None:
    (first, _) = read_contenders(["model=llama logger.api_key=sk-canary", "seed=1"], [])
    assert "sk-canary" not in first.typed + first.text


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        (
            [1e-4, -1e-4, 1.00001e-4, -1e-4],
            ["a difference of that size would take more than 100k seeds"],
        ),
        ([1.0, 1.0], []),  # without a spread nothing is known
        ([-1.0, -1.1, -0.9, -1.0, -1.05, -0.95, -1.0, -1.02], ["half as large would take about"]),
    ],
)
def test_what_smaller_differences_would_take(differences: list[float], said: list[str]) -> None:
    one = judge([0.0] * len(differences), differences, mode="min", error=0.05)
    assert len(foretold(one)) == len(said)
    assert all(part in told for part, told in zip(said, foretold(one), strict=True))


def test_a_job_of_a_sweep_is_called_by_what_it_varies(archive: Path) -> None:
    sweep = SweepDirectory.open(next(file.parent for file in archive.rglob("sweep.yaml")))
    job = next(job for job in sweep.jobs() if job.varies)
    shown = [one.text for one in read_contenders([str(job.path), "optimizer.lr=0.5"], [])]
    assert shown == [f"{job.id} {job.label}", "optimizer.lr=0.5"]


def test_what_cannot_be_fought_is_refused(data: dict[str, list[str]], workplace: Path) -> None:
    first = " ".join([*data["lm"], *SMALL])
    refused = [
        ([first], "a duel is of 2 to 26 contenders, and 1 are given"),
        ([first, f"{first} seed=3"], "A and B are the same configuration"),
        ([first, f"{first} optimizer.lrr=1"], r"optimizer\.lrr: no such key"),
        ([first, "outputs/none"], "outputs/none"),
        ([first, "name='x"], "name='x: a quote in it is not closed"),
        ([first, f"{first} hydra/launcher=slurm"], "hydra/launcher=slurm is for all contenders"),
        ([first, "outputs/none hydra.launcher.slots=1"], "hydra.launcher.slots=1 is for all"),
        ([first, "seed=1", "hydra/launcher=basic"], "take hydra/launcher=local, slurm or ray"),
        ([first, "seed=1", "hydra/sweeper=basic"], "a duel has no sweeper"),
        ([first, "hydra/launcher=slurm"], "and 1 are given"),
    ]
    for contenders, message in refused:
        with pytest.raises(ConfigError, match=message):
            duel(contenders, [], TERMS)
    with pytest.raises(ConfigError, match="val/blue"):
        duel(
            [first, f"{first} model.depth=1"], [], Terms("val/blue", 0.05, 0, 20, None, True, False)
        )
    assert not (workplace / "outputs").exists()


def test_its_jobs_run_where_a_launcher_says(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of `train -m` would, by the same words."""
    asked = " ".join([*data["lm"], *SMALL, *TINY])
    said = [asked, f"{asked} optimizer.lr=1", "hydra/launcher=local", "hydra.launcher.slots=1"]
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.partition: is no key of the slots"):
        duel([*said, "hydra.launcher.partition=a"], [], TERMS)
    assert duel(said, [], TERMS) == 0
    assert re.search(r"in outputs/sweeps/duel-\w+, on 1 slot", capsys.readouterr().out)
    with pytest.raises(SystemExit) as end:
        app(["duel", *said, "--seeds", "2", "--name", "fight"])
    assert not end.value.code
    plan, _, _ = capsys.readouterr().out.partition("started")
    assert "2 contenders, 2 seeds at first, 2 at most" in plan
    told = {entry.key: entry.origin for entry in of_directory(Path("outputs/sweeps/fight"))}
    assert told["name"] == "command line: --name"
    assert told["launcher.slots"] == told["launcher._target_"] == "command line"
    assert told["sweeps.objective"].startswith("callbacks.checkpoint.monitor of contender A")
    kept = SweepDirectory.called("fight")
    assert kept.launcher["slots"] == 1
    times = sorted((job.status["started"], job.status["finished"]) for job in kept.jobs())
    assert len(times) == 4
    assert all(one[1] <= next[0] for one, next in pairwise(times)), "one after the other"
    shutil.rmtree(kept.jobs()[-1].path)  # as if it had been stopped before its last job
    assert resume_sweep(kept.path) == 0
    assert "undecided" in capsys.readouterr().out
    (answer, *_) = findings(compare([kept.path]))
    assert answer.title == "Duel"
    assert answer.text.startswith("B against A is undecided: ")
    assert answer.text.endswith(" seeds. B is optimizer.lr=1.")
    assert not [one.key for one in of_directory(kept.path) if one.key.startswith("duel.answer")]
    assert resume_sweep(kept.path) == 0
    again = capsys.readouterr().out
    assert "undecided" in again
    assert "4 jobs: 4 completed" not in again  # there was nothing to do
    assert len(kept.jobs()) == 4
    assert kept.launcher["slots"] == 1


def test_a_dry_run_writes_nothing(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = " ".join([*data["lm"], *SMALL])
    assert duel([first, f"{first} model.depth=1"], [], TERMS) == 0
    said = capsys.readouterr().out
    assert "2 contenders, 4 seeds at first, 20 at most, by val/loss" in said
    assert "With the same seed, B takes its samples in the same order as A, and begins with" in said
    assert not (workplace / "outputs").exists()


def added(*texts: str, name: str | None = None) -> list[tuple[str, ...]]:
    """What a duel adds to each contender."""
    return [one.added for one in Match(read_contenders(texts, []), named(name)).contenders]


def named(name: str | None) -> Terms:
    return replace(TERMS, name=name)


BY_NAME = ("model.init_seeding=by_name",)


def test_pairs_of_other_shapes_are_drawn_by_name(
    data: dict[str, list[str]], workplace: Path
) -> None:
    first = " ".join([*data["lm"], *SMALL])
    deeper, said = f"{first} model.depth=3", f"{first} model.init_seeding=sequential"
    assert added(first, deeper) == [BY_NAME, BY_NAME]
    assert added(first, f"{first} optimizer.lr=0.1", deeper) == [BY_NAME] * 3
    assert added(first, f"{first} optimizer.lr=0.1 model.dropout=0.1") == [(), ()]
    assert added(first, f"{first} model.width=48") == [(), ()]
    assert added(said, deeper) == [(), ()]
    assert added(first, f"{deeper} model.init_seeding=sequential") == [(), ()]
    assert added(f"{first} model.init_seeding=by_name", deeper) == [(), BY_NAME]
    jobs = Match(read_contenders([first, deeper], []), TERMS).plan([0, 1])
    assert [[job.config["model"]["init_seeding"] for job in its] for its in jobs.values()] == [
        ["by_name", "by_name"]
    ] * 2


def test_a_duel_that_has_begun_in_order_goes_on_so(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = " ".join([*data["lm"], *SMALL])
    texts = [first, f"{first} model.depth=3"]
    with monkeypatch.context() as earlier:
        earlier.setattr(sys.modules[duel.__module__], "shapes", lambda config: {})
        match = Match(read_contenders(texts, []), TERMS)
        match.sweep.ask([], [], match.settings, {})
        planned = match.plan([0])
        for jobs in planned.values():
            add_jobs(match.sweep, jobs, {})
    again = Match(read_contenders(texts, []), TERMS)
    assert again.sweep == match.sweep
    assert [one.added for one in again.contenders] == [(), ()]
    ids = [job.id for jobs in planned.values() for job in jobs]
    assert [job.id for jobs in again.plan([0]).values() for job in jobs] == ids
    assert added(*texts, name="another") == [BY_NAME, BY_NAME]


def test_it_says_what_pairs_have_in_common(data: dict[str, list[str]], workplace: Path) -> None:
    first = " ".join([*data["lm"], *SMALL, "model=llama"])

    def said(*changes: str) -> str:
        both = read_contenders([first, " ".join([first, *changes])], [])
        return " ".join(Match(both, TERMS).shared())

    assert "begins with all of its" in said("optimizer.lr=0.1")
    assert "B takes its samples in the same order as A" in said("data.batch_size=4")
    assert "B takes its samples in another order than A" in said("data.max_length=16")
    deeper = said("model.depth=3")
    assert "Some shapes differ, so weights are drawn by name (model.init_seeding=by_name)" in deeper
    found = re.search(r"begins with ([\d.]+)k of its ([\d.]+)k parameters as A does", deeper)
    assert found is not None
    assert 0.6 < float(found[1]) / float(found[2]) < 0.8  # two layers of three, and the tables


def test_what_begins_alike_is_counted_by_its_values() -> None:
    first = Beginning("data", [3, 1, 2], {"a": ("x", 10), "b": ("y", 5)})
    assert first.common(first) == Common(True, 15, 15)
    other = Beginning("data", [3, 1], {"a": ("x", 10), "b": ("z", 5), "c": ("y", 1)})
    assert other.common(first) == Common(True, 10, 16)
    assert Beginning("data", [3, 2], {}).common(first) == Common(False, 0, 0)
    assert Beginning("others", [3, 1], {}).common(first) == Common(False, 0, 0)


FIGURES = {
    "A": dict.fromkeys(range(4), 1.0),
    "B": {0: 1.08, 1: 1.11, 2: 1.12, 3: 1.09},
    "C": {0: 1.1, 1: 0.9, 2: 1.03, 3: 1.0},
}


def test_it_says_what_smaller_differences_would_take(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And divides the error among challengers."""
    first = " ".join([*data["lm"], *SMALL])
    texts = [first, f"{first} optimizer.lr=0.1", f"{first} optimizer.lr=0.2"]

    def said(*contenders: str) -> list[str]:
        match = Match(read_contenders(contenders, []), TERMS)
        monkeypatch.setattr(match, "values", FIGURES.__getitem__)
        return [str(match._sentence(*one)) for one in match.duels().items()]

    (alone,) = said(*texts[:2])
    assert alone.startswith("A is better than B by 0.100 in val/loss (95 % interval +")
    assert alone.endswith("4 paired seeds; a difference half as large would take about 5 seeds.")
    beside, noise = said(*texts)
    assert beside.startswith("B against A is undecided")
    told = r"of that size would take about ([\d,]+) seeds; a difference half as large would"
    assert re.search(told, noise)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"error": 0.0}, "--error 0.0: expected a share between 0 and 1"),
        ({"seeds": 1}, "--seeds 1: expected 2 or more"),
        ({"smallest": -1.0}, "--smallest -1.0: expected 0 or more"),
        ({"smallest": float("nan")}, "--smallest nan: expected 0 or more"),
        ({"name": "../elsewhere"}, "--name ../elsewhere: is no folder inside outputs/"),
    ],
)
def test_terms_that_mean_nothing_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TERMS, **changed)


@pytest.mark.slow
def test_the_leaders_of_a_sweep_are_settled(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two points that come to the same are tied, and stay so."""
    monkeypatch.setattr(sys.modules[duel.__module__], "SEEDS", 2)
    rows = "trainer.log_every_n_steps=1,2"
    asked = [*data["lm"], *SMALL, *TINY, rows, "name=x", "sweeps.settle=true"]
    asked += ["hydra.launcher.slots=1"]
    executors, make = list[Any](), make_executor

    def made(launcher: Any) -> Any:
        executors.append(make(launcher))
        return executors[-1]

    monkeypatch.setattr(sys.modules[duel.__module__], "make_executor", made)
    assert sweep(asked, [], dry_run=False) == 0
    said = capsys.readouterr().out
    assert "leaders that it cannot tell apart are given more seeds" in " ".join(said.split())
    assert "Settling 2 leaders: at most 2 seeds each" in said
    assert "B against A is undecided" in said
    settled = SweepDirectory(workplace / "outputs/sweeps/x-settled").jobs()
    assert sorted(job.varies["seed"] for job in settled) == [0, 0, 1, 1]
    found = {one.title: one.text for one in findings(compare([Path("outputs/sweeps/x")]))}
    assert found["Settled"].startswith("B against A is undecided: ")
    told = {entry.key: entry.origin for entry in of_directory(Path("outputs/sweeps/x-settled"))}
    assert told["launcher.slots"] == told["sweeps.objective"] == "of the sweep x"
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    assert resume_sweep(workplace / "outputs/sweeps/x") == 0
    assert "B against A is undecided" in capsys.readouterr().out
    assert not Path("outputs").exists()  # it goes on beside its sweep
    assert [len(executor.cores) for executor in executors] == [1, 1]  # where the sweep's jobs ran


def test_jobs_of_one_seed_share_their_steps(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And come to what they come to without; those that have none in common are told so."""
    common = " ".join([*data["lm"], *SMALL, *WSD, "model.depth=1", "logger=none"])
    texts = [f"{common} trainer.max_steps={steps}" for steps in (24, 16)]
    terms = replace(TERMS, seeds=2)
    assert duel(texts, [], terms) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 jobs go on from steps that another trains: 54 steps in place of 80" in said
    assert duel([common, f"{common} optimizer.lr=1"], [], terms) == 0
    assert "No steps are shared: of one seed" in " ".join(capsys.readouterr().out.split())

    def fight(name: str, *more: str) -> list[Run]:
        fought = replace(terms, name=name, dry_run=False)
        assert duel([*texts, *more], [], fought) == 0
        return SweepDirectory.called(name).jobs()

    jobs = fight("shared")
    alone = {str(job.varies): job for job in fight("apart", "sweeps.share=false")}
    longest = {job.varies["seed"]: job.id for job in jobs if job.varies["contender"] == "A"}
    for job in jobs:
        assert_same(job, by_itself := alone[str(job.varies)])
        assert "branched" not in by_itself.read_provenance()
        branched = {"run": longest[job.varies["seed"]], "step": 13}
        short = job.varies["contender"] == "B"
        assert job.read_provenance().get("branched") == (branched if short else None)
    with pytest.raises(ConfigError, match="share=2: expected true or false"):
        duel([*texts, "sweeps.share=2"], [], terms)


def test_contenders_from_other_folders_share_nothing(
    data: dict[str, list[str]], workplace: Path
) -> None:
    """Their relative paths may lead to other data."""
    common = " ".join([*data["lm"], *SMALL, *WSD, "model.depth=1"])
    texts = [f"{common} trainer.max_steps={steps}" for steps in (24, 16)]
    contenders = read_contenders(texts, [])
    shutil.copytree(workplace, elsewhere := workplace / "elsewhere")
    for folder, shared in ((workplace, 13), (elsewhere, 0)):
        first = replace(contenders[0], folder=folder)
        planned = Match([first, contenders[1]], TERMS).plan([0])
        assert [job.shared_steps for job in planned["B"]] == [shared]
