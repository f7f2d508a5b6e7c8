"""What `gpuledger doctor` says of recording itself: settings, ledger, ports, clock, MCP clients."""

import ctypes
import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from gpuledger import __version__
from gpuledger.clients import entered_commands
from gpuledger.doctor.findings import Check, State
from gpuledger.settings import SettingOrigin, Settings
from query.figures import age_words, spelled
from query.present.capabilities import capabilities
from query.present.live import live_state
from query.present.status import LedgerStatus, ledger_status
from query.reading.local_source import LocalSource
from query.sandbox.confinement import ENFORCED_FROM
from store.errors import GpuledgerError, NoLedgerError
from store.repair.recovery import examine

DETAILS_MAX = 5
FREE_BYTES_MIN = 1 << 30
ASK_LIMIT_S = 2.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized to a reliable server
_REFUSED = "no_permission"
_TIMEX_BYTES = 512  # struct timex takes 208


def settings_check(origins: Iterable[SettingOrigin]) -> Check:
    """Which settings are not the defaults, and whence."""
    set_ones = [one for one in origins if one.origin != "default"]
    if not set_ones:
        return Check("settings", State.OK, "all defaults")
    sources = ", ".join(dict.fromkeys(one.origin for one in set_ones))
    return Check("settings", State.OK, f"{len(set_ones)} set, from {sources}")


def refusal(name: str, error: GpuledgerError) -> Check:
    """An error as a finding."""
    return Check(name, State.PROBLEM, f"{error.problem[0].lower()}{error.problem[1:]}", error.hint)


def ledger_checks(folder: Path, now: datetime) -> tuple[list[Check], LedgerStatus | None]:
    """What the ledger holds, whether it is written, and by which version; its status where it can be read."""
    source = LocalSource(folder)
    integrity: list[Check] = []
    try:
        integrity = integrity_checks(folder)
        status = ledger_status(source, now=now, live=live_state(source, now=now))
        recorder = _newest_start(source)
    except NoLedgerError:
        return [
            Check("ledger", State.WARNING, f"nothing was recorded yet in {folder}", "gpuledger up"),
            *integrity,
        ], None
    except GpuledgerError as error:
        return [refusal("ledger", error), *integrity], None
    events = sum(kind.event_count for kind in status.kinds)
    size = f"{folder}, {spelled(status.size_bytes, 'B')}, {events:,} events"
    about_it = [_recording(status), *_version(status, recorder), *_space(folder)]
    return [Check("ledger", State.OK, size), *integrity, *about_it], status


def integrity_checks(folder: Path) -> list[Check]:
    """Whether the ledger's files are as they were written, as far as their names and lengths tell.

    Raises:
        GpuledgerError: The folder holds something that is no ledger, or cannot be read.
    """
    found = examine(folder)
    checks = []
    if found.head == "new":
        return []
    if not found.is_sound:
        wrong = [f"the head is {found.head}"] if found.head != "sound" else []
        wrong += [f"gone or torn: {_files(len(found.unsound))}"] if found.unsound else []
        wrong += [f"in no catalogue: {_files(len(found.uncatalogued))}"] if found.uncatalogued else []
        details = tuple(f"{one.segment.path}: {one.reason}" for one in found.unsound[:DETAILS_MAX])
        hint = "gpuledger verify --repair, or start the recorder, which does it too"
        checks.append(Check("integrity", State.PROBLEM, ", ".join(wrong), hint, details))
    if found.set_aside:
        details = tuple(f"{one.name}: {one.reason}" for one in found.set_aside[:DETAILS_MAX])
        hint = f"what is in {folder / 'quarantine'} is yours to keep or to remove"
        checks.append(Check("quarantine", State.WARNING, f"set aside: {_files(len(found.set_aside))}", hint, details))
    return checks or [Check("integrity", State.OK, "every file is there, 'gpuledger verify' reads them")]


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _newest_start(source: LocalSource) -> str | None:
    sql = "select max_by(gpuledger_version, seq) as version from ledger_event where event = 'start'"
    with source.engine(["ledger_event"]) as engine:
        version: str | None = engine.query(sql).to_pylist()[0]["version"]
    return version


def refused_calls(folder: Path) -> dict[str, frozenset[str]]:
    """UUID of each GPU to the calls that were refused to the collector, as it told last."""
    return {
        gpu.uuid: frozenset(call for call, how in gpu.calls.items() if how == _REFUSED)
        for gpu in capabilities(LocalSource(folder))
    }


