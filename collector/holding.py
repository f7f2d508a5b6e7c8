"""Readings that are not taken at every tick, kept for whoever asks in between.

A fan is asked every five seconds, ECC errors every minute; the rows between have NULL there. A scrape that saw only the
newest row would find such a family now and then, and an alert on it would flap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from store.events import GPU_SAMPLE, SYSTEM_SAMPLE, Event, stale_after_s

_STANDS_US: Mapping[str, Mapping[str, int]] = {
    kind.name: {
        column.name: round(stale_after_s(column.every_seconds) * 1e6)
        for column in kind.fields
        if column.every_seconds is not None
    }
    for kind in (GPU_SAMPLE, SYSTEM_SAMPLE)
}
"""The columns that are read now and then, and how long a reading of each stands for now, in microseconds."""

_Readings = dict[str, tuple[Any, int]]
"""Of a column its newest value, and when that was read."""


class SlowReadings:
    """The newest reading of each such column of each GPU and of the host."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Readings] = {}

    def completed(self, events: Sequence[Event]) -> list[Event]:
        """The events of a tick, each with the readings of before that still stand.

        What a row has, and what it says is absent, counts instead; so nothing is held of a GPU that does not answer, or
        whose counters began anew.
        """
        return [self._completed(event) if event.kind in _STANDS_US else event for event in events]

    def _completed(self, event: Event) -> Event:
        values = event.values
        held = self._held.setdefault((event.kind, values.get("gpu_uuid", "")), {})
        absent = values.get("absence") or {}
        epoch = values.get("counter_epoch")
        if "*" in absent or held.get("counter_epoch", (epoch, 0))[0] != epoch:
            held.clear()
        held["counter_epoch"] = (epoch, event.observed_at_us)
        found = {}
        for name, stands_us in _STANDS_US[event.kind].items():
            if values.get(name) is not None:
                held[name] = (values[name], event.observed_at_us)
            elif name in absent:
                held.pop(name, None)
            elif name in held and event.observed_at_us - held[name][1] <= stands_us:
                found[name] = held[name][0]
        return replace(event, values={**values, **found}) if found else event
