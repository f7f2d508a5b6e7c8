"""Sealed segments: their names and footers, the catalogue, and how a file comes into it and leaves it.

A file comes in by way of an announcement: its path is noted in the head before it is written and withdrawn in the
transaction that catalogues it, so that what was interrupted in between is found again. It leaves in two steps: one
transaction takes it out of the catalogue and notes from when it may be removed; it is unlinked after that. So no
catalogue entry ever names a file that is gone, no file is forgotten, and a reader that took its list just before has
the grace to open it. A file that is damaged leaves by `store.repair.quarantine`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import apsw

from store.files import remove_empty_folder, sha256_of, sync, unlink
from store.head import has_table
from store.times import DAY_US, iso_text, microseconds

EVENTS_FOLDER = "events"
ROLLUPS_FOLDER = "rollups"
SEGMENT_SUFFIX = ".parquet"
TEMPORARY_SUFFIX = ".tmp"
FOOTER_PREFIX = "gpuledger."
_TOLD_BY_FOOTER = ("kind", "version", "level", "host", "first_seq", "last_seq", "event_count")


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of sealed events, as catalogue and footer describe it.

    Args:
        path: Relative to the ledger's folder.
        level: How often its events were rewritten since they were sealed: 0 as sealed.
        size_bytes: 0 until it is written.
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
    size_bytes: int = 0
    sha256: str | None = None

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.path).parent)

    @property
    def details(self) -> dict[str, Any]:
        """What an event about this segment says of it."""
        return {name: getattr(self, name) for name in ("path", "kind", "host", "first_seq", "last_seq", "event_count")}


def segment_path(kind: str, version: int, day: str, host: str, seqs: tuple[int, int], *, level: int) -> str:
    """Where a segment stands; characters of `host` that a file name should not have become `_`."""
    safe_host = "".join(character if character.isalnum() or character in "-._" else "_" for character in host)
    name = f"{safe_host}-{seqs[0]}-{seqs[1]}-{level}{SEGMENT_SUFFIX}"
    return f"{EVENTS_FOLDER}/{kind}/v={version}/date={day}/{name}"


# Footers ----------------------------------------------------------------------------------------------------------


def footer_texts(segment: Segment, ledger_id: str) -> dict[str, str]:
    """What a segment's Parquet footer says of it: enough to catalogue it anew without the head."""
    said = {
        "ledger_id": ledger_id,
        **{name: getattr(segment, name) for name in _TOLD_BY_FOOTER},
        "first_observed_at": iso_text(segment.first_observed_at_us),
        "last_observed_at": iso_text(segment.last_observed_at_us),
    }
    return {f"{FOOTER_PREFIX}{name}": str(value) for name, value in said.items()}


def segment_of_footer(path: str, footer: Mapping[str, str], size_bytes: int) -> Segment:
    """The catalogue's row for a file, from what its footer says.

    Raises:
        KeyError, ValueError: The footer is not a segment's.
    """
    return Segment(
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
    )


# The catalogue ----------------------------------------------------------------------------------------------------


COLUMNS = tuple(field.name for field in fields(Segment))
_STORED = tuple(name for name in COLUMNS if name != "sha256")


def catalogued(head: apsw.Connection) -> list[Segment]:
    """Every segment, in order of seq."""
    return list(_selected(head, "order by first_seq, path"))


def beside_others(head: apsw.Connection, *, lone_events: int) -> list[Segment]:
    """Of the catalogue what may have to be merged: files that share kind, host and day, or are alone and this large.

    Counted by SQLite: a settled day is one file, and a year of them is no reason to make thousands of objects every
    two minutes (0.1 s for nine kinds; this takes 3 ms).
    """
    partition = f"kind, version, host, first_observed_at_us / {DAY_US}"
    return list(
        _selected(
            head,
            f"where ({partition}) in (select {partition} from segment group by {partition} "
            "having count(*) > 1 or max(event_count) >= ? and max(level) = 0) order by first_seq, path",
            (lone_events,),
        )
    )


def longest_unverified(head: apsw.Connection, *, until_us: int) -> Iterator[Segment]:
    """Segments whose bytes were compared with their checksum before then, the longest ago first.

    Read as far as it is wanted; the caller changes nothing meanwhile.
    """
    return _selected(head, "where verified_at_us <= ? order by verified_at_us", (until_us,))


def _selected(head: apsw.Connection, sql: str, bindings: Sequence[int] = ()) -> Iterator[Segment]:
    stored = ", ".join(_STORED)
    if has_table(head, "checksum"):
        select = f"select {stored}, sha256 from segment left join checksum on segment_path = path"
    else:
        select = f"select {stored}, null from segment"
    return (Segment(*row) for row in head.execute(f"{select} {sql}", bindings))


def enter_segments(head: apsw.Connection, segments: Iterable[Segment], *, now_us: int) -> None:
    """Add segments to the catalogue, or describe them anew, inside the caller's transaction.

    What was announced of them is withdrawn.
    """
    segments = list(segments)
    places = ", ".join("?" for _ in _STORED)
    head.executemany(
        f"insert or replace into segment ({', '.join(_STORED)}) values ({places})",
        ([getattr(segment, name) for name in _STORED] for segment in segments),
    )
    enter_checksums(head, {one.path: one.sha256 for one in segments if one.sha256}, now_us=now_us)
    withdraw(head, [one.path for one in segments])


