"""Whether the rollups are to be brought up to date: told without Arrow and numpy, which only an update needs."""

from contextlib import closing
from pathlib import Path

import apsw

from store.errors import GpuledgerError
from store.head import has_table, open_head_for_reading
from store.times import HOUR_US

CLOSED_AFTER_US = 30_000_000
"""An hour is closed so long after its end: what is observed in it has been appended by then."""


def rollups_are_due(folder: Path, *, now_us: int) -> bool:
    """Whether an hour has closed since the rollups were last up to date, or the clock was put back over one.

    Where there is no ledger that can be read there is nothing to roll up either: upkeep says what is wrong.
    """
    try:
        with closing(open_head_for_reading(folder)) as head:
            done_us = head.execute("select max(done_at_us) from rolling").get if has_table(head, "rolling") else None
    except (GpuledgerError, apsw.Error):
        return False
    return done_us is None or _closed_hour(int(done_us)) != _closed_hour(now_us)


def note_rolled(head: apsw.Connection, *, now_us: int) -> None:
    """Note that the rollups are up to date now."""
    with head:
        head.execute("delete from rolling")
        head.execute("insert into rolling values (?)", (now_us,))


def _closed_hour(time_us: int) -> int:
    return (time_us - CLOSED_AFTER_US) // HOUR_US
