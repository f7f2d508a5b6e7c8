"""The host: CPU, memory, swap, pressure, disk, network.

/proc is read under an injectable root, so that a fixture is a folder and not a mock. psutil serves where it does
so under the same root (`psutil.PROCFS_PATH`): CPU times, memory, swap, disk and network counters.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from collector.clock import Now
from store.events import AbsenceReason, Event

_CPU_STATES = ("user", "nice", "system", "iowait", "irq", "softirq", "steal", "idle")
_PRESSURES = tuple((resource, share) for resource in ("cpu", "memory", "io") for share in ("some", "full"))
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class HostProbe:
    """Reads one `system_sample` a tick, and one `inventory` of the host at the first.

    Args:
        ledger_folder: Whose file system's free space is watched.
        interval_s: Time between two reads, for `interval_seconds`.
        root: Root of the file system that holds proc, sys and etc.
    """

    name = "host"

    def __init__(self, *, ledger_folder: Path, interval_s: float, root: Path = Path("/")) -> None:
        self._ledger_folder = ledger_folder
        self._interval_s = interval_s
        self._root = root
        self._proc = root / "proc"
        self._cpu_before: Mapping[str, float] | None = None
        self._is_described = False

    def read(self, now: Now) -> Sequence[Event]:
        # psutil keeps the folder in a module variable, so it is set before each use of it.
        psutil.PROCFS_PATH = str(self._proc)
        row = _Row()
        row.take("cpu", self._cpu)
        row.take("load", self._load)
        row.take("tasks", self._tasks)
        row.take("memory", self._memory)
        row.take("swap", self._swap)
        for resource, share in _PRESSURES:
            row.take(f"pressure_{resource}_{share}_seconds", lambda r=resource, s=share: self._pressure(r, s))
        row.take("disk", self._disk)
        row.take("network", self._network)
        row.take("ledger_filesystem_free_bytes", self._free_space)
        values = {
            "interval_seconds": self._interval_s,
            "counter_epoch": 0,
            "uptime_seconds": now.boottime_s,
            **row.values,
            **({"absence": row.absence} if row.absence else {}),
        }
        events = [Event("system_sample", now.wall_us, values)]
        if not self._is_described:
            events.append(Event("inventory", now.wall_us, self._description()))
            self._is_described = True
        return events

    def status(self) -> str:
        return "host"

    def close(self) -> None:
        pass

    def _cpu(self) -> dict[str, Any]:
        times = psutil.cpu_times()._asdict()
        # The kernel counts guest time in user and nice as well.
        times["user"] -= times.get("guest", 0.0)
        times["nice"] -= times.get("guest_nice", 0.0)
        before, self._cpu_before = self._cpu_before, times
        values: dict[str, Any] = {"cpu_count": psutil.cpu_count()}
        if before is None:
            return values  # a share of time needs two readings
        spent = {state: max(0.0, times[state] - before[state]) for state in times}
        total = sum(spent.values())
        if total <= 0.0:
            return values
        shares = {state: 100.0 * seconds / total for state, seconds in spent.items()}
        values |= {f"cpu_{state}_percent": shares[state] for state in _CPU_STATES if state in shares}
        values["cpu_utilization_percent"] = 100.0 - shares["idle"] - shares.get("iowait", 0.0)
        return values

    def _load(self) -> dict[str, Any]:
        words = (self._proc / "loadavg").read_text().split()
        return {f"load_{minutes}_count": float(word) for minutes, word in zip(("1m", "5m", "15m"), words, strict=False)}

    def _tasks(self) -> dict[str, Any]:
        numbers = _numbers(self._proc / "stat")
        return {
            "tasks_running_count": numbers.get("procs_running"),
            "tasks_blocked_count": numbers.get("procs_blocked"),
            "context_switches_count": numbers.get("ctxt"),
        }

    def _memory(self) -> dict[str, Any]:
        memory = psutil.virtual_memory()
        return {
            "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "memory_used_bytes": memory.total - memory.available,
            "memory_free_bytes": memory.free,
            "memory_cached_bytes": memory.cached,
            "memory_buffers_bytes": memory.buffers,
            "memory_shared_bytes": memory.shared,
        }

    def _swap(self) -> dict[str, Any]:
        kib = _numbers(self._proc / "meminfo")
        pages = _numbers(self._proc / "vmstat")
        return {
            "swap_total_bytes": kib["SwapTotal:"] * 1024,
            "swap_used_bytes": (kib["SwapTotal:"] - kib["SwapFree:"]) * 1024,
            "swap_in_bytes": pages["pswpin"] * PAGE_BYTES,
            "swap_out_bytes": pages["pswpout"] * PAGE_BYTES,
        }

    def _pressure(self, resource: str, share: str) -> dict[str, Any]:
        for line in (self._proc / "pressure" / resource).read_text().splitlines():
            if line.startswith(f"{share} "):
                return {f"pressure_{resource}_{share}_seconds": int(line.rpartition("total=")[2]) / 1e6}
        raise FileNotFoundError(f"no line '{share}' in pressure/{resource}")  # cpu/full before Linux 5.13

    def _disk(self) -> dict[str, Any]:
        disks = [io for name, io in psutil.disk_io_counters(perdisk=True, nowrap=False).items() if self._is_whole(name)]
        return {
            "disk_read_bytes": sum(io.read_bytes for io in disks),
            "disk_written_bytes": sum(io.write_bytes for io in disks),
            "disk_reads_count": sum(io.read_count for io in disks),
            "disk_writes_count": sum(io.write_count for io in disks),
            "disk_busy_seconds": sum(io.busy_time for io in disks) / 1000.0,
        }

    def _is_whole(self, name: str) -> bool:
        """Whether it is a whole device that reaches hardware; partitions, loops and RAM disks are not."""
        return (self._root / "sys/block" / name).exists() and not name.startswith(("loop", "ram", "zram", "dm-", "md"))

    def _network(self) -> dict[str, Any]:
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        cards = [io for name, io in counters.items() if name != "lo"]
        return {
            "network_received_bytes": sum(io.bytes_recv for io in cards),
            "network_sent_bytes": sum(io.bytes_sent for io in cards),
            "network_received_packets_count": sum(io.packets_recv for io in cards),
            "network_sent_packets_count": sum(io.packets_sent for io in cards),
            "network_errors_count": sum(io.errin + io.errout for io in cards),
            "network_drops_count": sum(io.dropin + io.dropout for io in cards),
        }

    def _free_space(self) -> dict[str, Any]:
        space = os.statvfs(self._ledger_folder)
        return {"ledger_filesystem_free_bytes": space.f_bavail * space.f_frsize}

    def _description(self) -> dict[str, Any]:
        return {
            "subject": "host",
            "source": "host",
            "name": _text(self._root / "sys/class/dmi/id/product_name"),
            "architecture": platform.machine(),
            "memory_kind": "dedicated",
            "memory_total_bytes": psutil.virtual_memory().total,
            "os_name": self._os_name(),
            "kernel_version": _text(self._proc / "sys/kernel/osrelease"),
            "cpu_model": self._cpu_model(),
            "cpu_count": psutil.cpu_count(),
        }

    def _os_name(self) -> str | None:
        for line in (_text(self._root / "etc/os-release") or "").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip('"')
        return None

    def _cpu_model(self) -> str | None:
        for line in (_text(self._proc / "cpuinfo") or "").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
        return None


class _Row:
    """The values of one row, and why some are missing."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.absence: dict[str, AbsenceReason] = {}

    def take(self, name: str, read: Any) -> None:
        """Add what `read` gives; where it cannot, note why under `name`: a field, or the first word of several."""
        try:
            self.values |= read()
        except PermissionError:
            self.absence[name] = AbsenceReason.NO_PERMISSION
        except (OSError, KeyError, ValueError, AttributeError):
            # A kernel without this file, or with another layout of it, does not support the reading.
            self.absence[name] = AbsenceReason.NOT_SUPPORTED


def _numbers(path: Path) -> dict[str, int]:
    """First word to second, of every line whose second word is a number."""
    pairs = (line.split(maxsplit=2)[:2] for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
