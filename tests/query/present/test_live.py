"""The machine now: the newest row of each GPU and of the host, or why there is none."""

import pytest

from query.errors import UnknownGpuError
from query.present.live import GPU_COLUMNS, HOST_COLUMNS, GpuNow, HostNow, LiveState, live_state, probe_words

GIB = 2**30

GPU = {
    "utilization_percent": 93,
    "sm_active_ratio": 0.5,
    "memory_used_bytes": 60 * GIB,
    "memory_total_bytes": 141 * GIB,
    "memory_available_bytes": None,
    "memory_kind": "dedicated",
    "temperature_celsius": 61.0,
    "memory_temperature_celsius": 70.0,
    "power_watts": 640.5,
    "power_limit_watts": 700.0,
    "clock_sm_hertz": 1_980_000_000,
    "performance_state": 0,
}
HOST = {
    "cpu_utilization_percent": 12.5,
    "cpu_count": 16,
    "load_1m_count": 3.25,
    "memory_used_bytes": 20 * GIB,
    "memory_total_bytes": 64 * GIB,
    "memory_available_bytes": 44 * GIB,
    "swap_used_bytes": 0,
    "swap_total_bytes": 8 * GIB,
    "ledger_filesystem_free_bytes": 500 * GIB,
}
NO_GPU_VALUES = {name: None for name in GPU_COLUMNS if name != "clock_event_reasons_bitmask"}


def probe_status(book, seconds: float, probe: str, message: str):
    return book.event("ledger_event", seconds, event="probe_status", probe=probe, message=message)


def test_now_is_the_newest_row_of_each_gpu_and_of_the_host(book):
    inventory = [
        book.event("inventory", 0, subject="gpu", gpu_uuid="GPU-0", gpu_index=0, name=name)
        for name in ("A", "NVIDIA H200")
    ]
    old = [book.gpu(s, gpu, utilization_percent=1) for s in range(5) for gpu in (1, 0)]
    gpus = [book.gpu(5, 0, **GPU), book.gpu(5.5, 1, **GPU | {"utilization_percent": None})]
    book.record([*inventory, book.host(4, cpu_count=1), *old, *gpus, book.host(5.25, **HOST)])
    now = book.at(6)
    assert live_state(book.source, now=now) == LiveState(
        as_of=now,
        newest_age_s=0.5,
        is_stale=False,
        gpus=(
            GpuNow(0, "GPU-0", "NVIDIA H200", 1.0, {"up": True, **GPU}, (), {}),
            GpuNow(1, "GPU-1", None, 0.5, {"up": True, **GPU, "utilization_percent": None}, (), {}),
        ),
        hosts=(HostNow("node", 0.75, HOST, {}),),
        no_gpu_because=None,
    )


def test_gpus_come_by_number_and_only_those_asked_for(book):
    book.record(book.gpu(s, gpu) for s in range(2) for gpu in (10, 2, 0))
    assert [gpu.index for gpu in live_state(book.source, now=book.at(2)).gpus] == [0, 2, 10]
    assert [gpu.index for gpu in live_state(book.source, now=book.at(2), gpus=(10, 0)).gpus] == [0, 10]


def test_an_unknown_gpu_is_refused_with_those_there_are(book):
    book.record(book.gpu(0, gpu) for gpu in (10, 2))
    with pytest.raises(UnknownGpuError) as refused:
        live_state(book.source, now=book.at(1), gpus=(2, 3))
    assert str(refused.value) == "There is no GPU 3: there is GPU 2, 10"


def test_any_gpu_may_be_asked_for_where_nothing_is_recorded(book):
    assert live_state(book.source, now=book.at(0), gpus=(3,)).gpus == ()


@pytest.mark.parametrize(
    ("interval_s", "age_s", "is_stale"),
    [
        (1.0, 3.0, False),
        (1.0, 3.001, True),
        (0.1, 2.9, False),
        (10.0, 30.0, False),
        (10.0, 30.5, True),
        (None, 4.0, True),
    ],
)
def test_a_row_is_stale_after_three_intervals_and_not_before_three_seconds(book, interval_s, age_s, is_stale):
    book.record([book.gpu(100, interval_seconds=interval_s), book.host(100, interval_seconds=interval_s)])
    found = live_state(book.source, now=book.at(100 + age_s))
    assert (found.is_stale, found.newest_age_s) == (is_stale, age_s)
    assert found.gpus[0].absence == ({"*": "stale"} if is_stale else {})


def test_a_stale_row_has_no_values_at_all(book):
    book.record([book.gpu(0, **GPU, clock_event_reasons_bitmask=0x4), book.host(0, **HOST)])
    found = live_state(book.source, now=book.at(60))
    assert found == LiveState(
        as_of=book.at(60),
        newest_age_s=60.0,
        is_stale=True,
        gpus=(GpuNow(0, "GPU-0", None, 60.0, NO_GPU_VALUES, (), {"*": "stale"}),),
        hosts=(HostNow("node", 60.0, dict.fromkeys(HOST_COLUMNS), {"*": "stale"}),),
        no_gpu_because=None,
    )


