"""A backup of a ledger, beside whatever records and seals; and a ledger made of one again.

A backup is a folder: segments and rollups under the names that they have in the ledger, `head-<number>.sqlite`, and
`backup.json`, which names the head and every file with its SHA-256. The head is copied in one read snapshot (`VACUUM
INTO`), so it and the segments that it lists are one picture of one moment, the tail with them. `backup.json` is
replaced last and whole: until then the folder is the backup that it was before. Segments never change, so a second
backup into the same folder takes only the new ones; on one file system they are links and take no room.

Left out are what was set aside, the locks, and the token. Rollups are not: retention may have taken their events.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from store.errors import LedgerUnusableError, UsageError
from store.events import Event
from store.files import link_or_copy, make_folder, publish_file, sha256_of, sync, unlink
from store.head import HEAD_NAME, RESTORING_NAME, connect_read_only, open_head, open_head_for_reading
from store.ledger import insert_events, transaction
from store.repair.quarantine import Repairer
from store.segments import CataloguedRollup, Segment, catalogued, catalogued_rollups, event_files, rollup_files
from store.times import iso_text

MARKER_NAME = "backup.json"
FORMAT = 1
TRIES = 5  # a segment may be merged or retired while it is about to be copied: then the picture is taken anew


@dataclass(frozen=True, slots=True)
class BackedUpFile:
    """One segment or rollup of a backup; `path` as in the ledger."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup, as its `backup.json` says.

    Args:
        ledger_id: The ledger that it is of.
        host: The machine that took it.
        taken_at: When, ISO 8601.
        head: Name of the head's copy.
        next_seq: What the next event of the ledger would have got.
        event_count: Events in it, sealed and in the tail.
        segments: Its segments.
        rollups: Its rollups.
        damaged: Files of the ledger that could not be taken, each with the reason.
        format: Of this record.
    """

    ledger_id: str
    host: str
    taken_at: str
    head: str
    next_seq: int
    event_count: int
    segments: tuple[BackedUpFile, ...]
    rollups: tuple[BackedUpFile, ...]
    damaged: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def files(self) -> tuple[BackedUpFile, ...]:
        return self.segments + self.rollups


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What one backup did: what is in it now, and how many segments were new to it."""

    backup: Backup
    new_segment_count: int
    new_bytes: int


class _GoneMeanwhileError(Exception):
    pass


# Taking one -------------------------------------------------------------------------------------------------------


def take_backup(folder: Path, target: Path, by: Repairer) -> BackupResult:
    """Bring `target` up to the ledger's present state, beside a collector that records.

    Raises:
        UsageError: `target` holds something else, another ledger's backup, or lies in the ledger; or it cannot be
            written.
        NoLedgerError, NotALedgerError, LedgerUnusableError: As `store.head.open_head_for_reading`.
    """
    _check_target(folder, target)
    with closing(open_head_for_reading(folder)) as head:
        ledger_id = str(head.execute("select id from ledger").get)
        before = _previous(target, ledger_id)
        try:
            make_folder(target)
            return _take(folder, target, head, before, by)
        except OSError as error:
            raise UsageError(
                f"The backup {target} cannot be written ({(error.strerror or str(error)).lower()})",
                "see that its disk has space and is writable",
            ) from error
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
            raise UsageError(
                f"The backup {target} cannot be written ({error})", "see that its disk has space"
            ) from error


def _take(folder: Path, target: Path, head: apsw.Connection, before: Backup | None, by: Repairer) -> BackupResult:
    for _ in range(TRIES):
        copied = _copy_head(target, head, by.now_us)
        try:
            found = _copy_files(folder, target, copied, before, by)
        except _GoneMeanwhileError:
            unlink(target / copied)
            continue
        publish_file(target / MARKER_NAME, partial(_write_marker, found))
        _remove_what_it_no_longer_names(target, found)
        known = {file.path for file in before.files} if before else set()
        new = [file for file in found.files if file.path not in known]
        new_segment_count = sum(file in found.segments for file in new)
        return BackupResult(found, new_segment_count, sum(file.size_bytes for file in new))
    raise LedgerUnusableError(
        f"The ledger {folder} changed faster than it could be copied", "run the backup again, or to a faster disk"
    )


