"""What is asked of a GPU, and which columns the answers fill.

Hot readings are made at every tick, warm ones every few seconds, cold ones every minute: as their columns declare. A
column of a slower tier is NULL in the rows between, without a reason: it was not asked for.

All of them belong to one GPU and one session with the driver: some remember what they read last, and each keeps the
memory that the driver answers into.
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pynvml

from collector import proc
from collector.capabilities import Capability, Ways
from collector.clock import Now
from collector.gpu_activity import DriverSamples, Gpm
from collector.gpu_processes import ProcessLists
from collector.nvml import ALL_LINKS, Absent, Call, FieldBatch, Handle, absence_reason, plain, refuse
from collector.probe import Answers
from store.events import COLD_SECONDS, GPU_SAMPLE, WARM_SECONDS, AbsenceReason

MEGA = 1_000_000
CADENCES_S = (0.0, WARM_SECONDS, COLD_SECONDS)
LINKS_MAX = 18  # NVLinks of one GPU, Hopper and Blackwell


class Reading:
    """What fills some columns of one GPU, by the first of its ways that the driver knows.

    Args:
        columns: The columns.
        ways: Newest first, as for `Ways`.
    """

    def __init__(self, columns: Sequence[str], *ways: tuple[str, Callable[[], Answers]]) -> None:
        self.columns = columns
        self.every_s = max(GPU_SAMPLE.by_name[column].every_seconds or 0.0 for column in columns)
        self.ways = ways
        self._ways = Ways(*ways)

    @property
    def capabilities(self) -> Sequence[Capability]:
        return self._ways.capabilities

    def answers(self, now: Now) -> Answers:
        """What the reading gives, or why it gives nothing.

        Raises:
            DriverAway: The driver is gone.
        """
        try:
            return self._ways.take(now)
        except Absent as absent:
            return dict.fromkeys(self.columns, absent.reason)


def _milli(value: float) -> float:
    return value / 1000.0


def _nano(value: float) -> float:
    return value / 1e9


def _kibi(value: float) -> int:
    return int(value) * 1024


def _mega(value: float) -> int:
    return int(value) * MEGA


def unscaled(value: float) -> float:
    return value


def _flag(value: float) -> bool:
    return bool(value)


class _Unwrapped:
    """A byte counter that the driver may keep in 32 bits, as one that goes on.

    A counter that falls from below 2^32 has wrapped. From above it did not: it was restarted, and its fall is seen.
    """

    def __init__(self) -> None:
        self._before = self._added = 0

    def __call__(self, value: float) -> int:
        raw = int(value)
        if raw < self._before:
            self._added = self._added + 2**32 if self._before < 2**32 else 0
        self._before = raw
        return raw + self._added


_Scale = Callable[[float], float]
_Fields = Sequence[tuple[int, int, str, Callable[[], _Scale]]]
"""NVML field id and scope, the column, and what gives the way from the vendor's scale to the column's unit."""


def _always(scaled: _Scale) -> Callable[[], _Scale]:
    return lambda: scaled


_HOT_FIELDS: _Fields = (
    (82, 0, "memory_temperature_celsius", _always(unscaled)),
    (83, 0, "energy_joules", _always(_milli)),
    (185, 0, "power_watts", _always(_milli)),
    (186, 0, "power_instant_watts", _always(_milli)),
    (190, 0, "power_limit_watts", _always(_milli)),
    (74, 0, "throttle_sw_power_cap_seconds", _always(_nano)),
    (76, 0, "throttle_sync_boost_seconds", _always(_nano)),
    (269, 0, "throttle_sw_thermal_seconds", _always(_nano)),
    (270, 0, "throttle_hw_thermal_seconds", _always(_nano)),
    (271, 0, "throttle_hw_power_brake_seconds", _always(_nano)),
    (94, 0, "pcie_replay_count", _always(unscaled)),
    (197, 0, "pcie_tx_bytes", _Unwrapped),
    (198, 0, "pcie_rx_bytes", _Unwrapped),
    (138, ALL_LINKS, "nvlink_tx_bytes", _always(_kibi)),
    (139, ALL_LINKS, "nvlink_rx_bytes", _always(_kibi)),
)

_COLD_FIELDS: _Fields = (
    (3, 0, "ecc_corrected_volatile_count", _always(unscaled)),
    (4, 0, "ecc_uncorrected_volatile_count", _always(unscaled)),
    (5, 0, "ecc_corrected_aggregate_count", _always(unscaled)),
    (6, 0, "ecc_uncorrected_aggregate_count", _always(unscaled)),
    (29, 0, "retired_pages_single_bit_count", _always(unscaled)),
    (30, 0, "retired_pages_double_bit_count", _always(unscaled)),
    (31, 0, "retired_pages_pending", _always(_flag)),
    (142, 0, "remapped_rows_corrected_count", _always(unscaled)),
    (143, 0, "remapped_rows_uncorrected_count", _always(unscaled)),
    (144, 0, "row_remap_pending", _always(_flag)),
    (145, 0, "row_remap_failed", _always(_flag)),
    (193, 0, "shutdown_margin_celsius", _always(unscaled)),
    (194, 0, "slowdown_margin_celsius", _always(unscaled)),
    (230, 0, "recovery_action", _always(unscaled)),
)

EPOCH_COUNTERS = (
    "energy_joules",
    "pcie_tx_bytes",
    "pcie_rx_bytes",
    *(column for _, _, column, _ in _HOT_FIELDS if column.startswith("throttle_")),
)
"""Counters that only a driver reload or a GPU reset can take back."""


class FieldReading(Reading):
    """Many fields in one call; each has a capability of its own.

    Args:
        device: The GPU.
        fields: The fields.
        sampled_at: The column that takes the driver's own time of them, where one does.
    """

    def __init__(self, device: Handle, fields: _Fields, *, sampled_at: str = "") -> None:
        self._batch = FieldBatch(device, [(field_id, scope) for field_id, scope, _, _ in fields])
        self._fields = [(Capability(f"field {field_id}"), column, make()) for field_id, _, column, make in fields]
        self._sampled_at = sampled_at
        self._codes: Sequence[int] = ()
        columns = [column for _, _, column, _ in fields]
        super().__init__([sampled_at, *columns] if sampled_at else columns, ("nvmlDeviceGetFieldValues", self._read))

    @property
    def capabilities(self) -> Sequence[Capability]:
        (batch,) = super().capabilities
        for capability, _, _ in self._fields:
            capability.tried_at_us = batch.tried_at_us
        return [batch, *(capability for capability, _, _ in self._fields)]

    def answers(self, now: Now) -> Answers:
        codes, answers = self._codes, super().answers(now)
        if self._codes != codes:
            for (capability, column, _), code in zip(self._fields, self._codes, strict=True):
                if code:
                    capability.note(code, answers[column], now)
                else:
                    capability.worked(now)
        return answers

    def _read(self) -> Answers:
        self._codes, told = self._batch.read()
        answers = {
            column: value if isinstance(value, AbsenceReason) else scaled(value)
            for (_, column, scaled), value in zip(self._fields, told, strict=True)
        }
        if self._sampled_at:
            answers[self._sampled_at] = self._batch.sampled_at_us or AbsenceReason.NO_DATA
        return answers


def gpu_readings(device: Handle, proc_folder: Path) -> list[Reading]:
    """All readings of one GPU.

    Args:
        device: The GPU.
        proc_folder: Where /proc is, for the memory of a GPU that shares the host's.
    """
    return [
        _structure(
            device,
            ("nvmlDeviceGetUtilizationRates",),
            pynvml.c_nvmlUtilization_t,
            {"utilization_percent": "gpu", "memory_utilization_percent": "memory"},
        ),
        _temperature(device),
        *_clocks(device),
        _performance_state(device),
        _number(
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
        _structure(
            device,
            ("nvmlDeviceGetBAR1MemoryInfo",),
            pynvml.c_nvmlBAR1Memory_t,
            {"bar1_used_bytes": "bar1Used", "bar1_total_bytes": "bar1Total"},
        ),
        Reading(("fan_speed_percent",), ("nvmlDeviceGetFanSpeed_v2", _fans(device))),
        Reading(
            ("thermal_margin_celsius",),
            _versioned(device, "thermal_margin_celsius", "nvmlDeviceGetMarginTemperature"),
        ),
        _number(device, "pcie_link_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
        _number(device, "pcie_link_width_lanes", "nvmlDeviceGetCurrPcieLinkWidth"),
        FieldReading(device, _COLD_FIELDS),
        *_temperature_thresholds(device),
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
        _number(device, "power_watts", "nvmlDeviceGetPowerUsage", scaled=_milli),
        _number(device, "power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", scaled=_milli),
        link_sums(device, {"nvlink_tx_bytes": 202, "nvlink_rx_bytes": 204}),
    ]


def _number(
    device: Handle,
    column: str,
    *names: str,
    arguments: Sequence[int] = (),
    scaled: _Scale = unscaled,
    out: type[Any] = ctypes.c_uint,
) -> Reading:
    """Calls that answer with one number; `names` are functions of one signature, newest first."""

    def way(name: str) -> tuple[str, Callable[[], Answers]]:
        answer = out()
        call = Call(name, device, *arguments, ctypes.byref(answer))

        def read() -> Answers:
            call()
            return {column: scaled(answer.value)}

        return " ".join([name, *map(str, arguments)]), read

    return Reading((column,), *map(way, names))


def _structure(
    device: Handle, names: Sequence[str], layout: type[ctypes.Structure], members: Mapping[str, str]
) -> Reading:
    """Calls that fill a structure; `members` are the columns and what the structure calls them."""
    answer = plain(layout)()

    def way(name: str) -> tuple[str, Callable[[], Answers]]:
        call = Call(name, device, ctypes.byref(answer))

        def read() -> Answers:
            call()
            return {column: getattr(answer, member) for column, member in members.items()}

        return name, read

    return Reading(tuple(members), *map(way, names))


def _temperature(device: Handle) -> Reading:
    """The call of drivers since 565, and the older one."""
    column, sensor = "temperature_celsius", pynvml.NVML_TEMPERATURE_GPU
    older = _number(device, column, "nvmlDeviceGetTemperature", arguments=[sensor])
    return Reading((column,), _versioned(device, column, "nvmlDeviceGetTemperatureV", sensor), *older.ways)


def _versioned(device: Handle, column: str, name: str, *asked: int) -> tuple[str, Callable[[], Answers]]:
    """A call with a structure of 32-bit words: its version 1, what is asked, and last the answer.

    An older nvidia-ml-py has no such structures, though the driver may know the call.
    """
    layout = ctypes.c_int * (len(asked) + 2)
    words = layout(ctypes.sizeof(layout) | 1 << 24, *asked)
    call = Call(name, device, ctypes.byref(words))

    def read() -> Answers:
        call()
        return {column: words[-1]}

    return name, read


def _clocks(device: Handle) -> Iterator[Reading]:
    for domain, number in (
        ("sm", pynvml.NVML_CLOCK_SM),
        ("memory", pynvml.NVML_CLOCK_MEM),
        ("graphics", pynvml.NVML_CLOCK_GRAPHICS),
        ("video", pynvml.NVML_CLOCK_VIDEO),
    ):
        yield _number(device, f"clock_{domain}_hertz", "nvmlDeviceGetClockInfo", arguments=[number], scaled=_mega)


def _performance_state(device: Handle) -> Reading:
    def known(state: float) -> Any:
        return AbsenceReason.NO_DATA if state == pynvml.NVML_PSTATE_UNKNOWN else state

    names = ("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState")
    return _number(device, "performance_state", *names, scaled=known)


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


def _temperature_thresholds(device: Handle) -> Iterator[Reading]:
    for limit, threshold in (
        ("slowdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        ("shutdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
    ):
        yield _number(
            device, f"{limit}_temperature_celsius", "nvmlDeviceGetTemperatureThreshold", arguments=[threshold]
        )


_SAMPLE_BUFFERS: Sequence[tuple[int, str, str, _Scale]] = (
    (pynvml.NVML_TOTAL_POWER_SAMPLES, "power", "watts", _milli),
    (pynvml.NVML_GPU_UTILIZATION_SAMPLES, "utilization", "percent", unscaled),
)
"""Which buffer of the driver, and the quantity, unit and scale of what it holds."""


def _driver_samples(device: Handle, sampling_type: int, quantity: str, unit: str, scaled: _Scale) -> Reading:
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


def link_sums(device: Handle, columns: Mapping[str, int]) -> Reading:
    """Sums over the NVLinks of fields that each link has.

    Args:
        device: The GPU.
        columns: Each column and its field.
    """
    batch = FieldBatch(device, [(field_id, link) for field_id in columns.values() for link in range(LINKS_MAX)])

    def read() -> Answers:
        _, values = batch.read()
        return {
            column: _sum(values[place * LINKS_MAX : (place + 1) * LINKS_MAX]) for place, column in enumerate(columns)
        }

    return Reading(tuple(columns), ("fields " + " ".join(map(str, columns.values())) + " by link", read))


def _sum(values: Sequence[float | AbsenceReason]) -> float | AbsenceReason:
    """The sum of what is there; where nothing is, the reason of the first."""
    known = [value for value in values if not isinstance(value, AbsenceReason)]
    return sum(known) if known else values[0]


# --- memory


_MEMORY_COLUMNS = (
    "memory_kind",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_reserved_bytes",
)


class MemoryReading(Reading):
    """The memory of a GPU or MIG device or, where it has none of its own, the host's.

    A GPU that shares the host's memory says NOT_SUPPORTED, and no other error, or succeeds with a total of 0. The
    newer of the calls tells apart what is reserved; a driver before 510 lacks it and counts that as used.

    Args:
        device: The GPU or MIG device.
        proc_folder: Where /proc is.
    """

    def __init__(self, device: Handle, proc_folder: Path) -> None:
        self._proc_folder = proc_folder
        self._processes = ProcessLists(device)
        self._code = pynvml.NVML_ERROR_UNKNOWN
        self._now: Now
        newer = plain(pynvml.c_nvmlMemory_v2_t)(version=pynvml.nvmlMemory_v2)
        super().__init__(
            _MEMORY_COLUMNS,
            self._dedicated(device, "nvmlDeviceGetMemoryInfo_v2", newer),
            self._dedicated(device, "nvmlDeviceGetMemoryInfo", plain(pynvml.c_nvmlMemory_t)()),
            ("/proc/meminfo", self._unified),
        )

    def answers(self, now: Now) -> Answers:
        self._now = now
        return super().answers(now)

    def _dedicated(self, device: Handle, name: str, memory: Any) -> tuple[str, Callable[[], Answers]]:
        call = Call(name, device, ctypes.byref(memory))

        def read() -> Answers:
            code = call.code()
            is_nothing = code == pynvml.NVML_SUCCESS and not memory.total
            self._code = pynvml.NVML_ERROR_NOT_SUPPORTED if is_nothing else code
            refuse(self._code)
            return {
                "memory_kind": "dedicated",
                "memory_used_bytes": memory.used,
                "memory_total_bytes": memory.total,
                "memory_free_bytes": memory.free,
                "memory_reserved_bytes": getattr(memory, "reserved", AbsenceReason.NOT_SUPPORTED),
            }

        return name, read

    def _unified(self) -> Answers:
        if self._code != pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise Absent(absence_reason(self._code), self._code)
        used = self._processes.memory_used_bytes(self._now)
        return {
            "memory_kind": "unified",
            **_host_memory(self._proc_folder),
            "memory_used_bytes": used,
            "memory_process_bytes": used,
            "memory_free_bytes": AbsenceReason.NOT_SUPPORTED,
            "memory_reserved_bytes": AbsenceReason.NOT_SUPPORTED,
        }


def _host_memory(proc_folder: Path) -> Answers:
    try:
        memory = proc.meminfo_bytes(str(proc_folder))
        return {"memory_total_bytes": memory["MemTotal"], "memory_available_bytes": memory["MemAvailable"]}
    except proc.UNREADABLE as error:
        return dict.fromkeys(("memory_total_bytes", "memory_available_bytes"), proc.absence_reason(error))
