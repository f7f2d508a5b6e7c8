"""NVIDIA GPUs through NVML: one wide row per GPU and tick, and what each GPU is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pynvml

from collector.clock import Now
from collector.nvml import ALL_LINKS, Absent, DriverAway, FieldBatch, Handle, Nvml
from store.events import AbsenceReason, Event

RETRY_DRIVER_S = 60.0  # a driver that is not there costs a failed dlopen each time: rarely enough to be free
RELIST_S = 10.0  # how soon a GPU that appears or leaves is noticed
REPROBE_S = 600.0  # a reading that was not supported may be after a driver reload or at the end of early boot
MEGA = 1_000_000

_Values = dict[str, Any]


def _milli(value: float) -> float:
    return value / 1000.0


def _nano(value: float) -> float:
    return value / 1e9


def _kibi(value: float) -> int:
    return int(value) * 1024


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


@dataclass(frozen=True, slots=True)
class _Reading:
    """One call that fills one or more columns."""

    columns: tuple[str, ...]
    read: Callable[[Nvml, Handle], _Values]


def _utilization(nvml: Nvml, device: Handle) -> _Values:
    rates = nvml.ask("nvmlDeviceGetUtilizationRates", device)
    return {"utilization_percent": rates.gpu, "memory_utilization_percent": rates.memory}


def _temperature(nvml: Nvml, device: Handle) -> _Values:
    names = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
    return {"temperature_celsius": nvml.ask(names, device, pynvml.NVML_TEMPERATURE_GPU)}


def _performance_state(nvml: Nvml, device: Handle) -> _Values:
    state = nvml.ask(("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState"), device)
    if state == pynvml.NVML_PSTATE_UNKNOWN:
        raise Absent(AbsenceReason.NO_DATA)
    return {"performance_state": state}


def _event_reasons(nvml: Nvml, device: Handle) -> _Values:
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    return {"clock_event_reasons_bitmask": nvml.ask(names, device)}


def _clock_reading(domain: str, clock_type: int) -> _Reading:
    column = f"clock_{domain}_hertz"
    return _Reading(
        (column,),
        lambda nvml, device: {column: nvml.ask("nvmlDeviceGetClockInfo", device, clock_type) * MEGA},
    )


_HOT_READINGS = (
    _Reading(("utilization_percent", "memory_utilization_percent"), _utilization),
    _Reading(("temperature_celsius",), _temperature),
    _clock_reading("sm", pynvml.NVML_CLOCK_SM),
    _clock_reading("memory", pynvml.NVML_CLOCK_MEM),
    _clock_reading("graphics", pynvml.NVML_CLOCK_GRAPHICS),
    _clock_reading("video", pynvml.NVML_CLOCK_VIDEO),
    _Reading(("performance_state",), _performance_state),
    _Reading(("clock_event_reasons_bitmask",), _event_reasons),
)

# By version: pynvml's name without one raises an error of its own kind on a driver that lacks the newest.
_PROCESS_CALLS = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
_MEMORY_COLUMNS = ("memory_used_bytes", "memory_total_bytes", "memory_free_bytes", "memory_reserved_bytes")


@dataclass(slots=True)
class _Gpu:
    """What is known of one GPU from tick to tick."""

    handle: Handle
    uuid: str
    index: int
    batch: FieldBatch
    is_unified: bool = False
    is_lost: bool = False
    epoch: int = 0
    counters: Mapping[str, float] = field(default_factory=dict)
    unsupported_until_s: dict[str, float] = field(default_factory=dict)


class GpuProbe:
    """Reads one `gpu_sample` per GPU and tick; `inventory` and `gpu_event` when GPUs come and go.

    Without a driver it reads nothing, says so in `status`, and looks again every minute.

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
        self._proc = proc
        self._retry_driver_s = retry_driver_s
        self._relist_s = relist_s
        self._nvml: Nvml | None = None
        self._gpus: dict[str, _Gpu] = {}
        self._epoch = 0
        self._next_list_s = float("-inf")
        self._was_empty_at_start: bool | None = None
        self._status = "not looked yet"

    def read(self, now: Now) -> Sequence[Event]:
        try:
            events = self._relist(now) if now.monotonic_s >= self._next_list_s else []
            if self._nvml is None:
                return events
            return [*events, *(event for gpu in self._gpus.values() for event in self._sample(gpu, now))]
        except DriverAway as away:
            return self._driver_went(now, str(away))

    def status(self) -> str:
        return self._status

    def close(self) -> None:
        if self._nvml:
            self._nvml.close()
        self._nvml = None
        self._gpus = {}

    def _driver_went(self, now: Now, why: str) -> list[Event]:
        events = [_gpu_event("lost", gpu, now, why) for gpu in self._gpus.values() if not gpu.is_lost]
        self.close()
        self._epoch += 1  # whatever comes back counts anew
        self._status = f"no GPU: {why}"
        self._next_list_s = now.monotonic_s + self._retry_driver_s
        if self._was_empty_at_start is None:
            self._was_empty_at_start = True
        return events

    def _relist(self, now: Now) -> list[Event]:
        nvml = self._nvml or Nvml()
        self._nvml = nvml
        self._next_list_s = now.monotonic_s + self._relist_s
        found = {gpu.uuid: gpu for gpu in self._present(nvml)}
        new = [gpu for uuid, gpu in found.items() if uuid not in self._gpus]
        gone = [gpu for uuid, gpu in self._gpus.items() if uuid not in found and not gpu.is_lost]
        is_first = self._was_empty_at_start is None
        self._was_empty_at_start = not found if is_first else self._was_empty_at_start
        for gpu in gone:
            gpu.is_lost = True  # its rows go on, all NULL, so that the loss can be seen
        for uuid, gpu in found.items():
            if uuid in self._gpus:
                self._gpus[uuid].handle, self._gpus[uuid].index = gpu.handle, gpu.index
            else:
                self._gpus[uuid] = gpu
        self._status = _counted(len(found))
        return [
            *(_gpu_event("lost", gpu, now, "it is no longer listed by the driver") for gpu in gone),
            *(_gpu_event("appeared", gpu, now, "it was not there when recording began") for gpu in new if not is_first),
            *(Event("inventory", now.wall_us, self._description(nvml, gpu)) for gpu in new),
        ]

    def _present(self, nvml: Nvml) -> list[_Gpu]:
        gpus = []
        for index in range(nvml.ask("nvmlDeviceGetCount")):
            try:
                handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
                uuid = nvml.ask("nvmlDeviceGetUUID", handle)
            except Absent:
                continue  # listed but lost: it counts as gone, the others go on
            batch = FieldBatch(handle, [(field_id, scope) for field_id, scope, _, _ in _HOT_FIELDS])
            gpus.append(_Gpu(handle, uuid, index, batch, epoch=self._epoch))
        return gpus

    def _sample(self, gpu: _Gpu, now: Now) -> list[Event]:
        values, absence = self._hot_row(gpu, now)
        was_lost, gpu.is_lost = gpu.is_lost, AbsenceReason.LOST in absence.values() and not values
        events = []
        if gpu.is_lost:
            absence = {"*": AbsenceReason.LOST}
        if gpu.is_lost and not was_lost:
            events.append(_gpu_event("lost", gpu, now, "the driver says that it is lost"))
        if was_lost and not gpu.is_lost:
            events.append(_gpu_event("recovered", gpu, now, "it answers again"))
        self._follow_epoch(gpu, values)
        row = {
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            "interval_seconds": self._interval_s,
            "counter_epoch": gpu.epoch,
            "up": not gpu.is_lost,
            "driver_sampled_at": None if gpu.is_lost else gpu.batch.sampled_at_us,
            **values,
            **({"absence": absence} if absence else {}),
        }
        return [Event("gpu_sample", now.wall_us, row), *events]

    def _hot_row(self, gpu: _Gpu, now: Now) -> tuple[_Values, dict[str, AbsenceReason]]:
        values: _Values = {}
        absence: dict[str, AbsenceReason] = {}
        nvml = self._nvml
        assert nvml is not None  # noqa: S101 - read() asks for rows only in a session
        for reading in _HOT_READINGS:
            self._take(gpu, now, reading.columns, partial(reading.read, nvml, gpu.handle), values, absence)
        self._take(gpu, now, _MEMORY_COLUMNS, partial(self._memory, nvml, gpu), values, absence)
        self._take_fields(gpu, values, absence)
        if "power_watts" in absence:  # before Ampere, and where the field is not served
            read_power = lambda: {"power_watts": _milli(nvml.ask("nvmlDeviceGetPowerUsage", gpu.handle))}  # noqa: E731
            absence.pop("power_watts")
            self._take(gpu, now, ("power_watts",), read_power, values, absence)
        return values, absence

    @staticmethod
    def _take(
        gpu: _Gpu,
        now: Now,
        columns: tuple[str, ...],
        read: Callable[[], _Values],
        values: _Values,
        absence: dict[str, AbsenceReason],
    ) -> None:
        if gpu.unsupported_until_s.get(columns[0], 0.0) > now.monotonic_s:
            absence |= dict.fromkeys(columns, AbsenceReason.NOT_SUPPORTED)
            return
        try:
            got = read()
        except Absent as absent:
            absence |= dict.fromkeys(columns, absent.reason)
            if absent.reason is AbsenceReason.NOT_SUPPORTED:
                gpu.unsupported_until_s[columns[0]] = now.monotonic_s + REPROBE_S
            return
        values |= got
        absence |= {column: AbsenceReason.NOT_SUPPORTED for column in columns if column not in got}

    @staticmethod
    def _take_fields(gpu: _Gpu, values: _Values, absence: dict[str, AbsenceReason]) -> None:
        try:
            answers = gpu.batch.read()
        except Absent as absent:
            absence |= {column: absent.reason for _, _, column, _ in _HOT_FIELDS}
            return
        for (_, _, column, scaled), answer in zip(_HOT_FIELDS, answers, strict=True):
            if isinstance(answer, AbsenceReason):
                absence[column] = answer
            else:
                values[column] = scaled(answer)

    def _memory(self, nvml: Nvml, gpu: _Gpu) -> _Values:
        try:
            memory = nvml.ask("nvmlDeviceGetMemoryInfo", gpu.handle, version=pynvml.nvmlMemory_v2)
        except Absent as absent:
            if absent.reason is not AbsenceReason.NOT_SUPPORTED:
                raise
            memory = None
        # A GPU without memory of its own says NOT_SUPPORTED, or succeeds with a total of 0.
        gpu.is_unified = memory is None or memory.total == 0
        if gpu.is_unified:
            return self._unified_memory(nvml, gpu)
        return {
            "memory_kind": "dedicated",
            "memory_used_bytes": memory.used,
            "memory_total_bytes": memory.total,
            "memory_free_bytes": memory.free,
            "memory_reserved_bytes": memory.reserved,
        }

    def _unified_memory(self, nvml: Nvml, gpu: _Gpu) -> _Values:
        kib = _meminfo(self._proc)
        values: _Values = {
            "memory_kind": "unified",
            "memory_total_bytes": kib["MemTotal"] * 1024,
            "memory_available_bytes": kib["MemAvailable"] * 1024,
        }
        try:
            processes = nvml.ask(_PROCESS_CALLS, gpu.handle)
        except Absent:
            return values
        used = [process.usedGpuMemory for process in processes]
        if None not in used:
            values["memory_used_bytes"] = values["memory_process_bytes"] = sum(used)
        return values

    @staticmethod
    def _follow_epoch(gpu: _Gpu, values: _Values) -> None:
        now = {column: values[column] for column in _EPOCH_COUNTERS if column in values}
        if any(now[column] < before for column, before in gpu.counters.items() if column in now):
            gpu.epoch += 1
        gpu.counters = {**gpu.counters, **now}

    def _description(self, nvml: Nvml, gpu: _Gpu) -> _Values:
        known: _Values = {}
        capabilities: dict[str, AbsenceReason] = {}
        for column, read in _DESCRIPTION.items():
            try:
                known[column] = read(nvml, gpu.handle)
            except Absent as absent:
                capabilities[column] = absent.reason
        return {
            "subject": "gpu",
            "source": "nvml",
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            **known,
            **({"capabilities": capabilities} if capabilities else {}),
        }


