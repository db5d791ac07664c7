import time
from pathlib import Path
from typing import Any

import pytest

from truesweep.config.compose import compose
from truesweep.config.schema import check
from truesweep.errors import ConfigError
from truesweep.record.frozen import fingerprint, freeze

SUPPLIED = {"optimizer": {"params"}}


def base(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed": 0,
        "name": None,
        "allowed_packages": ["toy_targets"],
        "model": {"_target_": "toy_targets.Model", "depth": 2},
        "optimizer": {"_target_": "toy_targets.Optimizer", "lr": 1},
    }
    return config | changes


def model(**keys: Any) -> dict[str, Any]:
    return base(model={"_target_": "toy_targets.Model", "depth": 2, **keys})


def problems(config: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(config, supplied=SUPPLIED, **options)
    return str(caught.value)


def test_defaults_are_filled_in_in_the_signatures_order() -> None:
    config = base(model={"width": 8, "_target_": "toy_targets.Model", "depth": 2})
    checked = check(config, supplied=SUPPLIED)
    assert list(checked["model"].items()) == [
        ("_target_", "toy_targets.Model"),
        ("depth", 2),
        ("width", 8),
        ("kind", "gpt2"),
        ("dropout", 0.0),
        ("cache", None),
        ("tags", ["a"]),
        ("inner", None),
        ("unknown", None),
        ("options", None),
        ("tied", False),
    ]
    assert checked["optimizer"]["betas"] == [0.9, 0.95]
    assert type(checked["optimizer"]["lr"]) is float
    assert "params" not in checked["optimizer"]


def test_the_checked_configuration_is_a_fixed_point() -> None:
    once = check(model(tied=True), supplied=SUPPLIED)
    twice = check(once, supplied=SUPPLIED)
    assert twice == once
    assert freeze(twice) == freeze(once)


def test_writing_out_a_default_changes_nothing() -> None:
    first, second = (check(c, supplied=SUPPLIED) for c in (model(), model(width=64, tags=["a"])))
    assert fingerprint(first) == fingerprint(second)


def test_the_given_configuration_is_not_changed() -> None:
    config = model()
    check(config, supplied=SUPPLIED)
    assert config == model()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"depht": 3}, "model.depht: no such key; did you mean model.depth?"),
        ({"learning_rate": 3}, "model.learning_rate: no such key; did you mean optimizer.lr?"),
        ({"zzz": 3}, "model.zzz: no such key; model has depth, width, kind"),
        ({"width": 0}, "model.width: expected an integer > 0, found 0"),
        ({"width": "8"}, "model.width: expected an integer > 0, found '8'"),
        ({"width": True}, "model.width: expected an integer > 0, found True"),
        ({"kind": "lama"}, "model.kind: expected one of gpt2, llama, found 'lama'; did you mean"),
        ({"tied": 0}, "model.tied: expected true or false, found 0"),
        ({"tags": "x"}, "model.tags: expected a list, each text, found 'x'"),
        ({"_partial_": True}, "model._partial_: no such key"),
    ],
)
def test_keys_and_values_of_a_node(keys: dict[str, Any], expected: str) -> None:
    assert expected in problems(model(**keys))


@pytest.mark.parametrize(
    ("key", "name"), [(3, "3"), (2024, "2024"), (True, "true"), (None, "null")]
)
def test_a_key_that_yaml_reads_as_no_text_is_named_all_the_same(key: Any, name: str) -> None:
    expected = f"{name}: no such key"
    assert expected in problems({**base(), key: 1})
    assert f"model.{expected}" in problems(base(model={**model()["model"], key: 1}))


def test_a_node_may_be_called_by_a_number() -> None:
    node = {"_target_": "toy_targets.Model", "depth": 2}
    checked = check(base(callbacks={3: node}), supplied=SUPPLIED)
    assert checked["callbacks"]["3"]["depth"] == 2


