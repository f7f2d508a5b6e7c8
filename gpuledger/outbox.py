"""Requests on their way from an application to the collector; the application never waits for them.

`put` lays a request in a bounded buffer, and a thread of its own posts what is there to `/ingest/events`, some hundred
at a time. While the collector is away or busy the same batch is sent again under the same key, so that it is stored
once; what finds the buffer full meanwhile is dropped and counted, because an application that answers matters more
than its log. When the interpreter ends, what waits has two seconds to go.

Only the standard library, and `http.client` only once there is something to send: this runs inside programs of others.
"""

import atexit
import json
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet

from store.errors import UsageError

if TYPE_CHECKING:
    from http.client import HTTPConnection

logger = logging.getLogger("gpuledger")

PATH = "/ingest/events"
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
REPLY_BYTES_MAX = 1_000_000
FORK_TIME_LIMIT_S = 0.5  # what a fork may be held up; a post is broken off, which takes a millisecond


@dataclass(frozen=True, slots=True)
class Limits:
    """What an outbox may take.

    Args:
        events_max: Requests that wait at most; at some 700 bytes each, 7 MB.
        batch_events_max: Requests that are sent at one time.
        linger_s: How long the first of a batch waits for others.
        post_time_limit_s: How long the collector may be silent before it counts as away.
        wait_s: Time before a batch is sent again; twice as long each time.
        wait_s_max: The longest of these times, also where the collector asks for more.
        close_time_limit_s: What the end of the interpreter may be held up.
    """

    events_max: int = 10_000
    batch_events_max: int = 500
    linger_s: float = 0.25
    post_time_limit_s: float = 5.0
    wait_s: float = 0.5
    wait_s_max: float = 30.0
    close_time_limit_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the requests of this process so far."""

    sent: int
    dropped: int
    waiting: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is sent at one time, and who waits for that."""

    events: list[Mapping[str, Any]]
    is_through: threading.Event | None


@dataclass(frozen=True, slots=True)
class _Reply:
    """The collector's answer: its status, the events it refused, and when it wants to be asked again."""

    status: int
    refused: int = 0
    retry_after_s: float | None = None


