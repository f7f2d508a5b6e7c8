"""Answers from a recording, in the place of the driver's library; no library is needed.

Time is the collector's. At each of its ticks the answers are those of the recorded tick that is nearest in time, in the
order in which they were given: so the same questions at the same pace get exactly what the machine gave. Else:

- A question that was asked more often than at that tick gets its last answer of it again, and one that was not asked at
  that tick the newest answer from before (from after, where there is none).
- A function that was never asked is missing, as from an older driver: the collector has another one for it, or none.
- A question that was never asked of a known function is answered with NO_DATA. NOT_SUPPORTED would be a statement about
  the machine, and nobody knows.
- What the driver told by itself is told at the tick at which the recorded collector took it.
"""

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from functools import partial
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pynvml

from collector.clock import Now
from collector.gpu.driver_library import LIBRARY, installed_library
from collector.gpu.probe import GpuProbe
from collector.probe import Condition
from collector.recordings.boundary import (
    HANDLE_BASE,
    HANDLES_MAX,
    Handles,
    Kind,
    Memory,
    Question,
    batch,
    listing,
    question,
    value_of,
)
from collector.recordings.recording import NO_KERNEL_LOG, Answers, Recording, Tick, read_recording
from store.events import Event

HAND_OVER_S = 1.0  # how long a tick waits for the thread that takes what the driver tells by itself
_GIVING_BACK = frozenset({"nvmlShutdown", "nvmlEventSetFree", "nvmlGpmSampleFree"})
"""Always succeeds: much of it comes after a recording's last tick."""
_WAITING = frozenset({"nvmlEventSetWait", "nvmlEventSetWait_v2"})
"""Always there: that nothing came is not recorded."""


