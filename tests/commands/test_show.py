"""What was composed, each value with its origin; what commands print for programs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import processes
from tests.commands.conftest import SMALL
from tests.damage import call
from truesweep.commands.show import Entry, composed, of_directory


def entries(*overrides: str, folder: Path | None = None, resolve: bool = False) -> dict[str, Entry]:
    found = composed(overrides, [folder] if folder else [], resolve)
    return {entry.key: entry for entry in found}


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "e.yaml"
    file.write_text("# @package _global_\nvars: {w: 32}\nmodel:\n  width: ${vars.w}\n")
    found = entries("experiment=e", "optimizer.lr=0.5", "trainer.max_epochs=2", folder=tmp_path)
    told = {key: (found[key].value, found[key].origin) for key in found}
    assert told["model.width"] == ("${vars.w}", f"{file}:4")
    assert told["vars.w"] == (32, f"{file}:2")
    assert told["optimizer.lr"] == (0.5, "command line")
    assert told["optimizer.momentum"] == (0.95, "default")
    assert told["model.architecture"][1].startswith("conf/model/lfm2.yaml:")
    assert told["trainer.max_epochs"] == (2, "command line")
    given = "since trainer.max_epochs is given (command line)"
    assert told["trainer.max_steps"] == (None, given)
    assert told["name"][1] == "from what was asked"


def test_interpolations_are_resolved_if_asked() -> None:
    found = entries("vars.w=32", "model.width=${vars.w}", resolve=True)
    assert found["model.width"].value == 32
    assert "vars.w" not in found


@pytest.mark.parametrize("resolve", [False, True])
def test_secrets_stay_out(monkeypatch: pytest.MonkeyPatch, resolve: bool) -> None:
    monkeypatch.setenv("MY_TOKEN", "hush")
    monkeypatch.setenv("TRUESWEEP_SECRET_VARS_API_KEY", "")
    given = (
        "vars.api_key=hush",
        "logger.notes=${vars.api_key}",
        "logger.job_type=${oc.env:MY_TOKEN}",
    )
    found = entries(*given, resolve=resolve)
    assert "hush" not in repr(found)
    assert found["logger.job_type"].value == "${oc.env:MY_TOKEN}"


def test_a_run_is_shown_without_torch(trained: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys; from truesweep.commands import app\n"
        f"try: app(['show', {str(trained['lm'])!r}, '--json'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'pytorch_lightning'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    shown = json.loads(done.stdout)
    assert shown["config"] == yaml.safe_load((trained["lm"] / "config.yaml").read_text())
    assert shown["origins"]["model.depth"] == "command line"
    assert shown["origins"]["model.init"].rpartition(":")[0].endswith("config.yaml")


def test_a_sweep_is_shown_as_it_was_asked_for(archive: Path) -> None:
    sweep = next(file.parent for file in archive.rglob("sweep.yaml"))
    found = {entry.key: entry for entry in of_directory(sweep)}
    assert found["sweeps.method"].origin.rpartition(":")[0].endswith("sweep.yaml")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from truesweep.commands import app

    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    assert not end.value.code, capsys.readouterr().err
    return capsys.readouterr().out


def test_hydras_way_of_printing_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("train", "--cfg", "job", "vars.w=32", "model.width=${vars.w}")
    written, resolved = printed(capsys, *asked), printed(capsys, *asked, "--resolve")
    assert yaml.safe_load(written)["model"]["width"] == "${vars.w}"
    assert yaml.safe_load(resolved)["model"]["width"] == 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--cfg", "hydra"], "--cfg job"),
        (["show", "nowhere"], "does not exist"),
        (["train", "-m", "--jobs", "csv", "seed=1,2"], "expected json"),
    ],
)
def test_what_cannot_be_shown(arguments: list[str], said: str, workplace: Path) -> None:
    met = call(*arguments)
    assert met.how == "refused"
    assert said in met.said


def test_a_plan_for_programs(
    data: dict[str, list[str]], capsys: pytest.CaptureFixture[str], workplace: Path
) -> None:
    asked = ("--dry-run", "--json", *data["lm"], *SMALL)
    plan: dict[str, Any] = json.loads(printed(capsys, "train", *asked))
    assert plan["steps"] == 12
    assert plan["directory"] == f"outputs/{plan['name']}/{plan['id']}"
    assert plan["config"]["model"]["depth"] == 2
    sweep = json.loads(printed(capsys, "train", "-m", *asked, "seed=1,2"))
    assert [job["varies"] for job in sweep["jobs"]] == [{"seed": 1}, {"seed": 2}]
    assert not (workplace / "outputs").exists()


def test_commands_of_jobs_for_any_scheduler(
    data: dict[str, list[str]], capsys: pytest.CaptureFixture[str], workplace: Path
) -> None:
    asked = ("train", "-m", "--jobs", "json", *data["lm"], *SMALL, "seed=1,2", "name=s")
    told = json.loads(printed(capsys, *asked))
    assert [job["state"] for job in told["jobs"]] == ["queued", "queued"]
    first = told["jobs"][0]["command"]
    assert first[0] == sys.executable
    done = processes.run(first[1:], cwd="/")
    assert done.returncode == 0, done.stderr
    states = [job["state"] for job in json.loads(printed(capsys, *asked))["jobs"]]
    assert states == ["completed", "queued"]


def test_answers_and_exports_for_programs(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("red\nold\n")
    run = str(trained["classification"])
    answers = printed(capsys, "generate", run, "--file", str(tmp_path / "in.txt"), "--json")
    rows = [json.loads(line) for line in answers.splitlines()]
    assert [row["prompt"] for row in rows] == ["red", "old"]
    assert all(row["answer"] for row in rows)
    told = json.loads(printed(capsys, "export", run, str(tmp_path / "out"), "--json"))
    assert told["files"] == sorted(file.name for file in (tmp_path / "out").iterdir())


def test_an_unreadable_note_of_overrides_is_none(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(file.parent for file in archive.rglob("overrides.yaml"))
    run = shutil.copytree(source, tmp_path / "run")
    (run / "overrides.yaml").write_text("[")
    assert "command line" not in {entry.origin for entry in of_directory(run)}
    assert "overrides.yaml: cannot be read" in "".join(capsys.readouterr().err.splitlines())
