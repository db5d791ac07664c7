"""Adapters of peft: a few weights that are trained, beside a model's own, which stay as they are.

They are put into the model in place, so that it stays the transformers model that it was.
"""

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from truesweep.errors import ConfigError, refusing
from truesweep.models.freezing import frozen_layers, keep_frozen
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
_REFUSED = {
    "ADALORA": "shares out ranks as it trains, which needs a training loop of its own",
    "LILY": "weighs its experts by a mean over all samples of a micro-batch",
    "POLY": "asks of each sample which task it belongs to",
    "PVERA": "draws random numbers for each micro-batch",
    "XLORA": "mixes adapters that were trained before",
}
"""What is said of methods of peft, by their names, that cannot do here what they are for."""
_REFUSED_INITS = {
    **dict.fromkeys(("pissa", "olora", "corda", "loftq"), "changes the base's own weights"),
    **dict.fromkeys(("eva", "lora_ga"), "needs a training of its own before this one"),
}
_REFUSED_FIELDS = {
    "alora_invocation_tokens": "does nothing in a model that is the transformers model it was",
    "arrow_config": "mixes adapters that were trained before",
    "kasa_config": "changes the base's own weights",
    "layer_replication": "makes another model of the base",
    "monteclora_config": "draws random numbers for each micro-batch",
    "velora_config": "makes gradients from means over what is in a micro-batch",
}
"""The same of fields of `LoraConfig`, and of what its `init_lora_weights` begin with."""
_OF_WEIGHTS = {"ADAMSS", "FROD", "SHIRA"}
"""Methods that look at the base's weights to find out what they add to them."""
_WRAPPED = "base_model.model."
_INSTEAD = "Set adapter=lora, or another method that changes layers, such as peft.IA3Config"
_SHARED = "(Model with|Model has|Input and output embeddings are).*tie"
"""What peft says of adapters on one of two layers that share their weights."""
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
            ConfigError: peft has no such field, or refuses what it shall be.
        """
        from peft import LoraConfig

        known = {f.name for f in fields(LoraConfig)}
        if unknown := sorted(self.config.keys() - known):
            raise ConfigError(f"adapter.config.{unknown[0]}: peft's LoraConfig has no such field")
        alpha: Any = self.alpha  # an int to peft's annotation, a factor in what it computes
        with refusing(lambda reason: f"adapter.config: peft's LoraConfig refuses it: {reason}"):
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
        The model as peft has it, which can merge the adapter, and knows it by peft's names.

    Raises:
        ConfigError: peft is missing or refuses the combination, or what is learned would depend on
            how a batch is split, or not be in the model.
    """
    _require_peft()
    config: Any = adapter.peft_config() if isinstance(adapter, Lora) else adapter
    _check(config, "adapter.config" if isinstance(adapter, Lora) else "adapter")
    _fit(config, model, head)
    still = frozen_layers(model)
    without_weights = any(parameter.is_meta for parameter in model.parameters())
    if not without_weights:
        cast(Any, model).adapted_base = content_hash(model)
        if isinstance(adapter, Lora) and adapter.quantize:
            quantize(model, whole=cast(Any, config).modules_to_save or ())
    if without_weights and config.peft_type in _OF_WEIGHTS:
        draw = torch.Generator().manual_seed(0)  # any weights, the same at each call
        _exchange(model, lambda old: torch.empty_like(old, device="cpu").normal_(generator=draw))
    own = set(map(id, model.parameters()))
    state = np.random.SeedSequence((seed, _STREAM)).generate_state(1, np.uint64)
    # Several methods compute with what they draw, which torch cannot where nothing has memory.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(state[0]))
        with refusing(lambda reason: _not_put(reason, config, model)):
            tuner = _wrapped(model, config)
    _check_trained(model, tuner)
    keep_frozen(model, still)
    cast(Any, model).changed_base = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) in own
    }
    if without_weights:
        _exchange(model, lambda old: old.to("meta"))
    return tuner


