"""A probe that may hang, read in a thread of its own: the tick goes on without it.

A call that hangs in a driver (a GPU that fell off the bus, a driver in D state) cannot be ended from outside, and a
thread in it cannot be killed. So the reader is a thread that can be left behind. Each tick hands it the time and
waits for its answer, at most `TIME_LIMIT_S`; a tick that gets none is recorded without it. After three intervals
without an answer the probe counts as stalled, which is an event; after 30 s its thread is left behind and another
probe is made, which leaves alone the GPU that the first hangs on until that call returns.

An answer that comes late belongs to the tick that asked for it and bears its time. When it took so long that its
samples may be of another time, they are dropped; what came by itself has a time of its own and is kept.

A process of its own could be killed, unless it is in D state, which is the case that matters, and would take 27 MiB
and an encoded copy of every row. A hand-over to the thread and back takes 0.1 ms a tick.
"""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from collector.clock import Clock, Now
from collector.probe import Condition, DetachableProbe
from store.events import KINDS, Event, stale_after_s

logger = logging.getLogger(__name__)

REPLACE_AFTER_S = 30.0  # nvmlInit of eight GPUs without the persistence daemon takes ten
ABANDONED_MAX = 3  # threads that are left behind at one time; further ones would hang there too
CLOSE_TIME_LIMIT_S = 2.0


