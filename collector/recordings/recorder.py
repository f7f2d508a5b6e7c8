"""Records what the driver answers, at the boundary between nvidia-ml-py and its library.

Every function pointer is taken from one library object (`collector.gpu.driver_library`). The recorder gives another one
in its place, whose functions ask the real ones and keep question, answer and time; so nothing that asks the driver
knows about it, and nothing that it asks is missed.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pynvml

from collector import proc
from collector.clock import Clock, Now
from collector.gpu.driver_library import LIBRARY, close_library, installed_library
from collector.gpu.probe import GpuProbe
from collector.recordings.boundary import Handles, Kind, Memory, Question, batch, listing, plain, question
from collector.recordings.pseudonyms import Pseudonyms
from collector.recordings.recording import NO_KERNEL_LOG, Answers, Label, Recording, Tick
from store.errors import NoDataError
from store.events import Event

STAND_IN_SYMBOL = "gpuledger_stand_in"
"""What the library of the tests exports, so that no recording of it passes for one of hardware."""
_UNRECORDED = frozenset({"nvmlErrorString"})  # gives no code, and asks no driver
_TELLING = frozenset({pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_INSUFFICIENT_SIZE})


@dataclass(slots=True)
class _Heard:
    """The answers to one question, as they come."""

    ticks: list[int] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)
    took_us: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    content: list[tuple[bytes | None, ...]] = field(default_factory=list)


class Recorder:
    """Keeps what is asked and answered between `begin_tick` and `recording`.

    Args:
        pseudonyms: What stands for identities; None to keep them.
        open_library: Loads the library that is recorded.
        proc_folder: Where /proc is.
    """

    def __init__(
        self,
        pseudonyms: Pseudonyms | None,
        open_library: Callable[[], Any] = installed_library,
        proc_folder: Path = Path("/proc"),
    ) -> None:
        self._pseudonyms = pseudonyms
        self._open_library = open_library
        self._proc = proc_folder
        self._lock = threading.Lock()
        self._handles = Handles()
        self._heard: dict[str, _Heard] = {}
        self._ticks: list[Tick] = []
        self._first_s: float | None = None
        self._began_us = 0
        self.is_stand_in = False

    def open(self) -> "RecordedLibrary":
        """Load the library, recorded from now on."""
        library = self._open_library()
        self.is_stand_in |= hasattr(library, STAND_IN_SYMBOL)
        return RecordedLibrary(library, self)

    @contextmanager
    def tick(self, now: Now) -> Iterator[None]:
        """One look of the collector; what is asked in between two belongs to the first."""
        self._first_s = now.monotonic_s if self._first_s is None else self._first_s
        at_us = round((now.monotonic_s - self._first_s) * 1e6)
        memory_kib = _memory_kib(self._proc)
        with self._lock:
            self._began_us = _now_us()
            self._ticks.append(Tick(at_us, 0, memory_kib))
        yield
        with self._lock:
            self._ticks[-1] = Tick(at_us, _now_us() - self._began_us, memory_kib)

    def call(self, name: str, function: Callable[..., int], arguments: tuple[Any, ...]) -> int:
        """Ask the driver, and keep what it answers."""
        with self._lock:
            asked = question(name, arguments, self._handles, lambda text: self._text(name, text))
        began_us = _now_us()
        code = function(*arguments)
        took_us = _now_us() - began_us
        if self._ticks and (self._pseudonyms is None or self._pseudonyms.may_tell(name)):
            with self._lock:
                self._keep(name, asked, code, (began_us - self._began_us, took_us))
        return code

    @property
    def duration_s(self) -> float:
        """From the first tick to the last."""
        return self._ticks[-1].at_us / 1e6 if self._ticks else 0.0

    def recording(self, label: Label) -> Recording:
        """What was kept until now."""
        with self._lock:
            numbers: dict[bytes | None, int] = {None: -1}
            answers = [_answers(words, heard, numbers) for words, heard in sorted(self._heard.items())]
            contents = [content for content in numbers if content is not None]  # by number
            return Recording(label=label, ticks=list(self._ticks), contents=contents, answers=answers)

    def _keep(self, name: str, asked: Question, code: int, times_us: tuple[int, int]) -> None:
        if plain(name) == "nvmlEventSetWait" and code != pynvml.NVML_SUCCESS:
            return  # that nothing came, ten times a second
        if (filled := listing(name)) and code in _TELLING:
            count = asked.memory[filled.count]
            if count and count.count and (code or asked.memory[filled.array] is None):
                return  # how many there are; the answer is the next one
        self._append(asked.words, code, self._contents(name, asked, code), times_us)
        for entry in batch(name, asked) or () if code == pynvml.NVML_SUCCESS else ():
            content = entry.memory.read()
            entry_code = int.from_bytes(content[entry.code_offset :][:4], "little")
            self._append(entry.question, entry_code, (content,), None)

    def _append(
        self, words: str, code: int, content: tuple[bytes | None, ...], times_us: tuple[int, int] | None
    ) -> None:
        heard = self._heard.setdefault(words, _Heard())
        heard.ticks.append(len(self._ticks) - 1)
        heard.codes.append(code)
        heard.content.append(content)
        if times_us:
            heard.at_us.append(times_us[0])
            heard.took_us.append(times_us[1])

    def _contents(self, name: str, asked: Question, code: int) -> tuple[bytes | None, ...]:
        """What was written, memory by memory; of an error nothing, and of a batch nothing beside its entries."""
        if code not in _TELLING or batch(name, asked) is not None:
            return ()
        filled = listing(name)
        contents: list[bytes | None] = []
        for number, memory in enumerate(asked.memory):
            if memory and filled and number == filled.array:
                count = asked.memory[filled.count]
                entries = memory.read()[: (count.count if count else 0) * filled.entry_bytes]
                contents.append(self._listed(entries, filled.entry_bytes, has_pids=filled.has_pids))
            else:
                contents.append(self._content(name, memory) if memory else None)
        return tuple(contents)

    def _listed(self, content: bytes, entry_bytes: int, *, has_pids: bool) -> bytes:
        if not (has_pids and self._pseudonyms):
            return content
        hidden = bytearray(content)
        for offset in range(0, len(hidden), entry_bytes):
            pid = int.from_bytes(hidden[offset : offset + 4], "little")
            hidden[offset : offset + 4] = self._pseudonyms.pid(pid).to_bytes(4, "little")
        return bytes(hidden)

    def _content(self, name: str, memory: Memory) -> bytes:
        content = bytearray(memory.read())
        for place in memory.places:
            part = slice(place.offset, place.offset + place.size)
            content[part] = self._told(name, place.kind, bytes(content[part]))
        return bytes(content)

    def _told(self, name: str, kind: Kind, part: bytes) -> bytes:
        """What is written for a place that needs care."""
        number, size = int.from_bytes(part, "little"), len(part)
        if kind is Kind.HANDLE:
            return self._handles.given(name, number).to_bytes(size, "little")
        if kind in (Kind.DRIVERS_TEXT, Kind.CALLERS_MEMORY):
            return bytes(size)
        if kind is Kind.TEXT:
            told = self._text(name, part.partition(b"\0")[0].decode(errors="replace")).encode()
            return told[:size].ljust(size, b"\0")
        if self._pseudonyms is None:
            return part
        if kind is Kind.PID:
            return self._pseudonyms.pid(number).to_bytes(size, "little")
        return self._pseudonyms.identity(part)

    def _text(self, name: str, text: str) -> str:
        return self._pseudonyms.text(name, text) if self._pseudonyms else text


class RecordedLibrary:
    """Stands in the library's place. A function that the library lacks is one that this one lacks."""

    def __init__(self, library: Any, recorder: Recorder) -> None:
        self._library = library
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        return function if name in _UNRECORDED else _RecordedFunction(name, function, self._recorder)

    def close(self) -> None:
        close_library(self._library)


