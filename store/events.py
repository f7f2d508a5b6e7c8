"""Every kind of event, declared once.

A field's name ends in its unit, and that name is the quantity's only name: a column in Parquet and SQL,
the tail of the metric's name in MCP and on the command line, the tail of its Prometheus family. Arrow
schemas, DuckDB types, Prometheus families, JSON Schema and the reference page are derived from these
declarations by `store.derivations`; nothing else in gpuledger writes a shape down.

Absence is NULL. Why a value is absent stands beside it, in the row's `absence` (a JSON object from field to
reason): see `AbsenceReason`. A field that is NULL and not named there was not asked for in that row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

ColumnType = Literal["bool", "int32", "int64", "float32", "float64", "decimal", "string", "strings", "json", "time"]
"""`decimal` is DECIMAL(18,3): exact, and in Parquet an integer that delta-encodes to half the bytes of a float64.
`time` is UTC with microseconds. `strings` is a list of strings. `json` is text that holds one JSON value."""

Instrument = Literal["gauge", "counter", "state", "label"]
"""gauge: goes up and down. counter: only grows within one counter epoch. state: an enumeration, a flag or a set of
bits. label: says what the row is about."""

UNITS: Mapping[str, str] = {
    "percent": "%",
    "ratio": "",
    "bytes": "B",
    "second": "B/s",
    "watts": "W",
    "joules": "J",
    "celsius": "°C",
    "hertz": "Hz",
    "seconds": "s",
    "tokens": "tokens",
    "count": "",
    "usd": "USD",
    "lanes": "lanes",
    "generation": "",
    "bitmask": "",
}
"""The last word of a measured field's name, and the sign for it that a table shows."""


class AbsenceReason(StrEnum):
    """Why a value is NULL."""

    NOT_SUPPORTED = "not_supported"  # this device, driver or kernel has no such reading
    NO_PERMISSION = "no_permission"  # it has, and refuses to tell this user
    LOST = "lost"  # the device is gone: fallen off the bus, being reset
    NO_DATA = "no_data"  # it was asked and had nothing to say
    STALE = "stale"  # the newest reading is too old to stand for now
    SUSPECT = "suspect"  # the device said 0, which cannot be true
    SUSPENDED = "suspended"  # the device sleeps, or is left alone so that it can, and is not woken to be asked


def stale_after_s(interval_s: float) -> float:
    """The age beyond which a reading taken every `interval_s` no longer stands for now: three intervals, at least 3 s."""
    return max(3 * interval_s, 3.0)


