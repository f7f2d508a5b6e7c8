"""Trends of counters: rates within one boot and one epoch, never negative, over sealed segments and the tail at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.history.trends import Trend, TrendSeries, trend


def joules(book, start_s: float, end_s: float) -> Trend:
    return trend(book.source, "gpu.energy_joules", book.window(start_s, end_s), now=book.at(end_s))


def energy(book, readings: Sequence[tuple[float, float | None]], **values: Any) -> list[Any]:
    return [book.gpu(second, energy_joules=total, **values) for second, total in readings]


def steps(found: Trend) -> list[tuple[int, float | None]]:
    """Of each series how many steps there were and what they sum up to."""
    return [(one.n, one.increase) for one in found.series]


def test_a_counter_is_answered_as_its_rate_a_second(book):
    book.record(energy(book, [(0, 1000.0), (1, 1100.0), (2, 1300.0), (3, 1600.0)]))
    found = joules(book, 0, 4)
    assert (found.unit, found.increase_unit) == ("W", "J")
    assert found.series == (
        TrendSeries(
            label="0",
            series="GPU-0",
            n=3,
            min=100.0,
            avg=200.0,
            p50=200.0,
            p95=pytest.approx(290.0),
            max=300.0,
            last=300.0,
            slope_per_hour=pytest.approx(360_000.0),
            increase=600.0,
            coverage=1.0,
            points=(None, 100.0, 200.0, 300.0),
        ),
    )


def test_the_mean_weighs_each_rate_by_the_time_it_held(book):
    book.record(energy(book, [(0, 0.0), (1, 10.0), (2, 20.0), (62, 80.0)]))
    [found] = joules(book, 0, 63).series
    assert (found.n, found.min, found.max, found.last) == (3, 1.0, 10.0, 1.0)
    assert (found.increase, found.avg) == (80.0, pytest.approx(80 / 62))


def test_a_gap_has_no_points_and_is_not_covered_but_what_it_grew_by_is_counted(book):
    book.record(energy(book, [(s, 5.0 * s) for s in (*range(10), *range(50, 60))]))
    [found] = joules(book, 0, 60).series
    assert (found.increase, found.avg, found.coverage) == (295.0, 5.0, pytest.approx(20 / 60))
    assert found.points == (5.0, 5.0, *[None] * 8, 5.0, 5.0)


def test_a_new_epoch_begins_anew(book):
    before = energy(book, [(0, 1000.0), (1, 1100.0)], counter_epoch=0)
    after = energy(book, [(2, 7.0), (3, 27.0), (4, 67.0)], counter_epoch=1)
    book.record([*before, *after])
    found = joules(book, 0, 5)
    assert steps(found) == [(3, 160.0)]
    assert (found.series[0].min, found.series[0].max, found.coverage) == (20.0, 100.0, 1.0)


def test_a_new_boot_begins_anew_even_where_the_counter_is_higher(book):
    book.record([book.host(s, network_sent_bytes=100 * s) for s in range(3)], boot="boot-1")
    book.record([book.host(s, network_sent_bytes=10_000 + 50 * s) for s in range(3, 6)], boot="boot-2")
    found = trend(book.source, "network.sent_bytes", book.window(0, 6), now=book.at(6))
    assert steps(found) == [(4, 300.0)]
    assert (found.series[0].min, found.series[0].max, found.series[0].avg) == (50.0, 100.0, 75.0)


def test_a_counter_that_wraps_within_its_epoch_loses_that_step_and_is_never_negative(book):
    book.record(book.gpu(s, pcie_tx_bytes=total) for s, total in enumerate([100, 150, 190, 3, 13, 33]))
    found = trend(book.source, "gpu.pcie_tx_bytes", book.window(0, 6), now=book.at(6))
    assert steps(found) == [(4, 120.0)]
    assert (found.series[0].min, found.series[0].max, found.coverage) == (10.0, 50.0, 1.0)
    assert found.series[0].points == (None, 50.0, 40.0, None, 10.0, 20.0)


def test_a_reading_that_is_missing_is_bridged(book):
    book.record(energy(book, [(0, 0.0), (1, None), (2, None), (3, 30.0), (4, 50.0)]))
    found = joules(book, 0, 5)
    assert steps(found) == [(2, 50.0)]
    assert (found.series[0].avg, found.coverage) == (12.5, 0.6)


def test_a_counter_that_rests_has_the_rate_zero(book):
    book.record(energy(book, [(s, 42.0) for s in range(4)]))
    [found] = joules(book, 0, 4).series
    assert (found.n, found.min, found.avg, found.max, found.increase, found.slope_per_hour) == (3, 0, 0, 0, 0, 0)


def test_one_reading_makes_no_rate(book):
    book.record([book.host(0), *energy(book, [(0, 5.0)])])
    found = joules(book, 0, 1)
    assert (found.series, found.coverage, found.newest_age_s, found.absent) == ((), 0.0, None, {})


def test_two_readings_of_one_instant_make_no_rate(book):
    book.record(energy(book, [(0, 5.0), (0, 9.0)]))
    assert joules(book, 0, 1).series == ()
    book.record(energy(book, [(1, 10.0), (1, 20.0)]))
    assert steps(joules(book, 0, 2)) == [(1, 1.0)]


def test_one_step_has_no_slope(book):
    book.record(energy(book, [(0, 5.0), (1, 9.0)]))
    assert [one.slope_per_hour for one in joules(book, 0, 2).series] == [None]


def test_only_readings_of_the_window_are_used(book):
    book.record(energy(book, [(s, 10.0 * s) for s in range(10)]))
    assert steps(joules(book, 3, 7)) == [(3, 30.0)]


def test_each_gpu_counts_for_itself(book):
    book.record(book.gpu(s, gpu, energy_joules=(gpu + 1) * 10.0 * s) for s in range(4) for gpu in range(3))
    assert steps(joules(book, 0, 4)) == [(3, 30.0), (3, 60.0), (3, 90.0)]


def test_counters_beyond_the_reach_of_a_double_grow_exactly(book):
    largest = 2**63 - 1
    book.record(book.gpu(s, nvlink_tx_bytes=largest - 3 + s) for s in range(4))
    found = trend(book.source, "gpu.nvlink_tx_bytes", book.window(0, 4), now=book.at(4))
    assert steps(found) == [(3, 3.0)]


def test_milliseconds_of_a_decimal_counter_are_kept(book):
    book.record(book.gpu(s, throttle_sw_power_cap_seconds=0.001 * s) for s in range(11))
    found = trend(book.source, "gpu.throttle_sw_power_cap_seconds", book.window(0, 11), now=book.at(11))
    assert (found.unit, found.series[0].increase, found.series[0].avg) == (
        "s/s",
        pytest.approx(0.01),
        pytest.approx(1e-3),
    )


def test_sealing_changes_no_rate(book):
    events = energy(book, [(s, 3.0 * s) for s in range(20)], counter_epoch=1)
    book.append(events)
    in_tail = joules(book, 0, 20)
    book.seal()
    assert joules(book, 0, 20) == in_tail
    assert steps(in_tail) == [(19, 57.0)]


@settings(max_examples=20, deadline=None)
@given(readings=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000)), min_size=2, max_size=30))
def test_no_course_of_a_counter_gives_a_negative_rate(readings, tmp_path_factory, open_book):
    book = open_book(tmp_path_factory.mktemp("course") / "ledger")
    book.record(
        book.gpu(s, energy_joules=float(total), counter_epoch=epoch) for s, (epoch, total) in enumerate(readings)
    )
    grown = []
    for epoch in range(3):
        of_epoch = [total for one, total in readings if one == epoch]
        grown += [after - before for before, after in pairwise(of_epoch) if after >= before]
    found = joules(book, 0, len(readings))
    assert steps(found) == ([(len(grown), float(sum(grown)))] if grown else [])
    assert all(one.min >= 0 and one.avg >= 0 for one in found.series)
