"""The host: CPU, memory, swap, pressure; disks and network summed. `collector.host.devices` has each device.

Each file under /proc is read once a tick. A column whose word the kernel does not write is absent by itself; a file
that cannot be read takes its own columns and no others.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from collector import proc
from collector.clock import Now
from collector.host.devices import SECTOR_BYTES, network_cards, whole_disks
from collector.probe import Condition, CounterEpoch, Row, Turn
from store.events import SYSTEM_SAMPLE, WARM_SECONDS, AbsenceReason, Event

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CPU_STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""In the order of /proc/stat. What it counts as guest it counts in user and nice too."""
_CPU_COLUMNS = (*(f"cpu_{state}_percent" for state in _CPU_STATES), "cpu_utilization_percent")


@dataclass(frozen=True, slots=True)
class _Source:
    """One file, given the root of the file system, and the columns it fills."""

    read: Callable[[Path], Any]
    columns: proc.Columns


def _sum(*places: int, unit: int = 1) -> Callable[[Mapping[str, Sequence[int]]], int]:
    """The sum of the numbers at these places over all devices. None at all is no reading, and not 0."""

    def total(devices: Mapping[str, Sequence[int]]) -> int:
        if not devices:
            raise LookupError("no such device")
        return unit * sum(numbers[place] for numbers in devices.values() for place in places)

    return total


def _pressure_source(resource: str) -> _Source:
    def stalled_seconds(share: str) -> Callable[[Mapping[str, str]], float]:
        return lambda lines: int(lines[share].rpartition("total=")[2]) / 1e6  # cpu has no line full before Linux 5.13

    columns = {f"pressure_{resource}_{share}_seconds": stalled_seconds(share) for share in ("some", "full")}
    return _Source(lambda root: proc.lines(f"{root}/proc/pressure/{resource}"), columns)


def _cpu_count(stat: Mapping[str, str]) -> int:
    count = sum(word.startswith("cpu") for word in stat if word != "cpu")
    if not count:
        raise LookupError("no line of a CPU")
    return count


_STAT_COLUMNS: proc.Columns = {
    "cpu_count": _cpu_count,
    "tasks_running_count": lambda stat: int(stat["procs_running"]),
    "tasks_blocked_count": lambda stat: int(stat["procs_blocked"]),
    "context_switches_count": lambda stat: int(stat["ctxt"]),
}

_SOURCES = (
    _Source(
        lambda root: proc.content(f"{root}/proc/loadavg").split(),
        {
            "load_1m_count": lambda words: float(words[0]),
            "load_5m_count": lambda words: float(words[1]),
            "load_15m_count": lambda words: float(words[2]),
        },
    ),
    _Source(
        lambda root: proc.meminfo_bytes(f"{root}/proc"),
        {
            "memory_total_bytes": lambda memory: memory["MemTotal"],
            "memory_available_bytes": lambda memory: memory["MemAvailable"],
            "memory_used_bytes": lambda memory: memory["MemTotal"] - memory["MemAvailable"],
            "memory_free_bytes": lambda memory: memory["MemFree"],
            "memory_cached_bytes": lambda memory: memory["Cached"] + memory["SReclaimable"],
            "memory_buffers_bytes": lambda memory: memory["Buffers"],
            "memory_shared_bytes": lambda memory: memory["Shmem"],
            "swap_total_bytes": lambda memory: memory["SwapTotal"],
            "swap_used_bytes": lambda memory: memory["SwapTotal"] - memory["SwapFree"],
        },
    ),
    _Source(
        lambda root: proc.lines(f"{root}/proc/vmstat", "pswpin", "pswpout"),
        {
            "swap_in_bytes": lambda pages: int(pages["pswpin"]) * PAGE_BYTES,
            "swap_out_bytes": lambda pages: int(pages["pswpout"]) * PAGE_BYTES,
        },
    ),
    *(_pressure_source(resource) for resource in ("cpu", "memory", "io")),
    _Source(
        whole_disks,
        {
            "disk_reads_count": _sum(0),
            "disk_read_bytes": _sum(2, unit=SECTOR_BYTES),
            "disk_writes_count": _sum(4),
            "disk_written_bytes": _sum(6, unit=SECTOR_BYTES),
            "disk_busy_seconds": lambda disks: _sum(9)(disks) / 1000,
        },
    ),
    _Source(
        network_cards,
        {
            "network_received_bytes": _sum(0),
            "network_received_packets_count": _sum(1),
            "network_sent_bytes": _sum(8),
            "network_sent_packets_count": _sum(9),
            "network_errors_count": _sum(2, 10),
            "network_drops_count": _sum(3, 11),
        },
    ),
)


