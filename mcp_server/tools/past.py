"""The tools that say how it was: metrics, processes and events of a window."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import Answer, Number, Table, call_text, window_answer
from mcp_server.figures import figure, finite
from mcp_server.names import clean
from mcp_server.tools.desk import Desk, Detail, Gpus, WindowText, Zone
from query.catalogue import find_metric
from query.figures import significant, sparkline, spelled
from query.history.recorded import recorded
from query.history.trends import Trend, TrendSeries, trend
from query.present.absence import why_no_values
from query.present.nearest import nearest_window
from query.present.processes import ProcessRanking, ProcessUse, Ranking, rank_processes
from query.present.timeline import Happening, Timeline, timeline
from query.windows import Window

SPARK_POINTS = 24
_STATS_FIGURES = ("min", "avg", "p50", "p95", "max", "last", "slope_per_hour", "increase")


class QueryMetricsAnswer(Answer):
    """With detail=full `series` has the mean of each step from `series_start` on, by metric/label.

    `resolution` is raw, or the coarsest rollup used: then p50 and p95 are within 1 %.
    """

    stats: Table
    step_s: int
    resolution: Literal["raw", "minute", "hour"]
    series: dict[str, list[Number | None]] | None = None
    series_start: str | None = None


class TopProcessesAnswer(Answer):
    processes: Table


class ListEventsAnswer(Answer):
    """`cursor` goes on where the rows end; null at the end."""

    events: Table
    cursor: int | None


class PastTools:
    """How it was."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def query_metrics(
        self,
        metrics: Annotated[
            list[str],
            Field(min_length=1, max_length=12, description="e.g. gpu.power_watts; describe_data(topic='metrics')"),
        ],
        window: WindowText = "1h",
        gpu: Gpus = None,
        points: Annotated[int, Field(ge=2, le=500)] = SPARK_POINTS,
        detail: Detail = "concise",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, QueryMetricsAnswer]:
        """How metrics went over a window, per GPU: statistics, slope, sparkline; counters as rates."""
        wanted = list(dict.fromkeys(find_metric(name).name for name in metrics))
        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        trends = [
            trend(self._desk.source, name, span, now=now, gpus=_gpus_for(name, gpu), points=points) for name in wanted
        ]
        reasons = {one.metric: why_no_values(self._desk.source, one) for one in trends if not one.series}
        more = call_text("query_metrics", {"metrics": wanted[:1], "window": window, "detail": "full"})
        answer = metrics_answer(trends, reasons, detail)
        if len(reasons) == len(trends) and not any(one.absent for one in trends):
            kinds = list(dict.fromkeys(find_metric(name).kind.name for name in wanted))
            answer = self._desk.explained(answer, kinds, span, "query_metrics", {"metrics": wanted})
        return self._desk.answer(answer, detail=detail, more=more)

    def top_processes(
        self,
        window: WindowText = "5m",
        by: Ranking = "gpu_memory",
        gpu: Gpus = None,
        user: str | None = None,
        limit: Annotated[int, Field(ge=1, le=300)] = 8,
        detail: Detail = "concise",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, TopProcessesAnswer]:
        """Who used the GPUs, now or in a past window: memory, share and seconds of GPU time, CPU, RAM per process."""
        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        found = rank_processes(self._desk.source, span, by=by, gpus=gpu or (), user=user, top=limit)
        share_and_age = recorded(self._desk.source, span, now=now)
        more = call_text("top_processes", {"window": window, "by": by, "limit": 50, "detail": "full"})
        answer = processes_answer(found, share_and_age, detail, more)
        if not found.processes:
            answer = self._desk.explained(answer, ["process_sample"], span, "top_processes", {"by": by})
        return self._desk.answer(answer, detail=detail, more=more)

    def list_events(
        self,
        window: WindowText = "24h",
        types: Annotated[list[str] | None, Field(description="e.g. xid, gap")] = None,
        min_severity: Literal["info", "warning", "critical"] = "info",
        gpu: Gpus = None,
        limit: Annotated[int, Field(ge=1, le=200)] = 15,
        cursor: Annotated[int | None, Field(ge=1)] = None,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, ListEventsAnswer]:
        """What happened, newest first, runs folded: Xid, ECC, throttling, GPU lost, collector gaps, annotations."""
        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        found = timeline(
            self._desk.source,
            span,
            types=types or (),
            severity=min_severity,
            gpus=gpu or (),
            before_seq=cursor,
            top=limit,
        )
        share_and_age = recorded(self._desk.source, span, now=now)
        answer = events_answer(found, share_and_age)
        if not found.happenings:
            answer = self._before_them(answer, span, types or (), min_severity, gpu or ())
        more = call_text("list_events", {"window": window, "limit": limit, "cursor": answer.cursor})
        return self._desk.answer(answer, detail="full" if limit > 15 else "concise", more=more)

    def _before_them(
        self, answer: ListEventsAnswer, window: Window, types: Sequence[str], severity: str, gpus: Sequence[int]
    ) -> ListEventsAnswer:
        """An answer without events, with the nearest before them of those that were asked for."""
        everything = replace(window, start=datetime.fromtimestamp(0, window.start.tzinfo), end=window.start)
        earlier = timeline(self._desk.source, everything, types=types, severity=severity, gpus=gpus, top=1).happenings
        if not earlier:
            call = call_text("list_events", {"window": window.asked}) if types or gpus else "describe_data()"
            notes = [*answer.notes, "nor was there any before it"]
            return answer.model_copy(update={"notes": notes, "next": [call]})
        at_us = round(earlier[0].last_at.timestamp() * 1e6)
        nearest = nearest_window(window, at_us, None)
        asked = {"types": list(types)} if types else {}
        call = call_text("list_events", {"window": nearest.asked, **asked}) if nearest else ""
        reason = f"the newest before it is of {earlier[0].last_at:%Y-%m-%d %H:%M:%S}"
        return answer.model_copy(update={"notes": [*answer.notes, reason], "next": [call]})


