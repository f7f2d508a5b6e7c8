"""What the ledger has not taken yet, in bounded memory, and what is shed when its disk fills up.

The order of shedding is `store.space`'s: first host, process and server samples are no longer kept for the ledger; then
nothing is written and all that comes waits here. When the memory is full, the oldest samples go first, those of GPUs
last of them, and events and requests only when nothing else is left. /metrics shows everything all the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collector.clock import Now
from store.events import Event
from store.space import SHED_FIRST, SHED_NEXT, SpaceLevel, SpaceWatch

_EVENT_NAMES = {
    SpaceLevel.PLENTY: "disk_ok",
    SpaceLevel.LOW: "disk_low",
    SpaceLevel.READ_ONLY: "disk_full",
}
_MESSAGES = {
    SpaceLevel.PLENTY: "the disk has room again: everything is written",
    SpaceLevel.LOW: "the disk is nearly full: host, process and server samples are no longer written",
    SpaceLevel.READ_ONLY: "the disk is full but for a reserve: nothing is written, events wait in memory",
}


@dataclass
class Keeper:
    """Events on their way into the ledger.

    Args:
        space: Tells how much room there is; None where that is not looked at.
        pending: What waits, oldest first.
    """

    space: SpaceWatch | None = None
    pending: list[Event] = field(default_factory=list)
    _level: SpaceLevel = SpaceLevel.PLENTY
    _shed: Counter[str] = field(default_factory=Counter)
    _shed_since_us: int | None = None

    @property
    def refusal(self) -> str | None:
        """Why nothing is written now; None where it is."""
        if self._level < SpaceLevel.READ_ONLY or self.space is None:
            return None
        free_mb = self.space.free_bytes / 1e6
        return f"The ledger's disk has {free_mb:,.0f} MB left: nothing is written until there is more"

    def look(self, now: Now) -> Mapping[str, Any] | None:
        """Look at the disk; what a ledger event says where the level changed, else None."""
        before, self._level = self._level, self.space.look() if self.space else SpaceLevel.PLENTY
        if self._level == before or self.space is None:
            return None
        told: dict[str, Any] = {"event": _EVENT_NAMES[self._level], "message": _MESSAGES[self._level]}
        details: dict[str, Any] = {"free_bytes": self.space.free_bytes}
        if self._level == SpaceLevel.PLENTY and self._shed_since_us is not None:
            told |= {"started_at": self._shed_since_us, "ended_at": now.wall_us}
            told["duration_seconds"] = max(0.0, (now.wall_us - self._shed_since_us) / 1e6)
            details["not_written"] = dict(self._shed)
            self._shed, self._shed_since_us = Counter(), None
        return told | {"details": details}

    def keep(self, events: Sequence[Event], *, events_max: int) -> int:
        """Take events in; returns how many, of them or of older ones, were given up for want of room."""
        sheds = self._level >= SpaceLevel.LOW
        given_up = [event for event in events if sheds and event.kind in SHED_FIRST]
        self.pending += [event for event in events if not (sheds and event.kind in SHED_FIRST)]
        given_up += self._overflow(len(self.pending) - events_max)
        self._count(given_up)
        return len(given_up)

    def _overflow(self, count: int) -> list[Event]:
        """Take so many events out of what waits, the least important first and of them the oldest."""
        if count <= 0:
            return []
        ranked = sorted(range(len(self.pending)), key=lambda place: (_importance(self.pending[place]), place))
        going = set(ranked[:count])
        given_up = [self.pending[place] for place in sorted(going)]
        self.pending = [event for place, event in enumerate(self.pending) if place not in going]
        return given_up

    def _count(self, events: Iterable[Event]) -> None:
        for event in events:
            self._shed[event.kind] += 1
            if self._shed_since_us is None:
                self._shed_since_us = event.observed_at_us


def _importance(event: Event) -> int:
    return 0 if event.kind in SHED_FIRST else 1 if event.kind in SHED_NEXT else 2
