"""Verifying a ledger: every byte of it read and compared with what catalogue and footers say.

`repair` sets aside what is damaged, takes in what the catalogue lost, corrects what the catalogue says wrongly, and
builds the head anew where it is damaged. Both run beside a collector, but for the head, which needs it to be stopped.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apsw

from store.errors import NoLedgerError
from store.head import HEAD_NAME, check_folder, connect_read_only, open_head
from store.ledger import CollectorLock, transaction
from store.repair import recovery
from store.repair.adoption import adopt
from store.repair.quarantine import Repairer, SetAside, give_up_file, give_up_segment, quarantined
from store.repair.recovery import Recovery, uncatalogued_files
from store.repair.soundness import UnreadableError, check_pages, differences, inspect, not_now
from store.segments import CataloguedRollup, Segment, catalogued, catalogued_rollups, enter_segments
from store.upkeep.sealing import seal_lock

FindingKind = Literal["head", "damaged", "unreadable", "disagrees", "uncatalogued", "unchecked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Args:
        kind: `head`: the head is damaged or lost; `damaged`: a segment or rollup cannot be trusted; `unreadable`: the
            system does not let it be read now, and it stays where it is; `disagrees`: the catalogue says something
            else than the file; `uncatalogued`: a file that the catalogue does not name; `unchecked`: a sound segment
            whose checksum was never taken, which is no problem.
        path: What it is about, relative to the ledger's folder.
        problem: What is wrong with it, as the end of a sentence.
        repaired: What was done about it; empty where nothing was.
    """

    kind: FindingKind
    path: str
    problem: str
    repaired: str = ""

    @property
    def is_problem(self) -> bool:
        return self.kind != "unchecked" and self.repaired != "left alone"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a ledger is like to its last byte.

    Args:
        folder: The ledger.
        ledger_id: Its identity; empty where the head cannot tell.
        segment_count: Segments in the catalogue that were read.
        event_count: Events in them.
        size_bytes: Bytes of them.
        findings: What is not as it should be.
        set_aside: What stands in quarantine.
        foreign: What in the folder is not the ledger's.
    """

    folder: Path
    ledger_id: str
    segment_count: int
    event_count: int
    size_bytes: int
    findings: tuple[Finding, ...]
    set_aside: tuple[SetAside, ...]
    foreign: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found to be wrong, be it repaired by now or not."""
        return not any(one.is_problem for one in self.findings)


def verify(
    folder: Path, by: Repairer, *, repair: bool = False, progress: Callable[[str], None] = lambda _: None
) -> Verification:
    """Read every segment and the head to their last byte.

    Args:
        folder: The ledger.
        by: Who repairs and when.
        repair: Whether to repair what can be.
        progress: Is told each path before it is read.

    Raises:
        NoLedgerError: There is no ledger in the folder.
        NotALedgerError, LedgerUnusableError: As `store.head.open_head_for_reading`.
        LedgerHeldError: The head is to be built anew, and a collector runs.
    """
    state = recovery.examine(folder)
    if state.head == "new":
        raise NoLedgerError(f"There is no ledger in {folder}", "name its folder with --data")
    findings: list[Finding] = []
    if state.head != "sound":
        done = _rebuild(folder, by) if repair else None
        findings.append(_of_head(state.head_problem, done))
        if done is None:
            return Verification(folder, "", 0, 0, 0, tuple(findings), state.set_aside, state.foreign)
    with closing(_opened(folder, repair=repair)) as head:
        if repair:
            findings += [Finding("uncatalogued", one.path, one.reason, one.verdict) for one in adopt(folder, by)]
        else:
            findings += [
                Finding("uncatalogued", path, "the catalogue does not name it")
                for path in uncatalogued_files(folder, head)
            ]
        segments = catalogued(head)
        for segment in segments:
            progress(segment.path)
            findings += _check(folder, head, segment, by if repair else None)
        for rollup in catalogued_rollups(head):
            progress(rollup.path)
            findings += _check_rollup(folder, head, rollup, by if repair else None)
        return Verification(
            folder,
            str(head.execute("select id from ledger").get),
            len(segments),
            sum(segment.event_count for segment in segments),
            sum(segment.size_bytes for segment in segments),
            tuple(findings),
            quarantined(folder),
            state.foreign,
        )


def _opened(folder: Path, *, repair: bool) -> apsw.Connection:
    if repair:
        return open_head(folder)
    check_folder(folder)
    return connect_read_only(folder / HEAD_NAME)


def _rebuild(folder: Path, by: Repairer) -> Recovery:
    with closing(CollectorLock(folder)):
        return recovery.repair(folder, by)


def _of_head(problem: str, done: Recovery | None) -> Finding:
    repaired = f"begun anew; {done.kept_event_count} events of its tail were kept" if done else ""
    return Finding("head", HEAD_NAME, problem, repaired)


def _check(folder: Path, head: apsw.Connection, segment: Segment, by: Repairer | None) -> Iterator[Finding]:
    """What is wrong with one segment. One that was merged or retired meanwhile is nothing to speak of."""
    inspected = inspect(folder, segment)
    with seal_lock(folder, wait=True) if by else nullcontext():
        if segment not in catalogued(head):
            return
        if inspected.content is None and not inspected.is_damaged:
            yield Finding("unreadable", segment.path, inspected.reason)
        elif inspected.content is None:
            aside = give_up_segment(folder, head, segment, inspected.reason, by) if by else None
            repaired = (
                "" if not by else f"set aside as quarantine/{aside.name}" if aside else "its gap was written down"
            )
            yield Finding("damaged", segment.path, inspected.reason, repaired)
        elif segment != inspected.content:
            if by:
                with transaction(head):
                    enter_segments(head, [inspected.content], now_us=by.now_us)
            told = differences(segment, inspected.content)
            problem = f"the catalogue says {told}" if told else "its checksum was never taken"
            repaired = "the catalogue was corrected" if by else ""
            yield Finding("disagrees" if told else "unchecked", segment.path, problem, repaired)


def _check_rollup(
    folder: Path, head: apsw.Connection, rollup: CataloguedRollup, by: Repairer | None
) -> Iterator[Finding]:
    """What is wrong with one rollup. The next update makes the hours of one that is not there again."""
    try:
        reason = _why_no_rollup(folder, rollup)
    except OSError as error:
        yield Finding("unreadable", rollup.path, not_now(error))
        return
    with seal_lock(folder, wait=True) if by else nullcontext():
        if not reason or rollup not in catalogued_rollups(head):
            return
        repaired = "it is made again within the hour" if by else ""
        if by and (folder / rollup.path).exists():
            aside = give_up_file(folder, head, rollup.path, reason, by)
            repaired = f"set aside as quarantine/{aside.name}; {repaired}"
        yield Finding("damaged", rollup.path, reason, repaired)


def _why_no_rollup(folder: Path, rollup: CataloguedRollup) -> str:
    try:
        size_bytes = (folder / rollup.path).stat().st_size
    except FileNotFoundError:
        return "the file is gone"
    if size_bytes != rollup.size_bytes:
        return f"it has {size_bytes:,} bytes and was written with {rollup.size_bytes:,}"
    try:
        check_pages(folder / rollup.path)
    except UnreadableError as error:
        return str(error)
    return ""
