"""How a metric went over a window."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from query.catalogue import Metric, find_metric
from query.engine import Engine, Source, in_window, sql_text
from query.errors import UnknownGpuError
from query.reading.columns import Key
from query.reading.resolutions import Resolution, RollupPlan, plan_rollups
from query.reading.trend_figures import Figures, figures
from query.reading.trend_reading import TrendQuestion
from query.windows import Window
from store.rollups.cells import series_name
from store.snapshot import RollupExtent

STEPS_S = (
    1,
    2,
    5,
    10,
    15,
    20,
    30,
    60,
    120,
    180,
    300,
    600,
    900,
    1200,
    1800,
    3600,
    7200,
    10_800,
    14_400,
    21_600,
    43_200,
)
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class TrendSeries:
    """One series of a trend: a GPU, the host, a process, an operation.

    Args:
        label: Its name for a person: `0` for GPU 0, with the identity behind it where two share the name; empty where
            the kind has one series a host.
        series: Its identity: a GPU's UUID, a host's name.
        n: Number of samples (for a counter: of steps between them).
        min, avg, p50, p95, max, last: Of the samples, in the metric's unit. Percentiles are exact where the resolution
            is raw, else within 1 %.
        slope_per_hour: Slope of the least-squares line, units per hour; None with fewer than two samples. Where the
            resolution is not raw it is that of the means of minutes or hours.
        increase: For a counter, how much it grew from its first to its last reading in the window, in its own unit;
            what it grew by while it wrapped or restarted is not known and not counted.
        coverage: Share of the window that its samples stand for, 0 to 1; None for what is not sampled.
        points: Mean of each bucket of `step_s`, in order of time; None where there was no sample.
    """

    label: str
    series: str
    n: int
    min: float
    avg: float
    p50: float | None
    p95: float | None
    max: float
    last: float
    slope_per_hour: float | None
    increase: float | None
    coverage: float | None
    points: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Trend:
    """How one metric went.

    Args:
        metric: Its name.
        unit: Sign of the unit of the values; of a counter's rate.
        increase_unit: Sign of the unit of a counter's growth; empty for a gauge.
        meaning: What it says.
        window: The window that was asked for, resolved.
        resolution: From what it was answered: `raw` events, or cells of a `minute` or an `hour` with the events that
            are in none yet. See `query.reading.resolutions`.
        step_s: Width of the buckets behind `points`.
        first_point_at: Beginning of the first bucket, aligned to the epoch, so it may begin before the window.
        coverage: Mean over the series; 0 where there are none, None for what is not sampled.
        newest_age_s: Age of the newest value of the window at the time of the question; None where there is none.
        series: One per GPU, host, process or operation.
        absent: Where there is no series, why: reason to number of rows that were NULL for it.
    """

    metric: str
    unit: str
    increase_unit: str
    meaning: str
    window: Window
    resolution: Resolution
    step_s: int
    first_point_at: datetime
    coverage: float | None
    newest_age_s: float | None
    series: tuple[TrendSeries, ...]
    absent: Mapping[str, int]


def trend(
    source: Source, metric: str, window: Window, *, now: datetime, gpus: Sequence[int] = (), points: int = 24
) -> Trend:
    """How `metric` went over `window`, per series.

    Args:
        source: Where the events are.
        metric: Its name, such as `gpu.utilization_percent`.
        window: The time asked about.
        now: The time of the question, for the age of the newest sample.
        gpus: Only these GPU indexes; all where empty.
        points: At most so many buckets, and one more where the window is not aligned to them.

    Raises:
        UnknownMetricError: There is no such metric.
        UnknownGpuError: The window has no such GPU.
    """
    wanted = find_metric(metric)
    if gpus and "gpu_index" not in wanted.kind.by_name:
        raise UnknownGpuError(f"{wanted.name} is not measured per GPU", "ask for it without a GPU")
    step_s = bucket_width_s(window.seconds, points)
    buckets = range(window.start_us // (step_s * 1_000_000), (window.end_us - 1) // (step_s * 1_000_000) + 1)
    found, plan = read_figures(source, wanted, window, gpus, step_s, buckets)
    absent = _why_less(source, wanted, window, gpus, found)
    answered_s = plan.seconds(window) if plan else window.seconds
    series = _all_series(wanted, found, answered_s)
    return Trend(
        metric=wanted.name,
        unit=wanted.unit,
        increase_unit=wanted.increase_unit,
        meaning=wanted.column.meaning,
        window=window,
        resolution=plan.resolution if plan else "raw",
        step_s=step_s,
        first_point_at=datetime.fromtimestamp(buckets.start * step_s, window.start.tzinfo),
        coverage=_mean_coverage(wanted, series),
        newest_age_s=now.timestamp() - max(one.newest_us for one in found) / 1e6 if found else None,
        series=series,
        absent=absent,
    )


def _plan(
    metric: Metric, window: Window, gpus: Sequence[int], step_s: int, extent: RollupExtent | None
) -> RollupPlan | None:
    """As `plan_rollups`; only where cells bear the GPU's index are they told apart by it."""
    if gpus and series_name(metric.kind) != "gpu_index":
        return None
    return plan_rollups(window, step_s, extent)


