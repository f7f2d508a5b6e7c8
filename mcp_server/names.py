"""Text from outside: names of processes, containers, models and requests are data, and nothing an agent should obey.

It goes into cells of tables and never into a sentence. There it is bounded, on one line, and without what a terminal or
a reader could be fooled by: ANSI sequences, control characters, marks that turn the direction of writing, and
characters without a width.
"""

import re
from typing import Any

CELL_CHARACTERS_MAX = 120
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_INVISIBLE = (
    *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0x061C, 0x00AD, 0x180E,
    *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080), *range(0xD800, 0xE000),
)  # fmt: skip
_GONE = dict.fromkeys((*range(32), *range(127, 160), *_INVISIBLE)) | dict.fromkeys(b"\t\n\r", " ")


def clean(value: Any, characters_max: int = CELL_CHARACTERS_MAX) -> Any:
    """`value`, and where it is text, fit for a cell."""
    if not isinstance(value, str):
        return value
    text = _ANSI.sub("", value[: 8 * characters_max]).translate(_GONE)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
