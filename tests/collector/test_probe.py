"""What probes share: rows with reasons, and epochs of counters."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import Now
from collector.probe import CounterEpoch, Row
from store.events import AbsenceReason


def at(second):
    return Now(monotonic_s=float(second), boottime_s=float(second), wall_us=second * 1_000_000)


def test_a_row_has_values_and_beside_them_the_reasons_of_the_others():
    row = Row()
    row.put({"power_watts": 1.5, "energy_joules": AbsenceReason.NOT_SUPPORTED, "memory_kind": "unified"})
    assert row.event_values() == {
        "power_watts": 1.5,
        "memory_kind": "unified",
        "absence": {"energy_joules": "not_supported"},
    }


def test_a_row_that_lacks_nothing_has_no_reasons():
    row = Row()
    row.put({"power_watts": AbsenceReason.NOT_SUPPORTED})
    row.put({"power_watts": 0.0})
    assert row.event_values() == {"power_watts": 0.0}


def test_an_epoch_lasts_while_its_counters_grow_or_stand():
    epoch = CounterEpoch(["a", "b"])
    readings = [{"a": 1, "b": 5}, {"a": 1, "b": 6}, {"b": 6}, {}, {"a": 2, "b": 7, "gauge": -3}]
    assert [epoch.follow(values, at(100 + n)) for n, values in enumerate(readings)] == [100] * 5


def test_an_epoch_ends_when_any_counter_goes_back_even_across_absence():
    epoch = CounterEpoch(["a", "b"])
    readings = [{"a": 10, "b": 5}, {"b": 6}, {"a": 9, "b": 6}, {"a": 9, "b": 7}]
    assert [epoch.follow(values, at(100 + n)) for n, values in enumerate(readings)] == [100, 100, 102, 102]


def test_an_epoch_that_is_ended_gives_way_to_one_more_whatever_the_counters_say():
    epoch = CounterEpoch(["a"])
    first = epoch.follow({"a": 1}, at(100))
    epoch.end()
    assert (first, epoch.follow({"a": 2}, at(105)), epoch.follow({"a": 2}, at(106))) == (100, 105, 105)


@pytest.mark.parametrize("now", [at(100), at(50), at(2**31 + 100)])
def test_an_epoch_is_another_one_even_when_the_clock_stands_or_went_back_or_outgrew_the_column(now):
    epoch = CounterEpoch(["a"])
    epoch.follow({"a": 2}, at(100))
    assert epoch.follow({"a": 1}, now) == 101


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(0, 2**31 - 1_000))
def test_within_one_epoch_a_counter_never_goes_back_and_no_epoch_comes_twice(counts, start):
    epoch = CounterEpoch(["a"])
    seen = [(epoch.follow({"a": count}, at(start + n)), count) for n, count in enumerate(counts)]
    for (number, count), (next_number, next_count) in pairwise(seen):
        assert next_number > number or next_count >= count
