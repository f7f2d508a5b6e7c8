"""NVIDIA GPUs through NVML: one wide row per GPU and tick, and what each GPU is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pynvml

from collector import proc
from collector.clock import Now
from collector.nvml import ALL_LINKS, Absent, DriverAway, FieldBatch, Handle, Nvml
from collector.probe import CounterEpoch, Row
from store.events import AbsenceReason, Event

RETRY_DRIVER_S = 60.0  # a driver that is not there costs a failed dlopen each time: rarely enough to be free
RELIST_S = 10.0  # how soon a GPU that appears or leaves is noticed
REPROBE_S = 600.0  # a reading that was not supported may be after a driver reload or at the end of early boot
MEGA = 1_000_000


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


_HOT_FIELDS: tuple[tuple[int, int, str, Callable[[float], float]], ...] = (
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
"""NVML field id and scope, the column, and the way from the vendor's scale to the column's unit."""

_EPOCH_COUNTERS = (
    "energy_joules",
    *(column for _, _, column, _ in _HOT_FIELDS if column.startswith("throttle_")),
)
"""64-bit counters that only a driver reload or a GPU reset can take back; the PCIe counters wrap by themselves."""


_Answers = Mapping[str, Any]
"""For each column its value, or the `AbsenceReason` why it has none."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One call, and the columns that it fills."""

    columns: tuple[str, ...]
    read: Callable[[Nvml, Handle], _Answers]


def _number(
    column: str, names: str | tuple[str, ...], *arguments: int, scaled: Callable[[float], float] = _plain
) -> _Reading:
    """A call that answers with one number; `names` as for `Nvml.ask`."""
    return _Reading((column,), lambda nvml, device: {column: scaled(nvml.ask(names, device, *arguments))})


def _utilization(nvml: Nvml, device: Handle) -> _Answers:
    rates = nvml.ask("nvmlDeviceGetUtilizationRates", device)
    return {"utilization_percent": rates.gpu, "memory_utilization_percent": rates.memory}


def _performance_state(nvml: Nvml, device: Handle) -> _Answers:
    state = nvml.ask(("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState"), device)
    return {"performance_state": AbsenceReason.NO_DATA if state == pynvml.NVML_PSTATE_UNKNOWN else state}


