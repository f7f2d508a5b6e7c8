"""Figures for a reader: three significant digits, spelled-out sizes, sparklines."""

import math
from collections.abc import Sequence
from typing import TypeGuard

SPARKS = "▁▂▃▄▅▆▇█"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T")


def significant(value: float | None, digits: int = 3) -> float | int | None:
    """`value` at so many significant digits; whole numbers stay whole, NULL and what is no number become NULL."""
    if value is None or math.isnan(value):
        return None
    if value == 0 or math.isinf(value):
        return value or 0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(float(value), places)
    return int(rounded) if rounded.is_integer() else rounded


def spelled(value: float | None, unit: str) -> str:
    """`value` with its unit for a person: `116 GiB`, `1.98 GHz`, `640 J/s`, `93.2 %`; a dash where there is none."""
    figure = significant(value)
    if value is None or figure is None:
        return "–"
    quantity, slash, per = unit.partition("/")
    if quantity == "B":
        return f"{_scaled(value, 1024, _BINARY)}{slash}{per}"
    if quantity in ("Hz", "J"):
        return f"{_scaled(value, 1000, tuple(prefix + quantity for prefix in _DECIMAL))}{slash}{per}"
    text = f"{figure:,}" if isinstance(figure, int) else f"{figure:.15g}"
    return f"{text} {unit}" if unit else text


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while abs(significant(value) or 0) >= base and power < len(units) - 1:
        value /= base
        power += 1
    return f"{significant(value):.15g} {units[power]}"


def age_words(age_s: float | None) -> str:
    """`1.2 s`, `14 min`, `3.1 d`; `never` where there is none."""
    if age_s is None:
        return "never"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if age_s >= 2 * size:
            return f"{significant(age_s / size, 2)} {unit}"
    return f"{significant(age_s, 2)} s"


def sparkline(points: Sequence[float | None], unit: str = "") -> str:
    """One character a point; a blank where there is none.

    Percentages stand between 0 and 100, so that busy looks busy; anything else between its least and its greatest, and
    halfway up where all are alike.
    """
    present = [point for point in points if _is_number(point)]
    low, high = (0.0, 100.0) if unit == "%" else (min(present, default=0.0), max(present, default=0.0))
    return "".join(_spark(point, low, high) if _is_number(point) else " " for point in points)


def _spark(point: float, low: float, high: float) -> str:
    share = (point - low) / (high - low) if high > low else 0.5
    return SPARKS[min(len(SPARKS) - 1, max(0, int(share * len(SPARKS))))]


def _is_number(point: float | None) -> TypeGuard[float]:
    return point is not None and math.isfinite(point)
