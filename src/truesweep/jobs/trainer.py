"""The `trainer` group: how long, how often, on what; with Lightning's names and meanings."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pytorch_lightning as pl
import torch
from annotated_types import Ge, Gt
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.accelerators import (
    AcceleratorRegistry,
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
)
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO, TransformerEnginePrecision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from typing_extensions import override

from truesweep import text
from truesweep.compat import bf16_of_cpu, leave_signals
from truesweep.compat.steps import shorten_steps
from truesweep.errors import ConfigError, did_you_mean, in_short, missing_package
from truesweep.models.fp8 import CAPABILITY, require_torchao
from truesweep.optim.optimizers import Precision
from truesweep.record.checkpoints import require_valid
from truesweep.record.gpus import capabilities, gpu_memory
from truesweep.record.provenance import memory

Compile = bool | Literal["auto", "layers", "graphs"]
Fp8 = bool | Literal["emulated"]
VALIDATIONS_PER_RUN = 10
BF16_CAPABILITY = 8.0
"""The oldest GPU of NVIDIA's with bf16."""
OUR_STRATEGIES = ("auto", "ddp", "fsdp")
SHORT_NAMES = {"accelerator": ("auto", "gpu"), "strategy": OUR_STRATEGIES}
"""Names beside those of Lightning's registries."""


