import multiprocessing
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from truesweep.data.batch import Batch
from truesweep.data.module import DataModule
from truesweep.data.samples import Labelled, Pair
from truesweep.data.seq2seq import Seq2SeqDataset

SAMPLES = [Labelled(chr(ord("a") + i) * (1 + i % 4), ["even", "odd"][i % 2]) for i in range(17)]
pytestmark = [
    # Lightning's word on machines that have a cluster's tools.
    pytest.mark.filterwarnings("ignore:The `srun` command"),
    # Lightning 2.6 with torch 2.13.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

Prepare = Callable[..., Any]


def firsts(batch: Batch) -> list[int]:
    """The samples of a batch: each begins with a letter of its own."""
    return [int(row[1]) for row, n in zip(batch["input_ids"], batch["lengths"], strict=True) if n]


def equal(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


class Interrupted(Exception):
    pass


class Recorder(pl.LightningModule):
    """Does nothing but note which samples it gets."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop_after = stop_after
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append(firsts(batch))
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += firsts(batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(Path(self.trainer.default_root_dir, "last.ckpt"))
            raise Interrupted


def fit(
    data: DataModule, folder: Path, resume: Path | None = None, stop_after: int | None = None
) -> Recorder:
    recorder = Recorder(stop_after)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        max_epochs=3,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=False,
    )
    with suppress(Interrupted):
        trainer.fit(recorder, datamodule=data, ckpt_path=resume)
    return recorder


@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (5, 0), (7, 0), (7, 2)])
def test_a_training_goes_on_where_it_stopped(
    prepared: Prepare, tmp_path: Path, stop: int, workers: int
) -> None:
    data, source = prepared(SAMPLES, batch_size=4, num_workers=workers)
    whole = fit(DataModule(data, source, seed=1), tmp_path / "whole")
    assert [len(step) for step in whole.seen] == [4, 4, 4, 4, 1] * 3
    for epoch in range(3):
        steps = whole.seen[5 * epoch : 5 * epoch + 5]
        assert len({i for step in steps for i in step}) == 17
    assert len(whole.validated) >= 3 * 17
    part = fit(DataModule(data, source, seed=1), tmp_path / "part", stop_after=stop)
    rest = fit(DataModule(data, source, seed=1), tmp_path, tmp_path / "part" / "last.ckpt")
    assert part.seen + rest.seen == whole.seen
    assert not multiprocessing.active_children()


def test_the_widest_batch_is_of_a_longest_sample(prepared: Prepare) -> None:
    data, source = prepared(SAMPLES, batch_size=4)
    module = DataModule(data, source, seed=1)
    batch = module.widest(3)
    assert batch["input_ids"].shape == (3, module.train.width)
    assert batch["lengths"] == [module.train.width] * 3
    assert (batch["size"], len(set(batch["index"]))) == (3, 1)
    assert module.train.lengths[0] < module.train.width, "not simply the first one"


def test_first_only(prepared: Prepare, tmp_path: Path) -> None:
    data, source = prepared(SAMPLES, batch_size=4)
    module = DataModule(data, source, seed=1, first_only=2)
    assert module.steps_per_epoch == 2
    recorder = fit(module, tmp_path / "run")
    samples = {i for step in recorder.seen[:2] for i in step}
    assert len(recorder.seen) == 6
    assert len(samples) == 8
    assert {i for step in recorder.seen for i in step} == samples == set(recorder.validated)


@pytest.mark.parametrize("samples", [SAMPLES, [Pair(s.text, s.label) for s in SAMPLES]])
def test_workers_change_nothing(prepared: Prepare, samples: list[Any]) -> None:
    data, source = prepared(samples, batch_size=4)
    passes = []
    for workers in (0, 2):
        source.num_workers = workers
        module = DataModule(data, source, seed=1)
        state = torch.get_rng_state()
        loaders = [module.train_dataloader(), module.val_dataloader(), module.test_dataloader()]
        passes.append([batch for loader in loaders for batch in loader])
        assert torch.equal(torch.get_rng_state(), state)
        assert [len(loader) for loader in loaders[:1]] == [5]
    assert len(passes[0]) == len(passes[1])
    assert all(equal(a, b) for a, b in zip(*passes, strict=True))


def test_workers_outlive_a_signal_to_all_processes_of_a_job(prepared: Prepare) -> None:
    data, source = prepared(SAMPLES, batch_size=4, num_workers=2)
    batches = iter(DataModule(data, source, seed=1).train_dataloader())
    seen = [next(batches), next(batches)]  # one of each worker, which is ready then
    workers = [worker.pid for worker in multiprocessing.active_children()]
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        subprocess.run(["kill", f"-{signum}", *map(str, workers)], check=True)
        time.sleep(0.1)
    seen.extend(batches)
    assert len(seen) == 5


def test_samples_of_like_length_share_a_step_only_where_asked(prepared: Prepare) -> None:
    data, source = prepared(SAMPLES, batch_size=4)
    grouped = [
        max(b["lengths"]) - min(b["lengths"])
        for b in DataModule(data, source, 1).train_dataloader()
    ]
    source.group_by_length = False
    plain = [
        max(b["lengths"]) - min(b["lengths"])
        for b in DataModule(data, source, 1).train_dataloader()
    ]
    assert sum(grouped) < sum(plain)


def test_sizes_of_forward_passes(prepared: Prepare) -> None:
    data, source = prepared(["abcdefgh" * 100], max_length=64, batch_size=4)
    module = DataModule(data, source, seed=1)
    assert module.micro_batch_size == 4  # no more than there is
    source.batch_size = 1000
    assert DataModule(data, source, seed=1).micro_batch_size == 2**14 // 64
    source.batch_size = 4
    (batch,) = module.val_dataloader()
    assert batch["input_ids"].shape == (13, 64)
    source.eval_batch_size, source.micro_batch_size = 5, 3
    assert [len(batch["lengths"]) for batch in module.val_dataloader()] == [5, 5, 3]
    module = DataModule(data, source, seed=1)
    step = next(iter(module.train_dataloader()))
    assert [len(part["lengths"]) for part in module.micro_batches(step)] == [3, 1]


def test_forward_passes_of_an_evaluation_stay_in_a_processor_s_caches(prepared: Prepare) -> None:
    data, source = prepared(["abcdefgh" * 400], max_length=64, batch_size=4)
    module = DataModule(data, source, seed=1)
    assert [len(batch["lengths"]) for batch in module.val_dataloader()] == [2**11 // 64, 18]


def test_the_decoder_s_start_reaches_all_splits(prepared: Prepare) -> None:
    data, source = prepared([Pair("ab", "xy")])
    DataModule(data, source, seed=1, decoder_start_token_id=2)
    for dataset in data.datasets.values():
        assert isinstance(dataset, Seq2SeqDataset)
        assert dataset.collate([0])["decoder_input_ids"][0, 0] == 2


def test_losses_add_up_to_the_whole_whatever_the_batches(prepared: Prepare) -> None:
    data, source = prepared(["abcabcabcaab", "cba"], max_length=5, packing=False)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 20)))
    sums = set()
    for size in (1, 2):
        source.eval_batch_size = size
        nll = count = 0.0
        for batch in DataModule(data, source, seed=1).test_dataloader():
            logits = weights[batch["input_ids"]].transpose(1, 2)
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
            nll, count = nll + float(loss.sum()), count + int((batch["labels"] >= 0).sum())
        sums.add((round(nll, 9), count))
    assert len(sums) == 1
    assert sums.pop()[1] == 5 + 4
