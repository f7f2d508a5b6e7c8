"""Values that are not what they usually are at this hour.

Each step of the window is compared with the same hour of the past days before it, and of the same weekday where there
are enough of them: how many robust scales it lies from their median. The scale is the median absolute deviation times
1.4826 (Iglewicz and Hoaglin, "How to detect and handle outliers", 1993; Hampel, "The influence curve and its role in
robust estimation", JASA 69, 1974), and no less than a share of what the series does over all its past: what never moved
may move a little. That a level belongs to the hour is the seasonal naive model (Hyndman and Athanasopoulos,
"Forecasting: principles and practice", 3rd ed., 2021, section 5.2).

A spell begins where the score exceeds the threshold and reaches as far as it stays beyond half of it, on the same side.
A step that was not recorded has no score and ends a spell: a gap is never an anomaly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from query.analysis import Analysis
from query.catalogue import find_metric
from query.engine import Source
from query.history.steps import Calendar, History, SeriesHistory, joined_window, read_history, runs, window_between
from query.statistics.robust_line import MAD_TO_SIGMA
from query.windows import Window
from store.rollups.cells import Floats, Ints

LOOK_BACK = timedelta(days=28)
DAYS_MIN = 5  # of the same hour: the median and the spread of fewer say nothing
WEEKDAYS_MIN = 4  # of the same weekday and hour, before all weekdays are no longer taken together
THRESHOLD = 5.0  # normal noise exceeds that once in 1.7 million steps; what is measured has longer tails
SCALE_SHARE = 0.02  # of the range that the series had, p5 to p95, and of the level: the least scale
SHORT_STEP_S, LONG_STEP_S = 600, 3600
SHORT_UPTO_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which a series was not what it usually is.

    Args:
        metric, unit: Of what.
        label, series: Which; as in `query.history.trends.TrendSeries`.
        begins_at, ends_at: From when until when, in whole steps.
        is_above: Whether it was above what is usual.
        value: Its median in that time.
        usual: The median of what is usual then.
        difference: How much greater the value was.
        score: The furthest that it lay from what is usual, in robust scales.
        n: Steps.
    """

    metric: str
    unit: str
    label: str
    series: str
    begins_at: datetime
    ends_at: datetime
    is_above: bool
    value: float
    usual: float
    difference: float
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class JudgedSeries:
    """What of a series could be judged.

    Args:
        metric, label, series: Which.
        days: Days of the past with a value.
        n: Steps of the window that could be judged.
        coverage: Share of the window's steps that were recorded.
        why_not: Why not all recorded steps could be judged; empty where they could.
    """

    metric: str
    label: str
    series: str
    days: int
    n: int
    coverage: float
    why_not: str


@dataclass(frozen=True, slots=True)
class Anomalies(Analysis):
    """The anomalies of a window.

    Args:
        past: The days that it was compared with.
        coverage: Share of the window's steps that were recorded, the mean over the series.
        n: Steps that were judged, all series together.
        step_s: Width of a step.
        threshold: The score from which on a step is an anomaly.
        method: How it was judged.
        judged: What of each series could be judged.
        spells: The anomalies, the furthest from what is usual first.
    """

    past: Window
    step_s: int
    threshold: float
    judged: tuple[JudgedSeries, ...]
    spells: tuple[Spell, ...]


def find_anomalies(
    source: Source,
    metrics: Sequence[str],
    window: Window,
    *,
    gpus: Sequence[int] = (),
    threshold: float = THRESHOLD,
    look_back: timedelta = LOOK_BACK,
) -> Anomalies:
    """Where the metrics were not what they usually are at that hour.

    Args:
        source: Where the events are.
        metrics: Their names.
        window: The time to judge.
        gpus: Only these GPU indexes; all where empty.
        threshold: From how many robust scales on.
        look_back: How far before the window the past reaches.

    Raises:
        UnknownMetricError: There is no such metric.
        UnknownGpuError: The window has no such GPU.
    """
    step_s = SHORT_STEP_S if window.seconds <= SHORT_UPTO_S else LONG_STEP_S
    past = window_between(window.start_us - round(look_back.total_seconds() * 1e6), window.start_us, window)
    judged: list[JudgedSeries] = []
    spells: list[Spell] = []
    for name in metrics:
        history = read_history(source, find_metric(name), joined_window(past, window), step_s, gpus=gpus)
        calendar = Calendar.of(history.starts_us, step_s, window)
        for series in history.series:
            scored = _Scored(history, calendar, series, window, threshold)
            judged.append(scored.judged())
            spells.extend(scored.spells())
    return Anomalies(
        window=window,
        past=past,
        coverage=float(np.mean([one.coverage for one in judged])) if judged else 0.0,
        n=sum(one.n for one in judged),
        step_s=step_s,
        threshold=threshold,
        method=f"median and MAD of the same hour of past days, of the same weekday where there are {WEEKDAYS_MIN}",
        limits=tuple(_limits(judged)),
        judged=tuple(judged),
        spells=tuple(sorted(spells, key=lambda one: -abs(one.score))),
    )


