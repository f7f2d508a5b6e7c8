"""A recording of a driver's answers, as a file that people can send.

The file is gzip around one msgpack map. Answers stand by question, in the order in which they came, each with the tick
at which it was given, and what is the same in several of them stands once: so neighbours are alike, and a minute of two
GPUs takes 42 kB (xz would make 22 kB of it; it is not in every Python).
"""

import gzip
import zlib
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from store.errors import UsageError
from store.files import publish_file

NO_KERNEL_LOG = Path("/dev/null")  # of the log nothing is recorded, and that of the machine that replays is another's
FORMAT = "gpuledger NVML recording"
VERSION = 1
_GZIP = b"\x1f\x8b"
DECODED_BYTES_MAX = 256 * 2**20  # a file that is sent by anybody may claim to be anything


class RecordingError(UsageError):
    """A file that is no recording, or none that can be replayed."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording is of.

    Args:
        machine: A machine with an NVIDIA driver, or the stand-in that the project's tests have.
        gpus: Their product names, by index.
        driver_version: Of the NVIDIA driver.
        nvml_version: Of its library.
        pynvml_version: Of nvidia-ml-py, which made most of the calls.
        gpuledger_version: Of the recorder.
        architecture: Of the CPU, as uname says it.
        recorded_at: When it began, ISO 8601, UTC.
        duration_s: How long it is.
        interval_s: Time between two ticks.
        load: What the GPUs were doing, in words of whoever recorded it.
        identities: Whether UUIDs, serial numbers, names and pids are the machine's own.
    """

    machine: Literal["hardware", "stand-in"]
    gpus: list[str]
    driver_version: str
    nvml_version: str
    pynvml_version: str
    gpuledger_version: str
    architecture: str
    recorded_at: str
    duration_s: float
    interval_s: float
    load: str
    identities: Literal["replaced", "kept"]

    def __str__(self) -> str:
        counts = {name: self.gpus.count(name) for name in self.gpus}
        gpus = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items())
        stand_in = " (the stand-in of the tests, no hardware)" if self.machine == "stand-in" else ""
        return f"{self.duration_s:g} s of {gpus}{stand_in}, driver {self.driver_version}, {self.load}"


class Tick(msgspec.Struct, frozen=True, array_like=True):
    """One look of the collector at all GPUs.

    Args:
        at_us: When it began, since the first one, on the collector's clock.
        took_us: How long it took.
        memory_kib: The host's, total and available: a GPU that shares it tells none of its own.
    """

    at_us: int
    took_us: int
    memory_kib: tuple[int, int] | None


class Answers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All answers to one question.

    Args:
        question: In words, as `collector.recordings.boundary` puts it.
        ticks: The tick of each answer, as its distance from that of the answer before.
        at_us: When it was asked, since the tick began in which it was answered; empty for one of a batch, whose time is
            the batch's.
        took_us: How long the driver took.
        codes: What NVML returned; empty where it was always success.
        content: For each memory that was written the number of what was written there, -1 for nothing.
    """

    question: str
    ticks: list[int]
    at_us: list[int] = []
    took_us: list[int] = []
    codes: list[int] = []
    content: list[list[int]]

    def tick_numbers(self) -> list[int]:
        return list(accumulate(self.ticks))

    def code(self, number: int) -> int:
        return self.codes[number] if self.codes else 0


class Recording(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a driver answered."""

    format: str = FORMAT
    version: int = VERSION
    label: Label
    ticks: list[Tick]
    contents: list[bytes]
    answers: list[Answers]

    @cached_property
    def functions(self) -> frozenset[str]:
        """The functions that were asked."""
        return frozenset(answers.question.partition("(")[0] for answers in self.answers)

    @property
    def call_count(self) -> int:
        return sum(len(answers.at_us) for answers in self.answers)

    def flaws(self) -> Iterator[str]:
        """What cannot be in a recording that was written here."""
        if not self.ticks:
            yield "it has no ticks"
        if any(later.at_us < tick.at_us for tick, later in zip(self.ticks, self.ticks[1:], strict=False)):
            yield "its time goes backwards"
        for answers in self.answers:
            count, ticks = len(answers.content), answers.tick_numbers()
            lengths = {len(some) for some in (answers.at_us, answers.took_us, answers.codes) if some}
            if not ticks or len(ticks) != count or lengths - {count}:
                yield f"the answers to {answers.question} do not belong together"
            elif min(answers.ticks) < 0 or ticks[-1] >= len(self.ticks):
                yield f"an answer to {answers.question} is of no tick"
            elif any(not -1 <= number < len(self.contents) for one in answers.content for number in one):
                yield f"an answer to {answers.question} is missing"


class _Head(msgspec.Struct):
    """What says whether the rest can be understood."""

    format: str
    version: int


def write_recording(path: Path, recording: Recording) -> int:
    """Write the file, whole or not at all; its size in bytes.

    Raises:
        RecordingError: It cannot be written there.
    """
    body = gzip.compress(msgspec.msgpack.encode(recording), compresslevel=9, mtime=0)
    try:
        publish_file(path, lambda temporary: _fill(temporary, body))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RecordingError(f"The recording {path} cannot be written ({reason})", "name another file") from None
    return len(body)


def _fill(path: Path, body: bytes) -> None:
    path.write_bytes(body)


def read_recording(path: Path) -> Recording:
    """Read a recording that anybody may have written.

    Raises:
        RecordingError: There is none, it cannot be read, or it is damaged.
    """
    body = _body(path)
    try:
        head = msgspec.msgpack.decode(body, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        head = _Head("", 0)
    if head.format != FORMAT:
        raise RecordingError(f"{path} is no NVML recording", "make one with 'gpuledger record-nvml'")
    if head.version > VERSION:
        raise RecordingError(f"The recording {path} was made by a later gpuledger", "bring this one up to date")
    try:
        recording = msgspec.msgpack.decode(body, type=Recording)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error).lower()) from None
    for flaw in recording.flaws():
        raise _damaged(path, flaw)
    return recording


def _body(path: Path) -> bytes:
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise RecordingError(f"There is no recording {path}", "make one with 'gpuledger record-nvml'") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RecordingError(f"The recording {path} cannot be read ({reason})", "name a file that can") from None
    if not packed.startswith(_GZIP):
        raise RecordingError(f"{path} is no NVML recording", "make one with 'gpuledger record-nvml'")
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        body = unpacking.decompress(packed, DECODED_BYTES_MAX)
    except zlib.error as error:
        raise _damaged(path, str(error).lower()) from None
    if unpacking.unconsumed_tail:
        raise RecordingError(f"{path} is no NVML recording: it is too large", "make one with 'gpuledger record-nvml'")
    if not unpacking.eof:
        raise _damaged(path, "its end is missing")
    return body


def _damaged(path: Path, why: str) -> RecordingError:
    return RecordingError(f"The recording {path} is damaged ({why})", "copy it anew, or record again")
