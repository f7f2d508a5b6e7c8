"""The one throat to NVIDIA's driver: every NVML call goes through `Nvml`.

On top of nvidia-ml-py (import name pynvml). A call gives a value or raises one of two: `Absent`, with the reason
that belongs beside the NULL, or `DriverAway`, when there is nobody to ask. Facts used here:

- pynvml's error class is unhashable, so errors are told apart by their number.
- Newer names replace older ones (TemperatureV, ClocksEventReasons); an older driver lacks the new symbol, and an
  older nvidia-ml-py the new name, so a call may have a second name to fall back on.
- pynvml's wrappers build their structs anew at each call, and reading a member of one goes through Python: 54 µs for
  40 field values, 60 µs for 50 samples. What is asked at every tick is a `Call` instead: the function pointer and the
  memory for its answer, kept; 1 to 3 µs.
- nvmlShutdown leaves the library mapped, so after a driver upgrade every nvmlInit fails with a version mismatch
  until the old mapping is gone.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import Any, Literal, NewType

import pynvml

from collector.gpu.driver_library import LIBRARY, mapped_files
from store.events import AbsenceReason

Handle = NewType("Handle", object)
ALL_LINKS = 0xFFFFFFFF

_NOT_SUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,  # a sensor or clock domain that this device does not know
    }
)
_LOST = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND})
_DRIVER_AWAY = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_AWAY_WORDS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver library (libnvidia-ml.so.1) on this machine",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA kernel driver is not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA library and kernel driver are of different versions; "
    "reload the module or reboot, recording resumes by itself",
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not talk to the NVIDIA driver",
}
_NOT_AVAILABLE = frozenset(
    {pynvml.NVML_VALUE_NOT_AVAILABLE_uint.value, pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value}
)


class Absent(Exception):  # noqa: N818 - not an error: the answer to a question is that there is no value
    """The driver has no value to give; `reason` says why, `code` what NVML returned where it was asked."""

    def __init__(self, reason: AbsenceReason, code: int | None = None) -> None:
        self.reason = reason
        self.code = code
        super().__init__(reason.value)


class DriverAway(Exception):  # noqa: N818 - a state of the machine that passes
    """There is no driver to ask: not installed, not loaded, or replaced under us."""


class LibraryKept(DriverAway):
    """The driver was replaced, and its old library stays mapped: only a new process gets rid of it."""


def absence_reason(code: int) -> AbsenceReason:
    """The reason that stands beside the NULL for an NVML return code."""
    if code in _NOT_SUPPORTED:
        return AbsenceReason.NOT_SUPPORTED
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return AbsenceReason.NO_PERMISSION
    if code in _LOST:
        return AbsenceReason.LOST
    return AbsenceReason.NO_DATA


class Nvml:
    """A session with the driver.

    Raises:
        DriverAway: There is none; the message says why, for a person.
    """

    def __init__(self) -> None:
        try:
            LIBRARY.begin()
        except pynvml.NVMLError as error:
            LIBRARY.unmap()
            is_kept = error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH and mapped_files()
            away = LibraryKept if is_kept else DriverAway
            raise away(_AWAY_WORDS.get(error.value, f"NVML cannot be initialised ({error})")) from None

    def ask(self, names: str | tuple[str, ...], *arguments: Any, **options: Any) -> Any:
        """Call the first of `names` that the driver knows.

        Raises:
            Absent: No value, with the reason.
            DriverAway: The driver is gone.
        """
        *newer, last = (names,) if isinstance(names, str) else names
        for name in newer:
            try:
                return _call(_bound(name), *arguments, **options)
            except Absent as absent:
                if absent.reason is not AbsenceReason.NOT_SUPPORTED:
                    raise
        return _call(_bound(last), *arguments, **options)

    def close(self) -> None:
        """End the session and unmap the library."""
        LIBRARY.end()


def address(handle: Any) -> int | None:
    """What a handle points to: the same for all handles of one device in one session."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _bound(name: str) -> Callable[..., Any]:
    """nvidia-ml-py's function of that name; an older one lacks the newer names, as an older driver does."""
    function: Callable[..., Any] | None = getattr(pynvml, name, None)
    if function is None:
        raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    return function


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    thread = get_ident()
    LIBRARY.calls[thread] = function  # in line: in a function of its own it costs 1 µs more a call
    try:
        answer = function(*arguments, **options)
    except pynvml.NVMLError as error:
        refuse(error.value)
        raise
    finally:
        del LIBRARY.calls[thread]
    # Some of pynvml's functions forget to decode what they give.
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def refuse(code: int) -> None:
    """Raise what an NVML return code stands for; nothing for 0.

    Raises:
        Absent: No value, with the reason.
        DriverAway: The driver is gone.
    """
    if code == pynvml.NVML_SUCCESS:
        return
    if code in _DRIVER_AWAY:
        raise DriverAway(_AWAY_WORDS.get(code, "the NVIDIA driver went away")) from None
    raise Absent(absence_reason(code), code) from None


