"""`gpuledger init`: entering the MCP server into a client's settings, and taking it out again.

The command is written absolute: clients are started from desktops and editors that do not have a shell's PATH.
What else stands in the file stays, comments and order as well; the file as it was is kept beside it as `.bak`.
"""

import difflib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tomlkit
from tomlkit.exceptions import TOMLKitError

from gpuledger.jsonc import parse, with_member, without_member
from store.errors import UsageError, did_you_mean
from store.files import publish_file

SERVER_NAME = "gpuledger"
Entry = Mapping[str, Any]


class Format(Protocol):
    """How a client's settings are written. Each raises ValueError for a text that is not of that form."""

    def entered(self, text: str, servers_key: str, entry: Entry) -> str:
        """The text with the server in it."""

    def taken_out(self, text: str, servers_key: str) -> str:
        """The text without it; the same text where it is not in it."""

    def servers(self, text: str, servers_key: str) -> Mapping[str, Any]:
        """What stands there by name of the server."""


class Json:
    """JSON, with comments where the client allows them."""

    def entered(self, text: str, servers_key: str, entry: Entry) -> str:
        text = text if text.strip() else "{}\n"
        root = _object(parse(text), "it holds no object")
        servers = root.member(servers_key)
        if servers is None:
            return with_member(text, root, servers_key, {SERVER_NAME: entry})
        present = _object(servers.node, f"{servers_key} is not an object").member(SERVER_NAME)
        same = present is not None and present.node.value == entry
        return text if same else with_member(text, servers.node, SERVER_NAME, entry)

    def taken_out(self, text: str, servers_key: str) -> str:
        root = _object(parse(text), "it holds no object") if text.strip() else None
        servers = root.member(servers_key) if root else None
        if root is None or servers is None:
            return text
        if _object(servers.node, f"{servers_key} is not an object").member(SERVER_NAME) is None:
            return text
        is_alone = len(servers.node.members or ()) == 1
        return without_member(text, root, servers_key) if is_alone else without_member(text, servers.node, SERVER_NAME)

    def servers(self, text: str, servers_key: str) -> Mapping[str, Any]:
        return _mapping(_mapping(parse(text).value).get(servers_key))


class Toml:
    """TOML: one table a server."""

    def entered(self, text: str, servers_key: str, entry: Entry) -> str:
        document = _toml(text, servers_key)
        servers = document.setdefault(servers_key, tomlkit.table(is_super_table=True))
        if servers.get(SERVER_NAME) == entry:
            return text
        table = tomlkit.table()
        table.update(entry)
        servers[SERVER_NAME] = table
        return tomlkit.dumps(document)

    def taken_out(self, text: str, servers_key: str) -> str:
        document = _toml(text, servers_key)
        if SERVER_NAME not in document.get(servers_key, {}):
            return text
        del document[servers_key][SERVER_NAME]
        if not document[servers_key]:
            del document[servers_key]
        return tomlkit.dumps(document)

    def servers(self, text: str, servers_key: str) -> Mapping[str, Any]:
        return _mapping(_toml(text, servers_key).get(servers_key))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _object(node: Any, problem: str) -> Any:
    if node.members is None:
        raise ValueError(problem)
    return node


def _toml(text: str, servers_key: str) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ValueError(str(error)) from None
    if not isinstance(document.get(servers_key, {}), Mapping):
        raise ValueError(f"{servers_key} is not a table")  # noqa: TRY004 - of the text, not of a caller's argument
    return document


@dataclass(frozen=True, slots=True)
class Client:
    """An MCP client and where it keeps its servers.

    Args:
        path: Scope to the settings file: below the home for user, below the working folder for project.
        servers_key: What holds the servers by name.
        says_type: Whether an entry says that the server is started as a command.
        format: How the file is written.
    """

    path: Mapping[str, str]
    servers_key: str = "mcpServers"
    says_type: bool = False
    format: Format = Json()  # noqa: RUF009 - it has no state


