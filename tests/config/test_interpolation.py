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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${oc.env:NOPE}", r"NOPE is not set; .*\$\{oc\.env:NOPE,VALUE\} \(command line\)"),
        ("${oc.env:A,B,C}", r"oc\.env: takes the name of an environment variable"),
        ("${now:bad}", "'bad' names no time; .*now:%Y"),
        ("${now:%Q}", "'%Q' names no time"),
        ("${now:}", "now: takes one argument"),
        ("${eval:1,2}", "eval: takes one argument, in quotes"),
        ("${name}", "name: refers to itself"),
        ("${model.nope}", r"'model\.nope' not found; model has .*depth.* \(command line\)"),
        ("${vars.x}", r"there is no vars\.x; vars\.x=VALUE sets it"),
        ("${a b}", r"name='.*': an interpolation in it cannot be read; write \$\{KEY\}"),
        ('${oc.decode:"[1"}', "name: missing BRACKET_CLOSE"),
    ],
)
def test_what_cannot_be_resolved_is_one_sentence_of_ours(
    tree: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    with pytest.raises(ConfigError, match=said) as caught:
        compose([f"name='{value}'"], [tree])
    assert "raised while" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_whose_interpolation_cannot_be_read(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, {"experiment/open.yaml": "# @package _global_\nname: '${'\n"})
    with pytest.raises(ConfigError, match="name: an interpolation in it cannot be read"):
        compose(["experiment=open"], [tree])