def time_limit_s(interval_s: float) -> float:
    """How long a tick waits for the probe.

    Most of the interval, which leaves time to append; at least half a second, because a loaded machine takes so long
    now and then, and at most five, which is long enough for whoever answers at all.
    """
    return min(max(0.8 * interval_s, 0.5), 5.0)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the probe said, and when it had said it."""

    events: Sequence[Event]
    finished_s: float
    status: str
    condition: Condition
    error: Exception | None = None


class _Reader:
    """A probe and the thread that reads it, one tick at a time.

    Args:
        probe: Read in that thread, and closed in it at the end.
        clock: What time it is when an answer is ready.
    """

    def __init__(self, probe: DetachableProbe, clock: Clock) -> None:
        self.probe = probe
        self.asked: Now | None = None
        self.answer = _Answer((), clock.now().monotonic_s, probe.status(), probe.condition)
        self.has_answered = threading.Event()
        self._clock = clock
        self._inbox: SimpleQueue[Now | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"{probe.name}-probe", daemon=True)
        self.thread.start()

    def ask(self, now: Now) -> None:
        self.has_answered.clear()
        self.asked = now
        self._inbox.put(now)

    def end(self) -> None:
        """Close the probe as soon as it is back."""
        self._inbox.put(None)

    def _run(self) -> None:
        while (now := self._inbox.get()) is not None:
            self.answer = self._read(now)
            self.has_answered.set()
        self.probe.close()

    def _read(self, now: Now) -> _Answer:
        events: Sequence[Event] = ()
        error = None
        try:
            events = self.probe.read(now)
        except Exception as raised:  # noqa: BLE001 - it is raised again where it is waited for
            error = raised
        return _Answer(events, self._clock.now().monotonic_s, self.probe.status(), self.probe.condition, error)


class GuardedProbe:
    """Reads a probe that may hang, and is never held up by it for longer than the time limit.

    Args:
        make_probe: Makes one, given a function that tells what to leave alone because a call on it hangs. Must not
            look at anything itself.
        clock: What time it is.
        interval_s: Time between two reads.
        call_of: The call into the driver that a thread is in, by the thread's id.
    """

    def __init__(
        self,
        make_probe: Callable[[Callable[[], Collection[str]]], DetachableProbe],
        *,
        clock: Clock,
        interval_s: float,
        call_of: Callable[[int], str | None] = lambda _: None,
    ) -> None:
        self._make_probe = make_probe
        self._clock = clock
        self._stalled_after_s = stale_after_s(interval_s)
        self._time_limit_s = time_limit_s(interval_s)
        self._call_of = call_of
        self._abandoned: list[_Reader] = []
        self._reader = _Reader(make_probe(self._left_alone), clock)
        self._silent_since: Now | None = None
        self._missed = 0
        self._replacements = 0
        self._stalled = ""
        self._told: list[Event] = []
        self.name = self._reader.probe.name

    def read(self, now: Now) -> Sequence[Event]:
        """What the probe says of now, or what is known without it.

        Raises:
            Exception: Whatever the probe raised.
        """
        reader = self._reader
        if reader.asked and not reader.has_answered.is_set():
            self._go_on_without(reader, reader.asked, now)
        else:
            if reader.asked:
                self._take(reader, reader.asked, now)
            self._ask(reader, now)
        told, self._told = self._told, []
        return told

    def status(self) -> str:
        return self._stalled or self._reader.answer.status

    @property
    def condition(self) -> Condition:
        return Condition.STALLED if self._stalled else self._reader.answer.condition

    def close(self) -> None:
        """Have the probe closed, but do not wait for a call that hangs."""
        reader = self._reader
        reader.end()
        reader.thread.join(CLOSE_TIME_LIMIT_S)
        if reader.thread.is_alive():
            reader.probe.abandon()
            logger.warning("the %s probe hangs in %s and is left behind", self.name, self._call(reader))

    def _ask(self, reader: _Reader, now: Now) -> None:
        reader.ask(now)
        self._silent_since = self._silent_since or now
        self._clock.wait_until(now.monotonic_s + self._time_limit_s, reader.has_answered)
        if reader.has_answered.is_set():
            self._take(reader, now, now)
        else:
            self._told += reader.probe.meanwhile()

    def _take(self, reader: _Reader, asked: Now, now: Now) -> None:
        """Take the answer to the tick that asked; of one that took too long, only what is no sample."""
        answer, reader.asked = reader.answer, None
        is_late = answer.finished_s - asked.monotonic_s > self._stalled_after_s
        self._missed += is_late
        self._told += [one for one in answer.events if not (is_late and KINDS[one.kind].expected_every_seconds)]
        self._answers_again(now)
        if answer.error:
            raise answer.error

    def _answers_again(self, now: Now) -> None:
        since, missed, was_stalled = self._silent_since, self._missed, bool(self._stalled)
        self._silent_since, self._missed, self._stalled, self._replacements = None, 0, "", 0
        if since and missed:
            event, words = ("probe_resumed", "answers again") if was_stalled else ("gap", "was slow: it answered")
            message = f"the {self.name} probe {words} after {now.monotonic_s - since.monotonic_s:.1f} s"
            self._tell(event, since, now, message, missed_ticks_count=missed)

    def _go_on_without(self, reader: _Reader, asked: Now, now: Now) -> None:
        """Tell what there is to tell while the reader does not answer, and give it up in the end."""
        self._missed += 1
        since = self._silent_since or asked
        self._told += reader.probe.meanwhile()
        if not self._stalled and now.monotonic_s - since.monotonic_s > self._stalled_after_s:
            call = self._call(reader)
            self._stalled = f"stalled since {_spelled(since)} in {call}"
            message = f"the {self.name} probe does not answer: {call} does not return"
            self._tell("probe_stalled", since, now, message, details={"call": call})
        if now.monotonic_s - asked.monotonic_s >= REPLACE_AFTER_S * 2**self._replacements:
            self._replace(reader, asked, now)

    def _replace(self, reader: _Reader, asked: Now, now: Now) -> None:
        """Leave the reader behind for another, if there are not too many of them already."""
        self._abandoned = [one for one in self._abandoned if one.thread.is_alive()]
        if len(self._abandoned) >= ABANDONED_MAX:
            return
        reader.probe.abandon()
        reader.end()
        self._abandoned.append(reader)
        self._replacements += 1
        self._reader = _Reader(self._make_probe(self._left_alone), self._clock)
        message = f"the {self.name} probe is replaced: its thread hangs in {self._call(reader)} and is left behind"
        details = {"left_behind": len(self._abandoned), "left_alone": sorted(self._left_alone())}
        self._tell("probe_replaced", asked, now, message, details=details)

    def _left_alone(self) -> Collection[str]:
        """What the readers that were left behind hang on."""
        hanging = [one for one in self._abandoned if one.thread.is_alive() and not one.has_answered.is_set()]
        return {one.probe.busy_with for one in hanging if one.probe.busy_with}

    def _call(self, reader: _Reader) -> str:
        return self._call_of(reader.thread.ident or 0) or "a call that is not known"

    def _tell(self, event: str, since: Now, now: Now, message: str, **more: Any) -> None:
        span = {
            "started_at": since.wall_us,
            "ended_at": now.wall_us,
            "duration_seconds": now.boottime_s - since.boottime_s,
        }
        values = {"event": event, "probe": self.name, "message": message, **span, **more}
        self._told.append(Event("ledger_event", now.wall_us, values))


def _spelled(now: Now) -> str:
    return f"{datetime.fromtimestamp(now.wall_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
