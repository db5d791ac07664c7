"""Importing this module imports torch, Lightning and transformers, a sixth faster than by itself.

Python's garbage collector looks through all objects again and again while they pour in, and finds
nothing. What is there in the end is set apart, so that it is not looked through in training either.
"""

import gc
import os
from collections.abc import MutableMapping


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Have threads of OpenMP let go of a core that others want, unless the user says otherwise.

    Threads wait for each other by looking again and again: 300,000 times in the OpenMP of torch's
    Linux builds before they let the core go, to whatever else wants it, the other thread among it.
    With 3,000, a training alone is as fast within a hundredth; with 1,000 it would lose a sixteenth
    at steps of 20 ms. Beside busy processes `jobs/threads.py` has them look even less often.

    Args:
        environment: What OpenMP reads when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "3000")


spin_briefly(os.environ)
_was_enabled = gc.isenabled()
gc.disable()
try:
    import pytorch_lightning  # noqa: F401
    import transformers.modeling_utils  # noqa: F401
finally:
    if _was_enabled:
        gc.freeze()
        gc.enable()