@dataclass(kw_only=True)
class TrainerSettings:
    """How a run is carried out. All steps are optimizer steps.

    Args:
        max_epochs: Length of training in passes over the data.
        max_steps: Length of training in optimizer steps; of both limits, the first one reached.
        val_check_interval: Optimizer steps between validations (int), or a share of an epoch
            (float); None: ten validations a run. The last step is always validated.
        log_every_n_steps: Optimizer steps between two rows of training metrics.
        gradient_clip_val: Largest norm of the whole gradient; None: not clipped.
        overfit_batches: Train and validate on so many first batches of the training split only.
        accelerator: `cpu`, `gpu`, … or `auto`.
        devices: Devices of one node: how many, which, or `auto`.
        num_nodes: Nodes, each with `devices`.
        strategy: `auto` (one device, or DDP), `ddp`, `fsdp` (PyTorch's `fully_shard`), or any other
            of Lightning's names.
        precision: Lightning's names; `bf16-mixed` keeps weights in fp32. `auto`: what this machine
            does by itself, `bf16-mixed`, `16-mixed` on older GPUs, or `32-true`. The configuration
            that a run is started from holds what was taken.
        matmul_precision: Of products that are in fp32 on a GPU: `highest`; `high` is tf32; `medium`
            may be bf16; see `torch.set_float32_matmul_precision`. `auto`: `high` where the others
            are in 16 bits anyway, else `highest`.
        compile: `torch.compile` the whole model (True) or each of its layers (`layers`), which
            starts sooner; `auto`: the whole one on a GPU, if there is a compiler, and none else.
            `graphs`: the whole one, and what a step launches on one GPU is recorded as CUDA graphs,
            for models so small that launching takes longer than computing; all rows of one width.
        fp8: Multiply in eight bits in the linear layers while training, on GPUs that have it, by
            torchao; `emulated`: the same numbers, slowly, on any device. Evaluations have the
            trainer's precision.
        deterministic: Refuse operations that have no deterministic form.
        detect_anomaly: Find the operation that made a NaN; slow.
        profiler: `simple`, `advanced` or `pytorch`.
        threads: CPU threads per rank; None: the cores, shared among this node's ranks.
    """

    max_epochs: Annotated[int, Gt(0)] | None = None
    max_steps: Annotated[int, Gt(0)] | None = None
    val_check_interval: Annotated[int, Gt(0)] | Annotated[float, Gt(0)] | None = None
    log_every_n_steps: Annotated[int, Gt(0)] = 10
    gradient_clip_val: Annotated[float, Gt(0)] | None = 1.0
    overfit_batches: Annotated[int, Ge(0)] = 0
    accelerator: str = "auto"
    devices: Annotated[int, Gt(0)] | list[int] | Literal["auto"] = "auto"
    num_nodes: Annotated[int, Gt(0)] = 1
    strategy: str = "auto"
    precision: Literal["auto", Precision] = "32-true"
    matmul_precision: Literal["auto", "highest", "high", "medium"] = "auto"
    compile: Compile = "auto"
    fp8: Fp8 = False
    deterministic: bool = False
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    threads: Annotated[int, Gt(0)] | None = None

    def check(self) -> None:
        """Build what Lightning takes by name, as far as no device is needed for it.

        Raises:
            ConfigError: A name means nothing, or needs a package that is not installed.
        """
        with self._refused("accelerator", AcceleratorRegistry):
            self._accelerator()
        if self.strategy not in OUR_STRATEGIES:
            with self._refused("strategy", StrategyRegistry):
                StrategyRegistry.get(self.strategy)
        if self.precision == "transformer-engine":
            with self._refused("precision"):
                TransformerEnginePrecision(weights_dtype=torch.bfloat16)
        if self.fp8:
            self.check_fp8()

    def check_fp8(self) -> None:
        """Refuse eight bits where they cannot be had, as far as this machine tells.

        Raises:
            ConfigError: They cannot.
        """
        require_torchao()
        asked = f"trainer.fp8={text.value(self.fp8)}"
        if self.strategy == "fsdp":
            raise ConfigError(
                f"{asked}: has not been tried with weights that ranks share. Set "
                "trainer.strategy=ddp or trainer.fp8=false"
            )
        if self.precision not in ("bf16-mixed", "bf16-true") and self.fp8 is True:
            raise ConfigError(
                f"{asked}: stands beside products in bf16. Set "
                "trainer.precision=bf16-mixed or trainer.fp8=false"
            )
        oldest = min(capabilities(), default=CAPABILITY) if self.is_gpu() else 0.0
        if oldest < CAPABILITY and self.fp8 is True:
            found = f"a GPU of compute capability {oldest} has" if oldest else "a processor has"
            raise ConfigError(
                f"{asked}: {found} no such products; it takes {CAPABILITY} (H100 and "
                "newer). Set trainer.fp8=false, or emulated to try it slowly"
            )

    def native_precision(self) -> tuple[Precision, str]:
        """The fastest precision that the hardware has of its own, and why it is that one.

        The GPU is not touched, as processes may still be forked from this one.

        Raises:
            ConfigError: There is no such accelerator.
        """
        with self._refused("accelerator", AcceleratorRegistry):
            if self.is_gpu():
                oldest = min(capabilities(), default=BF16_CAPABILITY)
                if oldest < BF16_CAPABILITY:
                    return "16-mixed", f"a GPU of compute capability {oldest} has no bf16"
                return "bf16-mixed", "GPUs have bf16"
            if not self.is_cpu():
                return "32-true", f"trainer.accelerator={self.accelerator} may have no bf16"
            bf16 = bf16_of_cpu()
        if bf16 is None:
            return "32-true", "this processor has no bf16 of its own, and imitates it slowly"
        return "bf16-mixed", f"this processor has {bf16}"

    def memory(self) -> int | None:
        """Bytes of each rank's device, or its share of this machine's; None: they are not known.

        The GPU is not touched, as processes may still be forked from this one.
        """
        if self.is_gpu():
            return min(gpu_memory(), default=None)
        return memory() // self.local_ranks() if self.is_cpu() else None

    def set_matmul_precision(self) -> None:
        """Choose the kernels of this process for products in fp32; on a CPU they stay exact."""
        if self.is_gpu():
            exact = self.precision in ("32-true", "64-true")
            auto = "highest" if exact else "high"
            chosen = auto if self.matmul_precision == "auto" else self.matmul_precision
            torch.set_float32_matmul_precision(chosen)

    @contextmanager
    def _refused(self, key: str, names: Collection[str] = ()) -> Iterator[None]:
        """Say of an error what it means for a key."""
        value = getattr(self, key)
        try:
            yield
        except KeyError:
            known = sorted({*names, *SHORT_NAMES[key]})
            main = [name for name in known if not name.startswith("ddp_")]  # variants of one
            raise ConfigError(
                f"trainer.{key}={value}: no such {key}{did_you_mean(value, known)}; there are "
                f"{', '.join(main)}"
            ) from None
        except Exception as error:
            package = missing_package(error)
            if package:
                remedy = f"needs the package {package}; type pip install {package}"
                raise ConfigError(f"trainer.{key}={value}: {remedy}") from None
            raise ConfigError(f"trainer.{key}={value}: {in_short(error)}") from error

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole training."""
        limits = [
            self.max_steps,
            self.max_epochs * steps_per_epoch if self.max_epochs is not None else None,
        ]
        given = [limit for limit in limits if limit is not None]
        if not given:
            raise ConfigError(
                "trainer: neither max_steps nor max_epochs is given; "
                "set trainer.max_steps=1000, say, or trainer.max_epochs=3"
            )
        return min(given)

    def validate_every(self, steps_per_epoch: int) -> int:
        """Optimizer steps between validations."""
        interval = self.val_check_interval
        if interval is None:
            return max(1, self.total_steps(steps_per_epoch) // VALIDATIONS_PER_RUN)
        if isinstance(interval, int):
            return interval
        return max(1, round(interval * steps_per_epoch))

    def local_ranks(self) -> int:
        """Processes on each node."""
        if isinstance(self.devices, list):
            return len(self.devices)
        if isinstance(self.devices, int):
            return self.devices
        return int(self._accelerator().auto_device_count())

    def is_cpu(self) -> bool:
        """Whether training runs on the CPU."""
        return self._accelerator() is CPUAccelerator

    def is_gpu(self) -> bool:
        """Whether training runs on GPUs of NVIDIA's or AMD's."""
        return self._accelerator() is CUDAAccelerator

    def device(self) -> torch.device:
        """That of this rank, as Lightning takes it, before there is a trainer to ask."""
        if self.is_cpu():
            return torch.device("cpu")
        if not self.is_gpu():
            return torch.device("mps")
        place = int(os.environ.get("LOCAL_RANK", "0"))
        number = self.devices[place] if isinstance(self.devices, list) else place
        return torch.device("cuda", number)

    def _accelerator(self) -> Any:
        name = self.accelerator
        if name in ("auto", "gpu"):
            for candidate in (CUDAAccelerator, MPSAccelerator):
                if candidate.is_available():
                    return candidate
            name = "cpu" if name == "auto" else "cuda"
        if name == "cpu":
            return CPUAccelerator
        accelerator = AcceleratorRegistry.get(name)
        return type(accelerator)

    def lacking(self) -> str | None:
        """What this machine lacks of the devices that are asked for; None if it has them."""
        kind, there = self._accelerator(), 0
        if kind is CPUAccelerator:
            return None
        if kind.is_available():
            there = int(kind.auto_device_count())
            last = max(self.devices) + 1 if isinstance(self.devices, list) else self.devices
            if last == "auto" or last <= there:
                return None
        asked = f"trainer.accelerator={self.accelerator} trainer.devices={self.devices}"
        return f"{asked}, but there are {there or 'none'} here"

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.local_ranks() * self.num_nodes

    def make(
        self,
        *,
        callbacks: Sequence[pl.Callback],
        loggers: Sequence[Logger],
        checkpoint_io: CheckpointIO,
        directory: str,
        reached_at_times: bool = False,
    ) -> pl.Trainer:
        """Build Lightning's trainer; its own limits, clipping and batching are left to the task.

        Args:
            callbacks: Lightning's, or ours.
            loggers: likewise.
            checkpoint_io: what reads and writes checkpoints.
            directory: of the run.
            reached_at_times: whether the gradients of some samples do not reach all parameters.
        """
        single = self.world_size == 1
        environment = LightningEnvironment() if single else TorchElasticEnvironment()
        trainer = pl.Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.num_nodes,
            strategy=self._strategy(reached_at_times),
            precision=cast(Any, self.precision),
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[checkpoint_io, environment],
            max_epochs=-1,
            limit_val_batches=0,  # validations are started by `callbacks.Validation`
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # rows are written by the task, past this interval
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic=self.deterministic,
            detect_anomaly=self.detect_anomaly,
            profiler=self.profiler or NoProfiler(),
            default_root_dir=directory,
        )
        leave_signals(trainer)
        shorten_steps(trainer)
        return trainer

    def _strategy(self, reached_at_times: bool) -> str | Strategy:
        if self.world_size == 1:
            return "auto"
        backend = "gloo" if self.is_cpu() else None
        if self.strategy == "fsdp":
            return _Sharded(
                data_parallel_size=self.world_size,
                tensor_parallel_size=1,
                save_distributed_checkpoint=False,  # one file, whatever the number of ranks
                process_group_backend=backend,
            )
        if self.strategy not in OUR_STRATEGIES:
            return self.strategy
        return DDPStrategy(
            process_group_backend=backend,
            # Nothing in a transformer's buffers changes, and an evaluation may not wait for others.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=reached_at_times,
        )


class _Sharded(ModelParallelStrategy):
    """Reads checkpoints as others are read; Lightning's own asks `checkpoint_io` for none."""

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        require_valid(Path(checkpoint_path))
        return super().load_checkpoint(checkpoint_path, weights_only)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, and takes no time for it: Lightning asks some sixty times a step."""

    _nothing = nullcontext()

    @override
    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self._nothing
