"""How well a GPU is and what its limits are: read every minute."""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pynvml

from collector.gpu.calls import (
    FieldReading,
    Fields,
    Reading,
    always,
    filled,
    flag,
    milli,
    number,
    structure,
    unscaled,
    versioned,
)
from collector.gpu.fabric import Fabric, fabric_ways
from collector.gpu.nvml import Handle, plain
from collector.probe import Answers
from store.events import AbsenceReason

_MODULE = 1  # NVML_POWER_SCOPE_MODULE
_DRAM, _SRAM = 2, 7  # NVML_MEMORY_LOCATION_*

_FIELDS: Fields = (
    (3, 0, "ecc_corrected_volatile_count", always(unscaled)),
    (4, 0, "ecc_uncorrected_volatile_count", always(unscaled)),
    (5, 0, "ecc_corrected_aggregate_count", always(unscaled)),
    (6, 0, "ecc_uncorrected_aggregate_count", always(unscaled)),
    (29, 0, "retired_pages_single_bit_count", always(unscaled)),
    (30, 0, "retired_pages_double_bit_count", always(unscaled)),
    (31, 0, "retired_pages_pending", always(flag)),
    (142, 0, "remapped_rows_corrected_count", always(unscaled)),
    (143, 0, "remapped_rows_uncorrected_count", always(unscaled)),
    (301, 0, "remapped_rows_corrected_inactive_count", always(unscaled)),
    (302, 0, "remapped_rows_uncorrected_inactive_count", always(unscaled)),
    (144, 0, "row_remap_pending", always(flag)),
    (145, 0, "row_remap_failed", always(flag)),
    (193, 0, "shutdown_margin_celsius", always(unscaled)),
    (194, 0, "slowdown_margin_celsius", always(unscaled)),
    (195, 0, "memory_maximum_margin_celsius", always(unscaled)),
    (196, 0, "maximum_margin_celsius", always(unscaled)),
    (190, _MODULE, "module_power_limit_watts", always(milli)),
    (192, 0, "power_limit_requested_watts", always(milli)),
    (274, 0, "power_edpp_multiplier_percent", always(unscaled)),
    (170, 0, "c2c_links_count", always(unscaled)),
    (231, 0, "c2c_crc_error_count", always(unscaled)),
    (232, 0, "c2c_replay_error_count", always(unscaled)),
    (233, 0, "c2c_replay_back_to_back_error_count", always(unscaled)),
    (230, 0, "recovery_action", always(unscaled)),
)


_SRAM_COUNTERS: Mapping[str, str] = {
    "ecc_sram_parity_volatile_count": "volatileUncParity",
    "ecc_sram_parity_aggregate_count": "aggregateUncParity",
    "ecc_sram_secded_volatile_count": "volatileUncSecDed",
    "ecc_sram_secded_aggregate_count": "aggregateUncSecDed",
    "ecc_sram_l2_aggregate_count": "aggregateUncBucketL2",
    "ecc_sram_sm_aggregate_count": "aggregateUncBucketSm",
    "ecc_sram_pcie_aggregate_count": "aggregateUncBucketPcie",
    "ecc_sram_microcontroller_aggregate_count": "aggregateUncBucketMcu",
    "ecc_sram_other_aggregate_count": "aggregateUncBucketOther",
}
"""Columns, and what nvmlEccSramErrorStatus_v1_t calls them."""

_THRESHOLDS: Sequence[tuple[str, int]] = (
    ("shutdown_temperature_celsius", 0),
    ("slowdown_temperature_celsius", 1),
    ("memory_maximum_temperature_celsius", 2),
    ("maximum_temperature_celsius", 3),
    ("target_minimum_temperature_celsius", 4),
    ("target_temperature_celsius", 5),
    ("target_maximum_temperature_celsius", 6),
)
"""Columns, and their nvmlTemperatureThresholds_t."""


def health_readings(device: Handle) -> list[Reading]:
    """The readings of one GPU."""
    repairs = ("channel_repair_pending", "tpc_repair_pending")
    return [
        FieldReading(device, _FIELDS),
        *_memory_errors(device),
        _sram_errors(device),
        structure(
            device,
            ("nvmlDeviceGetRowRemapperHistogram",),
            pynvml.c_nvmlRowRemapperHistogramValues,
            {
                "remap_banks_maximum_count": "max",
                "remap_banks_high_count": "high",
                "remap_banks_partial_count": "partial",
                "remap_banks_low_count": "low",
                "remap_banks_none_count": "none",
            },
        ),
        Reading(repairs, versioned(device, "nvmlDeviceGetRepairStatus", repairs, scaled=flag)),
        Reading(
            ("memory_unrepairable",),
            versioned(device, "nvmlDeviceGetUnrepairableMemoryFlag_v1", ["memory_unrepairable"], scaled=flag),
        ),
        *(
            number(device, column, "nvmlDeviceGetTemperatureThreshold", arguments=[threshold])
            for column, threshold in _THRESHOLDS
        ),
        _fabric(device),
    ]


def health_substitutes(device: Handle) -> list[Reading]:
    """Calls for columns whose field the driver does not serve."""
    return [number(device, "power_limit_requested_watts", "nvmlDeviceGetPowerManagementLimit", scaled=milli)]


def _memory_errors(device: Handle) -> Iterator[Reading]:
    """ECC errors by where they were."""
    for error_type, error in enumerate(("corrected", "uncorrected")):
        for counter_type, scope in enumerate(("volatile", "aggregate")):
            for place_id, place in ((_DRAM, "dram"), (_SRAM, "sram")):
                yield number(
                    device,
                    f"ecc_{error}_{scope}_{place}_count",
                    "nvmlDeviceGetMemoryErrorCounter",
                    arguments=[error_type, counter_type, place_id],
                    out=ctypes.c_ulonglong,
                )


def _sram_errors(device: Handle) -> Reading:
    status = plain(pynvml.c_nvmlEccSramErrorStatus_v1_t)(version=pynvml.nvmlEccSramErrorStatus_v1)

    def told(status: Any) -> Answers:
        counters = {column: getattr(status, member) for column, member in _SRAM_COUNTERS.items()}
        return {**counters, "ecc_sram_threshold_exceeded": bool(status.bThresholdExceeded)}

    columns = (*_SRAM_COUNTERS, "ecc_sram_threshold_exceeded")
    return Reading(columns, filled(device, "nvmlDeviceGetSramEccErrorStatus", status, told))


def _fabric(device: Handle) -> Reading:
    def way(name: str, ask: Callable[[], Fabric]) -> tuple[str, Callable[[], Answers]]:
        return name, lambda: _fabric_answers(ask())

    columns = ("fabric_state", "fabric_status", "fabric_health", "fabric_health_bitmask")
    return Reading(columns, *(way(name, ask) for name, ask in fabric_ways(device)))


def _fabric_answers(fabric: Fabric) -> Answers:
    return {
        "fabric_state": fabric.state,
        "fabric_status": AbsenceReason.NO_DATA if fabric.status is None else fabric.status,
        "fabric_health": fabric.health or AbsenceReason.NOT_SUPPORTED,
        "fabric_health_bitmask": AbsenceReason.NOT_SUPPORTED if fabric.health_mask is None else fabric.health_mask,
    }
