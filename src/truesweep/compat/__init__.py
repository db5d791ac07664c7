"""What is taken from the insides of other packages, and the versions that this was tried with.

A name with an underscore may change with any release. Each function here hides one or a few of
them, and says in which versions they were seen; `tests/test_compat.py` holds the rest of the
project to public names. `steps` has what makes Lightning's training steps shorter. Importing this
package imports none of the others.
"""

import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.default_element import ResultDefault
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig, Node
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Muon, Optimizer
    from torch.utils.data import DataLoader
    from torchmetrics import Metric
    from transformers import PreTrainedConfig, PreTrainedModel
    from wandb_workspaces.workspaces import Workspace

    Metrics = TypeVar("Metrics", bound=type[Metric])

TRIED = {
    "torch": ("2.13.0", "2.13.0"),
    "pytorch-lightning": ("2.6.6", "2.6.6"),
    "torchmetrics": ("1.8.0", "1.9.0"),
    "transformers": ("5.18.0", "5.24.0"),
    "sacrebleu": ("2.4.0", "2.6.0"),
    "hydra-core": ("1.3.8", "1.4.0rc3"),
    "omegaconf": ("2.3.0", "2.4.1rc1"),
    "optuna": ("4.0.0", "5.0.0"),
}
"""The lowest and the highest version that the tests ran with, of each package whose insides numbers
or searches rest on: dropout by sample stands in for torch's in transformers' models, resumes count
by Lightning's loops, and so on. `make test-lowest`, `test-newest` and `test-prerelease` run them.
"""


def is_tried(name: str) -> bool:
    """Whether the installed version of one of the packages in `TRIED` is among those."""
    from packaging.version import Version

    low, high = TRIED[name]
    public = Version(Version(metadata.version(name)).public)  # 2.13.0+cpu is 2.13.0
    return Version(low) <= public <= Version(high)


def untried() -> list[str]:
    """Installed packages outside of `TRIED`, each with its version and those that were tried."""
    return [
        f"{name} {metadata.version(name)} (tried: {low if low == high else f'{low} to {high}'})"
        for name, (low, high) in TRIED.items()
        if not is_tried(name)
    ]


def untried_sentence() -> list[str]:
    """One sentence for the user if any package is outside of `TRIED`, and none otherwise."""
    if not (found := untried()):
        return []
    insides = "insides of such packages" if len(found) > 1 else "insides of that package"
    return [
        f"truesweep was not tried with {', '.join(found)}, and exact numbers rest on the "
        f"{insides}; after training, truesweep verify shows whether they hold"
    ]


# Hydra and OmegaConf


def config_loader(roots: Sequence[Path], several: Collection[str] = ()) -> "ConfigLoader":
    """What composes configurations from folders; an earlier one is looked into first.

    Not `hydra.compose`, which is bound to a global and cannot put a folder before the main one.

    Args:
        roots: The folders.
        several: Groups of which several options may be chosen at once, as in `logger=[a,b]`. Each
            then has a node of its own, `logger.a` and `logger.b`; Hydra would merge them into one.
            So has one beside which an override adds another, by `logger.mine._target_=…`.
    """
    import hydra.version
    from hydra._internal.config_loader_impl import ConfigLoaderImpl  # hydra-core 1.3.8, 1.4.0rc3
    from hydra._internal.utils import create_config_search_path  # hydra-core 1.3.8, 1.4.0rc3
    from hydra.core.config_search_path import SearchPathQuery

    if hydra.__version__.startswith("1.3."):  # from 1.4 on there is one base, and naming it warns
        hydra.version.setbase("1.3")
    path = create_config_search_path(str(roots[-1]))
    for root in roots[:-1]:
        path.prepend("user", str(root), anchor=SearchPathQuery(provider="main", path=None))

    class Loader(ConfigLoaderImpl):
        def compute_defaults_list(
            self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
        ) -> Any:
            found = super().compute_defaults_list(config_name, overrides, *args, **kwargs)
            found.defaults = _apart(found.defaults, several, overrides)
            return found

        def load_configuration(
            self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
        ) -> "DictConfig":
            self.asked = overrides
            return super().load_configuration(config_name, overrides, *args, **kwargs)

        def _compose_config_from_defaults_list(
            self, defaults: "list[ResultDefault]", *args: Any, **kwargs: Any
        ) -> "DictConfig":
            return super()._compose_config_from_defaults_list(  # hydra-core 1.3.8, 1.4.0rc3
                _apart(defaults, several, self.asked), *args, **kwargs
            )

    return Loader(path)


