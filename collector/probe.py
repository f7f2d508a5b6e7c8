"""What every probe has in common."""

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from collector.clock import Now
from store.events import AbsenceReason, Event

Answers = Mapping[str, Any]
"""For each column its value, or the `AbsenceReason` why it has none."""


class Condition(StrEnum):
    """Whether a probe looks at what it is for."""

    ANSWERS = "answers"  # also that there is nothing to see
    STALLED = "stalled"  # it is in a call that does not return
    PAUSED = "paused"  # it was told not to look
    FAILED = "failed"  # it raised


class Probe(Protocol):
    """Something that can be looked at.

    `read` gives the events that describe it now. What a probe cannot know it leaves out and says why in the
    row's `absence`; it raises only on what it did not expect, which costs its own events of that tick and no
    other probe's.
    """

    name: str

    @property
    def condition(self) -> Condition: ...

    def read(self, now: Now) -> Sequence[Event]: ...

    def status(self) -> str:
        """What it is watching, or why it sees nothing, as a phrase for a person that is true as long as it stands."""

    def close(self) -> None: ...


class DetachableProbe(Probe, Protocol):
    """A probe that may hang in `read`. The rest is asked from another thread and never waits for it."""

    @property
    def busy_with(self) -> str | None:
        """Which of the things it looks at `read` is at now: another probe need not hang on it too."""

    def meanwhile(self) -> Sequence[Event]:
        """What came by itself since it was asked last, without looking."""

    def abandon(self) -> None:
        """Nobody waits for `read` any more."""


class RestingProbe(DetachableProbe, Protocol):
    """A probe that can let go of what it looks at and go on later."""

    def rest(self) -> Sequence[str]:
        """Let go; what it still holds, nothing when it is done. `read` begins again, knowing what it knew."""


class Row:
    """The values of one row on its way to be an event, and why some of its columns have none."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.absence: dict[str, AbsenceReason] = {}

    def put(self, answers: Answers) -> None:
        """Take, for each column, its value or the reason why it has none; a value takes the reason's place."""
        absent = {column: reason for column, reason in answers.items() if isinstance(reason, AbsenceReason)}
        self.values.update(answers)
        for column in absent:
            del self.values[column]
        if self.absence:
            for column in answers.keys() - absent.keys():
                self.absence.pop(column, None)
        self.absence.update(absent)

    def fill(self, answers: Answers) -> None:
        """Take what has no value yet; a reason only in the place of one that says that there is no such reading."""
        self.put(
            {
                column: answer
                for column, answer in answers.items()
                if self.absence.get(column) is AbsenceReason.NOT_SUPPORTED
                or (column in self.absence and not isinstance(answer, AbsenceReason))
            }
        )

    def event_values(self) -> dict[str, Any]:
        return self.values | ({"absence": self.absence} if self.absence else {})


class CounterEpoch:
    """The epoch of one row's counters: the second, on the wall clock, in which they were found to have restarted.

    A second and not a number counted from 0, which a restarted recorder would give again to counters that
    restarted while it was away, and a rate would be taken between the two.

    Args:
        counters: The columns that only a restart can take back.
    """

    def __init__(self, counters: Collection[str]) -> None:
        self._counters = counters
        self._before: dict[str, Any] = {}
        self.current = 0
        """The epoch of the values that were followed last."""
        self.has_restarted = False
        """Whether those had fallen, within what was one epoch."""
        self._is_over = True

    def follow(self, values: Mapping[str, Any], now: Now) -> int:
        """The epoch that these values belong to."""
        known = {column: values[column] for column in self._counters if column in values}
        self.has_restarted = any(value < self._before.get(column, value) for column, value in known.items())
        if self._is_over or self.has_restarted:
            self.current = max(self.current + 1, now.wall_us // 1_000_000 % 2**31)  # the column has 32 bits
            self._is_over = False
        self._before |= known
        return self.current

    def end(self) -> None:
        """Whatever is read next belongs to another epoch."""
        self._is_over, self.has_restarted = True, False
        self._before = {}


class Turn:
    """Says at which ticks something is read that is read more seldom: at the first, and then every so many.

    Half a tick early counts as due. A tick comes a little after its time, now more and now less: of two that are five
    seconds apart the second would be taken for too early half of the time, and wait for the next.

    Args:
        every_s: Least time between two turns.
        interval_s: Time between two ticks.
    """

    def __init__(self, every_s: float, interval_s: float) -> None:
        self.every_s = interval_s * math.ceil(every_s / interval_s)
        self._slack_s = interval_s / 2
        self._next_s = float("-inf")

    def has_come(self, now: Now) -> bool:
        if now.monotonic_s < self._next_s - self._slack_s:
            return False
        self._next_s = now.monotonic_s + self.every_s
        return True
