"""Lay other versions of packages over those of this environment, in an environment of its own.

`python .ci/overlay.py lowest .venv-lowest` makes one whose interpreter finds packages there first,
and where this interpreter finds them otherwise. What differs is computed and installed; torch
stays, as it is larger than all others together.

    lowest      the lowest versions that pyproject.toml admits, the newest of what these need
    newest      the newest versions of everything
    prerelease  Hydra and OmegaConf, release candidates included; all else stays
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = [str(ROOT / "pyproject.toml"), "--extra=dev"]
SETS = {
    "lowest": ([*PROJECT, "--resolution=lowest-direct"], ""),
    "newest": (PROJECT, ""),
    "prerelease": (["-"], "hydra-core>=1.4.0.dev0\nomegaconf>=2.4.0.dev0\n"),
}


def main(versions: str, folder: Path) -> None:
    """Make the environment, and say what differs in it."""
    differing = [line for line in resolve(versions) if not is_installed(line)]
    print(f"{versions} versions: {' '.join(differing) or 'as installed'}", flush=True)
    venv.create(folder, clear=True)
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    below = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "below.pth").write_text(below)
    if differing:
        python = f"--python={folder / 'bin' / 'python'}"
        uv("pip", "install", python, "--no-deps", *differing)


def resolve(versions: str) -> list[str]:
    """Every package of a set but torch, each as `name==version`."""
    arguments, requirements = SETS[versions]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excluded:
        excluded.write("torch\n")
        excluded.flush()
        options = (f"--excludes={excluded.name}", f"--python={sys.executable}")
        plain = ("--no-header", "--no-annotate")
        return uv("pip", "compile", *arguments, *options, *plain, given=requirements).split()


def is_installed(line: str) -> bool:
    """Whether this environment has a package in this very version."""
    name, version = line.split("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def uv(*arguments: str, given: str = "") -> str:
    """Run uv, which the extra `dev` brings along; gives what it prints."""
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    return subprocess.run(
        command, input=given, stdout=subprocess.PIPE, check=True, text=True
    ).stdout


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
