"""What the driver tells by itself: Xids, ECC errors, P-states, recovery actions, GPUs that became unavailable.

NVML hands events over in a call that blocks, so a thread waits and the sampler takes what came at each tick. The
kernel's log is read beside it, for the Xids that NVML misses; what both tell is one event.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from collector.gpu.kernel_log import KernelLog, KernelXid, XidLog
from collector.gpu.listing import Listed
from collector.gpu.nvml import Absent, DriverAway, Nvml, address
from store.events import Event
from store.xid import advice_for

WAIT_MS = 200  # how long the thread may keep the driver from being let go
PAUSE_S = 1.0  # a set that holds a lost GPU answers at once, as long as it is away
KEPT_MAX = 4096

_XID = pynvml.nvmlEventTypeXidCriticalError
_TYPES: Mapping[int, tuple[str, str, str]] = {
    _XID: ("xid", "", ""),
    pynvml.nvmlEventTypeSingleBitEccError: ("ecc", "info", "a single-bit ECC error was corrected"),
    pynvml.nvmlEventTypeDoubleBitEccError: ("ecc", "critical", "a double-bit ECC error could not be corrected"),
    pynvml.nvmlEventTypePState: ("performance_state", "info", "the performance state is now {data}"),
    0x200: ("ecc", "warning", "single-bit ECC errors come in a storm"),
    0x400: ("ecc", "warning", "memory was retired"),
    0x800: ("ecc", "critical", "memory could not be retired"),
    0x1000: ("ecc", "warning", "poisoned data was contained"),
    0x2000: ("ecc", "critical", "poisoned data was not contained"),
    0x4000: ("unavailable", "critical", "the driver says that the GPU is unavailable"),
    0x8000: ("recovery_action", "warning", "the driver asks for recovery action {data}"),
}
"""Event type (by its bit: an older nvidia-ml-py has no names for the later ones), the event, severity and message."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One event as NVML hands it over, and when that was."""

    address: int | None
    type: int
    data: int
    received_at_us: int


def _free(nvml: Nvml, event_set: Any) -> None:
    with suppress(Absent, DriverAway):
        nvml.ask("nvmlEventSetFree", event_set)


class GpuEvents:
    """Collects events of the GPUs that are watched.

    Args:
        kernel_log: The kernel's log.
        wall_us: The wall clock, microseconds UTC: NVML's events have no time, so all bear that of their receipt.
    """

    def __init__(self, kernel_log: KernelLog, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._kernel_log = kernel_log
        self._wall_us = wall_us
        self._xids = XidLog()
        self._told: deque[_Told] = deque(maxlen=KEPT_MAX)
        self._watched: dict[str, Listed] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._taking = threading.Lock()

    def watch(self, nvml: Nvml, gpus: Mapping[str, Listed]) -> None:
        """Wait for the events of these GPUs; begins anew when they are others than before.

        Args:
            nvml: The session.
            gpus: The GPUs by UUID.
        """
        are_the_same = self._watched.keys() == gpus.keys()
        self._watched = dict(gpus)
        if (self._thread and are_the_same) or not self.let_go():
            return
        try:
            event_set = nvml.ask("nvmlEventSetCreate")
        except Absent:
            return  # no events on this driver: the kernel's log is left
        registered = [self._register(nvml, event_set, gpu) for gpu in gpus.values()]
        if not any(registered):
            _free(nvml, event_set)
            return
        self._stop = threading.Event()
        waiting = (nvml, event_set, self._stop)
        self._thread = threading.Thread(target=self._wait, args=waiting, name="gpu-events", daemon=True)
        self._thread.start()

    def take(self) -> list[Event]:
        """The events that came since the last call; never waits for the driver, so any thread may ask."""
        with self._taking:
            events = [self._kernel_event(xid) for xid in self._kernel_log.read_new()]
            while self._told:
                events.append(self._driver_event(self._told.popleft()))
            return [event for event in events if event]

    def abandon(self) -> None:
        """Have the thread end when it comes back from the driver, without waiting for it."""
        self._stop.set()

    def close(self) -> bool:
        """Let go for good; whether the thread has left the driver."""
        self._kernel_log.close()
        return self.let_go()

    def let_go(self) -> bool:
        """Stop waiting: the session ends, or other GPUs are to be watched. Whether the thread has left the driver."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout=3 * WAIT_MS / 1000)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    @staticmethod
    def _register(nvml: Nvml, event_set: Any, gpu: Listed) -> bool:
        """Ask for each type by itself: one that is not supported would refuse them all."""
        is_any = False
        for event_type in _TYPES:
            try:
                nvml.ask("nvmlDeviceRegisterEvents", gpu.handle, event_type, event_set)
                is_any = True
            except Absent:
                continue
        return is_any

    def _wait(self, nvml: Nvml, event_set: Any, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                data = nvml.ask("nvmlEventSetWait_v2", event_set, WAIT_MS)
            except Absent as absent:
                if absent.code != pynvml.NVML_ERROR_TIMEOUT:
                    stop.wait(PAUSE_S)
                continue
            except DriverAway:
                return
            self._told.append(_Told(address(data.device), data.eventType, data.eventData, self._wall_us()))
        _free(nvml, event_set)

    def _driver_event(self, told: _Told) -> Event | None:
        gpu = next((one for one in self._watched.values() if address(one.handle) == told.address), None)
        event, severity, message = _TYPES.get(told.type, ("other", "info", f"event type {told.type:#x}"))
        values = {"source": "nvml", **_identity(gpu)}
        if told.type != _XID:
            words = {"event": event, "severity": severity, "message": message.format(data=told.data)}
            return Event("gpu_event", told.received_at_us, {**values, **words})
        if gpu and gpu.pci_bus_id and not self._xids.is_new("nvml", gpu.pci_bus_id, told.data, told.received_at_us):
            return None
        return Event("gpu_event", told.received_at_us, {**values, **_xid(told.data)})

    def _kernel_event(self, logged: KernelXid) -> Event | None:
        message, now_us = logged.message, self._wall_us()
        if not self._xids.is_new("kmsg", message.pci_bus_id, message.xid, now_us):
            return None
        gpu = next((one for one in self._watched.values() if one.pci_bus_id == message.pci_bus_id), None)
        values = {
            "source": "kmsg",
            **_identity(gpu),
            "pci_bus_id": message.pci_bus_id,
            "pid": message.pid,
            "process_name": message.process_name,
            **_xid(message.xid),
        }
        return Event("gpu_event", now_us, values | ({"message": message.message} if message.message else {}))


def _identity(gpu: Listed | None) -> dict[str, Any]:
    return {"gpu_uuid": gpu.uuid, "gpu_index": gpu.index, "pci_bus_id": gpu.pci_bus_id} if gpu else {}


def _xid(code: int) -> dict[str, Any]:
    advice = advice_for(code)
    return {"event": "xid", "xid": code, "severity": str(advice.severity), "message": f"Xid {code}: {advice.name}"}
