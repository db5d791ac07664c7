from pathlib import Path

import pytest

from truesweep.config.compose import compose
from truesweep.config.origin import Source, find_line


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        ([], "model.depth", "model/small.yaml:2"),
        ([], "seed", "train.yaml:14"),
        ([], "callbacks.checkpoint._target_", "callbacks/default.yaml:2"),
        (["task=translation"], "optimizer.lr", "task/translation.yaml:8"),
        (["experiment=best"], "optimizer.lr", "experiment/best.yaml:7"),
        (["experiment=best"], "task._target_", "task/translation.yaml:6"),
    ],
)
def test_file_and_line(tree: Path, overrides: list[str], key: str, expected: str) -> None:
    assert compose(overrides, [tree]).origins(key) == (tree / expected).as_posix()


def test_files_below_the_current_directory_are_named_from_there(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    assert compose([], ["groups"]).origins("model.depth") == "groups/model/small.yaml:2"


def test_the_command_line_comes_first(tree: Path) -> None:
    origins = compose(["optimizer.lr=1", "model={width: 8}", "experiment=best"], [tree]).origins
    assert origins("optimizer.lr") == "command line"
    assert origins("model.width") == "command line: model={width: 8}"
    assert origins("seed") == (tree / "experiment/best.yaml:5").as_posix()


def test_a_mapping_is_the_origin_of_what_it_says_and_of_nothing_else(tree: Path) -> None:
    origins = compose(["optimizer={more: {deep: 8}}", "model={width: 8}"], [tree]).origins
    assert origins("model.depth") == (tree / "model/small.yaml:2").as_posix()
    assert origins("model.width") == "command line: model={width: 8}"
    assert origins("optimizer.more.deep") == "command line: optimizer={more: {deep: 8}}"
    assert origins("model.default") is None


def test_an_override_in_a_message_is_redacted(tree: Path) -> None:
    origins = compose(["optimizer={api_key: canary}"], [tree]).origins
    assert origins("optimizer.api_key") == "command line: optimizer=<redacted>"


def test_a_key_from_nowhere(tree: Path) -> None:
    assert compose([], [tree]).origins("optimizer.nothing") is None


def test_find_line_under_a_package(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# a comment\nx:\n  y:\n    z: 1\n", encoding="utf-8")
    assert find_line(Source(path, "model"), "model.x.y.z") == 4
    assert find_line(Source(path, "model"), "model") == 1
    assert find_line(Source(path, "model"), "models.x") is None
    assert find_line(Source(path, ""), "x.y") == 3
    assert find_line(Source(path, ""), "x.z") is None
