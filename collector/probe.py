"""What every probe has in common."""

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
        for column, answer in answers.items():
            if isinstance(answer, AbsenceReason):
                self.absence[column] = answer
            else:
                self.values[column] = answer
                self.absence.pop(column, None)

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
        self._epoch = 0
        self._is_over = True

    def follow(self, values: Mapping[str, Any], now: Now) -> int:
        """The epoch that these values belong to."""
        known = {column: values[column] for column in self._counters if column in values}
        if self._is_over or any(value < self._before.get(column, value) for column, value in known.items()):
            self._epoch = max(self._epoch + 1, now.wall_us // 1_000_000 % 2**31)  # the column has 32 bits
            self._is_over = False
        self._before |= known
        return self._epoch

    def end(self) -> None:
        """Whatever is read next belongs to another epoch."""
        self._is_over = True
        self._before = {}
