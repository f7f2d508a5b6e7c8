"""What is asked of a GPU, and which columns the answers fill.

Hot readings are made at every tick, warm ones every few seconds, cold ones every minute: as their columns declare. A
column of a slower tier is NULL in the rows between, without a reason: it was not asked for.

All of them belong to one GPU and one session with the driver: some remember what they read last, and each keeps the
memory that the driver answers into.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pynvml

from collector.gpu.activity import DriverSamples, Gpm
from collector.gpu.calls import (
    FieldReading,
    Fields,
    Reading,
    Scale,
    Unwrapped,
    always,
    filled,
    kibi,
    mega,
    milli,
    nano,
    number,
    structure,
    unscaled,
    versioned,
)
from collector.gpu.health import health_readings, health_substitutes
from collector.gpu.links import link_sums
from collector.gpu.memory import MemoryReading, protected_memory
from collector.gpu.nvml import ALL_LINKS, Call, Handle
from collector.probe import Answers
from store.events import COLD_SECONDS, WARM_SECONDS, AbsenceReason

CADENCES_S = (0.0, WARM_SECONDS, COLD_SECONDS)
_MODULE, _MEMORY = 1, 2  # NVML_POWER_SCOPE_*: the module of GPU and CPU that a Grace board is, the memory alone


_HOT_FIELDS: Fields = (
    (82, 0, "memory_temperature_celsius", always(unscaled)),
    (83, 0, "energy_joules", always(milli)),
    (185, 0, "power_watts", always(milli)),
    (186, 0, "power_instant_watts", always(milli)),
    (190, 0, "power_limit_watts", always(milli)),
    (185, _MODULE, "module_power_watts", always(milli)),
    (186, _MODULE, "module_power_instant_watts", always(milli)),
    (185, _MEMORY, "memory_power_watts", always(milli)),
    (74, 0, "throttle_sw_power_cap_seconds", always(nano)),
    (76, 0, "throttle_sync_boost_seconds", always(nano)),
    (269, 0, "throttle_sw_thermal_seconds", always(nano)),
    (270, 0, "throttle_hw_thermal_seconds", always(nano)),
    (271, 0, "throttle_hw_power_brake_seconds", always(nano)),
    (75, 0, "throttle_thermal_seconds", always(nano)),
    (77, 0, "throttle_board_limit_seconds", always(nano)),
    (78, 0, "throttle_low_utilization_seconds", always(nano)),
    (79, 0, "throttle_reliability_seconds", always(nano)),
    (80, 0, "throttle_application_clocks_seconds", always(nano)),
    (81, 0, "throttle_base_clocks_seconds", always(nano)),
    (94, 0, "pcie_replay_count", always(unscaled)),
    (197, 0, "pcie_tx_bytes", Unwrapped),
    (198, 0, "pcie_rx_bytes", Unwrapped),
    (138, ALL_LINKS, "nvlink_tx_bytes", always(kibi)),
    (139, ALL_LINKS, "nvlink_rx_bytes", always(kibi)),
    (140, ALL_LINKS, "nvlink_raw_tx_bytes", always(kibi)),
    (141, ALL_LINKS, "nvlink_raw_rx_bytes", always(kibi)),
)

EPOCH_COUNTERS = (
    "energy_joules",
    "pcie_tx_bytes",
    "pcie_rx_bytes",
    "throttle_sw_power_cap_seconds",
    "throttle_sync_boost_seconds",
    "throttle_sw_thermal_seconds",
    "throttle_hw_thermal_seconds",
    "throttle_hw_power_brake_seconds",
)
"""Counters that only a driver reload or a GPU reset can take back. Of the others nobody has promised as much."""


def gpu_readings(device: Handle, proc_folder: Path) -> list[Reading]:
    """All readings of one GPU.

    Args:
        device: The GPU.
        proc_folder: Where /proc is, for the memory of a GPU that shares the host's.
    """
    return [
        structure(
            device,
            ("nvmlDeviceGetUtilizationRates",),
            pynvml.c_nvmlUtilization_t,
            {"utilization_percent": "gpu", "memory_utilization_percent": "memory"},
        ),
        _temperature(device),
        *_clocks(device),
        _performance_state(device),
        number(
            device,
            "clock_event_reasons_bitmask",
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            out=ctypes.c_ulonglong,
        ),
        MemoryReading(device, proc_folder),
        FieldReading(device, _HOT_FIELDS, sampled_at="driver_sampled_at"),
        *(_driver_samples(device, *buffer) for buffer in _SAMPLE_BUFFERS),
        gpm_reading(Gpm(device)),
        *_engines(device),
        _encoding(device),
        _capturing(device),
        protected_memory(device),
        structure(
            device,
            ("nvmlDeviceGetBAR1MemoryInfo",),
            pynvml.c_nvmlBAR1Memory_t,
            {"bar1_used_bytes": "bar1Used", "bar1_total_bytes": "bar1Total"},
        ),
        Reading(("fan_speed_percent",), ("nvmlDeviceGetFanSpeed_v2", _fans(device))),
        Reading(
            ("thermal_margin_celsius",),
            versioned(device, "nvmlDeviceGetMarginTemperature", ["thermal_margin_celsius"]),
        ),
        number(device, "pcie_link_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
        number(device, "pcie_link_width_lanes", "nvmlDeviceGetCurrPcieLinkWidth"),
        *health_readings(device),
    ]


def mig_readings(device: Handle, parent: Handle, gpu_instance_id: int, proc_folder: Path) -> list[Reading]:
    """What is told of a MIG device by itself: its memory and, by GPM, its activity; the rest is its GPU's.

    Args:
        device: The MIG device.
        parent: The GPU that it is a part of.
        gpu_instance_id: Which part.
        proc_folder: As for `gpu_readings`.
    """
    return [MemoryReading(device, proc_folder), gpm_reading(Gpm(parent, gpu_instance_id))]


def substitutes(device: Handle) -> list[Reading]:
    """Calls for columns whose field the driver does not serve: it is older than the field, or the GPU than Ampere.

    From Blackwell on each NVLink is asked by itself, and the columns are their sums.
    """
    return [
        number(device, "power_watts", "nvmlDeviceGetPowerUsage", scaled=milli),
        number(device, "power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", scaled=milli),
        link_sums(device, {"nvlink_tx_bytes": 202, "nvlink_rx_bytes": 204}),
        *health_substitutes(device),
    ]


def _temperature(device: Handle) -> Reading:
    """The call of drivers since 565, and the older one."""
    column, sensor = "temperature_celsius", pynvml.NVML_TEMPERATURE_GPU
    older = number(device, column, "nvmlDeviceGetTemperature", arguments=[sensor])
    return Reading((column,), versioned(device, "nvmlDeviceGetTemperatureV", [column], sensor), *older.ways)


def _clocks(device: Handle) -> Iterator[Reading]:
    for domain, domain_id in (
        ("sm", pynvml.NVML_CLOCK_SM),
        ("memory", pynvml.NVML_CLOCK_MEM),
        ("graphics", pynvml.NVML_CLOCK_GRAPHICS),
        ("video", pynvml.NVML_CLOCK_VIDEO),
    ):
        yield number(device, f"clock_{domain}_hertz", "nvmlDeviceGetClockInfo", arguments=[domain_id], scaled=mega)


def _performance_state(device: Handle) -> Reading:
    def known(state: float) -> Any:
        return AbsenceReason.NO_DATA if state == pynvml.NVML_PSTATE_UNKNOWN else state

    names = ("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState")
    return number(device, "performance_state", *names, scaled=known)


def _engines(device: Handle) -> Iterator[Reading]:
    """The media engines' utilization; each call gives the period that it was sampled over beside it."""
    for engine, word in (("encoder", "Encoder"), ("decoder", "Decoder"), ("jpeg", "Jpg"), ("ofa", "Ofa")):
        yield _engine(device, f"{engine}_utilization_percent", f"nvmlDeviceGet{word}Utilization")