def test_misspelt_groups_lead_to_the_real_ones() -> None:
    text = problems(base(modle={"depth": 3, "rope": {"theta": 1}}, lr=2, foo=1))
    assert "modle.depth: no such key; did you mean model.depth?" in text
    assert "modle.rope.theta: no such key" in text
    assert "lr: no such key; did you mean optimizer.lr?" in text
    assert "foo: no such key; the root has seed, name, allowed_packages, data" in text


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ({"seed": -1}, "seed: expected an integer >= 0 and < 4294967296, found -1"),
        ({"seed": "a"}, "seed: expected an integer"),
        ({"name": 3}, "name: expected text or null, found 3"),
        ({"allowed_packages": "numpy"}, "allowed_packages: expected a list, each text"),
        ({"model": "small"}, "model: expected a node with a _target_, found 'small'"),
        ({"model": {"depth": 2}}, "model: has no _target_"),
        ({"model": {"depth": 2, "width": None}}, "model: has no _target_"),
        ({"model": {"depth": 2, "a": {"_target_": "toy_targets.Model", "depth": 1}}}, "of which"),
    ],
)
def test_the_root(root: dict[str, Any], expected: str) -> None:
    assert expected in problems(base(**root))


def test_a_required_key_is_named_with_how_to_give_it() -> None:
    text = problems(base(model={"_target_": "toy_targets.Model"}))
    assert text == "model.depth: is required; give it as model.depth=VALUE"


def test_what_the_program_supplies_is_no_key() -> None:
    config = base(optimizer={"_target_": "toy_targets.Optimizer", "params": []})
    assert problems(config) == "optimizer.params: is set by the program; remove it"
    with pytest.raises(ConfigError, match=r"optimizer\.params: is required"):
        check(base())


def test_all_problems_are_reported_at_once() -> None:
    config = base(
        seed=-1,
        model={"_target_": "toy_targets.Model", "width": 0, "x": 1},
        optimizer={"_target_": "os.system"},
    )
    text = problems(config)
    assert [line.split(":")[0] for line in text.splitlines()] == [
        *("seed", "model.depth", "model.width", "optimizer._target_", "model.x")
    ]


def test_named_nodes_and_null() -> None:
    callbacks: dict[str, Any] = {
        "checkpoint": {"_target_": "toy_targets.Callback", "monitor": "val/bleu"},
        "early_stopping": None,
    }
    checked = check(base(callbacks=callbacks, logger=None), supplied=SUPPLIED)
    assert checked["logger"] is None
    assert checked["callbacks"]["early_stopping"] is None
    assert checked["callbacks"]["checkpoint"]["patience"] is None
    callbacks["early_stopping"] = {"patience": 3}
    assert "callbacks.early_stopping: has no _target_" in problems(base(callbacks=callbacks))


def test_supplied_parameters_of_named_nodes() -> None:
    node = {"_target_": "toy_targets.Callback", "monitor": "x"}
    with pytest.raises(ConfigError, match=r"callbacks\.a\.monitor: is set by the program"):
        check(base(callbacks={"a": node}), supplied={**SUPPLIED, "callbacks": {"monitor"}})


def test_nodes_inside_nodes() -> None:
    inner: dict[str, Any] = {"_target_": "toy_targets.Model", "depth": 1}
    assert check(model(inner=inner), supplied=SUPPLIED)["model"]["inner"]["width"] == 64
    assert "model.inner.depth: expected" in problems(model(inner={**inner, "depth": -1}))
    hidden = {"deep": [{"_target_": "os.system", "command": "true"}]}
    assert "model.options.deep[0]._target_: os.system" in problems(model(options=hidden))


def test_open_targets_take_any_key_outside_truesweep() -> None:
    task: dict[str, Any] = {"_target_": "toy_targets.Open", "a": 2, "other": {"x": 1}}
    assert check(base(task=task), supplied=SUPPLIED)["task"] == task
    nested = {**task, "other": {"_target_": "os.system"}}
    assert "task.other._target_: os.system" in problems(base(task=nested))


