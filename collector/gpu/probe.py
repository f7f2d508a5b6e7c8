"""NVIDIA GPUs through NVML: one wide row per GPU, MIG device and tick, and what each of them is."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from collector.clock import Now
from collector.gpu.attribution import Attributor
from collector.gpu.calls import Reading
from collector.gpu.capabilities import statuses
from collector.gpu.description import described
from collector.gpu.driver_library import held_files
from collector.gpu.events import GpuEvents
from collector.gpu.kernel_log import KernelLog
from collector.gpu.links import GpuLinks
from collector.gpu.listing import Listed, listed
from collector.gpu.nvml import Absent, DriverAway, LibraryKept, Nvml
from collector.gpu.processes import GpuProcesses
from collector.gpu.readings import CADENCES_S, gpu_readings, mig_readings, substitutes
from collector.gpu.runtime_power import RuntimePower
from collector.gpu.watched import Gpu, Session
from collector.probe import Condition, Row, Turn
from store.events import COLD_SECONDS, WARM_SECONDS, AbsenceReason, Event

RETRY_DRIVER_S = 60.0  # a driver that is not there costs a failed dlopen each time: rarely enough to be free
RELIST_S = 10.0  # how soon a GPU that appears or leaves is noticed
IDLE_S = 10.0  # of GPUs that may sleep: how long nobody uses them before they are left alone
FALL_ASLEEP_S = 30.0  # and how long one that does not fall asleep then is still left alone
HANGS = "a call on it hangs in the driver"


class GpuProbe:
    """Reads one `gpu_sample` per GPU, MIG device and tick, their processes and links more seldom, and what happens.

    Without a driver it says so in `status` and looks again every minute. GPUs that sleep are not woken, and ones that
    may sleep and have nothing to do are left alone for a while so that they can.

    Args:
        interval_s: Time between two reads, for `interval_seconds`.
        proc: Where /proc is, for the memory of GPUs that share the host's.
        sys: Where /sys is, which tells what sleeps.
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
        sys: Path = Path("/sys"),
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
        self._attributor = Attributor(proc)
        self._power = RuntimePower(sys)
        self._events = GpuEvents(KernelLog(kernel_log))
        self._turns = {every_s: Turn(every_s, interval_s) for every_s in CADENCES_S}
        self._nvml: Nvml | None = None
        self._driver_version = ""
        self._listed: Sequence[Listed] = ()
        self._gpus: dict[str, Gpu] = {}
        self._next_list_s = float("-inf")
        self._has_looked = False
        self._busy_s = float("-inf")
        self._asleep_until_s = float("-inf")
        self._may_sleep: Collection[str] = ()
        self._all_sleep = False
        self._status = "not looked yet"
        self._left_alone = left_alone
        self._on_kept_library = on_kept_library
        self.busy_with: str | None = None

    def read(self, now: Now) -> Sequence[Event]:
        self.busy_with = None
        if self._are_asleep(now):
            return [*(self._event(gpu, Row(), AbsenceReason.SUSPENDED, now) for gpu in self._gpus.values())]
        events = self._relist(now) if now.monotonic_s >= self._next_list_s else []
        due = self._due(now)
        for gpu in self._gpus.values():
            self.busy_with = gpu.device.uuid
            events += self._sample(gpu, due, now)
        self.busy_with = None
        return [*events, *self._events.take()]

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
            for gpu in self._gpus.values():
                gpu.rest()
            if self._nvml:
                self._nvml.close()
            self._nvml = None
            self._next_list_s = float("-inf")
        return held_files()

    def abandon(self) -> None:
        """Nobody waits for this probe any more; another thread says so while `read` hangs."""
        self._events.abandon()

    def close(self) -> None:
        self._end_session("recording ended")
        self._events.close()
        self._gpus = {}

    def _due(self, now: Now) -> Collection[float]:
        """The cadences whose readings are made at this tick, in seconds."""
        return {every_s for every_s, turn in self._turns.items() if turn.has_come(now)}

    # --- the driver and its list

    def _end_session(self, why: str) -> None:
        has_stopped = self._events.let_go()
        for gpu in self._gpus.values():
            gpu.let_go(why)
        if self._nvml and has_stopped:  # a library must not be unmapped under a thread that is in it
            self._nvml.close()
        self._nvml = None

    def _relist(self, now: Now) -> list[Event]:
        """Take the driver's list of GPUs; what is not on it is gone, what is on it for the first time has appeared."""
        self._next_list_s = now.monotonic_s + self._relist_s
        events: list[Event] = []
        try:
            if self._nvml is None:
                self._nvml = Nvml()
                self._busy_s = now.monotonic_s
                events += self._driver_events(self._nvml, now)
            self._listed = listed(self._nvml)
            hanging = self._left_alone()
            whole = [one for one in self._listed if one.parent is None]
            self._events.watch(self._nvml, {one.uuid: one for one in whole if one.uuid not in hanging})
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return [*events, *(self._on_kept_library(now) if isinstance(away, LibraryKept) else ())]
        except Absent as absent:
            self._status = f"the NVIDIA driver does not list its GPUs ({absent.reason})"
            return events
        events += self._follow_list(hanging, now)
        self._may_sleep = {one.uuid for one in self._listed if self._power.may_sleep(one.pci_bus_id)}
        self._status = _counted(len(whole)) + (f", {len(hanging)} left alone: a call hangs" if hanging else "")
        self._has_looked = True
        return events

    def _driver_events(self, nvml: Nvml, now: Now) -> list[Event]:
        """Whether the driver is another than in the session before."""
        try:
            version = str(nvml.ask("nvmlSystemGetDriverVersion"))
        except Absent:
            return []
        before, self._driver_version = self._driver_version, version
        if before in ("", version):
            return []
        message = f"the NVIDIA driver is now {version}, it was {before}"
        told = {"event": "driver_changed", "source": "sampler", "severity": "info", "message": message}
        return [Event("gpu_event", now.wall_us, told)]

    def _follow_list(self, hanging: Collection[str], now: Now) -> list[Event]:
        by_uuid = {one.uuid: one for one in self._listed}
        events = self._mig_events(by_uuid, now)
        for uuid, gpu in self._gpus.items():
            if uuid not in by_uuid:
                gpu.let_go("it is no longer listed by the driver")
        for uuid, device in by_uuid.items():
            gpu = self._gpus.get(uuid) or Gpu(device)
            if uuid not in self._gpus and self._has_looked and device.parent is None:
                events.append(_gpu_event("appeared", gpu, now, "it was not there when recording began"))
            gpu.device = device
            is_divided = any(one.parent is device for one in self._listed)
            if uuid in hanging:
                gpu.let_go(HANGS)
                gpu.gone_because = HANGS  # of one that was never asked, too
            elif not (gpu.session and gpu.session.is_for(device, is_divided=is_divided)):
                gpu.session = self._session(device, is_divided=is_divided)
            self._gpus[uuid] = gpu
        return events

    def _mig_events(self, by_uuid: Mapping[str, Listed], now: Now) -> list[Event]:
        """Tell of GPUs whose MIG devices are others than before; a MIG device that is gone is gone for good."""
        changed: dict[str, list[str]] = {}
        for uuid, gpu in list(self._gpus.items()):
            parent = gpu.device.parent
            if parent and parent.uuid in by_uuid and uuid not in by_uuid:
                del self._gpus[uuid]
                changed.setdefault(parent.uuid, []).append(f"{uuid} is gone")
        for uuid, device in by_uuid.items():
            if device.parent and uuid not in self._gpus and self._has_looked:
                changed.setdefault(device.parent.uuid, []).append(f"{uuid} is new")
        return [
            _gpu_event("mig_changed", self._gpus[uuid], now, ", ".join(words))
            for uuid, words in changed.items()
            if uuid in self._gpus
        ]

    def _session(self, device: Listed, *, is_divided: bool) -> Session:
        if device.parent and device.gpu_instance_id is not None:
            readings = mig_readings(device.handle, device.parent.handle, device.gpu_instance_id, self._proc)
            return Session(device, _by_cadence(readings), (), self._processes_on(device))
        # The processes of a GPU that is divided are listed on its MIG devices, to whoever may see those.
        processes = None if is_divided else self._processes_on(device)
        links = GpuLinks(device.handle, interval_s=max(self._interval_s, COLD_SECONDS))
        readings = gpu_readings(device.handle, self._proc)
        return Session(device, _by_cadence(readings), substitutes(device.handle), processes, links)

    def _processes_on(self, device: Listed) -> GpuProcesses:
        interval_s = max(self._interval_s, WARM_SECONDS)
        return GpuProcesses(device.handle, attributor=self._attributor, interval_s=interval_s)

    def _lose_driver(self, now: Now, why: str) -> None:
        self._end_session(why)
        self._status = f"no GPU: {why}"
        self._next_list_s = now.monotonic_s + self._retry_driver_s
        self._has_looked = True

    # --- one GPU at one tick

    def _sample(self, gpu: Gpu, due: Collection[float], now: Now) -> list[Event]:
        if gpu.session and gpu.device.uuid in self._may_sleep and self._power.is_asleep(gpu.device.pci_bus_id):
            return [self._event(gpu, Row(), AbsenceReason.SUSPENDED, now)]
        row, beside = self._look(gpu, due, now)
        is_lost = not row.values and (gpu.session is None or gpu.is_lost or AbsenceReason.LOST in row.absence.values())
        turns = self._lost_or_found(gpu, is_lost, now)
        gpu.is_lost = is_lost
        sample = self._event(gpu, row, AbsenceReason.LOST if is_lost else None, now)
        return [sample, *turns, *self._restarts(gpu, now), *beside]

    def _look(self, gpu: Gpu, due: Collection[float], now: Now) -> tuple[Row, list[Event]]:
        try:
            row = gpu.row(due, now)
            return row, self._beside(gpu, row, due, now) if row.values else []
        except DriverAway as away:
            self._lose_driver(now, str(away))
            return Row(), []

    def _event(self, gpu: Gpu, row: Row, reason: AbsenceReason | None, now: Now) -> Event:
        """The row; with a reason one that has no values because of it."""
        device = gpu.device
        values: dict[str, Any] = {
            **gpu.identity,
            "interval_seconds": self._interval_s,
            "counter_epoch": gpu.epoch.follow(row.values, now) if reason is None else gpu.epoch.current,
        }
        if device.parent:
            values["mig_gpu_instance_id"] = device.gpu_instance_id
            values["mig_compute_instance_id"] = device.compute_instance_id
        if reason is not AbsenceReason.SUSPENDED:
            values["up"] = reason is None
        return Event(
            "gpu_sample", now.wall_us, values | (row.event_values() if reason is None else _all_absent(reason))
        )

    @staticmethod
    def _lost_or_found(gpu: Gpu, is_lost: bool, now: Now) -> list[Event]:
        if is_lost == gpu.is_lost:
            return []
        if not is_lost:
            return [_gpu_event("recovered", gpu, now, "it answers again")]
        why = gpu.gone_because if gpu.session is None else "the driver says that it is lost"
        return [_gpu_event("lost", gpu, now, why)]

    @staticmethod
    def _restarts(gpu: Gpu, now: Now) -> list[Event]:
        if not gpu.epoch.has_restarted:
            return []
        return [_gpu_event("reset", gpu, now, "its counters began anew: it was reset, or its driver reloaded")]

    def _beside(self, gpu: Gpu, row: Row, due: Collection[float], now: Now) -> list[Event]:
        """What goes with the row of a GPU that answers: its processes, what holds its clocks, what it is."""
        events: list[Event] = []
        session = gpu.session
        if WARM_SECONDS in due and session and session.processes:
            events += session.processes.read(gpu.identity, now)
            row.put({"process_count": session.processes.count})
            gpu.is_busy = bool(events)
        if gpu.is_busy or row.values.get("utilization_percent"):
            self._busy_s = now.monotonic_s
        if COLD_SECONDS in due and session and session.links:
            events += session.links.read(gpu.identity, gpu.epoch.current, now)
        for values in gpu.throttling.follow(row.values.get("clock_event_reasons_bitmask"), now):
            told = {**gpu.identity, "pci_bus_id": gpu.device.pci_bus_id, "source": "sampler", **values}
            events.append(Event("gpu_event", now.wall_us, told))
        return [*events, *self._inventory(gpu, row, due, now)]

    def _inventory(self, gpu: Gpu, row: Row, due: Collection[float], now: Now) -> list[Event]:
        """What the GPU is, where that differs from what was written last."""
        if self._nvml is None or gpu.session is None:
            return []
        is_as_listed = gpu.session.is_described and gpu.description.get("gpu_index") == gpu.device.index
        if is_as_listed and COLD_SECONDS not in due:
            return []
        gpu.session.is_described = True
        told, failed = described(self._nvml, gpu.device, self._listed, row.values)
        description = {**gpu.identity, **told, "capabilities": statuses(gpu.session.capabilities) | failed}
        if description == gpu.description:
            return []
        gpu.description = description
        return [Event("inventory", now.wall_us, description)]

    # --- sleep

    def _are_asleep(self, now: Now) -> bool:
        """Whether no GPU is to be asked at this tick, because they sleep or are to fall asleep."""
        if self._nvml is None:
            return now.monotonic_s < self._asleep_until_s or self._sleep_on(now)
        if now.monotonic_s - self._busy_s < IDLE_S or len(self._may_sleep) < len(self._listed) or not self._listed:
            return False
        self._end_session("it is left alone so that it can sleep")
        self._next_list_s = self._asleep_until_s = now.monotonic_s + FALL_ASLEEP_S
        self._status = "the GPUs have nothing to do and are left alone so that they can sleep"
        return True

    def _sleep_on(self, now: Now) -> bool:
        """Without a session: whether every GPU is asleep, so that beginning one would wake them."""
        if not self._all_sleep and now.monotonic_s < self._next_list_s:
            return False
        gpus = [one.pci_bus_id for one in self._listed] or self._power.gpus()
        self._all_sleep = bool(gpus) and all(map(self._power.is_asleep, gpus))
        if self._all_sleep:
            self._status = "the GPUs sleep and are not woken"
        return self._all_sleep


def _by_cadence(readings: Sequence[Reading]) -> Mapping[float, Sequence[Reading]]:
    return {every_s: [one for one in readings if one.every_s == every_s] for every_s in CADENCES_S}


def _all_absent(reason: AbsenceReason) -> dict[str, Any]:
    return {"absence": {"*": reason}}


def _counted(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}" if count else "no GPU: the NVIDIA driver lists none"


def _gpu_event(event: str, gpu: Gpu, now: Now, message: str) -> Event:
    severity = "critical" if event == "lost" else "info"
    values = {
        "event": event,
        **gpu.identity,
        "pci_bus_id": gpu.device.pci_bus_id,
        "source": "sampler",
        "severity": severity,
        "message": f"GPU {gpu.device.index} {event}: {message}",
    }
    return Event("gpu_event", now.wall_us, values)
