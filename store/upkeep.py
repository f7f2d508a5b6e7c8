"""Upkeep: what a ledger needs done to it now and then, in one short-lived process.

`python -m store FOLDER`, started by the collector every two minutes: Arrow would double the collector's memory.
In this order: the tail is sealed; files whose grace is over are removed; retention takes out of the catalogue what is
too much; what is due for compaction is merged. One process at a time does it, the one that holds `seal.lock`.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import msgspec
import pyarrow as pa

from store.catalogue import StoredSegment, removable_bytes, stored_segments, unlink_removable
from store.compaction import Merge, due_merges, merge_segments
from store.errors import GpuledgerError
from store.head import open_head
from store.retention import Removal, holds, note_upkeep, removals, retain
from store.sealing import SealResult, seal_lock, seal_tail
from store.upkeep_settings import UpkeepSettings

COMPACT_TIME_LIMIT_S = 60.0  # no merge is begun after that: the next sealing is due


@dataclass(frozen=True, slots=True)
class UpkeepResult:
    """What one upkeep did.

    Args:
        sealed: The sealing.
        removed: What retention took out.
        merged: Each merge with the file it became.
        problems: Merges that failed, each as a sentence; their files stay as they are.
    """

    sealed: SealResult
    removed: tuple[Removal, ...]
    merged: tuple[tuple[Merge, StoredSegment], ...]
    problems: tuple[str, ...]


def upkeep(folder: Path, settings: UpkeepSettings, *, now_us: int | None = None) -> UpkeepResult | None:
    """Seal, remove, retain, compact. None where another process is at it.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
    """
    now_us = now_us or time.time_ns() // 1000
    head = open_head(folder)
    try:
        with seal_lock(folder) as is_ours:
            if not is_ours:
                return None
            sealed = seal_tail(folder, head)
            unlink_removable(folder, head, now_us=now_us)
            removed = _retain(folder, head, settings, now_us)
            merged, problems = compact(folder, head, now_us=now_us, grace_s=settings.grace_s)
            return UpkeepResult(sealed, tuple(removed), tuple(merged), tuple(problems))
    finally:
        head.close()


def _retain(folder: Path, head: apsw.Connection, settings: UpkeepSettings, now_us: int) -> list[Removal]:
    age_rests = note_upkeep(head, now_us=now_us)
    gone = expired(folder, head, settings, now_us=now_us, age_rests=age_rests)
    retain(head, gone, host=socket.gethostname(), now_us=now_us, grace_us=int(settings.grace_s * 1e6))
    return gone


def expired(
    folder: Path, head: apsw.Connection, settings: UpkeepSettings, *, now_us: int, age_rests: bool = False
) -> list[Removal]:
    """What retention would take out now."""
    system = os.statvfs(folder)
    free_bytes = system.f_bavail * system.f_frsize + removable_bytes(head)
    return removals(
        stored_segments(head),
        holds(head),
        settings.retention,
        now_us=now_us,
        free_bytes=free_bytes,
        age_rests=age_rests,
    )


def compact(
    folder: Path,
    head: apsw.Connection,
    *,
    now_us: int,
    grace_s: float,
    everything: bool = False,
    time_limit_s: float = COMPACT_TIME_LIMIT_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[list[tuple[Merge, StoredSegment]], list[str]]:
    """Merge what is due, for the holder of the lock, and what that makes due in turn, until the time is up.

    Returns what was merged, and a sentence for each merge that failed. A failed one is tried again by the next upkeep.
    """
    until_s = monotonic() + time_limit_s
    merged: list[tuple[Merge, StoredSegment]] = []
    problems: list[str] = []
    failed: set[str] = set()
    while due := [
        merge
        for merge in due_merges(stored_segments(head), now_us=now_us, everything=everything)
        if not failed.intersection(one.path for one in merge)
    ]:
        for merge in due:
            if monotonic() >= until_s:
                return merged, problems
            try:
                merged.append((merge, merge_segments(folder, head, merge, now_us=now_us, grace_us=int(grace_s * 1e6))))
            except (OSError, pa.ArrowException, GpuledgerError) as error:
                failed.update(one.path for one in merge)
                problems.append(f"{len(merge)} files under {merge[0].folder} were not merged: {error}")
    return merged, problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m store", description="Seal, retain and compact a ledger.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", default="{}", help="A JSON object: see store.upkeep_settings.")
    given = parser.parse_args(arguments)
    try:
        settings = msgspec.json.decode(given.settings, type=UpkeepSettings)
        done = upkeep(given.folder, settings)
    except msgspec.ValidationError as error:
        print(f"--settings cannot be used: {error}", file=sys.stderr)  # noqa: T201 - the collector logs what its child says
        return 2
    except GpuledgerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return error.exit_code
    for problem in done.problems if done else ():
        print(problem, file=sys.stderr)  # noqa: T201 - as above
    return 1 if done and done.problems else 0