class _Cursor:
    """Where the replay is in the answers to one question."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._ticks = answers.tick_numbers()
        self._look = -1
        self._given = 0

    def at(self, tick: int, look: int) -> int:
        """The number of the answer that comes next, at that tick and at that look of the collector."""
        if look != self._look:
            self._look, self._given = look, 0
        first, end = bisect_left(self._ticks, tick), bisect_right(self._ticks, tick)
        if first == end:
            return max(0, first - 1)
        return min(first + self._given, end - 1)

    def take(self) -> None:
        self._given += 1

    def code(self, number: int) -> int:
        return self._answers.code(number)

    def content(self, number: int) -> Sequence[int]:
        return self._answers.content[number]


class Replay:
    """A driver's library that answers from a recording.

    Args:
        recording: What it knows.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._changed = threading.Condition()
        self._places = {answers.question: _Cursor(answers) for answers in recording.answers}
        self._begins_us = [tick.at_us for tick in recording.ticks]
        self._tick = 0
        self._look = 0
        self._told_until = -1
        self._handles = Handles()
        self._due: deque[Sequence[int]] = deque()
        self._event_sets = 0
        self._waiting = 0
        self._has_ended = False
        self._functions = recording.functions | _GIVING_BACK | _WAITING

    @property
    def tick(self) -> Tick:
        """The recorded tick that it is at."""
        return self._recording.ticks[self._tick]

    def open(self) -> "ReplayedLibrary":
        return ReplayedLibrary(self)

    def knows(self, name: str) -> bool:
        return name in self._functions

    def is_over(self, elapsed_s: float) -> bool:
        return elapsed_s >= self.duration_s - self._recording.label.interval_s / 2

    @property
    def duration_s(self) -> float:
        return self._begins_us[-1] / 1e6 + self._recording.label.interval_s

    def go_to(self, elapsed_s: float) -> None:
        """Begin the tick of that time since the first one, and hand over what the driver told by itself until then."""
        due_us = elapsed_s * 1e6 + self._recording.label.interval_s * 5e5
        with self._changed:
            self._tick = max(0, bisect_right(self._begins_us, due_us) - 1)
            self._look += 1
            self._due.extend(self._told())
            self._changed.notify_all()
            if self._due and self._event_sets:  # who waits again has kept what it was handed before
                self._changed.wait_for(lambda: not self._due and self._waiting > 0, HAND_OVER_S)

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _told(self) -> list[Sequence[int]]:
        """What came since the last call, up to the end of the tick."""
        told = []
        for answers in self._recording.answers:
            if not answers.question.startswith("nvmlEventSetWait"):
                continue
            times_us = map(add, answers.at_us, answers.took_us)  # when the driver returned, which had been waited for
            for tick, told_us, content in zip(answers.tick_numbers(), times_us, answers.content, strict=False):
                due = tick if told_us <= self._recording.ticks[tick].took_us else tick + 1
                if self._told_until < due <= self._tick:
                    told.append((due, told_us, content))
        self._told_until = max(self._told_until, self._tick)
        return [content for _, _, content in sorted(told)]

    def call(self, name: str, arguments: tuple[Any, ...]) -> int:
        """What the driver answered to that call."""
        if name in _WAITING:
            return self._wait(arguments)
        with self._changed:
            asked = question(name, arguments, self._handles)
            if name in _GIVING_BACK:
                self._event_sets -= name == "nvmlEventSetFree"
                return int(pynvml.NVML_SUCCESS)
            if listing(name):
                return self._list(name, asked)
            code = self._answer(name, asked.words, asked.memory)
            if code == pynvml.NVML_SUCCESS:
                self._event_sets += name == "nvmlEventSetCreate"
                for entry in batch(name, asked) or ():
                    self._answer_entry(name, entry.question, entry.memory, entry.code_offset)
            return code

    def _answer(self, name: str, words: str, memory: Sequence[Memory | None]) -> int:
        place = self._places.get(words)
        if place is None:
            return int(pynvml.NVML_ERROR_NO_DATA)
        number = place.at(self._tick, self._look)
        place.take()
        self._write(name, memory, place.content(number))
        return place.code(number)

    def _answer_entry(self, name: str, words: str, memory: Memory, code_offset: int) -> None:
        if words in self._places:
            self._answer(name, words, [memory])
            return
        content = bytearray(memory.read())
        content[code_offset : code_offset + 4] = int(pynvml.NVML_ERROR_NO_DATA).to_bytes(4, "little")
        memory.write(bytes(content))

    def _list(self, name: str, asked: Question) -> int:
        """Fill the caller's array, or say how many there are; that alone leaves the answer to be asked for again."""
        filled, place = listing(name), self._places.get(asked.words)
        if filled is None or place is None:
            return int(pynvml.NVML_ERROR_NO_DATA)
        number = place.at(self._tick, self._look)
        content = place.content(number)
        array, count = asked.memory[filled.array], asked.memory[filled.count]
        entries = b"" if not content or content[filled.array] < 0 else self._content(content[filled.array])
        there_are = len(entries) // filled.entry_bytes
        room = count.count if array and count else 0
        if there_are > room:
            self._write(name, [one if one is not array else None for one in asked.memory], content)
            is_question = array is None and filled.size_is_success
            return int(pynvml.NVML_SUCCESS if is_question else pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        place.take()
        self._write(name, asked.memory, content)
        return place.code(number)

    def _write(self, name: str, memory: Sequence[Memory | None], content: Sequence[int]) -> None:
        for one, number in zip(memory, content, strict=False):
            if one is None or number < 0:
                continue
            one.write(self._safe(one, self._content(number)))
            for place in one.places:
                if place.kind is Kind.HANDLE and (handle := one.pointer(place.offset)):
                    self._handles.replayed(name, handle, handle)

    def _content(self, number: int) -> bytes:
        return self._recording.contents[number]

    @staticmethod
    def _safe(memory: Memory, content: bytes) -> bytes:
        """Without addresses but those of our handles, whoever made the recording."""
        checked = bytearray(content)
        for place in memory.places:
            part = slice(place.offset, place.offset + place.size)
            address = int.from_bytes(checked[part], "little")
            is_handle = place.kind is Kind.HANDLE and HANDLE_BASE < address < HANDLE_BASE + HANDLES_MAX
            if place.kind in (Kind.HANDLE, Kind.DRIVERS_TEXT) and not is_handle:
                checked[part] = bytes(len(checked[part]))
        return bytes(checked)

    def _wait(self, arguments: tuple[Any, ...]) -> int:
        """Block, as the driver does, until it is time for an event or the caller's time is up."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._due or self._has_ended, value_of(arguments[-1]) / 1000)
            self._waiting -= 1
            if not self._due:
                return int(pynvml.NVML_ERROR_TIMEOUT)
            asked = question("nvmlEventSetWait", arguments, self._handles)
            self._write("nvmlEventSetWait", asked.memory, self._due.popleft())
            return int(pynvml.NVML_SUCCESS)


class ReplayedLibrary:
    """Stands in the library's place."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def __getattr__(self, name: str) -> Any:
        if not self._replay.knows(name):
            raise AttributeError(name)  # what ctypes says of a symbol that the library lacks
        return _ReplayedFunction(name, self._replay)

    def close(self) -> None:
        """There is nothing to unmap."""


class _ReplayedFunction:
    """A function pointer; a caller may declare its arguments and its result, which changes nothing here."""

    def __init__(self, name: str, replay: Replay) -> None:
        self._name = name
        self._replay = replay

    def __call__(self, *arguments: Any) -> int:
        return self._replay.call(self._name, arguments)


class ReplayProbe:
    """A `GpuProbe` on a recorded machine; its inventory says that it is replayed. One at a time in a process.

    It sees no process of the machine that replays, and of its memory nothing.

    Args:
        path: The recording.
        interval_s: Time between two reads.
        is_looped: Begin anew when it is over; the GPUs' counters begin anew then too.
        proc: Another folder for /proc than one that has nothing but the recorded host's memory.

    Raises:
        RecordingError: It cannot be replayed.
    """

    name = "gpu"
    condition = Condition.ANSWERS
    busy_with: str | None = None

    def __init__(self, path: Path, *, interval_s: float, is_looped: bool = False, proc: Path | None = None) -> None:
        self._path = path
        self._recording = read_recording(path)
        self._is_looped = is_looped
        self._folder = TemporaryDirectory(prefix="gpuledger-replay-")
        here = Path(self._folder.name)
        self._open_probe = partial(
            GpuProbe, interval_s=interval_s, proc=proc or here, sys=here, kernel_log=NO_KERNEL_LOG
        )
        self._is_over = False
        self._began_s: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._replay = Replay(self._recording)
        self._probe = self._open_probe()
        LIBRARY.opened = self._replay.open

    def _end(self) -> None:
        self._replay.end()
        self._probe.close()

    def read(self, now: Now) -> Sequence[Event]:
        if self._is_over:
            return []
        self._began_s = now.monotonic_s if self._began_s is None else self._began_s
        if self._replay.is_over(now.monotonic_s - self._began_s):
            self._end()
            if not self._is_looped:
                self._is_over = True
                return []
            self._begin()
            self._began_s = now.monotonic_s
        self._replay.go_to(now.monotonic_s - self._began_s)
        self._write_memory()
        return [self._labelled(event) for event in self._probe.read(now)]

    def status(self) -> str:
        state = "it is over" if self._is_over else self._probe.status()
        return f"replay of {self._path.name} ({self._recording.label}): {state}"

    def meanwhile(self) -> Sequence[Event]:
        return ()

    def rest(self) -> Sequence[str]:
        return ()  # it holds nothing of a driver

    def abandon(self) -> None:
        pass

    def close(self) -> None:
        self._end()
        LIBRARY.opened = installed_library
        self._folder.cleanup()

    def _write_memory(self) -> None:
        """The memory of the recorded host, which is that of a GPU without its own."""
        path = Path(self._folder.name) / "meminfo"
        if self._replay.tick.memory_kib is None:
            path.unlink(missing_ok=True)
            return
        total, available = self._replay.tick.memory_kib
        path.write_text(f"MemTotal: {total} kB\nMemAvailable: {available} kB\n")

    def _labelled(self, event: Event) -> Event:
        if event.kind != "inventory":
            return event
        attributes = {**event.values.get("attributes", {}), "recording": msgspec.to_builtins(self._recording.label)}
        values = {**event.values, "source": "replay", "attributes": attributes}
        return Event(event.kind, event.observed_at_us, values)
