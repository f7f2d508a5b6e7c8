"""Whose a process is, from /proc alone: no Docker socket, no kubelet, no privilege beyond seeing the pid.

The control group's path names the container, the pod and the Slurm job; a socket of the runtime would tell no more of
that and is root by another name. A process that cannot be seen (another pid namespace, hidepid, gone) is still a
process on a GPU, and is described as one that is not visible.
"""

import os
import pwd
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

COMMAND_CHARACTERS_MAX = 1024
KNOWN_PROCESSES_MAX = 4096
HIDDEN = "***"
_COMMAND_BYTES_MAX = 16_384  # one argument alone may have 128 KiB, and 1,024 characters are kept
_STAT_BYTES_MAX = 1 << 20  # of /proc/stat, which has a line of interrupts that grows with the machine
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# --- the control group: of containers within containers the innermost, which is the last in the path

_CONTAINER = re.compile(
    r"(?:(?<!conmon)[-/:]([0-9a-f]{64})"  # conmon watches a container and is not in it
    r"|(?:/docker/|/libpod_parent/|(?:docker|cri-containerd|crio|libpod|nerdctl)[-:])([0-9a-f]{12,63}))"
    r"(?:\.scope)?(?=/|$)"
)
_POD = re.compile(r"[-/]pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=\.slice|[/:]|$)")
"""A slice's name has `_` for `-`; the uid of a static pod is the hash of its manifest and has neither."""
_SLURM_JOB = re.compile(r"/(?:slurm(?:_[^/]+)?(?:/uid_\d+)?|(?:[^/]+_)?slurmstepd\.scope)/job_(\d+)(?=/|$)")

# --- secrets

_WORD = re.compile(r"[\w.\-]++")
_PART_OF_NAME = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ASSIGNS = re.compile(r"[\"']?\s*+[=:]")
_BLANKS = re.compile(r"\s++|\Z")
_OPTION = re.compile(r"--[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*(?:=.*)?")
_SCHEMES = frozenset({"bearer", "basic", "digest", "token"})
_SECRETS = frozenset({"auth", "authorization", "credential", "credentials", "creds", "secrets", "passwords", "apikeys"})
_SECRET_ENDINGS = ("token", "secret", "password", "passwd", "passphrase", "pwd", "apikey", "accesskey", "secretkey")
_OPENING_KEYS = frozenset({"access", "account", "api", "encryption", "master", "private", "secret", "signing"})
_NOT_THE_SECRET = frozenset(
    {"budget", "count", "dir", "enabled", "expiry", "file", "id", "ids", "len", "length", "limit", "method", "mode"}
    | {"name", "path", "required", "size", "ttl", "type"}
)
"""What names end with that speak about a secret: `--pad-token-id 0`, `--password-file /run/secrets/db`."""
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf_|gh[oprsu]_)[A-Za-z0-9]{12,}"
    r"|(?:github_pat_|glpat-|nvapi-|sk-|xox[a-z]-)[\w-]{12,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}"
    r"|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?)"  # a JSON web token
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^\s/?#@:]*+):[^\s/?#]*@")


def redacted(arguments: Iterable[str]) -> str:
    """A command line without its secrets, its arguments joined by blanks.

    From the first thing in an argument that introduces a secret, the rest of that argument is hidden, whatever else is
    in it: a password may have blanks, and a script given to `-c` cannot be told from one. Recognised are flags,
    assignments and headers whose name speaks of a secret, `Bearer`, passwords in URLs and the shapes of well-known
    tokens. `tokens` in the plural are what a model reads, and hide nothing: `--max-tokens 4096`.
    """
    return " ".join(filter(None, _redacted(arguments)))


def _redacted(arguments: Iterable[str]) -> Iterator[str]:
    is_secret = False
    for argument in arguments:
        if is_secret and not _OPTION.fullmatch(argument):
            yield HIDDEN
            is_secret = argument.casefold() in _SCHEMES or (argument.startswith("-") and _names_a_secret(argument))
            continue
        shown, secret = _parted(argument)
        is_secret = secret is not None and secret.casefold() in {"", *_SCHEMES}
        shown = _PASSWORD_IN_URL.sub(rf"\1:{HIDDEN}@", _SHAPES.sub(HIDDEN, shown))
        yield f"{shown}{HIDDEN}" if secret else shown


def _parted(argument: str) -> tuple[str, str | None]:
    """What may be shown of an argument, and its secret: empty where the next argument is it, None where there is none.

    The secret is without the quotes and blanks around it.
    """
    for word in _WORD.finditer(argument):
        name, end = word.group(), word.end()
        joint = _ASSIGNS.match(argument, end)
        if not joint and (name.startswith("-") or name.casefold() == "bearer"):
            joint = _BLANKS.match(argument, end)
        if joint and (name.casefold() == "bearer" or _names_a_secret(name)):
            return argument[: joint.end()], argument[joint.end() :].strip(" \"'")
    return argument, None


def _names_a_secret(name: str) -> bool:
    words = [part.casefold() for part in _PART_OF_NAME.findall(name)]
    if not words or words[-1] in _NOT_THE_SECRET:
        return False
    return any(word in _SECRETS or word.endswith(_SECRET_ENDINGS) for word in words) or any(
        before in _OPENING_KEYS and word in {"key", "keys"} for before, word in pairwise(words)
    )


