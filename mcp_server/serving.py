"""The server on its two wires: stdin and stdout, and streamable HTTP."""

import hmac
import signal
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from collector.request_log import RequestLog
from mcp_server.server import make_server
from mcp_server.tools import ServerSettings
from store.errors import GpuledgerError
from store.snapshot import LedgerReader
from store.tokens import token_in

__all__ = ["ServerSettings", "serve_http", "serve_stdio"]

TOKEN_NAME = "mcp.token"  # noqa: S105 - the name of the file that holds one


def serve_stdio(settings: ServerSettings) -> None:
    """Serve one client on stdin and stdout until it leaves."""
    log = _request_log(settings)
    try:
        make_server(settings, log).run()
    finally:
        log.close()


def serve_http(settings: ServerSettings, *, host: str, listener: socket.socket) -> None:
    """Serve any number of clients over streamable HTTP at /mcp until SIGTERM.

    Args:
        settings: As for `make_server`.
        host: The address as it was asked for: what clients send as Host.
        listener: A socket that listens there.
    """
    log = _request_log(settings)
    port = listener.getsockname()[1]
    app = http_app(make_server(settings, log), settings, host=host, port=port, token=ledger_token(settings.folder))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none"))
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn ends on these by itself, then raises them again for whoever started it: nobody here.
        signal.signal(number, lambda *_: None)
    try:
        anyio.run(lambda: server.serve(sockets=[listener]))
    finally:
        log.close()


def _request_log(settings: ServerSettings) -> RequestLog:
    return RequestLog(settings.folder, source="mcp", service="gpuledger-mcp")


def ledger_token(folder: Path) -> str:
    """The token that HTTP clients must show; made at first use, in a file that only its owner may read.

    Raises:
        LedgerUnusableError: The file can neither be read nor made.
    """
    return token_in(folder / TOKEN_NAME)


def http_app(server: MCPServer[Any], settings: ServerSettings, *, host: str, port: int, token: str) -> ASGIApp:
    """The server's HTTP face: /mcp for those who show the token, /healthz for everybody."""

    async def healthz(_: Request) -> Response:
        problem = await anyio.to_thread.run_sync(_ledger_problem, settings.folder)
        return JSONResponse({"status": "unavailable" if problem else "ok", "reason": problem}, 503 if problem else 200)

    server.custom_route("/healthz", methods=["GET"])(healthz)
    names = {host, "localhost", "127.0.0.1"} if host in ("127.0.0.1", "localhost", "::1") else {host}
    hosts = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in sorted(names)]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[])
    return _TokenRequired(server.streamable_http_app(transport_security=security), token)


def _ledger_problem(folder: Path) -> str | None:
    try:
        LedgerReader(folder).close()
    except GpuledgerError as error:
        return str(error)
    return None


class _TokenRequired:
    """Refuses requests without the token, in constant time, before the server sees them."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/healthz" and not self._is_shown(scope):
            refusal = JSONResponse(
                {"error": "a token is required: 'Authorization: Bearer <content of mcp.token in the ledger folder>'"},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_shown(self, scope: MutableMapping[str, Any]) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(shown, self._expected)
