"""When something begins and ends to hold a GPU's clocks down."""

from collector.clock import Now
from collector.gpu.throttling import QUIET_S, Throttling

IDLE, POWER_CAP, HW_THERMAL = 0x1, 0x4, 0x40


def told(throttling, reasons, second):
    now = Now(monotonic_s=second, boottime_s=second, wall_us=0)
    return [
        (one["event"], one["throttle_reason"], one.get("duration_seconds")) for one in throttling.follow(reasons, now)
    ]


def test_a_reason_begins_once_and_ends_once_it_was_gone_for_a_while():
    throttling = Throttling()
    assert told(throttling, 0, 0) == []
    assert told(throttling, POWER_CAP, 1) == [("throttle_begin", "sw_power_cap", None)]
    assert [told(throttling, POWER_CAP, second) for second in (2, 3, 4)] == [[], [], []]
    assert told(throttling, 0, 5) == []
    assert told(throttling, 0, 4 + QUIET_S) == [("throttle_end", "sw_power_cap", 3)]
    assert told(throttling, 0, 60) == []


def test_a_reason_that_comes_and_goes_each_second_is_one_spell():
    throttling = Throttling()
    events = [one for second in range(60) for one in told(throttling, POWER_CAP * (second % 2), second)]
    assert events == [("throttle_begin", "sw_power_cap", None)]
    assert told(throttling, 0, 59 + QUIET_S) == [("throttle_end", "sw_power_cap", 58)]


def test_reasons_are_told_apart():
    throttling = Throttling()
    assert told(throttling, POWER_CAP | HW_THERMAL, 0) == [
        ("throttle_begin", "sw_power_cap", None),
        ("throttle_begin", "hw_thermal_slowdown", None),
    ]
    assert told(throttling, POWER_CAP, QUIET_S) == [("throttle_end", "hw_thermal_slowdown", 0)]


def test_a_gpu_that_is_idle_or_whose_clocks_somebody_set_is_not_throttled():
    assert told(Throttling(), IDLE | 0x2 | 0x100, 0) == []


def test_a_gpu_that_does_not_tell_neither_begins_nor_ends_anything():
    throttling = Throttling()
    told(throttling, HW_THERMAL, 0)
    assert told(throttling, None, 100) == []
    assert told(throttling, HW_THERMAL, 101) == []


def test_the_event_says_which_gpu_and_how_bad_it_is(gpu_machine, fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a reasons=0x40 pci=00000000:1B:00.0\ngpu 1 uuid=GPU-b reasons=0x1\n")
    (event,) = gpu_machine(fake_nvml).read().of("gpu_event")
    assert event == {
        "event": "throttle_begin",
        "throttle_reason": "hw_thermal_slowdown",
        "gpu_uuid": "GPU-a",
        "gpu_index": 0,
        "pci_bus_id": "00000000:1B:00.0",
        "source": "sampler",
        "severity": "critical",
        "message": "hw_thermal_slowdown holds the clocks down",
    }
