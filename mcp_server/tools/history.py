"""The tools that compare: two windows, a window with its usual hours, the past with what is to come."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import Answer, Number, Table, WindowAnswer, call_text, window_answer
from mcp_server.names import clean
from mcp_server.tools.desk import Desk, Detail, Gpus, WindowText, Zone
from query.figures import age_words, significant, sparkline
from query.history.recorded import recorded
from query.lengths import length_s
from query.present.nearest import why_nothing, window_text
from query.quantities import quantity
from query.windows import Window

if TYPE_CHECKING:
    from query.history.anomalies import Anomalies
    from query.history.comparison import Comparison
    from query.history.forecast import Forecast, SeriesForecast

SPARK_POINTS = 24

Names = Annotated[list[str] | None, Field(max_length=20, description="default: those that matter most")]


class CompareWindowsAnswer(Answer):
    """`baseline` is the window that was compared with; `delta` is Cliff's, -1 to 1, with its 95 % interval."""

    baseline: WindowAnswer
    differences: Table
    step_s: int


class FindAnomaliesAnswer(Answer):
    anomalies: Table
    judged_steps: int
    step_s: int


class ForecastAnswer(Answer):
    """`low` and `high` are the 90 % interval at the end; `mase` is the back-test's error, below 1 better than naive."""

    forecasts: Table
    ahead_s: Number
    series: dict[str, list[Number | None]] | None = None


