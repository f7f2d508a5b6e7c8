"""The real server process on its two wires, asked by the official client."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2 as httpx
import psutil
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from mcp_server.serving import ledger_token
from store.snapshot import LedgerReader


def environment(folder: Path, home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GPULEDGER_DATA": str(folder)}


def requests_of(folder: Path) -> list[dict]:
    with LedgerReader(folder) as reader:
        return reader.snapshot(["request"])["request"].tail.to_pylist()


def test_a_client_over_stdio_is_answered_and_each_call_is_recorded(own_ledger, tmp_path):
    parameters = StdioServerParameters(
        command=sys.executable, args=["-P", "-m", "gpuledger", "mcp"], env=environment(own_ledger, tmp_path)
    )

    async def converse():
        async with Client(stdio_client(parameters)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            live = await client.call_tool("live_state", {})
            trend = await client.call_tool("query_metrics", {"metrics": ["gpu.utilization_percent"], "window": "15m"})
            wrong = await client.call_tool("run_sql", {"sql": "delete from gpu_sample"})
            return tools, live, trend, wrong

    tools, live, trend, wrong = anyio.run(converse)
    assert tools == sorted(tools)
    assert {"live_state", "query_metrics", "run_sql"} <= set(tools)
    assert (live.is_error, trend.is_error, wrong.is_error) == (False, False, True)
    assert [row[2] for row in trend.structured_content["stats"]["rows"]] == ["0", "1"]
    rows = requests_of(own_ledger)
    assert [(row["source"], row["service"], row["method"], row["operation"], row["status"]) for row in rows] == [
        ("mcp", "gpuledger-mcp", "tools/call", "live_state", "ok"),
        ("mcp", "gpuledger-mcp", "tools/call", "query_metrics", "ok"),
        ("mcp", "gpuledger-mcp", "tools/call", "run_sql", "error"),
    ]
    assert rows[2]["error_message"].startswith("Only SELECT can be run, this is DELETE")
    for row in rows:
        assert re.fullmatch(r'\{"arguments_sha256":"[0-9a-f]{16}"\}', row["attributes"])
        assert row["duration_seconds"] > 0
        assert row["ended_at"] > row["started_at"]


def test_the_process_for_sql_is_started_after_the_first_answer_and_ends_with_the_server(own_ledger, tmp_path):
    parameters = StdioServerParameters(
        command=sys.executable, args=["-P", "-m", "gpuledger", "mcp"], env=environment(own_ledger, tmp_path)
    )

    def started(server: psutil.Process) -> list[psutil.Process]:
        while not (children := server.children(recursive=True)):
            os.sched_yield()
        return children

    async def converse():
        me = psutil.Process()
        before = set(me.children())
        async with Client(stdio_client(parameters)) as client:
            (server,) = set(me.children()) - before
            await client.list_tools()
            is_started_early = bool(server.children(recursive=True))
            await client.call_tool("live_state", {})
            first = await anyio.to_thread.run_sync(started, server)
            answer = await client.call_tool("run_sql", {"sql": "select 42 as n"})
            return is_started_early, first, server.children(recursive=True), answer.structured_content["table"]["rows"]

    is_started_early, first, later, rows = anyio.run(converse)
    assert (is_started_early, rows) == (False, [[42]])
    assert later == first
    assert len(first) == 1
    gone, alive = psutil.wait_procs(first, timeout=30)
    assert (gone, alive) == (first, [])


def test_stdout_of_the_stdio_server_carries_nothing_but_the_protocol(own_ledger, tmp_path):
    hello = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
        '"clientInfo":{"name":"t","version":"1"}}}\n'
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gpuledger", "mcp"],
        input=hello,
        capture_output=True,
        text=True,
        env=environment(own_ledger, tmp_path),
        timeout=60,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert '"serverInfo":{"name":"gpuledger"' in line.replace(" ", "").replace(',"title":"gpuledger"', "")


def test_a_client_over_http_is_answered_when_it_shows_the_token(own_ledger, tmp_path, http_server):
    with http_server(own_ledger, tmp_path) as server:

        async def converse():
            headers = {"Authorization": f"Bearer {server.token}"}
            async with (
                httpx.AsyncClient(headers=headers, timeout=30) as http,
                Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
            ):
                return await client.call_tool("describe_data", {})

        answer = anyio.run(converse)
    assert not answer.is_error
    assert answer.structured_content["table"]["rows"][0][:1] == ["gpu_sample"]
    assert [row["operation"] for row in requests_of(own_ledger)] == ["describe_data"]
    assert server.process.returncode == 0


def test_healthz_over_http_says_when_there_is_no_ledger(tmp_path, http_server):
    with http_server(tmp_path / "nowhere", tmp_path) as server:
        health = httpx.get(f"{server.url}/healthz")
    assert health.status_code == 503
    assert "There is no ledger in" in health.json()["reason"]


def test_the_token_is_made_once_for_its_owner_alone(tmp_path):
    token = ledger_token(tmp_path)
    assert ledger_token(tmp_path) == token
    assert len(token) >= 40
    assert stat.S_IMODE((tmp_path / "mcp.token").stat().st_mode) == 0o600


def test_a_port_in_use_is_one_sentence_and_exit_code_2(own_ledger, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gpuledger", "mcp", "--http", "--port", str(port)],
            capture_output=True,
            text=True,
            env=environment(own_ledger, tmp_path),
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        f"gpuledger: 127.0.0.1 port {port} cannot be listened on (address already in use): "
        "stop what listens there, or set mcp.port\n"
    )
