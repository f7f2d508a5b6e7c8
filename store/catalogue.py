"""The catalogue's sealed segments, and how files leave it.

A file leaves in two steps. One transaction takes it out of the catalogue and notes from when it may be removed; it is
unlinked after that. So no catalogue entry ever names a file that is gone, no file is forgotten, and a reader that took
its list just before has the grace to open it.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

import apsw

from store.files import sync

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """One row of the catalogue; see `store.sealing.Segment`."""

    path: str
    kind: str
    version: int
    level: int
    host: str
    first_seq: int
    last_seq: int
    event_count: int
    first_observed_at_us: int
    last_observed_at_us: int
    size_bytes: int

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.path).parent)


def stored_segments(head: apsw.Connection) -> list[StoredSegment]:
    """The whole catalogue, in the order of seq."""
    columns = ", ".join(one.name for one in fields(StoredSegment))
    return [StoredSegment(*row) for row in head.execute(f"select {columns} from segment order by first_seq, path")]


def discard(head: apsw.Connection, segments: Sequence[StoredSegment], *, removable_at_us: int) -> None:
    """Take segments out of the catalogue, within the caller's transaction."""
    head.executemany("delete from segment where path = ?", [(one.path,) for one in segments])
    head.executemany(
        "insert or replace into removable_file values (?, ?, ?)",
        [(one.path, one.size_bytes, removable_at_us) for one in segments],
    )


def removable_bytes(head: apsw.Connection) -> int:
    """Bytes of files on their way out that are on the disk still."""
    size_bytes: int = head.execute("select coalesce(sum(size_bytes), 0) from removable_file").get
    return size_bytes


def unlink_removable(folder: Path, head: apsw.Connection, *, now_us: int) -> int:
    """Remove the files whose grace is over; returns how many. Their folders are synced before they are forgotten."""
    rows = head.execute("select path from removable_file where removable_at_us <= ?", (now_us,)).fetchall()
    paths = [folder / str(path) for (path,) in rows]
    for path in paths:
        path.unlink(missing_ok=True)
    for parent in {path.parent for path in paths}:
        _sync_or_remove(parent)
    head.executemany("delete from removable_file where path = ?", rows)
    return len(paths)


def _sync_or_remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        sync(folder)
        with suppress(OSError):  # it holds other files
            folder.rmdir()
            sync(folder.parent)


def total_bytes(segments: Iterable[StoredSegment]) -> int:
    return sum(one.size_bytes for one in segments)
