"""The one throat to NVIDIA's driver: every NVML call goes through `Nvml`.

On top of nvidia-ml-py (import name pynvml). A call gives a value or raises one of two: `Absent`, with the reason
that belongs beside the NULL, or `DriverAway`, when there is nobody to ask. Facts used here:

- pynvml's error class is unhashable, so errors are told apart by their number.
- Newer names replace older ones (TemperatureV, ClocksEventReasons); an older driver lacks the new symbol, and an
  older nvidia-ml-py the new name, so a call may have a second name to fall back on.
- pynvml's own nvmlDeviceGetFieldValues builds its array anew and catches a TypeError per field, 54 µs for 40
  fields; an array kept from tick to tick and a cached function pointer take 1 to 3 µs.
- nvmlShutdown leaves the library mapped, so after a driver upgrade every nvmlInit fails with a version mismatch
  until the old mapping is gone.
"""

import ctypes
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, NewType

import pynvml

from collector.driver_library import LIBRARY, mapped_files
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
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


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
        LIBRARY.end()


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
        return function(*arguments, **options)
    except pynvml.NVMLError as error:
        if error.value in _DRIVER_AWAY:
            raise DriverAway(_AWAY_WORDS.get(error.value, "the NVIDIA driver went away")) from None
        raise Absent(absence_reason(error.value), error.value) from None
    finally:
        del LIBRARY.calls[thread]


def union_value(value_type: int, value: Any) -> int | float | AbsenceReason:
    """The member of an NVML value union that its type names, or why it is none."""
    if value_type >= len(_VALUE_MEMBERS):
        return AbsenceReason.NOT_SUPPORTED  # a type of a later driver
    number: int | float = getattr(value, _VALUE_MEMBERS[value_type])
    return number if number not in _NOT_AVAILABLE else AbsenceReason.NO_DATA


class FieldBatch:
    """A fixed set of field values, asked for in one call into memory that is kept.

    Args:
        fields: Field id and scope of each.
    """

    def __init__(self, fields: Sequence[tuple[int, int]]) -> None:
        self._array = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for slot, (field_id, scope) in zip(self._array, fields, strict=True):
            slot.fieldId, slot.scopeId, slot.nvmlReturn = field_id, scope, pynvml.NVML_ERROR_UNKNOWN
        self._question = bytes(self._array)

    def read(self, device: Handle) -> list[int | float | AbsenceReason]:
        """The value of each field on that GPU, or why it has none.

        Raises:
            Absent: The GPU answered none of them, with the reason.
            DriverAway: The driver is gone.
        """
        # A slot that the driver leaves as it is must not look like an answer, let alone another GPU's.
        ctypes.memmove(self._array, self._question, len(self._question))
        _call(self._ask, device)
        return [self._value(slot) for slot in self._array]

    def _ask(self, device: Handle) -> None:
        function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")  # noqa: SLF001 - cached by pynvml
        LIBRARY.calls[get_ident()] = function  # by its own name
        pynvml._nvmlCheckReturn(function(device, len(self._array), ctypes.byref(self._array)))  # noqa: SLF001

    @staticmethod
    def _value(slot: Any) -> int | float | AbsenceReason:
        if slot.nvmlReturn != pynvml.NVML_SUCCESS:
            return absence_reason(slot.nvmlReturn)
        return union_value(slot.valueType, slot.value)

    @property
    def sampled_at_us(self) -> int | None:
        """The driver's time of the newest value read last, microseconds UTC; None where it gives none."""
        return max((slot.timestamp for slot in self._array if slot.nvmlReturn == 0), default=0) or None
