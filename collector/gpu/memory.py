"""The memory of a GPU or MIG device: its own or, where it has none, the host's."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from collector import proc
from collector.clock import Now
from collector.gpu.calls import Reading, filled
from collector.gpu.nvml import Absent, Call, Handle, absence_reason, plain, refuse
from collector.gpu.processes import ProcessLists
from collector.probe import Answers
from store.events import AbsenceReason

_MEMORY_COLUMNS = (
    "memory_kind",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_reserved_bytes",
)


class MemoryReading(Reading):
    """The memory of a GPU or MIG device or, where it has none of its own, the host's.

    A GPU that shares the host's memory says NOT_SUPPORTED, and no other error, or succeeds with a total of 0. The
    newer of the calls tells apart what is reserved; a driver before 510 lacks it and counts that as used.

    Args:
        device: The GPU or MIG device.
        proc_folder: Where /proc is.
    """

    def __init__(self, device: Handle, proc_folder: Path) -> None:
        self._proc_folder = proc_folder
        self._processes = ProcessLists(device)
        self._code = pynvml.NVML_ERROR_UNKNOWN
        self._now: Now
        newer = plain(pynvml.c_nvmlMemory_v2_t)(version=pynvml.nvmlMemory_v2)
        super().__init__(
            _MEMORY_COLUMNS,
            self._dedicated(device, "nvmlDeviceGetMemoryInfo_v2", newer),
            self._dedicated(device, "nvmlDeviceGetMemoryInfo", plain(pynvml.c_nvmlMemory_t)()),
            ("/proc/meminfo", self._unified),
        )

    def answers(self, now: Now) -> Answers:
        self._now = now
        return super().answers(now)

    def _dedicated(self, device: Handle, name: str, memory: Any) -> tuple[str, Callable[[], Answers]]:
        call = Call(name, device, ctypes.byref(memory))

        def read() -> Answers:
            code = call.code()
            is_nothing = code == pynvml.NVML_SUCCESS and not memory.total
            self._code = pynvml.NVML_ERROR_NOT_SUPPORTED if is_nothing else code
            refuse(self._code)
            return {
                "memory_kind": "dedicated",
                "memory_used_bytes": memory.used,
                "memory_total_bytes": memory.total,
                "memory_free_bytes": memory.free,
                "memory_reserved_bytes": getattr(memory, "reserved", AbsenceReason.NOT_SUPPORTED),
            }

        return name, read

    def _unified(self) -> Answers:
        if self._code != pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise Absent(absence_reason(self._code), self._code)
        used = self._processes.memory_used_bytes(self._now)
        return {
            "memory_kind": "unified",
            **_host_memory(self._proc_folder),
            "memory_used_bytes": used,
            "memory_process_bytes": used,
            "memory_free_bytes": AbsenceReason.NOT_SUPPORTED,
            "memory_reserved_bytes": AbsenceReason.NOT_SUPPORTED,
        }


def protected_memory(device: Handle) -> Reading:
    """What a GPU in confidential mode keeps from the host; one in another mode has none."""

    def told(memory: Any) -> Answers:
        if not memory.total:
            raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
        return {"protected_memory_total_bytes": memory.total, "protected_memory_used_bytes": memory.used}

    memory = plain(pynvml.c_nvmlMemory_t)()
    return Reading(
        ("protected_memory_total_bytes", "protected_memory_used_bytes"),
        filled(device, "nvmlDeviceGetConfComputeProtectedMemoryUsage", memory, told),
    )


def _host_memory(proc_folder: Path) -> Answers:
    try:
        memory = proc.meminfo_bytes(str(proc_folder))
        return {"memory_total_bytes": memory["MemTotal"], "memory_available_bytes": memory["MemAvailable"]}
    except proc.UNREADABLE as error:
        return dict.fromkeys(("memory_total_bytes", "memory_available_bytes"), proc.absence_reason(error))
