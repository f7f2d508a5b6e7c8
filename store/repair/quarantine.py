"""What could not be read, set aside: kept whole, with the reason beside it, and never deleted by us.

`quarantine/<name>` is the file, `quarantine/<name>.reason` says in JSON where it stood, why and when it was moved. The
folder itself is the record: it can be listed when the head is lost.
"""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from store.events import Event
from store.files import make_folder, move_file, publish_file, sync_move
from store.ledger import insert_events, read_boot_id, transaction
from store.segments import Segment, drop_segments
from store.times import iso_text, microseconds

QUARANTINE_FOLDER = "quarantine"
REASON_SUFFIX = ".reason"


@dataclass(frozen=True, slots=True)
class SetAside:
    """One file in quarantine.

    Args:
        name: Its name in the quarantine folder; empty where there was nothing left to move.
        origin: Where it stood, relative to the ledger's folder.
        reason: Why it was moved, as the end of a sentence.
        set_aside_at_us: When, microseconds UTC.
        size_bytes: Its size.
        details: What was known of its content: kind, seq range, count.
    """

    name: str
    origin: str
    reason: str
    set_aside_at_us: int
    size_bytes: int
    details: Mapping[str, Any] = field(default_factory=dict)


def set_aside(
    folder: Path, origin: str, reason: str, *, now_us: int, details: Mapping[str, Any] | None = None
) -> SetAside:
    """Move a file of the ledger into quarantine, with the reason beside it.

    The reason is written first: a file in quarantine without one can only be another's. On a disk too full for the
    reason the file is moved all the same.

    Raises:
        OSError: It cannot be moved.
    """
    source = folder / origin
    name = _free_name(folder, source.name, now_us)
    done = SetAside(name, origin, reason, now_us, source.stat().st_size, details or {})
    record = {
        "origin": origin,
        "reason": reason,
        "set_aside_at": iso_text(now_us),
        "size_bytes": done.size_bytes,
        "details": dict(done.details),
    }
    target = folder / QUARANTINE_FOLDER / name
    make_folder(target.parent, found_too=True)
    with suppress(OSError):
        publish_file(target.with_name(name + REASON_SUFFIX), partial(_write_record, record))
    move_file(source, target)
    return done


def _write_record(record: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")


def _free_name(folder: Path, name: str, now_us: int) -> str:
    stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
    number, free = 1, f"{stamp}-{name}"
    while (folder / QUARANTINE_FOLDER / free).exists():
        number += 1
        free = f"{stamp}-{number}-{name}"
    return free


def quarantined_count(folder: Path) -> int:
    """How many files stand in quarantine, without reading why."""
    return len(_names(folder))


def _names(folder: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in (folder / QUARANTINE_FOLDER).iterdir())
    except FileNotFoundError:
        return []
    return [name for name in names if not name.endswith((REASON_SUFFIX, ".tmp"))]


def quarantined(folder: Path) -> tuple[SetAside, ...]:
    """What stands in quarantine, oldest name first; files that someone put there without a reason, too."""
    try:
        return tuple(_listed(folder / QUARANTINE_FOLDER / name) for name in _names(folder))
    except OSError:
        return ()


def _listed(path: Path) -> SetAside:
    stat = path.stat()
    try:
        record = json.loads(path.with_name(path.name + REASON_SUFFIX).read_text())
        written_us = microseconds(record["set_aside_at"])
        return SetAside(path.name, record["origin"], record["reason"], written_us, stat.st_size, record["details"])
    except (OSError, ValueError, LookupError, TypeError):
        changed_us = stat.st_mtime_ns // 1000
        return SetAside(path.name, "unknown", "no reason is written beside it", changed_us, stat.st_size)


@dataclass(frozen=True, slots=True)
class Repairer:
    """Who repairs and when, for the events that tell of it."""

    now_us: int
    host: str
    boot_id: str


def here_and_now() -> Repairer:
    """This process, for a command line."""
    return Repairer(time.time_ns() // 1000, socket.gethostname(), read_boot_id())


def give_up_file(folder: Path, head: apsw.Connection, path: str, reason: str, by: Repairer) -> SetAside:
    """Set aside a file of which no event is missed; the ledger tells of it."""
    aside = set_aside(folder, path, reason, now_us=by.now_us)
    details = {"path": path, "reason": reason, "quarantined_as": aside.name}
    values = {"event": "quarantine", "message": f"{path} was set aside: {reason}", "details": details}
    with transaction(head):
        insert_events(head, [Event("ledger_event", by.now_us, values)], host=by.host, boot_id=by.boot_id)
    return aside


def give_up_segment(
    folder: Path, head: apsw.Connection, segment: Segment, reason: str, by: Repairer
) -> SetAside | None:
    """Set a segment aside; its catalogue row goes in the transaction that tells of it. None where the file is gone.

    The file moves first: killed in between, the next look finds it gone from its place, and drops the row then. Who was
    killed may not have synced the move, and a power cut would leave a row that is dropped and a file that is nowhere.
    """
    aside = _earlier(folder, segment)
    source = folder / segment.path
    if source.exists():
        aside = set_aside(folder, segment.path, reason, now_us=by.now_us, details=segment.details)
    elif aside:
        sync_move(source, folder / QUARANTINE_FOLDER / aside.name)
    with transaction(head):
        drop_segments(head, [segment.path])
        insert_events(head, _loss(segment, aside, reason, by.now_us), host=by.host, boot_id=by.boot_id)
    return aside


def _earlier(folder: Path, segment: Segment) -> SetAside | None:
    moved = [one for one in quarantined(folder) if one.origin == segment.path and one.details == segment.details]
    return moved[-1] if moved else None


def _loss(segment: Segment, aside: SetAside | None, reason: str, now_us: int) -> list[Event]:
    """What the ledger tells of a segment that was set aside or is gone: the quarantine, and the gap that it leaves."""
    reason = aside.reason if aside else reason
    span = {
        "started_at": segment.first_observed_at_us,
        "ended_at": segment.last_observed_at_us,
        "duration_seconds": (segment.last_observed_at_us - segment.first_observed_at_us) / 1e6,
        "details": {**segment.details, "reason": reason, **({"quarantined_as": aside.name} if aside else {})},
    }
    gap = f"{segment.event_count} events of {segment.kind} cannot be read: {reason}"
    told = [("quarantine", f"{segment.path} was set aside: {reason}")] if aside else []
    return [
        Event("ledger_event", now_us, {"event": event, "message": message, **span})
        for event, message in (*told, ("gap", gap))
    ]
