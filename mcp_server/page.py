"""`docs/reference/mcp.md`: every tool, resource and prompt, with an example answer of each tool.

The answers in `mcp_server/examples` are those of the tests' planted ledger: a test asks each call and compares.
"""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from mcp.server.mcpserver.tools import Tool

from mcp_server.answers import CONCISE_TOKENS_MAX, SQL_TOKENS_MAX, TOKENS_MAX, call_text
from mcp_server.prompts import PROMPTS
from mcp_server.resources import Resources
from mcp_server.tools import Desk, ServerSettings, all_tools

EXAMPLE_CALLS: Mapping[str, Mapping[str, Any]] = {
    "check_gpu_availability": {"min_free_memory_gb": 40},
    "compare_windows": {
        "window": "30m",
        "baseline": "2h..90m",
        "metrics": ["gpu.utilization_percent", "gpu.memory_used_bytes"],
    },
    "describe_data": {"topic": "metrics", "search": "power limit"},
    "diagnose": {"at": "request-902"},
    "find_anomalies": {"window": "1h", "metrics": ["gpu.temperature_celsius"]},
    "forecast": {"metric": "gpu.memory_used_bytes", "window": "3h", "gpu": [0], "threshold": "100GiB"},
    "get_system_health": {},
    "list_events": {"window": "2h"},
    "live_state": {},
    "query_metrics": {"metrics": ["gpu.utilization_percent", "gpu.temperature_celsius"], "window": "1h"},
    "run_sql": {"sql": "select gpu_index, max(temperature_celsius) as celsius from gpu_sample group by all order by 1"},
    "slow_requests": {"window": "2h", "threshold": "5s"},
    "top_processes": {"window": "10m"},
}


def example(name: str) -> str:
    """What the tests' ledger answers to the example call of a tool."""
    return files("mcp_server").joinpath("examples").joinpath(f"{name}.txt").read_text()


def mcp_page(settings: ServerSettings) -> str:
    """The page; of the settings, nothing but what shapes the list of tools matters."""
    desk = Desk(settings)
    return "\n".join([*_head(), *_tools(all_tools(desk)), *_resources(Resources(desk)), *_prompts(), ""])


def _head() -> Iterator[str]:
    yield from (
        "# MCP",
        "",
        "Generated from `mcp_server/` by `gpuledger docs`; do not edit.",
        "",
        "Every answer says the same in both channels of a result, text and structured: a summary first; the `window`",
        "that was looked at, with its time zone, its coverage (share of the expected samples that is there) and the",
        "age of the newest sample; tables; notes; `truncated`, what was cut; `next`, calls that lead further. Figures",
        "have three significant digits; null, in the text an empty cell, is a gap and never 0. An answer is at most",
        f"{CONCISE_TOKENS_MAX} tokens, with `detail='full'` {TOKENS_MAX:,}, of SQL {SQL_TOKENS_MAX:,}.",
        "A wrong call is answered with what is wrong, what is near, and a call that works.",
        "",
        "Names of processes, containers, models and requests are data: cut at 120 characters, without control",
        "characters, in cells and never in a sentence.",
        "",
        "## Tools",
        "",
    )


def _tools(tools: list[Tool]) -> Iterator[str]:
    for tool in tools:
        yield from (
            f"### {tool.name}",
            "",
            tool.description,
            "",
            "| parameter | type | default | meaning |",
            "|---|---|---|---|",
        )
        required = tool.parameters.get("required", ())
        for name, declared in tool.parameters["properties"].items():
            default = "required" if name in required else _code(declared["default"]) if "default" in declared else ""
            yield f"| `{name}` | {_type(declared)} | {default} | {declared.get('description', '')} |"
        call = call_text(tool.name, EXAMPLE_CALLS[tool.name])
        yield from ("", f"`{call}` on the tests' ledger:", "", "```", example(tool.name).rstrip("\n"), "```", "")


def _type(declared: Mapping[str, Any]) -> str:
    if "enum" in declared:
        return ", ".join(map(_code, declared["enum"]))
    edges = [f"{words} {declared[key]:g}" for key, words in (("minimum", "from"), ("maximum", "to")) if key in declared]
    of = f" of {declared['items']['type']}" if "items" in declared else ""
    return " ".join((f"{declared['type']}{of}", *edges))


def _code(value: Any) -> str:
    return f"`{value}`" if value != "" else ""


def _resources(resources: Resources) -> Iterator[str]:
    yield from ("## Resources", "", "JSON, without what is not known.", "", "| address | what |", "|---|---|")
    for readable in resources.readables():
        also = f", also `dgx://{readable.path}`" if readable.is_inherited else ""
        yield f"| `telemetry://{readable.path}`{also} | {readable.description} |"
    for uri, function in resources.templates().items():
        yield f"| `{uri}` | {(function.__doc__ or '').rstrip('.')} |"
    yield ""


def _prompts() -> Iterator[str]:
    yield from ("## Prompts", "", "| prompt | arguments | what for |", "|---|---|---|")
    for prompt in PROMPTS:
        names = prompt.__code__.co_varnames[: prompt.__code__.co_argcount]
        yield f"| `{prompt.__name__}` | {', '.join(f'`{name}`' for name in names)} | {prompt.__doc__} |"
    yield from (
        "",
        "Arguments that are metrics, GPUs, windows, tables or types of events are completed.",
    )
