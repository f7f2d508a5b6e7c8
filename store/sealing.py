"""Sealing: the tail of the head becomes Parquet.

Run as a short-lived process of its own, `python -m store.sealing FOLDER`, because pyarrow would double the
collector's memory. The steps, each of which may be the last before a crash:

1. what an interrupted sealing had announced and not catalogued is removed;
2. the tail is read; its events are grouped by kind and UTC day;
3. the files to be written are announced in the head;
4. each is written to a temporary name, synced, renamed, its folder synced;
5. ONE transaction adds them to the catalogue, drops their frames from the tail and withdraws the announcement.

A reader takes catalogue and tail in one read transaction, so it finds each event once: in the tail before
step 5, in a segment after it.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.errors import GpuledgerError
from store.events import KINDS, ColumnType, Kind
from store.files import publish_file
from store.frames import Frame, frames_to_arrow
from store.head import open_head
from store.ledger import frames_of_rows
from store.rollups import update_rollups

FOOTER_PREFIX = "gpuledger."
SEAL_LOCK_NAME = "seal.lock"
ZSTD_LEVEL = 3  # above 3 zstd takes twice the time for 0.6 % of the size
_ENCODINGS: dict[ColumnType, str] = {
    "int32": "DELTA_BINARY_PACKED",
    "int64": "DELTA_BINARY_PACKED",
    "decimal": "DELTA_BINARY_PACKED",
    "time": "DELTA_BINARY_PACKED",
    "float32": "BYTE_STREAM_SPLIT",
    "float64": "BYTE_STREAM_SPLIT",
}

_INSERT_SEGMENT = """
insert into segment (path, kind, version, level, host, first_seq, last_seq, event_count,
                     first_observed_at_us, last_observed_at_us, size_bytes)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of sealed events, as catalogue and footer describe it; `path` is relative to the ledger."""

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


@dataclass(frozen=True, slots=True)
class SealResult:
    """What one sealing did."""

    event_count: int
    segments: tuple[Segment, ...]


def seal(folder: Path) -> SealResult:
    """Move all events of the tail into Parquet segments. Does nothing where another process is sealing.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
    """
    head = open_head(folder)
    try:
        with _seal_lock(folder) as is_ours:
            return _seal(folder, head) if is_ours else SealResult(0, ())
    finally:
        head.close()


@contextmanager
def _seal_lock(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder / SEAL_LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _seal(folder: Path, head: apsw.Connection) -> SealResult:
    _remove_unfinished(folder, head)
    frames = frames_of_rows(head.execute("select * from frame order by first_seq").fetchall())
    if not frames:
        return SealResult(0, ())
    pieces = [piece for kind, group in _by_kind(frames).items() for piece in _pieces(kind, group)]
    _announce(head, [segment for segment, _ in pieces])
    ledger_id: str = head.execute("select id from ledger").get
    for segment, table in pieces:
        publish_file(folder / segment.path, partial(_write_parquet, segment, table, ledger_id))
    segments = tuple(segment for segment, _ in pieces)
    _commit(folder, head, segments, frames)
    return SealResult(sum(frame.count for frame in frames), segments)


def _remove_unfinished(folder: Path, head: apsw.Connection) -> None:
    paths = [str(row[0]) for row in head.execute("select path from unfinished_segment").fetchall()]
    for path in paths:
        (folder / path).unlink(missing_ok=True)
        target = folder / path
        target.with_name(f".{target.name}.tmp").unlink(missing_ok=True)
    if paths:
        head.execute("delete from unfinished_segment")


def _by_kind(frames: Sequence[Frame]) -> dict[Kind, list[Frame]]:
    groups: dict[Kind, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(KINDS[frame.kind], []).append(frame)
    return groups


def _pieces(kind: Kind, frames: Sequence[Frame]) -> Iterator[tuple[Segment, pa.Table]]:
    """The events of one kind, cut where the UTC day or the host changes: one day and one host a file."""
    for host in dict.fromkeys(frame.host for frame in frames):
        table = frames_to_arrow(kind, [frame for frame in frames if frame.host == host])
        days = pc.cast(table["observed_at"].cast(pa.timestamp("us")), pa.date32())
        for day in pc.unique(days).to_pylist():
            of_day = table.filter(pc.equal(days, day))
            yield _describe(kind, host, day, of_day), of_day


def _describe(kind: Kind, host: str, day: date, table: pa.Table) -> Segment:
    seqs = pc.min_max(table["seq"])
    times = pc.min_max(table["observed_at"].cast(pa.int64()))
    first_seq, last_seq = seqs["min"].as_py(), seqs["max"].as_py()
    name = f"{_file_name_part(host)}-{first_seq}-{last_seq}-0.parquet"
    path = f"events/{kind.name}/v={kind.version}/date={day.isoformat()}/{name}"
    first_us, last_us = times["min"].as_py(), times["max"].as_py()
    return Segment(path, kind.name, kind.version, 0, host, first_seq, last_seq, table.num_rows, first_us, last_us)


def _file_name_part(host: str) -> str:
    return "".join(character if character.isalnum() or character in "-._" else "_" for character in host)


def _announce(head: apsw.Connection, segments: Sequence[Segment]) -> None:
    with head:
        head.executemany("insert into unfinished_segment values (?)", [(segment.path,) for segment in segments])


def _write_parquet(segment: Segment, table: pa.Table, ledger_id: str, path: Path) -> None:
    kind = KINDS[segment.kind]
    footer = {
        "ledger_id": ledger_id,
        "kind": segment.kind,
        "version": segment.version,
        "level": segment.level,
        "host": segment.host,
        "first_seq": segment.first_seq,
        "last_seq": segment.last_seq,
        "event_count": segment.event_count,
        "first_observed_at": _iso(segment.first_observed_at_us),
        "last_observed_at": _iso(segment.last_observed_at_us),
    }
    encodings = {column.name: _ENCODINGS[column.type] for column in kind.columns if column.type in _ENCODINGS}
    writer = pq.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=[column.name for column in kind.columns if column.name not in encodings],
        column_encoding=encodings,
        store_decimal_as_integer=True,
        store_schema=False,
        write_statistics=["seq", "observed_at"],
    )
    with writer:
        writer.write_table(table)
        writer.add_key_value_metadata({f"{FOOTER_PREFIX}{key}": str(value) for key, value in footer.items()})


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="microseconds")


def _commit(folder: Path, head: apsw.Connection, segments: Sequence[Segment], frames: Sequence[Frame]) -> None:
    rows: list[tuple[Any, ...]] = [
        (
            segment.path,
            segment.kind,
            segment.version,
            segment.level,
            segment.host,
            segment.first_seq,
            segment.last_seq,
            segment.event_count,
            segment.first_observed_at_us,
            segment.last_observed_at_us,
            (folder / segment.path).stat().st_size,
        )
        for segment in segments
    ]
    with head:
        head.executemany(_INSERT_SEGMENT, rows)
        head.executemany("delete from frame where first_seq = ?", [(frame.first_seq,) for frame in frames])
        head.execute("delete from unfinished_segment")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m store.sealing", description="Seal a ledger's tail into Parquet.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    try:
        seal(folder)
        for path, reason in update_rollups(folder).unreadable.items():
            print(f"{path} could not be read for the rollups: {reason}", file=sys.stderr)  # noqa: T201 - as below
    except GpuledgerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the collector logs what its child says
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