_DESKTOP = "Library/Application Support" if sys.platform == "darwin" else ".config"
CLIENTS: Mapping[str, Client] = {
    "claude-code": Client({"user": ".claude.json", "project": ".mcp.json"}, says_type=True),
    "claude-desktop": Client({"user": f"{_DESKTOP}/Claude/claude_desktop_config.json"}),
    "cursor": Client({"user": ".cursor/mcp.json", "project": ".cursor/mcp.json"}),
    "vscode": Client(
        {"user": f"{_DESKTOP}/Code/User/mcp.json", "project": ".vscode/mcp.json"}, "servers", says_type=True
    ),
    "codex": Client({"user": ".codex/config.toml", "project": ".codex/config.toml"}, "mcp_servers", format=Toml()),
    "gemini": Client({"user": ".gemini/settings.json", "project": ".gemini/settings.json"}),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Whose settings are meant.

    Args:
        client: A name in `CLIENTS`.
        scope: user or project.
        home: The user's home.
        folder: The working folder.
    """

    client: str
    scope: str
    home: Path
    folder: Path

    def resolved(self) -> tuple[Client, Path]:
        """The client and its file.

        Raises:
            UsageError: There is no such client, or it has no such settings.
        """
        if self.client not in CLIENTS:
            hint = did_you_mean(self.client, CLIENTS, f"there is {', '.join(CLIENTS)}")
            raise UsageError(f"There is no client {self.client!r}", hint)
        known = CLIENTS[self.client]
        if self.scope not in known.path:
            hint = f"give --scope {' or --scope '.join(known.path)}"
            raise UsageError(f"{self.client} has no {self.scope} settings", hint)
        return known, (self.home if self.scope == "user" else self.folder) / known.path[self.scope]


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


def enter_server(place: Place, *, data: Path | None, dry_run: bool) -> ClientChange:
    """Write the server into the client's settings; an entry of the same name is replaced.

    Args:
        place: Whose settings.
        data: The ledger's folder, where it is not the usual one.
        dry_run: Only say what would change.

    Raises:
        UsageError: There is no such client, or its settings file is damaged or cannot be written.
    """
    client, path = place.resolved()
    arguments = ["mcp", *(["--data", str(data.absolute())] if data else [])]
    entry = {**({"type": "stdio"} if client.says_type else {}), "command": server_command(), "args": arguments}
    return _change(path, lambda text: client.format.entered(text, client.servers_key, entry), dry_run)


def remove_server(place: Place, *, dry_run: bool) -> ClientChange:
    """Take the server out of the client's settings again. Raises as `enter_server`."""
    client, path = place.resolved()
    return _change(path, lambda text: client.format.taken_out(text, client.servers_key), dry_run)


def entered_commands(home: Path, folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Client, file and command of each entry that is there; files that cannot be read have none."""
    for name, client in CLIENTS.items():
        for scope, below in client.path.items():
            path = (home if scope == "user" else folder) / below
            try:
                entry = client.format.servers(path.read_text(encoding="utf-8"), client.servers_key).get(SERVER_NAME)
            except (OSError, ValueError):
                continue
            if isinstance(entry, Mapping):
                yield name, path, str(entry.get("command", ""))


def _change(path: Path, edit: Callable[[str], str], dry_run: bool) -> ClientChange:
    before = _read(path)
    try:
        after = edit(before)
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})", "correct it, or move it aside") from None
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(old, new, str(path), str(path)))
    if dry_run or not difference:
        return ClientChange(path, difference, None)
    return ClientChange(path, difference, _write(path, before, after))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "make it readable, or move it aside") from None


def _write(path: Path, before: str, after: str) -> Path | None:
    path = path.resolve()  # a link to where somebody keeps all settings stays one
    backup = path.with_name(f"{path.name}.bak") if path.exists() else None
    mode = path.stat().st_mode if path.exists() else 0o600
    try:
        if backup:
            publish_file(backup, lambda temporary: _fill(temporary, before, mode))
        publish_file(path, lambda temporary: _fill(temporary, after, mode))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "make it writable for this user") from error
    return backup


def _fill(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.chmod(mode & 0o777)
    path.write_text(text, encoding="utf-8")
