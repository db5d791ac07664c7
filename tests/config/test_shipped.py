"""Every shipped option composes, passes the check, and repeats no default of the code."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from truesweep.config.checks import check_across
from truesweep.config.compose import compose
from truesweep.config.roots import shipped
from truesweep.config.schema import GROUPS
from truesweep.config.targets import resolve
from truesweep.config.types import signature
from truesweep.jobs.parts import with_defaults

CONF = shipped("conf")
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml")
)
MANDATORY = {
    "data/files": ["data.train=text.txt"],
    "data/hub": ["data.name=user/data"],
    "model/auto": ["model.architecture=olmo2"],
    "model/pretrained": ["model.name_or_path=folder"],
    "tokenizer/pretrained": ["tokenizer.name_or_path=folder"],
}


def checked(overrides: list[str]) -> dict[str, Any]:
    composed = compose(overrides)
    return with_defaults(composed.config, composed.origins)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_passes_the_checks(option: str) -> None:
    group, _, name = option.rpartition("/")
    config = checked([f"{group}={name}", *MANDATORY.get(option, ())])
    if not config["trainer"]["max_epochs"] and not config["trainer"]["max_steps"]:
        config["trainer"]["max_steps"] = 1000
    check_across(config)


def test_every_group_of_the_primary_configuration_exists() -> None:
    assert set(GROUPS) < set(compose([]).choices)
    assert set(GROUPS) <= {option.split("/")[0] for option in OPTIONS}


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for item in value.values():
            yield from nodes(item)


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_repeats_a_default(option: str) -> None:
    document = yaml.safe_load((CONF / f"{option}.yaml").read_text(encoding="utf-8"))
    for node in nodes(document):
        parameters = signature(resolve(node["_target_"])).parameters
        repeated = {
            key: value
            for key, value in node.items()
            if key in parameters and parameters[key].default == value
        }
        assert not repeated
