"""Between HTTP and the ledger: a bounded queue, and one thread that reads bodies and appends what they hold.

Whatever waits when an append returns goes into the next one together, so that many small senders cost one commit,
and each is answered only when that commit is on disk. The thread and its connection to the ledger begin with the first
body.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from collector.ingest.reading import Arrival, Read, Reader, Refusal, unpacked
from store.errors import GpuledgerError, LedgerUnusableError
from store.ledger import Ledger
from store.sent_events import Receipt, SentBatch
from store.space import SHED_FIRST, SpaceLevel, SpaceWatch

logger = logging.getLogger(__name__)

WAITING_MAX = 256  # bodies
WAITING_BYTES_MAX = 32 * 2**20  # of them together
GROUP_EVENTS_MAX = 5_000  # for one commit; a single body may hold more
RETRY_FULL_S = 1
RETRY_DISK_S = 10
CLOSE_TIME_LIMIT_S = 10.0
_LOW = "the disk is nearly full: samples of servers are not written until there is more room"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a body: what was read of it, and what the ledger did with that. It is durable."""

    read: Read
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body on its way.

    Args:
        body: As it came.
        encoding: Its content encoding.
        content_type: What it is.
        reader: What reads it.
        key: Its idempotency key.
        done: Gets the outcome, or the refusal.
    """

    body: bytes
    encoding: str
    content_type: str
    reader: Reader
    key: str | None = None
    done: "Future[Outcome]" = field(default_factory=Future)


class Room:
    """How much may wait at once. Used by the thread of the HTTP server alone."""

    def __init__(self) -> None:
        self.bodies = 0
        self.bytes = 0

    def take(self, size_bytes: int, bodies: int = 0) -> None:
        """Hold room for so much more.

        Raises:
            Refusal: There is none.
        """
        if self.bodies + bodies > WAITING_MAX or self.bytes + size_bytes > WAITING_BYTES_MAX:
            raise Refusal(429, "More is sent than can be written: send it again in a moment", RETRY_FULL_S)
        self.bodies += bodies
        self.bytes += size_bytes

    def give_back(self, size_bytes: int, bodies: int = 0) -> None:
        self.bodies -= bodies
        self.bytes -= size_bytes


class Intake:
    """Reads bodies and appends their events, in a thread of its own.

    Args:
        open_ledger: Opens the ledger that they go into.
        space: Tells how much room its disk has.
    """

    def __init__(self, open_ledger: Callable[[], Ledger], space: SpaceWatch) -> None:
        self._open_ledger = open_ledger
        self._space = space
        self._ledger: Ledger | None = None
        self._queue: queue.Queue[Delivery | None] = queue.Queue()  # bounded by `Room`
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._is_closed = False

    def submit(self, delivery: Delivery) -> None:
        """Put a body in the queue; its `done` tells how it went. Called by one thread alone."""
        if self._is_closed:
            raise Refusal(503, "The recorder is ending: send it again in a moment", RETRY_DISK_S)
        if self._thread.ident is None:
            self._thread.start()
        self._queue.put(delivery)

    def close(self) -> None:
        """Write what waits, then let go of the ledger."""
        self._is_closed = True
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_TIME_LIMIT_S)

    def _run(self) -> None:
        delivery = self._queue.get()
        while delivery is not None:
            delivery = self._write_group(delivery)
        while not self._queue.empty():
            if late := self._queue.get():
                late.done.set_exception(Refusal(503, "The recorder has ended: send it again", RETRY_DISK_S))
        if self._ledger:
            self._ledger.close()

    def _write_group(self, delivery: Delivery) -> Delivery | None:
        """Write this body and what waits behind it, then wait for the next one; None where that is the end."""
        group: list[tuple[Delivery, Read]] = []
        count = 0
        following: Delivery | None = delivery
        while following is not None:
            if (read := self._read(following)) is not None:
                group.append((following, read))
                count += len(read.events)
            if count >= GROUP_EVENTS_MAX or self._queue.empty():
                break
            following = self._queue.get()
        if group:
            self._append(group)
        return self._queue.get() if following is not None else None

    def _read(self, delivery: Delivery) -> Read | None:
        """What a body holds; None where its sender has been told that it cannot be read."""
        try:
            ledger = self._opened()
            body = unpacked(delivery.body, delivery.encoding)
            arrival = Arrival(time.time_ns() // 1000, ledger.id)
            return self._shed(delivery.reader(body, delivery.content_type, arrival))
        except Refusal as refusal:
            delivery.done.set_exception(refusal)
        except GpuledgerError as error:
            delivery.done.set_exception(Refusal(503, str(error), RETRY_DISK_S))
        except Exception:
            logger.exception("a body of type %.100s could not be read", delivery.content_type)
            delivery.done.set_exception(Refusal(500, "The body made the recorder fail; its log says how"))
        return None

    def _opened(self) -> Ledger:
        if self._space.look() == SpaceLevel.READ_ONLY:
            free_mb = self._space.free_bytes / 1e6
            raise LedgerUnusableError(
                f"The ledger's disk has {free_mb:,.0f} MB left", "nothing is written until there is more"
            )
        if self._ledger is None:
            self._ledger = self._open_ledger()
        return self._ledger

    def _shed(self, read: Read) -> Read:
        if self._space.level < SpaceLevel.LOW:
            return read
        kept = [event for event in read.events if event.kind not in SHED_FIRST]
        if len(kept) == len(read.events):
            return read
        rejected = read.rejected + len(read.events) - len(kept)
        return replace(read, events=kept, rejected=rejected, problems=[*read.problems, _LOW])

    def _append(self, group: Sequence[tuple[Delivery, Read]]) -> None:
        batches = [SentBatch(read.events, delivery.key) for delivery, read in group]
        try:
            receipts = self._opened().append_sent(batches)
        except Exception as error:
            refusal = Refusal(503, str(error), RETRY_DISK_S)
            if not isinstance(error, GpuledgerError):
                logger.exception("what was sent could not be appended")
                refusal = Refusal(500, "The events made the recorder fail; its log says how")
            for delivery, _ in group:
                delivery.done.set_exception(refusal)
            return
        for (delivery, read), receipt in zip(group, receipts, strict=True):
            delivery.done.set_result(Outcome(read, receipt))
