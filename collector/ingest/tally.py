"""What came in since the start, for /metrics; and the newest row of each inference server, however that came."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from store.events import SERVER_SAMPLE, Event, stale_after_s

SERVERS_MAX = 256
UNTOLD_INTERVAL_S = 60.0  # of a row that does not say for how long it stands: OpenTelemetry's own export interval


@dataclass(slots=True)
class Tally:
    """Counts since the start. Used by the thread of the HTTP server alone.

    Args:
        events: By path and what became of them: accepted, repeated or refused.
        body_bytes: By path, of bodies as they came.
        refusals: Bodies of which nothing was taken, by path and HTTP status.
    """

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    body_bytes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)


class NewestServers:
    """The newest `server_sample` of each server, model and engine, of at most `SERVERS_MAX`; for any thread."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], Event] = {}
        self._lock = threading.Lock()

    def note(self, events: Iterable[Event]) -> None:
        """Take those of the events that are samples of servers."""
        rows = [event for event in events if event.kind == SERVER_SAMPLE.name]
        if not rows:
            return
        with self._lock:
            for row in rows:
                series = tuple(row.values.get(name) for name in SERVER_SAMPLE.series)
                known = self._rows.pop(series, row)
                self._rows[series] = max(row, known, key=_time_of)
            while len(self._rows) > SERVERS_MAX:
                del self._rows[next(iter(self._rows))]

    def standing(self, now_us: int) -> list[Event]:
        """Those that are recent enough to stand for now."""
        with self._lock:
            return [row for row in self._rows.values() if (now_us - row.observed_at_us) / 1e6 <= _stands_s(row)]


def _time_of(row: Event) -> int:
    return row.observed_at_us


def _stands_s(row: Event) -> float:
    return stale_after_s(row.values.get("interval_seconds") or UNTOLD_INTERVAL_S)
