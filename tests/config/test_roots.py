from pathlib import Path

import pytest

import truesweep
from truesweep.config.roots import is_group, search_roots, shipped, shown
from truesweep.errors import ConfigError


def test_shipped_folders_lie_in_the_package_or_beside_src(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src/truesweep"
    package.mkdir(parents=True)
    monkeypatch.setattr(truesweep, "__file__", str(package / "__init__.py"))
    with pytest.raises(ConfigError, match="conf/ is missing"):
        shipped("conf")
    (tmp_path / "conf").mkdir()
    assert shipped("conf") == tmp_path / "conf"
    (package / "conf").mkdir()
    assert shipped("conf") == package / "conf"


def test_named_sweeps_are_not_the_package_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src/truesweep"
    (package / "sweeps").mkdir(parents=True)
    monkeypatch.setattr(truesweep, "__file__", str(package / "__init__.py"))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "conf").mkdir()
    assert shipped("sweeps") == tmp_path / "sweeps"
    (package / "conf/sweeps").mkdir(parents=True)
    assert shipped("sweeps") == package / "conf/sweeps"
    assert search_roots() == (package / "conf",)


def test_search_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine/optimizer").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    roots = search_roots(["mine"])
    assert roots == (tmp_path / "mine", shipped("sweeps").parent, shipped("conf"))
    assert is_group("optimizer", roots)
    assert not is_group("optimizers", roots)
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        search_roots(["nowhere"])


def test_paths_are_shown_as_the_user_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(shipped("conf") / "task/lm.yaml") == "conf/task/lm.yaml"
    assert shown(tmp_path / "mine/a.yaml") == "mine/a.yaml"
    assert shown(Path("/elsewhere/a.yaml")) == "/elsewhere/a.yaml"
