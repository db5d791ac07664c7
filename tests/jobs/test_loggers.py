"""What W&B is told of a run: which one it is, and how it ended."""

import csv
import json
import logging
import random
import re
from pathlib import Path
from typing import Any

import pytest
from lightning_utilities.core.imports import RequirementCache

from tests.commands.conftest import SMALL, WORDS, write_data
from tests.record.test_wandb import contents_of, history_of, summary_of
from truesweep import dotted
from truesweep.errors import ConfigError
from truesweep.jobs.launch import launch
from truesweep.jobs.loggers import is_agents, make_loggers, wandb_id
from truesweep.jobs.logs import logs
from truesweep.jobs.plan import plan
from truesweep.jobs.verify import LEFT
from truesweep.record.frozen import freeze
from truesweep.record.loggers import Guarded, RunInfo
from truesweep.record.rows import read
from truesweep.runs.run import Run

SMALLEST = [*SMALL, "model.depth=1", "logger=wandb", "optimizer=adamw", "scheduler=constant"]


def make_run(folder: Path, *overrides: str) -> Run:
    """A run's directory; the current folder must be `folder`."""
    job = plan([*SMALLEST, *overrides])
    return Run.create(folder / "run", config=freeze(job.config), overrides=[], provenance={})


def empty_run(path: Path) -> Run:
    return Run.create(path, config="seed: 0", overrides=[], provenance={})


def test_the_same_configuration_trained_anew_is_another_run(tmp_path: Path) -> None:
    one, other = (empty_run(tmp_path / name) for name in ("one", "other"))
    assert wandb_id(one) != wandb_id(other)
    assert wandb_id(one).startswith(one.identity[:16])
    one.metrics.touch()
    assert wandb_id(one) == wandb_id(Run.open(one.path))


def test_a_run_from_before_ids_were_kept_goes_on_as_it_began(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "run")
    run.metrics.touch()
    assert wandb_id(run) == run.identity[:16]


def test_an_agents_run_is_the_one_that_the_agent_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = empty_run(tmp_path / "run")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.setenv("WANDB_SWEEP_ID", "1")
    assert wandb_id(run) == "given"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert wandb_id(run) == "given"


def test_the_jobs_of_a_sweep_that_an_agent_starts_are_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.setenv("WANDB_SWEEP_ID", "1")
    jobs = [
        Run.create(
            tmp_path / name,
            config="seed: 0",
            overrides=[],
            provenance={},
            job={"sweep": "s", "number": number},
        )
        for number, name in enumerate(("one", "other"))
    ]
    assert len({"given", *map(wandb_id, jobs)}) == 3
    assert not any(map(is_agents, jobs))


def test_the_terminal_is_told_what_becomes_of_the_loggers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logs(empty_run(tmp_path / "run"), rank=0):
        logging.getLogger("truesweep.record.wandb").warning("W&B: %s", "[/x] is not mirrored")
        logging.getLogger("truesweep.jobs.parts").warning("known from the plan")
    logging.getLogger("truesweep.record.wandb").warning("later")
    assert capsys.readouterr().err == "Warning: W&B: [/x] is not mirrored\n"


def test_a_run_that_cannot_be_built_says_so(workplace: Path) -> None:
    run = make_run(workplace, *write_data(workplace)["lm"])
    (workplace / "text.txt").unlink()
    assert launch(run) == 1
    found = summary_of(run.path)
    assert (found["exit_code"], found["tags"][-1]) == (1, "failed")
    assert "text.txt" in found["summary"]["error"]
    (alert,) = contents_of(run.path, "alert")
    assert (alert["title"], alert["level"]) == ("Failed", "ERROR")
    assert "text.txt" in alert["text"]


def test_an_overfitted_run_is_told_of(workplace: Path) -> None:
    rng = random.Random(0)
    for name, words in {"train": 250, "val": 150, "test": 150}.items():
        (workplace / f"{name}.txt").write_text(" ".join(rng.choices(WORDS, k=words)) + "\n")
    data = [f"data.{name}={name}.txt" for name in ("train", "val", "test")]
    length = ["trainer.max_steps=120", "trainer.val_check_interval=10"]
    asked = ["data=files", *data, *length, "model.width=64", "optimizer.lr=0.01"]
    run = make_run(workplace, *asked)
    assert launch(run) == 0
    assert run.read_results()["verdict"]["kind"] == "overfitting"
    (alert,) = contents_of(run.path, "alert")
    assert (alert["title"], alert["level"]) == ("Overfitting", "WARN")
    assert "step" in alert["text"]


FOREIGN = '''
import json, pathlib
from pytorch_lightning.loggers import Logger

class Notes(Logger):
    """Takes what it is told into a file of its own."""

    name, version = "notes", ""

    def __init__(self, directory, tags: list[str], run_name=None, colour="red"):
        super().__init__()
        self.file = pathlib.Path(directory) / "notes.jsonl"
        self.file.parent.mkdir(exist_ok=True)
        self.note(tags=tags, name=run_name, colour=colour)

    def note(self, **what):
        with self.file.open("a") as file:
            print(json.dumps(what), file=file)

    def log_hyperparams(self, params):
        self.note(lr=params["optimizer"]["lr"])

    def log_metrics(self, metrics, step):
        if step == 12 and "val/loss" in metrics:
            raise ConnectionError("no server")
        self.note(step=step, **metrics)

    def alert(self, title, text):
        self.note(alert=title, text=text)

    def finalize(self, status):
        self.note(end=status)

class Needy(Notes):
    def __init__(self, directory):
        import not_installed_anywhere

class Served(Notes):
    def __init__(self, run_id=None):
        self.run_id = run_id or "given-by-a-server"
        super().__init__("served", tags=[])
        self.note(run=self.run_id)

    version = property(lambda self: self.run_id)

class NoLogger:
    pass
'''