class _RecordedFunction:
    """A function pointer; what a caller declares of its arguments and its result holds for the real one."""

    _call: Callable[[tuple[Any, ...]], int]
    _function: Any

    def __init__(self, name: str, function: Any, recorder: Recorder) -> None:
        self.__dict__.update(_call=partial(recorder.call, name, function), _function=function)

    def __call__(self, *arguments: Any) -> int:
        return self._call(arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)


def _answers(words: str, heard: _Heard, numbers: dict[bytes | None, int]) -> Answers:
    """As it is written; `numbers` gives each content its number."""
    return Answers(
        question=words,
        ticks=[later - earlier for earlier, later in pairwise([0, *heard.ticks])],
        at_us=heard.at_us,
        took_us=heard.took_us,
        codes=heard.codes if any(heard.codes) else [],
        content=[[_number(content, numbers) for content in one] for one in heard.content],
    )


def _number(content: bytes | None, numbers: dict[bytes | None, int]) -> int:
    return numbers.setdefault(content, len(numbers) - 1)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _memory_kib(proc_folder: Path) -> tuple[int, int] | None:
    try:
        memory = proc.meminfo_bytes(str(proc_folder))
        return memory["MemTotal"] // 1024, memory["MemAvailable"] // 1024
    except proc.UNREADABLE:
        return None


