"""What is asked of a GPU, and which columns the answers fill.

Hot readings are made at every tick, warm ones every few seconds, cold ones every minute: as their columns declare. A
column of a slower tier is NULL in the rows between, without a reason: it was not asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pynvml

from collector import proc
from collector.gpu_activity import DriverSamples, Gpm
from collector.nvml import ALL_LINKS, Absent, FieldBatch, Handle, Nvml
from collector.probe import Answers
from store.events import COLD_SECONDS, GPU_SAMPLE, WARM_SECONDS, AbsenceReason

MEGA = 1_000_000
CADENCES_S = (0.0, WARM_SECONDS, COLD_SECONDS)


@dataclass(frozen=True, slots=True)
class Reading:
    """One call, and the columns that it fills."""

    columns: tuple[str, ...]
    read: Callable[[Nvml, Handle], Answers]

    every_s: float = field(init=False)
    """Time between two readings, as its columns declare; 0 for one at each tick."""

    def __post_init__(self) -> None:
        every_s = max(GPU_SAMPLE.by_name[column].every_seconds or 0.0 for column in self.columns)
        object.__setattr__(self, "every_s", every_s)


def _milli(value: float) -> float:
    return value / 1000.0


def _nano(value: float) -> float:
    return value / 1e9


def _kibi(value: float) -> int:
    return int(value) * 1024


def _mega(value: float) -> int:
    return int(value) * MEGA


def _plain(value: float) -> float:
    return value


def _flag(value: float) -> bool:
    return bool(value)


_Scale = Callable[[float], float]
_Fields = Sequence[tuple[int, int, str, _Scale]]
"""NVML field id and scope, the column, and the way from the vendor's scale to the column's unit."""

_HOT_FIELDS: _Fields = (
    (82, 0, "memory_temperature_celsius", _plain),
    (83, 0, "energy_joules", _milli),
    (185, 0, "power_watts", _milli),
    (186, 0, "power_instant_watts", _milli),
    (190, 0, "power_limit_watts", _milli),
    (74, 0, "throttle_sw_power_cap_seconds", _nano),
    (76, 0, "throttle_sync_boost_seconds", _nano),
    (269, 0, "throttle_sw_thermal_seconds", _nano),
    (270, 0, "throttle_hw_thermal_seconds", _nano),
    (271, 0, "throttle_hw_power_brake_seconds", _nano),
    (94, 0, "pcie_replay_count", _plain),
    (197, 0, "pcie_tx_bytes", _plain),
    (198, 0, "pcie_rx_bytes", _plain),
    (138, ALL_LINKS, "nvlink_tx_bytes", _kibi),
    (139, ALL_LINKS, "nvlink_rx_bytes", _kibi),
)

_COLD_FIELDS: _Fields = (
    (3, 0, "ecc_corrected_volatile_count", _plain),
    (4, 0, "ecc_uncorrected_volatile_count", _plain),
    (5, 0, "ecc_corrected_aggregate_count", _plain),
    (6, 0, "ecc_uncorrected_aggregate_count", _plain),
    (29, 0, "retired_pages_single_bit_count", _plain),
    (30, 0, "retired_pages_double_bit_count", _plain),
    (31, 0, "retired_pages_pending", _flag),
    (142, 0, "remapped_rows_corrected_count", _plain),
    (143, 0, "remapped_rows_uncorrected_count", _plain),
    (144, 0, "row_remap_pending", _flag),
    (145, 0, "row_remap_failed", _flag),
    (193, 0, "shutdown_margin_celsius", _plain),
    (194, 0, "slowdown_margin_celsius", _plain),
    (230, 0, "recovery_action", _plain),
)

EPOCH_COUNTERS = (
    "energy_joules",
    *(column for _, _, column, _ in _HOT_FIELDS if column.startswith("throttle_")),
)
"""64-bit counters that only a driver reload or a GPU reset can take back; the PCIe counters wrap by themselves."""


def readings(proc_folder: Path) -> tuple[Reading, ...]:
    """All readings of one GPU; some remember what they read last.

    Args:
        proc_folder: Where /proc is, for the memory of GPUs that share the host's.
    """
    return (
        *_HOT_READINGS,
        Reading(_MEMORY_COLUMNS, partial(_memory, proc_folder)),
        _field_reading(_HOT_FIELDS, sampled_at="driver_sampled_at"),
        *(Reading(samples.columns, samples.read) for samples in _driver_samples()),
        Reading(Gpm.columns, Gpm().read),
        *_WARM_READINGS,
        _field_reading(_COLD_FIELDS),
        *_COLD_READINGS,
    )


def _driver_samples() -> Sequence[DriverSamples]:
    return (
        DriverSamples(pynvml.NVML_TOTAL_POWER_SAMPLES, "power", "watts", _milli),
        DriverSamples(pynvml.NVML_GPU_UTILIZATION_SAMPLES, "utilization", "percent", _plain),
    )


def _field_reading(fields: _Fields, *, sampled_at: str = "") -> Reading:
    """Many fields in one call; `sampled_at` is the column that takes the driver's own time of them."""
    batch = FieldBatch([(field_id, scope) for field_id, scope, _, _ in fields])

    def read(_: Nvml, device: Handle) -> Answers:
        values = {
            column: answer if isinstance(answer, AbsenceReason) else scaled(answer)
            for (_, _, column, scaled), answer in zip(fields, batch.read(device), strict=True)
        }
        return values | ({sampled_at: batch.sampled_at_us or AbsenceReason.NO_DATA} if sampled_at else {})

    columns = tuple(column for _, _, column, _ in fields)
    return Reading(((sampled_at, *columns) if sampled_at else columns), read)


