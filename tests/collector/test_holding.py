"""What is read now and then stands until it is read again, and no longer than its own cadence allows."""

import pytest

from collector.holding import SlowReadings
from store.events import Event


def row(second, **values):
    return Event("gpu_sample", second * 1_000_000, {"gpu_uuid": "GPU-a", "counter_epoch": 1, **values})


def fan(slow, event):
    (completed,) = slow.completed([event])
    return completed.values.get("fan_speed_percent")


@pytest.fixture
def slow():
    """One that has just read a fan at 40 %."""
    slow = SlowReadings()
    assert fan(slow, row(0, fan_speed_percent=40, power_watts=100.0)) == 40
    return slow


def test_a_slow_reading_stands_for_three_of_its_intervals(slow):
    assert [fan(slow, row(second)) for second in (1, 4, 15, 16)] == [40, 40, 40, None]


def test_a_newer_reading_takes_its_place_also_where_it_is_0(slow):
    assert [fan(slow, row(5, fan_speed_percent=0)), fan(slow, row(6))] == [0, 0]


def test_what_a_row_says_is_absent_is_not_held(slow):
    assert fan(slow, row(1, absence={"fan_speed_percent": "not_supported"})) is None
    assert fan(slow, row(2)) is None


def test_nothing_is_held_of_a_gpu_that_is_lost_or_whose_counters_began_anew(slow):
    assert fan(slow, row(1, absence={"*": "lost"})) is None
    assert fan(slow, row(2)) is None
    assert fan(slow, row(3, fan_speed_percent=50)) == 50
    assert fan(slow, row(4, counter_epoch=2)) is None


def test_what_is_read_at_every_tick_is_never_held(slow):
    (completed,) = slow.completed([row(1)])
    assert "power_watts" not in completed.values


def test_each_gpu_and_the_host_have_readings_of_their_own(slow):
    other = Event("gpu_sample", 1_000_000, {"gpu_uuid": "GPU-b", "counter_epoch": 1})
    host = Event("system_sample", 1_000_000, {"counter_epoch": 1, "cpu_temperature_celsius": 60.0})
    later = Event("system_sample", 2_000_000, {"counter_epoch": 1})
    note = Event("annotation", 1_000_000, {"text": "x"})
    assert slow.completed([other, host, note]) == [other, host, note]
    assert slow.completed([later])[0].values["cpu_temperature_celsius"] == 60.0


def test_ecc_errors_that_are_read_each_minute_are_there_at_every_tick_between():
    slow = SlowReadings()
    slow.completed([row(0, ecc_uncorrected_volatile_count=2)])
    found = [slow.completed([row(second)])[0].values.get("ecc_uncorrected_volatile_count") for second in (59, 180, 181)]
    assert found == [2, 2, None]
