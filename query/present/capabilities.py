"""What each call of the driver gave on each GPU, as it was recorded last: why a column is NULL for good."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from query.engine import Source, sql_text


@dataclass(frozen=True, slots=True)
class GpuCapabilities:
    """The calls of one GPU or MIG device.

    Args:
        index: NVML's index.
        uuid: Its identity.
        name: Its product name.
        recorded_at: When they were last found to be as they are, UTC.
        calls: NVML function or field to ok, not_supported, missing_symbol, no_permission or error and its code.
    """

    index: int
    uuid: str
    name: str | None
    recorded_at: datetime
    calls: Mapping[str, str]

    @property
    def refused(self) -> Mapping[str, str]:
        """The calls that gave nothing, and how they went."""
        return {call: status for call, status in self.calls.items() if status != "ok"}


def capabilities(source: Source) -> list[GpuCapabilities]:
    """Of each GPU and MIG device that was ever described, by index."""
    with source.engine(("inventory",)) as engine:
        rows = engine.query(sql_text("capabilities").format(relation=engine.relation("inventory"))).to_pylist()
    return [
        GpuCapabilities(
            row["gpu_index"],
            row["gpu_uuid"],
            row["name"],
            row["recorded_at"],
            msgspec.json.decode(row["capabilities"], type=dict[str, str]),
        )
        for row in rows
    ]
