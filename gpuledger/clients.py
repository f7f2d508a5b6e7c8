"""`gpuledger init`: entering the MCP server into a client's settings.

The command is written absolute: clients are started from desktops and editors that do not have a shell's PATH.
What else stands in the file stays; the file as it was is kept beside it as `.bak`.
"""

import difflib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import UsageError, did_you_mean
from store.files import publish_file

SERVER_NAME = "gpuledger"


@dataclass(frozen=True, slots=True)
class Client:
    """An MCP client and where it keeps its servers.

    Args:
        path: Scope to the settings file, given the home and the working folder.
        servers_key: The key that holds the servers by name.
        entry: What is written for a server that is started as a command.
    """

    path: Mapping[str, Callable[[Path, Path], Path]]
    servers_key: str
    entry: Callable[[str, list[str]], dict[str, Any]]


CLIENTS: Mapping[str, Client] = {
    "claude-code": Client(
        path={
            "user": lambda home, _: home / ".claude.json",
            "project": lambda _, folder: folder / ".mcp.json",
        },
        servers_key="mcpServers",
        entry=lambda command, arguments: {"type": "stdio", "command": command, "args": arguments},
    ),
}


@dataclass(frozen=True, slots=True)
class ClientChange:
    """What `init` did or would do: the file, the difference, and the copy of the file as it was."""

    path: Path
    difference: str
    backup: Path | None


def server_command() -> str:
    """The absolute path of the `gpuledger` command that belongs to this Python."""
    beside = Path(sys.executable).with_name("gpuledger")
    return str(beside if beside.exists() else Path(shutil.which("gpuledger") or sys.argv[0]).absolute())


def enter_server(
    client: str, *, scope: str, data: Path | None, home: Path, folder: Path, dry_run: bool
) -> ClientChange:
    """Write the server into the client's settings; an entry of the same name is replaced.

    Args:
        client: A name in `CLIENTS`.
        scope: user or project.
        data: The ledger's folder, where it is not the usual one.
        home: The user's home.
        folder: The working folder.
        dry_run: Only say what would change.

    Raises:
        UsageError: There is no such client, or its settings file is damaged or cannot be written.
    """
    if client not in CLIENTS:
        hint = did_you_mean(client, CLIENTS, f"there is {', '.join(CLIENTS)}")
        raise UsageError(f"There is no client {client!r}", hint)
    known = CLIENTS[client]
    if scope not in known.path:
        raise UsageError(f"{client} has no {scope} settings", f"give --scope {' or --scope '.join(known.path)}")
    path = known.path[scope](home, folder)
    before_text, settings = _read(path)
    arguments = ["mcp", *(["--data", str(data.absolute())] if data else [])]
    servers = settings.setdefault(known.servers_key, {})
    if not isinstance(servers, dict):
        raise UsageError(f"{path} is damaged ({known.servers_key} is not an object)", "correct it, or move it aside")
    servers[SERVER_NAME] = known.entry(server_command(), arguments)
    after_text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    difference = "".join(
        difflib.unified_diff(
            before_text.splitlines(keepends=True), after_text.splitlines(keepends=True), str(path), str(path)
        )
    )
    if dry_run or not difference:
        return ClientChange(path, difference, None)
    return ClientChange(path, difference, _write(path, before_text, after_text))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "make it readable, or move it aside") from None
    try:
        settings = json.loads(text or "{}")
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})", "correct it, or move it aside") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path} is damaged (it holds no object)", "correct it, or move it aside")
    return text, settings


def _write(path: Path, before_text: str, after_text: str) -> Path | None:
    backup = path.with_name(f"{path.name}.bak") if path.exists() else None
    mode = path.stat().st_mode if path.exists() else 0o600
    try:
        if backup:
            publish_file(backup, lambda temporary: _fill(temporary, before_text, mode))
        publish_file(path, lambda temporary: _fill(temporary, after_text, mode))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "make it writable for this user") from error
    return backup


def _fill(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.chmod(mode & 0o777)
    path.write_text(text)
