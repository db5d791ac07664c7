"""Records are read with W&B's own reader, `wandb leet inspect`."""

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from truesweep.errors import ConfigError
from truesweep.record import mirror
from truesweep.record import wandb as module
from truesweep.record.loggers import MetricsFile, RunInfo
from truesweep.record.wandb import WandbLogger

CANARY = "canary" * 6 + "abcd"
CONFIG = {
    "optimizer": {"lr": 0.1, "betas": [0.9, 0.95]},
    "seed": 0,
    "data": {"train": Path("a.txt")},
}

Make = Callable[..., WandbLogger]


Records = list[dict[str, Any]]


def inspect(directory: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options]
    command.append(str(directory / "wandb"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary_of(directory: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(inspect(directory, "--summary"))
    return summary


def contents_of(directory: Path, kind: str) -> Records:
    records = [json.loads(line) for line in inspect(directory).splitlines()]
    return [record[kind] for record in records if record["type"] == kind]


def history_of(directory: Path) -> Records:
    return [record["item"] for record in contents_of(directory, "history")]


def records_in(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "wandb").glob("*run-*-*"))


def values_at(step: int) -> dict[str, Any]:
    return {
        "train/loss": 1 / step,
        "val/loss": abs(step - 3.0),
        "tokens": 64 * step,
        "val/bleu": step,
    }


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Make loggers with nobody logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def make(name: str = "run", told: dict[str, Any] | None = None, **keys: Any) -> WandbLogger:
        (tmp_path / name).mkdir(exist_ok=True)
        info = RunInfo(tmp_path / name, f"{name}-id", name, CONFIG, **(told or {}))
        return WandbLogger(info, **keys)

    return make


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Put a package of the given source in the place of W&B's."""

    def fake(source: str) -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "wandb.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))

    return fake


FAKE = """
import time, types
class Settings:
    model_fields = {}
class Run:
    dir, step, summary, tags = "/nowhere/run/files", 0, {}, ()
    def define_metric(self, *args, **kwargs): pass
    def log(self, *args, **kwargs): LOG
    def finish(self, exit_code): FINISH
def init(**kwargs):
    return Run()
def teardown(): pass
"""


def test_two_runs_at_once_are_read_back_apart(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("RUN_ID", "RESUME"):  # what another program has left behind
        monkeypatch.setenv(f"WANDB_{name}", "stray")
    environment = dict(os.environ)
    one = make("one", project="p", group="sweep", tags=["a", "b"], api_key=CANARY)
    two = make("two")
    for step in range(1, 6):
        one.log_metrics({**values_at(step), "x": torch.tensor(float("nan"))}, step)
        two.log_metrics({"train/loss": 7.0}, step)
    rows_of_samples: list[list[Any]] = [["ein", "[/x]"], ["[positive]", 2]]
    one.log_table("samples", ["source", "output"], rows_of_samples)
    one.finish({"test/loss": torch.tensor(0.5), "val/loss": 0.25, "best_step": 3})
    two.finish(exit_code=1)

    found = summary_of(tmp_path / "one")
    assert (found["project"], found["run_id"], found["name"]) == ("p", "one-id", "one")
    assert (found["state"], found["exit_code"], found["tags"]) == ("finished", 0, ["a", "b"])
    assert found["config"] == {**CONFIG, "data": {"train": "a.txt"}}
    figures = found["summary"]
    assert (figures["test/loss"], figures["best_step"], figures["step"]) == (0.5, 3, 5)
    assert figures["val/loss"] == 0.25, "a final figure goes over the best of the curve"
    assert figures["val/bleu"] == {"max": 5}
    assert (figures["samples"]["nrows"], figures["samples"]["ncols"]) == (2, 2)
    (table,) = tmp_path.glob("one/wandb/*run-*/files/media/table/*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["source", "output"],
        "data": rows_of_samples,
    }

    rows = history_of(tmp_path / "one")
    expected = [{**values_at(step), "step": step, "x": "NaN"} for step in range(1, 6)]
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected
    metrics = contents_of(tmp_path / "one", "metric")
    assert {"step"} == {metric["step_metric"] for metric in metrics if "step_metric" in metric}
    assert "*" in {metric.get("glob_name") for metric in metrics}

    other = summary_of(tmp_path / "two")
    assert (other["project"], other["run_id"], other["exit_code"]) == ("truesweep", "two-id", 1)
    assert other["summary"]["train/loss"] == 7.0
    assert "val/bleu" not in other["summary"]

    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


def test_what_is_not_given_is_taken_from_w_and_bs_environment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"project": "p", "entity": "e", "notes": "n", "job_type": "j"}
    elsewhere = {"name": "s", "run_group": "g", "tags": "a, b", "dir": str(tmp_path / "else")}
    for name, value in {**said, **elsewhere}.items():
        monkeypatch.setenv(f"WANDB_{name.upper()}", value)
    (tmp_path / "else").mkdir()
    make(told={"label": "lr=1", "group": "sweep", "tags": ["lm"]}).finish()
    make(told={"label": "lr=1", "group": "sweep", "tags": ["lm"]}).finish()  # resumed
    make("other").finish()

    (run, *_) = contents_of(tmp_path / "run", "run")
    assert {key: run[key] for key in said} == said
    assert (run["display_name"], run["run_group"], run["tags"]) == ("s lr=1", "g", ["a", "b", "lm"])
    there = {path.name.split("-", 3)[3]: path for path in (tmp_path / "else/wandb").glob("*run-*")}
    assert there.keys() == {"run-id", "other-id"}
    (record,) = mirror.records_of(tmp_path / "run")
    assert record.resolve() == there["run-id"]


def test_a_record_is_found_that_was_begun_in_the_second_of_an_earlier_one(
    make: Make, tmp_path: Path
) -> None:
    now = datetime.now()
    for second in (now + timedelta(seconds=late) for late in range(4)):
        (tmp_path / f"run/wandb/offline-run-{second:%Y%m%d_%H%M%S}-run-id").mkdir(parents=True)
    make().finish()
    assert summary_of(tmp_path / "run")["run_id"] == "run-id"


def test_the_configuration_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("project", "entity", "name", "notes", "job_type", "run_group", "tags"):
        monkeypatch.setenv(f"WANDB_{name.upper()}", "stray")
    for name, value in {"mode": "disabled", "disabled": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name.upper()}", value)
    said: dict[str, Any] = {"project": "p", "entity": "e", "notes": "n", "job_type": "j"}
    info = RunInfo(tmp_path, "id", "run", CONFIG)
    WandbLogger(info, mode="offline", name="mine", group="g", tags=[], **said).finish()
    (run, *_) = contents_of(tmp_path, "run")
    assert {key: run[key] for key in said} == said
    assert (run["display_name"], run["run_group"], run.get("tags")) == ("mine", "g", None)


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ({}, "offline"),
        ({"MODE": "online"}, "online"),
        ({"MODE": "dryrun"}, "offline"),
        ({"MODE": "disabled"}, "disabled"),
        *(({"MODE": "online", "DISABLED": true}, "disabled") for true in ("true", "ON", "t", "1")),
        ({"MODE": "online", "DISABLED": "no"}, "online"),
        ({"MODE": "nonsense"}, "offline"),
    ],
)
def test_the_mode_is_that_of_w_and_bs_environment(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str],
    mode: str,
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = make()
    assert logger._run["mode"] == mode
    if mode == "disabled":
        logger.log_metrics(values_at(1), 1)
        logger.finish()
        assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("given", [{}, {"mode": "offline"}])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MODE", "ofline", "no such mode; there are online, offline and disabled. Recorded "),
        ("DISABLED", "ja", "expected true or false. Taken as false: recorded offline."),
    ],
)
def test_a_word_of_the_environment_that_does_not_exist_is_said_once(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: dict[str, Any],
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(f"WANDB_{name}", value)
    logger = make(**given)
    for step in range(1, 4):
        logger.log_metrics(values_at(step), step)
    logger.finish()
    said = f"WANDB_{name}={value}: {said}"
    assert [said in message for message in caplog.messages] == ([] if given else [True])


@pytest.mark.parametrize("used", [True, False])
def test_a_folder_of_the_environment_that_cannot_be_used_is_said(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    used: bool,
) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / ("folder" if used else "file/folder")
    monkeypatch.setenv("WANDB_DIR", str(place))
    logger = make()
    logger.log_metrics(values_at(1), 1)
    logger.finish()
    (record,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert record.is_symlink() is used
    assert [f"WANDB_DIR={place}: " in message for message in caplog.messages] == [True] * (not used)


@pytest.mark.parametrize("agents", [True, False])
def test_only_the_run_that_an_agent_waits_for_is_one_of_its_sweep(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agents: bool
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "mine")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    make(told={"agents": agents}).finish()
    (run, *_) = contents_of(tmp_path / "run", "run")
    expected = ("given", "mine") if agents else ("run-id", None)
    assert (run["run_id"], run.get("sweep_id")) == expected


def train(make: Make, resumed: int, reached: int) -> WandbLogger:
    """Log the steps from `resumed` to `reached` as a trainer does."""
    mirror = make()
    metrics = MetricsFile(mirror.save_dir)
    metrics.truncate(resumed)
    for step in range(resumed + 1, reached + 1):
        for logger in (metrics, mirror):
            logger.log_metrics(values_at(step), step)
    return mirror


def train_until_killed(make: Make, resumed: int, reached: int, seconds: float) -> None:
    """Train in a process that is killed `seconds` after its last step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside torch's threads
        child = os.fork()
    if child == 0:
        train(make, resumed, reached)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def wait_for_mirror(directory: Path) -> None:
    """Return when the process that holds W&B has ended."""
    deadline = time.monotonic() + 60
    while not records_in(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    record = os.open(directory / "wandb", os.O_RDONLY)
    fcntl.flock(record, fcntl.LOCK_EX)
    os.close(record)


def test_three_kills_leave_one_run_with_every_step_once(make: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_until_killed(make, 0, 5, seconds=0.5)
    wait_for_mirror(run)
    killed = summary_of(run)
    assert (killed["exit_code"], killed["step"]) == (1, 5), "a killed training's record is whole"
    assert (killed["tags"], killed["summary"]["state"]) == (["killed"], "killed")
    assert [alert["title"] for alert in contents_of(run, "alert")] == ["Killed"]
    train_until_killed(make, 4, 9, seconds=0.0)
    train_until_killed(make, 7, 12, seconds=0.3)
    train(make, 10, 15).finish()

    assert len(records_in(run)) == 1
    assert "run-id" in records_in(run)[0]
    found = history_of(run)
    assert [row["step"] for row in found] == list(range(1, 16))
    assert [row["train/loss"] for row in found] == [1 / step for step in range(1, 16)]
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    assert "killed" not in (summary_of(run)["tags"] or [])
    assert not contents_of(run, "alert")

    make().finish({"test/loss": 0.5})  # resumed only for what comes after the training
    assert len(records_in(run)) == 1
    assert [row["train/loss"] for row in history_of(run)] == [1 / step for step in range(1, 16)]


def test_steps_of_another_run_are_as_late_as_there(make: Make, tmp_path: Path) -> None:
    logger = make()
    logger.log_metrics({"train/loss": 2.0, "time": 100.0}, 1)
    logger.log_metrics({"train/loss": 1.0}, 2)
    logger.finish()
    first, second = (row["time"] for row in history_of(tmp_path / "run"))
    assert first == 100.0 <= second < 200.0


def test_online_without_a_login_is_offline(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = make(mode="online")
    logger.log_metrics(values_at(1), 1)
    logger.finish()
    assert "recording offline" in caplog.text
    assert "wandb login" in caplog.text
    assert "truesweep sync" in caplog.text
    assert [name.partition("-run-")[0] for name in records_in(tmp_path / "run")] == ["offline"]


def test_a_dead_network_means_offline(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logger = make(mode="online", api_key=CANARY)
    logger.log_metrics(values_at(1), 1)
    logger.finish({"test/loss": 1.0})
    assert caplog.text.count("W&B: ") == 1
    assert "recording offline" in caplog.text
    assert len(records_in(tmp_path / "run")) == 1
    assert summary_of(tmp_path / "run")["summary"]["test/loss"] == 1.0


def test_a_server_that_stalls_means_offline(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, answers nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        logger = make(mode="online", api_key=CANARY)
        logger.log_metrics(values_at(1), 1)
        began = time.monotonic()
        logger.finish({"test/loss": 1.0})
    assert time.monotonic() - began < 30.0
    assert "recording offline" in caplog.text
    assert summary_of(tmp_path / "run")["summary"]["test/loss"] == 1.0


def test_a_job_is_shown_by_what_varies_in_its_sweep(make: Make, tmp_path: Path) -> None:
    told = {
        "label": "lr=3e-4 depth=6",
        "group": "mine",
        "job_type": "sweep",
        "tags": ["lm", "llama", "0123abcd"],
        "swept": {"lr": 3e-4, "depth": 6},
    }
    logger = make(told=told, tags=["mine"], artifacts=True)
    logger.log_metrics(values_at(1), 1)
    logger.alert("Diverged", "the loss is NaN", "ERROR")
    kept = tmp_path / "config.yaml"
    kept.write_text("seed: 0")
    logger.log_artifact([kept])
    logger.finish({"state": "pruned", "pruned_step": 1})

    (run, *_) = contents_of(tmp_path / "run", "run")
    assert (run["run_group"], run["job_type"], run["display_name"]) == (
        "mine",
        "sweep",
        told["label"],
    )
    assert run["config"]["update"]["swept"] == told["swept"]
    found = summary_of(tmp_path / "run")
    assert found["tags"] == ["mine", "lm", "llama", "0123abcd", "pruned"]
    assert found["summary"]["state"] == "pruned"
    (alert,) = contents_of(tmp_path / "run", "alert")
    assert (alert["level"], alert["text"]) == ("ERROR", "the loss is NaN")
    (artifact,) = contents_of(tmp_path / "run", "artifact")
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["config.yaml"]


def test_names_are_no_longer_than_w_and_b_takes_and_stay_different(
    make: Make, tmp_path: Path
) -> None:
    found = []
    for last in "ab":
        told = {"label": 129 * "x" + last, "group": 200 * "g" + last}
        logger = make(last, told=told)
        logger.log_metrics(values_at(1), 1)
        logger.finish({})
        (run, *_) = contents_of(tmp_path / last, "run")
        found += [run["display_name"], run["run_group"]]
    assert [len(name) for name in set(found)] == 4 * [128]


@pytest.mark.parametrize("project", ["a/b", "what?", "100 %", "p" * 129])
def test_a_project_that_w_and_b_refuses_is_an_error_before_the_run(
    make: Make, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb import Settings
    from wandb.errors import UsageError

    with pytest.raises(UsageError):
        Settings(project=project)  # why it is one of ours
    with pytest.raises(ConfigError, match="no name that W&B takes: at most 128"):
        make(project=project).check()
    monkeypatch.setenv("WANDB_PROJECT", project)
    with pytest.raises(ConfigError, match="WANDB_PROJECT"):
        make().check()
    make(project="my project (2)").check()


def test_a_single_run_is_in_no_group(make: Make, tmp_path: Path) -> None:
    make().finish()
    (run, *_) = contents_of(tmp_path / "run", "run")
    assert run.get("run_group") is None
    assert run["job_type"] == "train"


def test_a_missing_package_is_one_warning(
    make: Make, fake_wandb: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb("raise ImportError('no wandb')")
    logger = make()
    for step in range(1, 100):
        logger.log_metrics(values_at(step), step)
    logger.finish()
    assert len(caplog.records) == 1
    assert "pip install wandb" in caplog.text


@pytest.mark.parametrize(
    ("log", "finish"),
    [("raise RuntimeError('no')", "pass"), ("pass", "raise RuntimeError('no')")],
)
def test_an_error_of_wandb_is_one_warning(
    make: Make,
    fake_wandb: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    log: str,
    finish: str,
) -> None:
    fake_wandb(FAKE.replace("LOG", log).replace("FINISH", finish))
    logger = make()
    for step in range(1, 4):
        logger.log_metrics(values_at(step), step)
    logger.finish()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "metrics.jsonl has it" in caplog.text


def test_a_run_that_goes_on_loses_the_mark_of_its_earlier_end(
    make: Make, fake_wandb: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    server = FAKE.replace("0, {}, ()", "0, {}, ('lm', 'killed', 'x')")
    fake_wandb(server.replace("LOG", "pass").replace("FINISH", "print(*self.tags)"))
    make(told={"tags": ["lm"]}).finish()
    assert caplog.messages == ["W&B: lm x"]


def test_a_message_that_was_cut_off_leaves_the_others() -> None:
    lines = ['["row", {"values": {"step": 1}}]\n', '["table", {"name": "sam']
    assert list(mirror.read(lines)) == [("row", {"values": {"step": 1}})]


@pytest.mark.parametrize(
    ("log", "finish"), [("time.sleep(60)", "pass"), ("pass", "time.sleep(60)")]
)
def test_a_hanging_wandb_holds_nobody_up(
    make: Make,
    fake_wandb: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    log: str,
    finish: str,
) -> None:
    monkeypatch.setattr(module, "FINISH_SECONDS", 0.5)
    fake_wandb(FAKE.replace("LOG", log).replace("FINISH", finish))
    logger = make()
    began = time.monotonic()
    for step in range(1, 2000):  # more than a pipe holds
        logger.log_metrics(values_at(step), step)
    logger.finish()
    assert time.monotonic() - began < 30.0  # of 60 that it would have hung
    assert "left behind" in caplog.text
    assert logger._process is not None
    assert logger._process.wait(5.0) == -signal.SIGKILL


def test_only_rank_0_starts_anything(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = make()
    logger.log_metrics(values_at(1), 1)
    logger.finish({"test/loss": 1.0})
    assert list((tmp_path / "run").iterdir()) == []