def enter_checksums(head: apsw.Connection, checksums: Mapping[str, str], *, now_us: int) -> None:
    """Remember what files were seen to have, path to SHA-256, inside the caller's transaction."""
    rows = [(path, sha256, now_us) for path, sha256 in checksums.items()]
    head.executemany("insert or replace into checksum values (?, ?, ?)", rows)


def drop_segments(head: apsw.Connection, paths: Iterable[str]) -> None:
    head.executemany("delete from segment where path = ?", [(path,) for path in paths])


@dataclass(frozen=True, slots=True)
class CataloguedRollup:
    """A file of cells, as far as whoever copies and checks files needs to know it; see `store.rollups.files`."""

    path: str
    size_bytes: int
    sha256: None = None


def catalogued_rollups(head: apsw.Connection) -> list[CataloguedRollup]:
    """Every rollup in force, in order of path."""
    if not has_table(head, "rollup"):
        return []
    return [CataloguedRollup(*row) for row in head.execute("select path, size_bytes from rollup order by path")]


def total_bytes(segments: Iterable[Segment]) -> int:
    return sum(one.size_bytes for one in segments)


# Coming and going -------------------------------------------------------------------------------------------------


def announce(head: apsw.Connection, paths: Iterable[str]) -> None:
    """Note what is about to be written: segments, or rollups."""
    with head:
        head.executemany("insert or ignore into unfinished_segment values (?)", [(path,) for path in paths])


def withdraw(head: apsw.Connection, paths: Iterable[str]) -> None:
    """Forget announcements, inside the caller's transaction: the files are in force, or gone."""
    head.executemany("delete from unfinished_segment where path = ?", [(path,) for path in paths])


def as_written(folder: Path, segment: Segment) -> Segment:
    """A segment that was published, with its size and its checksum, for the catalogue."""
    path = folder / segment.path
    return replace(segment, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def remove_unfinished(folder: Path, head: apsw.Connection) -> None:
    """Remove what was announced and never catalogued, for the holder of the seal lock.

    Synced before it is forgotten, and up to the ledger's folder: who was killed between making a folder and syncing it
    leaves one that the next writer finds there and would trust.
    """
    paths = announced_paths(head)
    for path in paths:
        unlink(folder / path)
        unlink(folder / temporary_of(path))
    above = {parent for path in paths for parent in PurePosixPath(path).parents}
    for parent in sorted(above):
        with suppress(FileNotFoundError):
            sync(folder / parent)
    if paths:
        head.execute("delete from unfinished_segment")


def announced_paths(head: apsw.Connection) -> set[str]:
    return {str(path) for (path,) in head.execute("select path from unfinished_segment")}


def temporary_of(path: str) -> str:
    """Where `store.files.publish_file` writes what becomes `path`."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}{TEMPORARY_SUFFIX}"


def discard(head: apsw.Connection, segments: Sequence[Segment], *, removable_at_us: int) -> None:
    """Take segments out of the catalogue and note from when they may be removed, inside the caller's transaction."""
    drop_segments(head, [one.path for one in segments])
    let_go(head, {one.path: one.size_bytes for one in segments}, removable_at_us=removable_at_us)


def let_go(head: apsw.Connection, files: Mapping[str, int], *, removable_at_us: int) -> None:
    """Note from when files may be removed, path to bytes, inside the caller's transaction."""
    rows = [(path, size_bytes, removable_at_us) for path, size_bytes in files.items()]
    head.executemany("insert or replace into removable_file values (?, ?, ?)", rows)


def removable_bytes(head: apsw.Connection) -> int:
    """Bytes of files on their way out that are on the disk still."""
    if not has_table(head, "removable_file"):
        return 0
    size_bytes: int = head.execute("select coalesce(sum(size_bytes), 0) from removable_file").get
    return size_bytes


def unlink_removable(folder: Path, head: apsw.Connection, *, now_us: int) -> int:
    """Remove the files whose grace is over; returns how many. Their folders are synced before they are forgotten."""
    rows = head.execute("select path from removable_file where removable_at_us <= ?", (now_us,)).fetchall()
    paths = [folder / str(path) for (path,) in rows]
    for path in paths:
        unlink(path)
    for parent in {path.parent for path in paths}:
        _sync_or_remove(parent)
    head.executemany("delete from removable_file where path = ?", rows)
    return len(paths)


def _sync_or_remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        sync(folder)
        remove_empty_folder(folder)


# What the disk has ------------------------------------------------------------------------------------------------


def accounted_paths(head: apsw.Connection) -> set[str]:
    """Every path that some table of the head answers for: catalogued, announced, or kept for readers for a while.

    Whatever table has a column `path` counts, so that a file is nobody's stray only because a table is new.
    """
    tables = head.execute(
        "select s.name from sqlite_schema s join pragma_table_info(s.name) c where s.type = 'table' and c.name = 'path'"
    ).fetchall()
    return {str(path) for (table,) in tables for (path,) in head.execute(f'select path from "{table}"')}


def event_files(folder: Path) -> Iterator[str]:
    """Every file under events/, relative to the ledger's folder, in order of path."""
    return _files_under(folder, EVENTS_FOLDER)


def rollup_files(folder: Path) -> Iterator[str]:
    """Every file under rollups/, likewise."""
    return _files_under(folder, ROLLUPS_FOLDER)


def _files_under(folder: Path, top: str) -> Iterator[str]:
    for root, folders, names in os.walk(folder / top):
        folders.sort()
        for name in sorted(names):
            yield str((Path(root) / name).relative_to(folder))