def _engine(device: Handle, column: str, name: str) -> Reading:
    share, period_us = ctypes.c_uint(), ctypes.c_uint()
    call = Call(name, device, ctypes.byref(share), ctypes.byref(period_us))

    def read() -> Answers:
        call()
        return {column: share.value}

    return Reading((column,), (name, read))


def _encoding(device: Handle) -> Reading:
    told = [ctypes.c_uint() for _ in range(3)]
    call = Call("nvmlDeviceGetEncoderStats", device, *map(ctypes.byref, told))

    def read() -> Answers:
        call()
        return _sessions("encoder", *(one.value for one in told))

    return Reading(_session_columns("encoder"), ("nvmlDeviceGetEncoderStats", read))


def _capturing(device: Handle) -> Reading:
    """Frame-buffer capture: the other sessions that send a screen away."""
    stats = (ctypes.c_uint * 3)()
    way = filled(device, "nvmlDeviceGetFBCStats", stats, lambda told: _sessions("capture", *told))
    return Reading(_session_columns("capture"), way)


def _session_columns(what: str) -> tuple[str, str, str]:
    return f"{what}_sessions_count", f"{what}_frame_rate_hertz", f"{what}_latency_seconds"


def _sessions(what: str, sessions: int, frames_per_second: int, latency_us: int) -> Answers:
    """Without sessions there is nothing to take a mean of, though the driver says 0."""
    means = (frames_per_second, latency_us / 1e6) if sessions else (AbsenceReason.NO_DATA, AbsenceReason.NO_DATA)
    return dict(zip(_session_columns(what), (sessions, *means), strict=True))


def _fans(device: Handle) -> Callable[[], Answers]:
    number, speed = ctypes.c_uint(), ctypes.c_uint()
    count = Call("nvmlDeviceGetNumFans", device, ctypes.byref(number))

    def speed_percent(fan: int) -> int:
        Call("nvmlDeviceGetFanSpeed_v2", device, fan, ctypes.byref(speed))()
        return speed.value

    def read() -> Answers:
        count()
        return {"fan_speed_percent": max(map(speed_percent, range(number.value)), default=AbsenceReason.NOT_SUPPORTED)}

    return read


_SAMPLE_BUFFERS: Sequence[tuple[int, str, str, Scale]] = (
    (pynvml.NVML_TOTAL_POWER_SAMPLES, "power", "watts", milli),
    (pynvml.NVML_GPU_UTILIZATION_SAMPLES, "utilization", "percent", unscaled),
)
"""Which buffer of the driver, and the quantity, unit and scale of what it holds."""


def _driver_samples(device: Handle, sampling_type: int, quantity: str, unit: str, scaled: Scale) -> Reading:
    samples = DriverSamples(device, sampling_type)
    columns = (
        *(f"{quantity}_{measure}_{unit}" for measure in ("minimum", "maximum", "mean")),
        f"{quantity}_sample_count",
    )

    def read() -> Answers:
        fresh = [scaled(value) for value in samples.read()]
        if not fresh:
            return dict.fromkeys(columns, AbsenceReason.NO_DATA)
        return dict(zip(columns, (min(fresh), max(fresh), sum(fresh) / len(fresh), len(fresh)), strict=True))

    return Reading(columns, (f"nvmlDeviceGetSamples {sampling_type}", read))


def gpm_reading(gpm: Gpm) -> Reading:
    return Reading(Gpm.columns, ("nvmlGpmMetricsGet", gpm.read))
