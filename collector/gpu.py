"""NVIDIA GPUs through NVML: one wide row per GPU and tick, and what each GPU is."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.clock import Now
from collector.driver_library import held_files
from collector.gpu_events import GpuEvents, Watched
from collector.gpu_processes import GpuProcesses
from collector.gpu_readings import CADENCES_S, DESCRIPTION, EPOCH_COUNTERS, SUBSTITUTES, Reading, readings
from collector.kernel_log import KernelLog
from collector.nvml import Absent, DriverAway, Handle, LibraryKept, Nvml
from collector.probe import Answers, Condition, CounterEpoch, Row
from store.events import WARM_SECONDS, AbsenceReason, Event

RETRY_DRIVER_S = 60.0  # a driver that is not there costs a failed dlopen each time: rarely enough to be free
RELIST_S = 10.0  # how soon a GPU that appears or leaves is noticed
REPROBE_S = 600.0  # a reading that was not supported may be after a driver reload or at the end of early boot


@dataclass(slots=True)
class _Gpu:
    """What is known of one GPU from tick to tick; without a handle it is gone, and its rows go on, all NULL."""

    uuid: str
    index: int
    handle: Handle | None = None
    gone_because: str = ""
    is_lost: bool = False
    is_described: bool = False
    epoch: CounterEpoch = field(default_factory=lambda: CounterEpoch(EPOCH_COUNTERS))
    unsupported_until_s: dict[Reading, float] = field(default_factory=dict)
    readings: Sequence[Reading] = ()

    def answers(self, reading: Reading, nvml: Nvml, device: Handle, now: Now) -> Answers:
        """What the reading gives, or why it gives nothing; one that is not supported is left alone for a while."""
        if self.unsupported_until_s.get(reading, now.monotonic_s) > now.monotonic_s:
            return dict.fromkeys(reading.columns, AbsenceReason.NOT_SUPPORTED)
        try:
            return reading.read(nvml, device)
        except Absent as absent:
            if absent.reason is AbsenceReason.NOT_SUPPORTED:
                self.unsupported_until_s[reading] = now.monotonic_s + REPROBE_S
            return dict.fromkeys(reading.columns, absent.reason)

    def attach(self, handle: Handle, index: int, proc: Path) -> None:
        if self.handle is None:
            self.readings = readings(proc)  # what the last ones remember belongs to a session that is over
        self.is_described &= self.handle is not None and self.index == index
        self.handle, self.index = handle, index

    def let_go(self, why: str) -> None:
        """Forget the handle: a driver that comes back may have put something else where it points."""
        if self.handle is not None:
            self.handle, self.gone_because = None, why
            self.unsupported_until_s.clear()
            self.epoch.end()

    def rest(self) -> None:
        """Forget the handle for as long as a pause lasts: the GPU is not lost, and its counters may go on."""
        if self.handle is not None:
            self.handle, self.gone_because = None, "it is not there after a pause"
            self.unsupported_until_s.clear()


class GpuProbe:
    """Reads one `gpu_sample` per GPU and tick; `inventory` and `gpu_event` when GPUs come and go.

    Without a driver it says so in `status` and looks again every minute.

    Args:
        interval_s: Time between two reads, for `interval_seconds`.
        proc: Where /proc is, for the memory of GPUs that share the host's.
        retry_driver_s: How soon a missing driver is looked for again.
        relist_s: How soon the list of GPUs is read again.
        kernel_log: Where the kernel's log is, for Xids that NVML does not tell.
        left_alone: Gives the UUIDs of GPUs on which a call hangs already, in a thread that was left behind.
        on_kept_library: Called when the driver was replaced and its old library cannot be unmapped; what it gives is
            recorded.
    """

    name = "gpu"
    condition = Condition.ANSWERS

    def __init__(
        self,
        *,
        interval_s: float,
        proc: Path = Path("/proc"),
        retry_driver_s: float = RETRY_DRIVER_S,
        relist_s: float = RELIST_S,
        kernel_log: Path = Path("/dev/kmsg"),
        left_alone: Callable[[], Collection[str]] = frozenset,
        on_kept_library: Callable[[Now], Sequence[Event]] = lambda _: (),
    ) -> None:
        self._interval_s = interval_s
        self._retry_driver_s = retry_driver_s
        self._relist_s = relist_s
        self._proc = proc
        self._processes = GpuProcesses(proc=proc, interval_s=max(interval_s, WARM_SECONDS))
        self._events = GpuEvents(KernelLog(kernel_log))
        self._next_s: dict[float, float] = {}
        self._nvml: Nvml | None = None
        self._gpus: dict[str, _Gpu] = {}
        self._next_list_s = float("-inf")
        self._has_looked = False
        self._status = "not looked yet"
        self._left_alone = left_alone
        self._on_kept_library = on_kept_library
        self.busy_with: str | None = None

    def read(self, now: Now) -> Sequence[Event]:
        self.busy_with = None
        events = self._relist(now) if now.monotonic_s >= self._next_list_s else []
        due = self._due(now)
        for gpu in self._gpus.values():
            self.busy_with = gpu.uuid
            events += self._sample(gpu, due, now)
        self.busy_with = None
        return [*events, *self._events.take()]

    def _due(self, now: Now) -> Collection[float]:
        """The cadences whose readings are made at this tick, in seconds."""
        due = {every_s for every_s in CADENCES_S if now.monotonic_s >= self._next_s.get(every_s, now.monotonic_s)}
        self._next_s |= {every_s: now.monotonic_s + every_s for every_s in due}
        return due

    def status(self) -> str:
        return self._status

    def meanwhile(self) -> Sequence[Event]:
        """What came by itself; another thread may ask while `read` hangs."""
        return self._events.take()

    def rest(self) -> Sequence[str]:
        """End the session and keep what is known of the GPUs; `read` begins another.

        Returns:
            What this process still holds of the driver; nothing once others may reset or replace it.
        """
        if self._events.let_go():
            if self._nvml:
                self._nvml.close()
            self._nvml = None
            for gpu in self._gpus.values():
                gpu.rest()
            self._next_list_s = float("-inf")
        return held_files()

    def abandon(self) -> None:
        """Nobody waits for this probe any more; another thread says so while `read` hangs."""
        self._events.abandon()

    def close(self) -> None:
        self._end_session()
        self._events.close()
        self._gpus = {}

    def _end_session(self) -> None:
        has_stopped = self._events.let_go()
        if self._nvml and has_stopped:  # a library must not be unmapped under a thread that is in it
            self._nvml.close()
        self._nvml = None

    def _relist(self, now: Now) -> list[Event]:
        """Take the driver's list of GPUs; what is not on it is gone, what is on it for the first time has appeared."""
        self._next_list_s = now.monotonic_s + self._relist_s
        try:
            self._nvml = self._nvml or Nvml()
            listed, left_alone = _listed(self._nvml), self._left_alone()
            watched = {
                uuid: Watched(uuid, index, handle, pci)
                for uuid, (index, handle, pci) in listed.items()
                if uuid not in left_alone
            }
            self._events.watch(self._nvml, watched)
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return [*self._on_kept_library(now)] if isinstance(away, LibraryKept) else []
        except Absent as absent:
            self._status = f"the NVIDIA driver does not list its GPUs ({absent.reason})"
            return []
        new = [_Gpu(uuid, index) for uuid, (index, _, _) in listed.items() if uuid not in self._gpus]
        self._gpus |= {gpu.uuid: gpu for gpu in new}
        for uuid, gpu in self._gpus.items():
            if uuid in watched:
                index, handle, _ = listed[uuid]
                gpu.attach(handle, index, self._proc)
            else:
                gpu.let_go("it is no longer listed by the driver")
            if uuid in left_alone:
                gpu.gone_because = "a call on it hangs in the driver"
        self._status = _counted(len(listed)) + (f", {len(left_alone)} left alone: a call hangs" if left_alone else "")
        had_looked, self._has_looked = self._has_looked, True
        message = "it was not there when recording began"
        return [_gpu_event("appeared", gpu, now, message) for gpu in new if had_looked]

    def _lose_driver(self, now: Now, why: str) -> None:
        self._end_session()
        for gpu in self._gpus.values():
            gpu.let_go(why)
        self._status = f"no GPU: {why}"
        self._next_list_s = now.monotonic_s + self._retry_driver_s
        self._has_looked = True

    def _sample(self, gpu: _Gpu, due: Collection[float], now: Now) -> list[Event]:
        row, events = self._look(gpu, due, now)
        is_lost = not row.values and (gpu.handle is None or gpu.is_lost or AbsenceReason.LOST in row.absence.values())
        if is_lost:
            row.absence = {"*": AbsenceReason.LOST}
        if is_lost and not gpu.is_lost:
            why = gpu.gone_because if gpu.handle is None else "the driver says that it is lost"
            events.append(_gpu_event("lost", gpu, now, why))
        if gpu.is_lost and not is_lost:
            events.append(_gpu_event("recovered", gpu, now, "it answers again"))
        gpu.is_lost = is_lost
        values = {
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            "interval_seconds": self._interval_s,
            "counter_epoch": gpu.epoch.follow(row.values, now),
            "up": not is_lost,
            **row.event_values(),
        }
        return [Event("gpu_sample", now.wall_us, values), *events]

    def _look(self, gpu: _Gpu, due: Collection[float], now: Now) -> tuple[Row, list[Event]]:
        """What the driver says of one GPU, and at the first time what it is; nothing of a GPU that is gone."""
        nvml, device = self._nvml, gpu.handle
        if nvml is None or device is None:
            return Row(), []
        try:
            row = self._row(gpu, nvml, device, due, now)
            return row, self._beside(gpu, nvml, device, due, now) if row.values else []
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return Row(), []

    def _beside(self, gpu: _Gpu, nvml: Nvml, device: Handle, due: Collection[float], now: Now) -> list[Event]:
        """The processes on a GPU that answers, when they are due, and what it is, the first time."""
        identity = {"gpu_uuid": gpu.uuid, "gpu_index": gpu.index}
        events = self._processes.read(nvml, device, identity, now) if WARM_SECONDS in due else []
        if gpu.is_described:
            return events
        gpu.is_described = True
        return [*events, Event("inventory", now.wall_us, {**identity, **_description(nvml, device)})]

    @staticmethod
    def _row(gpu: _Gpu, nvml: Nvml, device: Handle, due: Collection[float], now: Now) -> Row:
        row = Row()
        for reading in gpu.readings:
            if reading.every_s in due:
                row.put(gpu.answers(reading, nvml, device, now))
        for reading in SUBSTITUTES:
            if reading.columns[0] in row.absence:
                row.put(gpu.answers(reading, nvml, device, now))
        return row


