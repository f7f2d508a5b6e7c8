"""The tools: each asks the query layer and puts its answer into both channels."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from mcp_server.answers import Answer, DescribeDataAnswer, LiveStateAnswer, QueryMetricsAnswer, RunSqlAnswer, result
from mcp_server.presenting import (
    capabilities_answer,
    live_answer,
    metrics_answer,
    metrics_description,
    overview,
    sql_answer,
    sql_examples,
    table_description,
)
from query.absence import why_no_values
from query.ad_hoc import run_sql
from query.capabilities import capabilities
from query.catalogue import find_metric
from query.live import live_state
from query.local_source import LocalSource
from query.trends import trend
from query.windows import Window, resolve_window, zone_info
from store.errors import GpuledgerError
from store.snapshot import END_OF_TIME_US

READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
SQL_ROWS_MAX = 1_000
SPARK_POINTS = 24

DESCRIPTIONS: Mapping[str, tuple[str, str]] = {
    "describe_data": (
        "Describe the data",
        "What is recorded: views with extent, metrics with units, columns of a view, example SQL. Ask before run_sql.",
    ),
    "live_state": (
        "Live state",
        "What GPUs and host do now: utilization, memory, power, temperature, clocks, throttling, age of the data."
        " For any past period use query_metrics.",
    ),
    "query_metrics": (
        "Query metrics",
        "How metrics went over a past window, per GPU: min, avg, p50, p95, max, last, slope, sparkline."
        " Counters answer as rates. For now use live_state.",
    ),
    "run_sql": (
        "Run SQL",
        "One SELECT over the views gpu_sample, system_sample, process_sample, request and others; see describe_data."
        " For ordinary trends use query_metrics.",
    ),
}

WindowText = Annotated[
    str, Field(description="15m, 'last hour', 'yesterday 9-17', 2026-11-22, 'since 14:30', A..B (ISO times)")
]
Gpus = Annotated[list[int] | None, Field(description="GPU indexes; all where left out")]
Zone = Annotated[str | None, Field(description="IANA time zone; the host's where left out")]
Detail = Annotated[Literal["concise", "full"], Field(description="full adds the series or every column")]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server needs to know. A ledger that is not there yet is an error of each call, not of the server.

    Args:
        folder: The ledger's folder.
        time_zone: IANA name of the zone in which windows are read where a call names none.
        version: Of the program.
        sql_rows_max: Most rows that one query gives.
        sql_time_limit_s: After so long a query is stopped.
    """

    folder: Path
    time_zone: str
    version: str
    sql_rows_max: int
    sql_time_limit_s: float


class Tools:
    """The tools' functions over one ledger."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._source = LocalSource(settings.folder)

    def register(self, server: MCPServer[Any]) -> None:
        """Enter every tool into the server, in the order of their names."""
        for name, (title, description) in DESCRIPTIONS.items():
            server.tool(name=name, title=title, description=description, annotations=READ_ONLY)(getattr(self, name))

    def describe_data(
        self,
        topic: Annotated[
            Literal["overview", "metrics", "table", "examples", "capabilities"], Field(description="What to describe")
        ] = "overview",
        table: Annotated[str | None, Field(description="With topic=table: a view such as gpu_sample")] = None,
        search: Annotated[str, Field(description="With topic=metrics: words in name or meaning")] = "",
    ) -> Annotated[CallToolResult, DescribeDataAnswer]:
        with _spoken_errors():
            if topic == "table":
                return result(table_description(table))
            if topic == "metrics":
                return result(metrics_description(search))
            if topic == "examples":
                return result(sql_examples())
            zone = zone_info(self._settings.time_zone)
            if topic == "capabilities":
                return result(capabilities_answer(capabilities(self._source), zone))
            with self._source.reader() as reader:
                return result(overview(reader.extents(), zone))

    def live_state(
        self, gpu: Gpus = None, detail: Detail = "concise", tz: Zone = None
    ) -> Annotated[CallToolResult, LiveStateAnswer]:
        with _spoken_errors():
            return self._result(live_answer(live_state(self._source, now=self._now(tz), gpus=gpu or ()), detail))

    def query_metrics(
        self,
        metrics: Annotated[
            list[str],
            Field(
                min_length=1,
                max_length=12,
                description="Names such as gpu.power_watts; list: describe_data(topic='metrics')",
            ),
        ],
        window: WindowText = "1h",
        gpu: Gpus = None,
        points: Annotated[int, Field(ge=2, le=500, description="At most so many steps")] = SPARK_POINTS,
        detail: Detail = "concise",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, QueryMetricsAnswer]:
        with _spoken_errors():
            wanted = list(dict.fromkeys(find_metric(name).name for name in metrics))
            now = self._now(tz)
            span = self._window(window, tz, now)
            trends = [
                trend(self._source, name, span, now=now, gpus=_gpus_for(name, gpu), points=points) for name in wanted
            ]
            reasons = {one.metric: why_no_values(self._source, one) for one in trends if not one.series}
            return self._result(metrics_answer(trends, reasons, detail))

    def run_sql(
        self,
        sql: Annotated[str, Field(max_length=20_000, description="One SELECT, DuckDB's dialect")],
        window: Annotated[
            str | None, Field(description="Look only at files of this window; filter observed_at as well")
        ] = None,
        max_rows: Annotated[int, Field(ge=1, le=SQL_ROWS_MAX)] = 100,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, RunSqlAnswer]:
        with _spoken_errors():
            span = self._window(window, tz, self._now(tz)) if window else None
            found = run_sql(
                self._source,
                sql,
                rows_max=min(max_rows, self._settings.sql_rows_max),
                time_limit_s=self._settings.sql_time_limit_s,
                time_zone=zone_info(tz or self._settings.time_zone).key,
                start_us=span.start_us if span else 0,
                end_us=span.end_us if span else END_OF_TIME_US,
            )
            return self._result(sql_answer(found))

    def _result(self, answer: Answer) -> CallToolResult:
        """The answer, with a note of what the ledger could not give for it."""
        return result(answer.model_copy(update={"notes": [*answer.notes, *self._source.notes()]}))

    def _now(self, tz: str | None) -> datetime:
        return datetime.now(zone_info(tz or self._settings.time_zone))

    def _window(self, asked: str, tz: str | None, now: datetime) -> Window:
        return resolve_window(asked, now=now, time_zone=tz or self._settings.time_zone)


def _gpus_for(metric: str, gpu: Sequence[int] | None) -> Sequence[int]:
    """A choice of GPUs narrows only what is measured per GPU: the host's metrics may be asked for beside them."""
    return (gpu or ()) if "gpu_index" in find_metric(metric).kind.by_name else ()


@contextmanager
def _spoken_errors() -> Iterator[None]:
    """Turns a known problem into the error text that the model is shown."""
    try:
        yield
    except GpuledgerError as error:
        raise ToolError(str(error)) from error
