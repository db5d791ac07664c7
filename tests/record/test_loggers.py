"""Loggers of others, which may fail, hang and take what they like."""

import csv
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, Logger

from truesweep.record import loggers
from truesweep.record.loggers import Guarded, MetricsFile, RunInfo

CONFIG = {"optimizer": {"lr": 0.1}, "seed": 0}


class Notes(Logger):
    """Writes down what it is told, in methods that take what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    name = "notes"
    version = ""

    def log_hyperparams(self, hparams: Any) -> None:  # type: ignore[override]
        self.told.append(("config", hparams))

    def log_metrics(self, values: Any, step: int) -> None:  # type: ignore[override]
        self.told.append((step, values))

    def log_table(self, key: str, data: list[Any]) -> None:
        self.told.append((key, data))

    def finalize(self, status: str) -> None:
        self.told.append(("end", status))


class Summed(Notes):
    def alert(self, text: str) -> None:
        self.told.append(("alert", text))

    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:  # type: ignore[override]
        self.told.append(("config", metrics or params))

    def finish(self, summary: Any) -> None:
        self.told.append(("summary", summary))


def guarded(folder: Path, logger: Logger | None = None, **keys: Any) -> Guarded:
    info = RunInfo(folder, "id", "name", CONFIG)
    return Guarded(info, "logger=Notes", keys.pop("build", lambda: logger), keys.pop("own", None))


def test_a_logger_is_given_what_its_methods_take(tmp_path: Path) -> None:
    notes = Notes()
    logger = guarded(tmp_path, notes)
    logger.log_metrics({"val/loss": torch.tensor(2.0), "lr": 1}, 5)
    logger.log_table("samples", ["text"], [("red",)])
    logger.alert("Diverged", "the loss is NaN", "ERROR")
    logger.log_artifact([tmp_path])
    figures = {"val/loss": 1.5, "test/loss": 1.7, "state": "completed", "verdict": {"kind": "ok"}}
    logger.finish(figures, exit_code=0)
    assert notes.told == [
        ("config", CONFIG),
        (5, {"val/loss": 2.0, "lr": 1}),
        ("samples", [["red"]]),
        (5, {"best/val/loss": 1.5, "test/loss": 1.7}),  # the best is no point of the curve
        ("end", "success"),
    ]


def test_a_logger_may_have_the_methods_of_the_protocol(tmp_path: Path) -> None:
    notes = Summed()
    logger = guarded(tmp_path, notes)
    logger.alert("Diverged", "the loss is NaN", "ERROR")
    logger.finish({"state": "failed"}, exit_code=1)
    assert notes.told == [
        ("config", CONFIG),
        ("alert", "the loss is NaN"),
        ("summary", {"state": "failed"}),
    ]


def test_a_logger_that_fails_is_told_of_once_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary")

    class Failing(Notes):
        def log_metrics(self, values: Any, step: int) -> None:  # type: ignore[override]
            if step < 3:
                raise ConnectionError(f"step {step}: canary was refused")
            super().log_metrics(values, step)

    notes = Failing()
    logger = guarded(tmp_path, notes)
    for step in (1, 2, 3):
        logger.log_metrics({"x": 1.0}, step)
    logger.finish(exit_code=1)
    assert notes.told == [("config", CONFIG), (3, {"x": 1.0}), ("end", "failed")]
    (record,) = caplog.records
    assert record.getMessage() == (
        "logger=Notes does not mirror all, metrics.jsonl has it: "
        "ConnectionError('step 1: <redacted> was refused')"
    )


def test_a_logger_that_cannot_start_or_hangs_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Logger:
        raise ConnectionError("no server")

    logger = guarded(tmp_path, build=broken)
    logger.log_metrics({"x": 1.0}, 1)
    logger.finish()
    assert "could not be started, the run is not mirrored there: ConnectionError" in caplog.text

    stalled = threading.Event()

    class Stalling(Notes):
        def log_metrics(self, values: Any, step: int) -> None:  # type: ignore[override]
            stalled.wait(60)

    monkeypatch.setattr(loggers, "FINISH_SECONDS", 0.1)
    logger = guarded(tmp_path, Stalling())
    logger.log_metrics({"x": 1.0}, 1)
    logger.finish()
    stalled.set()
    assert "logger=Notes did not finish in 0 s and was left" in caplog.text


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("own", [True, False])
def test_a_resumed_run_goes_on_in_the_same_record(tmp_path: Path, own: bool) -> None:
    folder = tmp_path / "csv"
    notes = Notes()

    def train(build: Callable[[], Logger], resumed: int, reached: int) -> Guarded:
        logger = guarded(tmp_path, build=build, own=folder if own else None)
        metrics = MetricsFile(tmp_path)
        metrics.truncate(resumed)
        for step in range(resumed + 1, reached + 1):
            for one in (metrics, logger):
                one.log_metrics({"tokens": 64 * step, "train/loss": 1 / step}, step)
        return logger

    def build() -> Logger:
        return CSVLogger(folder, name="", version="") if own else notes

    train(build, 0, 5).finish()
    train(build, 3, 8).finish({"test/loss": 0.5})
    if own:
        rows = rows_of(tmp_path)
        assert [(int(row["step"]), row["test/loss"]) for row in rows] == [
            *((step, "") for step in range(1, 9)),
            (8, "0.5"),
        ]
        assert [float(row["train/loss"]) for row in rows[:-1]] == [1 / n for n in range(1, 9)]
    else:
        steps = [step for step, _ in notes.told if isinstance(step, int)]
        assert steps == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 8], "another's record is its own"


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logger = guarded(tmp_path, build=lambda: CSVLogger(tmp_path / "csv"), own=tmp_path / "csv")
    logger.log_metrics({"x": 1.0}, 1)
    logger.finish()
    assert capfd.readouterr() == ("", "")
