"""Where configuration files lie: the user's own folders first, then those that are shipped."""

from collections.abc import Sequence
from pathlib import Path

import truesweep
from truesweep.errors import ConfigError


def shipped(folder: str) -> Path:
    """The shipped folder `conf` or `sweeps`, inside an installed package or beside `src/`.

    Raises:
        ConfigError: The installation lacks it.
    """
    package = Path(truesweep.__file__).resolve().parent
    # Installed, the named sweeps are a group like any other: `sweeps/` of the package holds code.
    inside = package / "conf" / ("" if folder == "conf" else folder)
    for place in (inside, package.parent.parent / folder):
        if place.is_dir():
            return place
    raise ConfigError(f"{folder}/ is missing from the installation in {package}. Reinstall it.")


def search_roots(config_dirs: Sequence[Path | str] = ()) -> tuple[Path, ...]:
    """The folders in which groups are looked up; the first that has an option wins.

    Raises:
        ConfigError: One of `config_dirs` is no folder.
    """
    roots = [Path(folder).expanduser() for folder in config_dirs]
    for folder in roots:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    conf, above_sweeps = shipped("conf"), shipped("sweeps").parent
    ours = [conf] if above_sweeps == conf else [above_sweeps, conf]
    return (*(folder.resolve() for folder in roots), *ours)


def is_group(name: str, roots: Sequence[Path]) -> bool:
    """Whether a group, such as `optimizer` or `callbacks/checkpoint`, has any options."""
    return bool(options(name, roots))


def groups(roots: Sequence[Path]) -> list[str]:
    """All groups, such as `optimizer` and `hydra/launcher`, in alphabetical order."""
    files = ((root, file) for root in roots for file in root.rglob("*.yaml"))
    names = {file.parent.relative_to(root).as_posix() for root, file in files}
    return sorted(names - {"."})


def options(group: str, roots: Sequence[Path]) -> list[str]:
    """The options of a group, in alphabetical order; none of what is no group."""
    return sorted({file.stem for root in roots for file in (root / group).glob("*.yaml")})


def shown(path: Path) -> str:
    """A file's path as the user knows it: shipped, relative to where they are, or absolute."""
    for base in (shipped("conf").parent, Path.cwd()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()