def _gpus_for(metric: str, gpu: Sequence[int] | None) -> Sequence[int]:
    """A choice of GPUs narrows only what is measured per GPU: the host's metrics may be asked for beside them."""
    return (gpu or ()) if "gpu_index" in find_metric(metric).kind.by_name else ()


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
    names = [one.metric for one in trends]
    again = call_text("query_metrics", {"metrics": names, "window": first.window.asked, "detail": "full"})
    return QueryMetricsAnswer(
        summary="; ".join(_trend_phrase(one) for one in trends) + ".",
        window=window_answer(first.window, min(coverages, default=None), min(ages, default=None)),
        stats=Table(columns=["metric", "unit", "of", *_STATS_FIGURES, "spark"], rows=rows),
        step_s=first.step_s,
        resolution=max((one.resolution for one in trends), key=("raw", "minute", "hour").index),
        series=_dense(trends) if is_full else None,
        series_start=first.first_point_at.isoformat(timespec="seconds") if is_full else None,
        notes=list(_metric_notes(trends, reasons, has_spark=bool(rows))),
        next=[] if is_full else [again] if rows else ["describe_data()"],
    )


def _metric_notes(trends: Sequence[Trend], reasons: Mapping[str, str], *, has_spark: bool) -> Iterator[str]:
    for metric, reason in reasons.items():
        yield f"{metric} has no values: {reason}"
    for one in trends:
        if one.increase_unit:
            yield f"{one.metric}: increase is in {one.increase_unit}"
    if has_spark:
        yield f"spark: one character per {trends[0].step_s} s"


def _stats_row(one: Trend, series: TrendSeries) -> list[Any]:
    figures = [finite(significant(getattr(series, name))) for name in _STATS_FIGURES]
    return [one.metric, one.unit, _label(series), *figures, sparkline(series.points[-SPARK_POINTS - 1 :], one.unit)]


def _dense(trends: Sequence[Trend]) -> dict[str, list[Number | None]]:
    return {
        f"{one.metric}/{_label(series)}": [finite(significant(point)) for point in series.points]
        for one in trends
        for series in one.series
    }


