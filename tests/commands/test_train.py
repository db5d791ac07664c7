import json
import random
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from tests.commands.conftest import SMALL, TIMED, start, truesweep, typed, values, wait_for_rows
from truesweep import compat
from truesweep.commands.compare import row as compared_row
from truesweep.commands.sweep import sweep
from truesweep.commands.train import train
from truesweep.errors import ConfigError, DataError
from truesweep.jobs.plan import plan_again
from truesweep.jobs.rank import newest_checkpoint
from truesweep.record.checkpoints import CheckpointFiles, has_optimizer
from truesweep.record.files import verify_checksum
from truesweep.report import compare
from truesweep.report.payload import payload
from truesweep.runs.run import Run
from truesweep.runs.snapshot import read_snapshot

EXPECTED = {
    "lm": {"test/loss", "test/perplexity", "test/bits_per_byte"},
    "translation": {"test/loss", "test/perplexity", "test/bleu", "test/chrf"},
    "classification": {"test/loss", "test/f1_macro", "test/f1_weighted", "test/accuracy"},
}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.mark.parametrize("task", EXPECTED)
def test_a_run_leaves_what_the_contract_lists(trained: dict[str, Path], task: str) -> None:
    run = trained[task]
    results = load(run / "results.json")
    assert results.keys() >= EXPECTED[task] | {f"baseline/{k}" for k in EXPECTED[task]}
    assert results.keys() >= {"best_step", "parameters", "train/seconds", "train/tokens"}
    assert load(run / "status.json")["state"] == "completed"
    assert load(run / "status.json")["exit_code"] == 0
    assert "name=" + task in yaml.safe_load((run / "overrides.yaml").read_text())
    assert load(run / "provenance.json")["packages"]["torch"] == torch.__version__
    assert all(verify_checksum(run / "checkpoints" / f"{n}.ckpt") for n in ("best", "last"))
    assert (run / "logs/rank0.log").is_file()
    assert [row["step"] for row in values(run)] == [1, 2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in values(run) if "val/loss" in row] == [6, 12]


