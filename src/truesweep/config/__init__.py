"""The configuration of a job: composed from files and overrides, checked, frozen, built."""

from truesweep.config.checks import check_across, contradictions
from truesweep.config.compose import Composed, compose
from truesweep.config.frozen import fingerprint, freeze, thaw
from truesweep.config.overrides import normalize
from truesweep.config.roots import shipped
from truesweep.config.schema import check
from truesweep.config.secrets import redact_argv, redact_overrides, reveal, scrub
from truesweep.config.targets import instantiate, resolve
from truesweep.errors import ConfigError

__all__ = [
    "Composed",
    "ConfigError",
    "check",
    "check_across",
    "compose",
    "contradictions",
    "fingerprint",
    "freeze",
    "instantiate",
    "normalize",
    "redact_argv",
    "redact_overrides",
    "resolve",
    "reveal",
    "scrub",
    "shipped",
    "thaw",
]
