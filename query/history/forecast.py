"""Where a metric goes, how far off that may be, and when it meets a limit.

Four ways are tried on each series and the one with the least error in a back-test is taken (rolling origin: Tashman,
"Out-of-sample tests of forecasting accuracy", International Journal of Forecasting 16, 2000):

| way | it says | reference |
|---|---|---|
| `level` | as the median of the last day | |
| `daily` | as the median of the same hour of the last days | seasonal naive: Hyndman and Athanasopoulos, 2021, 5.2 |
| `trend` | on along the line of the median slope | Theil 1950; Sen, JASA 63, 1968 |
| `trend_daily` | the same, of what the daily course leaves, and with that course | |

A line is only taken where the slope's 95 % interval (Sen's, from Kendall's S, with the effective number of values as
in `query.statistics.effect_size`) leaves out 0 and its error is below the others' by `TREND_GAIN`: else there is "no
trend". The error is the MASE: the mean absolute error, as a multiple of that of saying "as a day ago", or where there
is less than two days "as a step ago", over the past (Hyndman and Koehler, "Another look at measures of forecast
accuracy", IJF 22, 2006). The interval is made of the back-test's own errors at like distances (split conformal
prediction: Lei et al., JASA 113, 2018), and grows with the distance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from query.catalogue import find_metric
from query.engine import Source
from query.history.steps import History, SeriesHistory, read_history, window_between
from query.history.trends import STEPS_S, trend
from query.statistics.effect_size import Z95, effective_n
from query.windows import Window
from store.rollups.cells import Floats, Ints

Way = Literal["level", "daily", "trend", "trend_daily"]

DAY_S = 86_400
STEPS_MAX = 336  # two weeks of hours: enough for a line, and all pairs of them are 56,000 slopes
KNOWN_MIN = 48
ORIGINS = 8
AHEAD_SHARE = 1 / 3  # of the past: what lies further has not been tried
TREND_GAIN = 0.1
INTERVAL = 0.9
BANDS = 4  # distances that are told apart in the interval
LAST_DAYS = 7
INDEPENDENT_MIN = 20  # of a walk, which counts as fewer, 69 % lay in the interval, and not 90
TOTALS: Mapping[str, str] = {
    "gpu.memory_used_bytes": "gpu.memory_total_bytes",
    "gpu.bar1_used_bytes": "gpu.bar1_total_bytes",
    "memory.used_bytes": "memory.total_bytes",
    "swap.used_bytes": "swap.total_bytes",
    "device.memory_used_bytes": "device.memory_total_bytes",
}
"""The limit of what is used, where it is a metric of its own."""


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """The mean of one step to come, and the interval in which nine of ten are expected to lie."""

    at: datetime
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LimitReached:
    """When a series meets a limit.

    Args:
        limit: Which, in the metric's unit.
        is_upper: Whether it is met from below.
        at: When the forecast meets it; None where it does not within the time that can be foretold.
        earliest: When the nearer edge of the interval does; None alike.
        extrapolated_at: When the trend's line alone would, beyond that time; None where it does not within ten years.
        words: The same as a sentence.
    """

    limit: float
    is_upper: bool
    at: datetime | None
    earliest: datetime | None
    extrapolated_at: datetime | None
    words: str


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """Where one series goes.

    Args:
        label, series: Which; as in `query.history.trends.TrendSeries`.
        n: Steps of the past that are known.
        coverage: Share of the past that was recorded; None for what is not sampled.
        way: Which was taken; None where the history is too short.
        verdict: `too little history`, `no trend`, `rises` or `falls`.
        slope_per_day: Of the line; None where there is no trend.
        slope_low, slope_high: Its 95 % interval; None alike.
        mase: The error of what was taken in the back-test; None where there is none.
        mase_by_way: The same of each that was tried.
        held: Share of the back-test's values that lay in the interval.
        independent_n: As how many independent values the past counts, without its line and its daily course.
        points: The steps to come.
        limit: When it meets the limit that was given; None where none was, or nothing can be foretold.
    """

    label: str
    series: str
    n: int
    coverage: float | None
    way: Way | None
    verdict: str
    slope_per_day: float | None
    slope_low: float | None
    slope_high: float | None
    mase: float | None
    mase_by_way: Mapping[Way, float]
    held: float | None
    independent_n: float | None
    points: tuple[ForecastPoint, ...]
    limit: LimitReached | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a metric goes.

    Args:
        metric, unit: Of what.
        window: The past that it is made from.
        ahead_s: How far it reaches: at most a third of the past.
        coverage: Share of the past that was recorded, the mean over the series; None for what is not sampled.
        n: Steps of the past that are known, all series together.
        step_s: Width of a step.
        method: How it was made.
        limits: What it cannot say.
        series: One per GPU, host, process or operation.
    """

    metric: str
    unit: str
    window: Window
    ahead_s: float
    coverage: float | None
    n: int
    step_s: int
    method: str
    limits: tuple[str, ...]
    series: tuple[SeriesForecast, ...]


