"""What fills columns of a GPU's row: one call of the driver, several that answer one question, or a batch of fields.

A reading keeps the memory that the driver answers into, so it belongs to one GPU and one session with the driver.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collector.clock import Now
from collector.gpu.capabilities import Capability, Ways
from collector.gpu.nvml import ALL_LINKS, Absent, Call, FieldBatch, Handle, plain
from collector.probe import Answers
from store.events import GPU_SAMPLE, AbsenceReason

MEGA = 1_000_000


class Reading:
    """What fills some columns of one GPU, by the first of its ways that the driver knows.

    Args:
        columns: The columns.
        ways: Newest first, as for `Ways`.
    """

    def __init__(self, columns: Sequence[str], *ways: tuple[str, Callable[[], Answers]]) -> None:
        self.columns = columns
        self.every_s = max(GPU_SAMPLE.by_name[column].every_seconds or 0.0 for column in columns)
        self.ways = ways
        self._ways = Ways(*ways)

    @property
    def capabilities(self) -> Sequence[Capability]:
        return self._ways.capabilities

    def answers(self, now: Now) -> Answers:
        """What the reading gives, or why it gives nothing.

        Raises:
            DriverAway: The driver is gone.
        """
        try:
            return self._ways.take(now)
        except Absent as absent:
            return dict.fromkeys(self.columns, absent.reason)


def milli(value: float) -> float:
    return value / 1000.0


def nano(value: float) -> float:
    return value / 1e9


def kibi(value: float) -> int:
    return int(value) * 1024


def mega(value: float) -> int:
    return int(value) * MEGA


def unscaled(value: float) -> float:
    return value


def flag(value: float) -> bool:
    return bool(value)


class Unwrapped:
    """A byte counter that the driver may keep in 32 bits, as one that goes on.

    A counter that falls from below 2^32 has wrapped. From above it did not: it was restarted, and its fall is seen.
    """

    def __init__(self) -> None:
        self._before = self._added = 0

    def __call__(self, value: float) -> int:
        raw = int(value)
        if raw < self._before:
            self._added = self._added + 2**32 if self._before < 2**32 else 0
        self._before = raw
        return raw + self._added


Scale = Callable[[float], float]
Fields = Sequence[tuple[int, int, str, Callable[[], Scale]]]
"""NVML field id and scope, the column, and what gives the way from the vendor's scale to the column's unit."""


def always(scaled: Scale) -> Callable[[], Scale]:
    return lambda: scaled


class FieldReading(Reading):
    """Many fields in one call; each has a capability of its own.

    Args:
        device: The GPU.
        fields: The fields.
        sampled_at: The column that takes the driver's own time of them, where one does.
    """

    def __init__(self, device: Handle, fields: Fields, *, sampled_at: str = "") -> None:
        self._batch = FieldBatch(device, [(field_id, scope) for field_id, scope, _, _ in fields])
        self._fields = [
            (Capability(_field_name(field_id, scope)), column, make()) for field_id, scope, column, make in fields
        ]
        self._sampled_at = sampled_at
        self._codes: Sequence[int] = ()
        columns = [column for _, _, column, _ in fields]
        super().__init__([sampled_at, *columns] if sampled_at else columns, ("nvmlDeviceGetFieldValues", self._read))

    @property
    def capabilities(self) -> Sequence[Capability]:
        (batch,) = super().capabilities
        for capability, _, _ in self._fields:
            capability.tried_at_us = batch.tried_at_us
        return [batch, *(capability for capability, _, _ in self._fields)]

    def answers(self, now: Now) -> Answers:
        codes, answers = self._codes, super().answers(now)
        if self._codes != codes:
            for (capability, column, _), code in zip(self._fields, self._codes, strict=True):
                if code:
                    capability.note(code, answers[column], now)
                else:
                    capability.worked(now)
        return answers

    def _read(self) -> Answers:
        self._codes, told = self._batch.read()
        answers = {
            column: value if isinstance(value, AbsenceReason) else scaled(value)
            for (_, column, scaled), value in zip(self._fields, told, strict=True)
        }
        if self._sampled_at:
            answers[self._sampled_at] = self._batch.sampled_at_us or AbsenceReason.NO_DATA
        return answers


def _field_name(field_id: int, scope: int) -> str:
    return f"field {field_id}" if scope in (0, ALL_LINKS) else f"field {field_id} scope {scope}"


def number(
    device: Handle,
    column: str,
    *names: str,
    arguments: Sequence[int] = (),
    scaled: Scale = unscaled,
    out: type[Any] = ctypes.c_uint,
) -> Reading:
    """Calls that answer with one number; `names` are functions of one signature, newest first."""

    def way(name: str) -> tuple[str, Callable[[], Answers]]:
        answer = out()
        call = Call(name, device, *arguments, ctypes.byref(answer))

        def read() -> Answers:
            call()
            return {column: scaled(answer.value)}

        return " ".join([name, *map(str, arguments)]), read

    return Reading((column,), *map(way, names))


def filled(device: Handle, name: str, memory: Any, told: Callable[[Any], Answers]) -> tuple[str, Callable[[], Answers]]:
    """A call that fills memory, and what is made of that."""
    call = Call(name, device, ctypes.byref(memory))

    def read() -> Answers:
        call()
        return told(memory)

    return name, read


def structure(
    device: Handle, names: Sequence[str], layout: type[ctypes.Structure], members: Mapping[str, str]
) -> Reading:
    """Calls that fill a structure; `members` are the columns and what the structure calls them."""

    def told(answer: Any) -> Answers:
        return {column: getattr(answer, member) for column, member in members.items()}

    memory = plain(layout)()
    return Reading(tuple(members), *(filled(device, name, memory, told) for name in names))


def versioned(
    device: Handle, name: str, columns: Sequence[str], *asked: int, scaled: Scale = unscaled
) -> tuple[str, Callable[[], Answers]]:
    """A call with a structure of 32-bit words: its version 1, what is asked, and last the answers, one a column.

    An older nvidia-ml-py has no such structures, though the driver may know the call.
    """
    layout = ctypes.c_int * (1 + len(asked) + len(columns))
    words = layout(ctypes.sizeof(layout) | 1 << 24, *asked)

    def told(words: Any) -> Answers:
        return dict(zip(columns, map(scaled, words[-len(columns) :]), strict=True))

    return filled(device, name, words, told)
