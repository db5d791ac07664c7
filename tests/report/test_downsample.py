import math
from itertools import pairwise

import pytest

from truesweep.report.downsample import lttb


def test_few_points_all_stay() -> None:
    assert lttb([1, 2, 3], [1, 1, 1], 3) == [0, 1, 2]


@pytest.mark.parametrize("count", [5, 11, 100, 2000])
@pytest.mark.parametrize("points", [3, 4, 10])
def test_as_many_as_asked_in_order_with_both_ends(count: int, points: int) -> None:
    kept = lttb(range(count), [math.sin(i) for i in range(count)], points)
    assert len(kept) == min(points, count)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, count - 1)


def test_a_spike_stays() -> None:
    values = [0.0] * 1000
    values[617] = 50.0
    assert 617 in lttb(range(1000), values, 20)


def test_the_shape_stays() -> None:
    x = list(range(2000))
    y = [4 * math.exp(-i / 300) + 1 for i in x]
    kept = lttb(x, y, 60)
    worst = 0.0
    for a, b in pairwise(kept):
        for i in range(a, b + 1):
            on_line = y[a] + (y[b] - y[a]) * (i - a) / (b - a)
            worst = max(worst, abs(on_line - y[i]))
    assert worst < 0.01  # of a range of 4
