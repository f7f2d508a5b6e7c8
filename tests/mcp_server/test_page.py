"""The examples of docs/reference/mcp.md are what the planted ledger answers, at noon of a day that is past.

`GPULEDGER_TESTS_WRITE_EXAMPLES=1 pytest tests/mcp_server/test_page.py` writes them anew.
"""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer

import mcp_server
from mcp_server.page import EXAMPLE_CALLS, example, mcp_page
from mcp_server.prompts import PROMPTS
from mcp_server.tools import Desk, ServerSettings, all_tools

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, plant):
    folder = plant(tmp_path_factory.mktemp("noon") / "ledger", round(NOON.timestamp() * 1e6))
    return Desk(ServerSettings(folder, "UTC", "0", 1000, 10.0), clock=lambda: NOON)


def answered(desk, name):
    async def call():
        async with Client(MCPServer("noon", tools=all_tools(desk))) as client:
            return await client.call_tool(name, dict(EXAMPLE_CALLS[name]))

    return anyio.run(call).content[0].text + "\n"


def without_what_varies(text: str) -> str:
    return re.sub(r"elapsed_ms: [0-9.]+|ledger of [0-9.]+ [KM]iB", "…", text)


@pytest.mark.parametrize("name", EXAMPLE_CALLS)
def test_the_example_of_a_tool_is_what_it_answers(desk, name):
    told = answered(desk, name)
    if os.environ.get("GPULEDGER_TESTS_WRITE_EXAMPLES"):
        (Path(mcp_server.__file__).parent / "examples" / f"{name}.txt").write_text(told)
    assert without_what_varies(told) == without_what_varies(example(name))


def test_the_page_names_every_tool_resource_and_prompt(desk):
    page = mcp_page(desk.settings)
    for tool in all_tools(desk):
        assert f"### {tool.name}\n" in page
        assert all(f"| `{name}` |" in page for name in tool.parameters["properties"])
    assert all(f"| `{prompt.__name__}` |" in page for prompt in PROMPTS)
    assert page.count("`telemetry://") == 20
    assert page.count("`dgx://") == 10