def _exchange(model: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Put other tensors in the place of parameters; what layers share, they share again."""
    made: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False, remove_duplicate=False):
            if old not in made:
                made[old] = nn.Parameter(make(old.detach()), requires_grad=old.requires_grad)
            setattr(module, name, made[old])


def _wrapped(model: PreTrainedModel, config: Any) -> Any:
    """A model as peft has it, with an adapter that it puts in."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", _SHARED)  # `_separate`
        return cast(Any, PeftModel)(model, config)


def _not_put(reason: str, config: Any, model: PreTrainedModel) -> str:
    hint = (
        " Set adapter.target_modules, such as to all-linear" if "target_modules" in reason else ""
    )
    name = type(config).__name__
    return f"adapter: peft cannot put {name} into {type(model).__name__}: {reason}{hint}"


def _check_trained(model: PreTrainedModel, tuner: Any) -> None:
    """Refuse an adapter of which nothing, or not all, is trained with the model."""
    name = type(tuner.peft_config["default"]).__name__
    within = set(map(id, model.parameters()))
    trained = [parameter for parameter in tuner.parameters() if parameter.requires_grad]
    if not all(id(parameter) in within for parameter in trained):
        raise ConfigError(
            f"adapter: {name} is not supported, as it trains a network beside the model. {_INSTEAD}"
        )
    if not any(parameter.numel() for parameter in trained):
        raise ConfigError(f"adapter: {name} trains nothing as it is. Say what it shall train")


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

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.task_type == _TASK_TYPES["classifier"]:
        raise ConfigError(
            f"model.name_or_path: {folder} is an adapter of a classifier, and does not name its "
            "classes. Name a folder with the whole model (truesweep export --merge)"
        )
    tuner = _wrapped(model, config)
    loaded: Any = set_peft_model_state_dict(tuner, load_peft_weights(str(folder), device="cpu"))
    # Those of peft's own shell around the model, it may draw again in place of reading them.
    if unused := [name for name in loaded.unexpected_keys if name.startswith(_WRAPPED)]:
        raise ConfigError(
            f"model.name_or_path: {folder} does not go with its base, which has nothing that "
            f"{unused[0].removeprefix(_WRAPPED)} could be added to"
        )
    _merged(tuner, f"model.name_or_path={folder}", "Load it by peft itself")
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
    return _merged(tuner, "--merge", "Export the adapter by itself")


