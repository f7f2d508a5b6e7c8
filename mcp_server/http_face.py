"""What stands between a network and the server: who may speak, under which name, how much and how long.

A browser page can reach a port of this machine (DNS rebinding), and so can every other user of it: loopback is no
fence. So each request must name an expected Host, come from an expected Origin or none, and show a token, before a
byte of its body is read; the body is bounded in bytes and in time. `/healthz` asks for Host and Origin alone.
"""

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.oauth import OAuthSettings
from store.errors import UsageError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
HEALTH_PATH = "/healthz"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How the server is reached over HTTP.

    Args:
        host: The address that it listens on.
        auth: token, a secret in the ledger's folder; oauth, tokens of an issuer; none, everybody who reaches the port.
        allowed_hosts: What clients may send as Host, exactly; where empty, the names that follow from `host`.
        allowed_origins: From which pages browsers may ask, exactly, such as https://chat.example.com; where empty,
            from this server's own.
        body_bytes_max: Longest request.
        body_time_limit_s: A request that has not arrived whole after so long is refused.
        insecure: Serve everybody who reaches a public address.
        oauth: Whose tokens are taken, with auth=oauth.
    """

    host: str = "127.0.0.1"
    auth: Literal["token", "oauth", "none"] = "token"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    body_bytes_max: int = 1_000_000
    body_time_limit_s: float = 10.0
    insecure: bool = False
    oauth: OAuthSettings | None = None

    def check(self) -> None:
        """Refuse what must not be served.

        Raises:
            UsageError: Everybody on a network would be answered, a name is a pattern, or an issuer is missing.
        """
        if self.auth == "none" and not is_loopback(self.host) and not self.insecure:
            raise UsageError(
                f"MCP on {self.host} without a token would answer everybody who reaches this machine",
                "set mcp.auth to token or oauth, mcp.host to 127.0.0.1, or give --insecure",
            )
        if self.auth == "oauth" and self.oauth is None:
            raise UsageError("mcp.auth is oauth, but no issuer is known", "set mcp.oauth_issuer and mcp.oauth_audience")
        for setting, values in (("allowed_hosts", self.allowed_hosts), ("allowed_origins", self.allowed_origins)):
            pattern = next((value for value in values if "*" in value or not value.strip()), None)
            if pattern is not None:
                raise UsageError(f"mcp.{setting} cannot hold {pattern!r}", "write each name out, with its port")

    def security(self, port: int) -> TransportSecuritySettings:
        """The names that are answered, as the SDK takes them."""
        hosts = self.allowed_hosts or expected_hosts(self.host, port)
        origins = self.allowed_origins or [f"http://{host}" for host in hosts]
        return TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=list(origins))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def expected_hosts(host: str, port: int) -> tuple[str, ...]:
    """What a client sends as Host when it was given the address that is listened on."""
    name = f"[{host}]" if ":" in host else host
    if is_loopback(host):
        names = {name, *LOOPBACK_NAMES}
    elif host in ("", "0.0.0.0", "::"):  # noqa: S104 - listening everywhere is refused or guarded elsewhere
        names = {*LOOPBACK_NAMES, socket.gethostname()}
    else:
        names = {name}
    return tuple(sorted(f"{one}:{port}" for one in names))


class HttpFace:
    """The first to see a request.

    Args:
        app: The server, with /mcp and /healthz.
        settings: Who may ask.
        port: That is listened on.
        token: That clients must show; None where something else asks for it, or nothing does.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, *, port: int, token: str | None) -> None:
        self._app = app
        self._settings = settings
        self._names = settings.security(port)
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope) or self._too_long(scope)
        if refused:
            await refused(scope, receive, send)
            return
        body = await self._read(receive) if scope["method"] == "POST" else receive
        await (body if isinstance(body, JSONResponse) else self._answer(body))(scope, receive, send)

    def _answer(self, body: Receive) -> ASGIApp:
        async def answer(scope: Scope, _: Receive, send: Send) -> None:
            await self._app(scope, body, send)

        return answer

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if headers.getlist("host")[1:] or host.lower() not in map(str.lower, self._names.allowed_hosts):
            return _refused(421, f"this server is not called {host[:120]!r}: set mcp.allowed_hosts to the names it has")
        if origin is not None and origin not in self._names.allowed_origins:
            return _refused(403, f"pages of {origin[:120]!r} may not ask: set mcp.allowed_origins to those that may")
        if scope["path"] != HEALTH_PATH and not self._is_shown(headers.get("authorization", "")):
            return _refused(
                401,
                "a token is required: 'Authorization: Bearer <content of mcp.token in the ledger folder>'",
                {"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_shown(self, authorization: str) -> bool:
        return self._expected is None or hmac.compare_digest(authorization.encode("latin-1"), self._expected)

    def _too_long(self, scope: Scope) -> JSONResponse | None:
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._settings.body_bytes_max:
            return self._oversize()
        return None

    def _oversize(self) -> JSONResponse:
        return _refused(413, f"a request may have {self._settings.body_bytes_max:,} bytes: see mcp.body_bytes_max")

    async def _read(self, receive: Receive) -> Receive | JSONResponse:
        """The body, whole; or why it is not taken."""
        body = bytearray()
        limit_s = self._settings.body_time_limit_s
        with anyio.move_on_after(limit_s):
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if len(body) > self._settings.body_bytes_max:
                    return self._oversize()
                if not message.get("more_body", False):
                    return _replayed(bytes(body), receive)
            return _replayed(None, receive)
        return _refused(408, f"the request had not arrived after {limit_s:g} s: see mcp.body_time_limit_s")


def _replayed(body: bytes | None, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What the server receives: the body at once (None: the client has left), then what comes after it."""
    first: Message | None = (
        {"type": "http.disconnect"} if body is None else {"type": "http.request", "body": body, "more_body": False}
    )

    async def replay() -> Message:
        nonlocal first
        message, first = first, None
        return message or await receive()

    return replay


def _refused(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    # The body was not read: the connection cannot be used again.
    return JSONResponse({"error": sentence}, status, {**(headers or {}), "Connection": "close"})
