"""The made-up GPUs: what they show is decided by seed and time, looks like the real thing, and says that it is not."""

import pytest

from collector.clock import Now
from collector.demo import DemoProbe
from store.events import CLOCK_EVENT_REASONS, DEVICE_SAMPLE, GPU_SAMPLE, INVENTORY

START_US = 1_795_435_200_000_000
EVERY_REASON = sum(CLOCK_EVENT_REASONS)
COUNTERS = ("energy_joules", "throttle_sw_power_cap_seconds", "throttle_sw_thermal_seconds")


def moment(second):
    return Now(monotonic_s=1000.0 + second, boottime_s=1000.0 + second, wall_us=START_US + round(second * 1e6))


def history(seed=0, seconds=range(400)):
    """The rows of each second."""
    probe = DemoProbe(interval_s=1.0, seed=seed)
    return [[event.values for event in probe.read(moment(second)) if event.kind == "gpu_sample"] for second in seconds]


@pytest.fixture(scope="module")
def an_hour():
    return history(seconds=range(3600))


def test_the_same_seed_and_time_show_the_same_history():
    assert history(seed=7) == history(seed=7)


def test_another_seed_shows_another_history():
    assert history(seed=7) != history(seed=8)


def test_a_run_that_begins_later_agrees_on_all_but_what_counts_from_its_begin():
    def at_second_300(rows):
        mine = {*COUNTERS, "counter_epoch"}
        return [{column: value for column, value in row.items() if column not in mine} for row in rows]

    whole, late = history(seconds=range(301)), history(seconds=range(250, 301))
    assert at_second_300(whole[-1]) == at_second_300(late[-1])
    assert whole[-1][0]["counter_epoch"] != late[-1][0]["counter_epoch"]


def test_the_inventory_labels_every_gpu_as_demo_once():
    probe = DemoProbe(interval_s=1.0, seed=3)
    descriptions = [event.values for event in probe.read(moment(0)) if event.kind == "inventory"]
    assert [(one["name"], one["source"], one["attributes"]) for one in descriptions] == [
        ("NVIDIA H200 (demo)", "demo", {"demo": True, "seed": 3}),
        ("NVIDIA H200 (demo)", "demo", {"demo": True, "seed": 3}),
        ("NVIDIA GB10 (demo)", "demo", {"demo": True, "seed": 3}),
    ]
    assert all(set(one) <= set(INVENTORY.by_name) for one in descriptions)
    assert {event.kind for event in probe.read(moment(1))} == {"gpu_sample"}
    assert probe.status() == "3 demo GPUs (made up, seed 3)"


def test_every_field_is_declared_and_every_row_has_the_same_ones(an_hour):
    for index in range(3):
        columns = {frozenset(rows[index]) for rows in an_hour}
        assert len(columns) == 1
        assert columns.pop() <= set(GPU_SAMPLE.by_name)


def test_every_value_is_plausible(an_hour):
    for rows in an_hour:
        for row in rows:
            assert 0 <= row["utilization_percent"] <= 100
            assert 0 <= row["memory_utilization_percent"] <= 100
            assert 20.0 <= row["temperature_celsius"] <= 90.0
            assert 0.0 < row["power_watts"] <= row["power_limit_watts"] * 1.02
            assert 0.0 < row["power_instant_watts"] <= row["power_limit_watts"] * 1.15
            assert 200_000_000 <= row["clock_sm_hertz"] <= 2_500_000_000
            assert row["clock_event_reasons_bitmask"] & ~EVERY_REASON == 0
            assert row["up"] is True


def test_dedicated_memory_adds_up_to_the_total(an_hour):
    rows = [row for rows in an_hour for row in rows if row["memory_kind"] == "dedicated"]
    assert {
        row["memory_used_bytes"] + row["memory_free_bytes"] + row["memory_reserved_bytes"] - row["memory_total_bytes"]
        for row in rows
    } == {0}
    assert min(row["memory_free_bytes"] for row in rows) > 0


def test_unified_memory_has_no_free_and_reserved_but_says_what_is_available(an_hour):
    for row in (rows[2] for rows in an_hour):
        assert row["memory_kind"] == "unified"
        assert row["absence"] == {"memory_free_bytes": "not_supported", "memory_reserved_bytes": "not_supported"}
        assert 0 < row["memory_available_bytes"] < row["memory_total_bytes"] - row["memory_used_bytes"]


def test_counters_only_grow_within_their_epoch(an_hour):
    for index in range(3):
        assert len({rows[index]["counter_epoch"] for rows in an_hour}) == 1
        for counter in COUNTERS:
            values = [rows[index][counter] for rows in an_hour]
            assert values == sorted(values)
    energy = an_hour[-1][0]["energy_joules"]
    mean_watts = sum(rows[0]["power_watts"] for rows in an_hour[1:]) / 3600
    assert energy == pytest.approx(mean_watts * 3600, rel=0.001)


def test_an_hour_shows_idle_and_load_and_what_holds_the_clocks(an_hour):
    utilization = [rows[0]["utilization_percent"] for rows in an_hour]
    reasons = {rows[0]["clock_event_reasons_bitmask"] for rows in an_hour}
    assert min(utilization) == 0
    assert max(utilization) > 90
    assert {0x0, 0x1, 0x4} <= reasons  # nothing, idle, the power cap


def test_each_h200_has_a_labelled_port_every_five_seconds_whose_traffic_follows_the_gpus_load():
    probe = DemoProbe(interval_s=1.0)
    seen = [[event.values for event in probe.read(moment(second))] for second in range(301)]
    ports = {second: [row for row in rows if "device" in row] for second, rows in enumerate(seen)}
    assert [second for second, rows in ports.items() if rows] == list(range(0, 301, 5))
    assert {tuple(row["device"] for row in rows) for rows in ports.values() if rows} == {
        ("demo_mlx5_0/1", "demo_mlx5_1/1")
    }
    assert {column for rows in ports.values() for row in rows for column in row} <= set(DEVICE_SAMPLE.by_name)
    sent = [rows[0]["sent_bytes"] for rows in ports.values() if rows]
    assert sent == sorted(sent)
    load_seconds = sum(rows[0]["utilization_percent"] for rows in seen[1:]) / 100
    assert sent[-1] - sent[0] == pytest.approx(0.8 * 50e9 * load_seconds, rel=1e-6)
