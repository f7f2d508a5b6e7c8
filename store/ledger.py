"""Appending to a ledger.

An append is one SQLite transaction: when it returns, its events are on disk and have their seq. Several processes
may append (the collector, and each MCP server for its own calls); SQLite's write lock puts them in order. The
events of one append of one kind stand in one frame, so that a tick of the collector is a handful of rows.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw

from store.errors import LedgerHeldError, LedgerUnusableError
from store.events import Event
from store.frames import Frame, encode_frames
from store.head import open_head
from store.sent_events import Receipt, SentBatch, unknown_events

LOCK_NAME = "collector.lock"
KEYS_KEPT_S = 7 * 86_400  # a week: as long as a source may be cut off and then send again what it is not sure of
KEYS_KEPT_MAX = 100_000  # some 10 MB of the head

_INSERT_FRAME = """
insert into frame (first_seq, event_count, kind, version, host, boot_id,
                   first_observed_at_us, last_observed_at_us, columns)
values (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def read_boot_id(proc: Path = Path("/proc")) -> str:
    """The kernel's id of this boot; `unknown` where the kernel does not tell."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


class Ledger:
    """A ledger open for appending; created where its folder is missing or empty.

    Not for use by two threads at once.

    Args:
        folder: The ledger's folder.
        host: Name of this machine in every event; its host name where left out.
        boot_id: The boot that the events belong to.
        clock_us: Microseconds since the epoch, for the age of idempotency keys.

    Raises:
        NotALedgerError: The folder holds something that is no ledger.
        LedgerUnusableError: It cannot be written, is damaged, or was written by a newer gpuledger.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str | None = None,
        boot_id: str | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.folder = folder
        self._clock_us = clock_us
        self.host = host or socket.gethostname()
        self.boot_id = boot_id or read_boot_id()
        self._head = open_head(folder)
        self.id: str = self._head.execute("select id from ledger").get

    def append(self, events: Sequence[Event], *, idempotency_key: str | None = None) -> range:
        """Write `events`, durably, and return the range of seq that they got.

        Args:
            events: The batch, written whole or not at all.
            idempotency_key: A name that only this batch bears. A batch whose key was seen before is not written
                again: the range that it got the first time is returned. Keys are remembered for `KEYS_KEPT_S`, and
                at most the newest `KEYS_KEPT_MAX` of them.

        Raises:
            LedgerUnusableError: The disk is full or failing; nothing of the batch was written.
            ValueError: A kind or field that is not declared.
        """
        with self._appending() as head:
            if idempotency_key is not None and (given := _range_of_key(head, idempotency_key)) is not None:
                return given
            seqs = insert_events(head, events, host=self.host, boot_id=self.boot_id)
            if idempotency_key is not None:
                _remember_key(head, idempotency_key, seqs, self._clock_us())
            return seqs

    def append_sent(self, batches: Sequence[SentBatch]) -> list[Receipt]:
        """Write what sources sent, in one durable commit, and say what became of each batch.

        A batch whose key is known is not stored again, nor is an event whose source and id are: see
        `store.sent_events`. The batches of one call share frames, so many small ones cost what one large one does.

        Raises:
            LedgerUnusableError: The disk is full or failing; nothing of any batch was written.
            ValueError: A kind or field that is not declared.
        """
        receipts: list[Receipt] = []
        fresh: list[Event] = []
        new_keys: set[str] = set()
        with self._appending() as head:
            for batch in batches:
                is_known = batch.key is not None and (
                    batch.key in new_keys or _range_of_key(head, batch.key) is not None
                )
                unknown = [] if is_known else unknown_events(head, batch.events)
                if batch.key is not None and not is_known:
                    new_keys.add(batch.key)
                receipts.append(Receipt(len(unknown), len(batch.events) - len(unknown)))
                fresh += unknown
            seqs = insert_events(head, fresh, host=self.host, boot_id=self.boot_id)
            for key in new_keys:
                _remember_key(head, key, seqs, self._clock_us())
        return receipts

    @contextmanager
    def _appending(self) -> Iterator[apsw.Connection]:
        try:
            with transaction(self._head) as head:
                yield head
        except (
            apsw.FullError,
            apsw.IOError,
            apsw.ReadOnlyError,
            apsw.CantOpenError,
            apsw.CorruptError,
            apsw.BusyError,
        ) as error:
            raise LedgerUnusableError(
                f"The ledger {self.folder} took no events ({str(error).lower()})",
                "see that its disk has space and is writable",
            ) from error

    def close(self) -> None:
        self._head.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def transaction(head: apsw.Connection) -> Iterator[apsw.Connection]:
    """One transaction that holds SQLite's write lock from its first step on: all of it, or on any error nothing."""
    head.execute("begin immediate")
    try:
        yield head
        head.execute("commit")
    except BaseException:
        if head.in_transaction:
            head.execute("rollback")
        raise


def insert_events(head: apsw.Connection, events: Sequence[Event], *, host: str, boot_id: str) -> range:
    """Put `events` into the tail, inside the caller's transaction, and return the range of seq that they got.

    Raises:
        ValueError: A kind or field that is not declared.
    """
    first_seq: int = head.execute("select next_seq from ledger").get
    frames = encode_frames(events, first_seq=first_seq, host=host, boot_id=boot_id)
    insert_frames(head, frames)
    head.execute("update ledger set next_seq = ?", (first_seq + len(events),))
    return range(first_seq, first_seq + len(events))


def insert_frames(head: apsw.Connection, frames: Iterable[Frame]) -> None:
    head.executemany(_INSERT_FRAME, (_frame_row(frame) for frame in frames))


def _range_of_key(head: apsw.Connection, key: str) -> range | None:
    row = head.execute("select first_seq, event_count from batch_key where key = ?", (key,)).fetchone()
    return None if row is None else range(row[0], row[0] + row[1])


def _remember_key(head: apsw.Connection, key: str, seqs: range, now_us: int) -> None:
    """Remember a batch, and forget those that are too old or too many.

    Both bounds are needed: a clock that stepped back leaves keys of the future, which only their number removes.
    """
    head.execute(
        "insert into batch_key (key, first_seq, event_count, appended_at_us) values (?, ?, ?, ?)",
        (key, seqs.start, len(seqs), now_us),
    )
    head.execute("delete from batch_key where appended_at_us < ?", (now_us - KEYS_KEPT_S * 1_000_000,))
    head.execute("delete from batch_key where number <= (select max(number) from batch_key) - ?", (KEYS_KEPT_MAX,))


def _frame_row(frame: Frame) -> tuple[int | str | bytes, ...]:
    return (
        frame.first_seq,
        frame.count,
        frame.kind,
        frame.version,
        frame.host,
        frame.boot_id,
        frame.first_observed_at_us,
        frame.last_observed_at_us,
        frame.columns,
    )


def frames_of_rows(rows: Iterable[Sequence[Any]]) -> list[Frame]:
    """Frames from rows of `select * from frame`."""
    return [
        Frame(kind, version, first_seq, count, first_us, last_us, host, boot_id, columns)
        for first_seq, count, kind, version, host, boot_id, first_us, last_us, columns in rows
    ]


class CollectorLock:
    """The right to be the one collector of a ledger, held by this process until it closes the lock or ends.

    An flock on a file that says who holds it. The kernel gives it up with the process, however it dies, and
    Python's descriptors do not pass to child processes.

    Raises:
        LedgerHeldError: Another process holds it; the message names its pid and start time.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder_words(os.pread(self._descriptor, 4096, 0))
            os.close(self._descriptor)
            raise LedgerHeldError(
                f"The ledger {folder} is held by another collector ({holder})",
                "stop that one first, or name another folder with --data",
            ) from None
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        holder_record = json.dumps({"pid": os.getpid(), "started_at": started_at}).encode()
        with suppress(OSError):  # on a full disk the lock holds all the same; it only cannot say by whom
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder_record, 0)

    def close(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def lock_holder(folder: Path) -> dict[str, object] | None:
    """The pid and start time of the collector that holds the ledger now; None where there is none."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder_record(os.pread(descriptor, 4096, 0))
    finally:
        os.close(descriptor)
    return None


def _holder_record(content: bytes) -> dict[str, object]:
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _holder_words(content: bytes) -> str:
    record = _holder_record(content)
    return (
        f"pid {record['pid']}, started {record['started_at']}"
        if {"pid", "started_at"} <= set(record)
        else "just starting"
    )
