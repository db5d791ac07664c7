"""What is shown of an error, and kept in `status.json`."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, data
from truesweep.commands.train import train
from truesweep.errors import (
    LONGEST,
    ConfigError,
    DataError,
    describe_os_error,
    did_you_mean,
    in_short,
    nearest,
    refusing,
    shorten,
    telling_line,
)
from truesweep.jobs import rank
from truesweep.runs.run import Run

__all__ = ["data"]

GXX = "\n".join(
    [
        "C++ compile error",
        "Command:",
        "g++ " + "-Wsomething " * 400,
        "Output:",
        "/a/vec512_int.h:1926:7: warning: overflow in conversion [-Woverflow]",
        *[f" {i} |       0x80," for i in range(2000)],
        "/a/kernel.cpp:3:10: fatal error: Python.h: No such file or directory",
        "compilation terminated.",
        "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace",
    ]
)


def test_what_a_person_reads_is_kept_as_it_is() -> None:
    assert in_short(ConfigError("a=1 is no b.\nSet a=2.")) == "a=1 is no b.\nSet a=2."
    assert in_short(RuntimeError("it broke")) == "it broke"
    assert in_short(KeyError("a")) == "KeyError: 'a'"
    assert shorten("x" * LONGEST) == "x" * LONGEST
    assert shorten("\n" * 2 * LONGEST) == ""


def test_of_a_long_error_what_tells_most_stands_first() -> None:
    short = in_short(RuntimeError(GXX))
    assert len(short) == LONGEST
    assert short.splitlines()[0] == (
        "C++ compile error: /a/kernel.cpp:3:10: fatal error: Python.h: No such file or directory"
    )
    assert short.endswith(f"… (cut: {len(GXX):,} characters in all)")


@pytest.mark.parametrize("text", ["x" * 5000, "\n \n" * 2000 + "a" * 5000])
def test_a_long_error_that_names_nothing_is_cut(text: str) -> None:
    assert len(shorten(text)) == LONGEST
    assert shorten(text).startswith(text.strip()[:500])


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (GXX, "/a/kernel.cpp:3:10: fatal error: Python.h: No such file or directory"),
        ("a.cpp:1: error: no x\na.cpp:9: error: no y\n", "a.cpp:1: error: no x"),
        ("Traceback:\n  File a\nValueError: no\nbye\n", "ValueError: no"),
        ("KeyError: 1\nValueError: no\na.cpp:1: error: no x\n", "a.cpp:1: error: no x"),
        ("KeyError: 1\nDuring handling\nValueError: no\n", "ValueError: no"),
        ("first\n\nlast\n\n", "last"),
        ("", ""),
    ],
)
def test_the_line_that_says_why(output: str, line: str) -> None:
    assert telling_line(output) == line


def test_a_status_holds_no_more_than_a_person_reads(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.end("failed", 1, GXX)
    assert run.status["error"] == shorten(GXX)


def test_a_long_error_is_whole_in_the_log_only(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(GXX)

    monkeypatch.setattr(rank, "use_processor", fail)
    assert train([*data["lm"], *SMALL, "name=x"], [], None, False) == 1
    (run,) = (workplace / "outputs/x").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["error"] == shorten(GXX)
    assert GXX in (run / "logs/rank0.log").read_text()
    assert len(capsys.readouterr().err) < 2 * LONGEST


def test_nearest() -> None:
    assert nearest("adamww", ["sgd", "adamw", "muon"]) == ["adamw"]
    assert nearest("zzz", ["sgd", "adamw"]) == []
    assert nearest("txt", ["text", "label", "texts"], most=2) == ["text", "texts"]


def test_a_few_that_begin_with_the_name_are_all_meant() -> None:
    kinds = ["32-true", "bf16-mixed", "bf16-true"]
    assert nearest("bf16", kinds) == ["bf16-mixed", "bf16-true"]
    assert did_you_mean("bf16", kinds) == "; did you mean bf16-mixed or bf16-true?"
    assert did_you_mean("max", ["minimize", "maximize"] * 2) == "; did you mean maximize?"


def test_nothing_is_said_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["sgd", "adamw"]) == ""
    assert did_you_mean("", ["sgd"]) == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("not\n  good."), "not good."),
        (KeyError("x"), "KeyError: 'x'."),
        (TypeError(), "TypeError:."),
        (ImportError("get it: `pip install -U some-thing>=1`"), "pip install some-thing."),
    ],
)
def test_whatever_is_raised_is_refused_with_its_reason(error: Exception, reason: str) -> None:
    refused = pytest.raises(ConfigError, match=f"^it will not do: .*{re.escape(reason)}$")
    with refused, refusing(lambda said: f"it will not do: {said}"):
        raise error


def test_errors_of_ours_stay_as_they_are() -> None:
    with pytest.raises(DataError, match=r"^mine$"), refusing(lambda said: f"no: {said}"):
        raise DataError("mine")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_what_the_system_refuses_names_the_file_and_what_to_do(number: int) -> None:
    said = describe_os_error(OSError(number, os.strerror(number), "outputs/a"))
    assert said
    assert said.startswith(f"outputs/a: {os.strerror(number)}. ")
    assert said.endswith(".")


def test_what_is_of_no_file_is_not_described() -> None:
    assert describe_os_error(ConnectionResetError(errno.ECONNRESET, "reset")) is None
