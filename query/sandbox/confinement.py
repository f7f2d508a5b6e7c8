"""What the process that runs other people's SQL can still do: read some files, and use some memory.

Landlock (Linux 5.13) lets a process without rights give up its own: here, every file but those named, every change of
any file, running programs, TCP (Linux 6.7), and signals to others (6.12). It binds the thread that asks for it and
those that it starts: asked for after DuckDB had made its threads, those went on writing. So it is asked for first,
before a library is imported that may start a thread; this module imports none.
"""

import ctypes
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

ENFORCED_FROM = 3
"""The version of Landlock (Linux 6.2) from which on no file can be cut short either."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 5: 16}  # how many there are, from executing to ioctl on devices
_TCP_RIGHTS = 0b11  # bind, connect; from version 4 on
_SCOPES = 0b11  # abstract Unix sockets, signals; from version 6 on
_OPEN_FILES_MAX = 4096  # DuckDB keeps every file of a query open

# DuckDB aborts where it cannot read its control group, and reads its processors; libraries are loaded as they are met.
_SYSTEM_PATHS = (
    *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"),
    *("/usr/share/zoneinfo", "/etc/localtime", "/usr/share/locale"),
    *("/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/sys/fs/cgroup", "/sys/devices/system/cpu"),
)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """Which Landlock this kernel has; 0 where it has none, or is not allowed to use it."""
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(version, 0)


def limit_resources(memory_max_bytes: int) -> None:
    """Bound this process's memory, and let it write no byte to any file, whatever it may open."""
    wanted = {
        resource.RLIMIT_AS: memory_max_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES_MAX,
    }
    for limit, value in wanted.items():
        _, most = resource.getrlimit(limit)
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (bound, bound))


def restrict_files(readable: Iterable[str]) -> int:
    """Let this thread, and those it starts, read what lies under some paths, and nothing else; for good.

    Returns:
        The version of Landlock that holds this; 0: nothing does.

    Raises:
        OSError: There is Landlock, and it refused.
    """
    version = landlock_version()
    if version == 0:
        return 0
    rights = _file_rights(version)
    ruleset = _called(_CREATE_RULESET, *_ruleset(rights, version), 0)
    try:
        for path in _there_are(readable):
            _allow_reading(ruleset, path)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise _refusal()
        _called(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _file_rights(version: int) -> int:
    count = max(bits for since, bits in _FILE_RIGHTS_BY_VERSION.items() if since <= version)
    return (1 << count) - 1


def _ruleset(rights: int, version: int) -> tuple[object, ctypes.c_size_t]:
    """The rights given up, in as many words as this version knows."""
    words = 1 if version < 4 else 2 if version < 6 else 3
    record = _Ruleset(rights, _TCP_RIGHTS if words > 1 else 0, _SCOPES if words > 2 else 0)
    return ctypes.byref(record), ctypes.c_size_t(8 * words)


def _there_are(readable: Iterable[str]) -> Iterator[Path]:
    paths = dict.fromkeys(map(Path, (*readable, *_SYSTEM_PATHS)))
    return (path for path in paths if path.exists())


def _allow_reading(ruleset: int, path: Path) -> None:
    rights = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _called(_ADD_RULE, ruleset, 1, ctypes.byref(_PathBeneath(rights, descriptor)), 0)
    finally:
        os.close(descriptor)


def _called(*arguments: object) -> int:
    result: int = _libc().syscall(*arguments)
    if result < 0:
        raise _refusal()
    return result


def _refusal() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"Landlock refused: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