class HostProbe:
    """Reads one `system_sample` a tick, and one `inventory` of the host at the first.

    Args:
        ledger_folder: Whose file system's free space is watched.
        interval_s: Time between two reads, for `interval_seconds`.
        root: Root of the file system that holds proc, sys and etc.
        sensors: Gives the CPU's frequency and temperature, by column; asked every few seconds.
    """

    name = "host"
    condition = Condition.ANSWERS

    def __init__(
        self,
        *,
        ledger_folder: Path,
        interval_s: float,
        root: Path = Path("/"),
        sensors: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._ledger_folder = ledger_folder
        self._interval_s = interval_s
        self._root = root
        self._sensors = sensors
        self._sensors_turn = Turn(WARM_SECONDS, interval_s)  # a file per core and sensor: too many for every second
        # A disk that is pulled or a network card that goes takes its counts out of the sums.
        self._epoch = CounterEpoch([field.name for field in SYSTEM_SAMPLE.fields if field.instrument == "counter"])
        self._cpu_before: Mapping[str, int] | None = None
        self._is_described = False

    def read(self, now: Now) -> Sequence[Event]:
        row = Row()
        stat = proc.value_or_reason(partial(proc.lines, f"{self._root}/proc/stat"))
        row.put(proc.answers(_STAT_COLUMNS, stat))
        row.put(self._cpu_shares(stat))
        for source in _SOURCES:
            row.put(proc.answers(source.columns, proc.value_or_reason(partial(source.read, self._root))))
        row.put({"ledger_filesystem_free_bytes": proc.value_or_reason(self._free_bytes)})
        if self._sensors and self._sensors_turn.has_come(now):
            row.put(self._sensors())
        values = {
            "interval_seconds": self._interval_s,
            "counter_epoch": self._epoch.follow(row.values, now),
            "uptime_seconds": now.boottime_s,
            **row.event_values(),
        }
        events = [Event("system_sample", now.wall_us, values)]
        if not self._is_described:
            events.append(Event("inventory", now.wall_us, self._description(row)))
            self._is_described = True
        return events

    def status(self) -> str:
        return "host"

    def close(self) -> None:
        pass

    def _cpu_shares(self, stat: Any) -> dict[str, Any]:
        ticks = stat if isinstance(stat, AbsenceReason) else proc.value_or_reason(partial(_cpu_ticks, stat))
        if isinstance(ticks, AbsenceReason):
            return dict.fromkeys(_CPU_COLUMNS, ticks)
        before, self._cpu_before = self._cpu_before, ticks
        # A share of time needs two readings. The kernel may take a little of iowait back.
        spent = {state: max(0, ticks[state] - before[state]) for state in _CPU_STATES} if before else {}
        total = sum(spent.values())
        if not total:
            return dict.fromkeys(_CPU_COLUMNS, AbsenceReason.NO_DATA)
        shares = {f"cpu_{state}_percent": 100 * count / total for state, count in spent.items()}
        busy = total - spent["idle"] - spent["iowait"]
        return shares | {"cpu_utilization_percent": 100 * busy / total}

    def _free_bytes(self) -> int:
        space = os.statvfs(self._ledger_folder)
        return space.f_bavail * space.f_frsize

    def _description(self, row: Row) -> dict[str, Any]:
        return {
            "subject": "host",
            "source": "host",
            "name": proc.text(self._root / "sys/class/dmi/id/product_name"),
            "architecture": platform.machine(),
            "memory_total_bytes": row.values.get("memory_total_bytes"),
            "os_name": self._os_name(),
            "kernel_version": proc.text(self._root / "proc/sys/kernel/osrelease"),
            "cpu_model": self._cpu_model(),
            "cpu_count": row.values.get("cpu_count"),
        }

    def _os_name(self) -> str | None:
        for line in (proc.text(self._root / "etc/os-release") or "").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip("\"'")
        return None

    def _cpu_model(self) -> str | None:
        for line in (proc.text(self._root / "proc/cpuinfo") or "").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
        return None


def _cpu_ticks(stat: Mapping[str, str]) -> dict[str, int]:
    counts = stat["cpu"].split()[: len(_CPU_STATES)]
    return {state: int(count) for state, count in zip(_CPU_STATES, counts, strict=True)}