def forecast(
    source: Source,
    metric: str,
    window: Window,
    *,
    ahead_s: float | None = None,
    limit: float | Mapping[str, float] | None = None,
    gpus: Sequence[int] = (),
) -> Forecast:
    """Where `metric` goes after `window`.

    Args:
        source: Where the events are.
        metric: Its name; of a counter it is the rate.
        window: The past to learn from.
        ahead_s: How far; a third of the past where None, and never more.
        limit: A value to say when it is met, or one for each series by its identity; from above where the newest value
            is greater.
        gpus: Only these GPU indexes; all where empty.

    Raises:
        UnknownMetricError: There is no such metric.
        UnknownGpuError: The window has no such GPU.
    """
    wanted = find_metric(metric)
    step_s = next((one for one in STEPS_S if one >= max(60, window.seconds / STEPS_MAX) and DAY_S % one == 0), DAY_S)
    longest_s = window.seconds * AHEAD_SHARE
    reach_s = min(ahead_s or longest_s, longest_s)
    history = read_history(source, wanted, window, step_s, gpus=gpus)
    ahead = max(1, int(reach_s / step_s))
    series = tuple(_Foretold(history, one, ahead, _limit_of(one, limit)).told() for one in history.series)
    coverages = [one.coverage for one in series if one.coverage is not None]
    return Forecast(
        metric=wanted.name,
        unit=wanted.unit,
        window=window,
        ahead_s=ahead * step_s,
        coverage=float(np.mean(coverages)) if coverages else None,
        n=sum(one.n for one in series),
        step_s=step_s,
        method="the best of level, daily course and Theil–Sen line in a rolling-origin back-test; 90 % interval",
        limits=tuple(_limits(series, ahead_s, longest_s)),
        series=series,
    )


def _limit_of(series: SeriesHistory, limit: float | Mapping[str, float] | None) -> float | None:
    return limit.get(series.series) if isinstance(limit, Mapping) else limit


def totals(source: Source, metric: str, window: Window) -> Mapping[str, float]:
    """How much there is of what `metric` says the use of, by the identity of each series; empty where nothing says."""
    whole = TOTALS.get(find_metric(metric).name)
    if whole is None:
        return {}
    return {one.series: one.last for one in trend(source, whole, window, now=window.end, points=1).series}


def _limits(series: Sequence[SeriesForecast], ahead_s: float | None, longest_s: float) -> Iterator[str]:
    yield "goes on as the past did: it knows nothing of what is planned"
    if ahead_s and ahead_s > longest_s:
        yield "reaches as far as a third of the past: what lies further has not been tried in a back-test"
    wandering = sum(one.independent_n is not None and one.independent_n < INDEPENDENT_MIN for one in series)
    if wandering:
        yield f"{wandering} of {len(series)} series wander so slowly that the interval may be too narrow"
    if any(one.way is None for one in series):
        yield f"fewer than {KNOWN_MIN} known steps are too little history"


