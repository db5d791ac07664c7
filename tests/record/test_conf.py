import inspect

from truesweep.config.compose import compose
from truesweep.record.wandb import WandbLogger


def test_the_logger_group_gives_w_and_b_or_nothing() -> None:
    assert compose(["logger=none"]).config["logger"] is None
    wandb = compose(["logger=wandb"]).config["logger"]
    assert wandb["_target_"] == f"{WandbLogger.__module__}.{WandbLogger.__qualname__}"
    assert wandb.keys() - {"_target_"} <= inspect.signature(WandbLogger).parameters.keys()