def test_targets_of_libraries() -> None:
    config = base(optimizer={"_target_": "torch.optim.SGD", "lr": "1e-2", "momentum": 0.9})
    checked = check(config, supplied=SUPPLIED)
    assert checked["optimizer"]["lr"] == 0.01
    assert checked["optimizer"]["nesterov"] is False
    config["optimizer"]["momentun"] = 0.9
    assert "did you mean optimizer.momentum?" in problems(config)
    config["optimizer"] = {"_target_": "torch.optim.SGD", "lr": "fast"}
    assert "optimizer.lr: expected a number, found 'fast'" in problems(config)


def test_a_secret_is_not_checked_before_it_is_revealed() -> None:
    checked = check(model(width="${oc.env:MODEL_TOKEN}"), supplied=SUPPLIED)
    assert checked["model"]["width"] == "${oc.env:MODEL_TOKEN}"


def test_packages_can_be_allowed_by_the_caller() -> None:
    config = base(allowed_packages=[])
    assert "add it: 'allowed_packages=[toy_targets]'" in problems(config)
    check(config, supplied=SUPPLIED, allowed_packages=["toy_targets"])


def test_a_key_of_another_option_leads_there(tree: Path) -> None:
    (tree / "optimizer/open.yaml").write_text("_target_: toy_targets.Open\n")
    (tree / "task/big.yaml").write_text(
        "# @package _global_\ntask:\n  _target_: toy_targets.Callback\n"
    )
    (tree / "optimizer/broken.yaml").write_text("_target_: [\n")
    (tree / "optimizer/hostile.yaml").write_text("_target_: os.system\n")
    composed = compose(["optimizer.a=1", "model.kwargs=1"], [tree])
    text = problems(composed.config, origin=composed.origins)
    assert "optimizer.a: no such key here; it belongs to optimizer=open (command line)" in text
    composed = compose(["task=big", "task.a=1"], [tree])
    text = problems(composed.config, origin=composed.origins)
    assert (
        text == "task.a: no such key here; it belongs to task=lm or task=translation (command line)"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["modle.depth=3"], "modle.depth: no such key; did you mean model.depth? (command line)"),
        (["+modle.depth=3"], "modle.depth: no such key; did you mean model.depth? (command line)"),
        (["lr=3"], "lr: no such key; did you mean optimizer.lr? (command line)"),
        (["modle=large"], "modle: no such key; did you mean model? (command line)"),
        (["optimizer.lr=-1"], "optimizer.lr: expected a number > 0, found -1 (command line)"),
        (
            ["experiment=typo"],
            "model.depht: no such key; did you mean model.depth? ({tree}/experiment/typo.yaml:3)",
        ),
    ],
)
def test_messages_name_the_origin(tree: Path, overrides: list[str], expected: str) -> None:
    (tree / "experiment/typo.yaml").write_text("# @package _global_\nmodel:\n  depht: 4\n")
    composed = compose(overrides, [tree])
    text = problems(composed.config, origin=composed.origins)
    assert text == expected.format(tree=tree.as_posix())


def test_quick() -> None:
    config = base(
        model={"_target_": "transformers.GPT2Config", "n_layer": 3},
        optimizer={"_target_": "torch.optim.AdamW", "lr": 0.1, "betas": [0.9, 0.99]},
        callbacks={
            "stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "x"}
        },
    )
    check(config, supplied=SUPPLIED)
    start = time.perf_counter()
    check(config, supplied=SUPPLIED)
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("first", ["", "\ufeff# @package _global_\n"])
def test_a_file_without_its_package_is_told_so(tree: Path, first: str) -> None:
    (tree / "experiment/plain.yaml").write_text(f"{first}model:\n  depth: 4\n", encoding="utf-8")
    composed = compose(["experiment=plain"], [tree])
    text = problems(composed.config, origin=composed.origins)
    assert "experiment.model.depth: no such key; the experiment's file lacks `# @package" in text
