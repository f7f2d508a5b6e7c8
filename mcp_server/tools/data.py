"""The tools about the data itself: what there is, and any question of it in SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import SQL_TOKENS_MAX, TOKENS_MAX, Answer, Number, Table, WindowAnswer
from mcp_server.figures import json_value
from mcp_server.tools.desk import Desk, Zone
from query.describe import SQL_EXAMPLES, describe_kind, describe_metrics
from query.figures import significant
from query.present.capabilities import GpuCapabilities, capabilities
from query.reading.asker import asker
from query.windows import zone_info
from store.events import KINDS
from store.snapshot import END_OF_TIME_US, KindExtent

if TYPE_CHECKING:
    from query.ad_hoc import SqlResult

MEANINGS_MAX = 30  # more metrics than that are listed without their meaning
SQL_ROWS_MAX = 1_000
_SQL_CALL = "run_sql(sql='select count(*) as n from gpu_sample')"


class DescribeDataAnswer(Answer):
    table: Table


class RunSqlAnswer(Answer):
    """`is_cut` says that the query has more rows than are given."""

    table: Table
    types: list[str]
    is_cut: bool
    elapsed_ms: Number


class DataTools:
    """The data itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def describe_data(
        self,
        topic: Literal["overview", "metrics", "table", "examples", "capabilities"] = "overview",
        table: Annotated[str | None, Field(description="for topic=table")] = None,
        search: Annotated[str, Field(description="for topic=metrics")] = "",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, DescribeDataAnswer]:
        """What is recorded: views, metrics, columns, example SQL, what the driver does not tell. Ask before run_sql."""
        with self._desk.source.reader() as reader:
            extents = reader.extents()
        zone = zone_info(tz or self._desk.settings.time_zone)
        window = extent_answer(extents, self._desk.now(tz))
        match topic:
            case "table" if table:
                answer = table_description(table, window)
            case "metrics":
                answer = metrics_description(search, window)
            case "examples":
                answer = sql_examples(window)
            case "capabilities":
                answer = capabilities_answer(capabilities(self._desk.source), zone, window)
            case _:
                answer = overview(extents, zone, window)
        more = "describe_data(topic='metrics', search='power')" if topic == "metrics" else None
        return self._desk.answer(answer, tokens_max=TOKENS_MAX, more=more)

    def run_sql(
        self,
        sql: Annotated[str, Field(max_length=20_000, description="one SELECT, DuckDB")],
        window: Annotated[str | None, Field(description="reads its files only")] = None,
        max_rows: Annotated[int, Field(ge=1, le=SQL_ROWS_MAX)] = 100,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, RunSqlAnswer]:
        """One SELECT over gpu_sample, system_sample, process_sample, request, …; for trends use query_metrics."""
        from query.ad_hoc import run_sql  # noqa: PLC0415 - DuckDB takes 90 ms, and the first answer is waited for
        from query.sandbox.guard import referenced_kinds  # noqa: PLC0415 - as above

        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now) if window else None
        found = run_sql(
            self._desk.source,
            sql,
            rows_max=min(max_rows, self._desk.settings.sql_rows_max),
            time_limit_s=self._desk.settings.sql_time_limit_s,
            time_zone=zone_info(tz or self._desk.settings.time_zone).key,
            start_us=span.start_us if span else 0,
            end_us=span.end_us if span else END_OF_TIME_US,
            cancelled=asker().has_left,
        )
        with self._desk.source.reader() as reader:
            looked_at = extent_answer(reader.extents(), now)
        more = "aggregate in the SELECT, or select fewer columns"
        answer = sql_answer(found, looked_at)
        if not found.table.num_rows and (kinds := referenced_kinds(sql)):
            everything = span or self._desk.window("all", tz, now)
            answer = self._desk.explained(answer, kinds, everything, "run_sql", {"sql": sql})
        return self._desk.answer(answer, tokens_max=SQL_TOKENS_MAX, more=more)


def extent_answer(extents: Mapping[str, KindExtent], now: datetime) -> WindowAnswer:
    """All that the ledger holds, as a window."""
    firsts = [one.first_observed_at_us for one in extents.values() if one.first_observed_at_us is not None]
    lasts = [
        one.last_observed_at_us
        for kind, one in extents.items()
        if one.last_observed_at_us is not None and KINDS[kind].expected_every_seconds
    ]
    begins = datetime.fromtimestamp(min(firsts) / 1e6, now.tzinfo) if firsts else now
    age_s = max(0.0, now.timestamp() - max(lasts) / 1e6) if lasts else None
    return WindowAnswer.model_validate(
        {
            "from": begins.isoformat(timespec="seconds"),
            "to": now.isoformat(timespec="seconds"),
            "tz": str(now.tzinfo),
            "coverage": None,
            "age_s": significant(age_s),
        }
    )


