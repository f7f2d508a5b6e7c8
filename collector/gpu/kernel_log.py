"""Xids from the kernel's log, where the driver writes also those that it does not tell through NVML.

NVML's event set misses some (62, 79, 119 and 120 are known for it), has no time of its own, and has nothing from
before it was opened. /dev/kmsg has all of them, in the driver's own words, as long as the ring buffer keeps them.
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MESSAGE_CHARACTERS_MAX = 1024
_RECORD_BYTES_MAX = 16_384  # the kernel refuses to read a record into less than it takes; its own limit is 8 KiB
_READS_MAX = 100_000  # of one call: a log that is written as fast as it is read must not hold up the collector
_REPORTS_MAX = 256  # of one code on one GPU
_INT32_MAX = 2**31 - 1

_RECORD = re.compile(rb"[0-7],[0-9]+,([0-9]{1,18}),[^;]*;(.*)", re.DOTALL)
"""Priority, sequence number, microseconds, flags; text. A priority of 8 and above is of another facility than the
kernel, and a line that begins with a blank says more of the record before it."""
_XID = re.compile(
    r"\s*NVRM: Xid \((?:PCI:)?(?P<domain>[0-9a-fA-F]{4,8}):(?P<bus>[0-9a-fA-F]{2}):(?P<device>[0-9a-fA-F]{2})"
    r"(?:\.[0-7])?(?: GPU-I:(?P<gpu_instance>\d{1,4}))?(?: GPU-CI:(?P<compute_instance>\d{1,4}))?[^)]*\): "
    r"(?P<xid>\d{1,6})\b(?:, pid='?(?:(?P<pid>\d{1,10})|<unknown>)'?)?"
    r"(?:, name=(?:<unknown>|(?P<name>[^,]*)))?,?(?P<message>.*)",
    re.DOTALL,
)
"""The forms of src/nvidia/src/kernel/gpu/rc/kernel_rc.c in NVIDIA/open-gpu-kernel-modules, and those of before."""


@dataclass(frozen=True, slots=True)
class XidMessage:
    """What the driver wrote about one Xid.

    Args:
        pci_bus_id: As NVML spells it, 00000000:1B:00.0.
        xid: The code.
        pid: The process that was named; None where the driver did not know it.
        process_name: Its name, likewise.
        message: The rest in the driver's own words.
        mig_gpu_instance_id: The GPU instance that it was confined to, where MIG is on.
        mig_compute_instance_id: The compute instance, likewise.
    """

    pci_bus_id: str
    xid: int
    pid: int | None
    process_name: str | None
    message: str
    mig_gpu_instance_id: int | None = None
    mig_compute_instance_id: int | None = None


class KernelXid(NamedTuple):
    """An Xid and when it was logged.

    `boottime_us` is on the log's own clock: microseconds since boot that, whatever their name, stand still in suspend
    (compare them with `Now.monotonic_s`) and drift from it by some seconds a month. An Xid that is read as it happens
    is better stamped on receipt; the log's time is for what was there before.
    """

    boottime_us: int
    message: XidMessage


def parse_xid(message: str) -> XidMessage | None:
    """What one line of the kernel's log says of an Xid; None where it is about something else."""
    found = _XID.match(message)
    if found is None:
        return None
    return XidMessage(
        pci_bus_id=f"{int(found['domain'], 16):08X}:{found['bus'].upper()}:{found['device'].upper()}.0",
        xid=int(found["xid"]),
        pid=_number(found["pid"]),
        process_name=found["name"] or None,
        message=found["message"].strip()[:MESSAGE_CHARACTERS_MAX],
        mig_gpu_instance_id=_number(found["gpu_instance"]),
        mig_compute_instance_id=_number(found["compute_instance"]),
    )


def _number(digits: str | None) -> int | None:
    """None also for a pid that is the driver's -1, printed without its sign."""
    return int(digits) if digits and int(digits) <= _INT32_MAX else None


class KernelLog:
    """Reads what is new in the kernel's log, without waiting.

    A log that cannot be opened or read is no error of ours: `status` says what is wrong, and it is tried again at each
    call. Only the kernel's own records are taken. It marks those that a program writes there, so an Xid that somebody
    echoed into the log is not taken for one of the driver.

    Args:
        path: The log; a regular file serves too.
        back_fill: Begin with what the log still has from before, and not with what comes from now on.
    """

    def __init__(self, path: Path = Path("/dev/kmsg"), *, back_fill: bool = False) -> None:
        self.overwritten_count = 0
        """How often the log overtook us: each time at least one record was lost."""
        self._path = path
        self._is_from_start = back_fill
        self._file: int | None = None
        self._status = ""
        self._unfinished = b""
        self._open()

    def status(self) -> str:
        """What is read, or why nothing is, as a phrase for a person."""
        return self._status

    def read_new(self) -> list[KernelXid]:
        """The Xids that were logged since the last call."""
        if self._file is None:
            self._open()
        return [xid for record in self._records() if (xid := _kernel_xid(record))]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not self._is_from_start:
                os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self._give_up(error)
        else:
            self._is_from_start = False
            self._unfinished = b""
            self._status = f"reading {self._path}"

    def _give_up(self, error: OSError) -> None:
        self.close()
        self._status = _why_not(self._path, error)

    def _records(self) -> Iterator[bytes]:
        """The device gives one record a read, a file whatever fits; in both a line feed ends it."""
        for _ in range(_READS_MAX):
            chunk = self._chunk()
            if not chunk:
                return
            *finished, self._unfinished = (self._unfinished + chunk).split(b"\n")
            yield from finished

    def _chunk(self) -> bytes:
        while self._file is not None:
            try:
                return os.read(self._file, _RECORD_BYTES_MAX)
            except BlockingIOError:
                break
            except BrokenPipeError:  # the next record was overwritten; the kernel goes on at the oldest that is left
                self.overwritten_count += 1
            except OSError as error:
                self._give_up(error)
        return b""


def _why_not(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"may not read {path} (needs CAP_SYSLOG, or kernel.dmesg_restrict=0): Xids come from NVML alone"
    if isinstance(error, FileNotFoundError):
        return f"there is no {path} here: Xids come from NVML alone"
    return f"cannot read {path} ({error.strerror}): Xids come from NVML alone"


def _kernel_xid(line: bytes) -> KernelXid | None:
    record = _RECORD.match(line)
    if record is None or b"Xid" not in record[2]:  # most of the log
        return None
    message = parse_xid(record[2].decode(errors="replace"))
    return KernelXid(int(record[1]), message) if message else None


@dataclass(slots=True)
class _Reported:
    """One Xid, and who has told of it."""

    time_us: int
    sources: set[str]


class XidLog:
    """Tells which reports of an Xid are news, where several sources report the same ones.

    Reports of one code on one GPU within the window are paired across sources, the first with the first: what one
    source has told twice has happened twice, and another source that then tells it twice adds nothing.

    Args:
        window_us: How far apart two sources may tell of the same Xid.
    """

    def __init__(self, window_us: int = 5_000_000) -> None:
        self._window_us = window_us
        self._reported: dict[tuple[str, int], deque[_Reported]] = {}

    def is_new(self, source: str, pci_bus_id: str, xid: int, time_us: int) -> bool:
        """Whether nobody else has told of this one; it counts as told from now on."""
        reported = self._reported.setdefault((pci_bus_id.upper(), xid), deque(maxlen=_REPORTS_MAX))
        for one in reported:
            if source not in one.sources and abs(one.time_us - time_us) <= self._window_us:
                one.sources.add(source)
                return False
        reported.append(_Reported(time_us, {source}))
        return True
