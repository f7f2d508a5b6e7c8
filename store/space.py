"""The file system under a ledger: what kind it is, and how much of it is left.

When space runs out, recording sheds in this order, and takes each step back by itself:

1. below `low_bytes`: host, process and server samples are no longer written; GPU samples, events and requests are;
2. below `read_only_bytes`: nothing is written; what comes waits in memory, bounded, and when that is full the oldest
   samples go first, of host, process and server before those of GPUs, and requests and events last.

The floor lies above zero so that SQLite's log, a sealing and a deletion by retention still have room to work in.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import apsw

from store.errors import LedgerFullError, LedgerUnusableError, NetworkFolderError

SHED_FIRST = frozenset({"device_sample", "process_sample", "server_sample", "system_sample"})
SHED_NEXT = frozenset({"gpu_sample", "nvlink_sample"})
HYSTERESIS = 1.1  # a step is taken back when there is a tenth more than its limit, or it would flicker
FULL_BYTES = 64 * 1024  # with less SQLite cannot open its log and shared memory

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "ncpfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "fuse.gcsfuse"}
)

_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes a blank, a tab and a backslash


class SpaceLevel(IntEnum):
    """How much room there is; see the order of shedding above."""

    PLENTY = 0
    LOW = 1
    READ_ONLY = 2


@dataclass(frozen=True, slots=True)
class SpaceLimits:
    """Free bytes below which recording sheds; 0 turns a step off."""

    low_bytes: int = 500_000_000
    read_only_bytes: int = 100_000_000

    def level(self, free_bytes: int, before: SpaceLevel) -> SpaceLevel:
        """The level at so many free bytes, after the level `before`."""
        if free_bytes < self._limit(self.read_only_bytes, is_below=before >= SpaceLevel.READ_ONLY):
            return SpaceLevel.READ_ONLY
        if free_bytes < self._limit(self.low_bytes, is_below=before >= SpaceLevel.LOW):
            return SpaceLevel.LOW
        return SpaceLevel.PLENTY

    def _limit(self, limit_bytes: int, *, is_below: bool) -> float:
        return limit_bytes * HYSTERESIS if is_below else limit_bytes


class SpaceWatch:
    """The space level of a folder over time.

    Args:
        limits: When to shed.
        free: Free bytes now.
    """

    def __init__(self, limits: SpaceLimits, free: Callable[[], int]) -> None:
        self._limits = limits
        self._free = free
        self.level = SpaceLevel.PLENTY
        self.free_bytes = 0

    def look(self) -> SpaceLevel:
        """The level now. A folder that cannot be asked counts as it did: the append will say what is wrong."""
        try:
            self.free_bytes = self._free()
        except OSError:
            return self.level
        self.level = self._limits.level(self.free_bytes, self.level)
        return self.level


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write on the folder's file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_full(folder: Path) -> bool:
    try:
        return free_bytes(folder) < FULL_BYTES
    except OSError:
        return False


def full_disk(folder: Path) -> LedgerFullError:
    return LedgerFullError(
        f"The ledger {folder} takes no events: its disk is full", "free some space, and recording goes on by itself"
    )


@contextmanager
def disk_errors_in_words(folder: Path, problem: str) -> Iterator[None]:
    """Turns what a full or failing disk raises into one sentence; `problem` says what was not done.

    Raises:
        LedgerFullError: The disk is full.
        LedgerUnusableError: It fails otherwise.
    """
    try:
        yield
    except (OSError, apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.CantOpenError) as error:
        is_out_of_space = isinstance(error, apsw.FullError) or getattr(error, "errno", None) == errno.ENOSPC
        reason = ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
        kind = LedgerFullError if is_out_of_space or is_full(folder) else LedgerUnusableError
        raise kind(f"{problem} ({reason})", "see that its disk has space and is writable") from error


def check_file_system(folder: Path, proc: Path = Path("/proc")) -> None:
    """Refuse to write a ledger on a network file system: SQLite's log needs memory that all its users share.

    Raises:
        NetworkFolderError: It lies on one.
    """
    kind = file_system_of(folder, proc)
    if kind in NETWORK_FILE_SYSTEMS:
        raise NetworkFolderError(
            f"The ledger {folder} would lie on a network file system ({kind}), where SQLite's log is not safe",
            "name a folder on a local disk with --data",
        )


def file_system_of(folder: Path, proc: Path = Path("/proc")) -> str | None:
    """The type of the file system that holds `folder` or would hold it, as the kernel names it; None if unknown."""
    path = folder.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    path = path.resolve()
    try:
        lines = (proc / "self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    best: tuple[int, str | None] = (-1, None)
    for line in lines:
        mounted, _, source = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), mounted.split()[4]))
        if (path == point or point in path.parents) and len(point.parts) >= best[0]:
            best = (len(point.parts), source.split()[0])
    return best[1]
