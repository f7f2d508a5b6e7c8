"""What stands between the wire and the tools: every message passes here.

The SDK ignores arguments that a tool does not have, so a misspelt one would answer a different question than was
asked: here it is an error that names the nearest, and the call as it was meant. Argument errors are reworded for
whoever made the call. Each tool call is recorded as a `request`.
"""

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import pydantic
from mcp import MCPError
from mcp.server.mcpserver.tools import Tool
from mcp.types import INVALID_PARAMS, CallToolResult, TextContent

from collector.request_log import RequestLog
from mcp_server.answers import try_text
from mcp_server.repairing import EXAMPLES, corrected_arguments
from store.errors import did_you_mean, nearest

Next = Callable[[Any], Awaitable[Any]]
ERROR_TEXT_MAX = 200


class Guard:
    """Middleware over the messages of one server.

    Args:
        tools: The tools it offers.
        prompts: Names of its prompts.
        log: Where calls are recorded; None records nothing.
    """

    def __init__(self, tools: Sequence[Tool], prompts: Sequence[str], log: RequestLog | None) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._prompts = prompts
        self._log = log

    async def __call__(self, ctx: Any, call_next: Next) -> Any:
        if ctx.method == "prompts/get":
            self._check_prompt(str((ctx.params or {}).get("name", "")))
        if ctx.method != "tools/call":
            return await call_next(ctx)
        started_s = time.monotonic()
        params = ctx.params or {}
        name, arguments = str(params.get("name", "")), params.get("arguments") or {}
        problem: str | None = self._problem(name, arguments)
        outcome: Any = None
        try:
            outcome = _error(problem) if problem else _unwrapped(name, await call_next(ctx))
        except BaseException as error:
            is_withdrawn = isinstance(error, anyio.get_cancelled_exc_class())
            self._record(name, arguments, started_s, "cancelled" if is_withdrawn else "error", type(error).__name__)
            raise
        text = _error_text(outcome)
        self._record(name, arguments, started_s, "error" if text is not None else "ok", text)
        return outcome

    def _check_prompt(self, name: str) -> None:
        """The SDK answers an unknown prompt as an internal error, with a traceback in the log."""
        if name not in self._prompts:
            hint = did_you_mean(name, self._prompts, f"there is {', '.join(self._prompts)}")
            raise MCPError(INVALID_PARAMS, f"There is no prompt {name[:60]!r}: {hint}")

    def _problem(self, name: str, arguments: Any) -> str | None:
        """What is wrong with a call before its tool is asked; None where nothing is."""
        tool = self._tools.get(name)
        if tool is None:
            near = nearest(name, self._tools)
            hint = f"did you mean {near!r}?" if near else f"there is {', '.join(self._tools)}"
            return try_text(f"There is no tool {name[:60]!r}: {hint}", near or "live_state", _least(near))
        if not isinstance(arguments, dict):
            return try_text(f"The arguments of {name} must be an object", name, _least(name))
        known = tool.parameters["properties"]
        unknown = next((one for one in arguments if one not in known), None)
        if unknown is not None:
            hints = (did_you_mean(unknown, known, ""), f"it takes {', '.join(known) or 'none'}")
            text = f"{name} has no parameter {unknown[:60]!r}: {' '.join(filter(None, hints))}"
        else:
            text = _argument_error(tool, arguments) or ""
        return try_text(text, name, corrected_arguments(tool, arguments)) if text else None

    def _record(self, name: str, arguments: Any, started_s: float, status: str, error: str | None) -> None:
        if self._log is None:
            return
        canonical = json.dumps(arguments, sort_keys=True, default=str)
        values: dict[str, Any] = {
            "operation": name[:120],
            "method": "tools/call",
            "status": status,
            "attributes": {"arguments_sha256": hashlib.sha256(canonical.encode()).hexdigest()[:16]},
        }
        if error:
            values["error_message"] = error[:ERROR_TEXT_MAX]
        self._log.record(values, duration_s=time.monotonic() - started_s)


def _least(name: str | None) -> Mapping[str, Any]:
    """The arguments that a tool cannot do without, by example."""
    return EXAMPLES.get(name or "", {})


def _argument_error(tool: Tool, arguments: Mapping[str, Any]) -> str | None:
    """The first argument that the tool's model refuses, without pydantic's own words around it."""
    try:
        tool.fn_metadata.arg_model.model_validate(tool.fn_metadata.pre_parse_json(dict(arguments)))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" (given: {str(first['input'])[:60]!r})"
        return f"{tool.name}: {place}: {first['msg'][0].lower()}{first['msg'][1:]}{given}"
    return None


def _error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _unwrapped(name: str, outcome: Any) -> Any:
    """An error of a tool without the SDK's words before it: the sentence says all that a model needs."""
    text = _error_text(outcome)
    wrapping = f"Error executing tool {name}: "
    return _error(text.removeprefix(wrapping)) if text and text.startswith(wrapping) else outcome


def _error_text(outcome: Any) -> str | None:
    """The text of an error; None for anything else. The SDK hands results over as models or as they go on the wire."""
    if isinstance(outcome, dict):
        outcome = CallToolResult.model_validate(outcome) if "content" in outcome else None
    if not isinstance(outcome, CallToolResult) or not outcome.is_error:
        return None
    return "".join(item.text for item in outcome.content if isinstance(item, TextContent))