class HistoryTools:
    """What differs, what is unusual, and where it goes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def compare_windows(
        self,
        window: WindowText = "1h",
        baseline: Annotated[str | None, Field(description="a window; default the same time a day before")] = None,
        metrics: Names = None,
        gpu: Gpus = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 8,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, CompareWindowsAnswer]:
        """What differs in a window from another, the most certain first, with effect sizes."""
        from query.history.comparison import compare_windows  # noqa: PLC0415 - numpy's part of it is not for every start
        from query.history.steps import day_before  # noqa: PLC0415 - as above

        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        other = self._desk.window(baseline, tz, now) if baseline else day_before(span)
        found = compare_windows(self._desk.source, other, span, tuple(metrics or ()), gpus=tuple(gpu or ()))
        more = call_text("compare_windows", {"window": window, "limit": 100})
        looked_at, compared = (
            window_answer(one, *recorded(self._desk.source, one, now=now)) for one in (found.window, found.reference)
        )
        answer = comparison_answer(found, looked_at, compared, limit, more)
        if not found.differences:
            answer = self._undiffering(answer, found, tuple(metrics or ()))
        return self._desk.answer(answer, detail="full" if limit > 8 else "concise", more=more)

    def _undiffering(
        self, answer: CompareWindowsAnswer, found: "Comparison", metrics: Sequence[str]
    ) -> CompareWindowsAnswer:
        """A comparison without series, with why, and a call over the nearest windows that have some."""
        kinds = _kinds(metrics)
        asked = {"window": found.window, "baseline": found.reference}
        nothing = {name: why_nothing(self._desk.source, kinds, window) for name, window in asked.items()}
        before = nothing["baseline"].nearest
        if before and before.end > found.window.start and before.start < found.window.end:
            words = f"baseline: {nothing['baseline'].reason}: there is nothing to compare with yet"
            return answer.model_copy(update={"notes": [*answer.notes, words]})
        if not any(one.window for one in nothing.values()):
            return answer
        notes = [f"{name}: {one.reason}" for name, one in nothing.items() if one.window]
        better = {name: one.window or window_text(asked[name]) for name, one in nothing.items()}
        return answer.model_copy(
            update={"notes": [*answer.notes, *notes], "next": [call_text("compare_windows", better)]}
        )

    def find_anomalies(
        self,
        window: WindowText = "24h",
        metrics: Names = None,
        gpu: Gpus = None,
        threshold: Annotated[float, Field(ge=2, le=1000, description="robust deviations")] = 5.0,
        limit: Annotated[int, Field(ge=1, le=100)] = 8,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, FindAnomaliesAnswer]:
        """When metrics were not what they usually are at that hour, against the 28 days before."""
        from query.history.anomalies import find_anomalies  # noqa: PLC0415 - as above
        from query.history.steps import usual_metrics  # noqa: PLC0415 - as above

        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        gpus = tuple(gpu or ())
        wanted = metrics or usual_metrics(gpus=gpus)
        found = find_anomalies(self._desk.source, wanted, span, gpus=gpus, threshold=threshold)
        more = call_text("find_anomalies", {"window": window, "limit": 100})
        looked_at = window_answer(span, *recorded(self._desk.source, span, now=now))
        answer = anomalies_answer(found, looked_at, limit, more)
        if not found.judged:
            answer = self._desk.explained(answer, _kinds(wanted), span, "find_anomalies", {})
        return self._desk.answer(answer, detail="full" if limit > 8 else "concise", more=more)

    def forecast(
        self,
        metric: Annotated[str, Field(description="e.g. gpu.memory_used_bytes")],
        window: Annotated[str, Field(description="the past to learn from")] = "14d",
        ahead: Annotated[str | None, Field(description="12h, 3d; at most a third of the window")] = None,
        threshold: Annotated[str | None, Field(description="70GiB, 85: when is it met")] = None,
        gpu: Gpus = None,
        detail: Detail = "concise",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, ForecastAnswer]:
        """Where a metric goes, with its interval and back-test error, and when it meets a threshold."""
        from query.catalogue import find_metric  # noqa: PLC0415 - as above
        from query.history.forecast import forecast, totals  # noqa: PLC0415 - as above

        now = self._desk.now(tz)
        wanted = find_metric(metric)
        span = self._desk.window(window, tz, now)
        met: float | Mapping[str, float] = (
            quantity(threshold, wanted.unit) if threshold else totals(self._desk.source, wanted.name, span)
        )
        ahead_s = length_s(ahead) if ahead else None
        found = forecast(self._desk.source, wanted.name, span, ahead_s=ahead_s, limit=met, gpus=tuple(gpu or ()))
        more = call_text("forecast", {"metric": wanted.name, "window": window, "gpu": [0]})
        answer = forecast_answer(found, now, detail)
        if not found.series:
            answer = self._desk.explained(answer, [wanted.kind.name], span, "forecast", {"metric": wanted.name})
        return self._desk.answer(answer, detail=detail, more=more)


def _kinds(metrics: Sequence[str]) -> list[str]:
    """The kinds of events that some metrics are made from; of the usual ones where none is named."""
    from query.catalogue import find_metric  # noqa: PLC0415 - as above
    from query.history.steps import USUAL_METRICS  # noqa: PLC0415 - as above

    return list(dict.fromkeys(find_metric(name).kind.name for name in metrics or USUAL_METRICS))


def _of(window: Window, coverage: float | None, now: datetime) -> WindowAnswer:
    """A window that was looked at in steps: its newest sample is no older than its end."""
    return window_answer(window, coverage, (now - window.end).total_seconds() if coverage else None)


def comparison_answer(
    found: "Comparison", window: WindowAnswer, baseline: WindowAnswer, limit: int, more: str
) -> CompareWindowsAnswer:
    """What differs, one row a series."""
    changed = len(found.changed)
    rows = [
        [
            one.metric,
            one.unit,
            clean(one.label, 40) or None,
            significant(one.effect.median_before),
            significant(one.effect.median_after),
            significant(one.effect.difference),
            significant(one.effect.delta, 2),
            significant(one.effect.delta_low, 2),
            significant(one.effect.delta_high, 2),
            one.strength if one.effect.is_certain else "not certain",
        ]
        for one in found.differences[:limit]
    ]
    columns = ["metric", "unit", "of", "median_before", "median_after", "difference", "delta", "low", "high", "effect"]
    notes = [found.method, *found.limits]
    if found.only_before or found.only_after:
        notes.append(f"{len(found.only_before)} series only before, {len(found.only_after)} only after")
    return CompareWindowsAnswer(
        summary=f"{changed} of {found.n} series differ with certainty and by what matters.",
        window=window,
        baseline=baseline,
        differences=Table(columns=columns, rows=rows),
        step_s=found.step_s,
        notes=notes,
        next=[more] if found.n > limit else [] if rows else ["describe_data()"],
    )


def anomalies_answer(found: "Anomalies", window: WindowAnswer, limit: int, more: str) -> FindAnomaliesAnswer:
    """The anomalies, the furthest from what is usual first."""
    rows = [
        [
            f"{one.begins_at:%m-%d %H:%M}",
            f"{one.ends_at:%m-%d %H:%M}",
            one.metric,
            one.unit,
            clean(one.label, 40) or None,
            significant(one.value),
            significant(one.usual),
            significant(one.score),
        ]
        for one in found.spells[:limit]
    ]
    why_not = list(dict.fromkeys(one.why_not for one in found.judged if one.why_not))[:3]
    return FindAnomaliesAnswer(
        summary=f"{len(found.spells)} anomal{'y' if len(found.spells) == 1 else 'ies'} in {len(found.judged)} series.",
        window=window,
        anomalies=Table(columns=["begins", "ends", "metric", "unit", "of", "value", "usual", "score"], rows=rows),
        judged_steps=found.n,
        step_s=found.step_s,
        notes=[found.method, *found.limits, *why_not],
        next=[more] if len(found.spells) > limit else [] if rows else [call_text("list_events", {"window": "24h"})],
    )


def forecast_answer(found: "Forecast", now: datetime, detail: str) -> ForecastAnswer:
    """Where each series goes, one row each; `full` adds the path."""
    verdicts: dict[str, int] = {}
    for one in found.series:
        verdicts[one.verdict] = verdicts.get(one.verdict, 0) + 1
    words = ", ".join(f"{verdict} ({count})" for verdict, count in verdicts.items()) or "no values"
    columns = ["of", "verdict", "per_day", "at_end", "low", "high", "mase", "held", "limit_met", "spark"]
    full = {_label(one): [significant(point.value) for point in one.points] for one in found.series}
    return ForecastAnswer(
        summary=f"{found.metric}, {age_words(found.ahead_s)} ahead: {words}.",
        window=_of(found.window, found.coverage, now),
        forecasts=Table(columns=columns, rows=[_forecast_row(one, found.unit) for one in found.series]),
        ahead_s=significant(found.ahead_s, 6) or 0,
        series=full if detail == "full" else None,
        notes=[f"values in {found.unit or 'plain units'}, one step {found.step_s} s", found.method, *found.limits],
    )


def _forecast_row(one: "SeriesForecast", unit: str) -> list[Any]:
    end = one.points[-1] if one.points else None
    last = (end.value, end.low, end.high) if end else (None, None, None)
    figures = (one.slope_per_day, *last, one.mase, one.held)
    stride = max(1, len(one.points) // SPARK_POINTS)
    spark = sparkline([point.value for point in one.points[::stride]], unit)
    return [_label(one), one.verdict, *map(significant, figures), one.limit.words if one.limit else None, spark or None]


def _label(one: "SeriesForecast") -> str:
    return str(clean(one.label or one.series, 40))