def _limits(judged: Sequence[JudgedSeries]) -> Iterator[str]:
    yield "says that something was unusual, not that it was wrong, nor why"
    young = sum(bool(one.why_not) for one in judged)
    if young:
        yield f"{young} of {len(judged)} series have too little history to judge every step"
    if any(one.coverage < 1 for one in judged):
        yield "what was not recorded is not judged"


class _Scored:
    """One series with the score of each step of the window."""

    def __init__(
        self, history: History, calendar: Calendar, series: SeriesHistory, window: Window, threshold: float
    ) -> None:
        self._history = history
        self._series = series
        self._window = window
        self._threshold = threshold
        is_past = history.starts_us < window.start_us
        self._steps = np.flatnonzero(~is_past)
        self._is_known = ~np.isnan(series.values)
        self._days = len(np.unique(calendar.day[is_past & self._is_known]))
        self._usual = np.full(len(series.values), np.nan)
        self._scale = np.full(len(series.values), np.nan)
        self._learn(calendar, np.flatnonzero(is_past & self._is_known))
        with np.errstate(invalid="ignore"):
            self._score = (series.values - self._usual) / self._scale

    def _learn(self, calendar: Calendar, known: Ints) -> None:
        """What is usual at each step of the window, and how far that varies."""
        values = self._series.values
        if not len(known):
            return
        low, high = np.quantile(values[known], [0.05, 0.95])
        for hour, weekday in {(int(calendar.hour[at]), int(calendar.weekday[at])) for at in self._steps}:
            of_hour = known[calendar.hour[known] == hour]
            of_weekday = of_hour[calendar.weekday[of_hour] == weekday]
            has_weekday = len(np.unique(calendar.day[of_weekday])) >= WEEKDAYS_MIN
            if not has_weekday and len(np.unique(calendar.day[of_hour])) < DAYS_MIN:
                continue
            chosen = of_weekday if has_weekday else of_hour
            here = self._steps[(calendar.hour[self._steps] == hour) & (calendar.weekday[self._steps] == weekday)]
            usual, scale = _robust(values[chosen])
            self._usual[here] = usual
            self._scale[here] = max(scale, SCALE_SHARE * max(high - low, abs(usual)), np.finfo(float).tiny)

    def judged(self) -> JudgedSeries:
        is_known = self._is_known[self._steps]
        n = int((~np.isnan(self._score[self._steps])).sum())
        has_all = n == is_known.sum()
        why_not = "" if has_all else f"too little history: {self._days} days, of some hours fewer than {DAYS_MIN}"
        return JudgedSeries(
            metric=self._history.metric.name,
            label=self._series.label,
            series=self._series.series,
            days=self._days,
            n=n,
            coverage=float(is_known.mean()) if len(is_known) else 0.0,
            why_not=why_not,
        )

    def spells(self) -> Iterator[Spell]:
        for side in (1.0, -1.0):
            with np.errstate(invalid="ignore"):
                is_far = side * self._score > self._threshold / 2
            for first, after in runs(is_far):
                scores = self._score[first:after]
                if np.abs(scores).max() > self._threshold:
                    yield self._spell(first, after, float(side * np.abs(scores).max()))

    def _spell(self, first: int, after: int, score: float) -> Spell:
        value = float(np.median(self._series.values[first:after]))
        usual = float(np.median(self._usual[first:after]))
        step_us = self._history.step_s * 1_000_000
        edges = int(self._history.starts_us[first]), int(self._history.starts_us[after - 1]) + step_us
        span = window_between(edges[0], edges[1], self._window)
        metric = self._history.metric
        return Spell(
            metric.name, metric.unit, self._series.label, self._series.series, span.start, span.end, score > 0,
            value, usual, value - usual, score, after - first,
        )  # fmt: skip


def _robust(values: Floats) -> tuple[float, float]:
    median = float(np.median(values))
    return median, MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