def _apart(
    defaults: "Sequence[ResultDefault]", groups: Collection[str], overrides: Sequence[str]
) -> "list[ResultDefault]":
    """The same options, each at a node of its own where several of one group are chosen.

    Or where an override adds one: `logger.mine._target_=…` stands beside a single option, too.
    """
    options = {(default.package, _option(default)) for default in defaults}
    chosen = Counter(group for group, option in options if group in groups and option)
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    for group in groups:
        if f"{group}._target_" not in keys:
            chosen[group] += any(re.fullmatch(rf"{group}\.\w+\._target_", key) for key in keys)
    return [
        replace(default, package=f"{default.package}.{_option(default)}")
        if chosen[default.package] > 1 and _option(default)
        else default
        for default in defaults
    ]


def _option(default: "ResultDefault") -> str:
    """The name of an option as a key; empty for a file that is no option of its package's group."""
    group, _, name = str(default.config_path).partition("/")
    return re.sub(r"\W", "_", name) if group == default.package else ""


def no_callbacks() -> Any:
    """Hydra's callbacks where there are none, as the context of its plugins wants them."""
    from hydra._internal.callbacks import Callbacks  # hydra-core 1.3.8, 1.4.0rc3

    return Callbacks()


def parsed_value(override: "Override") -> Any:
    """The right side of an override as it was parsed; `value()` takes a glob for an element."""
    return override._value  # hydra-core 1.3.8, 1.4.0rc3


def plain_value(parsed: Any) -> Any:
    """A part of a parsed value, with text in place of quoted text."""
    from hydra.core.override_parser.types import Override

    return Override._convert_value(parsed)  # hydra-core 1.3.8, 1.4.0rc3


def full_key(node: "Node") -> str:
    """The dotted key of a node in its configuration."""
    return str(node._get_full_key(None))  # omegaconf 2.3.0, 2.3.1, 2.4.1rc1


def replace_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Register what `${name:…}` calls, in place of what was registered.

    The name that this has from OmegaConf 2.4 on meant something else until then.
    """
    from omegaconf import OmegaConf, __version__

    before = __version__.startswith(("2.2.", "2.3."))
    register = OmegaConf.register_new_resolver if before else OmegaConf.register_resolver
    register(name, resolver, replace=True)  # type: ignore[call-arg]


# Lightning and torchmetrics


def steps_done(trainer: "pl.Trainer") -> int:
    """Optimizer steps so far, as one batch is one step; Lightning saves the count.

    The names are public, the way along the loops is none that Lightning documents.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress  # pytorch-lightning 2.6.6
    return int(progress.total.processed)  # type: ignore[attr-defined]


@contextmanager
def within_a_step(trainer: "pl.Trainer") -> Iterator[None]:
    """Leave what Lightning's logging knows of a training step as it is, whatever runs within."""
    connector = trainer._logger_connector  # pytorch-lightning 2.6.6
    first = connector._first_loop_iter  # pytorch-lightning 2.6.6
    try:
        yield
    finally:
        connector._first_loop_iter = first


def leave_signals(trainer: "pl.Trainer") -> None:
    """Have a trainer leave the handlers of signals as they are.

    By itself it takes over SIGTERM until a training begins and in evaluations, and sends it to all
    ranks from within the handler: a rank that is told alone waits there for those that are not.
    """
    connector: Any = trainer._signal_connector  # pytorch-lightning 2.6.6
    connector.register_signal_handlers = lambda: None  # pytorch-lightning 2.6.6


class AroundLoader:
    """A loader around torch's, whose workers Lightning ends as it ends those of torch's.

    Args:
        loader: torch's.
    """

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self.loader = loader

    @property
    def _iterator(self) -> Any:  # where pytorch-lightning 2.6.6 looks for workers
        return self.loader._iterator  # torch 2.13.0

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self.loader._iterator = iterator


