"""`_target_`: which classes and functions a configuration may name, and building what it does.

An allow list, on the module of the object that a name resolves to: a re-export, such as an `os`
imported by an allowed module, opens nothing (lists of forbidden names always lack one).
"""

import inspect
import pkgutil
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from traceback import extract_tb
from types import ModuleType
from typing import Any

from truesweep.config.types import schema_of
from truesweep.errors import ConfigError, UserError, did_you_mean, missing_package
from truesweep.secrets import is_reference, reveal, scrub

TARGET = "_target_"
NODES = "NODES"
"""What a target calls its mapping of parameters that hold nodes by name to a class.

The owner gets an instance of that class for each node: with the parameters that it has itself, and,
as `make`, what builds what the node describes. The class names the `TARGET` of a node that names
none, and as `SHARED` the parameters that the owner passes to `make`.
"""
MAKE = "make"

# By package, the modules whose classes do nothing but compute or record; none: all of them.
MODULES = {
    "truesweep": (
        "callbacks",
        "data",
        "jobs.trainer",
        "metrics",
        "models",
        "optim",
        "record.wandb",
        "tasks",
    ),
    "torch": ("optim", "nn"),
    "torchmetrics": (),
    "pytorch_lightning": ("callbacks", "loggers", "strategies", "profilers", "plugins"),
    # Where pytorch_lightning's strategies and plugins are defined in part.
    "lightning_fabric": ("strategies", "plugins"),
    "transformers": (),
    "peft": (),
}
# Some of transformers' other classes unpickle what they are given.
_TRANSFORMERS_BASES = {"PreTrainedConfig", "PretrainedConfig", "PreTrainedModel", "Optimizer"}


def resolve(target: object, allowed_packages: Collection[str] = ()) -> Callable[..., Any]:
    """Resolve a dotted name to an allowed class or factory function.

    Args:
        target: Such as `torch.optim.AdamW`.
        allowed_packages: Top-level packages that are allowed besides those in `MODULES`.

    Raises:
        ConfigError: The name is none, does not exist or is not allowed.
    """
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"expected a dotted name such as torch.optim.AdamW, found {target!r}")
    # Importing runs code, so the written name is judged before the object it resolves to.
    _require_allowed(target.split(".")[0], target, allowed_packages)
    module_name, _, name = target.rpartition(".")
    module = _import(module_name)
    if not hasattr(module, name):
        hint = did_you_mean(name, sorted(_public(module)))
        raise ConfigError(f"{module_name} has no {name}{hint}")
    found: Callable[..., Any] = getattr(module, name)
    _judge(found, target, allowed_packages)
    return found


def _require_allowed(package: str, target: str, allowed_packages: Collection[str]) -> None:
    if package in sys.stdlib_module_names:
        raise ConfigError(f"{target} is not allowed: no _target_ may be in the standard library")
    if package not in MODULES and package not in allowed_packages:
        raise ConfigError(
            f"{target} is not allowed: package {package} is not among {', '.join(MODULES)}. "
            f"If you trust it, add it: 'allowed_packages=[{package}]'"
        )


def _judge(found: object, target: str, allowed_packages: Collection[str]) -> None:
    module = getattr(found, "__module__", None)
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not isinstance(module, str):
        raise ConfigError(f"{target} is not allowed: it is neither a class nor a function")
    package = module.split(".")[0]
    _require_allowed(package, target, allowed_packages)
    modules = [f"{package}.{name}" for name in MODULES.get(package, ())]
    if modules and not any(f"{module}.".startswith(f"{allowed}.") for allowed in modules):
        raise ConfigError(f"{target} is not allowed: of {package} only {', '.join(modules)} are")
    if inspect.isfunction(found) and package in MODULES and package != "truesweep":
        raise ConfigError(f"{target} is not allowed: of {package} only classes are")
    if inspect.isfunction(found) and found.__annotations__.get("return", "") in (None, "None"):
        raise ConfigError(f"{target} is not allowed: it returns nothing that could be used")
    if package == "transformers" and not _TRANSFORMERS_BASES & _base_names(found):
        raise ConfigError(f"{target} is not allowed: of transformers only models and configs are")
    if package == "peft" and "PeftConfig" not in _base_names(found):
        raise ConfigError(f"{target} is not allowed: of peft only configurations of methods are")


def _base_names(cls: object) -> set[str]:
    return {base.__name__ for base in inspect.getmro(cls)} if inspect.isclass(cls) else set()


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):
            package = missing.partition(".")[0]
            raise ConfigError(
                f"{name} needs the package {package}; type pip install {package}"
            ) from None
        raise ConfigError(_no_module(missing)) from None
    except UserError:
        raise
    except Exception as error:  # whatever a module of the user's own raises
        if isinstance(error, ImportError | SyntaxError):  # which name their place
            raise ConfigError(f"{name} cannot be imported: {error}") from error
        last = extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        raise ConfigError(f"{name} cannot be imported: {reason}") from error


