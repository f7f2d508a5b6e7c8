"""The CPU's frequency and temperature, through psutil: where they stand differs from machine to machine."""

from collections.abc import Mapping
from typing import Any

import psutil

from store.events import AbsenceReason

CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
"""Names under which hwmon knows a CPU's own sensors: Intel, AMD, and the usual ones of ARM machines."""


def read_sensors() -> Mapping[str, Any]:
    """For each column of `system_sample` its value, or the `AbsenceReason` why it has none."""
    return {
        "cpu_frequency_hertz": _answer(_frequency_hertz),
        "cpu_temperature_celsius": _answer(_temperature_celsius),
    }


def _answer(read: Any) -> Any:
    try:
        value = read()
    except PermissionError:
        return AbsenceReason.NO_PERMISSION
    except (OSError, RuntimeError, NotImplementedError, AttributeError, ValueError):
        return AbsenceReason.NOT_SUPPORTED
    return value or AbsenceReason.NOT_SUPPORTED  # psutil says 0 MHz of a virtual machine that does not tell


def _frequency_hertz() -> int | None:
    frequency = psutil.cpu_freq()
    return None if frequency is None else round(frequency.current * 1_000_000)


def _temperature_celsius() -> float | None:
    chips = psutil.sensors_temperatures()
    readings = [reading.current for chip in CPU_CHIPS for reading in chips.get(chip, ())]
    return max(readings, default=None)