def keep_types(metric: "Metrics") -> "Metrics":
    """Have a class of metrics follow its model to a device, and never to a type.

    torchmetrics guards its states against `metric.half()`, not against that of a whole model.
    """
    apply = metric._apply  # torch 2.13.0, torchmetrics 1.8.0, 1.9.0

    def _apply(self: Any, fn: Callable[["Tensor"], "Tensor"], *args: Any, **kwargs: Any) -> Any:
        def move(state: "Tensor") -> "Tensor":
            return state.to(fn(state.new_empty(0)).device)

        return apply(self, move, *args, **kwargs)

    metric._apply = _apply  # type: ignore[method-assign]
    return metric


def forget_value(metric: "Metric") -> None:
    """Have a metric compute its value anew, as torchmetrics does around `update`."""
    metric._computed = None  # torchmetrics 1.8.0, 1.9.0


# torch


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context whose tensors have a shape and no memory; what they cannot do is raised only."""
    from torch._subclasses import fake_tensor  # torch 2.13.0

    log = logging.getLogger(fake_tensor.__name__)
    quiet, log.disabled = log.disabled, True  # it prints a traceback before it raises the same
    try:
        with fake_tensor.FakeTensorMode():
            yield
    finally:
        log.disabled = quiet


def bf16_of_cpu() -> str | None:
    """What this processor multiplies bf16 with; None: it has nothing, and torch imitates it."""
    import torch

    if torch.cpu._is_amx_tile_supported():  # torch 2.13.0
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None  # torch 2.13.0


def foreach(operation: str) -> Callable[..., Any]:
    """An operation such as `lerp_` on lists of tensors at once, as torch's optimizers use it."""
    import torch

    function: Callable[..., Any] = getattr(torch, f"_foreach_{operation}")  # torch 2.13.0
    return function


def muon_states(
    optimizer: "Muon", group: dict[str, Any]
) -> tuple[list["Tensor"], list["Tensor"], list["Tensor"]]:
    """A group's parameters that have gradients, these, and their momenta, made where missing."""
    params: list[Tensor] = []
    grads: list[Tensor] = []
    momenta: list[Tensor] = []
    optimizer._init_group(group, params, grads, momenta)  # torch 2.13.0
    return params, grads, momenta


def muon_rate(group: dict[str, Any], shape: Sequence[int]) -> float:
    """The learning rate that Muon takes for a matrix of a shape."""
    import torch
    from torch.optim._muon import _adjust_lr  # torch 2.13.0

    return _adjust_lr(group["lr"], group["adjust_lr_fn"], torch.Size(shape))


def unscale_before_step(optimizer: "Optimizer") -> None:
    """Have gradients of 16-mixed precision brought back to their size before they are clipped.

    A fused optimizer does it by itself, within its step, for which a scaler leaves it to it.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # torch 2.13.0


def watch_compiler(started: Callable[[], None], ended: Callable[[], None]) -> Callable[[], None]:
    """Have functions called whenever torch begins and ends to compile, on whatever thread.

    What the first one raises keeps the compilation from beginning.

    Returns:
        Undoes it.
    """
    from torch._dynamo.callback import callback_handler  # torch 2.13.0

    start = callback_handler.register_start_callback(lambda _: started())
    end = callback_handler.register_end_callback(lambda _: ended())

    def stop() -> None:
        callback_handler.remove_start_callback(start)
        callback_handler.remove_end_callback(end)

    return stop


def drop_compilations() -> None:
    """Forget what torch's threads have still to compile: the end of this process waits for them."""
    compiler: Any = sys.modules.get("torch._inductor.async_compile")  # torch 2.13.0
    if compiler is None or not compiler.AsyncCompile.pool.cache_info().currsize:
        return
    compiler.AsyncCompile.pool().shutdown(wait=False, cancel_futures=True)
    compiler.AsyncCompile.pool.cache_clear()