def _copy_head(target: Path, head: apsw.Connection, now_us: int) -> str:
    """Copy the head as it is at one moment; returns the copy's name."""
    name = f"head-{now_us}.sqlite"
    path = target / name
    unlink(path)
    head.execute("vacuum into ?", (str(path),))
    sync(path)
    sync(target)
    return name


def _copy_files(folder: Path, target: Path, copied: str, before: Backup | None, by: Repairer) -> Backup:
    with closing(connect_read_only(target / copied)) as head:
        ledger_id, next_seq = head.execute("select id, next_seq from ledger").fetchall()[0]
        segments = catalogued(head)
        rollups = catalogued_rollups(head)
        in_tail: int = head.execute("select coalesce(sum(event_count), 0) from frame").get
    known = {file.path: file for file in before.files} if before else {}
    taken: dict[str, BackedUpFile] = {}
    damaged = []
    files: list[Segment | CataloguedRollup] = [*segments, *rollups]
    for file in files:
        had = known.get(file.path)
        if had and _is_there(target, had) and file.sha256 in (None, had.sha256):
            taken[file.path] = had
        elif isinstance(done := _copy_file(folder, target, file), BackedUpFile):
            taken[file.path] = done
        else:
            damaged.append(f"{file.path}: {done}")
    event_count = in_tail + sum(segment.event_count for segment in segments)
    return Backup(
        str(ledger_id),
        by.host,
        iso_text(by.now_us),
        copied,
        int(str(next_seq)),
        event_count,
        tuple(taken[one.path] for one in segments if one.path in taken),
        tuple(taken[one.path] for one in rollups if one.path in taken),
        tuple(damaged),
    )


def _is_there(target: Path, file: BackedUpFile) -> bool:
    try:
        return (target / file.path).stat().st_size == file.size_bytes
    except OSError:
        return False


def _copy_file(folder: Path, target: Path, file: Segment | CataloguedRollup) -> BackedUpFile | str:
    """Copy a segment or a rollup, or say why it cannot be trusted.

    Raises:
        _GoneMeanwhileError: It is not there; whether it should be only a new picture can tell.
    """
    source = folder / file.path
    try:
        sha256, size_bytes = sha256_of(source), source.stat().st_size
        if size_bytes != file.size_bytes or file.sha256 not in (None, sha256):
            return "its bytes are not those that were sealed"
        link_or_copy(source, target / file.path)
    except FileNotFoundError as error:
        raise _GoneMeanwhileError from error
    if sha256_of(target / file.path) != sha256:
        return "its copy has other bytes"
    return BackedUpFile(file.path, size_bytes, sha256)


def _write_marker(backup: Backup, path: Path) -> None:
    path.write_text(json.dumps(asdict(backup), indent=1) + "\n")


def _remove_what_it_no_longer_names(target: Path, backup: Backup) -> None:
    named = {file.path for file in backup.files}
    for path in [*event_files(target), *rollup_files(target)]:
        if path not in named:
            unlink(target / path)
    for old in target.glob("head-*.sqlite*"):
        if old.name != backup.head:
            unlink(old)


def _check_target(folder: Path, target: Path) -> None:
    if target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"The backup {target} would lie in the ledger itself", "name a folder elsewhere")
    names = {entry.name for entry in target.iterdir()} if target.is_dir() else set()
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder", "name a new folder, or one that holds a backup of this ledger")
    if names and MARKER_NAME not in names and not _is_begun(names):
        raise UsageError(
            f"{target} holds {min(names)!r} and no {MARKER_NAME}",
            "name a new folder, or one that holds a backup of this ledger",
        )


