"""Figures for a reader: three significant digits, spelled-out sizes, sparklines."""

import math
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T")


def significant(value: float | None, digits: int = 3) -> float | int | None:
    """`value` at so many significant digits; whole numbers stay whole, NULL stays NULL."""
    if value is None or not math.isfinite(value) or value == 0:
        return 0 if value == 0 else None if value is None or math.isnan(value) else value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(float(value), places)
    return int(rounded) if places <= 0 or rounded.is_integer() else rounded


def spelled(value: float | None, unit: str) -> str:
    """`value` with its unit for a person: `116 GiB`, `1.98 GHz`, `93.2 %`; a dash where there is none."""
    if value is None:
        return "–"
    if unit in ("B", "B/s"):
        return _scaled(value, 1024, _BINARY) + unit.removeprefix("B")
    if unit in ("Hz", "J"):
        return _scaled(value, 1000, tuple(prefix + unit for prefix in _DECIMAL))
    figure = significant(value)
    text = f"{figure:,}" if isinstance(figure, int) else f"{figure:.15g}"
    return f"{text} {unit}" if unit else text


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value /= base
        power += 1
    figure = significant(value)
    return f"{figure:.15g} {units[power]}"


def age_words(age_s: float | None) -> str:
    """`1.2 s`, `14 min`, `3.1 d`; `never` where there is none."""
    if age_s is None:
        return "never"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if age_s >= 2 * size:
            return f"{significant(age_s / size, 2)} {unit}"
    return f"{significant(age_s, 2)} s"


def sparkline(points: Sequence[float | None]) -> str:
    """One character a point, from the least to the greatest; a blank where there is none."""
    present = [point for point in points if point is not None]
    if not present:
        return " " * len(points)
    low, high = min(present), max(present)
    width = (high - low) or 1.0
    return "".join(
        " " if point is None else SPARKS[min(len(SPARKS) - 1, int((point - low) / width * len(SPARKS)))]
        for point in points
    )
