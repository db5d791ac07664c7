import fcntl
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.report.conftest import MakeRun, configuration, rows, write
from truesweep.errors import ConfigError
from truesweep.report import Comparison, compare
from truesweep.report.findings import findings
from truesweep.report.payload import label
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.progress import Board


def ids(comparison: Comparison) -> list[str]:
    return [run.id for run in comparison.runs]


def test_a_sweep_is_ranked_with_what_it_varied(sweep: Path) -> None:
    found = compare([sweep])
    assert ids(found) == ["job3", "job2", "job0", "job1"]
    assert found.keys == ["optimizer.lr", "model.depth"]
    assert list(found.short.values()) == ["lr", "depth"]
    assert [found.rank(run) for run in found.runs] == [1, 2, 3, None]
    assert found.title == "sweep"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_of_equal_jobs_the_first_one_asked_for_is_best_everywhere(
    make_run: MakeRun, tmp_path: Path, mode: Any
) -> None:
    write(tmp_path / "sweep.yaml", {"sweeps": {}})
    for number, name in enumerate("cab"):
        config = configuration(model__depth=number)
        job = {"number": number, "varies": {"model.depth": number}}
        make_run(name, config, job=job, **{"val/bleu": 20.0})
    figure = {"min": "val/loss", "max": "val/bleu"}[mode]
    found = compare([tmp_path], figure)
    assert ids(found) == ["c", "a", "b"]
    assert found.ranking.best is not None
    assert [Path(id).name for id in found.ranking.best.ids] == ["c"]
    board = Board(figure, mode)
    best = board.best(board.rows(SweepDirectory(tmp_path).jobs()))
    assert best is not None
    assert best.id == "c"


