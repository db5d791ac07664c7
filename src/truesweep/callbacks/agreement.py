"""All ranks train the same thing, or none trains at all."""

import pytorch_lightning as pl
import torch.distributed as dist


class SameConfiguration(pl.Callback):
    """Compares a hash over all ranks before the first step.

    Args:
        fingerprint: The hash of this rank's configuration and data.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to differ.

        Raises:
            RuntimeError: The ranks hold different configurations or data.
        """
        if trainer.world_size == 1:
            return
        hashes: list[str] = [""] * trainer.world_size
        dist.all_gather_object(hashes, self.fingerprint)
        if len(set(hashes)) > 1:
            listed = ", ".join(f"rank {r}: {h[:12]}" for r, h in enumerate(hashes))
            raise RuntimeError(f"the ranks hold different configurations or data ({listed})")
