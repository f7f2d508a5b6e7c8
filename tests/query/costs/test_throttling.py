"""Time lost is told by reason, and nothing is lost where nothing held the clocks."""

import pytest

from query.costs.throttling import throttling

CAP, HW_THERMAL, IDLE = 0x04, 0x40, 0x01


def samples(book, seconds: int, masks, clocks, gpu: int = 0, **values):
    return [
        book.gpu(
            s,
            gpu,
            utilization_percent=95,
            clock_event_reasons_bitmask=masks(s),
            clock_sm_hertz=clocks(s),
            **{name: value(s) for name, value in values.items()},
        )
        for s in range(seconds)
    ]


def test_time_and_work_lost_to_a_planted_throttle(book):
    """300 s at 2 GHz, then 100 s at 1.5 GHz under a power cap: a quarter of those is lost."""
    book.record(
        samples(
            book,
            400,
            lambda s: CAP if s >= 300 else 0,
            lambda s: 1_500_000_000 if s >= 300 else 2_000_000_000,
            throttle_sw_power_cap_seconds=lambda s: 7.0 + max(0, s - 299) * 0.9,
        )
    )
    found = throttling(book.source, book.window(0, 400), now=book.at(400))
    assert (found.n, found.coverage) == (1, pytest.approx(1.0))
    [gpu] = found.gpus
    assert (gpu.busy_seconds, gpu.held_seconds, gpu.held_clock_hertz) == pytest.approx((400, 100, 1.5e9))
    assert (gpu.reference, gpu.reference_clock_hertz) == ("own", pytest.approx(2e9))
    assert gpu.lost_seconds == pytest.approx(100 * (1 - 1.5 / 2))
    [reason] = gpu.reasons
    assert (reason.reason, reason.source) == ("sw_power_cap", "counter")
    assert (reason.seconds, reason.ratio) == pytest.approx((90, 90 / 400))  # by the counter, not by the samples' 100
    assert reason.lost_seconds == pytest.approx(25)


def test_reasons_in_force_together_share_what_was_lost(book):
    masks = {0: CAP | HW_THERMAL, 1: CAP}
    book.record(samples(book, 200, lambda s: masks[s % 2], lambda _: 1_000_000_000))
    book.append([book.event("inventory", 0, gpu_uuid="GPU-0", clock_sm_maximum_hertz=2_000_000_000)])
    [gpu] = throttling(book.source, book.window(0, 200), now=book.at(200)).gpus
    assert (gpu.reference, gpu.lost_seconds) == ("maximum", pytest.approx(100))
    told = {one.reason: (one.source, one.seconds, one.lost_seconds) for one in gpu.reasons}
    assert told == {
        "sw_power_cap": ("samples", pytest.approx(200), pytest.approx(75)),
        "hw_thermal_slowdown": ("samples", pytest.approx(100), pytest.approx(25)),
    }


def test_a_gpu_that_nothing_held_is_blamed_for_nothing(book):
    counters = {"throttle_sw_power_cap_seconds": lambda _: 12.5, "throttle_hw_thermal_seconds": lambda _: 0.0}
    book.record(samples(book, 120, lambda _: 0, lambda _: 1_980_000_000, **counters))
    [gpu] = throttling(book.source, book.window(0, 120), now=book.at(120)).gpus
    assert (gpu.reasons, gpu.held_seconds, gpu.lost_seconds) == ((), 0.0, 0.0)


def test_an_idle_gpu_at_a_low_clock_has_lost_nothing(book):
    idle = samples(book, 120, lambda _: IDLE, lambda _: 210_000_000)
    book.record(idle)
    [gpu] = throttling(book.source, book.window(0, 120), now=book.at(120)).gpus
    assert (gpu.reasons, gpu.held_seconds) == ((), 0.0)


def test_without_any_clock_to_put_it_against_the_work_lost_is_unknown(book):
    book.record(samples(book, 60, lambda _: CAP, lambda _: 1_000_000_000))
    [gpu] = throttling(book.source, book.window(0, 60), now=book.at(60)).gpus
    assert (gpu.reference, gpu.lost_seconds, gpu.reasons[0].lost_seconds) == (None, None, None)


def test_a_counter_that_restarts_is_not_time_lost(book):
    book.record(
        samples(
            book,
            60,
            lambda _: 0,
            lambda _: 2_000_000_000,
            throttle_hw_thermal_seconds=lambda s: 500.0 if s < 30 else 3.0,
            counter_epoch=lambda s: int(s >= 30),
        )
    )
    [gpu] = throttling(book.source, book.window(0, 60), now=book.at(60)).gpus
    assert gpu.reasons == ()
