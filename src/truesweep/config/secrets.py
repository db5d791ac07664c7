"""Interpolations resolved, and secrets kept out of what comes of it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import Node, OmegaConf
from omegaconf.resolvers import oc

from truesweep.compat import full_key, replace_resolver
from truesweep.dotted import map_leaves
from truesweep.secrets import REFERENCE, is_secret, reveal

PREFIX = "TRUESWEEP_SECRET_"

# Stands for a reference while OmegaConf resolves the rest; it cannot occur in YAML.
_MARK = re.compile("\0([^\0]+)\0")
_ABSENT = object()


def resolve_keeping_secrets(config: dict[str, Any], only: str | None = None) -> dict[str, Any]:
    """Resolve OmegaConf's interpolations, except that secrets become `${oc.env:NAME}`.

    A secret that is written out is moved into this process's environment, as
    `TRUESWEEP_SECRET_<KEY>`, which the processes of a job inherit.

    Args:
        config: A plain nested dict.
        only: The one of its nodes that is wanted, by itself in what is returned.
    """
    tree = OmegaConf.create(map_leaves(config, _hide_literal))
    with _marking_secrets():
        if only is None:
            resolved = OmegaConf.to_container(tree, resolve=True)
        else:
            node = tree[only]
            composed = OmegaConf.is_config(node)
            resolved = {only: OmegaConf.to_container(node, resolve=True) if composed else node}
    plain = map_leaves(resolved, lambda _key, value: _unmark(value))
    result = map_leaves(plain, _hide_rest)
    assert isinstance(result, dict)
    return result


def _hide_literal(key: str, value: Any) -> Any:
    literal = isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)
    if not literal or isinstance(value, bool) or value in ("", "???") or not is_secret(key):
        return value
    return _stash(key, str(value))


def _hide_rest(key: str, value: Any) -> Any:
    """Hide what only became a literal by interpolation, as in `Bearer ${oc.env:TOKEN}`."""
    if not isinstance(value, str) or not is_secret(key) or REFERENCE.fullmatch(value):
        return value
    return _stash(key, reveal(value, key)) if value else value


def _stash(key: str, secret: str) -> str:
    name = PREFIX + re.sub(r"\W+", "_", key).strip("_").upper()
    os.environ[name] = secret
    return f"${{oc.env:{name}}}"


def _unmark(value: Any) -> Any:
    return _MARK.sub(r"${oc.env:\1}", value) if isinstance(value, str) else value


@contextmanager
def _marking_secrets() -> Iterator[None]:
    """Let `oc.env` answer with a mark where the key or the variable's name is secret.

    OmegaConf's resolvers are global, and so is this for as long as it lasts.
    """

    def env(name: str, default: Any = _ABSENT, *, _node_: Node) -> Any:
        if not (is_secret(name) or is_secret(full_key(_node_))):
            return oc.env(name) if default is _ABSENT else oc.env(name, default)
        if name in os.environ or default is _ABSENT:
            return f"\0{name}\0"
        return REFERENCE.sub("\0\\1\0", _stash(name, str(default))) if default else default

    replace_resolver("oc.env", env)
    try:
        yield
    finally:
        replace_resolver("oc.env", oc.env)
