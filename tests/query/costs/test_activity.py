"""A GPU that is busy but empty is told from one that works."""

import pytest

from query.costs.activity import activity
from query.costs.prices import Prices


def busy(book, seconds: int, gpu: int, **values):
    return [book.gpu(s, gpu, utilization_percent=100, power_limit_watts=700.0, **values) for s in range(seconds)]


def test_each_gpu_is_told_for_what_it_is(book):
    full = busy(book, 100, 0, sm_active_ratio=0.9, sm_occupancy_ratio=0.5, power_watts=600.0)
    empty = busy(book, 100, 1, sm_active_ratio=0.05, sm_occupancy_ratio=0.01, power_watts=200.0)
    idle = [book.gpu(s, 2, utilization_percent=3, sm_active_ratio=0.01, power_watts=80.0) for s in range(100)]
    book.record([*full, *empty, *idle])
    found = activity(book.source, book.window(0, 100), prices=Prices(0.5, "EUR"))
    told = {one.gpu_index: (one.busy_seconds, one.empty_seconds, one.empty_ratio) for one in found.gpus}
    assert told == {0: (100, 0, 0), 1: (100, 100, 1), 2: (0, 0, None)}
    assert [one.gpu_index for one in found.gpus] == [1, 0, 2]
    first = found.gpus[0]
    assert (first.judged_by, first.empty_joules) == ("sm_activity", pytest.approx(20_000))
    assert (first.sm_active_ratio, first.sm_occupancy_ratio) == pytest.approx((0.05, 0.01))
    assert first.cost.price == pytest.approx(20_000 / 3.6e6 * 0.5)
    assert found.coverage == pytest.approx(1.0)


def test_the_mean_activity_while_busy_is_numpys(book):
    import numpy as np

    ratios = np.random.default_rng(4).uniform(0, 1, 200)
    book.record(
        book.gpu(s, utilization_percent=95, sm_active_ratio=float(ratio), power_watts=300.0)
        for s, ratio in enumerate(ratios)
    )
    [gpu] = activity(book.source, book.window(0, 200)).gpus
    assert gpu.sm_active_ratio == pytest.approx(ratios.mean(), rel=1e-6)
    assert gpu.empty_seconds == pytest.approx((ratios < 0.3).sum())


@pytest.mark.parametrize(("watts", "empty_s"), [(120.0, 50), (500.0, 0)])
def test_without_sm_activity_the_power_tells_and_that_is_said(book, watts, empty_s):
    book.record(busy(book, 50, 0, power_watts=watts))
    found = activity(book.source, book.window(0, 50))
    assert [(one.empty_seconds, one.judged_by) for one in found.gpus] == [(empty_s, "power")]
    assert any("power tells" in words for words in found.limits)


def test_what_says_neither_is_not_judged(book):
    book.record([book.gpu(s, utilization_percent=100) for s in range(50)])
    found = activity(book.source, book.window(0, 50))
    assert [(one.busy_seconds, one.judged_seconds, one.empty_ratio) for one in found.gpus] == [(50, 0, None)]
    assert any("not judged" in words for words in found.limits)
