"""The processes on a GPU: what they hold, what they use, who they are."""

import ctypes
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pynvml

from collector.clock import Now
from collector.gpu.attribution import Attributor
from collector.gpu.capabilities import Capability, Ways
from collector.gpu.nvml import Absent, Call, Handle, refuse
from collector.probe import Row
from store.events import AbsenceReason, Event

_NO_INSTANCE = 0xFFFFFFFF  # of a process that is on no MIG device
_NOT_AVAILABLE = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
_ROOM_FIRST = 32
_UTILIZATIONS = (
    "sm_utilization_percent",
    "memory_utilization_percent",
    "encoder_utilization_percent",
    "decoder_utilization_percent",
)
"""In the order of nvmlProcessUtilizationSample_t."""
_IDLE = dict.fromkeys(_UTILIZATIONS, AbsenceReason.NO_DATA)


@dataclass(frozen=True, slots=True)
class ListedProcess:
    """One process as the driver lists it; the memory is None where it does not tell."""

    pid: int
    kind: str
    memory_used_bytes: int | None
    gpu_instance_id: int
    compute_instance_id: int


class ProcessLists:
    """The processes that the driver lists on one GPU or MIG device: computing, drawing and under MPS.

    Args:
        device: The GPU or MIG device.
    """

    _PROCESS = struct.Struct("=I4xQII")  # as c_nvmlProcessInfo_v2_t: pid, memory, GPU and compute instance
    _KINDS: Mapping[str, str] = {"compute": "Compute", "graphics": "Graphics", "mps": "MPSCompute"}

    def __init__(self, device: Handle) -> None:
        # By version: pynvml's name without one raises an error of its own kind on a driver that lacks the newest.
        self._lists = {
            kind: Ways(
                *(self._way(device, kind, f"nvmlDeviceGet{name}RunningProcesses_v{version}") for version in (3, 2))
            )
            for kind, name in self._KINDS.items()
        }
        self.incomplete_because: AbsenceReason | None = None
        """Why `read` knew nothing of a list that this GPU has; None where it knew of all."""

    @property
    def capabilities(self) -> list[Capability]:
        return [capability for ways in self._lists.values() for capability in ways.capabilities]

    def read(self, now: Now) -> Mapping[int, ListedProcess]:
        """By pid; one that is on several lists is of the first's kind. Of a list that fails nothing is known.

        Raises:
            DriverAway: The driver is gone.
        """
        listed: dict[int, ListedProcess] = {}
        self.incomplete_because = None
        for kind, ways in self._lists.items():
            try:
                processes = ways.take(now)
            except Absent as absent:
                if kind == "compute" or absent.reason is not AbsenceReason.NOT_SUPPORTED:
                    self.incomplete_because = self.incomplete_because or absent.reason
                continue
            for process in processes:
                listed.setdefault(process.pid, process)
        return listed

    def memory_used_bytes(self, now: Now) -> int | AbsenceReason:
        """Sum over the processes; one that computes and draws is on two lists, with all its memory on each.

        Raises:
            DriverAway: The driver is gone.
        """
        used: dict[int, int | None] = {}
        for kind, ways in self._lists.items():
            try:
                used |= {process.pid: process.memory_used_bytes for process in ways.take(now)}
            except Absent as absent:
                if kind == "compute" or absent.reason is not AbsenceReason.NOT_SUPPORTED:
                    return absent.reason
        known = [bytes_used for bytes_used in used.values() if bytes_used is not None]
        return sum(known) if len(known) == len(used) else AbsenceReason.NO_DATA

    def _way(self, device: Handle, kind: str, name: str) -> tuple[str, Callable[[], list[ListedProcess]]]:
        records = _Records(self._PROCESS, lambda memory, count: Call(name, device, count, memory))

        def read() -> list[ListedProcess]:
            return [
                ListedProcess(pid, kind, None if memory == _NOT_AVAILABLE else memory, gpu_instance, compute_instance)
                for pid, memory, gpu_instance, compute_instance in records.read()
            ]

        return name, read


