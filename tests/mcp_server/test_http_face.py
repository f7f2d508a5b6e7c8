"""Who may speak to the server over HTTP: the real process, knocked at with the official client and with raw sockets."""

import json
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import httpx2 as httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from gpuledger import __version__
from mcp_server.http_face import HttpSettings, expected_hosts, is_loopback
from mcp_server.oauth import OAuthSettings
from store.errors import UsageError

LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
AUDIENCE = "https://gpus.example.com/mcp"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(recorded, home, request):
    """One server for those who only knock; its limits are small enough to be met."""
    serve = request.config.pluginmanager.get_plugin("http_peers").http_server
    limits = {"GPULEDGER_MCP__BODY_BYTES_MAX": "20000", "GPULEDGER_MCP__BODY_TIME_LIMIT_S": "0.5"}
    origins = {"GPULEDGER_MCP__ALLOWED_ORIGINS": '["https://chat.example.com"]'}
    with serve(shutil.copytree(recorded, home / "ledger"), home, **limits, **origins) as running:
        yield running


def asked(server, method="POST", path="/mcp", body=b"{}", **headers) -> tuple[int, dict]:
    """Status and JSON of one request, sent as these bytes."""
    shown = {
        "Host": f"127.0.0.1:{server.port}",
        "Authorization": f"Bearer {server.token}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in shown.items() if value is not None)]
    raw = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body
    head, _, content = server.said(raw).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content) if content.startswith(b"{") else {}


def test_the_official_client_is_answered_in_both_eras(server):
    async def tools(mode):
        async with (
            httpx.AsyncClient(headers={"Authorization": f"Bearer {server.token}"}, timeout=30) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
        ):
            return [tool.name for tool in (await client.list_tools()).tools]

    legacy, modern = anyio.run(tools, "legacy"), anyio.run(tools, "2026-07-28")
    assert legacy == modern
    assert "query_metrics" in modern


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic eDp5", "bearer é", "Bearer {token}x", "{token}"]
)
def test_without_the_token_nothing_is_answered(server, authorization):
    shown = authorization and authorization.format(token=server.token)
    status, answer = asked(server, Authorization=shown)
    assert status == 401
    assert answer == {
        "error": "a token is required: 'Authorization: Bearer <content of mcp.token in the ledger folder>'"
    }


def test_prometheus_questions_are_answered_beside_it_to_those_who_may_ask(server):
    path = "/api/v1/query?query=count(dgx_gpu_power_usage_watts)&time=1795435800"
    status, answer = asked(server, "GET", path, b"")
    assert (status, answer["status"], answer["data"]["resultType"]) == (200, "success", "vector")
    assert asked(server, "GET", path, b"", Authorization=None)[0] == 401
    assert asked(server, "GET", path, b"", Host="evil.example")[0] == 421
    raw = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\nConnection: close\r\n\r\n"
    assert f'dgx_mcp_build_info{{version="{__version__}"}} 1.0' in server.said(raw.encode()).decode()
    assert asked(server, "GET", "/metrics", b"", Authorization=None)[0] == 401
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert asked(server, path="/api/v1/query", body=b"query=nonsense(", **form)[1]["errorType"] == "bad_data"


@pytest.mark.parametrize("path", ["/mcp", "/healthz", "/api/v1/labels"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:{port}.evil.example", "127.0.0.1:1", ""]
)
def test_a_name_that_was_bound_to_this_address_elsewhere_is_not_answered(server, path, host):
    name = host.format(port=server.port)
    status, answer = asked(server, "GET", path, b"", Host=name)
    assert status == 421
    assert answer["error"] == f"this server is not called {name!r}: set mcp.allowed_hosts to the names it has"


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST:{port}"])
def test_every_name_of_loopback_is_answered(server, host):
    assert asked(server, "GET", "/healthz", b"", Host=host.format(port=server.port)) == (
        200,
        {"status": "ok", "reason": None},
    )


def test_two_hosts_in_one_request_are_refused(server):
    raw = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nHost: evil.example\r\n\r\n"
    assert server.said(raw.encode()).split()[1] in (b"400", b"421")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "https://chat.example.com.evil.example", ""],
)
def test_a_page_that_is_not_on_the_list_may_not_ask(server, origin):
    status, answer = asked(server, "GET", "/healthz", b"", Origin=origin)
    assert status == 403
    assert answer["error"] == f"pages of {origin!r} may not ask: set mcp.allowed_origins to those that may"


