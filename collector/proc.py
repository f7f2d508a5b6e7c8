"""The kernel's text files, under a root that is passed in: a fixture is a folder and not a mock.

psutil, which serves for sensors, reads these too and was tried: its root is a variable of the module; cpu_count asks
sysconf and disk_io_counters falls back on the machine's own /sys, whatever the root; cpu_times has the columns of the
machine that imported it; and virtual_memory makes 0 of a line that is missing (seen in psutil 7.2).
"""

from pathlib import Path

from store.events import AbsenceReason

UNREADABLE = (OSError, LookupError, ValueError)
"""What comes of a file that is missing or refused, or has another layout than the one known here."""


def absence_reason(error: Exception) -> AbsenceReason:
    """The reason that stands beside the NULL where reading raised one of `UNREADABLE`."""
    return AbsenceReason.NO_PERMISSION if isinstance(error, PermissionError) else AbsenceReason.NOT_SUPPORTED


def lines(path: Path) -> dict[str, str]:
    """First word to the rest, of every line: the layout of stat, vmstat and pressure/*."""
    pairs = (line.partition(" ") for line in path.read_text().splitlines())
    return {first: rest for first, _, rest in pairs}


def table(path: Path) -> list[list[str]]:
    """The words of every line: the layout of diskstats and, behind two lines of headings, of net/dev."""
    return [line.split() for line in path.read_text().splitlines()]


def meminfo_bytes(proc: Path) -> dict[str, int]:
    """Name to bytes, of every line of meminfo that is an amount."""
    pairs = (line.partition(":") for line in (proc / "meminfo").read_text().splitlines())
    return {name: int(amount.removesuffix("kB")) * 1024 for name, _, amount in pairs if amount.endswith("kB")}


def text(path: Path) -> str | None:
    """The file's text without white space around it; None where there is none."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