_HOT_READINGS = (
    _Reading(("utilization_percent", "memory_utilization_percent"), _utilization),
    _number(
        "temperature_celsius", ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), pynvml.NVML_TEMPERATURE_GPU
    ),
    _number("clock_sm_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM, scaled=_mega),
    _number("clock_memory_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM, scaled=_mega),
    _number("clock_graphics_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_GRAPHICS, scaled=_mega),
    _number("clock_video_hertz", "nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_VIDEO, scaled=_mega),
    _Reading(("performance_state",), _performance_state),
    _number(
        "clock_event_reasons_bitmask",
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
    ),
)

_SUBSTITUTES = (
    _number("power_watts", "nvmlDeviceGetPowerUsage", scaled=_milli),
    _number("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", scaled=_milli),
)
"""Calls for columns whose field the driver does not serve: it is older than the field, or the GPU than Ampere."""

# By version: pynvml's name without one raises an error of its own kind on a driver that lacks the newest.
_PROCESS_LISTS = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
)
_MEMORY_COLUMNS = (
    "memory_kind",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_reserved_bytes",
)


@dataclass(slots=True)
class _Gpu:
    """What is known of one GPU from tick to tick; without a handle it is gone, and its rows go on, all NULL."""

    uuid: str
    index: int
    handle: Handle | None = None
    gone_because: str = ""
    is_lost: bool = False
    is_described: bool = False
    epoch: CounterEpoch = field(default_factory=lambda: CounterEpoch(_EPOCH_COUNTERS))
    unsupported_until_s: dict[_Reading, float] = field(default_factory=dict)

    def answers(self, reading: _Reading, nvml: Nvml, device: Handle, now: Now) -> _Answers:
        """What the reading gives, or why it gives nothing; one that is not supported is left alone for a while."""
        if self.unsupported_until_s.get(reading, now.monotonic_s) > now.monotonic_s:
            return dict.fromkeys(reading.columns, AbsenceReason.NOT_SUPPORTED)
        try:
            return reading.read(nvml, device)
        except Absent as absent:
            if absent.reason is AbsenceReason.NOT_SUPPORTED:
                self.unsupported_until_s[reading] = now.monotonic_s + REPROBE_S
            return dict.fromkeys(reading.columns, absent.reason)

    def attach(self, handle: Handle, index: int) -> None:
        self.is_described &= self.handle is not None and self.index == index
        self.handle, self.index = handle, index

    def let_go(self, why: str) -> None:
        """Forget the handle: a driver that comes back may have put something else where it points."""
        if self.handle is not None:
            self.handle, self.gone_because = None, why
            self.unsupported_until_s.clear()
            self.epoch.end()


class GpuProbe:
    """Reads one `gpu_sample` per GPU and tick; `inventory` and `gpu_event` when GPUs come and go.

    Without a driver it says so in `status` and looks again every minute.

    Args:
        interval_s: Time between two reads, for `interval_seconds`.
        proc: Where /proc is, for the memory of GPUs that share the host's.
        retry_driver_s: How soon a missing driver is looked for again.
        relist_s: How soon the list of GPUs is read again.
    """

    name = "gpu"

    def __init__(
        self,
        *,
        interval_s: float,
        proc: Path = Path("/proc"),
        retry_driver_s: float = RETRY_DRIVER_S,
        relist_s: float = RELIST_S,
    ) -> None:
        self._interval_s = interval_s
        self._retry_driver_s = retry_driver_s
        self._relist_s = relist_s
        self._batch = FieldBatch([(field_id, scope) for field_id, scope, _, _ in _HOT_FIELDS])
        self._readings = (
            *_HOT_READINGS,
            _Reading(_MEMORY_COLUMNS, partial(_memory, proc)),
            _Reading(("driver_sampled_at", *(column for _, _, column, _ in _HOT_FIELDS)), self._fields),
        )
        self._nvml: Nvml | None = None
        self._gpus: dict[str, _Gpu] = {}
        self._next_list_s = float("-inf")
        self._has_looked = False
        self._status = "not looked yet"

    def read(self, now: Now) -> Sequence[Event]:
        events = self._relist(now) if now.monotonic_s >= self._next_list_s else []
        for gpu in self._gpus.values():
            events += self._sample(gpu, now)
        return events

    def status(self) -> str:
        return self._status

    def close(self) -> None:
        if self._nvml:
            self._nvml.close()
        self._nvml = None
        self._gpus = {}

    def _relist(self, now: Now) -> list[Event]:
        """Take the driver's list of GPUs; what is not on it is gone, what is on it for the first time has appeared."""
        self._next_list_s = now.monotonic_s + self._relist_s
        try:
            self._nvml = self._nvml or Nvml()
            listed = _listed(self._nvml)
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return []
        except Absent as absent:
            self._status = f"the NVIDIA driver does not list its GPUs ({absent.reason})"
            return []
        new = [_Gpu(uuid, index) for uuid, (index, _) in listed.items() if uuid not in self._gpus]
        self._gpus |= {gpu.uuid: gpu for gpu in new}
        for uuid, gpu in self._gpus.items():
            if uuid in listed:
                index, handle = listed[uuid]
                gpu.attach(handle, index)
            else:
                gpu.let_go("it is no longer listed by the driver")
        self._status = _counted(len(listed))
        had_looked, self._has_looked = self._has_looked, True
        message = "it was not there when recording began"
        return [_gpu_event("appeared", gpu, now, message) for gpu in new if had_looked]

    def _lose_driver(self, now: Now, why: str) -> None:
        if self._nvml:
            self._nvml.close()
        self._nvml = None
        for gpu in self._gpus.values():
            gpu.let_go(why)
        self._status = f"no GPU: {why}"
        self._next_list_s = now.monotonic_s + self._retry_driver_s
        self._has_looked = True

    def _sample(self, gpu: _Gpu, now: Now) -> list[Event]:
        row, events = self._look(gpu, now)
        is_lost = not row.values and (gpu.handle is None or gpu.is_lost or AbsenceReason.LOST in row.absence.values())
        if is_lost:
            row.absence = {"*": AbsenceReason.LOST}
        if is_lost and not gpu.is_lost:
            why = gpu.gone_because if gpu.handle is None else "the driver says that it is lost"
            events.append(_gpu_event("lost", gpu, now, why))
        if gpu.is_lost and not is_lost:
            events.append(_gpu_event("recovered", gpu, now, "it answers again"))
        gpu.is_lost = is_lost
        values = {
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            "interval_seconds": self._interval_s,
            "counter_epoch": gpu.epoch.follow(row.values, now),
            "up": not is_lost,
            **row.event_values(),
        }
        return [Event("gpu_sample", now.wall_us, values), *events]

    def _look(self, gpu: _Gpu, now: Now) -> tuple[Row, list[Event]]:
        """What the driver says of one GPU, and at the first time what it is; nothing of a GPU that is gone."""
        nvml, device = self._nvml, gpu.handle
        if nvml is None or device is None:
            return Row(), []
        try:
            row = self._hot_row(gpu, nvml, device, now)
            if gpu.is_described or not row.values:
                return row, []
            description = {"gpu_uuid": gpu.uuid, "gpu_index": gpu.index, **_description(nvml, device)}
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return Row(), []
        gpu.is_described = True
        return row, [Event("inventory", now.wall_us, description)]

    def _hot_row(self, gpu: _Gpu, nvml: Nvml, device: Handle, now: Now) -> Row:
        row = Row()
        for reading in self._readings:
            row.put(gpu.answers(reading, nvml, device, now))
        for reading in _SUBSTITUTES:
            if reading.columns[0] in row.absence:
                row.put(gpu.answers(reading, nvml, device, now))
        return row

    def _fields(self, _: Nvml, device: Handle) -> _Answers:
        answers = self._batch.read(device)
        values = {
            column: answer if isinstance(answer, AbsenceReason) else scaled(answer)
            for (_, _, column, scaled), answer in zip(_HOT_FIELDS, answers, strict=True)
        }
        return values | {"driver_sampled_at": self._batch.sampled_at_us or AbsenceReason.NO_DATA}


def _listed(nvml: Nvml) -> dict[str, tuple[int, Handle]]:
    """UUID to index and handle of each GPU that the driver lists and that says who it is."""
    listed = {}
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        try:
            handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            listed[nvml.ask("nvmlDeviceGetUUID", handle)] = index, handle
        except Absent:
            continue  # listed but lost: it counts as gone, the others go on
    return listed


def _memory(proc_folder: Path, nvml: Nvml, device: Handle) -> _Answers:
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


def _host_memory(proc_folder: Path) -> _Answers:
    try:
        memory = proc.meminfo_bytes(proc_folder)
        return {"memory_total_bytes": memory["MemTotal"], "memory_available_bytes": memory["MemAvailable"]}
    except proc.UNREADABLE as error:
        return dict.fromkeys(("memory_total_bytes", "memory_available_bytes"), proc.absence_reason(error))


def _process_bytes(nvml: Nvml, device: Handle) -> int | AbsenceReason:
    """Sum over the processes; one that computes and draws is on both lists, with all its memory on each."""
    try:
        processes = [process for names in _PROCESS_LISTS for process in nvml.ask(names, device)]
    except Absent as absent:
        return absent.reason
    used = {process.pid: process.usedGpuMemory for process in processes}
    return AbsenceReason.NO_DATA if None in used.values() else sum(used.values())


def _counted(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}" if count else "no GPU: the NVIDIA driver lists none"


def _gpu_event(event: str, gpu: _Gpu, now: Now, message: str) -> Event:
    severity = "critical" if event == "lost" else "info"
    values = {
        "event": event,
        "gpu_uuid": gpu.uuid,
        "gpu_index": gpu.index,
        "source": "sampler",
        "severity": severity,
        "message": f"GPU {gpu.index} {event}: {message}",
    }
    return Event("gpu_event", now.wall_us, values)


def _description(nvml: Nvml, device: Handle) -> dict[str, Any]:
    row = Row()
    for column, read in _DESCRIPTION.items():
        try:
            row.put({column: read(nvml, device)})
        except Absent as absent:
            row.put({column: absent.reason})
    return {"subject": "gpu", "source": "nvml", **row.values} | ({"capabilities": row.absence} if row.absence else {})


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

_DESCRIPTION: Mapping[str, Callable[[Nvml, Handle], Any]] = {
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
