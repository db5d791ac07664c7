"""Adapters of peft: a few weights that are trained, beside a model's own, which stay as they are.

They are put into the model in place, so that it stays the transformers model that it was.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from truesweep.errors import ConfigError, in_short
from truesweep.models.freezing import freeze
from truesweep.models.heads import Head
from truesweep.models.quantize import (
    dequantize,
    has_quantized,
    loadable_state,
    quantize,
    require_bitsandbytes,
)

if TYPE_CHECKING:
    from peft import PeftConfig

INSTALL = "pip install 'truesweep[adapters]'"
_STREAM = 0xADA  # apart from what else is drawn from a run's seed
_BY_SAMPLE = {"lora_dropout", "vera_dropout"}  # torch's dropout, which `SampleDropout` replaces
_TASK_TYPES: dict[str, str] = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "classifier": "SEQ_CLS",
}
_WRAPPED = "base_model.model."
_REPLACED = ".original_module."
_COPIED = ".modules_to_save."


@dataclass(kw_only=True)
class Lora:
    """Low-rank adapters (LoRA, Hu et al. 2021) by peft.

    Args:
        r: rank of the matrices.
        alpha: what they add is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`.
        dropout: rate for what they read.
        target_modules: names of the layers that get them, or the ends of these; `all-linear`: every
            linear layer but the output layer.
        dora: train magnitudes of the weights, too (DoRA, Liu et al. 2024).
        rslora: see `alpha` (Kalajdzievski 2023).
        modules_to_save: names of further modules, which are trained whole. A classifier's new
            layers always are.
        quantize: `nf4` keeps the weights of the base's linear layers in four bits (QLoRA, Dettmers
            et al. 2023), except for the output layer and what is trained whole.
        config: further fields of peft's `LoraConfig`.
    """

    r: Annotated[int, Gt(0)] = 8
    alpha: Annotated[float, Gt(0)] = 16.0
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    target_modules: str | list[str] = "all-linear"
    dora: bool = False
    rslora: bool = False
    modules_to_save: list[str] | None = None
    quantize: Literal["nf4"] | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def peft_config(self) -> "PeftConfig":
        """This description as peft has it.

        Raises:
            ConfigError: peft has no such field.
        """
        from peft import LoraConfig

        known = {f.name for f in fields(LoraConfig)}
        if unknown := sorted(self.config.keys() - known):
            raise ConfigError(f"adapter.config.{unknown[0]}: peft's LoraConfig has no such field")
        alpha: Any = self.alpha  # an int to peft's annotation, a factor in what it computes
        return LoraConfig(
            r=self.r,
            lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            use_dora=self.dora,
            use_rslora=self.rslora,
            modules_to_save=self.modules_to_save,
            **self.config,
        )


def check_adapter(adapter: Any, trained: bool) -> None:
    """Refuse an adapter that a model cannot be given, before there is one.

    Args:
        adapter: As `add_adapter` takes it.
        trained: Whether the model has weights that were trained.

    Raises:
        ConfigError: A package is missing, or new weights were to be quantised.
    """
    _require_peft()
    if isinstance(adapter, Lora) and adapter.quantize:
        require_bitsandbytes()
        if not trained:
            raise ConfigError(
                "adapter.quantize: is for weights that were trained, and those of this model are "
                "new. Set model=pretrained, or adapter.quantize=null"
            )


def _require_peft() -> None:
    # It imports bitsandbytes where that is installed, which tells of kernels that it does without.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import peft  # noqa: F401
    except ImportError as error:
        missing = getattr(error, "name", None) or "peft"
        raise ConfigError(
            f"adapter: needs the package {missing.partition('.')[0]}; type {INSTALL}"
        ) from None


def add_adapter(model: PreTrainedModel, adapter: Any, head: Head, seed: int) -> Any:
    """Put an adapter into a model, in place; all else is left alone in training.

    A classifier's layers behind the base model are trained whole.

    Args:
        model: The base. With weights, it keeps their hash (`base_of`).
        adapter: A `Lora`, or any configuration of peft that changes layers.
        head: What the model is for.
        seed: The run's seed: the adapter's first weights are a function of it alone.

    Returns:
        What peft calls a tuner, which can merge the adapter into the model.

    Raises:
        ConfigError: peft is missing or refuses the combination, or what is dropped would depend on
            how a batch is split.
    """
    _require_peft()
    config: Any = adapter.peft_config() if isinstance(adapter, Lora) else adapter
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    if not isinstance(config, PeftConfig):
        raise ConfigError(f"adapter: {type(adapter).__name__} is no configuration of peft")
    _check(config)
    _fit(config, model, head)
    if not any(parameter.is_meta for parameter in model.parameters()):
        cast(Any, model).adapted_base = content_hash(model)
        if isinstance(adapter, Lora) and adapter.quantize:
            quantize(model, whole=cast(Any, config).modules_to_save or ())
    state = np.random.SeedSequence((seed, _STREAM)).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(state[0]))
        try:
            tuner = PEFT_TYPE_TO_TUNER_MAPPING[cast(Any, config).peft_type](
                model, config, "default"
            )
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise ConfigError(
                f"adapter: peft cannot put {type(config).__name__} into "
                f"{type(model).__name__}: {in_short(error)}"
            ) from error
    freeze(model, head)  # an adapter in what cannot learn cannot either
    return tuner


def merge_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Add the weights of an adapter's folder to those of its base, in place.

    Args:
        model: The base.
        folder: As peft writes it.

    Raises:
        ConfigError: It does not go with the base, or has whole layers of a classifier, of whose
            classes it does not keep the names.
    """
    _require_peft()
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.task_type == _TASK_TYPES["classifier"]:
        raise ConfigError(
            f"model.name_or_path: {folder} is an adapter of a classifier, and does not name its "
            "classes. Name a folder with the whole model (truesweep export --merge)"
        )
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, "default")
    found = load_peft_weights(str(folder), device="cpu")
    state = {name.removeprefix(_WRAPPED): tensor for name, tensor in found.items()}
    loaded: Any = set_peft_model_state_dict(model, state)
    if unused := loaded.unexpected_keys:
        raise ConfigError(
            f"model.name_or_path: {folder} does not go with its base, which has nothing that "
            f"{unused[0]} could be added to"
        )
    tuner.merge_and_unload(safe_merge=True)
    vars(model).pop("peft_config", None)
    model.requires_grad_(True)


def merged(model: PreTrainedModel, tuner: Any) -> PreTrainedModel:
    """The model with its adapter added to the base's weights, in place.

    To what quantised weights stand for, which were trained beside, and not in four bits again.

    Args:
        model: With an adapter.
        tuner: As `add_adapter` gives it.
    """
    if has_quantized(model):
        tuner = _unquantized(model, tuner)
    found: PreTrainedModel = tuner.merge_and_unload(safe_merge=True)
    return found


def _unquantized(model: PreTrainedModel, tuner: Any) -> Any:
    """The tuner of the same adapter beside the weights that the quantised ones stand for."""
    config = tuner.peft_config["default"]
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    tuner.unload()
    vars(model).pop("peft_config", None)
    dequantize(model)
    anew = type(tuner)(model, config, "default")
    model.load_state_dict(trained, strict=False)
    return anew


def _check(config: Any) -> None:
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ConfigError(
            f"adapter: {type(config).__name__} adds to what a model reads, which is not supported. "
            "Set adapter=lora, or another method that changes layers, such as peft.IA3Config"
        )
    for key, value in vars(config).items():
        if key.endswith("dropout") and key not in _BY_SAMPLE and value:
            raise ConfigError(
                f"adapter.{key}={value}: what is dropped would depend on how a batch is split. "
                f"Set adapter.{key}=0"
            )


def _fit(config: Any, model: PreTrainedModel, head: Head) -> None:
    """Set what follows from the model and its task."""
    config.task_type = _TASK_TYPES.get(head)
    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    if head != "classifier":
        return
    new = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]
    config.modules_to_save = sorted({*(config.modules_to_save or ()), *new})


def content_hash(model: PreTrainedModel) -> str:
    """SHA-256 (hexadecimal) over a model's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def base_of(model: PreTrainedModel) -> str | None:
    """The hash of the weights that an adapter was put beside; None of a model without one."""
    return getattr(model, "adapted_base", None)


def has_adapter(model: Any) -> bool:
    """Whether a model has an adapter."""
    return hasattr(model, "peft_config")


@contextmanager
def without_adapter(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before it had an adapter; within it, nothing is trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    layers = [
        m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, learns in trained:
            parameter.requires_grad_(learns)


def is_replaced(name: str) -> bool:
    """Whether a parameter has this name that a trained copy stands in for."""
    return _REPLACED in name


def added_parameters(model: PreTrainedModel) -> int:
    """Trained parameters that the base has none of."""
    return sum(
        p.numel() for n, p in model.named_parameters() if p.requires_grad and _COPIED not in n
    )


def trained_state(
    model: PreTrainedModel, state: dict[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Of a state, what is not the base's.

    Args:
        model: With an adapter.
        state: Tensors by name.
        prefix: What stands before the names of the model's weights.
    """
    base = {prefix + name for name, p in model.named_parameters() if not p.requires_grad}
    base |= {prefix + name for name in _buffers(model)}
    return {name: tensor for name, tensor in state.items() if name not in base}


def whole_state(
    model: PreTrainedModel, trained: dict[str, Tensor], base: str | None, prefix: str = ""
) -> dict[str, Tensor]:
    """`trained_state` turned back, with the base's weights from the model.

    Raises:
        ConfigError: The model's base is another one.
    """
    if base != base_of(model):
        raise ConfigError(
            "adapter: the base model is not the one that the adapter was trained beside (SHA-256 "
            f"of its weights {str(base_of(model))[:12]}…, then {str(base)[:12]}…). Put back what "
            "`model` named then; a base from scratch needs the same version of torch"
        )
    own = {prefix + name: tensor for name, tensor in loadable_state(model).items()}
    return {**{name: own[name] for name in own.keys() - trained.keys()}, **trained}


def _buffers(model: PreTrainedModel) -> set[str]:
    return model.state_dict().keys() - {name for name, _ in model.named_parameters()}


def save_adapter(model: PreTrainedModel, folder: Any, base: str | None) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads.

    Args:
        model: With an adapter.
        folder: Exists.
        base: What the folder calls the base model.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = cast(Any, model).peft_config["default"]
    config.base_model_name_or_path = base
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {f"{_WRAPPED}{name}": t.contiguous() for name, t in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    inference, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = inference
