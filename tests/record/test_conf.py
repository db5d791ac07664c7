import inspect
from pathlib import Path

from hydra import compose, initialize_config_dir

from truesweep.record.wandb import WandbLogger

CONF = Path(__file__).parents[2] / "conf"


def test_the_logger_group_gives_w_and_b_or_nothing() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        assert compose(overrides=["+logger=none"]) == {"logger": None}
        wandb = compose(overrides=["+logger=wandb"]).logger
    assert wandb._target_ == f"{WandbLogger.__module__}.{WandbLogger.__qualname__}"
    assert wandb.keys() - {"_target_"} <= inspect.signature(WandbLogger).parameters.keys()
