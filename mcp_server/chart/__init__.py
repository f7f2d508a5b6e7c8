"""The interactive chart of query_metrics, for hosts that show MCP Apps: one HTML document that loads nothing.

uPlot (MIT, see uPlot.LICENSE) is the npm package's own minified build, version 1.6.32, put into the document: a host's
frame may not ask any other origin.
"""

from collections.abc import Sequence
from importlib.resources import files

from mcp.server.apps import Apps, ResourceCsp
from mcp.server.mcpserver.tools import Tool

CHART_URI = "ui://gpuledger/chart.html"
CHARTED_TOOL = "query_metrics"
_PARTS = ("uPlot.min.css", "uPlot.iife.min.js", "chart.js")


def chart_document() -> str:
    """The page, with its style and its scripts in it."""
    folder = files(__package__)
    page = folder.joinpath("chart.html").read_text(encoding="utf-8")
    for name in _PARTS:
        page = page.replace(f"/* {name} */", folder.joinpath(name).read_text(encoding="utf-8"))
    return page


def chart_app() -> Apps:
    """The extension that tells hosts of it."""
    apps = Apps()
    apps.add_html_resource(
        CHART_URI,
        chart_document(),
        name="chart",
        title="Chart of metrics",
        description="What query_metrics found, to look closer at.",
        csp=ResourceCsp(),
        prefers_border=True,
    )
    return apps


def with_chart(tools: Sequence[Tool]) -> list[Tool]:
    """The same tools; the one that is charted names the chart."""
    meta = {"ui": {"resourceUri": CHART_URI}}
    return [tool.model_copy(update={"meta": meta}) if tool.name == CHARTED_TOOL else tool for tool in tools]
