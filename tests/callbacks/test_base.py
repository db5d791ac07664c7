"""Callbacks of which Lightning calls in a step only what they have."""

from typing import Any

import pytest
import pytorch_lightning as pl

from truesweep.callbacks.base import IN_A_STEP, Callback


class Counts(Callback):
    """Has one hook of a step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Count."""
        self.steps += 1


def test_a_callback_has_of_a_step_only_the_hooks_that_are_its_own() -> None:
    callback = Counts()
    assert [hook for hook in IN_A_STEP if getattr(callback, hook)] == ["on_train_batch_end"]


@pytest.mark.parametrize("hook", IN_A_STEP)
def test_what_is_left_out_is_a_hook_of_lightnings(hook: str) -> None:
    assert callable(getattr(pl.Callback, hook))
