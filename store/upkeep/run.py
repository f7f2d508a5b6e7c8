"""Upkeep: what a ledger needs done to it now and then, in one short-lived process.

`python -m store FOLDER`, started by the collector every two minutes: Arrow would double the collector's memory.
In this order: the tail is sealed; once an hour the rollups are brought up to date, while all events are still there;
files whose grace is over are removed, and retention takes out of the catalogue what is too much; the segments that were
looked at longest ago are read again; what is due for compaction is merged. One process at a time does it, the one that
holds `seal.lock`. A full disk stops a step and not those after it: it is retention that makes room.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import msgspec

from store.errors import GpuledgerError, LedgerUnusableError
from store.head import open_head
from store.repair.quarantine import Repairer, SetAside, give_up_segment, here_and_now
from store.repair.soundness import READ_ERRORS, inspect, is_damage
from store.segments import Segment, catalogued, removable_bytes, unlink_removable
from store.space import disk_errors_in_words, free_bytes
from store.upkeep.compaction import Merge, due_merges, may_be_due
from store.upkeep.retention import Removal, holds, may_exceed, note_upkeep, removals, retain
from store.upkeep.scrub import scrub
from store.upkeep.sealing import SealResult, not_sealed, seal_lock, seal_tail
from store.upkeep.settings import UpkeepSettings, upkeep_arguments

COMPACT_TIME_LIMIT_S = 60.0  # no merge is begun after that: the next sealing is due


@dataclass(slots=True)
class CompactResult:
    """What one compaction did.

    Args:
        merged: Each merge with the file it became.
        set_aside: Inputs that were damaged.
        problems: Merges that failed for another reason, each as a sentence; their files stay as they are.
    """

    merged: list[tuple[Merge, Segment]] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class UpkeepResult:
    """What one upkeep did.

    Args:
        sealed: The sealing.
        removed: What retention took out.
        merged: Each merge with the file it became.
        set_aside: Segments that were found to be damaged.
        problems: What was not done and why, each as a sentence; the next upkeep tries again.
    """

    sealed: SealResult = field(default_factory=SealResult)
    removed: list[Removal] = field(default_factory=list)
    merged: list[tuple[Merge, Segment]] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def upkeep(
    folder: Path, settings: UpkeepSettings, *, now_us: int | None = None, rolls_up: bool = True
) -> UpkeepResult | None:
    """Seal, roll up, remove, retain, read again, compact. None where another process is at it.

    Without `rolls_up` the rollups are left as they are, and numpy is not needed.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
    """
    by = here_and_now() if now_us is None else replace(here_and_now(), now_us=now_us)
    with closing(open_head(folder)) as head, seal_lock(folder) as is_ours:
        return _upkeep(folder, head, settings, by, rolls_up=rolls_up) if is_ours else None


def _upkeep(
    folder: Path, head: apsw.Connection, settings: UpkeepSettings, by: Repairer, *, rolls_up: bool
) -> UpkeepResult:
    done = UpkeepResult()
    with _noted(done.problems, folder, not_sealed(folder)):
        done.sealed = seal_tail(folder, head, now_us=by.now_us)
    if rolls_up:
        with _noted(done.problems, folder, f"The rollups of the ledger {folder} were not brought up to date"):
            done.problems += _roll_up(folder, head, now_us=by.now_us)
    with _noted(done.problems, folder, f"Nothing was removed from the ledger {folder}"):
        done.removed += retain_due(folder, head, settings, now_us=by.now_us)
    with _noted(done.problems, folder, f"The segments of the ledger {folder} were not read again"):
        scrubbed = scrub(folder, head, by)
        done.set_aside += scrubbed.set_aside
        done.problems += scrubbed.problems
    with _noted(done.problems, folder, f"The segments of the ledger {folder} were not merged"):
        compacted = compact(folder, head, by, grace_s=settings.grace_s)
        done.merged += compacted.merged
        done.set_aside += compacted.set_aside
        done.problems += compacted.problems
    return done


@contextmanager
def _noted(problems: list[str], folder: Path, not_done: str) -> Iterator[None]:
    try:
        with disk_errors_in_words(folder, not_done):
            yield
    except LedgerUnusableError as error:
        problems.append(str(error))


def _roll_up(folder: Path, head: apsw.Connection, *, now_us: int) -> list[str]:
    """Bring the rollups up to date; returns what was not read for them, each as a sentence."""
    from store.rollups.updating import roll_up  # noqa: PLC0415 - with numpy, which most upkeeps do without: see store.__main__

    try:
        done = roll_up(folder, head, now_us=now_us)
    except READ_ERRORS as error:
        if not is_damage(error):
            raise
        return [f"The rollups of the ledger {folder} were not brought up to date: {error}; run 'gpuledger verify'"]
    return [f"{path} could not be read for the rollups: {reason}" for path, reason in done.unreadable.items()]


def retain_due(folder: Path, head: apsw.Connection, settings: UpkeepSettings, *, now_us: int) -> list[Removal]:
    """Remove the files whose grace is over, and take out what is too much, for the holder of the lock."""
    unlink_removable(folder, head, now_us=now_us)
    age_rests = note_upkeep(head, now_us=now_us)
    gone = expired(folder, head, settings, now_us=now_us, age_rests=age_rests)
    retain(head, gone, host=socket.gethostname(), now_us=now_us, grace_us=int(settings.grace_s * 1e6))
    return gone


def expired(
    folder: Path, head: apsw.Connection, settings: UpkeepSettings, *, now_us: int, age_rests: bool = False
) -> list[Removal]:
    """What retention would take out now."""
    free = free_bytes(folder) + removable_bytes(head)
    if not may_exceed(head, settings.retention, now_us=now_us, free_bytes=free):
        return []
    return removals(
        catalogued(head), holds(head), settings.retention, now_us=now_us, free_bytes=free, age_rests=age_rests
    )


def compact(
    folder: Path,
    head: apsw.Connection,
    by: Repairer,
    *,
    grace_s: float,
    everything: bool = False,
    time_limit_s: float = COMPACT_TIME_LIMIT_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> CompactResult:
    """Merge what is due, for the holder of the lock, and what that makes due in turn, until the time is up.

    A damaged input is set aside, and the others are merged without it. A merge that fails otherwise is tried again by
    the next upkeep.
    """
    until_s = monotonic() + time_limit_s
    done = CompactResult()
    failed: set[str] = set()
    while due := [
        merge
        for merge in due_merges(may_be_due(head), now_us=by.now_us, everything=everything)
        if not failed.intersection(one.path for one in merge)
    ]:
        from store.upkeep.merging import merge_segments  # noqa: PLC0415 - Arrow's functions: 35 ms, and most merge nothing

        for merge in due:
            if monotonic() >= until_s:
                return done
            try:
                output = merge_segments(folder, head, merge, now_us=by.now_us, grace_us=int(grace_s * 1e6))
            except (*READ_ERRORS, LedgerUnusableError) as error:
                if not _set_damaged_aside(folder, head, merge, by, done, error):
                    failed.update(one.path for one in merge)
                    done.problems.append(f"{len(merge)} files under {merge[0].folder} were not merged: {error}")
            else:
                done.merged.append((merge, output))
    return done


def _set_damaged_aside(
    folder: Path, head: apsw.Connection, merge: Merge, by: Repairer, done: CompactResult, error: Exception
) -> bool:
    """Whether it was damage that a merge failed on, which is out of the way then."""
    if not is_damage(error):
        return False
    damaged = [(one, found.reason) for one in merge if (found := inspect(folder, one)).is_damaged]
    moved = [give_up_segment(folder, head, one, reason, by) for one, reason in damaged]
    done.set_aside += [one for one in moved if one]
    return bool(damaged)


def main(arguments: Sequence[str] | None = None, *, rolls_up: bool = True) -> int:
    given = upkeep_arguments(arguments)
    try:
        settings = msgspec.json.decode(given.settings, type=UpkeepSettings)
        done = upkeep(given.folder, settings, rolls_up=rolls_up) or UpkeepResult()
    except msgspec.ValidationError as error:
        print(f"--settings cannot be used: {error}", file=sys.stderr)  # noqa: T201 - the collector logs what its child says
        return 2
    except GpuledgerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return error.exit_code
    told = [f"{one.origin} was set aside: {one.reason}" for one in done.set_aside]
    for sentence in (*told, *done.problems):
        print(sentence, file=sys.stderr)  # noqa: T201 - as above
    return 1 if done.problems else 0
