"""Interpolations see every default; helper values and resolvers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from truesweep.config.compose import compose
from truesweep.config.interpolation import evaluate
from truesweep.errors import ConfigError

AddFiles = Callable[[Path, dict[str, str]], Path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * 64", 128),
        ("-(1 + 2) ** 2", -9),
        ("7 // 2 + 7 % 4", 6),
        ("1 / 4", 0.25),
        ("max(1, min(8, 3))", 3),
        ("round(2.6) + int(1.9) + abs(-1)", 5),
    ],
)
def test_arithmetic(text: str, value: float) -> None:
    assert evaluate(text) == value
    assert type(evaluate(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a", "'x' * 3", "(1).real", "2 if 1 else 3", "1 /", "1 / 0", "9**9**9**9"],
)
def test_nothing_but_arithmetic(text: str) -> None:
    with pytest.raises(ValueError, match="is no arithmetic"):
        evaluate(text)


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["model.options={a: '${model.width}'}"], "options", {"a": 64}),
        (["model.width='${eval:${model.depth} * 8}'"], "width", 16),
        (["model.width='${eval:\"(1 + ${model.depth}) * 8\"}'"], "width", 24),
        (["vars.scale=3", "model.width='${vars.scale}'"], "width", 3),
        (["model.kind='${model.tags[0]}'"], "kind", "a"),
    ],
)
def test_a_value_refers_to_others(
    tree: Path, overrides: list[str], key: str, expected: Any
) -> None:
    config = compose(overrides, [tree]).config
    assert config["model"][key] == expected
    # What was only seen is filled in later, by the check.
    assert set(config["model"]) == {"_target_", "depth", key}
    assert "vars" not in config


def test_a_name_refers_to_a_default_from_a_file(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, {"experiment/named.yaml": "# @package _global_\nname: w${model.width}\n"})
    assert compose(["experiment=named"], [tree]).config["name"] == "w64"
    assert compose(["experiment=named", "model.width=8"], [tree]).config["name"] == "w8"
    assert compose(["name='${now:%Y}'"], [tree]).config["name"].isdigit()


def test_helper_values_that_nothing_refers_to(tree: Path, add_files: AddFiles) -> None:
    text = "# @package _global_\nvars: {scale: 2}\nmodel: {width: '${vars.scale}'}\n"
    add_files(tree, {"experiment/scaled.yaml": text})
    assert compose(["experiment=scaled", "vars.scale=5"], [tree]).config["model"]["width"] == 5
    with pytest.raises(ConfigError, match=r"vars\.scael: nothing refers to it.*mean scale"):
        compose(["experiment=scaled", "vars.scael=5"], [tree])


def test_a_helper_value_whose_reader_was_replaced_is_not_misspelt(
    tmp_path: Path, add_files: AddFiles
) -> None:
    own = add_files(
        tmp_path / "own",
        {
            "experiment/helped.yaml": """
                # @package _global_
                vars: {w: 32}
                model: {width: "${vars.w}"}
                """
        },
    )
    assert compose(["experiment=helped"], [own]).config["model"]["width"] == 32
    assert compose(["experiment=helped", "model.width=64"], [own]).config["model"]["width"] == 64
    with pytest.raises(ConfigError, match=r"vars\.v: nothing refers to it"):
        compose(["experiment=helped", "vars.v=3"], [own])
