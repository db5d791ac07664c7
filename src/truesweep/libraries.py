"""Importing this module imports torch, Lightning and transformers, a sixth faster than by itself.

Python's garbage collector looks through all objects again and again while they pour in, and finds
nothing. What is there in the end is set apart, so that it is not looked through in training either.
"""

import gc

_was_enabled = gc.isenabled()
gc.disable()
try:
    import pytorch_lightning  # noqa: F401
    import transformers.modeling_utils  # noqa: F401
finally:
    if _was_enabled:
        gc.freeze()
        gc.enable()