@pytest.mark.parametrize("task", EXPECTED)
def test_operations_are_those_of_all_tokens_that_were_read(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.chdir(trained[task].parents[2])
    results, again = load(trained[task] / "results.json"), plan_again(trained[task], [])
    one_pass: list[Any] = [
        again.prepared.train.collate([i]) for i in range(len(again.prepared.train))
    ]
    targets = sum(int((batch["labels"] != -100).sum()) for batch in one_pass)
    read = sum(sum(batch["lengths"]) + sum(batch.get("target_lengths", [])) for batch in one_pass)
    expected = again.flops.per_token * read / targets * results["train/tokens"]
    assert results["train/flops"] == pytest.approx(expected, rel=1e-6)
    compared = compare([trained[task]])
    assert compared_row(compared, compared.runs[0])["flops"] == results["train/flops"]
    assert compared.outcomes[0].compute == results["train/flops"]


def test_results_hold_the_best_validation(trained: dict[str, Path]) -> None:
    results = load(trained["lm"] / "results.json")
    validations = {r["step"]: r["val/loss"] for r in values(trained["lm"]) if "val/loss" in r}
    assert results["val/loss"] == min(validations.values())
    assert validations[results["best_step"]] == results["val/loss"]


def test_the_best_checkpoint_of_a_completed_run_holds_no_optimizer(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(shutil.copytree(trained["lm"], tmp_path / "run"))
    best, last = (
        CheckpointFiles().load_checkpoint(run.checkpoints / f"{name}.ckpt")
        for name in ("best", "last")
    )
    assert has_optimizer(last)
    assert not has_optimizer(best)
    assert newest_checkpoint(run) == run.checkpoints / "last.ckpt"
    (run.checkpoints / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="no valid checkpoint to resume from"):
        newest_checkpoint(run)
    assert "best.ckpt holds weights only" in capsys.readouterr().err.replace("\n", "")
    CheckpointFiles().save_checkpoint(last, run.checkpoints / "best.ckpt")
    assert newest_checkpoint(run) == run.checkpoints / "best.ckpt"


def test_bleu_is_stated_with_its_signature(trained: dict[str, Path]) -> None:
    results = load(trained["translation"] / "results.json")
    assert "tok:13a" in results["test/bleu_signature"]
    assert "case:mixed" in results["test/bleu_signature"]


def test_training_lowers_the_loss_below_its_baseline(
    data: dict[str, list[str]], workplace: Path
) -> None:
    assert train([*data["lm"], *SMALL, "trainer.max_steps=60", "name=x"], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    results = load(run / "results.json")
    assert results["test/loss"] < 0.9 * results["baseline/test/loss"]


def test_the_same_configuration_gives_the_same_values_and_id(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL]
    assert train([*asked, "name=a"], [], None, False) == 0
    assert train([*asked, "name=b"], [], None, False) == 0
    assert train([*asked, "name=c", "seed=1"], [], None, False) == 0
    a, b, c = (next((workplace / "outputs" / n).iterdir()) for n in "abc")
    assert values(a) == values(b) != values(c)
    with pytest.raises(ConfigError, match="exists"):
        train([*asked, "name=a"], [], None, False)


def test_a_run_is_repeated_from_its_config(data: dict[str, list[str]], workplace: Path) -> None:
    assert train([*data["lm"], *SMALL, "name=a"], [], None, False) == 0
    (first,) = (workplace / "outputs/a").iterdir()
    assert train(["name=again"], [], first, False) == 0
    (second,) = (workplace / "outputs/again").iterdir()
    assert values(first) == values(second)


def test_a_dry_run_creates_nothing(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*data["lm"], *SMALL], [], None, True) == 0
    assert "12 steps of 8 samples" in capsys.readouterr().out
    assert not (workplace / "outputs").exists()


def test_what_a_file_says_for_sweeps_only_is_told(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "own/experiment").mkdir(parents=True)
    (workplace / "own/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: slurm\n"
        "hydra:\n  launcher:\n    partition: long\n"
    )
    asked = [*data["lm"], *SMALL, "experiment=mine"]
    assert train(asked, [workplace / "own"], None, True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Note: hydra/launcher=slurm, hydra.launcher.partition (own/experiment/mine.yaml:6)" in said
    )
    assert "type hydra/launcher=NAME" in said
    assert train([*data["lm"], *SMALL], [workplace / "own"], None, True) == 0
    assert "for sweeps only" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.depth=3", "model.depth"),
        ("+optimizer.learning_rate=1", "optimizer.lr"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("model.heads=5", "model.heads"),
        ("scheduler.warmup=50", "scheduler.warmup"),
        ("model.context=8", "model.context"),
        ("optimizer._target_=os.system", "os.system"),
        ("experiment=lm_chr", "lm_char"),
        ("data.batch_size=1000000", "data.batch_size"),
    ],
)
def test_a_wrong_configuration_starts_nothing(
    data: dict[str, list[str]], workplace: Path, override: str, message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train([*data["lm"], *SMALL, override], [], None, False)
    assert not (workplace / "outputs").exists()


def test_a_wrong_configuration_exits_with_2(workplace: Path) -> None:
    done = truesweep("train", "optimiser.lr=1", cwd=workplace)
    assert done.code == 2
    assert "optimizer.lr" in done.err
    assert "Traceback" not in done.err
    assert not list(workplace.iterdir())


def test_a_failing_run_exits_with_1_and_says_why(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, "optimizer=sgd", "optimizer.lr=1e30", "name=x"]
    asked += ["trainer.gradient_clip_val=null", "trainer.max_steps=40"]
    assert train(asked, [], None, False) == 1
    (run,) = (workplace / "outputs/x").iterdir()
    status = load(run / "status.json")
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert "Lower optimizer.lr" in status["error"]
    assert "Lower optimizer.lr" in " ".join(capsys.readouterr().err.split())
    assert "Traceback" in (run / "logs/rank0.log").read_text()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_run_that_is_given_up_as_diverged_keeps_its_verdict(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    asked = [*data["lm"], *SMALL, "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_steps=40"]
    asked += [f"trainer.log_every_n_steps={10 if rows == 2 else 30}", "name=x"]
    assert train(asked, [], None, False) == 1
    (run,) = (workplace / "outputs/x").iterdir()
    assert len([row for row in values(run) if "train/loss" in row]) == rows
    verdict = load(run / "status.json")["verdict"]
    assert verdict["kind"] == "diverged"
    assert verdict["text"].startswith("Diverged: ")
    assert "Lower optimizer.lr" in verdict["text"] or "Try a lower" in verdict["text"]
    assert "Verdict: Diverged" in capsys.readouterr().out
    (found,) = compare([run]).runs
    assert (found.state, found.verdict) == ("failed", verdict)
    assert payload(compare([run]))["runs"][0]["verdict"]["grave"] == "bad"
    Run(run).begin()  # another start is not judged yet
    assert read_snapshot(Run(run)).verdict == {}


@pytest.mark.slow
def test_two_ranks_make_one_run(data: dict[str, list[str]], workplace: Path) -> None:
    # Muon's products in bf16 would blow up differences in rounding.
    asked = [*data["translation"], *SMALL, "model.dropout=0", "logger=wandb", "optimizer=adamw"]
    done = typed("train", *asked, "trainer.devices=2", "name=two", cwd=workplace)
    assert done.code == 0, done.out + done.err
    done = truesweep("train", *asked, "name=one", cwd=workplace)
    assert done.code == 0, done.out + done.err
    two, one = (next((workplace / "outputs" / n).iterdir()) for n in ("two", "one"))
    assert sorted(p.name for p in (two / "logs").iterdir()) == ["rank0.log", "rank1.log"]
    assert len(list((two / "wandb").glob("offline-run-*"))) == 1
    for row, other in zip(values(two), values(one), strict=True):
        assert row.keys() == other.keys()
        assert row == pytest.approx(other, rel=1e-4)
    found, expected = (
        {
            k: v
            for k, v in load(run / "results.json").items()
            if isinstance(v, float) and k not in TIMED
        }
        for run in (two, one)
    )
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job(data: dict[str, list[str]], workplace: Path) -> None:
    asked = [*data["lm"], *SMALL, "trainer.devices=2", "trainer.max_steps=100000", "name=x"]
    process = start(asked, workplace)
    run = wait_for_rows(workplace / "outputs/x", rows=5)
    # Ranks are the children of the server they are forked from.
    servers = psutil.Process(process.pid).children()
    ranks = [rank for server in servers for rank in server.children()]
    ranks[-1].kill()
    assert process.wait(60) == 1
    assert Run(run).status["state"] == "failed"
    # The killed rank, or the one that lost the connection to it: whoever was noticed first.
    assert re.search(r"rank [01].* \(see .*rank[01].log\)", Run(run).status["error"])
    assert psutil.wait_procs(ranks, timeout=30)[1] == []


CHINESE = "我们 在海边看到了一只很大的狗他昨天买了两本新书今天都读完了"


def test_bleu_follows_the_language_of_the_translations(workplace: Path) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices(CHINESE, k=12)) for _ in range(200)]
    for side in ("de", "zh"):
        (workplace / f"pairs.{side}").write_text("\n".join(texts) + "\n")
    asked = ["task=translation", "data=files", "data.train=pairs", "data.source=de"]
    asked += ["data.target=zh", "tokenizer.vocab_size=300", "task.max_new_tokens=4", *SMALL]
    done = truesweep("train", *asked, "trainer.max_steps=1", cwd=workplace)
    assert "Warning: BLEU" not in done.out
    (results,) = workplace.glob("outputs/*/*/results.json")
    figures = json.loads(results.read_text())
    assert "tok:zh" in figures["test/bleu_signature"]
    assert figures["baseline/test/bleu"] == pytest.approx(100)
    told = truesweep("train", *asked, "task.bleu_tokenize=13a", "--dry-run", cwd=workplace).out
    assert "Warning: BLEU looks for words between spaces" in " ".join(told.split())


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_version_that_was_not_tried_is_told_once(
    sweeps: bool,
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(compat.TRIED, "optuna", ("99.0", "99.1"))
    asked = [*data["lm"], *SMALL]
    if sweeps:
        assert sweep([*asked, "seed=1,2"], [], True) == 0
    else:
        assert train(asked, [], None, True) == 0
    told = " ".join(capsys.readouterr().out.split())
    optuna = metadata.version("optuna")
    assert told.count(f"not tried with optuna {optuna} (tried: 99.0 to 99.1), and") == 1
