"""The tools: each asks the query layer and puts its answer into both channels."""

import base64
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from mcp_server.answers import (
    DescribeDataAnswer,
    LiveStateAnswer,
    QueryMetricsAnswer,
    RunSqlAnswer,
    TableAnswer,
    clean,
    result,
    window_answer,
)
from query.absence import why_no_values
from query.ad_hoc import run_sql
from query.catalogue import find_metric
from query.describe import SQL_EXAMPLES, describe_kind, describe_metrics
from query.engine import LocalSource
from query.figures import age_words, significant, sparkline, spelled
from query.live import GPU_COLUMNS, HOST_COLUMNS, GpuNow, HostNow, live_state
from query.trends import Trend, TrendSeries, trend
from query.windows import Window, resolve_window, zone_info
from store.errors import GpuledgerError
from store.events import KINDS

READ_ONLY = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
MCP_SQL_ROWS_MAX = 1_000
SPARK_POINTS = 24
TEXT_BUDGET_CHARACTERS = 20_000  # about 6,000 tokens, the cap for SQL

WindowText = Annotated[
    str,
    Field(description="15m, 'last hour', 'yesterday 9-17', 2026-11-22, 'since 14:30', A..B (ISO times)"),
]
Gpus = Annotated[list[int] | None, Field(description="GPU indexes; all where left out")]
Zone = Annotated[str | None, Field(description="IANA time zone; the host's where left out")]
Detail = Annotated[Literal["concise", "full"], Field(description="full adds the series or every column")]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server needs to know."""

    folder: Path
    time_zone: str
    version: str
    sql_rows_max: int
    sql_time_limit_s: float


class Tools:
    """The tools' functions over one ledger. A ledger that is not there yet is an error of the call, not of the server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._source = LocalSource(settings.folder)

    def register(self, server: MCPServer[Any]) -> None:
        for name, title, function in (
            ("describe_data", "Describe the data", self.describe_data),
            ("live_state", "Live state", self.live_state),
            ("query_metrics", "Query metrics", self.query_metrics),
            ("run_sql", "Run SQL", self.run_sql),
        ):
            server.tool(name=name, title=title, annotations=READ_ONLY)(function)

    def live_state(
        self, gpu: Gpus = None, detail: Detail = "concise", tz: Zone = None
    ) -> Annotated[CallToolResult, LiveStateAnswer]:
        """What GPUs and host do now: utilization, memory, power, temperature, clocks, throttling, data age. For any past period use query_metrics."""
        with _spoken_errors():
            now = self._now(tz)
            state = live_state(self._source, now=now, gpus=gpu or ())
            notes = [f"no GPU is recorded: {state.no_gpu_because}"] if state.no_gpu_because else []
            if state.newest_age_s is None:
                notes.append("nothing was recorded in the last 10 minutes; see that 'gpuledger up' runs")
            elif state.is_stale:
                notes.append(
                    f"the newest sample is {age_words(state.newest_age_s)} old, so values are null; see that 'gpuledger up' runs"
                )
            notes += _absence_notes(state.gpus) if detail == "full" else []
            answer = LiveStateAnswer(
                summary=_live_summary(state.gpus, state.hosts, is_stale=state.is_stale),
                as_of=now.isoformat(timespec="seconds"),
                age_s=significant(state.newest_age_s),
                stale=state.is_stale,
                gpus=_gpu_table(state.gpus, detail),
                host=_host_table(state.hosts),
                notes=notes,
                next=["query_metrics(metrics=['gpu.utilization_percent'], window='1h')"]
                if state.gpus
                else [],
            )
            return result(answer)

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
        """How metrics went over a past window, per GPU: min, avg, p50, p95, max, last, slope, sparkline. Counters answer as rates. For now use live_state."""
        with _spoken_errors():
            for name in metrics:
                find_metric(name)
            now = self._now(tz)
            span = self._window(window, tz, now)
            trends = [
                trend(self._source, name, span, now=now, gpus=self._gpus_for(name, gpu), points=points)
                for name in dict.fromkeys(metrics)
            ]
            return result(self._trends_answer(trends, span, detail, points))

    def _trends_answer(
        self, trends: Sequence[Trend], span: Window, detail: str, points: int
    ) -> QueryMetricsAnswer:
        rows = [_stats_row(one, series) for one in trends for series in one.series]
        coverages = [one.coverage for one in trends if one.coverage is not None]
        ages = [one.newest_age_s for one in trends if one.newest_age_s is not None]
        notes = [
            f"{one.metric} has no values: {why_no_values(self._source, one)}"
            for one in trends
            if not one.series
        ]
        series, start = None, None
        if detail == "full":
            series = {
                f"{one.metric}/{clean(each.label or each.series)}": [
                    _number(significant(point)) for point in each.points
                ]
                for one in trends
                for each in one.series
            }
            start = trends[0].first_point_at.isoformat(timespec="seconds")
        elif rows:
            notes.append(f"spark: one character per {trends[0].step_s} s")
        return QueryMetricsAnswer(
            summary=_trends_summary(trends),
            window=window_answer(span, min(coverages) if coverages else None, min(ages, default=None)),
            stats=TableAnswer(columns=_STATS_COLUMNS, rows=rows),
            step_s=trends[0].step_s,
            series=series,
            series_start=start,
            notes=notes,
            next=[]
            if detail == "full"
            else [
                f"query_metrics(metrics={[one.metric for one in trends]}, window={span.asked!r}, detail='full')"
            ],
        )

    def describe_data(
        self,
        topic: Annotated[
            Literal["overview", "metrics", "table", "examples"], Field(description="What to describe")
        ] = "overview",
        table: Annotated[str | None, Field(description="With topic=table: a view such as gpu_sample")] = None,
        search: Annotated[str, Field(description="With topic=metrics: words in name or meaning")] = "",
    ) -> Annotated[CallToolResult, DescribeDataAnswer]:
        """What is recorded: views with extent, metrics with units, columns of a view, example SQL. Ask before run_sql."""
        with _spoken_errors():
            if topic == "table":
                return result(_describe_table(table))
            if topic == "metrics":
                return result(_describe_metrics(search))
            if topic == "examples":
                return result(
                    DescribeDataAnswer(
                        summary="SQL to begin with; DuckDB's dialect.",
                        table=TableAnswer(columns=[], rows=[]),
                        examples=dict(SQL_EXAMPLES),
                    )
                )
            return result(self._overview())

    def _overview(self) -> DescribeDataAnswer:
        with self._source.reader() as reader:
            extents = reader.extents()
        zone = self._now(None).tzinfo
        rows = []
        for name, extent in extents.items():
            first, last = (
                None if us is None else datetime.fromtimestamp(us / 1e6, zone).isoformat(timespec="seconds")
                for us in (extent.first_observed_at_us, extent.last_observed_at_us)
            )
            rows.append([name, KINDS[name].row, extent.event_count, first, last])
        total = sum(extent.event_count for extent in extents.values())
        return DescribeDataAnswer(
            summary=f"{total:,} events in {sum(1 for one in extents.values() if one.event_count)} of {len(extents)} views.",
            table=TableAnswer(columns=["view", "one row is", "events", "first", "newest"], rows=rows),
            notes=[
                f"times are {self._settings.time_zone}; NULL is absence, its reason stands in the row's column absence"
            ],
            next=[
                "describe_data(topic='metrics')",
                "describe_data(topic='table', table='gpu_sample')",
                "describe_data(topic='examples')",
            ],
        )

    def run_sql(
        self,
        sql: Annotated[str, Field(max_length=20_000, description="One SELECT, DuckDB's dialect")],
        window: Annotated[
            str | None, Field(description="Look only at files of this window; filter observed_at as well")
        ] = None,
        max_rows: Annotated[int, Field(ge=1, le=MCP_SQL_ROWS_MAX)] = 100,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, RunSqlAnswer]:
        """One SELECT over the views gpu_sample, system_sample, process_sample, request and others; see describe_data. For ordinary trends use query_metrics."""
        with _spoken_errors():
            zone = tz or self._settings.time_zone
            span = self._window(window, tz, self._now(tz)) if window else None
            found = run_sql(
                self._source,
                sql,
                rows_max=min(max_rows, self._settings.sql_rows_max),
                time_limit_s=self._settings.sql_time_limit_s,
                time_zone=zone_info(zone).key,
                **({"start_us": span.start_us, "end_us": span.end_us} if span else {}),
            )
            rows, is_cut = _within_budget(found.table)
            truncated = found.is_truncated or is_cut
            plural = "" if len(rows) == 1 else "s"
            return result(
                RunSqlAnswer(
                    summary=f"{'The first ' if truncated else ''}{len(rows)} row{plural}{' of more' if truncated else ''}.",
                    table=TableAnswer(columns=found.table.column_names, rows=rows),
                    types=[str(field.type) for field in found.table.schema],
                    truncated=truncated,
                    elapsed_ms=significant(found.elapsed_s * 1000) or 0,
                    notes=["cut at the size of an answer; aggregate, or select fewer columns"]
                    if is_cut
                    else [],
                    next=["aggregate in the SELECT, or raise max_rows (at most 1000)"]
                    if found.is_truncated
                    else [],
                )
            )

    def _now(self, tz: str | None) -> datetime:
        return datetime.now(zone_info(tz or self._settings.time_zone))

    def _window(self, asked: str, tz: str | None, now: datetime) -> Window:
        return resolve_window(asked, now=now, time_zone=tz or self._settings.time_zone)

    @staticmethod
    def _gpus_for(metric: str, gpu: Sequence[int] | None) -> Sequence[int]:
        return (gpu or ()) if "gpu_index" in find_metric(metric).kind.by_name else ()


