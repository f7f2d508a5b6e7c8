"""The tools: each asks the query layer and puts its answer into both channels."""

from collections.abc import Callable

from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult

from mcp_server.tools.asked import RequestTools
from mcp_server.tools.data import DataTools
from mcp_server.tools.desk import WRITES, Desk, ServerSettings, as_tool
from mcp_server.tools.history import HistoryTools
from mcp_server.tools.now import NowTools
from mcp_server.tools.past import PastTools
from mcp_server.tools.writing import WritingTools

__all__ = ["Desk", "ServerSettings", "all_tools"]


def all_tools(desk: Desk) -> list[Tool]:
    """Every tool over one ledger, by name: clients keep the list in a cache of their prompts."""
    now, past, asked, data = NowTools(desk), PastTools(desk), RequestTools(desk), DataTools(desk)
    history = HistoryTools(desk)
    functions = (
        now.check_gpu_availability,
        history.compare_windows,
        data.describe_data,
        asked.diagnose,
        history.find_anomalies,
        history.forecast,
        now.get_system_health,
        past.list_events,
        now.live_state,
        past.query_metrics,
        data.run_sql,
        asked.slow_requests,
        past.top_processes,
    )
    writing = WritingTools(desk)
    writes: list[Callable[..., CallToolResult]] = []
    if desk.settings.allows_annotations:
        writes.append(writing.add_annotation)
    if desk.settings.export:
        writes.append(writing.export_data)
    tools = [as_tool(function) for function in functions]
    tools += [as_tool(function, annotations=WRITES) for function in writes]
    return sorted(tools, key=lambda tool: tool.name)
