"""A call that lasts says so; one that is cancelled lets go of its client at once, and what it asked is stopped."""

import os
import sys
import threading

import anyio
import duckdb
import httpx2 as httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

from mcp_server.tools.desk import as_tool
from query.reading.asker import Asker, UnwantedError, asked_by
from query.reading.local_source import LocalSource
from store.snapshot import LedgerReader

ENDLESS = "select sum(hash(i)) from range(1_000_000_000_000) r(i)"


class Slow:
    """A tool that waits until it is told to go on."""

    def __init__(self):
        self.began, self.go_on = threading.Event(), threading.Event()

    def wait(self) -> CallToolResult:
        """Wait."""
        self.began.set()
        assert self.go_on.wait(30)
        return CallToolResult(content=[TextContent(type="text", text="done")])


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_a_long_call_tells_its_progress_until_it_is_done(era):
    slow, told = Slow(), []

    async def heard(progress, total, message):
        told.append((progress, total, message))
        if len(told) == 2:
            slow.go_on.set()

    async def talk():
        server = MCPServer("slow", tools=[as_tool(slow.wait, progress_every_s=0.001)])
        async with Client(server, mode=era) as client:
            return await client.call_tool("wait", {}, progress_callback=heard)

    answer = anyio.run(talk)
    assert answer.content[0].text == "done"
    times = [progress for progress, _, _ in told]
    assert times == sorted(times)
    assert len(times) >= 2
    assert told[0][2].startswith("still reading after ")


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_a_cancelled_call_lets_go_while_its_thread_still_works(era):
    slow = Slow()

    async def talk():
        server = MCPServer("slow", tools=[as_tool(slow.wait)])
        async with Client(server, mode=era) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "wait", {})
                await anyio.to_thread.run_sync(slow.began.wait, 30)
                tasks.cancel_scope.cancel()
            is_still_working = not slow.go_on.is_set()
            names = [tool.name for tool in (await client.list_tools()).tools]
            slow.go_on.set()
            return is_still_working, names

    assert anyio.run(talk) == (True, ["wait"])


async def withdrawn(client):
    """An endless query, cancelled when it has run for a second; then what another is answered."""
    is_running = anyio.Event()

    async def heard(*_):
        is_running.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.call_tool("run_sql", {"sql": ENDLESS}, progress_callback=heard))
        await is_running.wait()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(60):  # while the first one runs, no other is answered
        return await client.call_tool("run_sql", {"sql": "select 42 as n"})


def assert_stopped(answer, folder):
    assert answer.structured_content["table"]["rows"] == [[42]]
    with LedgerReader(folder) as reader:
        rows = reader.snapshot(["request"])["request"].tail.to_pylist()
    assert [(row["operation"], row["status"]) for row in rows] == [("run_sql", "cancelled"), ("run_sql", "ok")]


@pytest.mark.parametrize("era", ["2026-07-28", "legacy"])
def test_a_query_that_is_cancelled_over_stdio_is_stopped(own_ledger, tmp_path, era):
    variables = {"GPULEDGER_DATA": str(own_ledger), "GPULEDGER_QUERY__SQL_TIME_LIMIT_S": "600"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    command = StdioServerParameters(command=sys.executable, args=["-P", "-m", "gpuledger", "mcp"], env=environment)

    async def talk():
        async with Client(stdio_client(command), mode=era) as client:
            return await withdrawn(client)

    assert_stopped(anyio.run(talk), own_ledger)


@pytest.mark.parametrize("era", ["2026-07-28", "legacy"])
def test_a_query_that_is_cancelled_over_http_is_stopped(own_ledger, tmp_path, http_server, era):
    async def talk():
        headers = {"Authorization": f"Bearer {server.token}"}
        async with (
            httpx.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=era) as client,
        ):
            return await withdrawn(client)

    with http_server(own_ledger, tmp_path, GPULEDGER_QUERY__SQL_TIME_LIMIT_S="600") as server:
        answer = anyio.run(talk)
    assert_stopped(answer, own_ledger)


def test_what_an_analysis_asks_of_duckdb_is_stopped_when_its_client_leaves(recorded):
    source, client = LocalSource(recorded), Asker()

    def leave_when_asked():
        while not client._stops:
            os.sched_yield()
        while client._stops:  # DuckDB forgets an interruption that falls between two steps
            client.leave()

    leaving = threading.Thread(target=leave_when_asked)
    leaving.start()
    asked_by(client)
    with source.engine(["gpu_sample"]) as engine, pytest.raises((duckdb.InterruptException, UnwantedError)):
        engine.query(ENDLESS)
    leaving.join()
    asked_by(Asker())
    source.close()


def test_nothing_more_is_read_for_a_client_that_has_left(recorded):
    source = LocalSource(recorded)
    client = Asker()
    asked_by(client)
    client.leave()
    with pytest.raises(UnwantedError), source.engine(["gpu_sample"]):
        pass
    asked_by(Asker())
    source.close()