@contextmanager
def _spoken_errors() -> Iterator[None]:
    """Turns a known problem into the error text that the model is shown."""
    try:
        yield
    except GpuledgerError as error:
        raise ToolError(str(error)) from error


_STATS_COLUMNS = [
    "metric",
    "unit",
    "of",
    "min",
    "avg",
    "p50",
    "p95",
    "max",
    "last",
    "slope_per_h",
    "increase",
    "spark",
]


def _stats_row(one: Trend, series: TrendSeries) -> list[Any]:
    figures = (
        series.min,
        series.avg,
        series.p50,
        series.p95,
        series.max,
        series.last,
        series.slope_per_hour,
        series.increase,
    )
    label = clean(series.label or series.series)
    return [
        one.metric,
        one.unit,
        label,
        *(_number(significant(figure)) for figure in figures),
        sparkline(series.points),
    ]


def _number(value: float | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


def _trends_summary(trends: Sequence[Trend]) -> str:
    phrases = []
    for one in trends:
        if not one.series:
            phrases.append(f"{one.metric}: no values")
            continue
        highest = max(one.series, key=lambda series: series.avg)
        whose = (
            f" on {'GPU ' if one.metric.startswith('gpu.') else ''}{clean(highest.label)!s}"
            if len(one.series) > 1
            else ""
        )
        phrases.append(
            f"{one.metric}: avg {spelled(highest.avg, one.unit)}, p95 {spelled(highest.p95, one.unit)}, last {spelled(highest.last, one.unit)}{whose}"
        )
    return "; ".join(phrases) + "."


def _live_summary(gpus: Sequence[GpuNow], hosts: Sequence[HostNow], *, is_stale: bool) -> str:
    if is_stale:
        return "No fresh samples: sampling has stopped or never began."
    busy = [
        gpu.values["utilization_percent"] for gpu in gpus if gpu.values["utilization_percent"] is not None
    ]
    words = [f"{len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"]
    if busy:
        words.append(f"mean utilization {significant(sum(busy) / len(busy))} %")
    held = [
        f"GPU {gpu.index} held by {', '.join(gpu.clock_event_reasons)}"
        for gpu in gpus
        if set(gpu.clock_event_reasons) - {"gpu_idle"}
    ]
    words += held
    words += [f"CPU {spelled(host.values['cpu_utilization_percent'], '%')}" for host in hosts]
    return "; ".join(words) + "."


_GPU_CONCISE = (
    "utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "power_watts",
    "power_limit_watts",
    "temperature_celsius",
    "clock_sm_hertz",
)


def _gpu_table(gpus: Sequence[GpuNow], detail: str) -> TableAnswer:
    names = (
        [name for name in GPU_COLUMNS if name != "clock_event_reasons_bitmask"]
        if detail == "full"
        else list(_GPU_CONCISE)
    )
    rows = [
        [
            gpu.index,
            clean(gpu.name),
            *(_cell(gpu.values.get(name)) for name in names),
            " ".join(gpu.clock_event_reasons),
            significant(gpu.age_s),
        ]
        for gpu in gpus
    ]
    return TableAnswer(columns=["gpu", "name", *names, "clocks_held_by", "age_s"], rows=rows)


def _host_table(hosts: Sequence[HostNow]) -> TableAnswer:
    rows = [
        [clean(host.host), *(_cell(host.values.get(name)) for name in HOST_COLUMNS), significant(host.age_s)]
        for host in hosts
    ]
    return TableAnswer(columns=["host", *HOST_COLUMNS, "age_s"], rows=rows)


def _absence_notes(gpus: Sequence[GpuNow]) -> list[str]:
    return [
        f"GPU {gpu.index} absent: {', '.join(f'{column} ({reason})' for column, reason in gpu.absence.items())}"
        for gpu in gpus
        if gpu.absence
    ]


def _cell(value: Any) -> Any:
    return (
        significant(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else clean(value)
    )


def _describe_table(name: str | None) -> DescribeDataAnswer:
    if not name:
        raise ToolError(
            f"topic='table' needs a table: call describe_data(topic='table', table='gpu_sample'); there are {', '.join(KINDS)}"
        )
    found = describe_kind(name)
    rows = [[column.name, column.type, column.meaning] for column in found.columns]
    return DescribeDataAnswer(
        summary=f"{found.name}: one row is {found.row}; {found.cadence}; {len(rows)} columns.",
        table=TableAnswer(columns=["column", "type", "meaning"], rows=rows),
        next=[f"run_sql(sql='select * from {found.name} order by seq desc limit 5')"],
    )


def _describe_metrics(search: str) -> DescribeDataAnswer:
    found = describe_metrics(search)
    with_meaning = bool(search) or len(found) <= 30
    columns = ["metric", "unit", "meaning"] if with_meaning else ["metric", "unit"]
    rows = [[one.name, one.unit, one.meaning][: len(columns)] for one in found]
    return DescribeDataAnswer(
        summary=f"{len(found)} metrics{f' that speak of {search!r}' if search else ''}.",
        table=TableAnswer(columns=columns, rows=rows),
        notes=[] if with_meaning else ["meanings come with search, such as search='power'"],
        next=[f"query_metrics(metrics=['{found[0].name}'], window='1h')"]
        if found
        else ["describe_data(topic='metrics')"],
    )


def _within_budget(table: pa.Table) -> tuple[list[list[Any]], bool]:
    """The rows as JSON values, as many as fit an answer, and whether some did not."""
    rows: list[list[Any]] = []
    characters = 0
    for record in table.to_pylist():
        row = [_json_value(value) for value in record.values()]
        characters += sum(len(str(value)) + 1 for value in row)
        if characters > TEXT_BUDGET_CHARACTERS:
            return rows, True
        rows.append(row)
    return rows, False


def _json_value(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return (
        clean(value)
        if isinstance(value, str)
        else value
        if isinstance(value, (int, type(None)))
        else str(value)
    )
