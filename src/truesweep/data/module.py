"""The data of a training as Lightning wants them: a loader for each split."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from truesweep.compat import AroundLoader, steps_done
from truesweep.data.batch import Batch, micro_batch_count, split
from truesweep.data.datasets import EncodedDataset, Joined, Members, Subset
from truesweep.data.mixing import MixtureSampler
from truesweep.data.prepare import Prepared
from truesweep.data.ragged import Lengths
from truesweep.data.samplers import EvalSampler, StepSampler, TrainSampler, order_of_any
from truesweep.data.seq2seq import Seq2SeqDataset
from truesweep.data.source import Source

# Tokens, and elements of their logits, in a forward pass whose size the program may choose. The
# second keeps a large vocabulary from filling the memory: 2^26 floats are 256 MiB.
_CPU_BUDGET = 2**14, 2**26
_DEVICE_BUDGET = 2**16, 2**29
# What passes between layers, and is not kept, stays in a processor's caches. Not of padded samples,
# which may be answered: a token at a time for all of them, faster the more there are.
_CPU_EVAL_TOKENS = 2**11
_AT_ONCE = 2**20  # lengths that are looked at at once
AHEAD = 2**14
"""Tokens in the batches that are made at once, where no workers make them."""


class StepLoader(AroundLoader):
    """A loader whose batches are steps, and that goes on where the trainer's count of them stands.

    Not a `DataLoader` by its type: Lightning would replace the sampler of one and ask for
    workers. Its state is empty (see `TrainSampler.start`); having one tells
    Lightning that training can resume within an epoch.
    """

    def __len__(self) -> int:
        """Batches in a whole pass."""
        return len(self.loader)

    @property
    def samples(self) -> int:
        """Samples of the split, over all ranks."""
        return len(cast(EncodedDataset, self.loader.dataset))

    @property
    def by_source(self) -> Mapping[str, Members]:
        """Of a mixture, which of them are of each source."""
        return cast(EncodedDataset, self.loader.dataset).by_source

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass when the first batch is asked for."""
        if self.loader.num_workers:
            yield from self.loader
            return
        # What torch's loader does without workers, in half the time; a few at once, since Python
        # takes several times as long where a step has driven its code out of the caches.
        sampler, dataset = cast(StepSampler, self.loader.sampler), self.loader.dataset
        steps, tokens = iter(sampler), sampler.batch_size * cast(EncodedDataset, dataset).width
        while batches := [dataset[step] for step in islice(steps, max(1, AHEAD // tokens))]:
            yield from map(_pinned, batches) if self.loader.pin_memory else batches

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class DataModule(pl.LightningDataModule):
    """Loaders in which one batch of training is one optimizer step.

    Args:
        prepared: The encoded data.
        source: Sizes of batches, and how samples share them.
        seed: Decides the order of training samples.
        first_only: If not 0, train and validate on the samples of so many first batches only.
        decoder_start_token_id: The token that the model's decoder starts from, if the model has
            one that is not the pad token.
        largest_micro_batch: Rows that are known to fit the memory; None: nothing is known yet.
        alone: Put each sample into a forward pass of its own, since the model mixes those of one.
    """

    def __init__(
        self,
        prepared: Prepared,
        source: Source,
        seed: int,
        first_only: int = 0,
        decoder_start_token_id: int | None = None,
        largest_micro_batch: int | None = None,
        alone: bool = False,
    ) -> None:
        super().__init__()
        self.alone = alone
        self.largest_micro_batch = largest_micro_batch
        self.prepared = prepared
        self.source = source
        self.seed = seed
        self.train, self.val, self.test = prepared.train, prepared.val, prepared.test
        if first_only:
            self.train = self.val = self._first(first_only)
        for dataset in (part for whole in prepared.datasets.values() for part in _parts(whole)):
            if decoder_start_token_id is not None and isinstance(dataset, Seq2SeqDataset):
                dataset.decoder_start_id = decoder_start_token_id

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training samples."""
        return -(-len(self.train) // self.source.batch_size)

    @cached_property
    def micro_batch_size(self) -> int:
        """Rows of a forward pass in training: what was asked for, or what the budget allows.

        Settled when it is first asked for, in a training, unless the task has measured and set it;
        and halved where the memory wants it.
        """
        if self.alone:
            return 1
        return min(self.source.micro_batch_size or self._rows(self.train), self.most_rows)

    @property
    def is_size_given(self) -> bool:
        """Whether there is nothing to choose about the size of micro-batches."""
        return self.alone or self.source.micro_batch_size is not None

    @property
    def most_rows(self) -> int:
        """A rank's share of a step, or what has fitted the memory if that is less."""
        share = -(-self.source.batch_size // self._world_size)
        return min(share, self.largest_micro_batch or share)

    def widest(self, rows: int) -> Batch:
        """A training batch of the longest sample, again and again: what takes most memory."""
        longest = _first_of_length(self.train.lengths, self.train.width)
        return {**self.train.collate([longest] * rows), "size": rows}

    def halve_micro_batches(self) -> int:
        """Make micro-batches smaller; returns their new size, or 0 if they cannot be."""
        if self.micro_batch_size == 1:
            return 0
        self.micro_batch_size = -(-self.micro_batch_size // 2)
        return self.micro_batch_size

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """Split a training batch into micro-batches, of which every rank gets the same number."""
        count = micro_batch_count(batch["size"], self._world_size, self.micro_batch_size)
        return split(batch, self.micro_batch_size, count)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the tensors of a batch; its lists stay where they are."""
        if device.type == "cpu":  # where they are made
            return batch
        return {
            key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }

    def train_dataloader(self) -> StepLoader:
        """This rank's share of each optimizer step, from the step where training stands."""
        ranks = {"rank": self._rank, "world_size": self._world_size}
        return self._loader(self.train, self._sampler(start=self._steps_done, **ranks))

    def val_dataloader(self) -> StepLoader:
        """Each validation sample once, over all ranks."""
        return self.loader_of(self.val)

    def test_dataloader(self) -> StepLoader:
        """Each test sample once, over all ranks."""
        return self.loader_of(self.test)

    def evaluation_loader(self, split: str) -> StepLoader:
        """Each sample of a split, `train`, `val` or `test`, once, over all ranks."""
        return self.loader_of(self.prepared.datasets[split])

    def _first(self, batches: int) -> Subset:
        if self.prepared.mix is None:
            lengths = self.train.lengths
            order = order_of_any(lengths, self.source.batch_size, self.seed, epoch=0)
        else:
            order = self._sampler().order(0)
        return Subset(self.train, np.asarray(order[: batches * self.source.batch_size]))

    def _sampler(self, **place: Any) -> TrainSampler:
        """The steps of the training samples, of which a mixture has its own."""
        dataset, size = self.train, self.source.batch_size
        if isinstance(dataset, Joined) and self.prepared.mix is not None:
            lengths = {name: part.lengths for name, part in dataset.parts.items()}
            return MixtureSampler(lengths, self.prepared.mix.places, size, self.seed, **place)
        group = self.source.group_by_length and dataset.padded
        return TrainSampler(dataset.lengths, size, self.seed, group_by_length=group, **place)

    def loader_of(self, dataset: EncodedDataset) -> StepLoader:
        """Each sample of a dataset once, over all ranks."""
        dataset = dataset.scored
        batch_size = (
            1 if self.alone else self.source.eval_batch_size or self._rows(dataset, evaluates=True)
        )
        sampler = EvalSampler(dataset.lengths, batch_size, self._rank, self._world_size)
        return self._loader(dataset, sampler)

    def _loader(self, dataset: EncodedDataset, sampler: TrainSampler | EvalSampler) -> StepLoader:
        workers = self.source.num_workers
        can_fork = "fork" in multiprocessing.get_all_start_methods()
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            # Ranks are forked from a server; workers started that way would import all again.
            multiprocessing_context="fork" if workers and can_fork else None,
            pin_memory=self._device == "cuda",
            collate_fn=_as_is,
            worker_init_fn=_leave_signals_to_the_rank,
            # A loader draws a seed for its workers each epoch: not from the training's own numbers.
            generator=torch.Generator().manual_seed(self.seed),
        )
        return StepLoader(loader)

    def _steps_done(self) -> int:
        """Batches that training has processed, which Lightning keeps in its checkpoints."""
        return steps_done(self.trainer) if self.trainer else 0

    def _rows(self, dataset: EncodedDataset, evaluates: bool = False) -> int:
        """Rows of the longest length that keep a forward pass within the budget."""
        on_cpu = self._device == "cpu"
        tokens, logits = _CPU_BUDGET if on_cpu else _DEVICE_BUDGET
        tokens = min(tokens, logits // self.prepared.classes)
        if on_cpu and evaluates and not dataset.padded:
            tokens = min(tokens, _CPU_EVAL_TOKENS)
        return max(1, tokens // dataset.width)

    @property
    def _device(self) -> str:
        return self.trainer.strategy.root_device.type if self.trainer else "cpu"

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _first_of_length(lengths: Lengths, length: int) -> int:
    """The first sample of a length that there is, of which there may be too many for one array."""
    for start in range(0, len(lengths), _AT_ONCE):
        some = lengths[np.arange(start, min(start + _AT_ONCE, len(lengths)))]
        if (some == length).any():
            return start + int((some == length).argmax())
    return 0


def _parts(dataset: EncodedDataset) -> Iterable[EncodedDataset]:
    """The datasets of the sources of a mixture, or the one that there is."""
    return dataset.parts.values() if isinstance(dataset, Joined) else (dataset,)


def _pinned(batch: Batch) -> Batch:
    """A batch from whose memory a GPU copies while the processor goes on."""
    return {
        key: value.pin_memory() if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_rank(worker: int) -> None:
    """Signals for all processes of a job must not take the rank's data away while it saves.

    SIGTERM still ends a worker if the rank itself has sent it.
    """
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_the_rank, daemon=True).start()


def _end_with_the_rank() -> None:
    rank = multiprocessing.parent_process()
    while rank is not None and signal.sigwaitinfo([signal.SIGTERM]).si_pid != rank.pid:
        pass
    os._exit(0)
