import subprocess
import sys
import zipfile
from pathlib import Path

from tests.commands.conftest import SMALL, truesweep

ROOT = Path(__file__).parents[2]


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from truesweep.commands import app; sys.argv[1:] = ['--help']\n"
        "try: app()\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'hydra', 'pytorch_lightning', 'wandb', 'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


def test_help_names_every_command(tmp_path: Path) -> None:
    out = truesweep("--help", cwd=tmp_path).out
    for command in ("train", "resume", "evaluate", "generate", "export"):
        assert command in out


def test_help_says_that_sweeps_and_duels_are_resumed(tmp_path: Path) -> None:
    out = truesweep("resume", "--help", cwd=tmp_path).out
    assert "A run's, a sweep's or a duel's directory." in " ".join(out.replace("│", " ").split())


def test_a_wheel_carries_the_configuration(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"truesweep/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    assert "truesweep/py.typed" in names


def test_a_folder_that_cannot_be_written_is_named(
    data: dict[str, list[str]], workplace: Path
) -> None:
    (workplace / "outputs").write_text("not a folder")
    done = truesweep("train", *data["lm"], *SMALL, "name=a", cwd=workplace)
    assert done.code == 2
    assert done.err.startswith(f"error: {workplace}/outputs")
    assert len(done.err.splitlines()) == 1, done.err
