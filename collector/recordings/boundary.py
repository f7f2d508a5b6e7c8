"""What crosses the boundary between nvidia-ml-py and the driver's library, put so that another process can read it.

A call is C: a name, numbers, and addresses of memory that the library writes. Here each call becomes a question in
words (`nvmlDeviceGetClockInfo(h1, 1, *)`) and the memory that its answer is written to; recorder and replay share that,
so that both understand a call alike, whoever makes it and however.

- A handle is an address of one process. It is replaced by a number of our own, in the order in which they were given.
- What says until when the caller knows everything, or how much room it has, is no part of the question: it is another
  one at each call, and with a later collector.
- Fields and GPM metrics are asked for in batches. Each is a question of its own, so that a recording goes on answering
  a collector that asks for one more.
- Memory that is passed as a bare number cannot be told from one; whoever calls passes ctypes objects.
"""

import ctypes
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

HANDLE_BASE = 0x4E56_4D4C_0000  # no number that is passed to the driver is as large, but a time
HANDLES_MAX = 0x10000
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
_Pointer: Any = ctypes.POINTER(ctypes.c_int).__mro__[1]
_Number: Any = ctypes.c_int.__mro__[1]
_Reference: Any = type(ctypes.byref(ctypes.c_int()))

_VERSION = re.compile(r"_v\d+$")
_SEEN_ALREADY: Mapping[str, int] = {"nvmlDeviceGetSamples": 2, "nvmlDeviceGetProcessUtilization": 3}
"""The argument that says until when the caller knows everything."""
_INPUTS: Mapping[str, tuple[str, ...]] = {
    "nvmlDeviceGetTemperatureV": ("sensorType",),
    "nvmlDeviceGetClockOffsets": ("type", "pstate"),
    "nvmlDeviceGetRunningProcessDetailList": ("mode",),
}
"""The fields of a structure that say what is asked for; left out where they are 0."""
_COUNTED: Mapping[str, str] = {"procUtilArray": "processSamplesCount", "procArray": "numProcArrayEntries"}
"""The field of a structure that points to the caller's entries, and the one that says how many."""
_WITHOUT_IDENTITY = frozenset({"nvmlEventSetCreate", "nvmlGpmSampleAlloc"})
"""Who gives handles that stand for memory of the caller's own and not for something of the machine."""


class Kind(Enum):
    """What a place in memory holds that means nothing, or too much, in another process."""

    HANDLE = auto()
    DRIVERS_TEXT = auto()  # the address of a text of the library's
    CALLERS_MEMORY = auto()  # an address that the caller has put there
    TEXT = auto()
    IDENTITY = auto()  # bytes
    PID = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """One such place, in bytes from the beginning."""

    offset: int
    size: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the caller's that the library may write."""

    address: int
    type: Any

    @property
    def size(self) -> int:
        return ctypes.sizeof(self.type)

    def read(self) -> bytes:
        return ctypes.string_at(self.address, self.size)

    def write(self, content: bytes) -> None:
        """As much as there is room for; an address that the caller has put there stays."""
        kept = [(place, self.pointer(place.offset)) for place in self.places if place.kind is Kind.CALLERS_MEMORY]
        ctypes.memmove(self.address, content, min(len(content), self.size))
        for place, address in kept:
            ctypes.c_void_p.from_address(self.address + place.offset).value = address

    def pointer(self, offset: int) -> int | None:
        return ctypes.c_void_p.from_address(self.address + offset).value

    @property
    def count(self) -> int:
        """The number that stands at its beginning."""
        return ctypes.c_uint.from_address(self.address).value

    @property
    def places(self) -> tuple[Place, ...]:
        return places(self.type)


@lru_cache(maxsize=512)
def places(of: Any) -> tuple[Place, ...]:
    """Where in memory of that type is what needs care."""
    return tuple(_places(of, 0, ""))


