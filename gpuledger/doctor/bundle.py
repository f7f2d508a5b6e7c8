"""`gpuledger doctor --bundle`: what belongs to a report of a bug, in one file, without what is nobody's business.

Left out are names of processes, users and the host, serial numbers, and the values of settings that hold a secret;
the home folder is written `~`.
"""

import io
import platform
import re
import socket
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from gpuledger.answers.output import json_text
from gpuledger.doctor.examination import Report
from gpuledger.settings import SettingOrigin
from query.reading.local_source import LocalSource
from store.errors import GpuledgerError, UsageError
from store.files import publish_file

EVENTS_MAX = 500  # of each kind, the newest
LEFT_OUT = "(left out)"
_SECRET = re.compile(r"token|secret|password|passwd|credential|key|header|auth", re.IGNORECASE)
_KINDS = ("ledger_event", "gpu_event", "inventory")
_PRIVATE = frozenset({"host", "pid", "process_name", "serial"})
_PACKAGES = (
    "apsw",
    "duckdb",
    "mcp",
    "msgspec",
    "nvidia-ml-py",
    "pyarrow",
    "pydantic",
    "pynvml",
    "starlette",
    "uvicorn",
)


def check_name(path: Path) -> None:
    """Refuse a file that is there already.

    Raises:
        UsageError: It is.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", "name another file")


def write_bundle(path: Path, report: Report, *, home: Path) -> list[str]:
    """Write the bundle and give the names of what is in it.

    Args:
        path: The file to write.
        report: What the doctor found.
        home: The user's home.

    Raises:
        UsageError: The file cannot be written.
    """
    members = {
        "doctor.txt": report.text(),
        "doctor.json": json_text(report.value()),
        "settings.json": json_text([_without_secret(one) for one in report.origins]),
        "versions.json": json_text(_versions()),
        "events.json": json_text(_events(report.ledger) if report.ledger else {}),
    }
    names = {str(home): "~", socket.gethostname(): "HOST"}
    try:
        publish_file(path, lambda temporary: _pack(temporary, _without(members, names), report.checked_at.timestamp()))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "name another file") from error
    return list(members)


def _without(members: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """The texts with each name replaced, where it stands as a word of its own."""
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names if len(name) > 1) or r"(?!)")
    return {member: pattern.sub(lambda found: names[found[0]], text) for member, text in members.items()}


def _pack(path: Path, members: Mapping[str, str], time_s: float) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"gpuledger-bundle/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time_s), 0o644
            archive.addfile(entry, io.BytesIO(content))


def _without_secret(one: SettingOrigin) -> dict[str, Any]:
    is_secret = bool(_SECRET.search(one.name)) and bool(one.value)
    return {"setting": one.name, "value": LEFT_OUT if is_secret else str(one.value), "origin": one.origin}


def _versions() -> dict[str, str]:
    found = {
        name: distribution.version
        for distribution in distributions()
        if (name := str(distribution.metadata["Name"]).lower()) in _PACKAGES
    }
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        **dict(sorted(found.items())),
    }


def _events(folder: Path) -> dict[str, Any]:
    """The newest events of the kinds that tell of the recorder and the GPUs; an error where they cannot be read."""
    try:
        with LocalSource(folder).engine(_KINDS) as engine:
            return {kind: [*_rows(engine.query(_newest(kind)).to_pylist())] for kind in _KINDS}
    except GpuledgerError as error:
        return {"error": str(error)}


def _newest(kind: str) -> str:
    return f"select * from {kind} order by seq desc limit {EVENTS_MAX}"


def _rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in rows:
        yield {name: value for name, value in row.items() if value is not None and name not in _PRIVATE}
