"""Sealing: the tail of the head becomes Parquet.

The first step of `store.upkeep.run`, which runs as a short-lived process of its own, because Arrow would double the
collector's memory. Its own steps, each of which may be the last before a crash:

1. what an interrupted sealing had announced and not catalogued is removed;
2. the tail is read; its events are grouped by kind and UTC day;
3. the files to be written are announced in the head;
4. each is written to a temporary name, synced, renamed, its folder synced;
5. ONE transaction adds them to the catalogue, drops their frames from the tail and withdraws the announcement.

A reader takes catalogue and tail in one read transaction, so it finds each event once: in the tail before
step 5, in a segment after it.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import apsw
import pyarrow as pa

from store.encodings import segment_writer
from store.events import Kind
from store.files import publish_file
from store.frames import Frame, frames_to_arrow
from store.head import open_head
from store.ledger import frames_of_rows, transaction
from store.segments import Segment, announce, as_written, enter_segments, remove_unfinished, segment_path
from store.shapes import shape
from store.space import disk_errors_in_words
from store.times import DAY_US

SEAL_LOCK_NAME = "seal.lock"
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class SealResult:
    """What one sealing did."""

    event_count: int = 0
    segments: tuple[Segment, ...] = ()


def seal(folder: Path) -> SealResult:
    """Move all events of the tail into Parquet segments. Does nothing where another process is sealing.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`; or the disk is full or failing.
    """
    with (
        closing(open_head(folder)) as head,
        disk_errors_in_words(folder, not_sealed(folder)),
        seal_lock(folder) as ours,
    ):
        return seal_tail(folder, head, now_us=time.time_ns() // 1000) if ours else SealResult()


def not_sealed(folder: Path) -> str:
    """What a failed sealing means, as the beginning of a sentence."""
    return f"The tail of the ledger {folder} was not sealed and is kept as it is"


@contextmanager
def seal_lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """The right to change what is under events/; gives whether it was had. With `wait` it always is, in the end."""
    descriptor = os.open(folder / SEAL_LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def seal_tail(folder: Path, head: apsw.Connection, *, now_us: int) -> SealResult:
    """Seal, for the holder of the lock."""
    remove_unfinished(folder, head)
    frames = frames_of_rows(head.execute("select * from frame order by first_seq").fetchall())
    if not frames:
        return SealResult()
    pieces = [piece for kind, group in _by_kind(frames).items() for piece in _pieces(kind, group)]
    announce(head, [segment.path for segment, _ in pieces])
    ledger_id: str = head.execute("select id from ledger").get
    for segment, table in pieces:
        publish_file(folder / segment.path, partial(_write, segment, table, ledger_id))
    segments = tuple(as_written(folder, segment) for segment, _ in pieces)
    with transaction(head):
        enter_segments(head, segments, now_us=now_us)
        head.executemany("delete from frame where first_seq = ?", [(frame.first_seq,) for frame in frames])
    return SealResult(sum(frame.count for frame in frames), segments)


def _by_kind(frames: Sequence[Frame]) -> dict[Kind, list[Frame]]:
    groups: dict[Kind, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(shape(frame.kind, frame.version), []).append(frame)
    return groups


def _pieces(kind: Kind, frames: Sequence[Frame]) -> Iterator[tuple[Segment, pa.Table]]:
    """The events of one kind, cut where the UTC day or the host changes: one day and one host a file."""
    for host in dict.fromkeys(frame.host for frame in frames):
        table = frames_to_arrow(kind, [frame for frame in frames if frame.host == host])
        days = [time_us // DAY_US for time_us in _integers(table["observed_at"])]
        distinct = dict.fromkeys(days)
        for day in distinct:
            of_day = table.filter(pa.array([one == day for one in days])) if len(distinct) > 1 else table
            yield _describe(kind, host, _EPOCH + timedelta(day), of_day), of_day


def _integers(column: pa.ChunkedArray) -> list[int]:
    """What the columns of a sealing are asked for is asked in Python: Arrow's functions take 35 ms of CPU to import."""
    integers: list[int] = column.combine_chunks().view(pa.int64()).to_pylist()
    return integers


def _describe(kind: Kind, host: str, day: date, table: pa.Table) -> Segment:
    seqs, times = _integers(table["seq"]), _integers(table["observed_at"])
    first_seq, last_seq = min(seqs), max(seqs)
    path = segment_path(kind.name, kind.version, day.isoformat(), host, (first_seq, last_seq), level=0)
    return Segment(path, kind.name, kind.version, 0, host, first_seq, last_seq, table.num_rows, min(times), max(times))


def _write(segment: Segment, table: pa.Table, ledger_id: str, path: Path) -> None:
    with segment_writer(path, segment, ledger_id, table.schema) as writer:
        writer.write_table(table)