@contextmanager
def before_each_draw(call: Callable[["Tensor | None", Callable[[], Any]], None]) -> Iterator[None]:
    """A context in which a function is called before torch draws random numbers.

    It is given the tensor that is drawn into, None where a new one is drawn, and what draws again.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode  # torch 2.13.0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            draw = partial(func, *args, **(kwargs or {}))
            if torch.Tag.nondeterministic_seeded in func.tags:
                call(args[0] if args and isinstance(args[0], torch.Tensor) else None, draw)
            return draw()

    with Watch():
        yield


def may_raise(frame: FrameType) -> bool:
    """Whether what a signal's handler raises in a frame comes to whoever catches it.

    Where torch's C++ has called Python, as for the shape of a tensor that its compiler only
    imagines, that may be from a function that lets no error pass: it ends the process.
    """
    torch = sys.modules.get("torch")
    if torch is None or torch.__file__ is None:
        return True
    root = f"{Path(torch.__file__).parent}{os.sep}"
    current: FrameType | None = frame
    while current is not None:
        code = current.f_code
        inside = code.co_filename.removeprefix(root) if code.co_filename.startswith(root) else ""
        if code.co_name in _CALLED_BY_CPP or inside.startswith(_FOR_CPP):
            return False
        current = current.f_back
    return True


_CALLED_BY_CPP = ("__torch_dispatch__", "__torch_function__", "__del__")
"""Functions that C++, or the interpreter, calls and does not expect to be left."""
_FOR_CPP = (  # torch 2.13.0
    "_decomp/",
    "_higher_order_ops/",
    "_library/",
    "_meta_registrations.py",
    "_ops.py",
    "_prims/",
    "_prims_common/",
    "_refs/",
    "_subclasses/",
    "fx/experimental/recording.py",
    "fx/experimental/sym_node.py",
    "fx/experimental/symbolic_shapes.py",
    "utils/_python_dispatch.py",
    "utils/weak.py",
)
"""Where such functions lie, within torch."""


def is_of_compiler(error: BaseException) -> bool:
    """Whether an error is one of torch's compiler's."""
    module = type(error).__module__
    return module.startswith(("torch._dynamo.", "torch._inductor.", "triton."))  # torch 2.13.0


def cpp_compilers() -> list[str]:
    """The names of the C++ compilers that torch looks for when it compiles for a CPU."""
    from torch._inductor import config  # torch 2.13.0

    asked = config.cpp.cxx
    names = asked if isinstance(asked, list | tuple) else [asked]
    return [name for name in names if name is not None]  # None: installed by conda, if allowed


def build_cpp(source: Path) -> Path:
    """Compile a file of C++ as torch compiles the code it generates for a CPU.

    Returns:
        The library, beside it.

    Raises:
        RuntimeError: With what the compiler says, or that there is none.
    """
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions  # torch 2.13.0
    from torch._inductor.cpu_vec_isa import invalid_vec_isa  # torch 2.13.0
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler  # torch 2.13.0

    try:
        builder = CppBuilder(
            name=source.stem,
            sources=str(source),
            BuildOption=CppTorchOptions(vec_isa=invalid_vec_isa),  # others are tried one by one
            output_dir=str(source.parent),
        )
        builder.build()
    except InvalidCxxCompiler:
        raise RuntimeError("it does not say its version") from None
    except CppCompileError as error:
        raise RuntimeError(error.output) from None
    return Path(builder.get_target_file_path())


def compiled_code() -> Path:
    """The folder in which torch keeps the code it has compiled."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # torch 2.13.0

    return Path(cache_dir())


# transformers


def attention(config: "PreTrainedConfig") -> str | None:
    """The name of the attention that a model uses."""
    name: str | None = config._attn_implementation  # transformers 5.10.1 to 5.24.0
    return name


def set_attention(config: "PreTrainedConfig", name: str) -> None:
    """Name the attention that a model made from this will use."""
    config._attn_implementation = name  # transformers 5.10.1 to 5.24.0


@contextmanager
def one_text_a_row() -> Iterator[None]:
    """A context in which models take each row that has no padding to be one text.

    Transformers looks at positions for that, also at those that it has made itself: a GPU is waited
    for, and where a model is compiled nobody can look. There it would make a mask, with which
    attention has none of its fastest kernels.
    """
    from transformers import masking_utils

    stand_ins: dict[str, Callable[..., Any]] = {
        "find_packed_sequence_indices": _none_are_packed,
        "is_torchdynamo_exporting": _not_exporting,  # torch 2.13 says yes while it compiles
    }
    with _standing_in(masking_utils, stand_ins):
        yield


