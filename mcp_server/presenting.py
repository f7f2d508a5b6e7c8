"""How results of the query layer look in an answer: summaries, rows, notes, the next call."""

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from mcp_server.answers import (
    DescribeDataAnswer,
    LiveStateAnswer,
    QueryMetricsAnswer,
    RunSqlAnswer,
    TableAnswer,
    clean,
    window_answer,
)
from query.ad_hoc import SqlResult
from query.capabilities import GpuCapabilities
from query.describe import SQL_EXAMPLES, describe_kind, describe_metrics
from query.figures import age_words, significant, sparkline, spelled
from query.live import GPU_COLUMNS, HOST_COLUMNS, GpuNow, HostNow, LiveState
from query.trends import Trend, TrendSeries
from store.errors import UsageError
from store.events import KINDS
from store.snapshot import KindExtent

TEXT_BUDGET_CHARACTERS = 20_000  # about 6,000 tokens, the cap for SQL
MEANINGS_MAX = 30  # more metrics than that are listed without their meaning

_STATS_FIGURES = ("min", "avg", "p50", "p95", "max", "last", "slope_per_hour", "increase")
_GPU_CONCISE = (
    "utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "power_watts",
    "power_limit_watts",
    "temperature_celsius",
    "clock_sm_hertz",
)
_GPU_FULL = tuple(name for name in GPU_COLUMNS if name != "clock_event_reasons_bitmask")


def metrics_answer(trends: Sequence[Trend], reasons: Mapping[str, str], detail: str) -> QueryMetricsAnswer:
    """Trends of one window.

    Args:
        trends: At least one, all of the same window and step.
        reasons: Why a metric has no values, for those that have none.
        detail: `full` adds the series.
    """
    first = trends[0]
    coverages = [one.coverage for one in trends if one.coverage is not None]
    ages = [one.newest_age_s for one in trends if one.newest_age_s is not None]
    rows = [_stats_row(one, series) for one in trends for series in one.series]
    is_full = detail == "full"
    notes = [f"{metric} has no values: {reason}" for metric, reason in reasons.items()]
    notes += [f"{one.metric}: increase is in {one.increase_unit}" for one in trends if one.increase_unit]
    if rows and not is_full:
        notes.append(f"spark: one character per {first.step_s} s")
    again = f"query_metrics(metrics={[one.metric for one in trends]}, window={first.window.asked!r}, detail='full')"
    return QueryMetricsAnswer(
        summary=_trends_summary(trends),
        window=window_answer(first.window, min(coverages, default=None), min(ages, default=None)),
        stats=TableAnswer(columns=["metric", "unit", "of", *_STATS_FIGURES, "spark"], rows=rows),
        step_s=first.step_s,
        resolution=max((one.resolution for one in trends), key=("raw", "minute", "hour").index),
        series=_dense(trends) if is_full else None,
        series_start=first.first_point_at.isoformat(timespec="seconds") if is_full else None,
        notes=notes,
        next=[again] if rows and not is_full else [],
    )


def _stats_row(one: Trend, series: TrendSeries) -> list[Any]:
    figures = [_finite(significant(getattr(series, name))) for name in _STATS_FIGURES]
    return [one.metric, one.unit, _label(series), *figures, sparkline(series.points, one.unit)]


def _dense(trends: Sequence[Trend]) -> dict[str, list[float | None]]:
    return {
        f"{one.metric}/{_label(series)}": [_finite(significant(point)) for point in series.points]
        for one in trends
        for series in one.series
    }


def _label(series: TrendSeries) -> str:
    return str(clean(series.label or series.series))