def _listed(nvml: Nvml) -> dict[str, tuple[int, Handle, str | None]]:
    """UUID to index, handle and PCI address of each GPU that the driver lists and that says who it is."""
    listed = {}
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        try:
            handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            listed[nvml.ask("nvmlDeviceGetUUID", handle)] = index, handle, _pci_bus_id(nvml, handle)
        except Absent:
            continue  # listed but lost: it counts as gone, the others go on
    return listed


def _pci_bus_id(nvml: Nvml, device: Handle) -> str | None:
    try:
        bus_id: str = nvml.ask("nvmlDeviceGetPciInfo", device).busId
    except Absent:
        return None
    return bus_id.upper()


def _counted(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}" if count else "no GPU: the NVIDIA driver lists none"


def _gpu_event(event: str, gpu: _Gpu, now: Now, message: str) -> Event:
    severity = "critical" if event == "lost" else "info"
    values = {
        "event": event,
        "gpu_uuid": gpu.uuid,
        "gpu_index": gpu.index,
        "source": "sampler",
        "severity": severity,
        "message": f"GPU {gpu.index} {event}: {message}",
    }
    return Event("gpu_event", now.wall_us, values)


def _description(nvml: Nvml, device: Handle) -> dict[str, Any]:
    row = Row()
    for column, read in DESCRIPTION.items():
        try:
            row.put({column: read(nvml, device)})
        except Absent as absent:
            row.put({column: absent.reason})
    return {"subject": "gpu", "source": "nvml", **row.values} | ({"capabilities": row.absence} if row.absence else {})
