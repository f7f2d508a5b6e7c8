"""What the machine is: its GPUs, host, disks, networks and links, as they were last described."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from query.engine import Source, in_window, sql_text
from store.events import KINDS
from store.snapshot import END_OF_TIME_US

LOOK_BACK_S = 600
_NEVER_TOLD = frozenset(("seq", "boot_id", "capabilities", "absence", "interval_seconds", "counter_epoch"))

Row = Mapping[str, Any]


def descriptions(source: Source, subject: str) -> list[Row]:
    """What was last recorded of each GPU, MIG device or host, without what is not known of it.

    Args:
        source: Where the events are.
        subject: gpu, mig or host.
    """
    with source.engine(("inventory",)) as engine:
        text = sql_text("newest_rows").format(
            relation=engine.relation("inventory"), keys="host, subject, gpu_uuid", in_window=in_window(engine)
        )
        rows = engine.query(text, start=0, end=END_OF_TIME_US // 1000).to_pylist()
    found = [row for row in rows if row["subject"] == subject]
    return [_told(row) for row in sorted(found, key=lambda row: (row["gpu_index"] is None, row["gpu_index"]))]


def newest(source: Source, kind: str, *, now: datetime) -> list[Row]:
    """The newest row of each series of a kind in the last ten minutes, without what is not known."""
    end_us = round(now.timestamp() * 1e6) + 1
    start_us = end_us - LOOK_BACK_S * 1_000_000
    with source.engine((kind,), start_us=start_us, end_us=end_us) as engine:
        text = sql_text("newest_rows").format(
            relation=engine.relation(kind), keys=", ".join(("host", *KINDS[kind].series)), in_window=in_window(engine)
        )
        rows: Sequence[Row] = engine.query(text, start=start_us, end=end_us).to_pylist()
    return [_told(row) for row in rows]


def _told(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None and name not in _NEVER_TOLD}