def bucket_width_s(seconds: float, points: int) -> int:
    """The least round number of seconds that cuts a window into at most `points` buckets, one more at its edges."""
    least = seconds / points
    for step in STEPS_S:
        if step >= least:
            return step
    return math.ceil(least / DAY_S) * DAY_S


def _parameters(window: Window, gpus: Sequence[int]) -> dict[str, Any]:
    return {"start": window.start_us, "end": window.end_us, **({"gpus": list(gpus)} if gpus else {})}


def read_figures(
    source: Source,
    metric: Metric,
    window: Window,
    gpus: Sequence[int],
    step_s: int,
    buckets: range,
    *,
    with_coverage: bool = False,
) -> tuple[list[Figures], RollupPlan | None]:
    """The figures of each series, and the rollups they are from."""
    question = TrendQuestion(metric, window, gpus, partial(_plan, metric, window, gpus, step_s))
    reading = source.trend(question)
    if reading is None:
        return _asked_figures(source, metric, window, gpus, step_s, buckets), None
    made = figures(
        reading.made,
        start_us=window.start_us,
        step_s=step_s,
        buckets=buckets,
        is_counter=metric.is_counter,
        with_coverage=with_coverage,
    )
    return made, reading.plan


def _asked_figures(
    source: Source, metric: Metric, window: Window, gpus: Sequence[int], step_s: int, buckets: range
) -> list[Figures]:
    """The same of an engine: for more events than are held in memory, and for those that are elsewhere."""
    sql = sql_text("trend_of_counter" if metric.is_counter else "trend_of_gauge")
    with source.engine([metric.kind.name], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql.format(**_fragments(engine, metric, gpus))
        rows = engine.query(text, **_parameters(window, gpus), step=step_s).to_pylist()
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _keys(metric)), []).append(row)
    return [_figures_of_rows(key, group, buckets) for key, group in groups.items()]


def _figures_of_rows(key: Key, rows: Sequence[Mapping[str, Any]], buckets: range) -> Figures:
    by_bucket = {row["bucket"]: row["bucket_value"] for row in rows}
    covered_s = {row["bucket"]: row["bucket_covered_seconds"] for row in rows}
    first, slope = rows[0], rows[0]["slope_per_hour"]
    return Figures(
        key=key,
        slope_per_hour=None if slope is None or math.isnan(slope) else slope,
        increase=first.get("increase"),
        points=tuple(by_bucket.get(bucket) for bucket in buckets),
        covered_points_s=tuple(covered_s.get(bucket, 0.0) for bucket in buckets),
        **{name: first[name] for name in _TOLD_BY_ROWS},
    )


_TOLD_BY_ROWS = ("newest_name", "newest_us", "n", "min", "avg", "p50", "p95", "max", "last", "covered_seconds")


def _fragments(engine: Engine, metric: Metric, gpus: Sequence[int]) -> dict[str, str]:
    return {
        "keys": ", ".join(_keys(metric)),
        "same_series": " and ".join(f"statistic.{key} is not distinct from point.{key}" for key in _keys(metric)),
        "name": _name(metric),
        "value": metric.column.name,
        "interval": _interval(metric),
        "relation": engine.relation(metric.kind.name),
        "in_window": in_window(engine),
        "filter": _gpu_filter(engine, gpus),
        "p50": engine.quantile("value", 0.5),
        "p95": engine.quantile("value", 0.95),
        "hours": f"({engine.epoch_us('observed_at')} - {engine.parameter('start', 'int')}) / 3600000000.0",
        "bucket": engine.bucket("observed_at", engine.parameter("step", "int")),
        "epoch_us": engine.epoch_us("observed_at"),
    }


def _name(metric: Metric) -> str:
    return series_name(metric.kind)


def _interval(metric: Metric) -> str:
    """The time that one reading stands for: the row's interval, or its column's own where that is read more seldom."""
    every_s = metric.kind.expected_every_seconds
    if every_s is None:
        return "0.0"
    row_s = f"coalesce(interval_seconds, {every_s})"
    column_s = metric.column.every_seconds
    return f"greatest({row_s}, {column_s})" if column_s else row_s


