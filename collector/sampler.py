"""The sampler: every interval, what all probes say, in one durable append.

The schedule does not drift: the next tick is due one interval after the last was due, whatever the tick took.
Ticks that were missed are not made up; they become a `gap` event. A probe that raises costs its own events of
that tick. An append that fails keeps the events in memory, bounded, and the next tick tries again; `collector.keeping`
says what is shed when the disk fills up.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from collector.clock import Clock, Now
from collector.holding import SlowReadings
from collector.keeping import Keeper
from collector.probe import Condition, Probe
from store.errors import LedgerUnusableError
from store.events import Event, stale_after_s
from store.space import SpaceWatch

logger = logging.getLogger(__name__)

PENDING_EVENTS_MAX = 20_000  # at 8 GPUs and 1 Hz half an hour, some 30 MB
CLOCK_STEP_S = 0.5


class Appender(Protocol):
    def append(self, events: Sequence[Event]) -> range: ...


@dataclass(frozen=True, slots=True)
class XidCount:
    """One Xid code of one GPU since this process began: how often, and when the last time, microseconds UTC."""

    count: int
    last_us: int


@dataclass(frozen=True, slots=True)
class Latest:
    """The state after the newest tick, replaced as a whole so that any thread may read it.

    Args:
        now: When the tick began; None before the first.
        events: What the probes said in it, each with the slower readings of before that still stand.
        devices: The newest rows of the host's devices, which are not read at every tick; none once they are stale.
        inventory: The newest description of each thing that was described, by its GPU's UUID ("" for the host).
        ticks: Ticks taken since the start.
        missed_ticks: Ticks that were due and not taken.
        append_failures: Ticks whose append failed.
        dropped_events: Events given up because the ledger took none for too long.
        problem: Why the newest events are not in the ledger; None when they are.
        conditions: How each probe was at the newest tick, by its name.
        xids: What the driver told of each GPU, by its index, UUID and the code.
        late_s: How much after it was due the newest tick began.
        reading_s: Time that all ticks so far took until their events were to be appended.
        append_s: Time that all appends so far took.
    """

    now: Now | None = None
    events: Sequence[Event] = ()
    devices: Sequence[Event] = ()
    inventory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ticks: int = 0
    missed_ticks: int = 0
    append_failures: int = 0
    dropped_events: int = 0
    problem: str | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    xids: Mapping[tuple[str, str, str], XidCount] = field(default_factory=dict)
    late_s: float = 0.0
    reading_s: float = 0.0
    append_s: float = 0.0


class Sampler:
    """Ticks until told to stop.

    Args:
        ledger: Where the events go.
        probes: What is looked at, in this order.
        clock: What time it is.
        interval_s: Time between two ticks.
        version: Of the program, for the start event.
        pid: Of this process, for the start event.
        after_tick: Called after each tick with the time of its end.
        settings: What it records by, for the start event: a change of one can then be found.
        space: Tells how much room the ledger's disk has; not looked at where left out.
    """

    def __init__(
        self,
        *,
        ledger: Appender,
        probes: Sequence[Probe],
        clock: Clock,
        interval_s: float,
        version: str,
        pid: int,
        after_tick: Callable[[Now], None] = lambda _: None,
        settings: Mapping[str, Any] | None = None,
        space: SpaceWatch | None = None,
    ) -> None:
        self.latest = Latest()
        self.probes = probes
        self.interval_s = interval_s
        self._ledger = ledger
        self._clock = clock
        self._identity = {"gpuledger_version": version, "pid": pid}
        self._after_tick = after_tick
        self._recorded_by = {"details": {"settings": dict(settings)}} if settings else {}
        self._keeper = Keeper(space)
        self._slow = SlowReadings()
        self._failing_probes: set[str] = set()
        self._statuses: dict[str, str] = {}
        self._conditions: dict[str, Condition] = {}

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, the first time at once; a start event is written first, a stop event last."""
        begin = self._clock.now()
        due_s = begin.monotonic_s
        # At once and not with the first tick: a driver that hangs in it would leave no trace of this start.
        start = self._life_event("start", begin, "recording began", **self._recorded_by)
        self.latest = replace(self.latest, problem=self._append([start]))
        while not stop.is_set():
            now = self._clock.now()
            missed = int((now.monotonic_s - due_s) / self.interval_s)
            self.tick(now, missed, late_s=now.monotonic_s - due_s - missed * self.interval_s)
            self._after_tick(now)
            due_s += (missed + 1) * self.interval_s
            self._clock.wait_until(due_s, stop)
        self._append([self._life_event("stop", self._clock.now(), "recording ended")])
        for probe in self.probes:
            probe.close()

    def tick(self, now: Now, missed: int = 0, *, late_s: float = 0.0) -> None:
        """Read every probe and append what they say."""
        seen = [self._signed(event) for probe in self.probes for event in self._read(probe, now)]
        told = self._what_the_clocks_tell(now, missed)
        if (of_space := self._keeper.look(now)) is not None:
            told.append(Event("ledger_event", now.wall_us, {**self._identity, **of_space}))
        read_s = self._clock.now().monotonic_s
        failure = self._append([*told, *seen])
        latest, appended_s = self.latest, self._clock.now().monotonic_s
        self.latest = replace(
            latest,
            now=now,
            events=self._slow.completed(seen),
            devices=_devices(seen) or tuple(row for row in latest.devices if _stands(row, now)),
            inventory={**latest.inventory, **_described(seen)},
            ticks=latest.ticks + 1,
            missed_ticks=latest.missed_ticks + missed,
            append_failures=latest.append_failures + (failure is not None),
            problem=failure,
            conditions=dict(self._conditions),
            xids=_xids(latest.xids, seen),
            late_s=late_s,
            reading_s=latest.reading_s + max(0.0, read_s - now.monotonic_s),
            append_s=latest.append_s + (appended_s - read_s),
        )

    def _read(self, probe: Probe, now: Now) -> Sequence[Event]:
        try:
            events, status, self._conditions[probe.name] = probe.read(now), probe.status(), probe.condition
        except Exception as error:
            self._conditions[probe.name] = Condition.FAILED
            if probe.name in self._failing_probes:
                return []
            self._failing_probes.add(probe.name)
            logger.exception("probe %s failed", probe.name)
            return [
                self._life_event("probe_failed", now, f"the {probe.name} probe failed: {error!r}", probe=probe.name)
            ]
        self._failing_probes.discard(probe.name)
        if self._statuses.get(probe.name) == status:
            return events
        self._statuses[probe.name] = status
        return [*events, self._life_event("probe_status", now, status, probe=probe.name)]

    def _what_the_clocks_tell(self, now: Now, missed: int) -> list[Event]:
        before = self.latest.now
        if before is None:
            return []
        told = []
        if missed:
            span = _span(before, now)
            told.append(self._life_event("gap", now, f"{missed} ticks were missed", missed_ticks_count=missed, **span))
        asleep_s = (now.boottime_s - before.boottime_s) - (now.monotonic_s - before.monotonic_s)
        if asleep_s > CLOCK_STEP_S:
            span = _span(before, now) | {"duration_seconds": asleep_s}
            told.append(self._life_event("suspend", now, f"the machine was suspended for {asleep_s:.1f} s", **span))
        step_s = (now.wall_us - before.wall_us) / 1e6 - (now.boottime_s - before.boottime_s)
        if abs(step_s) > CLOCK_STEP_S:
            span = _span(before, now) | {"duration_seconds": step_s}
            told.append(self._life_event("clock_step", now, f"the clock was stepped by {step_s:+.3f} s", **span))
        return told

    def _append(self, events: Sequence[Event]) -> str | None:
        """Append what is pending and `events`; the reason where the ledger took none."""
        dropped = self._keeper.keep(events, events_max=PENDING_EVENTS_MAX)
        self.latest = replace(self.latest, dropped_events=self.latest.dropped_events + dropped)
        if refusal := self._keeper.refusal:
            if self.latest.problem is None:
                logger.error("%s", refusal)
            return refusal
        try:
            seqs = self._ledger.append(self._keeper.pending)
        except LedgerUnusableError as error:
            if self.latest.problem is None:
                logger.error("%s", error)  # noqa: TRY400 - the sentence says it; a traceback would not help
            return str(error)
        if self.latest.problem is not None:
            logger.warning("the ledger takes events again")
        logger.debug("appended %d-%d", seqs.start, seqs.stop - 1)
        self._keeper.pending = []
        return None

    def _signed(self, event: Event) -> Event:
        """The event, with whose it is where it is one of the recorder's own life."""
        return replace(event, values={**self._identity, **event.values}) if event.kind == "ledger_event" else event

    def _life_event(self, event: str, now: Now, message: str, **more: Any) -> Event:
        return Event("ledger_event", now.wall_us, {"event": event, "message": message, **self._identity, **more})


def _span(before: Now, now: Now) -> dict[str, Any]:
    return {
        "started_at": before.wall_us,
        "ended_at": now.wall_us,
        "duration_seconds": now.boottime_s - before.boottime_s,
    }


def _xids(before: Mapping[Any, XidCount], events: Sequence[Event]) -> Mapping[tuple[str, str, str], XidCount]:
    counts = dict(before)
    for event in events:
        values = event.values
        if event.kind == "gpu_event" and values.get("event") == "xid":
            index = values.get("gpu_index")
            of = ("" if index is None else str(index), values.get("gpu_uuid") or "", str(values.get("xid")))
            counts[of] = XidCount(counts[of].count + 1 if of in counts else 1, event.observed_at_us)
    return counts


def _devices(events: Sequence[Event]) -> Sequence[Event]:
    return tuple(event for event in events if event.kind == "device_sample")


def _stands(row: Event, now: Now) -> bool:
    return (now.wall_us - row.observed_at_us) / 1e6 <= stale_after_s(row.values["interval_seconds"])


def _described(events: Sequence[Event]) -> dict[str, Mapping[str, Any]]:
    return {event.values.get("gpu_uuid", ""): event.values for event in events if event.kind == "inventory"}
