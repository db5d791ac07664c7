import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from truesweep import dotted
from truesweep.errors import ConfigError
from truesweep.record.frozen import ADDED_SINCE, fingerprint, freeze, point_id, thaw

CONFIG = {
    "seed": 0,
    "name": None,
    "model": {"_target_": "a.B", "rates": [1e-5, 1.0, float("inf")], "text": "ä: 1e-4 # no\n"},
    "flags": {"on": True, "yes": "yes", "number": "1e-4", "empty": {}, "path": "~/x"},
    "key": "${oc.env:SOME_KEY}",
}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(freeze(CONFIG), encoding="utf-8")
    assert thaw(path) == CONFIG
    assert freeze(thaw(path)) == freeze(CONFIG)
    assert fingerprint(thaw(path)) == fingerprint(CONFIG)


def test_keys_keep_their_order_and_lists_are_written_out() -> None:
    shared = [1, 2]
    assert freeze({"b": shared, "a": shared}) == "b:\n- 1\n- 2\na:\n- 1\n- 2\n"


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    different: list[dict[str, Any]] = [
        {"a": 1},
        {"a": 2},
        {"a": "1"},
        {"a": None},
        {"a": True},
        {"a": [1]},
        {"b": 1},
    ]
    assert len({fingerprint(config) for config in different}) == len(different)


def test_a_key_that_came_to_some_optimizers_is_old_in_the_others() -> None:
    def asked(name: str, **keys: float) -> str:
        node = {"_target_": f"truesweep.optim.{name}", "lr": 0.1, **keys}
        return fingerprint({"optimizer": node})

    for name in ("adamw", "sgd"):
        assert asked(name, head_lr_ratio=1.0, adapter_b_lr_ratio=1.0) == asked(name)
        assert asked(name, head_lr_ratio=10.0) != asked(name)
    assert asked("muon", adapter_b_lr_ratio=1.0) == asked("muon")
    assert asked("muon", head_lr_ratio=1.0) != asked("muon")


def test_a_key_that_came_later_changes_no_fingerprint_until_it_asks_for_something() -> None:
    before: dict[str, Any] = {
        "callbacks": {"checkpoint": {"monitor": "val/loss"}},
        "trainer": {"compile": False},
    }

    def keep(value: bool) -> dict[str, Any]:
        checkpoint = before["callbacks"]["checkpoint"] | {"keep_optimizer": value}
        return before | {"callbacks": {"checkpoint": checkpoint}, "trainer": {"compile": "auto"}}

    assert fingerprint(keep(False)) == fingerprint(before)
    assert fingerprint(keep(True)) != fingerprint(before)


def test_a_key_that_came_later_changes_nothing_of_a_source_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mixture(**keys: Any) -> dict[str, Any]:
        return {"data": {"sources": {"a": {"train": "a.txt", **keys}, "b": {"train": "b.txt"}}}}

    assert fingerprint(mixture(column="text")) != fingerprint(mixture())
    monkeypatch.setitem(ADDED_SINCE, "data.column", "text")
    assert fingerprint(mixture(column="text")) == fingerprint(mixture())
    assert fingerprint(mixture(column="body")) != fingerprint(mixture())
    assert fingerprint({"data": {"sources": None}}) != fingerprint(mixture())


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("seed", True),
        ("name", True),
        ("logger", True),
        ("trainer.threads", True),
        ("trainer.max_steps", False),
        ("data.seed", False),
        ("named", False),
    ],
)
def test_a_point_is_what_runs_share_but_for_their_seed(key: str, same: bool) -> None:
    one: dict[str, Any] = {"seed": 0, "trainer": {"max_steps": 10}, "logger": {"project": "p"}}
    other = {**one, "trainer": dict(one["trainer"])}
    dotted.put(other, key, 7)
    assert (point_id(one) == point_id(other)) is same
    assert (point_id(one, [key]) == point_id(other, [key])) is (key == "seed")


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from truesweep.record.frozen import fingerprint
print(fingerprint({{'b': {{1: 2}}, 'a': 'ä'}}))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {fingerprint({"b": {1: 2}, "a": "ä"}) + "\n"}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        thaw(path)
    with pytest.raises(ConfigError, match="absent"):
        thaw(tmp_path / "absent.yaml")