def _recording(status: LedgerStatus) -> Check:
    newest = f"newest sample {age_words(status.newest_age_s)} old"
    if status.is_recording:
        details = tuple(f"{name}: {words}" for name, words in status.probes.items() if words != name)
        return Check("recording", State.OK, f"by pid {status.collector_pid}, {newest}", details=details)
    if status.collector_pid:
        finding = f"pid {status.collector_pid} holds the ledger, and sampling has stopped: {newest}"
        return Check("recording", State.PROBLEM, finding, f"kill {status.collector_pid}, then 'gpuledger up'")
    return Check("recording", State.WARNING, f"nothing records: {newest}", "gpuledger up")


def _version(status: LedgerStatus, recorder: str | None) -> Iterator[Check]:
    if status.is_recording and recorder and recorder != __version__:
        finding = f"the collector that runs is of {recorder}, this is {__version__}"
        yield Check("version", State.WARNING, finding, "stop the collector and start it again")


def _space(folder: Path) -> Iterator[Check]:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES_MIN:
        finding = f"{spelled(free_bytes, 'B')} are left on the ledger's file system"
        yield Check(
            "space", State.WARNING, finding, f"make room there: 'du -xh --max-depth=1 {folder}' shows the ledger's part"
        )


def port_checks(settings: Settings) -> Iterator[Check]:
    """Whether the two ports are ours or free."""
    listeners = (
        ("metrics port", settings.collector.host, settings.collector.port, "collector.port"),
        ("MCP port", settings.mcp.host, settings.mcp.port, "mcp.port"),
    )
    for name, host, port, setting in listeners:
        yield _port(name, host, port, setting)


def _port(name: str, host: str, port: int, setting: str) -> Check:
    if port == 0:
        return Check(name, State.OK, "any that is free")
    place = f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout=ASK_LIMIT_S).close()
    except OSError:
        return Check(name, State.OK, f"{place} is free")
    answer = _health(host, port)
    if answer is None:
        finding = f"something else listens at {place}"
        return Check(name, State.PROBLEM, finding, f"'ss -ltnp sport = :{port}' names it; stop it, or set {setting}")
    if reason := answer.get("reason"):
        return Check(name, State.WARNING, f"{place} answers that it is not well: {reason}")
    return Check(name, State.OK, f"{place} answers")


def _health(host: str, port: int) -> dict[str, Any] | None:
    """What /healthz says; None where the listener is not ours."""
    connection = http.client.HTTPConnection(host, port, timeout=ASK_LIMIT_S)
    try:
        connection.request("GET", "/healthz")
        answer = json.loads(connection.getresponse().read(65_536))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) and {"status", "reason"} <= set(answer) else None


def clock_is_synchronized() -> bool | None:
    """Whether the kernel holds its clock for right; None where it does not say."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "adjtimex"):
        return None
    state: int = library.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR


def sql_check(landlock: int, *, refuses_sockets: bool) -> Check:
    """What holds the process that runs ad-hoc SQL: the version of Landlock that this kernel has, and its filter."""
    if landlock >= ENFORCED_FROM:
        held = f"queries run in a process that Landlock {landlock} lets read the sealed files alone"
    else:
        has = f"has version {landlock}" if landlock else "has none"
        faster = f"Landlock {ENFORCED_FROM} would be faster, this kernel {has}"
        held = f"queries run in a process without a file system; {faster}"
    if refuses_sockets:
        return Check("SQL", State.OK, held)
    hint = "a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64, shuts them"
    return Check("SQL", State.WARNING, f"{held}; UDP and Unix sockets are not shut", hint)


def clock_check(is_synchronized: bool | None) -> Iterator[Check]:
    """Whether times can be compared with other machines'."""
    if is_synchronized is False:
        finding = "not synchronized: times may differ from other machines'"
        yield Check("clock", State.WARNING, finding, "sudo timedatectl set-ntp true")
    elif is_synchronized:
        yield Check("clock", State.OK, "synchronized")


def client_check(home: Path, folder: Path) -> Check:
    """Whether an MCP client knows gpuledger, and its command is still there."""
    found = list(entered_commands(home, folder))
    if not found:
        return Check("MCP client", State.OK, "none knows gpuledger", "gpuledger init --client claude-code")
    for client, path, command in found:
        if command and not os.access(command, os.X_OK):
            hint = f"gpuledger init --client {client}"
            return Check("MCP client", State.WARNING, f"{path} starts {command}, which is not there", hint)
    return Check("MCP client", State.OK, f"entered in {', '.join(dict.fromkeys(str(path) for _, path, _ in found))}")