def test_one_gpu_that_fell_silent_is_stale_alone(book):
    book.record([book.gpu(0, 0, **GPU), book.gpu(50, 1, **GPU), book.host(50)])
    found = live_state(book.source, now=book.at(51))
    assert [(gpu.values["power_watts"], gpu.absence) for gpu in found.gpus] == [(None, {"*": "stale"}), (640.5, {})]
    assert not found.is_stale


def test_what_is_older_than_ten_minutes_is_not_looked_for(book):
    book.record([book.gpu(0), book.host(0), book.gpu(0), book.host(0)])
    found = live_state(book.source, now=book.at(601))
    assert (found.newest_age_s, found.is_stale, found.gpus, found.hosts) == (None, True, (), ())


def test_rows_of_the_future_are_not_now(book):
    book.record([book.gpu(0, **GPU), book.gpu(9, power_watts=1.0)])
    found = live_state(book.source, now=book.at(1))
    assert [(gpu.age_s, gpu.values["power_watts"]) for gpu in found.gpus] == [(1.0, 640.5)]


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        (None, ()),
        (0, ()),
        (0x1, ("gpu_idle",)),
        (0x24, ("sw_power_cap", "sw_thermal_slowdown")),
        (
            0x1FF,
            (
                "gpu_idle",
                "applications_clocks_setting",
                "sw_power_cap",
                "hw_slowdown",
                "sync_boost",
                "sw_thermal_slowdown",
                "hw_thermal_slowdown",
                "hw_power_brake_slowdown",
                "display_clocks_setting",
            ),
        ),
        (0x8004, ("sw_power_cap", "0x8000")),
    ],
)
def test_what_holds_the_clocks_is_said_in_words(book, mask, reasons):
    book.record([book.gpu(0), book.gpu(1, clock_event_reasons_bitmask=mask)])
    assert [gpu.clock_event_reasons for gpu in live_state(book.source, now=book.at(1)).gpus] == [reasons]


def test_a_lost_gpu_is_down_and_says_so(book):
    book.record([book.gpu(0, **GPU), book.gpu(1, up=False, absence={"*": "lost"})])
    [gpu] = live_state(book.source, now=book.at(1)).gpus
    assert (gpu.values, gpu.absence) == ({**NO_GPU_VALUES, "up": False}, {"*": "lost"})


def test_unified_memory_is_the_hosts_with_its_reasons(book):
    values = {
        "memory_kind": "unified",
        "memory_total_bytes": 128 * GIB,
        "memory_available_bytes": 90 * GIB,
        "absence": {"memory_used_bytes": "no_permission", "memory_free_bytes": "not_supported"},
    }
    book.record([book.gpu(0, **values), book.gpu(1, **values)])
    [gpu] = live_state(book.source, now=book.at(1)).gpus
    assert gpu.values == NO_GPU_VALUES | {
        "up": True,
        "memory_kind": "unified",
        "memory_total_bytes": 128 * GIB,
        "memory_available_bytes": 90 * GIB,
    }
    assert gpu.absence == {"memory_used_bytes": "no_permission", "memory_free_bytes": "not_supported"}


def test_without_a_gpu_the_recorder_says_why(book):
    told = [probe_status(book, 0, "gpu", "no GPU: driver away"), probe_status(book, 1, "gpu", "no GPU: no driver")]
    book.record([*told, probe_status(book, 2, "host", "host"), book.host(2), book.host(3, **HOST)])
    found = live_state(book.source, now=book.at(3))
    assert (found.gpus, found.no_gpu_because, found.is_stale) == ((), "no GPU: no driver", False)
    assert [host.values for host in found.hosts] == [HOST]


def test_with_a_gpu_nobody_says_why_there_is_none(book):
    book.record([probe_status(book, 0, "gpu", "1 GPU"), book.host(0), book.gpu(0)])
    assert live_state(book.source, now=book.at(1)).no_gpu_because is None


def test_a_recorder_that_stopped_does_not_say_that_there_is_no_gpu(book):
    book.record([probe_status(book, 0, "gpu", "2 GPUs"), book.host(0), book.gpu(0)])
    assert live_state(book.source, now=book.at(3_600)).no_gpu_because is None


def test_gpus_that_fell_silent_while_the_host_did_not_have_the_recorders_reason(book):
    told = [probe_status(book, 0, "gpu", "1 GPU"), probe_status(book, 2, "gpu", "paused until noon by alice")]
    book.record([*told, book.gpu(0), *(book.host(s) for s in range(9))])
    found = live_state(book.source, now=book.at(8))
    assert (found.no_gpu_because, found.is_stale) == ("paused until noon by alice", False)
    assert [gpu.absence for gpu in found.gpus] == [{"*": "stale"}]
    assert live_state(book.source, now=book.at(60)).no_gpu_because is None  # nor has the host a fresh row


def test_probe_words_are_the_last_ones_of_that_probe(book):
    told = [probe_status(book, s, probe, f"{probe} {s}") for s in range(3) for probe in ("gpu", "it's")]
    book.record([*told, book.event("ledger_event", 9, event="probe_failed", probe="gpu", message="failed")])
    assert [probe_words(book.source, probe) for probe in ("gpu", "it's", "host")] == ["gpu 2", "it's 2", None]


def test_an_empty_ledger_knows_nothing_of_now(book):
    assert live_state(book.source, now=book.at(0)) == LiveState(book.at(0), None, True, (), (), None)