def test_a_page_on_the_list_may_ask(server):
    assert asked(server, "GET", "/healthz", b"", Origin="https://chat.example.com")[0] == 200


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_request_that_is_too_long_is_refused_and_the_next_is_answered(server, is_declared):
    if is_declared:
        status, answer = asked(server, body=b" " * 20_001)
    else:
        chunk = b"%x\r\n%s\r\n" % (5_000, b" " * 5_000)
        status, answer = asked(server, body=chunk * 5, Content_Length=None, Transfer_Encoding="chunked")
    assert (status, answer["error"]) == (413, "a request may have 20,000 bytes: see mcp.body_bytes_max")
    assert asked(server, "GET", "/healthz", b"")[0] == 200


def test_a_request_that_does_not_arrive_is_given_up(server):
    status, answer = asked(server, body=b'{"jsonrpc":', Content_Length="500")
    assert (status, answer["error"]) == (408, "the request had not arrived after 0.5 s: see mcp.body_time_limit_s")


def test_a_peer_that_sends_half_a_head_is_let_go(server):
    assert server.said(b"POST /mcp HTTP/1.1\r\nHost: ") == b""
    assert server.said(b"") == b""


def test_peers_that_say_nothing_do_not_keep_others_out(server):
    silent = [server.opened(b"GET /") for _ in range(300)]
    try:
        assert {one.recv(1) for one in silent} == {b""}  # each is let go
        assert asked(server, "GET", "/healthz", b"")[0] == 200
    finally:
        for one in silent:
            one.close()


def started(*flags: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-P", "-m", "gpuledger", "mcp", "--http", "--port", "0", *flags],
        capture_output=True,
        text=True,
        env={f"GPULEDGER_MCP__{name}": value for name, value in settings.items()} | {"HOME": "/nonexistent"},
        timeout=60,
        check=False,
    )


def test_a_public_address_is_not_served_to_everybody():
    done = started("--host", "0.0.0.0", AUTH="none")
    assert (done.returncode, done.stderr) == (
        2,
        "gpuledger: MCP on 0.0.0.0 without a token would answer everybody who reaches this machine: "
        "set mcp.auth to token or oauth, mcp.host to 127.0.0.1, or give --insecure\n",
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auth": "oauth"}, "mcp.auth is oauth, but no issuer is known: set mcp.oauth_issuer and mcp.oauth_audience"),
        ({"allowed_hosts": ("spark-1:*",)}, "mcp.allowed_hosts cannot hold 'spark-1:*': write each name out"),
        ({"allowed_origins": ("*",)}, "mcp.allowed_origins cannot hold '*': write each name out, with its port"),
        ({"host": "192.0.2.7", "auth": "none"}, "MCP on 192.0.2.7 without a token would answer everybody"),
        ({"host": "::", "auth": "none"}, "MCP on :: without a token would answer everybody"),
        ({"host": "spark-1.lan", "auth": "none"}, "MCP on spark-1.lan without a token would answer everybody"),
    ],
)
def test_what_must_not_be_served_is_refused_in_one_sentence(settings, message):
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        HttpSettings(**settings).check()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"auth": "none"},
        {"host": "0.0.0.0"},
        {"host": "::1", "auth": "none"},
        {"host": "0.0.0.0", "auth": "none", "insecure": True},
    ],
)
def test_what_may_be_served_is_not_refused(settings):
    HttpSettings(**settings).check()