def _merged(tuner: Any, asked: str, instead: str) -> PreTrainedModel:
    name = type(tuner.peft_config["default"]).__name__
    _separate(tuner)
    with (
        refusing(lambda reason: f"{asked}: peft cannot merge {name}: {reason} {instead}"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", _SHARED)
        found: PreTrainedModel = tuner.merge_and_unload(safe_merge=True)
    return found


def _separate(tuner: Any) -> None:
    """Let layers that share the weights of one with an adapter have copies of their own.

    What is added to one is not to the others. All of them stand in what is saved, and transformers
    ties none that differ there.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m.get_base_layer() for m in tuner.modules() if isinstance(m, BaseTunerLayer)]
    adapted = {id(_own_weight(layer)) for layer in layers} - {id(None)}
    holders = [module for module in tuner.modules() if id(_own_weight(module)) in adapted]
    held = Counter(id(_own_weight(module)) for module in holders)
    for module in holders:
        if held[id(_own_weight(module))] > 1:
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)


def _own_weight(module: nn.Module) -> Any:
    """The parameter that is a module's itself; that of a layer of peft's is the one it wraps."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False)).get("weight")


def _unquantized(model: PreTrainedModel, tuner: Any) -> Any:
    """The tuner of the same adapter beside the weights that the quantised ones stand for."""
    config = tuner.peft_config["default"]
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    tuner.unload()
    vars(model).pop("peft_config", None)
    dequantize(model)
    anew = _wrapped(model, config)
    model.load_state_dict(trained, strict=False)
    return anew


def _check(given: Any, key: str) -> None:
    """Refuse what peft has and cannot be here.

    Args:
        given: What is to be a configuration of peft.
        key: Where its fields stand.
    """
    from peft import PeftConfig

    config, name = given, type(given).__name__
    if not isinstance(given, PeftConfig) or config.peft_type is None:
        raise ConfigError(f"adapter: {name} is no method of peft. {_INSTEAD}")
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ConfigError(
            f"adapter: {name} is not supported, as it adds to what a model reads. {_INSTEAD}"
        )
    if reason := _REFUSED.get(config.peft_type):
        raise ConfigError(f"adapter: {name} is not supported, as it {reason}. {_INSTEAD}")
    for field_name, value in vars(config).items():
        if field_name.endswith("dropout") and field_name not in _BY_SAMPLE and value:
            raise ConfigError(
                f"adapter.{field_name}={value}: what is dropped would depend on how a batch is "
                f"split. Set adapter.{field_name}=0"
            )
        if value and (reason := _REFUSED_FIELDS.get(field_name)):
            raise ConfigError(f"{key}.{field_name} is not supported, as it {reason}. Remove it")
    if config.peft_type == "ADAMSS" and not hasattr(config, "random_seed"):
        raise ConfigError(
            f"adapter: {name} of this version of peft has other parts wherever it is loaded. "
            "Install a later one"
        )
    if config.peft_type == "DEFT" and config.init_weights and config.decomposition_method == "relu":
        raise ConfigError(
            f"{key}.decomposition_method=relu is not supported, as half of the first gradients are "
            f"rounding alone, by how a batch is split. Set {key}.decomposition_method=qr"
        )
    start = getattr(config, "init_lora_weights", None)
    for beginning, reason in _REFUSED_INITS.items():
        if isinstance(start, str) and start.startswith(beginning):
            raise ConfigError(
                f"{key}.init_lora_weights={start} is not supported, as it {reason}. Set it to "
                "true, gaussian or orthogonal"
            )


def _fit(config: Any, model: PreTrainedModel, head: Head) -> None:
    """Set what follows from the model and its task."""
    config.task_type = _TASK_TYPES.get(head)
    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    if head != "classifier":
        return
    if not hasattr(config, "modules_to_save"):
        raise ConfigError(
            f"adapter: {type(config).__name__} leaves no other layers to be trained, as those of a "
            f"classifier are. {_INSTEAD}"
        )
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
    changed = _changed(model)
    now = [parameter.data for parameter, _ in changed]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        for parameter, before in changed:
            parameter.data = before.to(parameter.data)
        yield
    finally:
        for (parameter, _), data in zip(changed, now, strict=True):
            parameter.data = data
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, learns in trained:
            parameter.requires_grad_(learns)


def _changed(model: PreTrainedModel) -> list[tuple[Tensor, Tensor]]:
    """What is trained of the base's own, such as biases if peft is asked to; and what it was."""
    before: dict[str, Tensor] = getattr(model, "changed_base", {})
    named = dict(model.named_parameters())
    return [(named[name], value) for name, value in before.items()]


def is_wrapper(module: nn.Module) -> bool:
    """Whether a module is peft's, around one of the base's."""
    return type(module).__module__.partition(".")[0] == "peft"


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
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    base = {prefix + name for name in {*model.state_dict(), *learns} if not learns.get(name)}
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


def save_adapter(tuner: Any, folder: Any, base: str | None) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads.

    Args:
        tuner: As `add_adapter` gives it.
        folder: Exists.
        base: What the folder calls the base model.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = tuner.peft_config["default"]
    config.base_model_name_or_path = base
    state = get_peft_model_state_dict(tuner, save_embedding_layers=False)
    save_file(
        # Copies: what layers share, the file has for each.
        {name: t.contiguous().clone() for name, t in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    inference, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = inference
