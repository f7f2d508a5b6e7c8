"""The server on its two wires: stdin and stdout, and streamable HTTP."""

import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from collector.request_log import RequestLog
from mcp_server.http_face import HEALTH_PATH, HttpFace, HttpSettings
from mcp_server.impatience import ImpatientProtocol
from mcp_server.oauth import IssuerTokens
from mcp_server.server import make_server
from mcp_server.tools import ServerSettings
from store.errors import GpuledgerError
from store.snapshot import LedgerReader
from store.tokens import token_in

__all__ = ["HttpSettings", "ServerSettings", "serve_http", "serve_stdio"]

TOKEN_NAME = "mcp.token"  # noqa: S105 - the name of the file that holds one
CONNECTIONS_MAX = 256  # at once; the next is told 503


def serve_stdio(settings: ServerSettings) -> None:
    """Serve one client on stdin and stdout until it leaves."""
    log = _request_log(settings)
    try:
        make_server(settings, log).run()
    finally:
        log.close()


def serve_http(
    settings: ServerSettings, http: HttpSettings, listener: socket.socket, beside: Sequence[Route] = ()
) -> None:
    """Serve any number of clients over streamable HTTP at /mcp until SIGTERM.

    Args:
        settings: As for `make_server`.
        http: Who may ask.
        listener: A socket that listens at `http.host`.
        beside: What else is answered there, to those who may ask.

    Raises:
        UsageError: The issuer or the audience is no address.
        LedgerUnusableError: The token's file can neither be read nor made.
    """
    token = ledger_token(settings.folder) if http.auth == "token" else None
    log = _request_log(settings)
    app = http_app(settings, http, log, port=listener.getsockname()[1], token=token, beside=beside)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=partial(ImpatientProtocol, limit_s=http.body_time_limit_s),  # type: ignore[arg-type] # it is called
            log_level="warning",
            access_log=False,
            ws="none",
            limit_concurrency=CONNECTIONS_MAX,
        )
    )
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


def http_app(
    settings: ServerSettings,
    http: HttpSettings,
    log: RequestLog | None,
    *,
    port: int,
    token: str | None,
    beside: Sequence[Route] = (),
) -> ASGIApp:
    """The server's HTTP face: /mcp and what is beside it for those who may ask, /healthz for everybody."""

    async def healthz(_: Request) -> Response:
        problem = await anyio.to_thread.run_sync(_ledger_problem, settings.folder)
        return JSONResponse({"status": "unavailable" if problem else "ok", "reason": problem}, 503 if problem else 200)

    issuer = http.oauth if http.auth == "oauth" else None
    tokens = IssuerTokens(issuer) if issuer else None
    server = make_server(settings, log, auth=issuer.resource_server() if issuer else None, token_verifier=tokens)
    server.custom_route(HEALTH_PATH, methods=["GET"])(healthz)
    for route in beside:  # the SDK asks for the issuer's tokens at /mcp alone
        endpoint = tokens.asked_for(route.endpoint) if tokens else route.endpoint
        server.custom_route(route.path, methods=sorted(route.methods or ["GET"]))(endpoint)
    app = server.streamable_http_app(
        transport_security=http.security(port), max_request_body_size=http.body_bytes_max, host=http.host
    )
    return HttpFace(app, http, port=port, token=token)


def _ledger_problem(folder: Path) -> str | None:
    try:
        LedgerReader(folder).close()
    except GpuledgerError as error:
        return str(error)
    return None