def test_an_unfinished_run_has_no_rank_however_good_it_is(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", configuration(seed=1), end=2.0)
    make_run("b", configuration(model__depth=3), end=1.0, state="pruned")
    found = compare([tmp_path])
    assert ids(found) == ["a", "b"]
    assert [found.rank(run) for run in found.runs] == [1, None]
    assert found.objective.of(found.runs[1]) == pytest.approx(1.1)


def test_seeds_of_a_point_share_a_rank_and_tell_what_is_tied(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed, losses in enumerate([(2.0, 2.01, 3.0), (2.04, 2.03, 3.02), (2.02, 2.02, 3.01)]):
        for depth, loss in enumerate(losses):
            make_run(f"d{depth}s{seed}", configuration(seed=seed, model__depth=depth), end=loss)
    found = compare([tmp_path])
    assert [found.rank(run) for run in found.runs] == [1] * 3 + [2] * 3 + [3] * 3
    assert [found.tied(run) for run in found.runs] == [True] * 6 + [False] * 3


def test_one_point_with_several_seeds_is_the_winner(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(f"s{seed}", configuration(seed=seed), end=2.0 + seed)
    found = compare([tmp_path])
    assert ids(found) == ["s0", "s1", "s2"]
    assert [found.rank(run) for run in found.runs] == [1, 1, 1]


def test_runs_are_compared_sample_by_sample_where_they_have_the_same(
    make_run: MakeRun, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    hard = 2 + draw.normal(0, 0.5, 400)  # what makes a sample hard is so for every run
    for i, worse in enumerate([0.0, 0.001, 0.1]):
        nll = hard + worse + draw.normal(0, 0.05, 400)
        path = make_run(
            f"r{i}", configuration(model__depth=i), **{"val/loss_standard_error": 0.025}
        )
        results = json.loads((path / "results.json").read_text())
        write(path / "results.json", results | {"val/loss": nll.mean()})
        (path / "scores").mkdir()
        np.savez(path / "scores" / "val.npz", nll=nll, count=np.ones(400))
    found = compare([tmp_path])
    assert found.ranking.basis == "paired samples"
    assert sorted(found.tied(run) for run in found.runs) == [False, True, True]
    np.savez(path / "scores" / "val.npz", nll=nll[:399], count=np.ones(399))
    found = compare([tmp_path])  # another split: each figure has its own error only
    assert found.ranking.basis == "evaluation"


def test_more_is_better_where_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", configuration(model__depth=1), **{"test/bleu": 20.0})
    make_run("b", configuration(model__depth=2), **{"test/bleu": 30.0})
    assert ids(compare([tmp_path], "test/bleu")) == ["b", "a"]
    assert ids(compare([tmp_path])) == ["a", "b"]  # equal losses


def test_the_sweeps_own_direction_counts(sweep: Path) -> None:
    settings = {"objective": ["val/loss", "train/loss"], "direction": ["maximize", "minimize"]}
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({"sweeps": settings}))
    found = compare([sweep])
    assert ids(found)[:3] == ["job0", "job2", "job3"]
    assert [one.name for one in found.objectives] == ["val/loss", "train/loss"]


def test_an_unknown_objective_is_refused(sweep: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean val/loss"):
        compare([sweep], "val/los")


def test_single_runs_differ_where_their_configurations_do(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", configuration(name="a", trainer__threads=1))
    muon = {"_target_": "truesweep.optim.muon", "lr": 0.02, "momentum": 0.95}
    make_run("b", configuration(name="b", trainer__threads=2, optimizer=muon))
    found = compare([tmp_path])
    assert found.keys == ["optimizer._target_", "optimizer.lr"]
    assert label(found, found.runs[1]) == "optimizer=muon lr=0.02"


def test_sort_and_filter(sweep: Path) -> None:
    found = compare([sweep])
    assert ids(found.filtered(["depth=4", "lr<0.005"])) == ["job2"]
    assert ids(found.filtered(["state=failed"])) == ["job1"]
    assert ids(found.sorted("lr")) == ["job2", "job0", "job3", "job1"]
    assert ids(found.sorted("lr").sorted("val/loss")) == ids(found)
    with pytest.raises(ConfigError, match="did you mean tokens"):
        found.sorted("token")


def test_filtering_leaves_ranks_as_they_are(sweep: Path) -> None:
    found = compare([sweep]).filtered(["depth=2"])
    assert [(run.id, found.rank(run)) for run in found.runs] == [("job0", 3), ("job1", None)]


def test_cost_counts_devices(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", configuration(trainer__num_nodes=2))
    make_run("b", configuration(trainer__devices=[0, 1, 2], seed=1))
    make_run("c", configuration(trainer__devices="auto", seed=2))
    make_run("d", configuration(seed=3), job={"devices": 1, "nodes": 3})
    found = compare([tmp_path]).sorted("id")
    assert [(run.seconds, run.devices, run.cost) for run in found.runs] == [
        (5.0, 4, 20.0),
        (5.0, 3, 15.0),
        (5.0, 1, 5.0),
        (5.0, 3, 15.0),
    ]


def test_states_of_runs_that_have_not_ended(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("queued", state=None)
    make_run("gone", configuration(seed=1), state="running")
    alive = make_run("alive", configuration(seed=2), state="running")
    with (alive / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        states = {run.id: run.state for run in compare([tmp_path]).runs}
    assert states == {"queued": "queued", "gone": "interrupted", "alive": "running"}
    assert not (tmp_path / "gone" / ".lock").exists()  # reading leaves no trace


def test_half_written_files_are_as_good_as_missing(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("a")
    (path / "results.json").write_text('{"val/loss": 1.')
    (path / "config.yaml").write_text("model: [")
    (run,) = compare([path]).runs
    assert (run.results, run.config, run.state) == ({}, {}, "completed")


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_runs_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"does not exist|holds no run"):
        compare([tmp_path / name])


def test_the_only_point_has_beaten_none(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        results = {"val/loss": 2 + seed / 10}
        make_run(f"run{seed}", configuration(seed=seed), **results)
    (best, *_) = findings(compare([tmp_path]))
    assert (best.title, best.kind) == ("Only point", "")
    assert best.text == "val/loss: 2.100 with one configuration, the only point."


def test_the_time_that_a_job_was_paused_for_is_not_its_own(
    make_run: MakeRun, tmp_path: Path
) -> None:
    job = {"sweep": "s", "label": "", "varies": {"seed": 1}, "devices": 1, "nodes": 1}
    path = make_run("job", metrics=rows(8), state="paused", job={**job, "trial": {"number": 0}})
    began, ended = "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00"
    write(path / "status.json", {"state": "paused", "step": 8, "started": began, "finished": ended})
    (row,) = Board("val/loss", "min").rows(SweepDirectory(tmp_path).jobs())
    assert (row.state, row.seconds) == ("paused", 4.0)


def test_a_duel_is_told_by_its_own_answer(make_run: MakeRun, tmp_path: Path) -> None:
    """Which judges by pairs; without one, who leads over seeds and is tied has not won."""
    for i in range(6):
        contender, seed = "AB"[i % 2], i // 2
        make_run(
            f"job{i}",
            configuration(seed=seed, optimizer__lr=0.001 * (1 + i % 2)),
            job={
                "sweep": "s",
                "label": "",
                "varies": {"contender": contender, "seed": seed},
                "devices": 1,
                "nodes": 1,
            },
            **{"val/loss": 2 + seed + i / 1000},
        )
    (best, *_) = findings(compare([tmp_path]))
    assert best.title == "Ahead"
    assert "Not to be told apart" in best.text
    answer = [{"title": "B is better than A", "text": "B is better than A by 1.", "won": True}]
    write(tmp_path / "sweep.yaml", {"asked": [], "sweeps": {}, "duel": {"answer": answer}})
    (won, *others) = findings(compare([tmp_path]))
    assert (won.title, won.text, won.kind) == ("Duel", "B is better than A by 1.", "good")
    assert not {"Ahead", "Winner"} & {one.title for one in others}
    write(tmp_path / "sweep.yaml", {"asked": [], "sweeps": {}, "settled": answer})
    said = {one.title: one.text for one in findings(compare([tmp_path]))}
    assert said["Settled"] == "B is better than A by 1."
    assert "Ahead" in said


def test_what_a_search_has_paused_is_told_and_how_it_goes_on(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i, (steps, state) in enumerate([(10, "completed"), (5, "paused"), (7, "paused")]):
        varies = {"optimizer.lr": 0.001 * 2**i}
        make_run(
            f"job{i}",
            configuration(optimizer__lr=varies["optimizer.lr"]),
            state=state,
            metrics=rows(steps),
            job={"sweep": "s", "label": "", "varies": varies, "devices": 1, "nodes": 1},
        )
    told = {one.title: one.text for one in findings(compare([tmp_path]))}
    assert told["Only finished point"] == (
        "val/loss 2.100 with lr=0.001; 2 other points not trained to the end."
    )
    assert told["Waiting"].startswith("2 of 3 runs are paused")
    assert "Trained the longest: job2 (lr=0.004), 7 steps." in told["Waiting"]
    assert told["Waiting"].endswith("To train it on: truesweep resume job2")


def test_what_was_shared_is_told_as_spent_and_as_saved(make_run: MakeRun, tmp_path: Path) -> None:
    for i, (steps, step) in enumerate([(40, None), (20, 16), (10, 8)]):
        path = make_run(
            f"job{i}",
            configuration(optimizer__lr=0.001 * 2**i),
            metrics=rows(steps),
            **{"train/steps": steps, "train/tokens": 100 * steps, "train/flops": 1000.0 * steps},
        )
        if step is not None:
            write(path / "provenance.json", {"branched": {"run": "job0", "step": step}})
    told = {one.title: one.text for one in findings(compare([tmp_path]))}
    assert told["Shared"] == (
        "2 of 3 runs went on from steps that another had trained: 46 steps spent, 24 saved; "
        "4,600 samples spent, 2,400 saved; 46.0k FLOP spent, 24.0k saved. The figures of each run "
        "are of its whole training."
    )
    assert "Shared" not in {one.title for one in findings(compare([tmp_path / "job0"]))}


def test_runs_are_found_below_and_counted_once(sweep: Path) -> None:
    assert len(compare([sweep.parent, sweep, sweep / "job0"]).runs) == 4


def test_findings_say_what_happened(sweep: Path, make_run: MakeRun) -> None:
    scorings = [
        {"split": "test", "fingerprint": "a", "own": True},
        {"split": "val", "fingerprint": "b"},
        {"split": "test", "fingerprint": "a"},
    ]
    lines = "".join(f"{json.dumps(scoring)}\n" for scoring in scorings)
    (sweep / "job3" / "evaluations.jsonl").write_text(lines)
    write(
        sweep / "job0" / "results.json",
        {"val/loss": 2.1, "verdict": {"kind": "overfitting", "text": "Overfitting since step 5."}},
    )
    said = {one.title: one.text for one in findings(compare([sweep]))}
    assert "with lr=0.01 depth=4" in said["Ahead"]
    assert "1 of 4 runs: RuntimeError: out of memory" in said["Failed"]
    assert "scored 1 more time " in said["Test split"]
    assert "1 overfitting, of 4 runs" in said["Verdicts"]


def test_the_best_run_is_the_winners_in_any_order(make_run: MakeRun, tmp_path: Path) -> None:
    for i in range(3):
        told = {"kind": "overfitting", "text": f"Words of r{i}."}
        make_run(f"r{i}", configuration(model__depth=i), end=2.0 - i / 10, verdict=told)
    found = compare([tmp_path]).sorted("depth")
    verdicts = {one.title: one.text for one in findings(found)}["Verdicts"]
    assert verdicts == "3 overfitting, of 3 runs. The best run: Words of r2."
    left = {one.title: one.text for one in findings(found.filtered(["depth<2"]))}["Verdicts"]
    assert left == "2 overfitting, of 2 runs."


def test_the_verdicts_of_all_seeds_of_the_winner_count(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, kind in enumerate(["healthy", "overfitting", "overfitting"]):
        told = {"kind": kind, "text": "" if kind == "healthy" else "Words."}
        make_run(f"s{seed}", configuration(seed=seed), verdict=told)
    said = {one.title: one.text for one in findings(compare([tmp_path]))}["Verdicts"]
    assert said.endswith("Of the best point's 3 runs: 2 overfitting, 1 healthy.")


def test_choosing_by_the_test_split_is_said_to_be_so(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", **{"test/loss": 2.0})
    said = {one.title: one.text for one in findings(compare([tmp_path], "test/loss"))}
    assert "ranked by their test split" in said["Test split"]
    assert "Test split" not in {one.title for one in findings(compare([tmp_path]))}


def test_a_search_says_how_far_its_start_was_off(sweep: Path) -> None:
    asked = yaml.safe_load((sweep / "sweep.yaml").read_text())
    asked["sweeps"]["start"] = {"optimizer.lr": 0.025, "model.depth": 4, "data.batch_size": 8}
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(asked))
    said = {one.title: one.text for one in findings(compare([sweep]))}["Start"]
    began = "model.depth=4, where the search began (4)"
    assert said == f"Ahead is {began}; optimizer.lr=0.01, 2.5 times off (0.025)."