def _keys(metric: Metric) -> tuple[str, ...]:
    return ("host", *metric.kind.series)


def _gpu_filter(engine: Engine, gpus: Sequence[int], column: str = "gpu_index") -> str:
    return f"{column} in (select unnest({engine.parameter('gpus', 'ints')}))" if gpus else "true"


def _why_less(
    source: Source, metric: Metric, window: Window, gpus: Sequence[int], found: Sequence[Figures]
) -> dict[str, int]:
    """Where there is no series, why: reason to number of events.

    Raises:
        UnknownGpuError: A GPU that was asked for is not in the events.
    """
    if found and set(gpus) <= {one.newest_name for one in found}:
        return {}
    with source.engine([metric.kind.name], start_us=window.start_us, end_us=window.end_us) as engine:
        if gpus:
            _check_gpus(engine, metric, window, gpus)
        return {} if found else _absent(engine, metric, window, gpus)


def _check_gpus(engine: Engine, metric: Metric, window: Window, gpus: Sequence[int]) -> None:
    sql = sql_text("gpu_indexes").format(relation=engine.relation(metric.kind.name), in_window=in_window(engine))
    known = engine.query(sql, start=window.start_us, end=window.end_us)["gpu_index"].to_pylist()
    unknown = [gpu for gpu in gpus if gpu not in known]
    if unknown and known:
        names = ", ".join(map(str, known))
        raise UnknownGpuError(f"There is no GPU {unknown[0]} in this window", f"it has GPU {names}")


def _absent(engine: Engine, metric: Metric, window: Window, gpus: Sequence[int]) -> dict[str, int]:
    """Why rows lack the metric: reason to number of rows."""
    sql = sql_text("absent_rows").format(
        reasons="absence" if "absence" in metric.kind.by_name else "null",
        relation=engine.relation(metric.kind.name),
        in_window=in_window(engine),
        filter=_gpu_filter(engine, gpus),
        column=metric.column.name,
    )
    absent: Counter[str] = Counter()
    for row in engine.query(sql, **_parameters(window, gpus)).to_pylist():
        absent[_reason(row["reasons"], metric.column.name)] += row["n"]
    return dict(absent)


def _reason(reasons: str | None, column: str) -> str:
    """Why `column` is NULL in a row with that `absence`: for itself, for its group, or for the whole row."""
    known: dict[str, str] = msgspec.json.decode(reasons) if reasons else {}
    return known.get(column) or known.get(column.split("_", 1)[0]) or known.get("*") or "not_asked"


def _all_series(metric: Metric, found: Sequence[Figures], answered_s: float) -> tuple[TrendSeries, ...]:
    names = series_names(metric, found)
    series = [
        TrendSeries(
            label=label,
            series=identity,
            coverage=_coverage(metric, one.covered_seconds, answered_s),
            **{name: getattr(one, name) for name in _TOLD_BY_FIGURES},
        )
        for one, (label, identity) in zip(found, names, strict=True)
    ]
    return tuple(sorted(series, key=lambda one: label_order(one.label, one.series)))


def series_names(metric: Metric, found: Sequence[Figures]) -> list[tuple[str, str]]:
    """Label and identity of each series, as `TrendSeries` tells them."""
    has_series = bool(metric.kind.series)
    labels = [str(one.newest_name) if has_series and one.newest_name is not None else "" for one in found]
    identities = [
        " ".join(str(part) for part in (one.key[1:] if has_series else one.key) if part is not None) for one in found
    ]
    shared = {label for label, times in Counter(labels).items() if times > 1}
    return [
        (f"{label} {identity}".strip() if label in shared else label, identity)
        for label, identity in zip(labels, identities, strict=True)
    ]


def label_order(label: str, series: str) -> tuple[float, str, str]:
    """GPUs by their number, all else by name."""
    name = label.removesuffix(series).strip()
    return int(name) if name.isdecimal() else math.inf, name, series


_TOLD_BY_FIGURES = ("n", "min", "avg", "p50", "p95", "max", "last", "slope_per_hour", "increase", "points")


def _coverage(metric: Metric, covered_seconds: float, answered_s: float) -> float | None:
    return min(1.0, covered_seconds / answered_s) if metric.kind.expected_every_seconds else None


def _mean_coverage(metric: Metric, series: Sequence[TrendSeries]) -> float | None:
    if not metric.kind.expected_every_seconds:
        return None
    return sum(one.coverage or 0.0 for one in series) / len(series) if series else 0.0