class RecordingProbe:
    """A `GpuProbe` whose driver is recorded. One at a time in a process, as nvidia-ml-py knows one library.

    Args:
        interval_s: Time between two reads.
        keep_identities: Keep UUIDs, serial numbers, names and pids as they are.
        proc: Where /proc is.
        sys: Where /sys is.
    """

    name = "gpu"

    def __init__(
        self,
        *,
        interval_s: float,
        keep_identities: bool = False,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
    ) -> None:
        self._interval_s = interval_s
        self._recorder = Recorder(None if keep_identities else Pseudonyms(), proc_folder=proc)
        self._probe = GpuProbe(interval_s=interval_s, proc=proc, sys=sys, kernel_log=NO_KERNEL_LOG)
        self._began = datetime.now(UTC)
        self._known: dict[int, Mapping[str, Any]] = {}
        self._identities: Literal["kept", "replaced"] = "kept" if keep_identities else "replaced"
        LIBRARY.opened = self._recorder.open

    def read(self, now: Now) -> Sequence[Event]:
        with self._recorder.tick(now):
            events = self._probe.read(now)
        for event in events:
            if event.kind == "inventory" and event.values["subject"] == "gpu":
                self._known[event.values["gpu_index"]] = event.values
        return events

    def status(self) -> str:
        return self._probe.status()

    @property
    def has_seen_gpus(self) -> bool:
        return bool(self._known)

    def close(self) -> None:
        self._probe.close()
        LIBRARY.opened = installed_library

    def recording(self, *, load: str, gpuledger_version: str) -> Recording:
        """What was recorded until now.

        Args:
            load: What the GPUs were doing, in words.
            gpuledger_version: For the label.

        Raises:
            NoDataError: No GPU told what it is.
        """
        if not self._known:
            raise NoDataError(f"There is nothing to record ({self.status()})", "run it where 'nvidia-smi' lists GPUs")
        inventory = [values for _, values in sorted(self._known.items())]
        return self._recorder.recording(
            Label(
                machine="stand-in" if self._recorder.is_stand_in else "hardware",
                gpus=[values.get("name", "unknown") for values in inventory],
                driver_version=inventory[0].get("driver_version", "unknown"),
                nvml_version=inventory[0].get("nvml_version", "unknown"),
                pynvml_version=version("nvidia-ml-py"),
                gpuledger_version=gpuledger_version,
                architecture=platform.machine(),
                recorded_at=self._began.isoformat(timespec="seconds"),
                duration_s=self._recorder.duration_s + self._interval_s,
                interval_s=self._interval_s,
                load=load,
                identities=self._identities,
            )
        )


def record(probe: RecordingProbe, clock: Clock, *, seconds: float, interval_s: float) -> None:
    """Let the probe look so long, or until Ctrl-C; once where there is no GPU."""
    stop = threading.Event()
    next_s = clock.now().monotonic_s
    end_s = next_s + seconds
    with suppress(KeyboardInterrupt):
        while next_s < end_s:
            probe.read(clock.now())
            if not probe.has_seen_gpus:
                return
            next_s += interval_s
            clock.wait_until(next_s, stop)
