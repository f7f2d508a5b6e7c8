"""The catalogue of sealed segments, and what of it the disk really has."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import apsw

from store.times import microseconds

EVENTS_FOLDER = "events"
SEGMENT_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class CataloguedSegment:
    """One sealed file as the catalogue describes it.

    Args:
        path: Relative to the ledger's folder.
        sha256: Of the whole file; None where it was never taken (sealed by an older release, or taken in again).
    """

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
    sha256: str | None

    @property
    def details(self) -> dict[str, Any]:
        """What an event about this segment says of it."""
        return {name: getattr(self, name) for name in ("path", "kind", "host", "first_seq", "last_seq", "event_count")}


COLUMNS = tuple(field.name for field in fields(CataloguedSegment))


def catalogued(head: apsw.Connection) -> list[CataloguedSegment]:
    """Every segment, in order of seq."""
    has = {row[1] for row in head.execute("pragma table_info(segment)")}
    columns = ", ".join(name if name in has else f"null as {name}" for name in COLUMNS)  # a head not migrated yet
    return [CataloguedSegment(*row) for row in head.execute(f"select {columns} from segment order by first_seq, path")]


def enter_segments(head: apsw.Connection, segments: Iterable[CataloguedSegment]) -> None:
    """Add segments to the catalogue, or describe them anew, inside the caller's transaction."""
    places = ", ".join("?" for _ in COLUMNS)
    head.executemany(
        f"insert or replace into segment ({', '.join(COLUMNS)}) values ({places})",
        ([getattr(segment, name) for name in COLUMNS] for segment in segments),
    )


def drop_segments(head: apsw.Connection, paths: Iterable[str]) -> None:
    head.executemany("delete from segment where path = ?", [(path,) for path in paths])


def accounted_paths(head: apsw.Connection) -> set[str]:
    """Every path that some table of the head answers for: catalogued, announced, or kept for readers for a while.

    Whatever table has a column `path` counts, so that a file is nobody's stray only because a table is new.
    """
    tables = head.execute(
        "select s.name from sqlite_schema s join pragma_table_info(s.name) c where s.type = 'table' and c.name = 'path'"
    ).fetchall()
    return {str(path) for (table,) in tables for (path,) in head.execute(f'select path from "{table}"')}


def announced_paths(head: apsw.Connection) -> set[str]:
    return {str(path) for (path,) in head.execute("select path from unfinished_segment")}


def event_files(folder: Path) -> Iterator[str]:
    """Every file under events/, relative to the ledger's folder, in order of path."""
    for root, folders, names in os.walk(folder / EVENTS_FOLDER):
        folders.sort()
        for name in sorted(names):
            yield str((Path(root) / name).relative_to(folder))


def segment_of_footer(path: str, footer: Mapping[str, str], size_bytes: int) -> CataloguedSegment:
    """The catalogue's row for a file, from what its footer says.

    Raises:
        KeyError, ValueError: The footer is not a segment's.
    """
    return CataloguedSegment(
        path=path,
        kind=footer["kind"],
        version=int(footer["version"]),
        level=int(footer["level"]),
        host=footer["host"],
        first_seq=int(footer["first_seq"]),
        last_seq=int(footer["last_seq"]),
        event_count=int(footer["event_count"]),
        first_observed_at_us=microseconds(footer["first_observed_at"]),
        last_observed_at_us=microseconds(footer["last_observed_at"]),
        size_bytes=size_bytes,
        sha256=None,
    )