def _finite(value: float | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


def _trends_summary(trends: Sequence[Trend]) -> str:
    return "; ".join(_trend_phrase(one) for one in trends) + "."


def _trend_phrase(one: Trend) -> str:
    if not one.series:
        return f"{one.metric}: no values"
    highest = max(one.series, key=lambda series: series.avg)
    subject = "GPU " if one.metric.startswith("gpu.") else ""
    whose = f" on {subject}{_label(highest)}, the highest of {len(one.series)}" if len(one.series) > 1 else ""
    figures = ((name, getattr(highest, name)) for name in ("avg", "p95", "last"))
    return f"{one.metric}: {', '.join(f'{name} {spelled(value, one.unit)}' for name, value in figures)}{whose}"


def live_answer(state: LiveState, detail: str) -> LiveStateAnswer:
    """The machine now; `full` adds columns and the reasons of what is absent."""
    notes = [f"no GPU is recorded: {state.no_gpu_because}"] if state.no_gpu_because else []
    if state.newest_age_s is None:
        notes.append("nothing was recorded in the last 10 minutes; see that 'gpuledger up' runs")
    elif state.is_stale:
        age = age_words(state.newest_age_s)
        notes.append(f"the newest sample is {age} old, so values are null; see that 'gpuledger up' runs")
    is_full = detail == "full"
    return LiveStateAnswer(
        summary=_live_summary(state),
        as_of=state.as_of.isoformat(timespec="seconds"),
        age_s=significant(state.newest_age_s),
        stale=state.is_stale,
        gpus=_gpu_table(state.gpus, _GPU_FULL if is_full else _GPU_CONCISE),
        host=_host_table(state.hosts),
        notes=[*notes, *(_absence_notes(state.gpus) if is_full else ())],
        next=["query_metrics(metrics=['gpu.utilization_percent'], window='1h')"] if state.gpus else [],
    )


def _live_summary(state: LiveState) -> str:
    if state.is_stale:
        return "No fresh samples: sampling has stopped or never began."
    busy = [gpu.values["utilization_percent"] for gpu in state.gpus if gpu.values["utilization_percent"] is not None]
    words = [f"{len(state.gpus)} GPU{'' if len(state.gpus) == 1 else 's'}"]
    if busy:
        words.append(f"mean utilization {significant(sum(busy) / len(busy))} %")
    words += [
        f"GPU {gpu.index} held by {', '.join(gpu.clock_event_reasons)}"
        for gpu in state.gpus
        if set(gpu.clock_event_reasons) - {"gpu_idle"}
    ]
    words += [f"CPU {spelled(host.values['cpu_utilization_percent'], '%')}" for host in state.hosts]
    return "; ".join(words) + "."


def _gpu_table(gpus: Sequence[GpuNow], names: Sequence[str]) -> TableAnswer:
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
    return significant(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else clean(value)


def overview(extents: Mapping[str, KindExtent], zone: ZoneInfo) -> DescribeDataAnswer:
    """Every view, with how much it holds."""

    def stamp(time_us: int | None) -> str | None:
        return None if time_us is None else datetime.fromtimestamp(time_us / 1e6, zone).isoformat(timespec="seconds")

    rows = [
        [name, KINDS[name].row, one.event_count, stamp(one.first_observed_at_us), stamp(one.last_observed_at_us)]
        for name, one in extents.items()
    ]
    total = sum(one.event_count for one in extents.values())
    used = sum(1 for one in extents.values() if one.event_count)
    return DescribeDataAnswer(
        summary=f"{total:,} events in {used} of {len(rows)} views.",
        table=TableAnswer(columns=["view", "one row is", "events", "first", "newest"], rows=rows),
        notes=[f"times are {zone.key}; NULL is absence, its reason stands in the row's column absence"],
        next=[
            "describe_data(topic='metrics')",
            "describe_data(topic='table', table='gpu_sample')",
            "describe_data(topic='examples')",
        ],
    )


def table_description(name: str | None) -> DescribeDataAnswer:
    """The columns of one view.

    Raises:
        UnknownKindError: There is no such view.
        UsageError: None was named.
    """
    if not name:
        example = "call describe_data(topic='table', table='gpu_sample')"
        raise UsageError("topic='table' needs a table", f"{example}; there are {', '.join(KINDS)}")
    found = describe_kind(name)
    rows = [[column.name, column.type, column.meaning] for column in found.columns]
    return DescribeDataAnswer(
        summary=f"{found.name}: one row is {found.row}; {found.cadence}; {len(rows)} columns.",
        table=TableAnswer(columns=["column", "type", "meaning"], rows=rows),
        next=[f"run_sql(sql='select * from {found.name} order by seq desc limit 5')"],
    )


def metrics_description(search: str) -> DescribeDataAnswer:
    """The metrics that hold the words of `search`; their meaning where they are few."""
    found = describe_metrics(search)
    columns = ["metric", "unit", "meaning"] if len(found) <= MEANINGS_MAX else ["metric", "unit"]
    rows = [[one.name, one.unit, one.meaning][: len(columns)] for one in found]
    return DescribeDataAnswer(
        summary=f"{len(found)} metrics{f' that speak of {search!r}' if search else ''}.",
        table=TableAnswer(columns=columns, rows=rows),
        notes=[] if "meaning" in columns else ["meanings come with search, such as search='power'"],
        next=[
            f"query_metrics(metrics=['{found[0].name}'], window='1h')" if found else "describe_data(topic='metrics')"
        ],
    )


def sql_examples() -> DescribeDataAnswer:
    return DescribeDataAnswer(
        summary="SQL to begin with; DuckDB's dialect.",
        table=TableAnswer(
            columns=["question", "sql"], rows=[[question, sql] for question, sql in SQL_EXAMPLES.items()]
        ),
    )


def capabilities_answer(found: Sequence[GpuCapabilities], zone: ZoneInfo) -> DescribeDataAnswer:
    """The calls that gave nothing on each GPU, those of one status together."""
    rows = []
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
        else "No GPU has been recorded, so none was asked.",
        table=TableAnswer(columns=["gpu", "uuid", "status", "calls", "since"], rows=rows),
        notes=["a call that gives nothing is tried again, after 1 to 10 minutes"] if rows else [],
        next=["gpuledger doctor, on that machine, says what to do about each"] if rows else [],
    )


def sql_answer(found: SqlResult) -> RunSqlAnswer:
    """Rows of a query, as many as fit an answer."""
    rows, is_cut = _rows_within_budget(found.table)
    is_truncated = found.is_truncated or is_cut
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return RunSqlAnswer(
        summary=f"The first {count} of more." if is_truncated else f"{count}.",
        table=TableAnswer(columns=found.table.column_names, rows=rows),
        types=[str(field.type) for field in found.table.schema],
        truncated=is_truncated,
        elapsed_ms=significant(found.elapsed_s * 1000) or 0,
        notes=["cut at the size of an answer; aggregate, or select fewer columns"] if is_cut else [],
        next=["aggregate in the SELECT, or raise max_rows (at most 1000)"] if found.is_truncated else [],
    )


def _rows_within_budget(table: pa.Table) -> tuple[list[list[Any]], bool]:
    """The rows as JSON values, as many as fit an answer, and whether some did not."""
    rows: list[list[Any]] = []
    characters = 0
    columns = [column.to_pylist() for column in table.columns]  # by position: names may stand twice
    for values in zip(*columns, strict=True):
        row = [_json_value(value) for value in values]
        characters += sum(len(str(value)) + 1 for value in row)
        if characters > TEXT_BUDGET_CHARACTERS:
            return rows, True
        rows.append(row)
    return rows, False


def _json_value(value: Any) -> Any:
    plain: Any
    match value:
        case None | bool() | int():
            plain = value
        case float():
            plain = _finite(value)
        case str():
            plain = clean(value)
        case datetime() | date():
            plain = value.isoformat()
        case Decimal():
            plain = int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            plain = base64.b64encode(value).decode()
        case dict():
            plain = {str(key): _json_value(item) for key, item in value.items()}
        case list() | tuple():
            plain = [_json_value(item) for item in value]
        case _:
            plain = str(value)
    return plain