@pytest.fixture
def foreign(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What allows a package that holds a logger in its one file."""
    (workplace / "my_package.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setenv("PYTHONPATH", str(workplace))  # of the ranks
    return ["allowed_packages=[my_package]"]


def notes_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_several_loggers_follow_one_run_through_a_resume(
    workplace: Path, foreign: list[str]
) -> None:
    asked = [*foreign, "logger=[wandb,csv]", "logger.mine._target_=my_package.Notes"]
    asked += ["callbacks.leave._target_=truesweep.callbacks.LeaveAfter", "callbacks.leave.step=7"]
    run = make_run(workplace, *write_data(workplace)["lm"], *asked)
    assert launch(run) == LEFT
    assert {"end": "failed"} in notes_of(run.path / "mine/notes.jsonl")
    config = run.read_config()
    config["callbacks"]["leave"] = None
    run.write_config(config, {"overrides": []})
    assert launch(run, resume=True) == 0

    rows, results = read(run.metrics), run.read_results()
    curve = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    told, *notes = notes_of(run.path / "mine/notes.jsonl")
    assert told == {"tags": ["lm", "lfm2"], "name": config["name"], "colour": "red"}
    assert notes[0] == {"lr": config["optimizer"]["lr"]}
    assert [(n["step"], n["train/loss"]) for n in notes if "train/loss" in n] == curve
    assert [n["test/loss"] for n in notes if "test/loss" in n] == [results["test/loss"]]
    assert [n["best/val/loss"] for n in notes if "best/val/loss" in n] == [results["val/loss"]]
    assert notes[-1] == {"end": "success"}
    assert "logger.mine=Notes does not mirror all" in run.log(0).read_text()

    with (run.path / "csv/metrics.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [(int(row["step"]), float(row["train/loss"])) for row in table] == curve
    assert [row["step"] for row in history_of(run.path)] == [row["step"] for row in rows]


def test_a_run_that_a_server_has_named_is_taken_up_by_its_name(
    tmp_path: Path, foreign: list[str]
) -> None:
    node = {"_target_": "my_package.Served"}
    config: dict[str, Any] = {"allowed_packages": ["my_package"], "logger": {"mine": node}}
    config["optimizer"] = {"lr": 0.1}
    info = RunInfo(tmp_path, "id", "name", config)
    (logger,) = make_loggers(config, info)
    logger.finish()
    assert info.kept_id("logger.mine").read_text() == "given-by-a-server"
    info.kept_id("logger.mine").write_text("given earlier")
    (logger,) = make_loggers(config, info)
    logger.finish()
    notes = notes_of(Path("served/notes.jsonl"))
    assert [note["run"] for note in notes if "run" in note] == [
        *("given-by-a-server", "given earlier")
    ]


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("logger", "csv"),
        ("logger.mine", "mine"),
        ("logger.checkpoints", "checkpoints_logger"),
        ("logger.wandb", "wandb_logger"),
    ],
)
def test_a_logger_has_a_folder_of_its_own(tmp_path: Path, key: str, folder: str) -> None:
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger"}
    config: dict[str, Any] = {"allowed_packages": []}
    dotted.put(config, key, node)
    (logger,) = make_loggers(config, RunInfo(tmp_path, "id", "name", config))
    assert isinstance(logger, Guarded)
    logger.finish()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["logger=csv", "logger.prefx=a"], "logger.prefx: no such key; did you mean logger.prefix"),
        (["logger=[wandb,csv]", "logger.mode=online"], "of which one? Write logger.wandb.mode"),
        (["logger._target_=my_package.Needy"], "type pip install not_installed_anywhere"),
        (["logger._target_=my_package.NoLogger"], "NoLogger is no logger of Lightning's"),
        (["logger._target_=my_package.Notes", "logger.directory=/dev/null"], "cannot be built"),
        (["logger=wandb", "logger.info=1"], "logger.info: is set by the program"),
    ],
)
def test_a_logger_that_cannot_be_built_is_refused_by_the_plan(
    workplace: Path, foreign: list[str], asked: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan([*SMALLEST, *write_data(workplace)["lm"], *foreign, *asked])


def test_tensorboard_is_asked_for_by_its_package(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "tensorboardX"):  # no version is met, as where there is none
        there = f"lightning_fabric.loggers.tensorboard._{name.upper()}_AVAILABLE"
        monkeypatch.setattr(there, RequirementCache(f"{name}>=999"))
    with pytest.raises(ConfigError, match="type pip install tensorboard"):
        plan([*SMALLEST, *write_data(workplace)["lm"], "logger=[csv,tensorboard]"])


def test_tensorboard_has_the_curve_and_the_samples(workplace: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(workplace, *write_data(workplace)["lm"], "logger=tensorboard")
    assert launch(run) == 0
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    losses = [(point.step, point.value) for point in events.Scalars("val/loss")]
    rows = [row for row in read(run.metrics) if "val/loss" in row]
    assert losses == [(row["step"], pytest.approx(row["val/loss"])) for row in rows]
    assert [point.value for point in events.Scalars("test/loss")] == [
        pytest.approx(run.read_results()["test/loss"])
    ]
    assert "samples/text_summary" in events.Tags()["tensors"]
