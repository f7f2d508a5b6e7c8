"""Lengths of time as people write them: `500ms`, `2s`, `1.5h`, `1h30m`."""

import re
from decimal import Decimal

from query.errors import LengthError

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d|w)"
LENGTH_MAX_S = 3660 * 86_400  # ten years: what is longer is a typing error


def length_s(text: str) -> float:
    """Seconds of a length.

    Raises:
        LengthError: It is none, it is nothing, or it is longer than ten years.
    """
    if not re.fullmatch(rf"(?:{_PART} ?)+", text.strip(), re.ASCII):
        raise LengthError(f"{text[:40]!r} is no length of time", "write it as 500ms, 2s, 15m or 1h30m")
    seconds = float(sum(Decimal(number) * _UNIT_MS[unit] for number, unit in re.findall(_PART, text)) / 1000)
    if not 0 < seconds <= LENGTH_MAX_S:
        raise LengthError(f"A length of {text[:40]} is {'nothing' if not seconds else 'too long'}", "give another")
    return seconds


def step_s(text: str) -> int:
    """A length that is whole seconds.

    Raises:
        LengthError: As `length_s`, or it is not.
    """
    seconds = length_s(text)
    if seconds != int(seconds):
        raise LengthError(f"A step of {text} is not whole seconds", "give one such as 10s, 5m or 1h")
    return int(seconds)