def _label(series: TrendSeries) -> str:
    return str(clean(series.label or series.series))


def _trend_phrase(one: Trend) -> str:
    if not one.series:
        return f"{one.metric}: no values"
    highest = max(one.series, key=lambda series: series.avg)
    whose = f", the highest of {len(one.series)}" if len(one.series) > 1 else ""
    if whose and one.metric.startswith("gpu."):
        whose = f" on GPU {_label(highest)}{whose}"
    figures = ((name, getattr(highest, name)) for name in ("avg", "p95", "last"))
    return f"{one.metric}: {', '.join(f'{name} {spelled(value, one.unit)}' for name, value in figures)}{whose}"


def processes_answer(
    found: ProcessRanking, share_and_age: tuple[float, float | None], detail: str, more: str
) -> TopProcessesAnswer:
    """Processes, one row each. Their names are data: none is in the summary."""
    extra = ["command", "container", "host_memory_bytes", "first", "last"] if detail == "full" else []
    shown, count = len(found.processes), found.process_count
    return TopProcessesAnswer(
        summary=f"{count} process{'' if count == 1 else 'es'} on GPUs{f', the first {shown}' if shown < count else ''}"
        f" by {found.by}.",
        window=window_answer(found.window, *share_and_age),
        processes=Table(
            columns=["pid", "name", "user", "gpus", "gpu_memory_bytes", "gpu_util_percent", "gpu_seconds",
                     "cpu_seconds", "running", *extra],
            rows=[_process_row(one, with_more=bool(extra)) for one in found.processes],
        ),
        next=[more] if shown < count else [],
    )  # fmt: skip


def _process_row(one: ProcessUse, *, with_more: bool) -> list[Any]:
    figures = (one.gpu_memory_bytes, one.sm_utilization_percent, one.gpu_seconds, one.cpu_seconds)
    row = [
        one.pid,
        clean(one.name, 40),
        clean(one.user, 40),
        " ".join(map(str, one.gpus)),
        *map(figure, figures),
        one.is_running,
    ]
    if not with_more:
        return row
    times = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (one.first_at, one.last_at))
    return [*row, clean(one.command), clean(one.container, 64), figure(one.host_memory_bytes), *times]


def events_answer(found: Timeline, share_and_age: tuple[float, float | None]) -> ListEventsAnswer:
    """Events, the newest first. The source's words are data and stay in their cells."""
    shown = found.happenings
    counts: dict[str, int] = {}
    for one in shown:
        counts[one.event] = counts.get(one.event, 0) + one.n
    kinds = ", ".join(f"{n} {event}" for event, n in counts.items())
    rest = found.n - len(shown)
    words = [f"{found.event_count} events", *([kinds] if kinds else []), *([f"{rest} rows more"] if rest else [])]
    return ListEventsAnswer(
        summary=f"{': '.join(words[:2])}{''.join(f', and {one}' for one in words[2:])}.",
        window=window_answer(found.window, *share_and_age),
        events=Table(
            columns=["at", "last", "n", "event", "severity", "gpu", "detail", "lasted_s", "message"],
            rows=[_event_row(one, found) for one in shown],
        ),
        cursor=min(one.seq for one in shown) if rest else None,
        notes=[] if shown else [_no_events(share_and_age[0])],
    )


def _no_events(coverage: float) -> str:
    if coverage == 0:
        return "nothing was recorded in that time"
    return f"the collector was recording for {100 * coverage:.3g} % of that time, and nothing of that kind happened"


def _event_row(one: Happening, found: Timeline) -> list[Any]:
    is_one_day = found.window.start.date() == found.window.end.date()
    form = "%H:%M:%S" if is_one_day else "%m-%d %H:%M:%S"
    return [
        one.at.strftime(form),
        one.last_at.strftime(form) if one.n > 1 else None,
        one.n,
        one.event,
        one.severity,
        one.gpu,
        clean(one.detail, 60),
        figure(one.duration_seconds),
        clean(one.message),
    ]
