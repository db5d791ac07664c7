"""What cannot be built here is refused before anything is spent."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, write_data
from truesweep.errors import ConfigError
from truesweep.jobs.plan import plan

CALLBACK = "callbacks.x._target_=pytorch_lightning"


def missing(package: str) -> pytest.MarkDecorator:
    there = find_spec(package) is not None
    return pytest.mark.skipif(there, reason=f"needs {package} not to be there")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(
            ["trainer.precision=transformer-engine"],
            "trainer.precision=transformer-engine: needs the package transformer_engine; type pip "
            "install transformer_engine",
            marks=missing("transformer_engine"),
        ),
        pytest.param(
            ["trainer.strategy=deepspeed", "trainer.devices=2"],
            "trainer.strategy=deepspeed: needs the package deepspeed; type pip install deepspeed",
            marks=missing("deepspeed"),
        ),
        pytest.param(
            ["trainer.accelerator=tpu"],
            "trainer.accelerator=tpu: needs the package torch_xla; type pip install torch_xla",
            marks=missing("torch_xla"),
        ),
        (["trainer.strategy=dp"], "no such strategy; did you mean ddp"),
        (["trainer.accelerator=cudda"], "no such accelerator; did you mean cuda?"),
        ([f"{CALLBACK}.callbacks.Timer", "callbacks.x.duration=soon"], "callbacks.x: .*Timer"),
        (
            [f"{CALLBACK}.loggers.CSVLogger", "callbacks.x.save_dir=a"],
            "callbacks.x: .*CSVLogger is no callback",
        ),
        (
            ["tokenizer._target_=torch.nn.Dropout"],
            "tokenizer: torch.nn.Dropout has no build and no identity, which a tokenizer needs",
        ),
        (["task=null", "task._target_=torch.nn.Dropout"], "task: torch.nn.Dropout is no task"),
    ],
)
def test_what_cannot_be_built_is_refused(workplace: Path, asked: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan([*write_data(workplace)["lm"], *SMALL, *asked])
    assert not (workplace / "outputs").exists()


def test_no_logger_is_no_logger_however_it_is_said(workplace: Path) -> None:
    data = write_data(workplace)
    none, null = (plan([*data["lm"], *SMALL, f"logger={said}"]) for said in ("none", "null"))
    assert (null.config["logger"], null.id) == (None, none.id)