def _line(raw: bytes) -> str:
    """Any bytes as one line of text: a blank for what would control the terminal or turn the text's direction."""
    text = raw.decode(errors="replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# --- the process


@dataclass(frozen=True, slots=True)
class _Stat:
    """What /proc/PID/stat says."""

    comm: bytes
    start_ticks: int
    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A process that was described before."""

    comm: bytes
    start_ticks: int
    facts: Mapping[str, Any]


class Attributor:
    """Describes processes by their pid.

    What does not change is read once for each pid and start, so a pid that was given to another process is described
    anew; so is a process that took another name, as one does that executes a program or sets its title (Ray, vLLM).
    Its start is known to a second, the resolution of the kernel's time of boot, and is kept: it is half of the
    process's identity and must not move when the clock is set.

    Args:
        proc: Where the kernel's process files are.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._known: dict[int, _Known] = {}

    def describe(self, pid: int) -> Mapping[str, Any]:
        """The columns of `process_sample` that /proc knows; one that cannot be read is left out."""
        folder = f"{self._proc}/{pid}"
        raw = _bytes(f"{folder}/stat")
        if raw is None:
            self._known.pop(pid, None)
            return {"process_visible": False}
        stat = _understood(raw, _stat)
        lasting = self._lasting(pid, folder, stat) if stat else _lasting(folder)
        changing = {
            "cpu_seconds": stat.cpu_seconds if stat else None,
            "host_memory_bytes": stat.resident_bytes if stat else None,
        }
        return {"process_visible": True, **lasting, **_present(changing)}

    def _lasting(self, pid: int, folder: str, stat: _Stat) -> Mapping[str, Any]:
        known = self._known.pop(pid, None)
        if known and known.start_ticks != stat.start_ticks:
            known = None
        if known is None or known.comm != stat.comm:
            started_at = known.facts.get("started_at") if known else self._started_at(stat)
            named = _present({"name": _line(stat.comm) or None, "started_at": started_at})
            known = _Known(stat.comm, stat.start_ticks, named | _lasting(folder))
        self._known[pid] = known  # last, so that the first is the one that was not asked for the longest
        if len(self._known) > KNOWN_PROCESSES_MAX:
            del self._known[next(iter(self._known))]
        return known.facts

    def _started_at(self, stat: _Stat) -> int | None:
        """Microseconds since the epoch, UTC."""
        boot_s = _read(f"{self._proc}/stat", _boot_s, bytes_max=_STAT_BYTES_MAX)
        return None if boot_s is None else boot_s * 1_000_000 + stat.start_ticks * 1_000_000 // _TICKS_PER_SECOND


def _lasting(folder: str) -> dict[str, Any]:
    """What a process keeps while it keeps its name."""
    lines = _read(f"{folder}/cgroup", lambda raw: raw.decode(errors="replace").splitlines()) or []
    pod = _innermost(_POD, lines)
    return _present(
        {
            "command": _read(f"{folder}/cmdline", _command),
            "user": _read(f"{folder}/status", _user),
            "container_id": _innermost(_CONTAINER, lines),
            "pod_uid": pod and pod.replace("_", "-"),
            "slurm_job_id": _innermost(_SLURM_JOB, lines),
        }
    )


def _innermost(name: re.Pattern[str], lines: Iterable[str]) -> str | None:
    """The last of its kind in the first path that has one; cgroup v1 says a path for each controller, v2 one."""
    for line in lines:
        found: list[re.Match[str]] = list(name.finditer(line.split(":", 2)[-1]))
        if found:
            return found[-1].group(found[-1].lastindex or 0)
    return None


def _command(raw: bytes) -> str | None:
    """None for a kernel thread or a process that has ended, which have none."""
    if len(raw) == _COMMAND_BYTES_MAX:  # the last word is cut, and half a secret may have another shape
        raw = raw[: max(raw.rfind(b"\0"), raw.rfind(b" "), 0)]
    return redacted(map(_line, raw.rstrip(b"\0").split(b"\0")))[:COMMAND_CHARACTERS_MAX] or None


def _user(raw: bytes) -> str:
    """Who started it: the real user, whose name a process that changed its rights still has."""
    uid = next(int(line.split()[1]) for line in raw.splitlines() if line.startswith(b"Uid:"))
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _stat(raw: bytes) -> _Stat:
    before, _, after = raw.rpartition(b")")  # the name may have brackets, blanks and line feeds itself
    words = after.split()
    cpu_ticks = int(words[11]) + int(words[12])
    return _Stat(
        before.partition(b"(")[2],
        start_ticks=int(words[19]),
        cpu_seconds=cpu_ticks / _TICKS_PER_SECOND,
        resident_bytes=int(words[21]) * _PAGE_BYTES,
    )


def _boot_s(raw: bytes) -> int:
    return next(int(line.split()[1]) for line in raw.splitlines() if line.startswith(b"btime "))


def _read(path: str, understand: Callable[[bytes], T], bytes_max: int = _COMMAND_BYTES_MAX) -> T | None:
    """What a file says; None where it cannot be read."""
    raw = _bytes(path, bytes_max)
    return None if raw is None else _understood(raw, understand)


def _bytes(path: str, bytes_max: int = _COMMAND_BYTES_MAX) -> bytes | None:
    """The beginning of a file; None where it cannot be read. A third of what `Path.read_bytes` costs."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, bytes_max)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _understood(raw: bytes, understand: Callable[[bytes], T]) -> T | None:
    """None where the bytes have another layout than the one known here."""
    try:
        return understand(raw)
    except (LookupError, OverflowError, StopIteration, ValueError):
        return None


def _present(answers: Mapping[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in answers.items() if value is not None}