def _places(of: Any, offset: int, name: str) -> Iterator[Place]:
    size = ctypes.sizeof(of)
    if issubclass(of, ctypes.Structure):
        for field, kind, *_ in of._fields_:
            yield from _places(kind, offset + getattr(of, field).offset, field)
    elif issubclass(of, ctypes.Array):
        if of._type_ is ctypes.c_char:
            yield Place(offset, size, Kind.TEXT)
        elif of._type_ is ctypes.c_ubyte and re.search(r"uuid|guid|serial", name, re.IGNORECASE):
            yield Place(offset, size, Kind.IDENTITY)
        else:
            each, inner = ctypes.sizeof(of._type_), tuple(_places(of._type_, 0, name))
            yield from (Place(offset + n * each + p.offset, p.size, p.kind) for n in range(of._length_) for p in inner)
    elif issubclass(of, _Pointer):
        yield Place(offset, size, Kind.HANDLE if _is_opaque(of) else Kind.CALLERS_MEMORY)
    elif of is ctypes.c_void_p:
        yield Place(offset, size, Kind.HANDLE)
    elif of is ctypes.c_char_p:
        yield Place(offset, size, Kind.DRIVERS_TEXT)
    elif name == "pid":
        yield Place(offset, size, Kind.PID)


def _is_opaque(pointer: Any) -> bool:
    return issubclass(pointer._type_, ctypes.Structure) and not getattr(pointer._type_, "_fields_", None)


def memory_of(argument: Any) -> Memory | None:
    """The memory that an argument points to; None where it is a value."""
    if isinstance(argument, _Reference):
        return _referred(argument._obj, ctypes.cast(argument, ctypes.c_void_p).value or 0)  # noqa: SLF001 - no other way
    if isinstance(argument, ctypes.Array | ctypes.Structure):
        return Memory(ctypes.addressof(argument), type(argument))
    if isinstance(argument, _Pointer) and not _is_opaque(type(argument)):
        address = ctypes.cast(argument, ctypes.c_void_p).value
        return Memory(address, type(argument)._type_) if address else None
    return None


