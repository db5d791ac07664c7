"""What a training compares with that is no part of its model: the model as it was at first.

Where nothing of that is left, as without an adapter, the log-likelihoods that it gave are kept in
the cache, by the content of the weights and of the samples: a resume finds them there.
"""

import copy
import hashlib
import logging
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from truesweep.data.cache import cached, default_cache
from truesweep.data.datasets import EncodedDataset, Joined
from truesweep.data.module import DataModule
from truesweep.data.preferences import PreferenceDataset
from truesweep.jobs.trainer import TrainerSettings
from truesweep.models.adapters import content_hash
from truesweep.tasks.dpo import answer_likelihoods

log = logging.getLogger(__name__)

VERSION = 1  # of what is kept; a new one leaves all older entries unread
_KEPT = "likelihoods.npy"
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WHOLE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def attach_reference(data: DataModule, initial: PreTrainedModel, settings: TrainerSettings) -> None:
    """Have preferences hold the log-likelihoods that a model gives their answers.

    They are computed as a training computes its own, without dropout; of several processes that ask
    for the same at once, one does it.

    Args:
        data: The samples of all splits.
        initial: The model as it is before the first step, in fp32 on the CPU; it stays as it is.
        settings: Device and precision.
    """
    weights = content_hash(initial)
    for whole in data.prepared.datasets.values():
        for part in whole.parts.values() if isinstance(whole, Joined) else [whole]:
            assert isinstance(part, PreferenceDataset)
            named = f"{VERSION} {weights} {settings.precision} {part.content}"
            key = hashlib.sha256(named.encode()).hexdigest()[:32]
            write = partial(_write, part=part, data=data, initial=initial, settings=settings)
            part.reference = cached(default_cache() / "references", key, write, _read)


def _read(folder: Path) -> npt.NDArray[Any]:
    kept: npt.NDArray[Any] = np.load(folder / _KEPT, allow_pickle=False)
    return kept


@torch.no_grad()
def _write(
    folder: Path,
    part: EncodedDataset,
    data: DataModule,
    initial: PreTrainedModel,
    settings: TrainerSettings,
) -> None:
    log.info("Computing the reference's log-likelihoods of %d pairs", len(part))
    device, precision = settings.device(), str(settings.precision)
    model: Any = copy.deepcopy(initial).to(device, dtype=WHOLE.get(precision)).eval()  # type: ignore[arg-type]
    found = np.zeros((len(part), 2), dtype=np.float64 if precision == "64-true" else np.float32)
    for batch in data.loader_of(part):
        moved = data.transfer_batch_to_device(batch, device, 0)
        with _cast(precision, device):
            likelihoods = answer_likelihoods(model, moved)
        found[batch["index"]] = likelihoods[: len(batch["index"])].cpu().numpy()
    np.save(folder / _KEPT, found, allow_pickle=False)


def _cast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    dtype = MIXED.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
