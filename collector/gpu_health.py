"""How well a GPU is and what its limits are: read every minute."""

from collections.abc import Iterator

import pynvml

from collector.gpu_calls import FieldReading, Fields, Reading, always, flag, milli, number, unscaled
from collector.nvml import Handle

_MODULE = 1  # NVML_POWER_SCOPE_MODULE

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
    (144, 0, "row_remap_pending", always(flag)),
    (145, 0, "row_remap_failed", always(flag)),
    (193, 0, "shutdown_margin_celsius", always(unscaled)),
    (194, 0, "slowdown_margin_celsius", always(unscaled)),
    (190, _MODULE, "module_power_limit_watts", always(milli)),
    (230, 0, "recovery_action", always(unscaled)),
)


def health_readings(device: Handle) -> list[Reading]:
    """The readings of one GPU."""
    return [FieldReading(device, _FIELDS), *_temperature_thresholds(device)]


def _temperature_thresholds(device: Handle) -> Iterator[Reading]:
    for limit, threshold in (
        ("slowdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        ("shutdown", pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
    ):
        yield number(device, f"{limit}_temperature_celsius", "nvmlDeviceGetTemperatureThreshold", arguments=[threshold])
