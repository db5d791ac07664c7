"""`truesweep train -m --wandb-sweep FILE`."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from truesweep.errors import ConfigError
from truesweep.record.files import write_atomic
from truesweep.sweeps.request import ask
from truesweep.sweeps.wandb_sweep import wandb_sweep
from truesweep.terminal import console


def write(
    overrides: Sequence[str], config_dirs: Sequence[Path], file: Path, dry_run: bool = False
) -> int:
    """Write a sweep for W&B's agents, and say how they are started; a dry run prints it."""
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file, or delete it")
    config = wandb_sweep(ask(overrides, config_dirs))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if dry_run:
        print(text, end="")
        return 0
    write_atomic(file, text)
    entity, project = config.get("entity"), config["project"]
    whose = f"--entity {entity} " if entity else ""
    console().print(
        f"Written to {file}. To run it:\n  wandb sweep {whose}--project {project} {file}\n"
        f"  wandb agent {entity or 'ENTITY'}/{project}/SWEEP_ID   (as often as you like)",
        soft_wrap=True,
    )
    return 0
