"""What every source of data has in common: the keys of the `data` group, and `load`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from truesweep.data.rules import Clean
from truesweep.data.samples import Kind, Splits


@dataclass(kw_only=True)
class Source(ABC):
    """Where samples come from, and how they are put into batches.

    Args:
        batch_size: Samples per optimizer step, over all devices.
        micro_batch_size: Samples per forward pass on one device; changes memory and speed, never
            the result. None: the program chooses; on a GPU, as many as its memory is measured to
            hold.
        eval_batch_size: Samples per forward pass of an evaluation on one device. None: the program
            chooses.
        max_length: Tokens: the window of packed text, the longest sample otherwise.
        packing: Join texts into full windows, in which tokens see the texts before their own; with
            `documents`, put them side by side into windows, in which each sees its own text only;
            otherwise each sample stands on its own.
        group_by_length: Let samples of similar length share an optimizer step, where there is
            padding to be saved.
        num_workers: Processes that prepare batches on each device; 0: none besides the main one.
        val_fraction: Share of the data that is split off for validation where no split is given.
        test_fraction: The same for the test split.
        verify: Whether files and what was made of them are the same as when they were last read is
            told by their size, the time of their last change and samples of their content; or,
            with `full`, by reading all of it. Up to 16 MiB all is read.
        clean: What is changed or left out of the samples.
        decontaminate: What to do about training data that stand in validation or test: `warn` of
            them, `drop` them, or do not look (`off`).
    """

    batch_size: Annotated[int, Gt(0)] = 32
    micro_batch_size: Annotated[int, Gt(0)] | None = None
    eval_batch_size: Annotated[int, Gt(0)] | None = None
    max_length: Annotated[int, Gt(1)] = 128
    packing: bool | Literal["documents"] = True
    group_by_length: bool = True
    num_workers: Annotated[int, Ge(0)] = 0
    val_fraction: Annotated[float, Gt(0), Lt(1)] = 0.05
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.05
    verify: Literal["sample", "full"] = "sample"
    clean: Clean = field(default_factory=Clean)
    decontaminate: Literal["off", "warn", "drop"] = "warn"

    @abstractmethod
    def load(self, kind: Kind) -> Splits:
        """Load all three splits as samples of one kind.

        Raises:
            ConfigError: A key does not fit what the kind needs.
            DataError: The data are missing, malformed or contradict themselves.
        """
