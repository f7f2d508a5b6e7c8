"""The processes on a GPU: what they hold, what they use, who they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collector.attribution import Attributor
from collector.clock import Now
from collector.gpu_readings import PROCESS_LISTS
from collector.nvml import Absent, Handle, Nvml
from collector.probe import Row
from store.events import AbsenceReason, Event

_NO_INSTANCE = 0xFFFFFFFF  # of a process that is on no MIG device
_UTILIZATIONS: Mapping[str, str] = {
    "sm_utilization_percent": "smUtil",
    "memory_utilization_percent": "memUtil",
    "encoder_utilization_percent": "encUtil",
    "decoder_utilization_percent": "decUtil",
}


class GpuProcesses:
    """Reads one `process_sample` per process and GPU.

    Args:
        proc: Where /proc is.
        interval_s: Time between two reads, for `interval_seconds`.
    """

    def __init__(self, *, proc: Path, interval_s: float) -> None:
        self._attributor = Attributor(proc)
        self._interval_s = interval_s
        self._seen_us: dict[str, int] = {}

    def read(self, nvml: Nvml, device: Handle, identity: Mapping[str, Any], now: Now) -> list[Event]:
        """The rows of one GPU; none where the driver lists no processes.

        Args:
            nvml: The session.
            device: The GPU.
            identity: Its `gpu_uuid` and `gpu_index`.
            now: The time of the rows.
        """
        listed = _listed(nvml, device)
        used = self._utilizations(nvml, device, identity["gpu_uuid"]) if listed else {}
        return [self._event(identity, pid, kind, process, used, now) for pid, (kind, process) in listed.items()]

    def _event(
        self,
        identity: Mapping[str, Any],
        pid: int,
        kind: str,
        process: Any,
        used: Mapping[int, Any] | AbsenceReason,
        now: Now,
    ) -> Event:
        row = Row()
        row.put(
            {"memory_used_bytes": AbsenceReason.NO_DATA if process.usedGpuMemory is None else process.usedGpuMemory}
        )
        row.put(_shares(used, pid))
        values = {
            **identity,
            "pid": pid,
            "process_type": kind,
            "interval_seconds": self._interval_s,
            "counter_epoch": 0,  # cpu_seconds is the kernel's: it begins with the process, whose start is in its series
            **_instance(process),
            **self._attributor.describe(pid),
            **row.event_values(),
        }
        return Event("process_sample", now.wall_us, values)

    def _utilizations(self, nvml: Nvml, device: Handle, uuid: str) -> Mapping[int, Any] | AbsenceReason:
        """The newest sample of each process since the last read, by pid; an idle process has none."""
        seen_us = self._seen_us.get(uuid, 0)
        try:
            samples = nvml.ask("nvmlDeviceGetProcessUtilization", device, seen_us)
        except Absent as absent:
            return {} if absent.reason is AbsenceReason.NO_DATA else absent.reason
        newest: dict[int, Any] = {}
        for sample in sorted(samples, key=lambda one: one.timeStamp):
            if sample.timeStamp > seen_us:
                newest[sample.pid] = sample
        self._seen_us[uuid] = max((one.timeStamp for one in newest.values()), default=seen_us)
        return newest


def _listed(nvml: Nvml, device: Handle) -> dict[int, tuple[str, Any]]:
    """Kind and process by pid; one that is on several lists is of the kind of the first."""
    listed: dict[int, tuple[str, Any]] = {}
    for kind, names in PROCESS_LISTS.items():
        try:
            processes = nvml.ask(names, device)
        except Absent:
            continue  # of its kind nothing is known; the others are listed
        for process in processes:
            listed.setdefault(process.pid, (kind, process))
    return listed


def _shares(used: Mapping[int, Any] | AbsenceReason, pid: int) -> dict[str, Any]:
    if isinstance(used, AbsenceReason):
        return dict.fromkeys(_UTILIZATIONS, used)
    sample = used.get(pid)
    if sample is None:
        return dict.fromkeys(_UTILIZATIONS, AbsenceReason.NO_DATA)
    shares = {column: getattr(sample, name) for column, name in _UTILIZATIONS.items()}
    # Seen with processes that have just ended: numbers far beyond 100 %.
    return {column: share if share <= 100 else AbsenceReason.NO_DATA for column, share in shares.items()}


def _instance(process: Any) -> dict[str, int]:
    instances = {
        "mig_gpu_instance_id": process.gpuInstanceId,
        "mig_compute_instance_id": process.computeInstanceId,
    }
    return {column: number for column, number in instances.items() if number not in (None, _NO_INSTANCE)}