class _Records:
    """An array that the driver fills and that grows when it does not do.

    Args:
        record: The layout of one.
        call: Gives the call for an array and a counter of its records.
    """

    def __init__(self, record: struct.Struct, call: Callable[[Any, Any], Call]) -> None:
        self._record = record
        self._make = call
        self._count = ctypes.c_uint()
        self._make_room(_ROOM_FIRST)

    def read(self) -> list[tuple[Any, ...]]:
        self._count.value = self._room
        code = self._call.code()
        while code == pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
            self._make_room(max(2 * self._room, self._count.value))
            self._count.value = self._room
            code = self._call.code()
        refuse(code)
        return list(self._record.iter_unpack(memoryview(self._memory)[: self._count.value * self._record.size]))

    def _make_room(self, count: int) -> None:
        self._room = count
        self._memory = ctypes.create_string_buffer(count * self._record.size)
        self._call = self._make(self._memory, ctypes.byref(self._count))


class GpuProcesses:
    """Reads one `process_sample` per process on one GPU or MIG device.

    Args:
        device: The GPU or MIG device.
        attributor: Who the processes are.
        interval_s: Time between two reads, for `interval_seconds`.
    """

    _SAMPLE = struct.Struct("=I4xQIIII")  # as c_nvmlProcessUtilizationSample_t: pid, time, shares

    def __init__(self, device: Handle, *, attributor: Attributor, interval_s: float) -> None:
        self._attributor = attributor
        self._interval_s = interval_s
        self._lists = ProcessLists(device)
        self._since_us = ctypes.c_ulonglong()
        samples = _Records(
            self._SAMPLE,
            lambda memory, count: Call("nvmlDeviceGetProcessUtilization", device, memory, count, self._since_us),
        )
        self._utilization = Ways(("nvmlDeviceGetProcessUtilization", samples.read))
        self.count: int | AbsenceReason = AbsenceReason.NO_DATA
        """How many there were when they were read last, or why that is not known."""

    @property
    def capabilities(self) -> list[Capability]:
        return [*self._lists.capabilities, *self._utilization.capabilities]

    def read(self, identity: Mapping[str, Any], now: Now) -> list[Event]:
        """The rows; none where the driver lists no processes.

        Args:
            identity: The device's `gpu_uuid` and `gpu_index`.
            now: The time of the rows.

        Raises:
            DriverAway: The driver is gone.
        """
        listed = self._lists.read(now)
        self.count = self._lists.incomplete_because or len(listed)
        shares = self._shares(now) if listed else {}
        return [self._event(identity, process, shares, now) for process in listed.values()]

    def _event(
        self,
        identity: Mapping[str, Any],
        process: ListedProcess,
        shares: Mapping[int, tuple[int, ...]] | AbsenceReason,
        now: Now,
    ) -> Event:
        used = process.memory_used_bytes
        answers = {
            "memory_used_bytes": AbsenceReason.NO_DATA if used is None else used,
            **_utilizations(shares, process.pid),
        }
        row = Row()
        row.put(answers)
        values = {
            **identity,
            "pid": process.pid,
            "process_type": process.kind,
            "interval_seconds": self._interval_s,
            "counter_epoch": 0,  # cpu_seconds is the kernel's: it begins with the process, whose start is in its series
            **_instance(process),
            **self._attributor.describe(process.pid),
            **row.event_values(),
        }
        return Event("process_sample", now.wall_us, values)

    def _shares(self, now: Now) -> Mapping[int, tuple[int, ...]] | AbsenceReason:
        """The newest sample of each process since the last read, by pid; an idle process has none."""
        try:
            samples = self._utilization.take(now)
        except Absent as absent:
            return {} if absent.reason is AbsenceReason.NO_DATA else absent.reason
        seen_us = self._since_us.value
        newest = {
            pid: tuple(shares)
            for pid, sampled_at_us, *shares in sorted(samples, key=lambda sample: sample[1])
            if sampled_at_us > seen_us
        }
        self._since_us.value = max([seen_us, *(sample[1] for sample in samples)])
        return newest


def _utilizations(shares: Mapping[int, tuple[int, ...]] | AbsenceReason, pid: int) -> dict[str, Any]:
    if isinstance(shares, AbsenceReason):
        return dict.fromkeys(_UTILIZATIONS, shares)
    sample = shares.get(pid)
    if sample is None:
        return _IDLE
    # Seen with processes that have just ended: numbers far beyond 100 %.
    return {
        column: share if share <= 100 else AbsenceReason.NO_DATA
        for column, share in zip(_UTILIZATIONS, sample, strict=True)
    }


def _instance(process: ListedProcess) -> dict[str, int]:
    if process.gpu_instance_id == _NO_INSTANCE:
        return {}
    return {
        "mig_gpu_instance_id": process.gpu_instance_id,
        "mig_compute_instance_id": process.compute_instance_id,
    }