class Outbox:
    """A bounded buffer of requests and the thread that sends them.

    Args:
        url: The collector's address, such as http://127.0.0.1:9465.
        token: What a collector that listens beyond loopback asks for.
        limits: What it may take.

    Raises:
        UsageError: The address is none.
    """

    def __init__(self, url: str, token: str = "", limits: Limits = Limits()) -> None:
        self._secure, self._host, self._port = _parsed(url)
        self._url = url
        self._token = token
        self._limits = limits
        self._connection: HTTPConnection | None = None
        self._begin()
        _OUTBOXES.add(self)

    def _begin(self) -> None:
        """Begin with nothing: at first, and in a forked child, whose parent sends what was waiting."""
        self._disconnect()  # in a child its own descriptor alone: the parent's connection stays
        self._lock = threading.Lock()
        self._waiting: deque[Mapping[str, Any] | threading.Event] = deque()
        self._has_more, self._hurry, self._is_stopping = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._held: _Batch | None = None
        self._is_closing = self._is_forking = False
        self._sent = self._dropped = 0
        self._is_away = False

    @property
    def counts(self) -> Counts:
        return Counts(self._sent, self._dropped, len(self._waiting))

    def put(self, event: Mapping[str, Any]) -> None:
        """Take one event to send; never waits and never raises."""
        if self._is_closing or len(self._waiting) >= self._limits.events_max:
            self.drop(1)
            return
        self._waiting.append(event)
        self._wake()

    def drop(self, count: int) -> None:
        """Count what is not sent."""
        with self._lock:
            self._dropped += count

    def flush(self, time_limit_s: float) -> bool:
        """Wait until what was put so far was sent or dropped; whether it was, within the time."""
        if not self._waiting and self._thread is None:
            return True
        is_through = threading.Event()
        self._waiting.append(is_through)
        self._hurry.set()
        self._wake()
        return is_through.wait(time_limit_s)

    def close(self) -> None:
        """Send what waits, as far as that goes within `close_time_limit_s`, and take no more."""
        self._is_closing = True
        if self._waiting or self._held:
            self._wake()
        self._stop(self._limits.close_time_limit_s)

    def before_fork(self) -> None:
        """End the thread, whatever it is at; what it had in hand is sent again afterwards, and stored once."""
        self._is_forking = True
        if (connected := getattr(self._connection, "sock", None)) is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        self._stop(FORK_TIME_LIMIT_S)

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._is_forking = False
        if not self._is_closing:
            self._is_stopping.clear()
        if self._waiting or self._held:
            self._wake()

    def _stop(self, time_limit_s: float) -> None:
        for event in (self._is_stopping, self._hurry, self._has_more):
            event.set()
        if self._thread:
            self._thread.join(time_limit_s)

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._run, name="gpuledger-outbox", daemon=True)
                    with suppress(RuntimeError):  # no thread to be had, or the interpreter ends: the buffer is bounded
                        thread.start()
                        self._thread = thread
        if not self._has_more.is_set():
            self._has_more.set()

    def _run(self) -> None:
        while not self._is_forking and (not self._is_closing or self._waiting or self._held):
            self._has_more.wait()
            self._hurry.wait(self._limits.linger_s)
            self._has_more.clear()
            self._hurry.clear()
            while (self._waiting or self._held) and not self._is_forking:
                self._send_some()
        self._disconnect()

    def _send_some(self) -> None:
        batch = self._held = self._held or self._next_batch()
        try:
            is_done = not batch.events or self._deliver(batch.events)
        except Exception:
            logger.exception("%d requests could not be sent", len(batch.events))
            self.drop(len(batch.events))
            is_done = True
        if is_done:
            self._held = None
            if batch.is_through:
                batch.is_through.set()

    def _next_batch(self) -> _Batch:
        events: list[Mapping[str, Any]] = []
        while self._waiting and len(events) < self._limits.batch_events_max:
            item = self._waiting.popleft()
            if isinstance(item, threading.Event):
                return _Batch(events, item)
            events.append(item)
        return _Batch(events, None)

    def _deliver(self, batch: list[Mapping[str, Any]]) -> bool:
        """Send a batch until it is taken or refused; once the outbox is closing, one last time.

        Whether that is the end of it: a fork breaks it off.
        """
        body = "\n".join(json.dumps(event, default=str) for event in batch).encode()
        headers = {
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"{batch[0]['source_event_id']}+{len(batch)}",
            **({"Authorization": f"Bearer {self._token}"} if self._token else {}),
        }
        for wait_s in self._waits():
            is_last = self._is_closing
            reply = self._post(body, headers)
            if reply and reply.status not in RETRIED:
                self._conclude(reply, len(batch))
                return True
            if self._is_forking:
                return False
            if is_last:
                break
            asked_s = reply.retry_after_s if reply else None
            self._is_stopping.wait(wait_s if asked_s is None else min(asked_s, self._limits.wait_s_max))
        self.drop(len(batch))
        return True

    def _waits(self) -> Iterator[float]:
        wait_s = self._limits.wait_s
        while True:
            yield wait_s
            wait_s = min(2 * wait_s, self._limits.wait_s_max)

    def _conclude(self, reply: _Reply, count: int) -> None:
        refused = reply.refused if reply.status < 300 else count
        with self._lock:
            self._sent += count - refused
        if refused:
            logger.warning(
                "the collector at %s refused %d of %d requests (%d)", self._url, refused, count, reply.status
            )
            self.drop(refused)

    def _post(self, body: bytes, headers: Mapping[str, str]) -> _Reply | None:
        """The collector's reply; None where there was none, after which the connection is a new one."""
        from http.client import HTTPException

        try:
            connection = self._connection = self._connection or self._connect()
            connection.request("POST", PATH, body, dict(headers))
            response = connection.getresponse()
            told = response.read(REPLY_BYTES_MAX)
        except (OSError, HTTPException) as error:
            self._disconnect()
            if self._is_forking:
                return None
            if not self._is_away:
                logger.warning("the collector at %s does not answer (%s); requests wait for it", self._url, error)
            self._is_away = True
            return None
        self._is_away = False
        return _Reply(response.status, _refused(told), _seconds(response.getheader("Retry-After")))

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _connect(self) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection

        maker = HTTPSConnection if self._secure else HTTPConnection
        return maker(self._host, self._port, timeout=self._limits.post_time_limit_s)


def _parsed(url: str) -> tuple[bool, str, int]:
    """Whether it is https, host and port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(f"{url!r} is no address of a collector", "write it as http://127.0.0.1:9465")
    return parts.scheme == "https", parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _refused(told: bytes) -> int:
    """How many events the collector says it did not take."""
    try:
        count = json.loads(told)["rejected"]
    except (ValueError, TypeError, KeyError):
        return 0
    return count if isinstance(count, int) else 0


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None


_OUTBOXES: WeakSet[Outbox] = WeakSet()


def _close_all() -> None:
    for outbox in list(_OUTBOXES):
        outbox.close()


def _before_fork() -> None:
    for outbox in list(_OUTBOXES):
        outbox.before_fork()


def _after_fork() -> None:
    for outbox in list(_OUTBOXES):
        outbox.after_fork()


def _begin_anew_in_child() -> None:
    for outbox in list(_OUTBOXES):
        outbox._begin()  # noqa: SLF001 - the outbox's own module


atexit.register(_close_all)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_anew_in_child)