@dataclass(frozen=True, slots=True)
class Family:
    """The Prometheus family in which a field appears, where it is not the one derived from the field's name.

    Args:
        name: Family name without the `_total` that Prometheus adds to counters.
        labels: Labels that tell this field from the others of its family.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One column of one kind.

    Args:
        name: Column name; a gauge's or counter's last word is its unit (`UNITS`).
        type: Column type.
        meaning: What it says, in its source's words.
        source: The call, file or attribute that it is read from.
        instrument: How it behaves over time.
        since: Version of the kind that introduced it.
        family: Prometheus family, where the derived one does not do.
        dcgm: The name NVIDIA DCGM gives to it.
        otel: The name OpenTelemetry gives to it.
        bits: For a set of bits: the value of each bit and the reason it stands for.
        every_seconds: How often it is read, where that is not with every row; it is NULL in the rows between.
        is_never_zero: A device that says 0 does not know: the value is NULL, because it is suspect.
        is_looked_up: One row, or a few, is asked for by it: sealed files tell without reading them whether they have
        it.
    """

    name: str
    type: ColumnType
    meaning: str
    source: str = ""
    instrument: Instrument = "label"
    since: int = 1
    family: Family | None = None
    dcgm: str | None = None
    otel: str | None = None
    bits: Mapping[int, str] | None = None
    every_seconds: float | None = None
    is_never_zero: bool = False
    is_looked_up: bool = False

    @property
    def is_measured(self) -> bool:
        return self.instrument in ("gauge", "counter")

    @property
    def unit(self) -> str:
        """The last word of a measured field's name; empty for labels and states without one."""
        last_word = self.name.rsplit("_", 1)[-1]
        return last_word if last_word in UNITS else ""


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of event.

    Args:
        name: Name of the view in SQL and of the folder in the ledger.
        version: Version of the shape and meaning; one more for a changed meaning, not for a new column.
        row: What one row is.
        cadence: About how often one is written.
        fields: Its own columns, after the common ones.
        subject: First word of its metrics' names; empty where each field's name begins with its own subject.
        series: The columns that tell one series of samples from another.
        expected_every_seconds: Cadence of a sample kind; None for kinds written as things happen.
    """

    name: str
    version: int
    row: str
    cadence: str
    fields: tuple[Field, ...]
    subject: str = ""
    series: tuple[str, ...] = ()
    expected_every_seconds: float | None = None

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """The common columns and its own, in the order they are stored."""
        return COMMON_FIELDS + self.fields

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        return {column.name: column for column in self.columns}

    def metric_name(self, column: Field) -> str:
        """`gpu.power_watts` for gpu_sample's power_watts; `cpu.utilization_percent` for the host's."""
        if self.subject:
            return f"{self.subject}.{column.name}"
        return column.name.replace("_", ".", 1)


@dataclass(frozen=True, slots=True)
class Event:
    """One event on its way into the ledger, which adds seq, host and boot.

    Args:
        kind: Name of a declared kind.
        observed_at_us: When it was observed, microseconds since the epoch, UTC.
        values: Field name to value; what is left out is NULL.
    """

    kind: str
    observed_at_us: int
    values: Mapping[str, Any]


WARM_SECONDS = 5.0
COLD_SECONDS = 60.0


def _label(name: str, kind: ColumnType, meaning: str, source: str = "", **more: Any) -> Field:
    return Field(name, kind, meaning, source, "label", **more)


def _state(name: str, kind: ColumnType, meaning: str, source: str = "", **more: Any) -> Field:
    return Field(name, kind, meaning, source, "state", **more)


def _gauge(name: str, kind: ColumnType, meaning: str, source: str = "", **more: Any) -> Field:
    return Field(name, kind, meaning, source, "gauge", **more)


def _counter(name: str, kind: ColumnType, meaning: str, source: str = "", **more: Any) -> Field:
    return Field(name, kind, meaning, source, "counter", **more)


COMMON_FIELDS = (
    _label("seq", "int64", "Position in this ledger: a total order over all kinds.", "ledger"),
    _label("observed_at", "time", "When it was observed, UTC.", "CLOCK_REALTIME"),
    _label("host", "string", "The machine it was observed on.", "gethostname(2)"),
    _label("boot_id", "string", "The boot it belongs to.", "/proc/sys/kernel/random/boot_id"),
)

_SAMPLE_FIELDS = (
    _label("interval_seconds", "float32", "The sampling interval in force: the time this row stands for."),
    _label(
        "counter_epoch",
        "int32",
        "Changes when the counters of this row restarted (driver reload, GPU reset, start of the collector): "
        "differences are taken within one epoch.",
    ),
    _label("absence", "json", "Why values of this row are NULL: an object from field to reason."),
)

CLOCK_EVENT_REASONS: Mapping[int, str] = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
"""nvmlClocksEventReason* (nvml.h). 0x1 says that nothing asks for clocks; the others say what holds them down."""


def _clock(domain: str, source: str, dcgm: str | None) -> Field:
    return _gauge(
        f"clock_{domain}_hertz",
        "int64",
        f"Current frequency of the {domain} clock domain.",
        source,
        family=Family("dgx_gpu_clock_hertz", (("domain", domain),)),
        dcgm=dcgm,
        is_never_zero=domain in ("sm", "memory"),
    )


def _throttle(reason: str, meaning: str, source: str, dcgm: str | None = None) -> Field:
    return _counter(
        f"throttle_{reason}_seconds",
        "decimal",
        meaning,
        source,
        family=Family("dgx_gpu_throttle_seconds", (("reason", reason),)),
        dcgm=dcgm,
    )


def _below_clocks(clocks: str, source: str, dcgm: str) -> Field:
    return _counter(
        f"throttle_{clocks}_clocks_seconds",
        "decimal",
        f"Total time the GPU was held below {clocks} clocks by any limiter.",
        source,
        family=Family("dgx_gpu_below_clocks_seconds", (("clocks", clocks),)),
        dcgm=dcgm,
    )


def _per_second(bus: str, direction: str, meaning: str, metric_id: int) -> Field:
    return _gauge(
        f"{bus}_{direction}_bytes_per_second",
        "int64",
        f"{meaning}, mean since the row before.",
        f"nvmlGpmMetricsGet {metric_id}",
        family=Family(f"dgx_gpu_{bus}_bytes_per_second", (("direction", direction),)),
        dcgm=f"DCGM_FI_PROF_{bus.upper()}_{direction.upper()}_BYTES",
    )


def _ecc(error: str, scope: str, field_id: int, dcgm: str) -> Field:
    return _counter(
        f"ecc_{error}_{scope}_count",
        "int64",
        f"ECC errors, {error}, {'since the last driver load' if scope == 'volatile' else 'over the lifetime'}.",
        f"field {field_id}",
        family=Family("dgx_gpu_ecc_errors", (("type", error), ("scope", scope))),
        every_seconds=COLD_SECONDS,
        dcgm=dcgm,
        otel=f"hw.errors{{error.type={error}}}",
    )


def _ecc_place(error: str, scope: str, place: str) -> Field:
    words = "off-chip memory" if place == "dram" else "the memories on the chip"
    return _counter(
        f"ecc_{error}_{scope}_{place}_count",
        "int64",
        f"ECC errors in {words}, {error}, {'since the last driver load' if scope == 'volatile' else 'over the lifetime'}.",
        "nvmlDeviceGetMemoryErrorCounter",
        family=Family("dgx_gpu_ecc_place_errors", (("type", error), ("scope", scope), ("place", place))),
        every_seconds=COLD_SECONDS,
    )


def _ecc_sram(check: str, scope: str, member: str) -> Field:
    return _counter(
        f"ecc_sram_{check}_{scope}_count",
        "int64",
        f"Uncorrectable errors of SRAM found by {'parity' if check == 'parity' else 'SEC-DED'}, "
        f"{'since the last driver load' if scope == 'volatile' else 'over the lifetime'}.",
        f"nvmlDeviceGetSramEccErrorStatus.{member}",
        family=Family("dgx_gpu_ecc_sram_errors", (("check", check), ("scope", scope))),
        every_seconds=COLD_SECONDS,
    )


def _ecc_sram_unit(unit: str, words: str, member: str) -> Field:
    return _counter(
        f"ecc_sram_{unit}_aggregate_count",
        "int64",
        f"Uncorrectable errors of SRAM in {words}, over the lifetime.",
        f"nvmlDeviceGetSramEccErrorStatus.{member}",
        family=Family("dgx_gpu_ecc_sram_unit_errors", (("unit", unit),)),
        every_seconds=COLD_SECONDS,
    )


def _remap_banks(availability: str, words: str, dcgm: str) -> Field:
    return _gauge(
        f"remap_banks_{availability}_count",
        "int32",
        f"Banks of memory with {words}.",
        f"nvmlDeviceGetRowRemapperHistogram.{'max' if availability == 'maximum' else availability}",
        family=Family("dgx_gpu_remap_banks", (("availability", availability),)),
        dcgm=f"DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_{dcgm}",
        every_seconds=COLD_SECONDS,
    )


def _sessions(what: str, words: str, source: str, dcgm: str) -> tuple[Field, ...]:
    more: Mapping[str, Any] = {"source": source, "dcgm": dcgm, "every_seconds": WARM_SECONDS}
    return (
        _gauge(f"{what}_sessions_count", "int32", f"Active sessions of {words}.", **more),
        _gauge(f"{what}_frame_rate_hertz", "int32", f"Frames per second, mean over the sessions of {words}; none without any.", **more),
        _gauge(f"{what}_latency_seconds", "float32", f"Latency, mean over the sessions of {words}; none without any.", **more),
    )  # fmt: skip


def _active(unit: str, meaning: str, metric_id: int, dcgm: str | None) -> Field:
    return _gauge(f"{unit}_ratio", "float32", meaning, f"nvmlGpmMetricsGet {metric_id}", dcgm=dcgm)


def _limit(name: str, kind: str, meaning: str, source: str, dcgm: str | None = None) -> Field:
    family = Family("dgx_gpu_temperature_limit_celsius", (("kind", kind),))
    return _gauge(name, "float32", meaning, source, family=family, dcgm=dcgm, every_seconds=COLD_SECONDS)


GPU_SAMPLE = Kind(
    name="gpu_sample",
    version=1,
    row="one GPU (or MIG instance) at one instant, wide",
    cadence="1 s",
    subject="gpu",
    series=("gpu_uuid",),
    expected_every_seconds=1.0,
    fields=(
        _label("gpu_uuid", "string", "Identity of the GPU or MIG instance; stable over reordering.", "nvmlDeviceGetUUID", otel="hw.id"),
        _label("gpu_index", "int32", "NVML index at this moment.", "nvmlDeviceGetHandleByIndex_v2"),
        _label("mig_gpu_instance_id", "int32", "GPU instance id of a MIG device.", "nvmlDeviceGetGpuInstanceId"),
        _label("mig_compute_instance_id", "int32", "Compute instance id of a MIG device.", "nvmlDeviceGetComputeInstanceId"),
        *_SAMPLE_FIELDS,
        _state("up", "bool", "Whether the GPU answered.", "sampler", otel="hw.status"),
        _label("driver_sampled_at", "time", "The driver's own time of the field values in this row.", "nvmlFieldValue_t.timestamp"),
        # How busy
        _gauge("utilization_percent", "int32", "Percent of time over the past sample period during which one or more kernels was executing.", "nvmlDeviceGetUtilizationRates.gpu", dcgm="DCGM_FI_DEV_GPU_UTIL", otel="hw.gpu.utilization{task=general}"),
        _gauge("memory_utilization_percent", "int32", "Percent of time over the past sample period during which device memory was being read or written.", "nvmlDeviceGetUtilizationRates.memory", dcgm="DCGM_FI_DEV_MEM_COPY_UTIL"),
        _gauge("encoder_utilization_percent", "int32", "Utilization of the video encoder.", "nvmlDeviceGetEncoderUtilization", dcgm="DCGM_FI_DEV_ENC_UTIL", otel="hw.gpu.utilization{task=encoder}", every_seconds=WARM_SECONDS),
        _gauge("decoder_utilization_percent", "int32", "Utilization of the video decoder.", "nvmlDeviceGetDecoderUtilization", dcgm="DCGM_FI_DEV_DEC_UTIL", otel="hw.gpu.utilization{task=decoder}", every_seconds=WARM_SECONDS),
        _gauge("jpeg_utilization_percent", "int32", "Utilization of the JPEG engine.", "nvmlDeviceGetJpgUtilization", every_seconds=WARM_SECONDS),
        _gauge("ofa_utilization_percent", "int32", "Utilization of the optical flow accelerator.", "nvmlDeviceGetOfaUtilization", every_seconds=WARM_SECONDS),
        *_sessions("encoder", "the video encoder", "nvmlDeviceGetEncoderStats", "DCGM_FI_DEV_ENC_STATS"),
        *_sessions("capture", "frame-buffer capture", "nvmlDeviceGetFBCStats", "DCGM_FI_DEV_FBC_STATS"),
        _gauge("utilization_minimum_percent", "float32", "Least of the driver's own samples since the row before.", "nvmlDeviceGetSamples GPU_UTILIZATION"),
        _gauge("utilization_maximum_percent", "float32", "Greatest of the driver's own samples since the row before.", "nvmlDeviceGetSamples GPU_UTILIZATION"),
        _gauge("utilization_mean_percent", "float32", "Mean of the driver's own samples since the row before.", "nvmlDeviceGetSamples GPU_UTILIZATION"),
        _gauge("utilization_sample_count", "int32", "How many samples the driver gave since the row before.", "nvmlDeviceGetSamples GPU_UTILIZATION"),
        _active("graphics_active", "Share of time any compute or graphics engine was active.", 1, "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        _active("sm_active", "Share of time a multiprocessor had at least one warp assigned, mean over multiprocessors.", 2, "DCGM_FI_PROF_SM_ACTIVE"),
        _active("sm_occupancy", "Warps resident on a multiprocessor as a share of the most it can hold.", 3, "DCGM_FI_PROF_SM_OCCUPANCY"),
        _active("integer_active", "Share of time the integer pipe was active.", 4, "DCGM_FI_PROF_PIPE_INT_ACTIVE"),
        _active("tensor_active", "Share of time any tensor pipe was active.", 5, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
        _active("tensor_dfma_active", "Share of time the multiprocessors were doing DFMA tensor operations: double precision.", 6, "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE"),
        _active("tensor_hmma_active", "Share of time the multiprocessors were doing HMMA tensor operations: half precision.", 7, "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE"),
        _active("tensor_imma_active", "Share of time the multiprocessors were doing IMMA tensor operations: integers.", 9, "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE"),
        _active("dram_active", "Share of the device memory's peak bandwidth in use.", 10, "DCGM_FI_PROF_DRAM_ACTIVE"),
        _active("fp64_active", "Share of time the FP64 pipe was active.", 11, "DCGM_FI_PROF_PIPE_FP64_ACTIVE"),
        _active("fp32_active", "Share of time the FP32 pipe was active.", 12, "DCGM_FI_PROF_PIPE_FP32_ACTIVE"),
        _active("fp16_active", "Share of time the FP16 pipe was active.", 13, "DCGM_FI_PROF_PIPE_FP16_ACTIVE"),
        # Memory
        _state("memory_kind", "string", "dedicated, or unified where GPU and host share one memory.", "nvmlDeviceGetMemoryInfo"),
        _gauge("memory_used_bytes", "int64", "Allocated device memory; before driver 510 with what is reserved; on unified memory the sum over the GPU's processes.", "nvmlDeviceGetMemoryInfo_v2.used", dcgm="DCGM_FI_DEV_FB_USED", otel="hw.gpu.memory.usage"),
        _gauge("memory_total_bytes", "int64", "Total physical device memory; on unified memory the host's MemTotal.", "nvmlDeviceGetMemoryInfo_v2.total", dcgm="DCGM_FI_DEV_FB_TOTAL", otel="hw.gpu.memory.limit"),
        _gauge("memory_free_bytes", "int64", "Unallocated device memory.", "nvmlDeviceGetMemoryInfo_v2.free", dcgm="DCGM_FI_DEV_FB_FREE"),
        _gauge("memory_reserved_bytes", "int64", "Device memory reserved for system use by driver or firmware.", "nvmlDeviceGetMemoryInfo_v2.reserved", dcgm="DCGM_FI_DEV_FB_RESERVED"),
        _gauge("memory_available_bytes", "int64", "On unified memory, what the GPU could still get: the host's MemAvailable.", "/proc/meminfo MemAvailable"),
        _gauge("memory_process_bytes", "int64", "Sum of the memory of the processes on this GPU, computing and drawing.", "nvmlDeviceGetComputeRunningProcesses_v3"),
        _gauge("process_count", "int32", "Processes on this GPU: computing, drawing and under MPS.", "nvmlDeviceGetComputeRunningProcesses_v3 and Graphics, MPSCompute", every_seconds=WARM_SECONDS),
        _gauge("protected_memory_used_bytes", "int64", "Protected memory in use, of a GPU in confidential mode.", "nvmlDeviceGetConfComputeProtectedMemoryUsage.used", every_seconds=WARM_SECONDS),
        _gauge("protected_memory_total_bytes", "int64", "Protected memory of a GPU in confidential mode.", "nvmlDeviceGetConfComputeProtectedMemoryUsage.total", every_seconds=WARM_SECONDS),
        _gauge("bar1_used_bytes", "int64", "Used BAR1 memory.", "nvmlDeviceGetBAR1MemoryInfo", dcgm="DCGM_FI_DEV_BAR1_USED", every_seconds=WARM_SECONDS),
        _gauge("bar1_total_bytes", "int64", "Total BAR1 memory.", "nvmlDeviceGetBAR1MemoryInfo", dcgm="DCGM_FI_DEV_BAR1_TOTAL", every_seconds=WARM_SECONDS),
        # Temperature
        _gauge("temperature_celsius", "float32", "Temperature of the GPU die.", "nvmlDeviceGetTemperatureV", dcgm="DCGM_FI_DEV_GPU_TEMP", otel="hw.temperature", is_never_zero=True),
        _gauge("memory_temperature_celsius", "float32", "Temperature of the device memory.", "field 82", dcgm="DCGM_FI_DEV_MEMORY_TEMP", otel="hw.temperature"),
        _gauge("thermal_margin_celsius", "float32", "Degrees left until the nearest slowdown.", "nvmlDeviceGetMarginTemperature", dcgm="DCGM_FI_DEV_GPU_TEMP_LIMIT", every_seconds=WARM_SECONDS),
        _limit("slowdown_temperature_celsius", "slowdown", "Temperature at which hardware slowdown begins.", "nvmlDeviceGetTemperatureThreshold", "DCGM_FI_DEV_SLOWDOWN_TEMP"),
        _limit("shutdown_temperature_celsius", "shutdown", "Temperature at which the GPU shuts down.", "nvmlDeviceGetTemperatureThreshold", "DCGM_FI_DEV_SHUTDOWN_TEMP"),
        _limit("memory_maximum_temperature_celsius", "memory_maximum", "Memory temperature at which the GPU begins software slowdown.", "nvmlDeviceGetTemperatureThreshold", "DCGM_FI_DEV_MEM_MAX_OP_TEMP"),
        _limit("maximum_temperature_celsius", "maximum", "Temperature at which the GPU can be throttled below base clock.", "nvmlDeviceGetTemperatureThreshold", "DCGM_FI_DEV_GPU_MAX_OP_TEMP"),
        _limit("target_minimum_temperature_celsius", "target_minimum", "Least temperature that can be set as acoustic threshold, the GPU's target.", "nvmlDeviceGetTemperatureThreshold"),
        _limit("target_temperature_celsius", "target", "Temperature that is set as acoustic threshold, the GPU's target.", "nvmlDeviceGetTemperatureThreshold"),
        _limit("target_maximum_temperature_celsius", "target_maximum", "Greatest temperature that can be set as acoustic threshold, the GPU's target.", "nvmlDeviceGetTemperatureThreshold"),
        _limit("memory_maximum_margin_celsius", "memory_maximum_margin", "Memory's software slowdown limit on the margin's own scale; may be negative.", "field 195"),
        _limit("maximum_margin_celsius", "maximum_margin", "Limit of throttling below base clock on the margin's own scale; may be negative.", "field 196"),
        _limit("slowdown_margin_celsius", "slowdown_margin", "Slowdown limit on the margin's own scale; may be negative.", "field 194"),
        _limit("shutdown_margin_celsius", "shutdown_margin", "Shutdown limit on the margin's own scale; may be negative.", "field 193"),
        # Power
        _gauge("power_watts", "float32", "Board power, averaged by the driver over one second on Ampere and newer (not GA100).", "field 185 or nvmlDeviceGetPowerUsage", family=Family("dgx_gpu_power_usage_watts"), dcgm="DCGM_FI_DEV_POWER_USAGE", otel="hw.power", is_never_zero=True),
        _gauge("power_instant_watts", "float32", "Board power at this instant.", "field 186", dcgm="DCGM_FI_DEV_POWER_USAGE_INSTANT", is_never_zero=True),
        _gauge("power_minimum_watts", "float32", "Least of the driver's own samples since the row before.", "nvmlDeviceGetSamples TOTAL_POWER"),
        _gauge("power_maximum_watts", "float32", "Greatest of the driver's own samples since the row before.", "nvmlDeviceGetSamples TOTAL_POWER"),
        _gauge("power_mean_watts", "float32", "Mean of the driver's own samples since the row before.", "nvmlDeviceGetSamples TOTAL_POWER"),
        _gauge("power_sample_count", "int32", "How many samples the driver gave since the row before.", "nvmlDeviceGetSamples TOTAL_POWER"),
        _gauge("power_limit_watts", "float32", "Power limit in force, the least of all limits set.", "field 190 or nvmlDeviceGetEnforcedPowerLimit", dcgm="DCGM_FI_DEV_ENFORCED_POWER_LIMIT", is_never_zero=True),
        _gauge("power_limit_requested_watts", "float32", "Power limit that was asked for, before other limits.", "field 192 or nvmlDeviceGetPowerManagementLimit", dcgm="DCGM_FI_DEV_POWER_MGMT_LIMIT", every_seconds=COLD_SECONDS, is_never_zero=True),
        _gauge("power_edpp_multiplier_percent", "int32", "EDPp multiplier, expressed as a percentage.", "field 274", every_seconds=COLD_SECONDS),
        _gauge("module_power_watts", "float32", "Power of the whole module, GPU and CPU of a Grace board, averaged by the driver.", "field 185 scope 1", is_never_zero=True),
        _gauge("module_power_instant_watts", "float32", "Power of the whole module at this instant.", "field 186 scope 1", is_never_zero=True),
        _gauge("module_power_limit_watts", "float32", "Power limit of the module in force.", "field 190 scope 1", every_seconds=COLD_SECONDS, is_never_zero=True),
        _gauge("memory_power_watts", "float32", "Power of the memory alone, averaged by the driver.", "field 185 scope 2", is_never_zero=True),
        _counter("energy_joules", "decimal", "Energy used since the driver was loaded.", "field 83", dcgm="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", otel="hw.energy"),
        # Clocks and what holds them down
        _clock("sm", "nvmlDeviceGetClockInfo SM", "DCGM_FI_DEV_SM_CLOCK"),
        _clock("memory", "nvmlDeviceGetClockInfo MEM", "DCGM_FI_DEV_MEM_CLOCK"),
        _clock("graphics", "nvmlDeviceGetClockInfo GRAPHICS", None),
        _clock("video", "nvmlDeviceGetClockInfo VIDEO", "DCGM_FI_DEV_VIDEO_CLOCK"),
        _state("performance_state", "int32", "P-state: 0 is maximum performance, 15 minimum.", "nvmlDeviceGetPerformanceState", dcgm="DCGM_FI_DEV_PSTATE"),
        _state("clock_event_reasons_bitmask", "int64", "What holds the clocks at this instant.", "nvmlDeviceGetCurrentClocksEventReasons", family=Family("dgx_gpu_throttle_active"), dcgm="DCGM_FI_DEV_CLOCKS_EVENT_REASONS", bits=CLOCK_EVENT_REASONS),
        _throttle("sw_power_cap", "Time the clocks were held down by the software power cap.", "field 74", "DCGM_FI_DEV_POWER_VIOLATION"),
        _throttle("sync_boost", "Time the clocks were held down by sync boost.", "field 76", "DCGM_FI_DEV_SYNC_BOOST_VIOLATION"),
        _throttle("sw_thermal", "Time the clocks were held down by software thermal slowdown.", "field 269", "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS"),
        _throttle("hw_thermal", "Time the clocks were held down by hardware thermal slowdown.", "field 270", "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS"),
        _throttle("hw_power_brake", "Time the clocks were held down by the hardware power brake.", "field 271", "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"),
        _throttle("thermal", "How long thermal violations caused the GPU to be below application clocks, software's and hardware's together.", "field 75", "DCGM_FI_DEV_THERMAL_VIOLATION"),
        _throttle("board_limit", "How long the board limit caused the GPU to be below application clocks.", "field 77", "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION"),
        _throttle("low_utilization", "How long low utilization caused the GPU to be below application clocks.", "field 78", "DCGM_FI_DEV_LOW_UTIL_VIOLATION"),
        _throttle("reliability", "How long the board's reliability limit caused the GPU to be below application clocks.", "field 79", "DCGM_FI_DEV_RELIABILITY_VIOLATION"),
        _below_clocks("application", "field 80", "DCGM_FI_DEV_TOTAL_APP_CLOCKS_VIOLATION"),
        _below_clocks("base", "field 81", "DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION"),
        # Health
        _ecc("corrected", "volatile", 3, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
        _ecc("uncorrected", "volatile", 4, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
        _ecc("corrected", "aggregate", 5, "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL"),
        _ecc("uncorrected", "aggregate", 6, "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"),
        *(_ecc_place(error, scope, place) for error in ("corrected", "uncorrected") for scope in ("volatile", "aggregate") for place in ("dram", "sram")),
        _ecc_sram("parity", "volatile", "volatileUncParity"),
        _ecc_sram("parity", "aggregate", "aggregateUncParity"),
        _ecc_sram("secded", "volatile", "volatileUncSecDed"),
        _ecc_sram("secded", "aggregate", "aggregateUncSecDed"),
        _ecc_sram_unit("l2", "the L2 cache", "aggregateUncBucketL2"),
        _ecc_sram_unit("sm", "the multiprocessors", "aggregateUncBucketSm"),
        _ecc_sram_unit("pcie", "PCIe", "aggregateUncBucketPcie"),
        _ecc_sram_unit("microcontroller", "the microcontrollers", "aggregateUncBucketMcu"),
        _ecc_sram_unit("other", "other units", "aggregateUncBucketOther"),
        _state("ecc_sram_threshold_exceeded", "bool", "The error threshold of SRAM is exceeded.", "nvmlDeviceGetSramEccErrorStatus.bThresholdExceeded", dcgm="DCGM_FI_DEV_THRESHOLD_SRM", every_seconds=COLD_SECONDS),
        _gauge("remapped_rows_corrected_count", "int32", "Memory rows remapped because of correctable errors.", "field 142", dcgm="DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", every_seconds=COLD_SECONDS),
        _gauge("remapped_rows_uncorrected_count", "int32", "Memory rows remapped because of uncorrectable errors.", "field 143", dcgm="DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", every_seconds=COLD_SECONDS),
        _gauge("remapped_rows_corrected_inactive_count", "int32", "Row remappings because of correctable errors that are not in force.", "field 301", every_seconds=COLD_SECONDS),
        _gauge("remapped_rows_uncorrected_inactive_count", "int32", "Row remappings because of uncorrectable errors that are not in force.", "field 302", every_seconds=COLD_SECONDS),
        _remap_banks("maximum", "the maximum of remap availability: all reserved rows are available", "MAX"),
        _remap_banks("high", "high remap availability", "HIGH"),
        _remap_banks("partial", "partial remap availability", "PARTIAL"),
        _remap_banks("low", "low remap availability", "LOW"),
        _remap_banks("none", "no remap availability: no reserved row is left", "NONE"),
        _state("row_remap_pending", "bool", "A row remap waits for a reset.", "field 144", dcgm="DCGM_FI_DEV_ROW_REMAP_PENDING", every_seconds=COLD_SECONDS),
        _state("row_remap_failed", "bool", "A row remap has failed.", "field 145", dcgm="DCGM_FI_DEV_ROW_REMAP_FAILURE", every_seconds=COLD_SECONDS),
        _state("channel_repair_pending", "bool", "A repair of a memory channel waits for a reset.", "nvmlDeviceGetRepairStatus.bChannelRepairPending", every_seconds=COLD_SECONDS),
        _state("tpc_repair_pending", "bool", "A repair of a TPC, a pair of multiprocessors, waits for a reset.", "nvmlDeviceGetRepairStatus.bTpcRepairPending", every_seconds=COLD_SECONDS),
        _state("memory_unrepairable", "bool", "There is memory that cannot be repaired.", "nvmlDeviceGetUnrepairableMemoryFlag_v1", every_seconds=COLD_SECONDS),
        _gauge("retired_pages_single_bit_count", "int32", "Pages retired because of multiple single-bit errors.", "field 29", dcgm="DCGM_FI_DEV_RETIRED_SBE", every_seconds=COLD_SECONDS),
        _gauge("retired_pages_double_bit_count", "int32", "Pages retired because of a double-bit error.", "field 30", dcgm="DCGM_FI_DEV_RETIRED_DBE", every_seconds=COLD_SECONDS),
        _state("retired_pages_pending", "bool", "A page retirement waits for a reboot.", "field 31", dcgm="DCGM_FI_DEV_RETIRED_PENDING", every_seconds=COLD_SECONDS),
        _state("recovery_action", "int32", "What the driver asks for: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.", "field 230", every_seconds=COLD_SECONDS),
        _state("fabric_state", "int32", "Registration with the fabric of NVSwitches: 1 not started, 2 in progress, 3 completed.", "nvmlDeviceGetGpuFabricInfoV.state", dcgm="DCGM_FI_DEV_FABRIC_MANAGER_STATUS", every_seconds=COLD_SECONDS),
        _state("fabric_status", "int32", "NVML's return code of a completed registration: 0 is success.", "nvmlDeviceGetGpuFabricInfoV.status", dcgm="DCGM_FI_DEV_FABRIC_MANAGER_ERROR_CODE", every_seconds=COLD_SECONDS),
        _state("fabric_health", "int32", "Health of the fabric as the driver sums it up: 1 healthy, 2 unhealthy, 3 limited capacity.", "nvmlDeviceGetGpuFabricInfoV.healthSummary", every_seconds=COLD_SECONDS),
        _state("fabric_health_bitmask", "int64", "What is wrong with the fabric, in fields of several bits (NVML_GPU_FABRIC_HEALTH_MASK_*): degraded bandwidth 0x3, route recovery 0xC, route unhealthy 0x30, access timeout recovery 0xC0, incorrect configuration 0xF00; of the first four 1 is yes and 2 is no.", "nvmlDeviceGetGpuFabricInfoV.healthMask", every_seconds=COLD_SECONDS),
        # Buses
        _counter("pcie_tx_bytes", "int64", "Bytes sent over PCIe; the driver's counter may wrap.", "field 197", family=Family("dgx_gpu_pcie_bytes", (("direction", "tx"),)), otel="hw.gpu.io{direction=transmit}"),
        _counter("pcie_rx_bytes", "int64", "Bytes received over PCIe; the driver's counter may wrap.", "field 198", family=Family("dgx_gpu_pcie_bytes", (("direction", "rx"),)), otel="hw.gpu.io{direction=receive}"),
        _per_second("pcie", "tx", "PCIe traffic from this GPU", 20),
        _per_second("pcie", "rx", "PCIe traffic to this GPU", 21),
        _counter("pcie_replay_count", "int64", "PCIe packets sent again.", "field 94", dcgm="DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
        _state("pcie_link_generation", "int32", "Current PCIe generation of the link.", "nvmlDeviceGetCurrPcieLinkGeneration", dcgm="DCGM_FI_DEV_PCIE_LINK_GEN", every_seconds=WARM_SECONDS),
        _state("pcie_link_width_lanes", "int32", "Current PCIe link width.", "nvmlDeviceGetCurrPcieLinkWidth", dcgm="DCGM_FI_DEV_PCIE_LINK_WIDTH", every_seconds=WARM_SECONDS),
        _counter("nvlink_tx_bytes", "int64", "Payload bytes sent over all NVLinks.", "field 138 or, of each link, 202", family=Family("dgx_gpu_nvlink_bytes", (("direction", "tx"),)), dcgm="DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", otel="hw.gpu.io{direction=transmit}"),
        _counter("nvlink_rx_bytes", "int64", "Payload bytes received over all NVLinks.", "field 139 or, of each link, 204", family=Family("dgx_gpu_nvlink_bytes", (("direction", "rx"),)), dcgm="DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES", otel="hw.gpu.io{direction=receive}"),
        _counter("nvlink_raw_tx_bytes", "int64", "Bytes sent over all NVLinks, payload and protocol overhead; DCGM gives the sum of both directions.", "field 140", family=Family("dgx_gpu_nvlink_raw_bytes", (("direction", "tx"),)), dcgm="DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),
        _counter("nvlink_raw_rx_bytes", "int64", "Bytes received over all NVLinks, payload and protocol overhead; DCGM gives the sum of both directions.", "field 141", family=Family("dgx_gpu_nvlink_raw_bytes", (("direction", "rx"),)), dcgm="DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),
        _per_second("nvlink", "tx", "NVLink write bandwidth, all links", 61),
        _per_second("nvlink", "rx", "NVLink read bandwidth, all links", 60),
        _gauge("c2c_links_count", "int32", "C2C links, chip to chip, between GPU and CPU of a Grace board.", "field 170", every_seconds=COLD_SECONDS),
        _counter("c2c_crc_error_count", "int64", "CRC errors of C2C links.", "field 231", dcgm="DCGM_FI_DEV_C2C_LINK_ERROR_INTR", every_seconds=COLD_SECONDS),
        _counter("c2c_replay_error_count", "int64", "Replay errors of C2C links.", "field 232", dcgm="DCGM_FI_DEV_C2C_LINK_ERROR_REPLAY", every_seconds=COLD_SECONDS),
        _counter("c2c_replay_back_to_back_error_count", "int64", "Back-to-back replay errors of C2C links.", "field 233", dcgm="DCGM_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B", every_seconds=COLD_SECONDS),
        _gauge("fan_speed_percent", "int32", "Intended speed of the fastest fan, percent of its maximum.", "nvmlDeviceGetFanSpeed_v2", dcgm="DCGM_FI_DEV_FAN_SPEED", otel="hw.fan.speed_ratio", every_seconds=WARM_SECONDS),
    ),
)  # fmt: skip


def _cpu(state: str, meaning: str) -> Field:
    return _gauge(f"cpu_{state}_percent", "float32", meaning, "/proc/stat")


def _pressure(resource: str, share: str) -> Field:
    tasks = "at least one task" if share == "some" else "every task that could run"
    return _counter(
        f"pressure_{resource}_{share}_seconds",
        "decimal",
        f"Time {tasks} was stalled waiting for {resource}.",
        f"/proc/pressure/{resource}",
        family=Family("dgx_pressure_seconds", (("resource", resource), ("share", share))),
    )


SYSTEM_SAMPLE = Kind(
    name="system_sample",
    version=1,
    row="the host at one instant: CPU, memory, swap, pressure, disk, network",
    cadence="1 s",
    expected_every_seconds=1.0,
    fields=(
        *_SAMPLE_FIELDS,
        _gauge("cpu_utilization_percent", "float32", "Share of all CPU time not idle and not waiting for IO since the row before.", "/proc/stat"),
        _cpu("user", "CPU time in user mode, niced processes not included."),
        _cpu("nice", "CPU time in user mode at low priority."),
        _cpu("system", "CPU time in kernel mode."),
        _cpu("iowait", "CPU time idle while a disk request was outstanding."),
        _cpu("irq", "CPU time in hardware interrupts."),
        _cpu("softirq", "CPU time in software interrupts."),
        _cpu("steal", "CPU time taken by other guests of the hypervisor."),
        _cpu("idle", "CPU time idle."),
        _gauge("cpu_count", "int32", "Logical CPUs online.", "/proc/stat", family=Family("dgx_cpu_logical")),
        _gauge("cpu_frequency_hertz", "int64", "Mean current frequency over the CPUs; read every 5 s.", "cpufreq", every_seconds=WARM_SECONDS),
        _gauge("cpu_temperature_celsius", "float32", "Hottest sensor of the CPU; read every 5 s.", "hwmon", every_seconds=WARM_SECONDS),
        _gauge("load_1m_count", "float32", "Tasks running or waiting for CPU or disk, mean over 1 minute.", "/proc/loadavg"),
        _gauge("load_5m_count", "float32", "The same over 5 minutes.", "/proc/loadavg"),
        _gauge("load_15m_count", "float32", "The same over 15 minutes.", "/proc/loadavg"),
        _gauge("tasks_running_count", "int32", "Tasks running or ready to run.", "/proc/stat procs_running"),
        _gauge("tasks_blocked_count", "int32", "Tasks waiting for IO.", "/proc/stat procs_blocked"),
        _counter("context_switches_count", "int64", "Context switches.", "/proc/stat ctxt"),
        _gauge("memory_total_bytes", "int64", "Usable memory.", "/proc/meminfo MemTotal"),
        _gauge("memory_available_bytes", "int64", "Memory a new workload could get without swapping.", "/proc/meminfo MemAvailable"),
        _gauge("memory_used_bytes", "int64", "Total less available.", "/proc/meminfo"),
        _gauge("memory_free_bytes", "int64", "Memory used for nothing at all.", "/proc/meminfo MemFree"),
        _gauge("memory_cached_bytes", "int64", "Page cache and reclaimable slabs.", "/proc/meminfo Cached, SReclaimable"),
        _gauge("memory_buffers_bytes", "int64", "Buffers of raw block devices.", "/proc/meminfo Buffers"),
        _gauge("memory_shared_bytes", "int64", "Shared memory and tmpfs.", "/proc/meminfo Shmem"),
        _gauge("swap_total_bytes", "int64", "Swap space.", "/proc/meminfo SwapTotal"),
        _gauge("swap_used_bytes", "int64", "Swap in use.", "/proc/meminfo SwapTotal, SwapFree"),
        _counter("swap_in_bytes", "int64", "Bytes read back from swap.", "/proc/vmstat pswpin"),
        _counter("swap_out_bytes", "int64", "Bytes written to swap.", "/proc/vmstat pswpout"),
        _pressure("cpu", "some"),
        _pressure("cpu", "full"),
        _pressure("memory", "some"),
        _pressure("memory", "full"),
        _pressure("io", "some"),
        _pressure("io", "full"),
        _counter("disk_read_bytes", "int64", "Bytes read from whole block devices; device.read_bytes has each.", "/proc/diskstats"),
        _counter("disk_written_bytes", "int64", "Bytes written to whole block devices; device.written_bytes has each.", "/proc/diskstats"),
        _counter("disk_reads_count", "int64", "Reads completed by whole block devices.", "/proc/diskstats"),
        _counter("disk_writes_count", "int64", "Writes completed by whole block devices.", "/proc/diskstats"),
        _counter("disk_busy_seconds", "decimal", "Time with requests in flight, summed over whole block devices.", "/proc/diskstats"),
        _counter("network_received_bytes", "int64", "Bytes received, summed over network cards; where there is none, as in a container, over all interfaces but loopback; device.received_bytes has each.", "/proc/net/dev"),
        _counter("network_sent_bytes", "int64", "Bytes sent, summed likewise; device.sent_bytes has each.", "/proc/net/dev"),
        _counter("network_received_packets_count", "int64", "Packets received, summed likewise.", "/proc/net/dev"),
        _counter("network_sent_packets_count", "int64", "Packets sent, summed likewise.", "/proc/net/dev"),
        _counter("network_errors_count", "int64", "Receive and send errors, summed likewise.", "/proc/net/dev"),
        _counter("network_drops_count", "int64", "Packets dropped, summed likewise.", "/proc/net/dev"),
        _gauge("ledger_filesystem_free_bytes", "int64", "Space left to gpuledger on the ledger's file system.", "statvfs(3)"),
        _gauge("uptime_seconds", "float64", "Time since boot, suspend included.", "CLOCK_BOOTTIME"),
    ),
)  # fmt: skip


def _infiniband(name: str, meaning: str, file: str) -> Field:
    return _counter(name, "int64", meaning, f"/sys/class/infiniband/DEVICE/ports/PORT/{file}")


def _numa(name: str, meaning: str, word: str) -> Field:
    return _counter(name, "int64", meaning, f"/sys/devices/system/node/NODE/numastat {word}")


DEVICE_SAMPLE = Kind(
    name="device_sample",
    version=1,
    row="one device of the host at one instant: a disk, network card, InfiniBand port, thermal zone or NUMA node",
    cadence="5 s",
    subject="device",
    series=("device_type", "device"),
    expected_every_seconds=WARM_SECONDS,
    fields=(
        _label("device_type", "string", "disk, network, infiniband, thermal_zone or numa_node: which columns it fills. The others are NULL without a reason."),
        _label("device", "string", "Its name among those of its type: nvme0n1, eth0, mlx5_0/1 (device and port), x86_pkg_temp/thermal_zone3, node1."),
        *_SAMPLE_FIELDS,
        # Disks: whole block devices. What the kernel keeps in milliseconds wraps after 49 days of it.
        _counter("read_bytes", "int64", "Bytes read from this disk.", "/proc/diskstats", otel="system.disk.io{disk.io.direction=read}"),
        _counter("written_bytes", "int64", "Bytes written to this disk.", "/proc/diskstats", otel="system.disk.io{disk.io.direction=write}"),
        _counter("reads_count", "int64", "Reads completed by this disk.", "/proc/diskstats", otel="system.disk.operations{disk.io.direction=read}"),
        _counter("writes_count", "int64", "Writes completed by this disk.", "/proc/diskstats", otel="system.disk.operations{disk.io.direction=write}"),
        _counter("read_seconds", "decimal", "Time that reads took, summed over them: per read, their latency.", "/proc/diskstats", otel="system.disk.operation_time{disk.io.direction=read}"),
        _counter("write_seconds", "decimal", "Time that writes took, summed over them: per write, their latency.", "/proc/diskstats", otel="system.disk.operation_time{disk.io.direction=write}"),
        _counter("busy_seconds", "decimal", "Time with at least one request in flight on this disk.", "/proc/diskstats", otel="system.disk.io_time"),
        _counter("queue_seconds", "decimal", "Time that all requests took, summed over them: its rate is the mean length of the queue.", "/proc/diskstats"),
        _gauge("in_flight_count", "int32", "Requests in flight on this disk at this instant.", "/proc/diskstats"),
        # Network cards, and InfiniBand and RoCE ports
        _counter("received_bytes", "int64", "Bytes received by this network card, or on this InfiniBand port; a RoCE port counts what RDMA receives.", "/proc/net/dev; counters/port_rcv_data × 4, else hw_counters/rx_bytes", otel="system.network.io{network.io.direction=receive}"),
        _counter("sent_bytes", "int64", "Bytes sent likewise.", "/proc/net/dev; counters/port_xmit_data × 4, else hw_counters/tx_bytes", otel="system.network.io{network.io.direction=transmit}"),
        _counter("received_packets_count", "int64", "Packets received likewise.", "/proc/net/dev; counters/port_rcv_packets, else hw_counters/rx_pkts", otel="system.network.packet.count{network.io.direction=receive}"),
        _counter("sent_packets_count", "int64", "Packets sent likewise.", "/proc/net/dev; counters/port_xmit_packets, else hw_counters/tx_pkts", otel="system.network.packet.count{network.io.direction=transmit}"),
        _counter("receive_errors_count", "int64", "Packets received with an error.", "/proc/net/dev; counters/port_rcv_errors", otel="system.network.errors{network.io.direction=receive}"),
        _counter("send_errors_count", "int64", "Packets that could not be sent because of an error.", "/proc/net/dev", otel="system.network.errors{network.io.direction=transmit}"),
        _counter("receive_drops_count", "int64", "Packets received and dropped.", "/proc/net/dev; hw_counters/rx_drops", otel="system.network.packet.dropped{network.io.direction=receive}"),
        _counter("send_drops_count", "int64", "Packets dropped in place of being sent; on InfiniBand because the port was down or congested.", "/proc/net/dev; counters/port_xmit_discards", otel="system.network.packet.dropped{network.io.direction=transmit}"),
        _state("link_up", "bool", "Whether the link carries data.", "/sys/class/net/DEVICE/operstate; ports/PORT/state", otel="hw.network.up"),
        _counter("link_down_count", "int64", "Times the link went down.", "/sys/class/net/DEVICE/carrier_down_count; counters/link_downed"),
        _gauge("link_speed_bytes_per_second", "int64", "Speed of the link, one way.", "/sys/class/net/DEVICE/speed; ports/PORT/rate", otel="hw.network.bandwidth.limit"),
        _infiniband("link_recoveries_count", "Times the port recovered the link from an error.", "counters/link_error_recovery"),
        _infiniband("symbol_errors_count", "Minor link errors on one or more physical lanes; some ports stay at their greatest number.", "counters/symbol_error"),
        _infiniband("send_waits_count", "Ticks of the port's own clock in which there was data to send and none was sent: no credits, or congestion.", "counters/port_xmit_wait"),
        _infiniband("out_of_sequence_count", "Packets received out of sequence: something was lost on the way.", "hw_counters/out_of_sequence"),
        _infiniband("acknowledgement_timeouts_count", "Times a sender waited for an acknowledgement in vain and sent again.", "hw_counters/local_ack_timeout_err"),
        _infiniband("congestion_notifications_sent_count", "RoCE: packets sent to slow a sender down, because the network had marked congestion.", "hw_counters/np_cnp_sent"),
        _infiniband("congestion_notifications_handled_count", "RoCE: such packets received, which slowed this port down.", "hw_counters/rp_cnp_handled"),
        # Thermal zones
        _gauge("temperature_celsius", "float32", "Temperature of this thermal zone.", "/sys/class/thermal/ZONE/temp", otel="hw.temperature"),
        # NUMA nodes, where there is more than one
        _gauge("memory_total_bytes", "int64", "Memory of this NUMA node.", "/sys/devices/system/node/NODE/meminfo MemTotal"),
        _gauge("memory_free_bytes", "int64", "Memory of this NUMA node used for nothing at all.", "/sys/devices/system/node/NODE/meminfo MemFree"),
        _gauge("memory_used_bytes", "int64", "Total less free: page cache included, as the kernel tells no available memory per node.", "/sys/devices/system/node/NODE/meminfo MemUsed"),
        _gauge("memory_cached_bytes", "int64", "Page cache on this NUMA node.", "/sys/devices/system/node/NODE/meminfo FilePages"),
        _numa("numa_hit_count", "Pages allocated on this node as intended.", "numa_hit"),
        _numa("numa_miss_count", "Pages allocated on this node although another was preferred, which was full.", "numa_miss"),
        _numa("numa_foreign_count", "Pages intended for this node and allocated on another.", "numa_foreign"),
        _numa("numa_other_node_count", "Pages allocated on this node by a process that ran on another.", "other_node"),
    ),
)  # fmt: skip

PROCESS_SAMPLE = Kind(
    name="process_sample",
    version=1,
    row="one process on one GPU, with container, pod and Slurm job",
    cadence="5 s",
    subject="process",
    series=("gpu_uuid", "pid", "started_at"),
    expected_every_seconds=5.0,
    fields=(
        _label("gpu_uuid", "string", "The GPU or MIG instance it runs on.", "nvmlDeviceGetUUID"),
        _label("gpu_index", "int32", "NVML index at this moment.", "nvmlDeviceGetHandleByIndex_v2"),
        _label("mig_gpu_instance_id", "int32", "GPU instance id of the MIG device.", "nvmlProcessInfo_t.gpuInstanceId"),
        _label("mig_compute_instance_id", "int32", "Compute instance id of the MIG device.", "nvmlProcessInfo_t.computeInstanceId"),
        _label("pid", "int32", "Process id in the host's namespace.", "nvmlProcessInfo_t.pid"),
        _label("started_at", "time", "When the process started: with the pid, its identity.", "/proc/PID/stat"),
        *_SAMPLE_FIELDS,
        _label("process_visible", "bool", "Whether the collector can see this pid in /proc.", "/proc/PID"),
        _label("process_type", "string", "compute, graphics or mps.", "nvmlDeviceGetComputeRunningProcesses_v3"),
        _label("name", "string", "Name of the executable.", "/proc/PID/comm"),
        _label("command", "string", "Command line, secrets redacted, cut at 1,024 characters.", "/proc/PID/cmdline"),
        _label("user", "string", "Owner.", "/proc/PID/status"),
        _label("container_id", "string", "Container it runs in.", "/proc/PID/cgroup"),
        _label("container_name", "string", "Name of that container, where the runtime tells.", "/proc/PID/cgroup"),
        _label("pod_uid", "string", "Kubernetes pod it runs in.", "/proc/PID/cgroup"),
        _label("pod_name", "string", "Name of that pod.", "kubelet"),
        _label("pod_namespace", "string", "Namespace of that pod.", "kubelet"),
        _label("slurm_job_id", "string", "Slurm job it runs in.", "/proc/PID/cgroup"),
        _gauge("memory_used_bytes", "int64", "Device memory used by this process.", "nvmlProcessInfo_t.usedGpuMemory"),
        _gauge("sm_utilization_percent", "int32", "Share of time its kernels ran.", "nvmlDeviceGetProcessUtilization.smUtil"),
        _gauge("memory_utilization_percent", "int32", "Share of time it read or wrote device memory.", "nvmlDeviceGetProcessUtilization.memUtil"),
        _gauge("encoder_utilization_percent", "int32", "Its use of the video encoder.", "nvmlDeviceGetProcessUtilization.encUtil"),
        _gauge("decoder_utilization_percent", "int32", "Its use of the video decoder.", "nvmlDeviceGetProcessUtilization.decUtil"),
        _gauge("host_memory_bytes", "int64", "Resident host memory.", "/proc/PID/stat"),
        _counter("cpu_seconds", "decimal", "CPU time used, user and system.", "/proc/PID/stat"),
    ),
)  # fmt: skip


def _link_field(name: str, field_type: ColumnType, meaning: str, *field_ids: int, **more: Any) -> Field:
    return _counter(name, field_type, meaning, f"field {' or '.join(map(str, field_ids))}", **more)


NVLINK_SAMPLE = Kind(
    name="nvlink_sample",
    version=1,
    row="one NVLink of one GPU",
    cadence="60 s",
    subject="nvlink",
    series=("gpu_uuid", "link"),
    expected_every_seconds=COLD_SECONDS,
    fields=(
        _label("gpu_uuid", "string", "The GPU whose link it is.", "nvmlDeviceGetUUID"),
        _label("gpu_index", "int32", "NVML index at this moment.", "nvmlDeviceGetHandleByIndex_v2"),
        _label("link", "int32", "Number of the link on its GPU, from 0.", "nvmlDeviceGetNvLinkState"),
        *_SAMPLE_FIELDS,
        _state("active", "bool", "Whether the link is active.", "nvmlDeviceGetNvLinkState"),
        _label("version", "int32", "NVLink version as the driver counts them; NULL of a link that is not active.", "nvmlDeviceGetNvLinkVersion"),
        _label("remote_kind", "string", "What is at the other end: gpu, nvswitch, ibm_npu or other; NULL of a link that is not active.", "nvmlDeviceGetNvLinkRemoteDeviceType"),
        _label("remote_pci_bus_id", "string", "PCI address of what is at the other end; NULL of a link that is not active.", "nvmlDeviceGetNvLinkRemotePciInfo_v2"),
        _label("remote_link", "int32", "Number of the link on the device at the other end.", "field 146"),
        _gauge("speed_bytes_per_second", "int64", "Speed of the link.", "field 164"),
        _link_field("tx_bytes", "int64", "Payload bytes sent.", 138, 202, dcgm="DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES"),
        _link_field("rx_bytes", "int64", "Payload bytes received.", 139, 204, dcgm="DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES"),
        _link_field("raw_tx_bytes", "int64", "Bytes sent, payload and protocol overhead.", 140),
        _link_field("raw_rx_bytes", "int64", "Bytes received, payload and protocol overhead.", 141),
        _counter("crc_flit_error_count", "int64", "Flow control CRC errors.", "nvmlDeviceGetNvLinkErrorCounter 2", dcgm="DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"),
        _counter("crc_data_error_count", "int64", "Data CRC errors.", "nvmlDeviceGetNvLinkErrorCounter 3", dcgm="DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL"),
        _counter("replay_error_count", "int64", "Replay errors.", "nvmlDeviceGetNvLinkErrorCounter 0", dcgm="DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"),
        _counter("recovery_error_count", "int64", "Recovery errors.", "nvmlDeviceGetNvLinkErrorCounter 1", dcgm="DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"),
        _counter("ecc_error_count", "int64", "Data ECC errors.", "nvmlDeviceGetNvLinkErrorCounter 4"),
        _link_field("tx_packets_count", "int64", "Packets sent; from Blackwell on, as are the following.", 201),
        _link_field("rx_packets_count", "int64", "Packets received.", 203),
        _link_field("malformed_packets_count", "int64", "Malformed packets received.", 206),
        _link_field("buffer_overruns_count", "int64", "Packets discarded because a buffer overran.", 207),
        _link_field("rx_errors_count", "int64", "Packets received with errors.", 208),
        _link_field("rx_remote_errors_count", "int64", "Packets received that the other end had marked as erroneous.", 209),
        _link_field("rx_general_errors_count", "int64", "General receive errors.", 210),
        _link_field("link_integrity_errors_count", "int64", "Local errors of the link's integrity.", 211),
        _link_field("tx_discards_count", "int64", "Packets discarded when they were to be sent.", 212),
        _link_field("recoveries_count", "int64", "Times the link went down and recovered.", 213),
        _link_field("failed_recoveries_count", "int64", "Times the link went down and could not recover.", 214),
        _link_field("effective_errors_count", "int64", "Errors that were left after correction.", 219),
        _gauge("effective_bit_errors_ratio", "float64", "Bit error rate after correction.", "field 220"),
        _link_field("symbol_errors_count", "int64", "Symbol errors.", 221),
        _gauge("symbol_bit_errors_ratio", "float64", "Bit error rate of the symbols.", "field 222"),
        _state("fec_histogram", "json", "Forward error correction: how many blocks had 0, 1, … 15 errors corrected, a list that counts up.", "fields 235 to 250"),
    ),
)  # fmt: skip

REQUEST = Kind(
    name="request",
    version=1,
    row="one finished request of any service, MCP calls included",
    cadence="as it happens",
    subject="request",
    series=("service", "operation", "request_model", "response_model", "status"),
    fields=(
        _label("event_id", "string", "Identity of this event, a UUIDv7.", is_looked_up=True),
        _label("source", "string", "How it came in: otlp, litellm, asgi, python, mcp, http, scrape, file or log."),
        _label("source_event_id", "string", "Identity given by the source; with source, it is stored once.", is_looked_up=True),
        _label("started_at", "time", "When the request began."),
        _label("ended_at", "time", "When its last byte was sent."),
        _label("trace_id", "string", "Trace it belongs to.", otel="trace_id", is_looked_up=True),
        _label("span_id", "string", "Its span.", otel="span_id"),
        _label("service", "string", "Service that answered.", otel="service.name"),
        _label("endpoint", "string", "Route that was called.", otel="http.route"),
        _label("operation", "string", "chat, completion, embedding, tool and the like; a tool's name for MCP.", otel="gen_ai.operation.name"),
        _label("method", "string", "HTTP or RPC method.", otel="http.request.method"),
        _label("request_model", "string", "Model asked for.", otel="gen_ai.request.model"),
        _label("response_model", "string", "Model that answered.", otel="gen_ai.response.model"),
        _label("provider", "string", "Who serves the model.", otel="gen_ai.provider.name"),
        _label("server_address", "string", "Server that answered.", otel="server.address"),
        _label("stream", "bool", "Whether the answer was streamed.", otel="gen_ai.request.stream"),
        _state("status", "string", "ok, error, cancelled, timeout or rejected."),
        _state("http_status", "int32", "HTTP status code.", otel="http.response.status_code"),
        _label("error_type", "string", "Class of the error.", otel="error.type"),
        _label("error_message", "string", "Its message, redacted, cut at 200 characters."),
        _label("finish_reason", "string", "Why generation stopped.", otel="gen_ai.response.finish_reasons"),
        _gauge("duration_seconds", "float64", "From the request's arrival to the answer's last byte.", otel="gen_ai.server.request.duration"),
        _gauge("queue_seconds", "float64", "Waiting to be scheduled.", otel="gen_ai.latency.time_in_queue"),
        _gauge("prefill_seconds", "float64", "Processing the prompt.", otel="gen_ai.latency.time_in_model_prefill"),
        _gauge("time_to_first_token_seconds", "float64", "From arrival to the first token.", otel="gen_ai.server.time_to_first_token"),
        _gauge("time_to_first_byte_seconds", "float64", "From arrival to the first byte of the answer's body."),
        _gauge("decode_seconds", "float64", "Generating after the first token.", otel="gen_ai.latency.time_in_model_decode"),
        _gauge("time_per_output_token_seconds", "float64", "(duration − time to first token) / (output tokens − 1).", otel="gen_ai.server.time_per_output_token"),
        _gauge("inter_token_latency_seconds", "float64", "Mean time between tokens as the server reports it."),
        _gauge("input_tokens", "int64", "Tokens of the prompt.", otel="gen_ai.usage.input_tokens"),
        _gauge("output_tokens", "int64", "Tokens generated.", otel="gen_ai.usage.output_tokens"),
        _gauge("cached_input_tokens", "int64", "Prompt tokens served from a cache.", otel="gen_ai.usage.cache_read.input_tokens"),
        _gauge("reasoning_tokens", "int64", "Tokens spent on reasoning.", otel="gen_ai.usage.reasoning.output_tokens"),
        _gauge("preemption_count", "int32", "Times the scheduler put it aside."),
        _gauge("concurrency_at_start_count", "int32", "Requests in progress on the server when it began."),
        _label("gpu_uuids", "strings", "GPUs of the server that answered."),
        _label("pid", "int32", "Process that answered."),
        _label("tenant", "string", "Whose request it was."),
        _label("user_hash", "string", "Hash of the end user's name; never the name."),
        _gauge("cost_usd", "float64", "Cost as the source reports it."),
        _label("attributes", "json", "What else the source said, at most 4 kB; never a prompt or an answer."),
    ),
)  # fmt: skip


def _histogram(name: str, meaning: str) -> Field:
    return _state(
        name,
        "json",
        f"{meaning} since the row before: bucket bounds, counts, sum, count, and percentiles estimated from them.",
    )


SERVER_SAMPLE = Kind(
    name="server_sample",
    version=1,
    row="one inference server's own gauges and histogram deltas",
    cadence="5 s",
    subject="server",
    series=("server_address", "model", "engine"),
    expected_every_seconds=5.0,
    fields=(
        _label("server_address", "string", "Address that was scraped.", otel="server.address"),
        _label("server_kind", "string", "vllm, sglang, tgi, llamacpp, triton or nim."),
        _label("service", "string", "Name given to the server in the settings.", otel="service.name"),
        _label("model", "string", "Model it serves.", "model_name", otel="gen_ai.response.model"),
        _label("engine", "string", "Engine instance within the server."),
        *_SAMPLE_FIELDS,
        _state("up", "bool", "Whether the scrape succeeded."),
        _gauge("requests_running_count", "int32", "Requests being processed.", "vllm:num_requests_running"),
        _gauge("requests_waiting_count", "int32", "Requests waiting to be scheduled.", "vllm:num_requests_waiting"),
        _gauge("requests_retracted_count", "int32", "Requests put aside for want of memory, as the server's own gauge has it.", "sglang:num_retracted_reqs"),
        _gauge("kv_cache_used_ratio", "float32", "Share of the KV cache in use.", "vllm:kv_cache_usage_perc"),
        _gauge("generation_tokens_per_second", "float32", "Generation throughput as the server reports it.", "sglang:gen_throughput"),
        _counter("prompt_tokens", "int64", "Prompt tokens processed.", "vllm:prompt_tokens_total"),
        _counter("generation_tokens", "int64", "Tokens generated.", "vllm:generation_tokens_total"),
        _counter("cached_prompt_tokens", "int64", "Prompt tokens served from a cache.", "vllm:prompt_tokens_cached_total"),
        _counter("preemption_count", "int64", "Requests put aside by the scheduler.", "vllm:num_preemptions_total"),
        _counter("requests_success_count", "int64", "Requests finished.", "vllm:request_success_total"),
        _counter("requests_rejected_count", "int64", "Requests refused.", "vllm:admission_rejections_total"),
        _counter("requests_failure_count", "int64", "Requests that failed.", "nv_inference_request_failure"),
        _counter("prefix_cache_queries_tokens", "int64", "Tokens looked up in the prefix cache.", "vllm:prefix_cache_queries_total"),
        _counter("prefix_cache_hits_tokens", "int64", "Tokens found in the prefix cache.", "vllm:prefix_cache_hits_total"),
        _histogram("time_to_first_token_histogram", "Time to first token, seconds"),
        _histogram("inter_token_latency_histogram", "Inter-token latency, seconds"),
        _histogram("time_per_output_token_histogram", "Time per output token, seconds"),
        _histogram("duration_histogram", "Request duration, seconds"),
        _histogram("queue_histogram", "Queue time, seconds"),
        _histogram("prefill_histogram", "Prefill time, seconds"),
        _histogram("decode_histogram", "Decode time, seconds"),
    ),
)  # fmt: skip

GPU_EVENT = Kind(
    name="gpu_event",
    version=1,
    row="Xid, ECC, throttle begin or end, lost, recovered, reset, MIG or driver change",
    cadence="as it happens",
    fields=(
        _label("event", "string", "xid, ecc, performance_state, recovery_action, unavailable, lost, recovered, appeared, reset, throttle_begin, throttle_end, mig_changed or driver_changed."),
        _label("gpu_uuid", "string", "The GPU it happened to.", "nvmlDeviceGetUUID"),
        _label("gpu_index", "int32", "NVML index at this moment."),
        _label("pci_bus_id", "string", "PCI address of the GPU.", "nvmlDeviceGetPciInfo_v3"),
        _label("source", "string", "Who told: nvml, kmsg or sampler."),
        _state("severity", "string", "info, warning or critical."),
        _label("xid", "int32", "Xid code.", "nvmlEventSetWait_v2", dcgm="DCGM_FI_DEV_XID_ERRORS", otel="hw.errors{error.type=xid_NN}"),
        _label("throttle_reason", "string", "Which reason began or ended."),
        _gauge("duration_seconds", "float64", "How long it had lasted, for an end."),
        _label("pid", "int32", "Process named by the driver."),
        _label("process_name", "string", "Its name."),
        _label("message", "string", "The source's own words, cut at 1,024 characters."),
        _label("details", "json", "What else the source said."),
    ),
)  # fmt: skip

INVENTORY = Kind(
    name="inventory",
    version=1,
    row="what the machine is, written when it changes",
    cadence="on change",
    fields=(
        _label("subject", "string", "host, gpu or mig."),
        _label("source", "string", "nvml, host, demo for data made up by --source demo, or replay for those of a recording."),
        _label("gpu_uuid", "string", "The GPU it is about.", "nvmlDeviceGetUUID"),
        _label("gpu_index", "int32", "NVML index at this moment."),
        _label("name", "string", "Product name of the GPU or of the machine.", "nvmlDeviceGetName"),
        _label("serial", "string", "Serial number of the board.", "nvmlDeviceGetSerial"),
        _label("brand", "string", "Brand: NVIDIA, Tesla, GeForce, Quadro RTX and others.", "nvmlDeviceGetBrand", dcgm="DCGM_FI_DEV_BRAND"),
        _label("board_part_number", "string", "Part number of the board.", "nvmlDeviceGetBoardPartNumber"),
        _label("module_id", "int32", "Which module of its baseboard the GPU is.", "nvmlDeviceGetModuleId"),
        _label("pci_bus_id", "string", "PCI address.", "nvmlDeviceGetPciInfo_v3"),
        _label("pci_device_id", "string", "PCI vendor and device, as in 10de:2335.", "nvmlDeviceGetPciInfo_v3"),
        _label("pci_subsystem_id", "string", "PCI vendor and device of the board.", "nvmlDeviceGetPciInfo_v3"),
        _label("architecture", "string", "GPU or CPU architecture.", "nvmlDeviceGetArchitecture"),
        _label("compute_capability", "string", "CUDA compute capability.", "nvmlDeviceGetCudaComputeCapability"),
        _label("vbios_version", "string", "VBIOS version.", "nvmlDeviceGetVbiosVersion"),
        _label("driver_version", "string", "Driver version.", "nvmlSystemGetDriverVersion"),
        _label("nvml_version", "string", "NVML version.", "nvmlSystemGetNVMLVersion"),
        _label("cuda_version", "string", "CUDA version the driver supports.", "nvmlSystemGetCudaDriverVersion_v2"),
        _state("mig_enabled", "bool", "Whether MIG mode is on.", "nvmlDeviceGetMigMode"),
        _state("mig_pending_enabled", "bool", "Whether MIG mode is on after the next reset.", "nvmlDeviceGetMigMode"),
        _state("ecc_enabled", "bool", "Whether ECC is on.", "nvmlDeviceGetEccMode"),
        _state("ecc_pending_enabled", "bool", "Whether ECC is on after the next reset.", "nvmlDeviceGetEccMode"),
        _state("accounting_enabled", "bool", "Whether accounting mode is on.", "nvmlDeviceGetAccountingMode"),
        _state("display_attached", "bool", "Whether a physical display is connected.", "nvmlDeviceGetDisplayMode"),
        _state("display_active", "bool", "Whether a display is initialized on the GPU.", "nvmlDeviceGetDisplayActive"),
        _state("dram_encryption_enabled", "bool", "Whether the device memory is encrypted.", "nvmlDeviceGetDramEncryptionMode"),
        _state("addressing_mode", "string", "How the GPU reaches the host's memory: none, hmm in software or ats in hardware.", "nvmlDeviceGetAddressingMode"),
        _state("c2c_enabled", "bool", "Whether C2C, the link from chip to chip, is on.", "nvmlDeviceGetC2cModeInfoV"),
        _state("virtualization_mode", "string", "none, passthrough, vgpu in a guest, host_vgpu or host_vsga.", "nvmlDeviceGetVirtualizationMode", dcgm="DCGM_FI_DEV_VIRTUAL_MODE"),
        _state("vgpu_licensed", "bool", "In a guest: whether a feature that needs a licence has it.", "nvmlDeviceGetGridLicensableFeatures_v4", dcgm="DCGM_FI_DEV_VGPU_LICENSE_STATUS"),
        _label("fabric_clique_id", "int32", "The GPUs of one clique of one cluster reach each other over NVSwitches.", "nvmlDeviceGetGpuFabricInfoV"),
        _label("fabric_cluster_uuid", "string", "Cluster of that clique, in hex.", "nvmlDeviceGetGpuFabricInfoV"),
        _state("persistence_enabled", "bool", "Whether persistence mode is on.", "nvmlDeviceGetPersistenceMode"),
        _state("memory_kind", "string", "dedicated or unified."),
        _gauge("memory_total_bytes", "int64", "Memory of the GPU or the host."),
        _gauge("power_limit_watts", "float32", "Power limit in force.", "nvmlDeviceGetEnforcedPowerLimit"),
        _state("compute_mode", "string", "default, exclusive_process or prohibited.", "nvmlDeviceGetComputeMode"),
        _gauge("power_limit_minimum_watts", "float32", "Least power limit that can be set.", "nvmlDeviceGetPowerManagementLimitConstraints", dcgm="DCGM_FI_DEV_POWER_MGMT_LIMIT_MIN"),
        _gauge("power_limit_maximum_watts", "float32", "Greatest power limit that can be set.", "nvmlDeviceGetPowerManagementLimitConstraints", dcgm="DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX"),
        _gauge("power_limit_default_watts", "float32", "Power limit the board ships with.", "nvmlDeviceGetPowerManagementDefaultLimit"),
        _gauge("clock_sm_maximum_hertz", "int64", "Highest SM clock.", "nvmlDeviceGetMaxClockInfo", dcgm="DCGM_FI_DEV_MAX_SM_CLOCK"),
        _gauge("clock_memory_maximum_hertz", "int64", "Highest memory clock.", "nvmlDeviceGetMaxClockInfo", dcgm="DCGM_FI_DEV_MAX_MEM_CLOCK"),
        _gauge("clock_graphics_maximum_hertz", "int64", "Highest graphics clock.", "nvmlDeviceGetMaxClockInfo"),
        _gauge("clock_video_maximum_hertz", "int64", "Highest video clock.", "nvmlDeviceGetMaxClockInfo", dcgm="DCGM_FI_DEV_MAX_VIDEO_CLOCK"),
        _gauge("clock_application_graphics_hertz", "int64", "Graphics clock that applications get unless something slows it down; a later driver has none.", "nvmlDeviceGetApplicationsClock", dcgm="DCGM_FI_DEV_APP_SM_CLOCK"),
        _gauge("clock_application_memory_hertz", "int64", "Memory clock that applications get; as above.", "nvmlDeviceGetApplicationsClock", dcgm="DCGM_FI_DEV_APP_MEM_CLOCK"),
        _state("clock_event_reasons_supported_bitmask", "int64", "What the GPU can say that holds its clocks.", "nvmlDeviceGetSupportedClocksEventReasons", bits=CLOCK_EVENT_REASONS),
        _state("pcie_link_maximum_generation", "int32", "Highest PCIe generation of card and slot.", "nvmlDeviceGetMaxPcieLinkGeneration"),
        _state("pcie_link_maximum_width_lanes", "int32", "Widest PCIe link of card and slot.", "nvmlDeviceGetMaxPcieLinkWidth"),
        _state("gsp_enabled", "bool", "Whether the GPU's system processor runs firmware.", "nvmlDeviceGetGspFirmwareMode"),
        _label("gsp_firmware_version", "string", "Firmware of the GPU's system processor.", "nvmlDeviceGetGspFirmwareVersion"),
        _label("inforom_version", "string", "Version of the board's InfoROM image.", "nvmlDeviceGetInforomImageVersion"),
        _label("os_name", "string", "Operating system.", "/etc/os-release"),
        _label("kernel_version", "string", "Kernel release.", "uname(2)"),
        _label("cpu_model", "string", "CPU model.", "/proc/cpuinfo"),
        _gauge("cpu_count", "int32", "Logical CPUs."),
        _label("capabilities", "json", "How the last try of each call went: an object from NVML function or field to ok, not_supported, missing_symbol, no_permission or error and its code."),
        _label("attributes", "json", "What else is known of it."),
    ),
)  # fmt: skip

LEDGER_EVENT = Kind(
    name="ledger_event",
    version=1,
    row="the recorder's own life: start, stop, gap, clock step, quarantine, retention",
    cadence="as it happens",
    fields=(
        _label("event", "string", "start, stop, gap, clock_step, suspend, probe_status, probe_failed, probe_stalled (a call does not return), probe_resumed (it has returned), probe_replaced (its thread was left behind), paused, resumed, renewed (the collector replaced its own process), quarantine, retention, hold, release, disk_low, disk_full, disk_ok or restored."),
        _label("message", "string", "What happened, as a sentence."),
        _label("probe", "string", "The probe it concerns."),
        _label("started_at", "time", "Beginning of the time it covers."),
        _label("ended_at", "time", "End of the time it covers."),
        _gauge("duration_seconds", "float64", "Length of the time it covers; of a clock step, its size."),
        _gauge("missed_ticks_count", "int64", "Ticks that were not sampled."),
        _label("pid", "int32", "The collector's process."),
        _label("gpuledger_version", "string", "Version of the program."),
        _label("details", "json", "What else is known of it; of a start, the settings in force."),
    ),
)  # fmt: skip

ANNOTATION = Kind(
    name="annotation",
    version=1,
    row="a note that a person or an agent pinned to a time",
    cadence="as it happens",
    fields=(
        _label("text", "string", "The note, at most 2,000 characters."),
        _label("tags", "strings", "Words to find it by."),
        _label("author", "string", "Who wrote it."),
        _label("started_at", "time", "Beginning of what it is about."),
        _label("ended_at", "time", "End of what it is about."),
        _label("gpu_uuid", "string", "The GPU it is about."),
    ),
)  # fmt: skip

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        GPU_SAMPLE,
        SYSTEM_SAMPLE,
        DEVICE_SAMPLE,
        PROCESS_SAMPLE,
        NVLINK_SAMPLE,
        REQUEST,
        SERVER_SAMPLE,
        GPU_EVENT,
        INVENTORY,
        LEDGER_EVENT,
        ANNOTATION,
    )
}


def measured_fields(kind: Kind) -> Sequence[Field]:
    """The gauges and counters of a kind: what can be asked for as a metric."""
    return [column for column in kind.fields if column.is_measured]
