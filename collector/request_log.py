"""A program's own requests, written to the ledger without making them wait.

`record` puts the event in a bounded queue; a thread of its own opens the ledger and appends. When the ledger cannot be
written the events are dropped and counted: a server that answers matters more than its log.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from store.events import Event
from store.head import HEAD_NAME
from store.ledger import Ledger

logger = logging.getLogger(__name__)

QUEUE_MAX = 10_000
BATCH_MAX = 1_000
CLOSE_TIME_LIMIT_S = 10.0
_STOP = object()


def event_id(time_us: int) -> str:
    """A UUIDv7 (RFC 9562): sorts by time to the microsecond, unique without coordination."""
    milliseconds, microseconds = divmod(time_us, 1000)
    fraction = microseconds * 4096 // 1000  # method 3 of its §6.2: 12 bits of the millisecond, not of chance
    chance = int.from_bytes(os.urandom(8))
    variant = 0x8000 | chance >> 50  # written out: `uuid.UUID` takes three times as long, a tenth of taking an event in
    return (
        f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{fraction:03x}-"
        f"{variant:04x}-{chance & 0xFFFF_FFFF_FFFF:012x}"
    )


class RequestLog:
    """Records finished requests of this process.

    It never creates a ledger: until a collector has, requests are dropped and counted.

    Args:
        folder: The ledger's folder.
        source: How these requests come in, for the column `source`.
        service: Which service answered, for the column `service`.
    """

    def __init__(self, folder: Path, *, source: str, service: str) -> None:
        self.dropped = 0
        self._folder = folder
        self._common = {"source": source, "service": service}
        self._queue: queue.Queue[Any] = queue.Queue(QUEUE_MAX)
        self._ledger: Ledger | None = None
        self._thread = threading.Thread(target=self._write_all, name="request-log", daemon=True)
        self._thread.start()

    def record(self, values: Mapping[str, Any], *, duration_s: float) -> None:
        """Note a request that ends now. `values` are columns of `request`; identity and times are added."""
        if not self._thread.is_alive():  # closed
            self.dropped += 1
            return
        ended_us = time.time_ns() // 1000
        times = {
            "event_id": event_id(ended_us),
            "started_at": ended_us - round(duration_s * 1e6),
            "ended_at": ended_us,
            "duration_seconds": duration_s,
        }
        try:
            self._queue.put_nowait(Event("request", ended_us, {**self._common, **times, **values}))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, then let go of the ledger."""
        with suppress(queue.Full):
            self._queue.put(_STOP, timeout=CLOSE_TIME_LIMIT_S)
            self._thread.join(timeout=CLOSE_TIME_LIMIT_S)

    def _write_all(self) -> None:
        batch: list[Event] = []
        item = None
        while item is not _STOP:
            item = self._queue.get()
            if item is not _STOP:
                batch.append(item)
            if batch and (item is _STOP or self._queue.empty() or len(batch) == BATCH_MAX):
                self._write(batch)
                batch = []
        if self._ledger:
            self._ledger.close()

    def _write(self, batch: list[Event]) -> None:
        try:
            if self._ledger is None and (self._folder / HEAD_NAME).exists():
                self._ledger = Ledger(self._folder)
            if self._ledger is None:
                self.dropped += len(batch)
            else:
                self._ledger.append(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on and so does its log
            if not self.dropped:
                logger.warning("%s; this server's own requests are not recorded", error)
            self.dropped += len(batch)
