"""Commands that only read answer without the libraries that training needs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, truesweep

HEAVY = {
    "torch",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "pytorch_lightning",
    "lightning_fabric",
    "datasets",
    "wandb",
    "optuna",
    "scipy",
    "sklearn",
    "pandas",
    "hydra",
    "omegaconf",
    "sacrebleu",
    "submitit",
}
"""Libraries that take from a tenth of a second to several seconds to import.

Not pydantic: typer itself reads arguments with it.
"""
REPORTING = """
import json, sys
sys.argv[0] = "truesweep"
from truesweep.commands import main
code = 0
try: main()
except SystemExit as end: code = end.code or 0
print(json.dumps([code, list(sys.modules)]), file=sys.stderr)
"""
RUNS = ["outputs/lm/368ffde0", "outputs/translation/6e05e769", "outputs/classification/79bf09be"]
SWEEPS = ["outputs/sweeps/rates", "outputs/sweeps/search", "outputs/sweeps/unfinished"]
READING = {
    "help": ["--help"],
    "version": ["--version"],
    **{f"{name} help": [name, "--help"] for name in ("train", "data", "compare", "verify")},
    **{f"status {place}": ["status", place] for place in (*RUNS, *SWEEPS)},
    "status json": ["status", SWEEPS[0], "--json"],
    **{f"compare {place}": ["compare", place] for place in (*RUNS, *SWEEPS)},
    "compare all": ["compare", "outputs", "--html", "all.html"],
    "compare json": ["compare", SWEEPS[0], "--json"],
    "compare csv": ["compare", SWEEPS[0], "--csv", "--filter", "optimizer.lr<1"],
    "diff": ["diff", *RUNS[:2]],
    "diff json": ["diff", *RUNS[:2], "--json"],
}
MISTAKEN = {
    "no run": ["status", "nowhere"],
    "no sweep": ["compare", "nowhere"],
    "no such key": ["compare", SWEEPS[0], "--filter", "optimizer.lrr<1"],
    "no such figure": ["compare", SWEEPS[0], "--objective", "val/los"],
    "nothing to diff": ["diff", "nowhere", RUNS[0]],
    "nothing to send": ["sync", RUNS[0]],
}


@pytest.fixture(scope="module")
def recorded(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and sweeps, in a folder where a report may be written."""
    return shutil.copytree(archive, tmp_path_factory.mktemp("recorded") / "here")


def imports(arguments: list[str], cwd: Path, code: int) -> set[str]:
    """The packages that a command has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    ended, modules = json.loads(done.stderr.splitlines()[-1])
    assert ended == code, done.stderr[:2000]
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("arguments", READING.values(), ids=READING)
def test_reading_imports_nothing_heavy(recorded: Path, arguments: list[str]) -> None:
    assert not imports(arguments, recorded, 0) & HEAVY


@pytest.mark.parametrize("arguments", MISTAKEN.values(), ids=MISTAKEN)
def test_a_mistake_is_told_without_anything_heavy(recorded: Path, arguments: list[str]) -> None:
    assert not imports(arguments, recorded, 2) & HEAVY


def test_the_status_of_one_run_names_it_once_in_its_row(recorded: Path) -> None:
    done = truesweep("status", RUNS[0], cwd=recorded)
    (row,) = [line for line in done.out.splitlines() if "completed" in line and "/" in line]
    assert row.split()[:2] == [Path(RUNS[0]).name, "completed"], done.out
    assert done.out.splitlines()[-1].startswith(f"best job: {Path(RUNS[0]).name}  val/loss ")


def test_status_is_told_as_json(recorded: Path) -> None:
    done = truesweep("status", SWEEPS[0], "--json", cwd=recorded)
    told = json.loads(done.out)
    assert (told["objective"], told["mode"], told["planned"]) == ("val/loss", "min", 4)
    assert {job["state"] for job in told["jobs"]} == {"completed"}
    assert told["best"] == min(told["jobs"], key=lambda job: job["best"])["id"]


def test_scores_are_told_as_json(archive: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(archive, tmp_path / "here")
    done = truesweep("evaluate", RUNS[0], "--json", cwd=folder)
    kept = json.loads((folder / RUNS[0] / "results.json").read_text())
    assert json.loads(done.out)["test/loss"] == pytest.approx(kept["test/loss"], rel=1e-5)


def test_a_proof_is_told_as_json(archive: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(archive, tmp_path / "here")
    done = truesweep("verify", RUNS[0], "--steps", "2", "--json", cwd=folder)
    told = json.loads(done.out)
    assert done.code == 0
    assert told["steps"] == 2
    assert told["checks"][0]["verdict"] == "identical"


@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["plan", "training"])
def test_training_imports_nothing_of_sweeps_or_reports(tmp_path: Path, more: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, "train", *SMALL, "trainer.max_steps=2", *more],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    ended, modules = json.loads(done.stderr.splitlines()[-1])
    assert ended == 0, done.stderr[:2000]
    ours = [name for name in modules if name.startswith(("truesweep.sweeps", "truesweep.report"))]
    assert not ours
    assert not {name.partition(".")[0] for name in modules} & {"wandb", "optuna", "datasets"}


def test_a_shell_completes_commands_without_anything_heavy(tmp_path: Path) -> None:
    asked = {"COMP_WORDS": "truesweep comp", "COMP_CWORD": "1"}
    code = f"import os; os.environ.update({asked | {'_TRUESWEEP_COMPLETE': 'complete_bash'}})"
    done = subprocess.run(
        [sys.executable, "-c", code + REPORTING], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["compare"]
    _, modules = json.loads(done.stderr.splitlines()[-1])
    assert not {name.partition(".")[0] for name in modules} & HEAVY


def test_completion_is_installed_where_the_shell_looks(tmp_path: Path) -> None:
    # The shell is the nearest one above the command, whatever the name that follows the option.
    command = shlex.join([sys.executable, "-c", REPORTING, "--install-completion", "bash"])
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit $?"],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "bash completion installed" in done.stdout
    assert (tmp_path / ".bash_completions" / "truesweep.sh").is_file()
