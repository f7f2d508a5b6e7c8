"""What a recorder does before it records: it looks at what is there, sets aside what cannot be used, and begins.

Without Arrow, so that the collector does it in its own process and starts at once whatever the ledger is like:

- a head that is damaged or lost is set aside and begun anew with the ledger's identity and a `next_seq` beyond every
  seq that any file's name knows; frames that can still be read out of the damaged one are kept;
- a catalogued segment that is gone or has not the length it was sealed with is set aside; its catalogue row goes in
  the same transaction that writes its `quarantine` and `gap` events;
- files under events/ that the head does not answer for are only named: `store.repair.adoption` judges them by their
  content.

Nothing here deletes. A torn -wal is SQLite's own business: it takes the whole transactions and leaves the rest.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from store.errors import NotALedgerError
from store.events import KINDS, Event
from store.frames import Frame
from store.head import (
    HEAD_NAME,
    OWN_NAMES,
    begin_head,
    check_folder_is_ours,
    check_identity,
    connect_read_only,
    open_head,
    reason_words,
)
from store.ledger import frames_of_rows, insert_events, insert_frames, transaction
from store.repair.quarantine import Repairer, SetAside, give_up_segment, quarantined, set_aside
from store.segments import (
    SEGMENT_SUFFIX,
    TEMPORARY_SUFFIX,
    Segment,
    accounted_paths,
    announced_paths,
    catalogued,
    event_files,
    temporary_of,
)
from store.times import microseconds

HeadState = Literal["new", "sound", "lost", "damaged"]
SEQ_MARGIN = 1_000_000  # no event gets a seq that one of the lost tail may have had
FOOTERS_ASKED_MAX = 200  # for the ledger's identity, which all its files name
_NAME_SEQS = re.compile(r"-(\d+)-(\d+)-(\d+)\.parquet$")
_FOOTER_ID = re.compile(rb"gpuledger\.ledger_id\x18\x24([0-9a-f-]{36})")
_FOOTER_LAST = re.compile(rb"gpuledger\.last_observed_at\x18\x20([0-9T:.+-]{32})")


@dataclass(frozen=True, slots=True)
class Unsound:
    """A catalogued segment that the disk does not have as it was sealed, and why."""

    segment: Segment
    reason: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What a ledger's folder is like; nothing was changed.

    Args:
        folder: The ledger.
        head: `new` where nothing was recorded yet, `lost` where there are segments and no head.
        head_problem: What is wrong with the head; empty where nothing is.
        unsound: Catalogued segments that are gone or torn.
        uncatalogued: Files under events/ that the head does not answer for.
        unfinished: Files that an interrupted sealing had announced; the next one removes them.
        foreign: What in the folder is not the ledger's; it is left alone.
        set_aside: What stands in quarantine.
    """

    folder: Path
    head: HeadState
    head_problem: str = ""
    unsound: tuple[Unsound, ...] = ()
    uncatalogued: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()

    @property
    def is_sound(self) -> bool:
        return self.head in ("new", "sound") and not (self.unsound or self.uncatalogued)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a repair found and did.

    Args:
        head: What the head was like.
        is_rebuilt: Whether it was begun anew.
        kept_event_count: Events of the tail that could be read out of a damaged head.
        set_aside: What was moved into quarantine.
        lost: Segments that are gone; nothing was left to move.
        uncatalogued: Files under events/ for `store.repair.adoption` to judge.
        foreign: What in the folder is not the ledger's.
    """

    head: HeadState
    is_rebuilt: bool = False
    kept_event_count: int = 0
    set_aside: tuple[SetAside, ...] = ()
    lost: tuple[str, ...] = ()
    uncatalogued: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """What was done, for a log."""
        said = [f"{one.origin} was set aside as quarantine/{one.name}: {one.reason}" for one in self.set_aside]
        said += [f"{path} is gone; its events are a gap" for path in self.lost]
        if self.is_rebuilt:
            said.append(
                f"the head was {self.head} and is begun anew; {self.kept_event_count} events of its tail were kept"
            )
        if self.uncatalogued:
            said.append(f"{len(self.uncatalogued)} files under events/ are not in the catalogue and are looked at now")
        if self.foreign:
            said.append(f"not the ledger's own and left alone: {', '.join(self.foreign)}")
        return said


def examine(folder: Path) -> Examination:
    """Look at a ledger without changing anything.

    Raises:
        NotALedgerError: The folder holds something that is no ledger.
        LedgerUnusableError: It cannot be read, or was written by a newer gpuledger.
    """
    check_folder_is_ours(folder)
    files = list(event_files(folder))
    state, problem = _head_state(folder, files)
    foreign = (*_foreign(folder), *(path for path in files if not is_ours(path)))
    if state != "sound":
        uncatalogued = tuple(path for path in files if is_ours(path))
        return Examination(
            folder, state, problem, uncatalogued=uncatalogued, foreign=foreign, set_aside=quarantined(folder)
        )
    with closing(connect_read_only(folder / HEAD_NAME)) as head:
        return Examination(
            folder,
            state,
            unsound=_unsound(folder, catalogued(head)),
            uncatalogued=_uncatalogued(head, files),
            unfinished=tuple(sorted(announced_paths(head))),
            foreign=foreign,
            set_aside=quarantined(folder),
        )


def repair(folder: Path, by: Repairer) -> Recovery:
    """Bring the ledger into a state that can be recorded into; a sound one stays as it is.

    The caller holds the collector's lock. Killed at any point, the next call goes on.

    Raises:
        NotALedgerError, NetworkFolderError, LedgerFullError, LedgerUnusableError: As `store.head.open_head`.
        OSError: A file cannot be moved.
    """
    found = examine(folder)
    if found.head == "new":
        return Recovery("new", foreign=found.foreign)
    is_rebuilt = found.head != "sound"
    anew = _begin_anew(folder, found, by) if is_rebuilt else _Anew()
    with closing(open_head(folder)) as head:
        if is_rebuilt:
            with transaction(head):
                insert_frames(head, anew.kept)
                insert_events(head, anew.told, host=by.host, boot_id=by.boot_id)
        moved = {one.segment.path: give_up_segment(folder, head, one.segment, one.reason, by) for one in found.unsound}
        _go_beyond(head, found.uncatalogued)
    return Recovery(
        head=found.head,
        is_rebuilt=is_rebuilt,
        kept_event_count=sum(frame.count for frame in anew.kept),
        set_aside=(*anew.set_aside, *(aside for aside in moved.values() if aside)),
        lost=tuple(path for path, aside in moved.items() if not aside),
        uncatalogued=found.uncatalogued,
        foreign=found.foreign,
    )


# The head ---------------------------------------------------------------------------------------------------------


def _head_state(folder: Path, files: Sequence[str]) -> tuple[HeadState, str]:
    has_segments = any(_is_segment_name(path) for path in files)
    missing: HeadState = "lost" if has_segments else "new"
    path = folder / HEAD_NAME
    if not path.exists():
        return missing, f"{HEAD_NAME} is not there" if has_segments else ""
    try:
        with closing(connect_read_only(path)) as head:
            if not head.pragma("user_version") and not head.execute("select count(*) from sqlite_schema").get:
                return missing, f"{HEAD_NAME} is empty" if has_segments else ""
            check_identity(head, folder)
            problem = head.pragma("integrity_check", 1)
            head.execute("select id, next_seq from ledger").fetchall()[0]
            return ("sound", "") if problem == "ok" else ("damaged", str(problem))
    except NotALedgerError as error:
        if has_segments:  # beside our own segments it is ours, with a damaged first page
            return "damaged", error.problem
        raise
    except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError, apsw.FormatError, IndexError) as error:
        return "damaged", reason_words(error)


@dataclass(frozen=True, slots=True)
class _Anew:
    """What comes with a head that was begun anew."""

    set_aside: tuple[SetAside, ...] = ()
    told: tuple[Event, ...] = ()
    kept: tuple[Frame, ...] = ()


def _begin_anew(folder: Path, found: Examination, by: Repairer) -> _Anew:
    salvage = _salvage(folder)
    ledger_id, last_us = _what_footers_say(folder, found.uncatalogued)
    next_seq = max([salvage.next_seq, *(last for _, last in map(_name_seqs, found.uncatalogued))]) + SEQ_MARGIN
    names = [name for name in (HEAD_NAME, f"{HEAD_NAME}-wal", f"{HEAD_NAME}-shm") if (folder / name).exists()]
    aside = tuple(set_aside(folder, name, found.head_problem, now_us=by.now_us) for name in names)
    begin_head(folder, ledger_id=salvage.ledger_id or ledger_id or "", next_seq=next_seq)
    since_us = max([last_us, *(frame.last_observed_at_us for frame in salvage.frames)])
    details = {"reason": found.head_problem, "quarantined_as": [one.name for one in aside]}
    span = {"started_at": since_us or None, "ended_at": by.now_us, "details": details}
    told = (
        ("quarantine", f"the head was {found.head} ({found.head_problem}) and is begun anew"),
        ("gap", "events that were not sealed yet went with the head"),
    )
    events = (Event("ledger_event", by.now_us, {"event": event, "message": message, **span}) for event, message in told)
    return _Anew(aside, tuple(events), salvage.frames)


@dataclass(frozen=True, slots=True)
class _Salvage:
    """What could be read out of a damaged head."""

    ledger_id: str = ""
    next_seq: int = 0
    frames: tuple[Frame, ...] = ()


def _salvage(folder: Path) -> _Salvage:
    try:
        with closing(connect_read_only(folder / HEAD_NAME)) as head:
            ledger_id, next_seq = _readable(head, "select id, next_seq from ledger") or ("", 0)
            frames = {frame.first_seq: frame for order in ("asc", "desc") for frame in _frames(head, order)}
    except apsw.Error:
        return _Salvage()
    last = max((frame.last_seq for frame in frames.values()), default=0)
    return _Salvage(ledger_id, max(next_seq, last + 1), tuple(frames[seq] for seq in sorted(frames)))


def _readable(head: apsw.Connection, sql: str) -> Any:
    try:
        return head.execute(sql).fetchone()
    except apsw.Error:
        return None


def _frames(head: apsw.Connection, order: str) -> list[Frame]:
    """The frames from one end up to the first page that cannot be read."""
    frames = []
    try:
        for row in head.execute(f"select * from frame order by first_seq {order}"):
            frames += [frame for frame in frames_of_rows([row]) if _is_whole(frame)]
    except apsw.Error:
        pass
    return frames


def _is_whole(frame: Frame) -> bool:
    try:
        columns = msgspec.msgpack.decode(frame.columns, type=dict[str, list[Any]])
    except msgspec.DecodeError:
        return False
    return frame.kind in KINDS and all(len(column) == frame.count for column in columns.values())


def _what_footers_say(folder: Path, paths: Sequence[str]) -> tuple[str | None, int]:
    """The ledger that most segments belong to, and the time of the newest of them.

    Read as text out of the newest files' footers: a Thrift string is its bytes behind their length. What is taken into
    the catalogue is judged later and by Arrow.
    """
    newest = sorted(paths, key=lambda path: _name_seqs(path)[1])[-FOOTERS_ASKED_MAX:]
    footers = [_footer_bytes(folder / path) for path in newest]
    ids = Counter(found[1].decode() for footer in footers if (found := _FOOTER_ID.search(footer)))
    times = [microseconds(found[1].decode()) for footer in footers if (found := _FOOTER_LAST.search(footer))]
    return (ids.most_common(1)[0][0] if ids else None), max(times, default=0)


def _footer_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - 8))
            length = int.from_bytes(file.read(4), "little")
            file.seek(max(0, size_bytes - 8 - length))
            return file.read(min(length, size_bytes))
    except OSError:
        return b""


# The segments -----------------------------------------------------------------------------------------------------


def _unsound(folder: Path, segments: Sequence[Segment]) -> tuple[Unsound, ...]:
    reasons = ((segment, why_not_as_sealed(folder, segment)) for segment in segments)
    return tuple(Unsound(segment, reason) for segment, reason in reasons if reason)


def why_not_as_sealed(folder: Path, segment: Segment) -> str:
    """What is wrong with a segment as far as its length tells; empty where nothing is."""
    try:
        size_bytes = (folder / segment.path).stat().st_size
    except FileNotFoundError:
        return "the file is gone"
    except OSError:
        return ""  # who may not look cannot tell
    if size_bytes != segment.size_bytes:
        return f"it has {size_bytes:,} bytes and was sealed with {segment.size_bytes:,}"
    return ""


def _uncatalogued(head: apsw.Connection, files: Sequence[str]) -> tuple[str, ...]:
    accounted = accounted_paths(head)
    temporaries = {temporary_of(path) for path in announced_paths(head)}
    return tuple(path for path in files if is_ours(path) and path not in accounted and path not in temporaries)


def uncatalogued_files(folder: Path, head: apsw.Connection) -> tuple[str, ...]:
    """Files under events/ that bear our names and that nothing in the head answers for."""
    return _uncatalogued(head, list(event_files(folder)))


def is_ours(path: str) -> bool:
    """Whether a file under events/ bears a name that we give: a segment's, or that of one being written."""
    name = path.rpartition("/")[2]
    return _is_segment_name(path) or (name.startswith(".") and name.endswith(TEMPORARY_SUFFIX))


def _go_beyond(head: apsw.Connection, uncatalogued: Sequence[str]) -> None:
    """No new event gets a seq that an uncatalogued file has: its head may have been replaced by an older one."""
    last_seq = max((last for _, last in map(_name_seqs, uncatalogued)), default=0)
    head.execute("update ledger set next_seq = ? where next_seq <= ?", (last_seq + SEQ_MARGIN, last_seq))


def _name_seqs(path: str) -> tuple[int, int]:
    """First and last seq as a segment's name says them; zeros where it says none."""
    found = _NAME_SEQS.search(path)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _is_segment_name(path: str) -> bool:
    return path.endswith(SEGMENT_SUFFIX) and _NAME_SEQS.search(path) is not None


def _foreign(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.name not in OWN_NAMES))
    except OSError:
        return ()
