import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import truesweep
from truesweep import compat

SRC = Path(truesweep.__file__).parent.parent
COMPAT = Path(compat.__file__).parent
FILES = sorted(path for path in SRC.rglob("*.py") if path.parent != COMPAT)
ACCESS = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names of others: what is imported, and what is asked of anything but `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if is_private(alias.name))
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] != "truesweep":
                names = (f"{module}.{alias.name}" for alias in node.names)
                yield from filter(is_private, names)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]):
                if function in ACCESS and is_private(name):
                    yield ast.unparse(node)
            case ast.Subscript(
                value=ast.Call(func=ast.Name("vars")) | ast.Attribute(attr="__dict__"),
                slice=ast.Constant(value=str(name)),
            ) if is_private(name):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_private_names_of_others_are_in_one_package(path: Path) -> None:
    # os._exit is documented in spite of its name.
    assert set(private_names(ast.parse(path.read_text()))) <= {"os._exit"}


@pytest.mark.parametrize(
    "code",
    [
        "import hydra._internal.utils",
        "from hydra._internal import utils",
        "from torch.optim._muon import _adjust_lr",
        "from torch.optim import _multi_tensor as m",
        "def f(trainer): return trainer._logger_connector.x",
        "torch._foreach_mul_(a, 2)",
        "super()._apply(f)",
        "self.loader._iterator",
        "getattr(forkserver, '_forkserver', None)",
        "vars(module)['_parameters']",
        "module.__dict__['_parameters'].get('weight')",
    ],
)
def test_a_private_name_is_found(code: str) -> None:
    assert list(private_names(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from truesweep.config.schema import _typed",
        "self._own = cls._other",
        "from __future__ import annotations",
        "a.__dict__",
    ],
)
def test_what_is_not_private_to_others(code: str) -> None:
    assert not list(private_names(ast.parse(code)))


def classes() -> list[type]:
    """All classes of this project, `compat` aside."""
    found = set()
    for module in pkgutil.walk_packages(truesweep.__path__, "truesweep."):
        if module.name == "truesweep.__main__" or is_of_compat(module.name):
            continue
        try:
            its = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("truesweep"):
                raise
            continue  # it is an extra's package
        for value in vars(its).values():
            if isinstance(value, type) and is_ours(value) and not is_of_compat(value.__module__):
                found.add(value)
    return sorted(found, key=lambda c: f"{c.__module__}.{c.__qualname__}")


def is_of_compat(module: str) -> bool:
    return f"{module}.".startswith(f"{compat.__name__}.")


def is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "truesweep"


@cache
def source(cls: type) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made in C, or by a call
        return ast.Module([], [])


@cache
def on_self(cls: type, kind: type[ast.expr_context]) -> set[str]:
    """Private attributes that a class' methods store or load."""
    return {
        node.attr
        for node in ast.walk(source(cls))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, kind)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
        and is_private(node.attr)
    }


@cache
def defined(cls: type) -> set[str]:
    """Private names in a class' body."""
    names = set()
    for node in ast.walk(source(cls)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return set(filter(is_private, names))


def test_no_class_meets_a_private_name_of_its_foreign_bases() -> None:
    """Neither by use nor by chance: what both define, one of them would find replaced."""
    met = []
    for cls in classes():
        ours = [base for base in cls.__mro__ if is_ours(base)]
        foreign = [base for base in cls.__mro__ if not is_ours(base) and base is not object]
        theirs = {name for base in foreign for name in vars(base) if is_private(name)}
        theirs |= {name for base in foreign for name in on_self(base, ast.Store)}
        own = defined(cls) | on_self(cls, ast.Store)
        known = set().union(*(defined(base) | on_self(base, ast.Store) for base in ours))
        used = on_self(cls, ast.Load) - known
        met += [f"{cls.__module__}.{cls.__name__}.{name}" for name in (own & theirs) | used]
    assert not met


def test_importing_it_imports_no_other_package() -> None:
    code = (
        "import sys, truesweep.compat.steps; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "hydra", "omegaconf", "transformers", "optuna", "numpy", "multiprocessing"}
    assert "truesweep" in loaded
    assert not heavy & set(loaded)


def admitted() -> dict[str, Version]:
    """The lowest version of each package that pyproject.toml admits."""
    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]
    found = {}
    for line in project["dependencies"]:
        requirement = Requirement(line)
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        found[requirement.name] = Version(bound.version)
    return found


@pytest.mark.parametrize("name", sorted(compat.TRIED.keys() - {"torch"}))
def test_what_is_admitted_begins_with_what_was_tried(name: str) -> None:
    assert Version(compat.TRIED[name][0]) == admitted()[name]


def test_what_is_installed_was_tried() -> None:
    assert compat.untried() == []
    assert compat.untried_sentence() == []


@pytest.mark.parametrize(
    ("version", "is_tried"),
    [
        ("2.12.1", False),
        ("2.13.0", True),
        ("2.13.0+cu130", True),
        ("2.13.1", False),
        ("2.14.0.dev20261101", False),
    ],
)
def test_a_version_outside_is_named(
    version: str, is_tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: version if n == "torch" else real(n))
    said = [] if is_tried else [f"torch {version} (tried: 2.13.0)"]
    assert compat.untried() == said
    assert len(compat.untried_sentence()) == len(said)


def test_one_sentence_names_all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compat.TRIED, "torch", ("1.0", "1.1"))
    monkeypatch.setitem(compat.TRIED, "optuna", ("99.0", "99.0"))
    (sentence,) = compat.untried_sentence()
    assert "(tried: 1.0 to 1.1), optuna" in sentence
    assert "such packages" in sentence
