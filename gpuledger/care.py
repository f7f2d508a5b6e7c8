"""Care for a ledger by hand: compaction, retention, held windows. The collector does the first two by itself."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from query.figures import spelled
from query.windows import Window
from store.errors import LedgerHeldError, LedgerUnusableError, UsageError
from store.head import open_head, open_head_for_reading
from store.repair.quarantine import here_and_now
from store.segments import catalogued, total_bytes, unlink_removable
from store.space import disk_errors_in_words
from store.upkeep.retention import Hold, Removal, add_hold, holds, release_hold
from store.upkeep.settings import UpkeepSettings

if TYPE_CHECKING:
    from store.upkeep.compaction import Merge

Row = dict[str, Any]
MERGE_COLUMNS = ("kind", "folder", "files", "events", "bytes")
MERGED_COLUMNS = (*MERGE_COLUMNS, "became", "became_bytes")
REMOVAL_COLUMNS = ("kind", "rule", "from", "to", "events", "bytes", "file")
HOLD_COLUMNS = ("hold", "from", "to", "why", "since")


def compact_now(folder: Path, settings: UpkeepSettings, *, everything: bool) -> tuple[list[Row], str]:
    """Merge what is due. Returns one row a merge, and what it came to in words.

    Raises:
        LedgerHeldError: Another process seals or compacts at this moment.
        LedgerUnusableError: A merge failed; its files stay as they are.
    """
    from store.upkeep.run import compact

    by = here_and_now()
    with _locked_head(folder, "not all segments were merged") as head:
        unlink_removable(folder, head, now_us=by.now_us)
        done = compact(folder, head, by, grace_s=settings.grace_s, everything=everything, time_limit_s=float("inf"))
    if done.problems:
        raise LedgerUnusableError(done.problems[0], "its files stay as they are; see 'gpuledger verify'")
    rows = [
        {**_merge_row(inputs), "became": output.path, "became_bytes": output.size_bytes}
        for inputs, output in done.merged
    ]
    before, after = (sum(row[name] for row in rows) for name in ("bytes", "became_bytes"))
    note = f"{len(rows)} merges, {spelled(before, 'B')} became {spelled(after, 'B')}" if rows else "nothing is due"
    aside = [f"{one.origin} was damaged and set aside: {one.reason}" for one in done.set_aside]
    return rows, "; ".join([note, *aside])


def compactable(folder: Path, *, everything: bool) -> tuple[list[Row], str]:
    """What `compact_now` would merge first: what that makes due in turn is not known before."""
    from store.upkeep.compaction import due_merges

    with closing(open_head_for_reading(folder)) as head:
        due = due_merges(catalogued(head), now_us=time.time_ns() // 1000, everything=everything)
    rows = [_merge_row(merge) for merge in due]
    return rows, f"{len(rows)} merges would be made" if rows else "nothing is due"


def _merge_row(merge: "Merge") -> Row:
    first = min(merge, key=lambda one: one.first_seq)
    return {
        "kind": first.kind,
        "folder": Path(first.path).parent.name,
        "files": len(merge),
        "events": sum(one.event_count for one in merge),
        "bytes": total_bytes(merge),
    }


def retain_now(folder: Path, settings: UpkeepSettings, *, dry_run: bool) -> tuple[list[Row], str]:
    """Take out what is too much, or only say what that is. Returns one row a file, and what it came to in words.

    Raises:
        LedgerHeldError: Another process seals or compacts at this moment.
    """
    from store.upkeep.run import expired, retain_due

    now_us = time.time_ns() // 1000
    if dry_run:
        with closing(open_head_for_reading(folder)) as head:
            gone = expired(folder, head, settings, now_us=now_us)
    else:
        with _locked_head(folder, "nothing was removed") as head:
            gone = retain_due(folder, head, settings, now_us=now_us)
    size = spelled(total_bytes(one.segment for one in gone), "B")
    verb = "would go" if dry_run else f"go; the disk has them back {settings.grace_s / 60:.0f} minutes from now"
    return [_removal_row(one) for one in gone], f"{len(gone)} files, {size} {verb}" if gone else "nothing is too much"


def _removal_row(removal: Removal) -> Row:
    segment = removal.segment
    return {
        "kind": segment.kind,
        "rule": removal.rule,
        "from": _utc(segment.first_observed_at_us),
        "to": _utc(segment.last_observed_at_us),
        "events": segment.event_count,
        "bytes": segment.size_bytes,
        "file": segment.path,
    }


def hold_window(folder: Path, window: Window, why: str) -> Hold:
    """Hold a window against retention."""
    with _head(folder) as head:
        return add_hold(
            head,
            start_us=window.start_us,
            end_us=window.end_us,
            why=why,
            host=socket.gethostname(),
            now_us=time.time_ns() // 1000,
        )


def release_window(folder: Path, number: int) -> Hold:
    """Release a held window.

    Raises:
        UsageError: There is none of this number.
    """
    with _head(folder) as head:
        released = release_hold(head, number, host=socket.gethostname(), now_us=time.time_ns() // 1000)
    if released is None:
        raise UsageError(f"There is no held window {number}", "see 'gpuledger hold' for those there are")
    return released


def held_windows(folder: Path) -> list[Row]:
    """One row a held window."""
    with closing(open_head_for_reading(folder)) as head:
        return [
            {
                "hold": one.id,
                "from": _utc(one.started_at_us),
                "to": _utc(one.ended_at_us),
                "why": one.why,
                "since": _utc(one.created_at_us),
            }
            for one in holds(head)
        ]


def _utc(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC)


@contextmanager
def _head(folder: Path) -> Iterator[apsw.Connection]:
    open_head_for_reading(folder).close()  # says at once when there is no ledger: none is begun here
    with closing(open_head(folder)) as head:
        yield head


@contextmanager
def _locked_head(folder: Path, not_done: str) -> Iterator[apsw.Connection]:
    from store.upkeep.sealing import seal_lock

    not_done = f"In the ledger {folder} {not_done}"
    with _head(folder) as head, disk_errors_in_words(folder, not_done), seal_lock(folder) as is_ours:
        if not is_ours:
            raise LedgerHeldError(
                f"The ledger {folder} is being sealed or compacted by another process", "try again in a minute"
            )
        yield head