def overview(extents: Mapping[str, KindExtent], zone: ZoneInfo, window: WindowAnswer) -> DescribeDataAnswer:
    """Every view, with how much it holds."""

    def stamp(time_us: int | None) -> str | None:
        return None if time_us is None else datetime.fromtimestamp(time_us / 1e6, zone).isoformat(timespec="seconds")

    rows = [
        [name, KINDS[name].row, one.event_count, stamp(one.first_observed_at_us), stamp(one.last_observed_at_us)]
        for name, one in extents.items()
        if one.event_count
    ]
    empty = [name for name, one in extents.items() if not one.event_count]
    total = sum(one.event_count for one in extents.values())
    return DescribeDataAnswer(
        summary=f"{total:,} events in {len(rows)} of {len(extents)} views.",
        window=window,
        table=Table(columns=["view", "one row is", "events", "first", "newest"], rows=rows),
        notes=[
            "NULL is absence, its reason stands in the row's column absence",
            *([f"empty: {', '.join(empty)}"] if empty else []),
        ],
        next=["describe_data(topic='metrics')", "describe_data(topic='table', table='gpu_sample')"],
    )


def table_description(name: str, window: WindowAnswer) -> DescribeDataAnswer:
    """The columns of one view.

    Raises:
        UnknownKindError: There is no such view.
    """
    found = describe_kind(name)
    rows = [[column.name, column.type, column.unit or None] for column in found.columns]
    return DescribeDataAnswer(
        summary=f"{found.name}: one row is {found.row}; {found.cadence}; {len(rows)} columns.",
        window=window,
        table=Table(columns=["column", "type", "unit"], rows=rows),
        notes=["meanings: describe_data(topic='metrics', search='…'), or the resource telemetry://schema/{table}"],
        next=[f"run_sql(sql='select * from {found.name} order by seq desc limit 5')"],
    )


def metrics_description(search: str, window: WindowAnswer) -> DescribeDataAnswer:
    """The metrics that hold the words of `search`; their meaning where they are few."""
    found = describe_metrics(search)
    columns = ["metric", "unit", "meaning"] if len(found) <= MEANINGS_MAX else ["metric", "unit"]
    rows = [[one.name, one.unit, one.meaning][: len(columns)] for one in found]
    again = "describe_data(topic='metrics', search='power')"
    return DescribeDataAnswer(
        summary=f"{len(found)} metrics{' that speak of what was searched' if search else ''}.",
        window=window,
        table=Table(columns=columns, rows=rows),
        notes=[f"no metric's name or meaning holds all words of {search[:60]!r}; without search all are listed"]
        if not found
        else []
        if "meaning" in columns
        else ["meanings come with search, such as search='power'"],
        next=[f"query_metrics(metrics=['{found[0].name}'], window='1h')" if found and search else again],
    )


def sql_examples(window: WindowAnswer) -> DescribeDataAnswer:
    return DescribeDataAnswer(
        summary="SQL to begin with; DuckDB's dialect.",
        window=window,
        table=Table(columns=["question", "sql"], rows=[[question, sql] for question, sql in SQL_EXAMPLES.items()]),
        next=[_SQL_CALL],
    )


def capabilities_answer(found: Sequence[GpuCapabilities], zone: ZoneInfo, window: WindowAnswer) -> DescribeDataAnswer:
    """The calls that gave nothing on each GPU, those of one status together."""
    rows: list[list[Any]] = []
    for gpu in found:
        by_status: dict[str, list[str]] = {}
        for call, status in gpu.refused.items():
            by_status.setdefault(status, []).append(call)
        stamp = gpu.recorded_at.astimezone(zone).isoformat(timespec="seconds")
        rows += [[gpu.index, gpu.uuid, status, ", ".join(calls), stamp] for status, calls in by_status.items()]
    asked = sum(len(gpu.calls) for gpu in found)
    given = asked - sum(len(gpu.refused) for gpu in found)
    return DescribeDataAnswer(
        summary=f"{given} of {asked} driver calls on {len(found)} GPUs give a value; the others are listed."
        if found
        else "No GPU's driver has been asked what it gives: there is none, or it is made up.",
        window=window,
        table=Table(columns=["gpu", "uuid", "status", "calls", "since"], rows=rows),
        notes=["a call that gives nothing is tried again, after 1 to 10 minutes"] if rows else [],
        next=["get_system_health()"],
    )


def _values(column: Any) -> Any:
    """The values of a column; those of single precision as short as they are: 696.849, not 696.8489990234375."""
    if str(column.type) == "float":
        return [None if value is None else float(str(np.float32(value))) for value in column.to_pylist()]
    return column.to_pylist()


def sql_answer(found: "SqlResult", window: WindowAnswer) -> RunSqlAnswer:
    """Rows of a query."""
    columns = [_values(column) for column in found.table.columns]  # by position: names may stand twice
    rows = [[json_value(value) for value in values] for values in zip(*columns, strict=True)]
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return RunSqlAnswer(
        summary=f"The first {count} of more." if found.is_truncated else f"{count}.",
        window=window,
        table=Table(columns=found.table.column_names, rows=rows),
        types=[str(field.type) for field in found.table.schema],
        is_cut=found.is_truncated,
        elapsed_ms=significant(found.elapsed_s * 1000) or 0,
        notes=["there are more rows: aggregate in the SELECT, or raise max_rows (at most 1000)"]
        if found.is_truncated
        else [],
        next=[] if rows else ["describe_data()"],
    )