def _is_begun(names: set[str]) -> bool:
    """Whether it is a first backup that was interrupted."""
    return all(name in ("events", "rollups") or name.startswith("head-") for name in names)


def _previous(target: Path, ledger_id: str) -> Backup | None:
    if not (target / MARKER_NAME).exists():
        return None
    before = read_backup(target)
    if before.ledger_id != ledger_id:
        raise UsageError(f"{target} holds the backup of another ledger ({before.ledger_id})", "name another folder")
    return before


def read_backup(target: Path) -> Backup:
    """What a backup says of itself.

    Raises:
        UsageError: There is no finished backup in the folder, or it is of a newer release.
    """
    try:
        record: dict[str, Any] = json.loads((target / MARKER_NAME).read_text())
        written = record["format"]
        if written == FORMAT:
            segments = tuple(BackedUpFile(**file) for file in record.pop("segments"))
            rollups = tuple(BackedUpFile(**file) for file in record.pop("rollups"))
            return Backup(segments=segments, rollups=rollups, damaged=tuple(record.pop("damaged")), **record)
    except FileNotFoundError:
        raise UsageError(
            f"There is no finished backup in {target}", "name a folder that 'gpuledger backup' wrote"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{target / MARKER_NAME} cannot be read ({error})", "take the backup anew") from error
    raise UsageError(f"{target} was written by a newer gpuledger (format {written})", "upgrade gpuledger")


# Restoring one ----------------------------------------------------------------------------------------------------


def restore_backup(
    source: Path, folder: Path, by: Repairer, *, progress: Callable[[str], None] = lambda _: None
) -> Backup:
    """Make a ledger in `folder`, which must be missing or empty, out of a backup.

    It keeps the ledger's identity and its seqs. Killed before its end, it leaves a folder that no command takes for a
    ledger, and the same restore goes on with it.

    Raises:
        UsageError: There is no finished backup, or `folder` holds something.
        LedgerUnusableError: The backup is damaged.
    """
    backup = read_backup(source)
    _check_empty(folder)
    make_folder(folder)
    publish_file(folder / RESTORING_NAME, lambda path: path.touch())
    for file in backup.files:
        progress(file.path)
        _restore_file(source / file.path, folder / file.path, file.sha256)
    _restore_head(source, folder, backup, by)
    return backup


def _check_empty(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "name a new or empty folder with --data")
    if names - {"lost+found"} and RESTORING_NAME not in names:
        raise UsageError(f"{folder} is not empty: it holds {min(names)!r}", "name a new or empty folder with --data")


def _restore_file(source: Path, target: Path, sha256: str) -> None:
    """Copy, never link: a ledger that went on would share its files with its backup."""
    if target.exists() and sha256_of(target) == sha256:
        return  # an interrupted restore had it already
    try:
        if sha256_of(source) != sha256:
            raise LedgerUnusableError(f"The backup's {source} is damaged: its SHA-256 differs", "take another backup")
    except FileNotFoundError:
        raise LedgerUnusableError(f"The backup's {source} is gone", "take another backup") from None
    publish_file(target, lambda path: _copy(source, path))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _restore_head(source: Path, folder: Path, backup: Backup, by: Repairer) -> None:
    """Put the head into its place, tell of the restore in it, and only then let the folder be a ledger."""
    for leftover in folder.glob(f"{HEAD_NAME}*"):
        unlink(leftover)
    publish_file(folder / HEAD_NAME, partial(_copy, source / backup.head))
    message = f"restored on {by.host} from a backup that {backup.host} took at {backup.taken_at}"
    details = {"backup_taken_at": backup.taken_at, "backup_host": backup.host, "restored_on": by.host}
    event = Event("ledger_event", by.now_us, {"event": "restored", "message": message, "details": details})
    with closing(open_head(folder, is_restoring=True)) as head, transaction(head):
        insert_events(head, [event], host=by.host, boot_id=by.boot_id)
    unlink(folder / RESTORING_NAME)
    sync(folder)