def _no_module(name: str) -> str:
    parent_name, _, leaf = name.rpartition(".")
    if not parent_name:
        install = f"; type pip install {name}" if name in MODULES else ""
        return f"no package {name} is installed{install}"
    parent = import_module(parent_name)
    if hasattr(parent, leaf):
        return f"{name} is not allowed: it is no module, so nothing inside it can be named"
    return f"{parent_name} has no {leaf}{did_you_mean(leaf, sorted(_public(parent)))}"


def _public(module: ModuleType) -> set[str]:
    inside = {item.name for item in pkgutil.iter_modules(getattr(module, "__path__", None) or [])}
    return {name for name in inside | set(dir(module)) if not name.startswith("_")}


def instantiate(
    node: Any, key: str = "", allowed_packages: Collection[str] = (), /, **supplied: Any
) -> Any:
    """Build what a node describes, the nodes inside it first.

    Secrets are read from the environment here and nowhere earlier; lists become tuples and text
    paths where the target's annotation asks for it.

    Args:
        node: A node with a `_target_`, a mapping or list of such nodes, or null, which stays None.
        key: The node's dotted key, for messages.
        allowed_packages: As `config["allowed_packages"]`.
        **supplied: Further arguments for this node's target, passed as they are.

    Raises:
        ConfigError: A target is not allowed, a secret is missing, or a constructor failed.
    """
    if isinstance(node, list):
        return [
            instantiate(item, f"{key}[{index}]", allowed_packages)
            for index, item in enumerate(node)
        ]
    if not isinstance(node, Mapping):
        return reveal(node, key)
    if TARGET not in node:
        return {
            name: instantiate(item, f"{key}.{name}".lstrip("."), allowed_packages)
            for name, item in node.items()
        }
    name = key or str(node[TARGET])
    try:
        target = resolve(node[TARGET], allowed_packages)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    owned = getattr(target, NODES, {})
    plain = {k: v for k, v in node.items() if k != TARGET and k not in owned}
    built = instantiate(plain, key, allowed_packages)
    for one in owned.keys() & node.keys():
        built[one] = _owned(owned[one], node[one], f"{key}.{one}".lstrip("."), allowed_packages)
    try:
        return target(**_converted(target, plain, built), **supplied)
    except UserError as error:
        named = str(error).startswith(tuple(f"{name}.{argument}" for argument in node))
        raise type(error)(str(error) if named else f"{name}: {error}") from error
    except Exception as error:
        if package := missing_package(error):
            raise ConfigError(
                f"{name}: {node[TARGET]} needs the package {package}; type pip install {package}"
            ) from None
        reason = scrub(f"{type(error).__name__}: {error}", node)
        raise ConfigError(f"{name}: {node[TARGET]} cannot be built ({reason})") from error


def _owned(
    part: Any, nodes: Mapping[str, Any], key: str, allowed_packages: Collection[str]
) -> dict[str, Any]:
    """What a target gets of nodes that it builds itself, by name; see `NODES`."""
    own, made = schema_of(part, frozenset({MAKE})).parameters, {}
    for name, node in nodes.items():
        plain = {k: v for k, v in node.items() if k != TARGET}
        built = instantiate(plain, f"{key}.{name}", allowed_packages)
        target = resolve(node.get(TARGET, part.TARGET), allowed_packages)
        of_part = {k: v for k, v in built.items() if k in own}
        of_target = {k: v for k, v in built.items() if k not in own}
        make = partial(target, **_converted(target, plain, of_target))
        made[name] = part(make=make, **_converted(part, plain, of_part))
    return made


def _converted(
    target: Callable[..., Any], node: Mapping[str, Any], built: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments with plain values as the annotations want them.

    Raises:
        ConfigError: A value does not fit.
    """
    schema = schema_of(target)
    plain = {
        name: node[name]
        for name in built.keys() & schema.parameters.keys() & node.keys()
        if not (holds_node(node[name]) or is_reference(node[name]))
        and node[name] != schema.parameters[name].default
    }
    fit = schema.fit(plain)
    if fit.wrong:
        raise ConfigError("; ".join(f"{name}: {text}" for name, text in fit.wrong.items()))
    return {**built, **fit.values}


def holds_node(value: Any) -> bool:
    """Whether a value is, or contains, a node with a `_target_`."""
    if isinstance(value, Mapping):
        return TARGET in value or any(holds_node(item) for item in value.values())
    return isinstance(value, list) and any(holds_node(item) for item in value)