def _referred(whole: Any, address: int) -> Memory:
    """What `byref` points to, which may have an offset into an array."""
    skipped = address - ctypes.addressof(whole)
    if not skipped:
        return Memory(address, type(whole))
    entry: Any = type(whole)._type_ if isinstance(whole, ctypes.Array) else ctypes.c_ubyte
    return Memory(address, entry * ((ctypes.sizeof(whole) - skipped) // ctypes.sizeof(entry)))


def value_of(argument: Any) -> Any:
    """The number or the text that an argument is; None for NULL."""
    if isinstance(argument, _Pointer):
        return ctypes.cast(argument, ctypes.c_void_p).value
    value = argument.value if isinstance(argument, _Number) else argument
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class Listing:
    """A call that fills an array, and says how many entries there are where there is none or too little room.

    Args:
        count: Which argument is the count: room before the call, entries after it.
        array: Which one is the array.
        entry_bytes: Size of an entry.
        has_pids: Whether an entry begins with a pid.
        size_is_success: Whether asking without an array succeeds; else the answer is INSUFFICIENT_SIZE.
    """

    count: int
    array: int
    entry_bytes: int
    has_pids: bool = True
    size_is_success: bool = False


_LISTINGS: Mapping[str, Listing] = {
    **{
        f"nvmlDeviceGet{kind}RunningProcesses_v{version}": Listing(1, 2, 24)
        for kind in ("Compute", "Graphics", "MPSCompute")
        for version in (2, 3)
    },
    "nvmlDeviceGetProcessUtilization": Listing(2, 1, 32),
    "nvmlDeviceGetSamples": Listing(4, 5, 16, has_pids=False, size_is_success=True),
}


def listing(name: str) -> Listing | None:
    return _LISTINGS.get(name)


@dataclass(frozen=True, slots=True)
class Entry:
    """One question of a batch.

    Args:
        question: In words, the batch's question before it.
        memory: Where its answer is written; the question stands there too.
        code_offset: Where in it the answer's own return code is.
    """

    question: str
    memory: Memory
    code_offset: int


def batch(name: str, asked: "Question") -> list[Entry] | None:
    """The questions of a call that asks many at once; None of one that does not."""
    if plain(name) == "nvmlDeviceGetFieldValues":
        count, array = value_of(asked.arguments[1]), asked.memory[2]
        address = array.address if array else 0
        return _entries(asked.words, address, count if array else 0, key_words=2, answer_bytes=40, code_offset=28)
    if plain(name) == "nvmlGpmMetricsGet" and (metrics := asked.memory[0]):
        count = ctypes.c_uint.from_address(metrics.address + 4).value
        return _entries(asked.words, metrics.address + 24, count, key_words=1, answer_bytes=16, code_offset=4)
    return None


def _entries(
    words: str, address: int, count: int, *, key_words: int, answer_bytes: int, code_offset: int
) -> list[Entry]:
    """Both batches have entries of 40 bytes that begin with what is asked for."""
    keys = [(ctypes.c_uint * key_words).from_address(address + 40 * number) for number in range(count)]
    return [
        Entry(
            f"{words}[{':'.join(map(str, key))}]",
            Memory(address + 40 * number, ctypes.c_ubyte * answer_bytes),
            code_offset,
        )
        for number, key in enumerate(keys)
    ]


def plain(name: str) -> str:
    """A function's name without its version."""
    return _VERSION.sub("", name)


class Handles:
    """Handles as numbers of our own, and as words.

    A GPM sample is known by the GPU that it was taken of: which of a caller's samples it is says nothing.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._words: dict[int, str] = {}

    def given(self, name: str, address: int) -> int:
        """Our number for a handle that the driver has given in a call of that name; NULL stays NULL."""
        if not address:
            return 0
        number = self._numbers.setdefault(address, HANDLE_BASE + len(self._numbers) + 1)
        self.replayed(name, address, number)
        return number

    def replayed(self, name: str, address: int, number: int) -> None:
        """Know a handle that has its number already."""
        self._words[address] = "_" if plain(name) in _WITHOUT_IDENTITY else f"h{number - HANDLE_BASE}"

    def words(self, address: int) -> str | None:
        return self._words.get(address)

    def taken_of(self, sample: int, words: str) -> None:
        self._words[sample] = f"_{words}"


@dataclass(frozen=True, slots=True)
class Question:
    """A call: what it asks in words, and for each argument the memory that it points to.

    Entries that a structure points to come after the arguments.
    """

    words: str
    arguments: tuple[Any, ...]
    memory: tuple[Memory | None, ...]


def question(name: str, arguments: tuple[Any, ...], handles: Handles, spelled: Callable[[str], str] = str) -> Question:
    """What a call asks; to be taken before it is made, as the library overwrites what stands there.

    Args:
        name: The function.
        arguments: As they are passed.
        handles: The handles that were given until now.
        spelled: How a text that is passed is put into words.
    """
    memory = [memory_of(argument) for argument in arguments]
    beside = [entries for one in memory if one and (entries := _counted(one))]
    words = [
        _words(name, number, argument, memory[number], handles, spelled) for number, argument in enumerate(arguments)
    ]
    if plain(name) == "nvmlGpmMetricsGet" and memory[0]:
        words = [(handles.words(memory[0].pointer(16) or 0) or "_").removeprefix("_")]
    elif plain(name) == "nvmlDeviceGetFieldValues":
        words = words[:1]
    elif plain(name) in ("nvmlGpmSampleGet", "nvmlGpmMigSampleGet"):
        handles.taken_of(value_of(arguments[-1]) or 0, "/".join(words[:-1]))
    return Question(f"{name}({', '.join([*words, *('+' for _ in beside)])})", arguments, (*memory, *beside))


def _words(
    name: str,
    number: int,
    argument: Any,
    memory: Memory | None,
    handles: Handles,
    spelled: Callable[[str], str],
) -> str:
    base, filled = plain(name), listing(name)
    if base == "nvmlEventSetWait" or number == _SEEN_ALREADY.get(base):
        return "_"
    if memory or (filled and number in (filled.count, filled.array)):
        inputs = (f"{field}={number}" for field in _INPUTS.get(base, ()) if (number := _field(memory, field)))
        return " ".join(["*", *inputs])
    value = value_of(argument)
    if isinstance(value, int) and (handle := handles.words(value)) is not None:
        return handle[:1] if handle.startswith("_") else handle
    if value is None or isinstance(argument, _Pointer | ctypes.c_void_p):
        return "null" if value is None else "_"
    return json.dumps(spelled(value) if isinstance(value, str) else value)


def _field(memory: Memory | None, field: str) -> int:
    if memory is None or not issubclass(memory.type, ctypes.Structure):
        return 0
    number: int = getattr(memory.type.from_address(memory.address), field, 0)
    return number


def _counted(memory: Memory) -> Memory | None:
    """The entries that a structure points to."""
    if not issubclass(memory.type, ctypes.Structure):
        return None
    for field, kind, *_ in memory.type._fields_:
        if field in _COUNTED and (address := memory.pointer(getattr(memory.type, field).offset)):
            return Memory(address, kind._type_ * _field(memory, _COUNTED[field]))
    return None