class _Foretold:
    """One series and what is to come of it.

    Args:
        history: Whence.
        series: Which.
        ahead: How many steps.
        limit: What may be met.
    """

    def __init__(self, history: History, series: SeriesHistory, ahead: int, limit: float | None) -> None:
        self._history = history
        self._series = series
        self._ahead = ahead
        self._limit = limit
        self._step_s = history.step_s
        self._values = np.where(history.is_inside, series.values, np.nan)
        self._n = int((~np.isnan(self._values)).sum())

    def told(self) -> SeriesForecast:
        errors = self._back_test() if self._n >= KNOWN_MIN else {}
        if not errors:
            return SeriesForecast(
                self._series.label, self._series.series, self._n, self._series.coverage, None, "too little history",
                None, None, None, None, {}, None, None, (), None,
            )  # fmt: skip
        scale = self._naive_error()
        mase = {way: float(np.nanmean(np.abs(of_way))) / scale for way, of_way in errors.items()}
        lines = _lines(self._values, self._step_s)
        way = _chosen({way: mase[way] for way in mase if way not in lines or lines[way].is_certain})
        line = lines.get(way)
        offsets = _offsets(errors[way])
        points = self._points(way, offsets)
        return SeriesForecast(
            label=self._series.label,
            series=self._series.series,
            n=self._n,
            coverage=self._series.coverage,
            way=way,
            verdict=("rises" if line.slope_per_day > 0 else "falls") if line else "no trend",
            slope_per_day=line.slope_per_day if line else None,
            slope_low=line.low_per_day if line else None,
            slope_high=line.high_per_day if line else None,
            mase=mase[way],
            mase_by_way=mase,
            held=_held(errors[way], offsets),
            independent_n=self._independent_n(),
            points=points,
            limit=self._meets(points, line) if self._limit is not None else None,
        )

    def _independent_n(self) -> float:
        steps, per_day = np.arange(len(self._values)), DAY_S // self._step_s
        line = sen_line(self._values, self._step_s)
        rest = self._values - line.at(steps) if line else self._values
        course = _daily(rest, per_day)
        rest = rest if course is None else rest - course[steps % per_day]
        return effective_n(rest[~np.isnan(rest)])

    def _back_test(self) -> dict[Way, Floats]:
        """What came less what was said, of each way: a row an origin, a column a step ahead."""
        size = len(self._values)
        first = size - self._ahead - (ORIGINS - 1) * max(1, self._ahead // 2)
        origins = np.unique(np.linspace(max(first, size // 2), size - self._ahead, ORIGINS).astype(int))
        said: dict[Way, list[Floats]] = {}
        for origin in origins.tolist():
            past, came = self._values[:origin], self._values[origin : origin + self._ahead]
            if np.isnan(came).all() or (~np.isnan(past)).sum() < KNOWN_MIN // 2:
                continue
            for way, values in _ways(past, self._ahead, self._step_s).items():
                said.setdefault(way, []).append(came - values)
        full = max(map(len, said.values()), default=0)
        return {way: np.array(rows) for way, rows in said.items() if len(rows) == full}

    def _naive_error(self) -> float:
        """What "as a day ago", or "as a step ago", was wrong by over the past."""
        per_day = DAY_S // self._step_s
        for lag in (per_day, 1):
            apart = np.abs(self._values[lag:] - self._values[:-lag]) if len(self._values) >= 2 * lag else np.empty(0)
            known = apart[~np.isnan(apart)]
            if len(known) >= KNOWN_MIN // 2:
                return max(float(known.mean()), np.finfo(float).tiny)
        return np.finfo(float).tiny

    def _points(self, way: Way, offsets: tuple[Floats, Floats]) -> tuple[ForecastPoint, ...]:
        values = _ways(self._values, self._ahead, self._step_s)[way]
        first_us = int(self._history.starts_us[-1]) + self._step_s * 1_000_000
        zone = self._history.window.start.tzinfo
        return tuple(
            ForecastPoint(
                datetime.fromtimestamp(first_us / 1e6 + at * self._step_s, zone),
                float(values[at]),
                float(values[at] + offsets[0][at]),
                float(values[at] + offsets[1][at]),
            )
            for at in range(self._ahead)
        )

    def _meets(self, points: Sequence[ForecastPoint], line: "SenLine | None") -> LimitReached | None:
        limit = self._limit
        assert limit is not None  # noqa: S101 - it is asked only where there is one
        newest = float(self._values[~np.isnan(self._values)][-1])
        is_upper = newest < limit
        side = 1.0 if is_upper else -1.0
        at = next((one.at for one in points if side * (one.value - limit) >= 0), None)
        edge = ((one.at, one.high if is_upper else one.low) for one in points)
        earliest = next((when for when, value in edge if side * (value - limit) >= 0), None)
        beyond = self._extrapolated(line, newest, limit) if at is None else None
        return LimitReached(
            limit, is_upper, at, earliest, beyond, _limit_words(at, earliest, beyond, points[-1].at, line)
        )

    def _extrapolated(self, line: "SenLine | None", newest: float, limit: float) -> datetime | None:
        """When the line meets the limit, from where the series is now."""
        if line is None or (limit - newest) * line.slope_per_day <= 0:
            return None
        days = (limit - newest) / line.slope_per_day
        if days > 3650:
            return None
        end_us = self._history.window.end_us + round(days * DAY_S * 1e6)
        return window_between(0, end_us, self._history.window).end


def _limit_words(
    at: datetime | None, earliest: datetime | None, beyond: datetime | None, end: datetime, line: "SenLine | None"
) -> str:
    form = "%Y-%m-%d %H:%M"
    if at and earliest:
        return f"is met about {at:{form}}, {earliest:{form}} at the earliest"
    if earliest:
        return f"is not expected until {end:{form}}; {earliest:{form}} at the earliest"
    if beyond:
        return f"is not met until {end:{form}}; about {beyond:{form}} if the trend held, which has not been tried"
    return f"is not met until {end:{form}}" + ("" if line else "; there is no trend towards it")


def _chosen(mase: Mapping[Way, float]) -> Way:
    """The way with the least error; a line only where it is clearly less than without one."""
    plain = min((way for way in mase if not way.startswith("trend")), key=lambda way: mase[way])
    best = min(mase, key=lambda way: mase[way])
    if best.startswith("trend") and mase[best] > (1 - TREND_GAIN) * mase[plain]:
        return plain
    return best


def _ways(past: Floats, ahead: int, step_s: int) -> dict[Way, Floats]:
    """What each way says of the steps after the past, where it can say anything."""
    per_day = DAY_S // step_s
    steps = np.arange(len(past), len(past) + ahead)
    recent = past[-per_day:] if (~np.isnan(past[-per_day:])).any() else past
    said: dict[Way, Floats] = {"level": np.full(ahead, float(np.nanmedian(recent)))}
    daily = _daily(past, per_day)
    if daily is not None:
        said["daily"] = daily[steps % per_day]
    for way, line in _lines(past, step_s).items():
        said[way] = line.at(steps)
        course = _daily(past - line.at(np.arange(len(past))), per_day) if way == "trend_daily" else None
        if course is not None:
            said[way] = said[way] + course[steps % per_day]
    return said


def _lines(past: Floats, step_s: int) -> "dict[Way, SenLine]":
    """The line through the past, and the one through what its daily course leaves."""
    plain = sen_line(past, step_s)
    if plain is None:
        return {}
    steps, per_day = np.arange(len(past)), DAY_S // step_s
    course = _daily(past - plain.at(steps), per_day)
    without = sen_line(past - course[steps % per_day], step_s) if course is not None else None
    return {"trend": plain, **({"trend_daily": without} if without else {})}


def _daily(past: Floats, per_day: int) -> Floats | None:
    """The median of each step of the day over the last days; None where a step has fewer than two."""
    days = min(LAST_DAYS, len(past) // per_day)
    if days < 2:
        return None
    last = past[-days * per_day :].reshape(days, per_day)
    if ((~np.isnan(last)).sum(axis=0) < 2).any():
        return None
    course: Floats = np.nanmedian(last, axis=0)
    return np.roll(course, len(past) % per_day)  # its first is of the step of the day that the past begins with


@dataclass(frozen=True, slots=True)
class SenLine:
    """The line of the median slope, with the slope's 95 % interval; times are steps."""

    base: float
    slope: float
    slope_per_day: float
    low_per_day: float
    high_per_day: float

    @property
    def is_certain(self) -> bool:
        return self.low_per_day > 0 or self.high_per_day < 0

    def at(self, steps: Ints) -> Floats:
        return self.base + self.slope * steps.astype(np.float64)


def sen_line(values: Floats, step_s: int) -> SenLine | None:
    """The line of Theil and Sen through the known values; None of fewer than three."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 3:
        return None
    first, second = np.triu_indices(len(known), 1)
    slopes = np.sort((values[known[second]] - values[known[first]]) / (known[second] - known[first]))
    slope = float(np.median(slopes))
    base = float(np.median(values[known] - slope * known))
    n = len(known)
    effective = effective_n(values[known] - slope * known)
    spread = Z95 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18 * (n / effective))
    low, high = (int(np.clip((len(slopes) + side * spread) / 2, 0, len(slopes) - 1)) for side in (-1, 1))
    per_day = DAY_S / step_s
    return SenLine(base, slope, slope * per_day, float(slopes[low]) * per_day, float(slopes[high]) * per_day)


def _offsets(errors: Floats) -> tuple[Floats, Floats]:
    """How far below and above what is said nine of ten values lie, by the distance; never nearer further out."""
    ahead = errors.shape[1]
    low, high = np.zeros(ahead), np.zeros(ahead)
    lowest, highest = 0.0, 0.0
    for band in np.array_split(np.arange(ahead), min(BANDS, ahead)):
        known = errors[:, band][~np.isnan(errors[:, band])]
        if len(known):
            edges = np.quantile(known, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
            lowest, highest = min(lowest, float(edges[0])), max(highest, float(edges[1]))
        low[band], high[band] = lowest, highest
    return low, high


def _held(errors: Floats, offsets: tuple[Floats, Floats]) -> float:
    known = ~np.isnan(errors)
    inside = (errors >= offsets[0]) & (errors <= offsets[1])
    return float(inside[known].mean())
