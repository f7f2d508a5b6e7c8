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
_STORED = tuple(name for name in COLUMNS if name != "sha256")


def catalogued(head: apsw.Connection) -> list[CataloguedSegment]:
    """Every segment, in order of seq."""
    stored = ", ".join(_STORED)
    if _has_checksums(head):
        sql = f"select {stored}, sha256 from segment left join checksum on segment_path = path"
    else:
        sql = f"select {stored}, null from segment"
    return [CataloguedSegment(*row) for row in head.execute(f"{sql} order by first_seq, path")]


def _has_checksums(head: apsw.Connection) -> bool:
    """Whether the head's shape has them: a reader may meet one that no newer recorder has migrated yet."""
    exists: int = head.execute("select exists (select 1 from sqlite_schema where name = 'checksum')").get
    return bool(exists)


def enter_segments(head: apsw.Connection, segments: Iterable[CataloguedSegment], *, now_us: int) -> None:
    """Add segments to the catalogue, or describe them anew, inside the caller's transaction."""
    segments = list(segments)
    places = ", ".join("?" for _ in _STORED)
    head.executemany(
        f"insert or replace into segment ({', '.join(_STORED)}) values ({places})",
        ([getattr(segment, name) for name in _STORED] for segment in segments),
    )
    enter_checksums(head, {one.path: one.sha256 for one in segments if one.sha256}, now_us=now_us)


def enter_checksums(head: apsw.Connection, checksums: Mapping[str, str], *, now_us: int) -> None:
    """Remember what files were seen to have, path to SHA-256, inside the caller's transaction."""
    rows = [(path, sha256, now_us) for path, sha256 in checksums.items()]
    head.executemany("insert or replace into checksum values (?, ?, ?)", rows)


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
