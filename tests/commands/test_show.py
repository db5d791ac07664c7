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
from truesweep.commands.train import create_run
from truesweep.config.origin import since
from truesweep.jobs.plan import plan, plan_again
from truesweep.record.provenance import collect
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planning import plan_sweep
from truesweep.sweeps.request import ask
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.start import add_jobs, record


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
    assert shown["origins"]["model.init"].rpartition(":")[0] == "conf/model/lfm2.yaml"


def test_a_run_of_an_earlier_version_names_the_lines_of_its_own_file(archive: Path) -> None:
    run = next(file.parent for file in archive.rglob("overrides.yaml"))
    origins = {entry.origin for entry in of_directory(run)}
    assert "command line" in origins
    assert all(
        origin.rpartition(":")[0].endswith("config.yaml")
        for origin in origins - {"swept", "command line"}
    )


def test_a_sweep_is_shown_as_it_was_asked_for(archive: Path) -> None:
    sweep = next(file.parent for file in archive.rglob("sweep.yaml"))
    found = {entry.key: entry for entry in of_directory(sweep)}
    assert found["sweeps.method"].origin.rpartition(":")[0].endswith("sweep.yaml")


def test_a_duel_of_an_earlier_version_is_shown(workplace: Path) -> None:
    """It kept its contenders, which are no overrides, and no origins."""
    sweep = SweepDirectory.called("duel")
    sweep.ask(["outputs/lm/1a2b3c4d", "model=llama optimizer.lr=1"], [], Sweep(), {})
    found = {entry.key: entry for entry in of_directory(sweep.path)}
    assert found["sweeps.method"].origin.rpartition(":")[0].endswith("sweep.yaml")
    assert found["asked"].value[0] == "outputs/lm/1a2b3c4d"


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
        (["status", "nowhere"], "does not exist"),
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


def test_a_run_is_shown_with_the_origins_that_it_had(
    data: dict[str, list[str]], workplace: Path
) -> None:
    """They were recorded when it was started, and what files say now is told beside them."""
    file = workplace / "own" / "experiment" / "e.yaml"
    file.parent.mkdir(parents=True)
    head = "# @package _global_\n"
    file.write_text(f"{head}trainer:\n  precision: auto\nmodel:\n  width: 64\n  depth: 1\n")
    asked = [*data["lm"], *SMALL, "experiment=e"]
    asked = [line for line in asked if not line.startswith(("model.", "trainer.precision"))]
    run = create_run(plan([*asked, "optimizer.lr=0.5"], [file.parent.parent]), Path("run"))
    told = {entry.key: entry.origin for entry in of_directory(run.path)}
    assert told["optimizer.lr"] == "command line"
    assert told["optimizer.momentum"] == "default"
    assert told["model.architecture"].startswith("conf/model/")
    assert told["model.width"] == "own/experiment/e.yaml:5"
    assert told["trainer.precision"] == "own/experiment/e.yaml:3, which says auto"
    assert told["trainer.max_epochs"] == "since trainer.max_steps is given (command line)"

    file.write_text(f"{head}trainer:\n  precision: auto\nmodel:\n  width: 48\n")
    run.write_config(run.read_config(), {"overrides": ["trainer.max_epochs=3"]})
    told = {entry.key: entry.origin for entry in of_directory(run.path)}
    assert told["model.width"] == "own/experiment/e.yaml:5, which says 48 now"
    assert told["model.depth"] == "own/experiment/e.yaml:6, which sets it there no more"
    assert told["trainer.max_epochs"] == "resumed with trainer.max_epochs=3"
    assert told["trainer.max_steps"].startswith("since trainer.max_epochs is given (resumed with")

    again = create_run(plan_again(run.path, ["model.depth=2"]), Path("again"))
    told = {entry.key: entry.origin for entry in of_directory(again.path)}
    assert told["model.depth"] == "command line"
    assert told["model.width"].startswith("run/config.yaml:")
    file.unlink()
    told = {entry.key: entry.origin for entry in of_directory(run.path)}
    assert told["model.width"] == "own/experiment/e.yaml:5, a file that is gone"


def test_what_a_file_says_of_a_secret_stays_there(workplace: Path) -> None:
    (workplace / "own.yaml").write_text("logger:\n  api_key: hush\n  name: b\n")
    assert since("own.yaml:2", "logger.api_key", "x", workplace) == "own.yaml:2"
    assert since("own.yaml:3", "logger.name", "a", workplace) == "own.yaml:3, which says b now"
    (workplace / "own.yaml").write_text("{")
    said = since("own.yaml:3", "logger.name", "a", workplace)
    assert said == "own.yaml:3, which cannot be read now"


def test_jobs_and_sweeps_are_shown_with_the_origins_that_they_had(
    data: dict[str, list[str]], workplace: Path
) -> None:
    lines = [*data["lm"], *SMALL, "sweeps=lr_range", "sweeps.retries=2", "name=s"]
    asked = ask([*lines, "hydra/launcher=local", "hydra.launcher.slots=2", "optimizer.lr=1,2"])
    plan = plan_sweep(asked)
    sweep = record(asked, asked.multirun.launcher, plan)
    told = {entry.key: entry.origin for entry in of_directory(sweep.path)}
    assert told["sweeps.retries"] == told["name"] == "command line"
    assert told["sweeps.fail_fast"] == "default"
    assert told["launcher.slots"] == told["launcher._target_"] == "command line"
    file = Path(__file__).parents[2] / "sweeps" / "lr_range.yaml"
    (kept,) = [key for key, where in told.items() if where.startswith("sweeps/lr_range.yaml:")][:1]
    line = int(told[kept].rpartition(":")[2])
    assert kept.split(".")[1] in "".join(file.read_text().splitlines()[:line])
    unnamed = ask([line for line in asked.overrides if line != "name=s"])
    sweep_of_it = record(unnamed, unnamed.multirun.launcher, plan)
    told = {entry.key: entry.origin for entry in of_directory(sweep_of_it.path)}
    assert told["name"] == "from what was asked"
    job = add_jobs(sweep, plan.jobs, collect([], {}))[0]
    told = {entry.key: entry.origin for entry in of_directory(job.path)}
    assert told["optimizer.lr"] == "swept"
    assert told["model._target_"].startswith("conf/model/")