def _number(column: str, names: str | tuple[str, ...], *arguments: int, scaled: _Scale = _plain) -> Reading:
    """A call that answers with one number; `names` as for `Nvml.ask`."""
    return Reading((column,), lambda nvml, device: {column: scaled(nvml.ask(names, device, *arguments))})


def _utilization(nvml: Nvml, device: Handle) -> Answers:
    rates = nvml.ask("nvmlDeviceGetUtilizationRates", device)
    return {"utilization_percent": rates.gpu, "memory_utilization_percent": rates.memory}


def _performance_state(nvml: Nvml, device: Handle) -> Answers:
    state = nvml.ask(("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState"), device)
    return {"performance_state": AbsenceReason.NO_DATA if state == pynvml.NVML_PSTATE_UNKNOWN else state}


_HOT_READINGS = (
    Reading(("utilization_percent", "memory_utilization_percent"), _utilization),
    _number(
        "temperature_celsius", ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), pynvml.NVML_TEMPERATURE_GPU
    ),
    _number("clock_sm_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM, scaled=_mega),
    _number("clock_memory_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM, scaled=_mega),
    _number("clock_graphics_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_GRAPHICS, scaled=_mega),
    _number("clock_video_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_VIDEO, scaled=_mega),
    Reading(("performance_state",), _performance_state),
    _number(
        "clock_event_reasons_bitmask",
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
    ),
)

SUBSTITUTES = (
    _number("power_watts", "nvmlDeviceGetPowerUsage", scaled=_milli),
    _number("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", scaled=_milli),
)
"""Calls for columns whose field the driver does not serve: it is older than the field, or the GPU than Ampere."""


def _engine(engine: str, name: str) -> Reading:
    """Utilization of a media engine; the call gives the sampling period beside it."""
    column = f"{engine}_utilization_percent"
    return Reading((column,), lambda nvml, device: {column: nvml.ask(name, device)[0]})


def _bar1(nvml: Nvml, device: Handle) -> Answers:
    memory = nvml.ask("nvmlDeviceGetBAR1MemoryInfo", device)
    return {"bar1_used_bytes": memory.bar1Used, "bar1_total_bytes": memory.bar1Total}


def _fans(nvml: Nvml, device: Handle) -> Answers:
    speeds = [
        nvml.ask("nvmlDeviceGetFanSpeed_v2", device, fan) for fan in range(nvml.ask("nvmlDeviceGetNumFans", device))
    ]
    return {"fan_speed_percent": max(speeds, default=AbsenceReason.NOT_SUPPORTED)}


_WARM_READINGS = (
    _engine("encoder", "nvmlDeviceGetEncoderUtilization"),
    _engine("decoder", "nvmlDeviceGetDecoderUtilization"),
    _engine("jpeg", "nvmlDeviceGetJpgUtilization"),
    _engine("ofa", "nvmlDeviceGetOfaUtilization"),
    Reading(("bar1_used_bytes", "bar1_total_bytes"), _bar1),
    Reading(("fan_speed_percent",), _fans),
    _number("thermal_margin_celsius", "nvmlDeviceGetMarginTemperature"),
    _number("pcie_link_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
    _number("pcie_link_width_lanes", "nvmlDeviceGetCurrPcieLinkWidth"),
)

_COLD_READINGS = tuple(
    _number(f"{limit}_temperature_celsius", "nvmlDeviceGetTemperatureThreshold", threshold)
    for limit, threshold in (
        ("slowdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        ("shutdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
    )
)

# By version: pynvml's name without one raises an error of its own kind on a driver that lacks the newest.
PROCESS_LISTS: Mapping[str, tuple[str, str]] = {
    kind: (f"nvmlDeviceGet{name}RunningProcesses_v3", f"nvmlDeviceGet{name}RunningProcesses_v2")
    for kind, name in (("compute", "Compute"), ("graphics", "Graphics"), ("mps", "MPSCompute"))
}
_MEMORY_COLUMNS = (
    "memory_kind",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_reserved_bytes",
)


def _memory(proc_folder: Path, nvml: Nvml, device: Handle) -> Answers:
    memory = _memory_info(nvml, device)
    if memory is None:
        used = _process_bytes(nvml, device)
        return {
            "memory_kind": "unified",
            **_host_memory(proc_folder),
            "memory_used_bytes": used,
            "memory_process_bytes": used,
            "memory_free_bytes": AbsenceReason.NOT_SUPPORTED,
            "memory_reserved_bytes": AbsenceReason.NOT_SUPPORTED,
        }
    return {
        "memory_kind": "dedicated",
        "memory_used_bytes": memory.used,
        "memory_total_bytes": memory.total,
        "memory_free_bytes": memory.free,
        "memory_reserved_bytes": getattr(memory, "reserved", AbsenceReason.NOT_SUPPORTED),
    }


def _memory_info(nvml: Nvml, device: Handle) -> Any | None:
    """The GPU's own memory; None where it has none and shares the host's.

    Such a GPU says NOT_SUPPORTED, and no other error, or succeeds with a total of 0.
    """
    try:
        memory = _newest_memory_info(nvml, device)
    except Absent as absent:
        if absent.code != pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return None
    return memory if memory.total else None


def _newest_memory_info(nvml: Nvml, device: Handle) -> Any:
    """With what is reserved told apart; a driver before 510 lacks that question and counts it as used."""
    try:
        return nvml.ask("nvmlDeviceGetMemoryInfo", device, version=pynvml.nvmlMemory_v2)
    except Absent as absent:
        if absent.code != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return nvml.ask("nvmlDeviceGetMemoryInfo", device)


def _host_memory(proc_folder: Path) -> Answers:
    try:
        memory = proc.meminfo_bytes(proc_folder)
        return {"memory_total_bytes": memory["MemTotal"], "memory_available_bytes": memory["MemAvailable"]}
    except proc.UNREADABLE as error:
        return dict.fromkeys(("memory_total_bytes", "memory_available_bytes"), proc.absence_reason(error))


def _process_bytes(nvml: Nvml, device: Handle) -> int | AbsenceReason:
    """Sum over the processes; one that computes and draws is on two lists, with all its memory on each."""
    processes: list[Any] = []
    for kind, names in PROCESS_LISTS.items():
        try:
            processes += nvml.ask(names, device)
        except Absent as absent:
            if kind == "compute" or absent.reason is not AbsenceReason.NOT_SUPPORTED:
                return absent.reason
    used = {process.pid: process.usedGpuMemory for process in processes}
    return AbsenceReason.NO_DATA if None in used.values() else sum(used.values())


def _asked(name: str, *arguments: Any, scaled: Callable[[Any], Any] = _plain) -> Callable[[Nvml, Handle], Any]:
    return lambda nvml, device: scaled(nvml.ask(name, device, *arguments))


def _cuda_version(nvml: Nvml, _: Handle) -> str:
    version: int = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")
    return f"{version // 1000}.{version % 1000 // 10}"


def _memory_total(nvml: Nvml, device: Handle) -> int | AbsenceReason:
    memory = _memory_info(nvml, device)
    return memory.total if memory else AbsenceReason.NOT_SUPPORTED


_ARCHITECTURES: Mapping[int, str] = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}

DESCRIPTION: Mapping[str, Callable[[Nvml, Handle], Any]] = {
    "name": _asked("nvmlDeviceGetName"),
    "serial": _asked("nvmlDeviceGetSerial"),
    "pci_bus_id": _asked("nvmlDeviceGetPciInfo", scaled=lambda pci: pci.busId),
    "architecture": _asked(
        "nvmlDeviceGetArchitecture", scaled=lambda number: _ARCHITECTURES.get(number, AbsenceReason.NO_DATA)
    ),
    "compute_capability": _asked("nvmlDeviceGetCudaComputeCapability", scaled=lambda pair: ".".join(map(str, pair))),
    "vbios_version": _asked("nvmlDeviceGetVbiosVersion"),
    "driver_version": lambda nvml, _: nvml.ask("nvmlSystemGetDriverVersion"),
    "nvml_version": lambda nvml, _: nvml.ask("nvmlSystemGetNVMLVersion"),
    "cuda_version": _cuda_version,
    "mig_enabled": _asked("nvmlDeviceGetMigMode", scaled=lambda modes: bool(modes[0])),
    "ecc_enabled": _asked("nvmlDeviceGetEccMode", scaled=lambda modes: bool(modes[0])),
    "persistence_enabled": _asked("nvmlDeviceGetPersistenceMode", scaled=bool),
    "memory_kind": lambda nvml, device: "dedicated" if _memory_info(nvml, device) else "unified",
    "memory_total_bytes": _memory_total,
    "power_limit_watts": _asked("nvmlDeviceGetEnforcedPowerLimit", scaled=_milli),
    "power_limit_default_watts": _asked("nvmlDeviceGetPowerManagementDefaultLimit", scaled=_milli),
    "clock_sm_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM, scaled=_mega),
    "clock_memory_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM, scaled=_mega),
    "pcie_link_maximum_generation": _asked("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_link_maximum_width_lanes": _asked("nvmlDeviceGetMaxPcieLinkWidth"),
}
"""What a GPU is, by column of `inventory`."""
