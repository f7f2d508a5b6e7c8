"""Whether somebody still waits for an answer; what is done for it stops when nobody does.

A question is asked in a thread, and a thread cannot be ended from outside. So what lasts asks here: each reading of the
ledger before it begins, and a query of DuckDB's, which can be interrupted, meanwhile too.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

from store.errors import GpuledgerError


class UnwantedError(GpuledgerError):
    """Nobody waits for the answer any more, so there will be none."""


class Asker:
    """Whoever waits for an answer."""

    def __init__(self) -> None:
        self.has_left = threading.Event()
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []

    def leave(self) -> None:
        """Wait no longer: what is under way is stopped, what has not begun does not begin."""
        with self._lock:
            self.has_left.set()
            for stop in self._stops:
                stop()

    def check(self) -> None:
        """Raise `UnwantedError` where nobody waits."""
        if self.has_left.is_set():
            raise UnwantedError("The question was withdrawn", "ask again to have its answer")

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """What is done in here is ended by `stop`, from another thread, when the asker leaves."""
        with self._lock:
            self.check()
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)


_ASKER: ContextVar[Asker] = ContextVar("asker", default=Asker())  # noqa: B039 - one who never leaves


def asker() -> Asker:
    """Who asked the question that this thread answers; one who never leaves, where nobody said."""
    return _ASKER.get()


def asked_by(one: Asker) -> Token[Asker]:
    """Enter who asks what is done in this context from now on."""
    return _ASKER.set(one)
