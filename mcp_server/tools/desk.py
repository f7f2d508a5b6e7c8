"""Where a tool asks: the ledger, the time of the question, and how its function becomes a tool."""

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from mcp_server.answers import CONCISE_TOKENS_MAX, TOKENS_MAX, Answer, call_text, result, try_text
from mcp_server.repairing import corrected
from query.present.nearest import why_nothing
from query.reading.asker import Asker, asked_by
from query.reading.local_source import LocalSource
from query.windows import Window, resolve_window, zone_info
from store.errors import GpuledgerError

if TYPE_CHECKING:
    from query.export import ExportFolder

WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
PROGRESS_EVERY_S = 1.0

_OF_A_MODEL = {
    "list them with 'gpuledger metrics'": "list: describe_data(topic='metrics')",
    "'gpuledger slow' lists some": "slow_requests() lists some",
}
"""What a person does on a terminal, as a model does it."""

GivenAnswer = TypeVar("GivenAnswer", bound=Answer)
WindowText = Annotated[str, Field(description="15m, 'yesterday 9-17', A..B")]
Gpus = list[int] | None
Zone = str | None
Detail = Literal["concise", "full"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server needs to know. A ledger that is not there yet is an error of each call, not of the server.

    Args:
        folder: The ledger's folder.
        time_zone: IANA name of the zone in which windows are read where a call names none.
        version: Of the program.
        sql_rows_max: Most rows that one query gives.
        sql_time_limit_s: After so long a query is stopped.
        export: Where exports go; None where an agent may not write any.
        allows_annotations: Whether an agent may pin notes to times.
    """

    folder: Path
    time_zone: str
    version: str
    sql_rows_max: int
    sql_time_limit_s: float
    export: "ExportFolder | None" = None
    allows_annotations: bool = False


class Desk:
    """One ledger to ask, for any number of tools and resources.

    Args:
        settings: Which ledger, and how questions are read and bounded.
        clock: Gives the time of a question, UTC.
    """

    def __init__(self, settings: ServerSettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.settings = settings
        self._clock = clock
        self.source = LocalSource(settings.folder)

    def now(self, tz: str | None = None) -> datetime:
        return self._clock().astimezone(zone_info(tz or self.settings.time_zone))

    def window(self, asked: str, tz: str | None, now: datetime) -> Window:
        return resolve_window(asked, now=now, time_zone=tz or self.settings.time_zone)

    def explained(
        self, answer: GivenAnswer, kinds: Sequence[str], window: Window, name: str, arguments: Mapping[str, Any]
    ) -> GivenAnswer:
        """An answer that found nothing, with the reason, and a call over the nearest window that has something.

        Args:
            answer: That holds nothing.
            kinds: The kinds of events that it was made from.
            window: The time that was asked about.
            name: Of the tool to call.
            arguments: For it, but for the window.
        """
        nothing = why_nothing(self.source, kinds, window)
        if nothing.window or (nothing.has_others and not answer.next):
            calls = [call_text(name, {**arguments, "window": nothing.window or window.asked})]
        else:
            calls = answer.next or ["describe_data()"]
        return answer.model_copy(update={"notes": [*answer.notes, nothing.reason], "next": calls})

    def answer(
        self, answer: Answer, *, detail: str = "concise", more: str | None = None, tokens_max: int | None = None
    ) -> CallToolResult:
        """The answer in both channels, with a note of what the ledger could not give for it."""
        whole = answer.model_copy(update={"notes": [*answer.notes, *self.source.notes()]})
        bound = tokens_max or (TOKENS_MAX if detail == "full" else CONCISE_TOKENS_MAX)
        return result(whole, tokens_max=bound, more=more)


def as_tool(
    function: Callable[..., CallToolResult],
    *,
    annotations: ToolAnnotations = READ_ONLY,
    progress_every_s: float = PROGRESS_EVERY_S,
) -> Tool:
    """A function as a tool: its name, its docstring as description, its parameters, and `Answer` as its output.

    It runs in a thread, and is let go of when the client cancels the call: what it reads or asks of DuckDB is stopped.
    A call that lasts says so every second. A known problem becomes the sentence that the model is shown, with a call
    that works.
    """

    @functools.wraps(function)
    async def asked(ctx: Context[Any, Any], **arguments: Any) -> CallToolResult:
        given = {name: value for name, value in arguments.items() if value != defaults[name]}
        client = Asker()
        asked_by(client)  # the thread takes this task's context with it
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_tell_progress, ctx, progress_every_s)
                answer = await anyio.to_thread.run_sync(
                    functools.partial(_answered, function, arguments), abandon_on_cancel=True
                )
                tasks.cancel_scope.cancel()
        finally:
            client.leave()
        if isinstance(answer, GpuledgerError):
            raise ToolError(spoken(function.__name__, given, answer)) from answer
        return answer

    defaults = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    tool = Tool.from_function(
        asked,
        name=function.__name__,
        description=" ".join((inspect.getdoc(function) or "").split()),
        context_kwarg="ctx",
        annotations=annotations,
    )
    tool.parameters = slim(tool.parameters)
    if tool.fn_metadata.output_schema:
        tool.fn_metadata.output_schema = outline(tool.fn_metadata.output_schema)
    return tool


def _answered(function: Callable[..., CallToolResult], arguments: Mapping[str, Any]) -> CallToolResult | GpuledgerError:
    try:
        return function(**arguments)
    except GpuledgerError as error:  # handed over, as a task group would wrap it
        return error


async def _tell_progress(ctx: Context[Any, Any], every_s: float) -> None:
    started_s = time.monotonic()
    while True:
        await anyio.sleep(every_s)
        lasted_s = time.monotonic() - started_s
        await ctx.report_progress(lasted_s, None, f"still reading after {lasted_s:.0f} s")


def spoken(name: str, arguments: Mapping[str, Any], error: GpuledgerError) -> str:
    """A problem as a model is told it: what is wrong, what was near, and a call that works."""
    text = str(error)
    for of_terminal, of_model in _OF_A_MODEL.items():
        text = text.replace(of_terminal, of_model)
    better = corrected(name, arguments, error)
    return try_text(text, *better) if better else text


def slim(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An input schema without what costs tokens and tells a model nothing: titles, and null beside a type."""
    properties = {name: _slim_property(declared) for name, declared in schema.get("properties", {}).items()}
    required = {"required": schema["required"]} if schema.get("required") else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}


def _slim_property(declared: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in declared.items() if key not in ("title", "anyOf") and value is not None}
    types = [one for one in declared.get("anyOf", ()) if one.get("type") != "null"]
    return {**(types[0] if types else {}), **kept}


def outline(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An output schema as the list of tools shows it: which fields there are, and the types of the tool's own.

    Whole, the schemas of all tools are 9,000 tokens; every model would be shown them before it asks anything.
    """
    own = {name: _outlined(one) for name, one in schema["properties"].items() if name not in Answer.model_fields}
    return {"type": "object", "properties": own, "required": ["summary", "window"]}


def _outlined(declared: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in declared:
        return {"type": "object"}
    if "anyOf" in declared:
        types: Sequence[str] = ["object" if "$ref" in one else one["type"] for one in declared["anyOf"]]
        return {"type": list(types)} if "object" not in types else {}
    return {"type": declared["type"]}
