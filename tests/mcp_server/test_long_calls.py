"""A call that lasts says so, and one that is cancelled lets go of its client at once."""

import threading

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

from mcp_server.tools.desk import as_tool


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