class Call:
    """One of the driver's functions with its arguments, made as often as wanted.

    Args:
        name: The symbol, with its version.
        arguments: As ctypes takes them: handles, ctypes values, `byref` of the memory that takes the answer.
    """

    __slots__ = ("_arguments", "_function", "_name")

    def __init__(self, name: str, *arguments: Any) -> None:
        self._name = name
        self._arguments = arguments
        self._function: Callable[..., int] | None = None

    def __call__(self) -> None:
        """Make the call.

        Raises:
            Absent: The driver did not answer, with the reason.
            DriverAway: The driver is gone.
        """
        if code := self.code():
            refuse(code)

    def code(self) -> int:
        """Make the call and give NVML's return code, for a caller to whom not only 0 is an answer."""
        if self._function is None:
            self._function = _call(pynvml._nvmlGetFunctionPointer, self._name)  # noqa: SLF001 - its cache is ours too
        thread = get_ident()
        LIBRARY.calls[thread] = self._function  # in line: in a function of its own it costs 1 µs more a call
        try:
            return self._function(*self._arguments)
        finally:
            del LIBRARY.calls[thread]


def plain(structure: type[ctypes.Structure]) -> type[Any]:
    """A structure of pynvml's layout whose members are read at C's speed, not through pynvml's `__getattribute__`."""
    return type(structure.__name__, (ctypes.Structure,), {"_fields_": structure._fields_})


def numbers(value_type: int, records: memoryview, record_bytes: int, offset: int) -> Sequence[float | AbsenceReason]:
    """NVML's value unions, one in each record, by the type of all of them; a reason for each that holds no value."""
    word = _VALUE_FORMATS.get(value_type)
    if word is None:
        return [AbsenceReason.NOT_SUPPORTED] * (len(records) // record_bytes)  # a type of a later driver
    size = struct.calcsize(word)
    values: Sequence[float] = records.cast(word)[offset // size :: record_bytes // size].tolist()
    if _NOT_AVAILABLE.isdisjoint(values):
        return values
    return [AbsenceReason.NO_DATA if value in _NOT_AVAILABLE else value for value in values]


_VALUE_FORMATS: Mapping[int, Literal["d", "I", "L", "Q", "q", "i", "H"]] = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "d",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "I",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "L",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "Q",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "q",
    5: "i",  # signed int and unsigned short: an older nvidia-ml-py has no names for them
    6: "H",
}
"""NVML's value types and what `struct` calls them."""


class FieldBatch:
    """A fixed set of field values of one GPU, asked for in one call into memory that is kept.

    Args:
        device: The GPU.
        fields: Field id and scope of each.
    """

    def __init__(self, device: Handle, fields: Sequence[tuple[int, int]]) -> None:
        question = struct.Struct("=IIqqII8s")  # as c_nvmlFieldValue_t: id, scope, time, latency, type, code, value
        empty = (0, 0, 0, pynvml.NVML_ERROR_UNKNOWN, bytes(8))
        self._question = b"".join(question.pack(field_id, scope, *empty) for field_id, scope in fields)
        self._memory = ctypes.create_string_buffer(self._question, len(self._question))
        self._call = Call("nvmlDeviceGetFieldValues", device, len(fields), self._memory)
        self._expect((0,) * len(fields))
        self.sampled_at_us: int | None = None
        """The driver's time of the newest value read last, microseconds UTC; None where it gives none."""

    def read(self) -> tuple[Sequence[int], Sequence[float | AbsenceReason]]:
        """NVML's return code for each field, and its value or why it has none.

        Raises:
            Absent: The GPU answered none of them, with the reason.
            DriverAway: The driver is gone.
        """
        # A slot that the driver leaves as it is must not look like an answer of the tick before.
        ctypes.memmove(self._memory, self._question, len(self._question))
        self._call()
        told = self._layout.unpack_from(self._memory)
        if told[1::4] != self._types:  # once: a field keeps its type, and one look at the memory takes all fields
            self._expect(told[1::4])
            told = self._layout.unpack_from(self._memory)
        codes, values = told[2::4], told[3::4]
        self.sampled_at_us = max(told[0::4]) or None  # the question says 0, and so does a field that failed
        if not any(codes) and _NOT_AVAILABLE.isdisjoint(values) and self._are_known:
            return codes, values
        return codes, list(map(_value_or_reason, self._types, codes, values))

    def _expect(self, types: tuple[int, ...]) -> None:
        """Be ready for values of these types."""
        self._types = types
        self._are_known = set(types) <= _VALUE_FORMATS.keys()
        words = [_VALUE_FORMATS.get(value_type, "Q") for value_type in types]
        slots = "".join(f"8xq8xII{word}{8 - struct.calcsize(word)}x" for word in words)
        self._layout = struct.Struct("=" + slots.replace("L", "Q"))


def _value_or_reason(value_type: int, code: int, value: float) -> float | AbsenceReason:
    if code:
        return absence_reason(code)
    if value_type not in _VALUE_FORMATS:
        return AbsenceReason.NOT_SUPPORTED  # a type of a later driver
    return AbsenceReason.NO_DATA if value in _NOT_AVAILABLE else value
