"""How far two ways of computing the same may be apart, on any processor: what rounding explains."""

from collections.abc import Mapping

import torch
from torch import Tensor

FP64 = "trainer.precision=64-true"
"""The precision in which trainings are compared: what is no rounding then stands out."""
SAME = 1e-6
"""How far weights and losses of order 1 are apart after a dozen steps in fp64.

Sums in another order differ by 1e-16 of their terms. But transformers computes the norms and the
attention of some models in fp32 at any precision: where two ways come to either side of a rounding
there, one activation differs by 6e-8, and a gradient, which is a mean over a dozen tokens or more,
by 5e-9. Muon, and Adam where a gradient is nearly zero beside the terms it is summed from, make up
to 200 times as much of it (5e-8 was seen). Micro-batches that are averaged equally differ by 7e-4.
"""
SAME_NORM = 1e-7
"""How far the norms of a first gradient are apart, as a share: activations that differ by 6e-8 are
few. Optimizers forget most of a gradient's size, so that weights do not tell of a wrong one.
"""


def assert_rounded(
    found: Tensor, exact: Tensor, terms: Tensor | float, *, ulps: float, dtype: torch.dtype
) -> None:
    """Assert that `found` is `exact` but for so many units in the last place of what was summed.

    Args:
        found: What is tested.
        exact: The same from arithmetic that is at least as exact.
        terms: The sizes of the terms that were added up to each element, added up.
        ulps: How many roundings a term goes through, in both ways of computing together.
        dtype: What it was computed in; `found` may be rounded once more, to its own type.
    """
    own = torch.finfo(found.dtype)
    bound = ulps * torch.finfo(dtype).eps * terms + 0.5 * own.eps * exact.double().abs()
    # The least number that there is, but for those that a training has set to be taken for zero.
    bound = bound + max(own.smallest_normal * own.eps, torch.finfo(torch.float64).tiny)
    excess = ((found.double() - exact.double()).abs() / bound).max().item()
    assert excess <= 1, f"off by {excess:.3g} times what rounding explains"


def assert_same_training(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert that trainings in fp64 came to the same, but for rounding: see `SAME`."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == torch.float64 or not tensor.is_floating_point(), name
        difference = (found[name] - tensor).abs().max().item()
        same = SAME_NORM * tensor if name == "gradient_norm" else SAME
        assert difference <= same, f"{name} differs by {difference:.2g}"
