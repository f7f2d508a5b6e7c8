"""Values with a unit as people write them: `70GiB`, `500 MB`, `85`, `1.5 GHz`."""

import re

from query.errors import QuantityError

_FACTORS = {
    "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40,
}  # fmt: skip
_FORM = r"(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?P<prefix>[kKMGT]i?)?(?P<unit>[A-Za-z°%/]*)"


def quantity(text: str, unit: str) -> float:
    """The value in `unit`; a unit that is written must be that one, with or without a prefix.

    Raises:
        QuantityError: It is no number, or of another unit.
    """
    found = re.fullmatch(_FORM, text.strip())
    if not found:
        raise QuantityError(
            f"{text[:40]!r} is no value", f"write a number of {unit or 'plain units'}, such as 85 or 70Gi"
        )
    if found["unit"] not in ("", unit):
        raise QuantityError(f"{text[:40]!r} is not in {unit or 'plain units'}", "leave the unit out, or give that one")
    return float(found["number"]) * _FACTORS.get((found["prefix"] or "").lower(), 1.0)