def _meminfo(proc: Path) -> dict[str, int]:
    lines = (line.partition(":") for line in (proc / "meminfo").read_text().splitlines())
    return {name: int(rest.split()[0]) for name, _, rest in lines}


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


def _asked(name: str, *arguments: Any) -> Callable[[Nvml, Handle], Any]:
    return lambda nvml, device: nvml.ask(name, device, *arguments)


def _cuda_version(nvml: Nvml, _: Handle) -> str:
    version: int = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")
    return f"{version // 1000}.{version % 1000 // 10}"


def _memory_kind(nvml: Nvml, device: Handle) -> str:
    return "dedicated" if _memory_total(nvml, device) else "unified"


def _memory_total(nvml: Nvml, device: Handle) -> int | None:
    try:
        total: int = nvml.ask("nvmlDeviceGetMemoryInfo", device).total
    except Absent as absent:
        if absent.reason is not AbsenceReason.NOT_SUPPORTED:
            raise
        return None
    return total or None


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
}

_DESCRIPTION: Mapping[str, Callable[[Nvml, Handle], Any]] = {
    "name": _asked("nvmlDeviceGetName"),
    "serial": _asked("nvmlDeviceGetSerial"),
    "pci_bus_id": lambda nvml, device: nvml.ask("nvmlDeviceGetPciInfo", device).busId,
    "architecture": lambda nvml, device: _ARCHITECTURES.get(nvml.ask("nvmlDeviceGetArchitecture", device)),
    "compute_capability": lambda nvml, device: ".".join(
        map(str, nvml.ask("nvmlDeviceGetCudaComputeCapability", device))
    ),
    "vbios_version": _asked("nvmlDeviceGetVbiosVersion"),
    "driver_version": lambda nvml, _: nvml.ask("nvmlSystemGetDriverVersion"),
    "nvml_version": lambda nvml, _: nvml.ask("nvmlSystemGetNVMLVersion"),
    "cuda_version": _cuda_version,
    "mig_enabled": lambda nvml, device: bool(nvml.ask("nvmlDeviceGetMigMode", device)[0]),
    "ecc_enabled": lambda nvml, device: bool(nvml.ask("nvmlDeviceGetEccMode", device)[0]),
    "persistence_enabled": lambda nvml, device: bool(nvml.ask("nvmlDeviceGetPersistenceMode", device)),
    "memory_kind": _memory_kind,
    "memory_total_bytes": _memory_total,
    "power_limit_watts": lambda nvml, device: _milli(nvml.ask("nvmlDeviceGetEnforcedPowerLimit", device)),
    "power_limit_default_watts": lambda nvml, device: _milli(
        nvml.ask("nvmlDeviceGetPowerManagementDefaultLimit", device)
    ),
    "clock_sm_maximum_hertz": lambda nvml, device: (
        nvml.ask("nvmlDeviceGetMaxClockInfo", device, pynvml.NVML_CLOCK_SM) * MEGA
    ),
    "clock_memory_maximum_hertz": lambda nvml, device: (
        nvml.ask("nvmlDeviceGetMaxClockInfo", device, pynvml.NVML_CLOCK_MEM) * MEGA
    ),
    "pcie_link_maximum_generation": _asked("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_link_maximum_width_lanes": _asked("nvmlDeviceGetMaxPcieLinkWidth"),
}