@contextmanager
def padding_known(padded: bool) -> Iterator[None]:
    """A context in which models that are not compiled are told whether rows have padding.

    Transformers looks at the mask for that, in each forward pass, and a GPU is waited for. It does
    not where operations are traced.
    """
    from transformers import masking_utils

    def told(look: Callable[..., bool]) -> Callable[..., bool]:
        return lambda mask, *rest, **named: look(mask if padded else None, *rest, **named)

    looks = "_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"  # transformers 5.18.0
    stand_ins: dict[str, Callable[..., Any]] = {
        "is_tracing": lambda tensor=None: True,
        "fast_all": lambda mask: not padded,
        **{n: told(getattr(masking_utils, n)) for n in looks if hasattr(masking_utils, n)},
    }
    with _standing_in(masking_utils, stand_ins):
        yield


@contextmanager
def _standing_in(module: Any, stand_ins: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """A context in which a module or class has other functions, those that it has at all."""
    before = {name: getattr(module, name) for name in stand_ins if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, stand_ins[name])
        yield
    finally:
        for name, function in before.items():
            setattr(module, name, function)


def _none_are_packed(position_ids: Any) -> None:
    """Which text of its row each token belongs to, as transformers says that all are of one."""


def _not_exporting() -> bool:
    return False


@contextmanager
def weights_left_for_later() -> Iterator[None]:
    """A context in which transformers neither draws nor ties a new model's weights.

    What torch's own layers draw when they are made stays.
    """
    from transformers import PreTrainedModel

    with _standing_in(PreTrainedModel, {"init_weights": lambda self: None}):
        yield


@contextmanager
def before_each_module(call: Callable[["Module"], None]) -> Iterator[None]:
    """A context in which a function is called with each module of whose weights a model draws."""
    from transformers import PreTrainedModel

    draw: Any = PreTrainedModel._initialize_weights  # transformers 5.18.0 to 5.24.0

    def told(self: Any, module: "Module", *rest: Any, **named: Any) -> None:
        call(module)
        draw(self, module, *rest, **named)

    with _standing_in(PreTrainedModel, {"_initialize_weights": told}):
        yield


def kept_in_fp32(model: "PreTrainedModel") -> set[str]:
    """The names of modules that a model keeps in fp32, whatever the rest is in."""
    return set(model._keep_in_fp32_modules or ())  # transformers 5.18.0 to 5.24.0


def forgets_pad_row(model: "PreTrainedModel") -> bool:
    """Whether loading a model zeroes the output's weights for the token that pads.

    Some initialize that token's row again, by a view which does not know that it was loaded, and
    which is the output's where that shares the table.

    Args:
        model: Initialized anew wherever it would be when it is loaded, but for that row.
    """
    import torch

    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    pad = getattr(table, "padding_idx", None)
    if pad is None or output is None or output.weight is not table.weight:
        return False
    for parameter in model.parameters():
        marked: Any = parameter
        marked._is_hf_initialized = True  # transformers 5.18.0 to 5.24.0
    with torch.no_grad():
        row = table.weight[pad].clone()
        for module in model.modules():
            if module is table or table in module.children():
                model._init_weights(module)
        lost = not torch.equal(table.weight[pad], row)
        table.weight[pad] = row
    return lost


def checkpoint_layers(model: "PreTrainedModel", options: dict[str, Any]) -> None:
    """Have a model keep what its layers are given, and compute them once more.

    Its method is `gradient_checkpointing_enable` in transformers 5.18, and in 5.24
    `activation_checkpointing_enable`, where the other warns.

    Args:
        model: The model.
        options: What `torch.utils.checkpoint.checkpoint` is to be called with.

    Raises:
        ValueError: Its layers cannot be computed twice.
    """
    named = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    getattr(model, next(name for name in named if hasattr(model, name)))(options)


# sacreBLEU


def sentence_counts(
    metric: "BLEU | CHRF", predictions: Sequence[str], references: Sequence[str]
) -> list[list[int]]:
    """The counts of each sentence, one reference each, that add up to those of the corpus."""
    counts: list[list[int]] = metric._extract_corpus_statistics(  # sacrebleu 2.4.0, 2.6.0
        predictions, [references]
    )
    return counts


def corpus_score(metric: "BLEU | CHRF", counts: list[int]) -> float:
    """The score of a corpus with these counts, 0 to 100."""
    return float(metric._compute_score_from_stats(counts).score)  # sacrebleu 2.4.0, 2.6.0


# Optuna


def suggest(trial: "Trial", name: str, distribution: "BaseDistribution") -> None:
    """Have a trial choose a parameter from a distribution of any kind."""
    trial._suggest(name, distribution)  # optuna 4.0.0, 5.0.0


def storage_id(trial: "FrozenTrial") -> int:
    """The storage's name for a trial, which is not its number in its study."""
    return int(trial._trial_id)  # optuna 4.0.0, 5.0.0


def contains(distribution: "BaseDistribution", number: float) -> bool:
    """Whether a number is within its bounds, and on a step from the lower one."""
    return distribution._contains(number)  # optuna 4.0.0, 5.0.0


# W&B's workspaces


def workspace_view(workspace: "Workspace", name: str, group: str) -> dict[str, Any]:
    """What W&B keeps of a workspace, without the names that are drawn by chance.

    Args:
        workspace: The workspace, whose first filter is that by a group.
        name: What the server shall know it by, letters and digits.
        group: The group's name. The library writes filters as text and reads that again, by which
            `lr=1` becomes `lr==1` and `a<b` becomes `a<=b`.
    """
    workspace._internal_name = f"nw-{name}-v"  # wandb-workspaces 0.4.13
    workspace._internal_runset_id = f"{name}r"
    panels: list[Any] = [panel for section in workspace.sections for panel in section.panels]
    for number, panel in enumerate(panels):
        panel._id = f"{name}p{number}"
    view: Any = workspace._to_model()
    made: dict[str, Any] = view.model_dump(mode="json", by_alias=True, exclude_none=True)
    made["spec"]["section"]["runSets"][0]["filters"]["filters"][0]["value"] = group
    return made


def save_view(view: dict[str, Any]) -> dict[str, Any]:
    """Save a workspace with W&B, of the account's own entity unless it names one.

    Args:
        view: As `workspace_view` gives it.

    Returns:
        The same, with `entity`, the server's `id` and the workspace's `url` in it.
    """
    import wandb
    from wandb_workspaces._graphql import get_app_url  # wandb-workspaces 0.4.13
    from wandb_workspaces.workspaces.internal import View, upsert_view2

    api = wandb.Api()
    entity = view["entity"] or api.default_entity
    saved = upsert_view2(View.model_validate({**view, "entity": entity}))["upsertView"]["view"]
    name = saved["name"].removeprefix("nw-").removesuffix("-v")
    url = f"{get_app_url(api).rstrip('/')}/{entity}/{view['project']}?nw={name}"
    return {**view, "entity": entity, "name": saved["name"], "id": saved["id"], "url": url}


# submitit


def sbatch_script(command: str, folder: Path, options: dict[str, Any]) -> str:
    """A batch script that runs a command on each node of an allocation.

    Args:
        command: For a shell.
        folder: For what is said; `%a` is a job's number in its array.
        options: Of sbatch, and others of submitit's.
    """
    from submitit.slurm.slurm import _make_sbatch_string  # submitit 1.5.4

    return _make_sbatch_string(command=command, folder=folder, **options)


# ray


@cache
def keep_ray_off_output() -> None:
    """Have what Ray tells a driver, such as that a node has died, go to standard error.

    It is printed whatever `log_to_driver` says, and amid the JSON that a script reads.
    """
    from ray._private import worker

    tell = getattr(worker, "print_to_stdstream", None)  # Ray 2.60
    if tell is None:
        return

    def to_stderr(data: dict[str, Any], *given: Any, **named: Any) -> None:
        tell({**data, "is_err": True}, *given, **named)

    worker.print_to_stdstream = to_stderr


# multiprocessing


def fork_server_pid() -> int | None:
    """The process that `forkserver` forks from; None: it is not started yet."""
    from multiprocessing import forkserver

    server: Any = getattr(forkserver, "_forkserver", None)  # Python 3.11 to 3.14
    return server and server._forkserver_pid  # type: ignore[no-any-return]


def use_fork_server(pid: int, address: str, alive_fd: int) -> None:
    """Have `forkserver` fork from a process of ours, up to Python 3.13.

    Args:
        pid: The process, which runs `multiprocessing.forkserver.main`.
        address: The socket that it listens on.
        alive_fd: The end of a pipe; it leaves when that is closed.
    """
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver  # type: ignore[attr-defined]  # Python 3.11 to 3.13
    server._forkserver_pid = pid
    server._forkserver_address, server._forkserver_alive_fd = address, alive_fd