def test_the_expected_names_follow_from_the_address():
    assert expected_hosts("192.0.2.7", 9466) == ("192.0.2.7:9466",)
    assert expected_hosts("fe80::1", 1) == ("[fe80::1]:1",)
    assert set(expected_hosts("::1", 1)) == {"127.0.0.1:1", "[::1]:1", "localhost:1"}
    assert "localhost:1" in expected_hosts("0.0.0.0", 1)
    assert not is_loopback("localhost.evil.example")


def test_insecure_serves_without_a_token_and_makes_none(own_ledger, home, http_server):
    with http_server(own_ledger, home, "--insecure", GPULEDGER_MCP__AUTH="none") as server:
        headers = {"Accept": "application/json, text/event-stream"}
        body = {
            **LIST_TOOLS,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        assert httpx.post(f"{server.url}/mcp", json=body, headers=headers).status_code == 200
        assert not (own_ledger / "mcp.token").exists()


@pytest.fixture
def issuer():
    """An authorization server: its metadata and its keys over HTTP, and tokens that it signs."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "1", "use": "sig"}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            documents = {
                "/.well-known/openid-configuration": {"issuer": address, "jwks_uri": f"{address}/keys"},
                "/keys": {"keys": [public]},
            }
            found = documents.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found or {}).encode())

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    address = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()

    def token(signed_with=key, algorithm="RS256", **claims) -> str:
        said = {"iss": address, "aud": AUDIENCE, "sub": "anna", "exp": int(time.time()) + 600, "scope": "gpus.read"}
        kept = {name: value for name, value in {**said, **claims}.items() if value is not None}
        return jwt.encode(kept, signed_with, algorithm, headers={"kid": "1"})

    token.address = address
    yield token
    listening.shutdown()
    listening.server_close()


def test_tokens_of_the_issuer_are_taken_and_no_others(own_ledger, home, http_server, issuer):
    settings = {
        "GPULEDGER_MCP__AUTH": "oauth",
        "GPULEDGER_MCP__OAUTH_ISSUER": issuer.address,
        "GPULEDGER_MCP__OAUTH_AUDIENCE": AUDIENCE,
        "GPULEDGER_MCP__OAUTH_SCOPES": '["gpus.read"]',
    }
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused = {
        "of another issuer": issuer(iss="https://evil.example"),
        "for another server": issuer(aud="https://other.example/mcp"),
        "for ever": issuer(exp=None),
        "expired": issuer(exp=int(time.time()) - 60),
        "signed by a stranger": issuer(signed_with=stranger),
        "signed with a shared secret": issuer(signed_with="s" * 64, algorithm="HS256"),
        "signed by nobody": issuer(signed_with=None, algorithm="none"),
        "no token": "x",
    }
    with http_server(own_ledger, home, **settings) as server:

        def answer(token: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
            return httpx.post(f"{server.url}/mcp", json=LIST_TOOLS, headers=headers)

        found = {why: answer(token).status_code for why, token in refused.items()}
        assert found == dict.fromkeys(refused, 401)
        assert answer(issuer(scope="other")).status_code == 403
        assert answer(issuer()).status_code == 400  # let in; a request without a session is what it now lacks

        def history(token: str) -> httpx.Response:
            return httpx.get(f"{server.url}/api/v1/metadata", headers={"Authorization": f"Bearer {token}"})

        assert {why: history(token).status_code for why, token in refused.items()} == dict.fromkeys(refused, 401)
        assert history(issuer(scope="other")).status_code == 403
        assert history(issuer()).json()["status"] == "success"
        where = answer("x").headers["www-authenticate"]
        metadata = httpx.get(f"{server.url}/.well-known/oauth-protected-resource/mcp")
        assert not (own_ledger / "mcp.token").exists()
    assert 'resource_metadata="https://gpus.example.com/.well-known/oauth-protected-resource/mcp"' in where
    assert metadata.json()["resource"] == AUDIENCE
    assert metadata.json()["authorization_servers"] == [issuer.address]
    assert metadata.json()["scopes_supported"] == ["gpus.read"]


def test_an_issuer_that_is_no_address_is_refused():
    with pytest.raises(UsageError, match="is no address: write both as https://…"):
        OAuthSettings("not an address", AUDIENCE).resource_server()
