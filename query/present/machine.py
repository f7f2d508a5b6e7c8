"""What the machine is: its GPUs, host, disks, networks and links, as they were last described."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from query.engine import Source
from query.reading.newest_rows import NewestQuestion
from store.events import KINDS

LOOK_BACK_S = 600
_NEVER_TOLD = frozenset(("seq", "boot_id", "capabilities", "absence", "interval_seconds", "counter_epoch"))

Row = Mapping[str, Any]


def descriptions(source: Source, subject: str) -> list[Row]:
    """What was last recorded of each GPU, MIG device or host, without what is not known of it.

    Args:
        source: Where the events are.
        subject: gpu, mig or host.
    """
    columns = tuple(KINDS["inventory"].by_name)
    rows = source.newest(NewestQuestion("inventory", columns, ("host", "subject", "gpu_uuid")))
    found = [row for row in rows if row["subject"] == subject]
    return [_told(row) for row in sorted(found, key=lambda row: (row["gpu_index"] is None, row["gpu_index"]))]


def newest(source: Source, kind: str, *, now: datetime) -> list[Row]:
    """The newest row of each series of a kind in the last ten minutes, without what is not known."""
    start_us = round(now.timestamp() * 1e6) - LOOK_BACK_S * 1_000_000
    columns = tuple(KINDS[kind].by_name)
    rows = source.newest(NewestQuestion(kind, columns, ("host", *KINDS[kind].series), start_us))
    return [_told(row) for row in rows]


def _told(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None and name not in _NEVER_TOLD}
