import ast
import re
import sys
from pathlib import Path

import pytest

import truesweep

ROOT = Path(truesweep.__file__).parent
LAYERS = [
    {"commands"},
    {"sweeps"},
    {"report"},
    {"jobs"},
    {"config"},
    {"tasks", "callbacks"},
    {"data", "runs"},
    {"models", "metrics", "optim", "record", "analysis"},
]
GROUND = {p.stem for p in ROOT.glob("*.py")} - {"__init__", "__main__"} | {"compat"}
"""What every layer may import, and what imports none of them: modules, and a package."""
LIGHT = ("errors", "interrupts", "figures", "text", "dotted", "secrets")
"""Those of them that need nothing but Python itself."""
HYDRA = {"hydra", "omegaconf"}


def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = node.module == "truesweep"
            names |= {f"truesweep.{a.name}" for a in node.names} if inside else {node.module or ""}
    return names


def package(module: str) -> str | None:
    """Which package, or module beside the packages, of ours a full name belongs to, if to any."""
    parts = module.split(".")
    ours = parts[0] == "truesweep" and len(parts) > 1 and not parts[1].startswith("_")
    return parts[1] if ours else None


FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent not in (ROOT, ROOT / "compat"))


def test_every_package_has_its_layer() -> None:
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()}
    assert packages - GROUND == set().union(*LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    depth = next(i for i, layer in enumerate(LAYERS) if own in layer)
    allowed = ({own, None} | GROUND).union(*LAYERS[depth + 1 :])
    assert {package(name) for name in imported(path)} <= allowed


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_floor_needs_no_layer(name: str) -> None:
    files = [*ROOT.glob(f"{name}.py"), *ROOT.glob(f"{name}/*.py")]
    assert files
    assert {package(n) for file in files for n in imported(file)} <= GROUND | {None}


@pytest.mark.parametrize("name", LIGHT)
def test_errors_and_texts_need_nothing_but_python(name: str) -> None:
    others = {module.split(".")[0] for module in imported(ROOT / f"{name}.py")}
    assert others <= sys.stdlib_module_names | {"truesweep"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_configuration_and_commands_know_hydra(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] in ("commands", "config"):
        return
    assert not {name.split(".")[0] for name in imported(path)} & HYDRA


# -- no module for one other alone ---------------------------------------------------------------

SHORT = 120
"""Lines of a module that needs more than one other to be worth a file of its own."""
KEPT = {"truesweep.sweeps.slurm.work": "allocations in a queue start it by this name"}
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def homes(module: str, name: str) -> set[str]:
    """The modules that `from module import name` leads to, through what packages pass on."""
    if f"{module}.{name}" in MODULES:
        return {f"{module}.{name}"}
    if MODULES.get(module, Path()).name != "__init__.py":
        return {module}
    found = {module}
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            found |= homes(node.module or "", name)
    return found


def needed(path: Path) -> set[str]:
    """The modules of ours that a file needs: by an import, or by their names in a text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found = found.union(*(homes(node.module or "", alias.name) for alias in node.names))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_a_short_module_serves_more_than_one_other() -> None:
    """Commands, and what a single task brings along, stand by themselves."""
    users: dict[str, set[str]] = {module: set() for module in MODULES}
    for user, path in MODULES.items():
        passes_on = path.name == "__init__.py" and "def " not in path.read_text()
        for module in needed(path) & users.keys() - {user} if not passes_on else ():
            users[module].add(user)
    for file in (ROOT.parents[1] / "conf").rglob("*.yaml"):
        for target in re.findall(r"_target_: (truesweep[\w.]*)\.(\w+)", file.read_text()):
            for module in homes(*target) & users.keys():
                users[module].add(file.name)
    alone = {module: min(found) for module, found in users.items() if len(found) == 1}
    short = {
        module: user
        for module, user in alone.items()
        if MODULES[module].name != "__init__.py"
        and len(MODULES[module].read_text().splitlines()) <= SHORT
        and package(module) not in ("commands", "tasks")
        and package(user) != "tasks"
        and module not in KEPT
    }
    assert not short


def test_the_tests_that_the_makefile_names_are_there() -> None:
    """They run in an overlay of CI's only, which nobody waits for after moving a file."""
    makefile = Path(__file__).parents[1] / "Makefile"
    named = re.findall(r"\btests/[\w/]+(?:\.py)?", makefile.read_text("utf-8"))
    assert named
    assert not [path for path in named if not (makefile.parent / path).exists()]
