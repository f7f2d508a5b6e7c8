"""A ledger in a few lines: `book.gpu(3, power_watts=70.0)` is what GPU 0 said three seconds after the beginning.

`book.record(events)` seals the first half of them and leaves the rest in the tail, so that whatever is asked
afterwards is answered over both.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from query.reading.local_source import LocalSource
from query.windows import Window
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

BEGINNING = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


class Book:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = LocalSource(folder)
        self.append([])

    def at(self, seconds: float) -> datetime:
        return BEGINNING + timedelta(seconds=seconds)

    def window(self, start_s: float, end_s: float) -> Window:
        return Window(self.at(start_s), self.at(end_s), "UTC", f"{start_s}..{end_s}")

    def event(self, kind: str, seconds: float, **values: Any) -> Event:
        return Event(kind, round(self.at(seconds).timestamp() * 1e6), values)

    def gpu(self, seconds: float, index: int = 0, **values: Any) -> Event:
        row = {"gpu_uuid": f"GPU-{index}", "gpu_index": index, "interval_seconds": 1.0, "counter_epoch": 0, "up": True}
        return self.event("gpu_sample", seconds, **row | values)

    def host(self, seconds: float, **values: Any) -> Event:
        return self.event("system_sample", seconds, **{"interval_seconds": 1.0, "counter_epoch": 0} | values)

    def append(self, events: Iterable[Event], *, host: str = "node", boot: str = "boot-1") -> None:
        with Ledger(self.folder, host=host, boot_id=boot) as ledger:
            ledger.append(list(events))

    def seal(self) -> None:
        seal(self.folder)

    def record(self, events: Iterable[Event], *, host: str = "node", boot: str = "boot-1") -> None:
        events = list(events)
        self.append(events[: len(events) // 2], host=host, boot=boot)
        self.seal()
        self.append(events[len(events) // 2 :], host=host, boot=boot)


@pytest.fixture(scope="session")
def open_book() -> Iterator[Callable[[Path], Book]]:
    """Opens a book in a folder, for fixtures and tests that need one of their own."""
    books: list[Book] = []

    def opened(folder: Path) -> Book:
        books.append(Book(folder))
        return books[-1]

    yield opened
    for book in books:
        book.source.close()


@pytest.fixture
def book(tmp_path: Path, open_book: Callable[[Path], Book]) -> Book:
    return open_book(tmp_path / "ledger")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, open_book: Callable[[Path], Book]) -> Book:
    """Ten seconds of two GPUs and their host, four requests, some events; other kinds are empty. Not to be added to."""
    book = open_book(tmp_path_factory.mktemp("machine") / "ledger")
    book.record(
        book.gpu(s, gpu, utilization_percent=10 * s + gpu, power_watts=100.0 * (gpu + 1), absence=reasons)
        for s in range(10)
        for gpu, reasons in enumerate((None, {"fan_speed_percent": "not_supported"}))
    )
    book.record(book.host(s, cpu_utilization_percent=float(s)) for s in range(10))
    book.record(
        book.event(
            "request", s, service="vllm", operation="chat", status=status, duration_seconds=s / 4, gpu_uuids=gpus
        )
        for s, status, gpus in ((2, "ok", ["GPU-0"]), (4, "ok", ["GPU-0", "GPU-1"]), (6, "error", []), (8, "ok", None))
    )
    told = ((5, "gpu_event", "throttle_begin"), (7, "gpu_event", "throttle_end"), (0, "ledger_event", "start"))
    book.record(book.event(kind, s, event=event) for s, kind, event in told)
    return book
