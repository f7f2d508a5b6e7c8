"""A metric's past in steps of time, as arrays: what anomalies, comparisons and forecasts are computed from.

A step of which less than half was recorded is unknown: NaN, as one that was not recorded at all. A gap, the edge of a
window and the minute in which the recorder began are so never taken for a change of what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from query.catalogue import Metric
from query.engine import Source
from query.history.trends import label_order, read_figures, series_names
from query.reading.resolutions import Resolution
from query.reading.trend_figures import Figures
from query.windows import Window
from store.rollups.cells import Floats, Ints

COVERED_LEAST = 0.5  # of a step: below that its mean says little of it
USUAL_METRICS = (  # what is looked at where nobody names a metric: what users ask for first
    "gpu.utilization_percent",
    "gpu.memory_used_bytes",
    "gpu.power_watts",
    "gpu.temperature_celsius",
    "gpu.clock_sm_hertz",
    "cpu.utilization_percent",
    "memory.used_bytes",
    "request.duration_seconds",
)


@dataclass(frozen=True, slots=True)
class SeriesHistory:
    """One series of a metric.

    Args:
        label, series: As in `query.history.trends.TrendSeries`.
        n: Samples in the window; of a counter the steps between them.
        coverage: Share of the window that they stand for; None for what is not sampled.
        values: The mean of each step, of a counter the mean rate; NaN where it is not known.
    """

    label: str
    series: str
    n: int
    coverage: float | None
    values: Floats


@dataclass(frozen=True, slots=True)
class History:
    """One metric in a window.

    Args:
        metric: Which.
        window: When.
        resolution: From what it was read.
        step_s: Width of a step.
        starts_us: When each begins; microseconds UTC, whole steps from the epoch.
        series: One per GPU, host, process or operation.
    """

    metric: Metric
    window: Window
    resolution: Resolution
    step_s: int
    starts_us: Ints
    series: tuple[SeriesHistory, ...]

    @property
    def is_inside(self) -> NDArray[np.bool_]:
        """Which steps lie in the window as a whole."""
        ends_us = self.starts_us + self.step_s * 1_000_000
        return (self.starts_us >= self.window.start_us) & (ends_us <= self.window.end_us)


def read_history(source: Source, metric: Metric, window: Window, step_s: int, *, gpus: Sequence[int] = ()) -> History:
    """How a metric went, in steps of `step_s`: whole minutes, where rollups are to answer."""
    step_us = step_s * 1_000_000
    buckets = range(window.start_us // step_us, (window.end_us - 1) // step_us + 1)
    found, plan = read_figures(source, metric, window, gpus, step_s, buckets, with_coverage=True)
    series = [
        SeriesHistory(label, identity, one.n, _coverage(metric, one, window), _known(metric, one, step_s))
        for one, (label, identity) in zip(found, series_names(metric, found), strict=True)
    ]
    series.sort(key=lambda one: label_order(one.label, one.series))
    resolution: Resolution = plan.resolution if plan else "raw"
    return History(metric, window, resolution, step_s, np.array(buckets, np.int64) * step_us, tuple(series))


def _coverage(metric: Metric, one: Figures, window: Window) -> float | None:
    return min(1.0, one.covered_seconds / window.seconds) if metric.kind.expected_every_seconds else None


def _known(metric: Metric, one: Figures, step_s: int) -> Floats:
    values = np.array([np.nan if point is None else point for point in one.points])
    if metric.kind.expected_every_seconds and one.covered_points_s is not None:
        values[np.array(one.covered_points_s) < COVERED_LEAST * step_s] = np.nan
    return values


def usual_metrics(*, gpus: Sequence[int] = ()) -> list[str]:
    """What is looked at where nobody names a metric; of GPUs alone where some are named."""
    return [name for name in USUAL_METRICS if not gpus or name.startswith("gpu.")]


def day_before(window: Window) -> Window:
    """The same hours by the clock, a day earlier."""
    start, end = (
        edge - timedelta(days=1) for edge in (window.start, window.end)
    )  # of clock faces, not of elapsed time
    return Window(start, end, window.time_zone, f"{start.isoformat()}..{end.isoformat()}")


def joined_window(first: Window, last: Window) -> Window:
    """From the beginning of one window to the end of another."""
    asked = f"{first.start.isoformat()}..{last.end.isoformat()}"
    return Window(first.start, last.end, last.time_zone, asked)


def window_between(start_us: int, end_us: int, like: Window) -> Window:
    """A window in the time zone of another."""
    start, end = (datetime.fromtimestamp(edge / 1e6, like.start.tzinfo) for edge in (start_us, end_us))
    return Window(start, end, like.time_zone, f"{start.isoformat()}..{end.isoformat()}")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Of each step the hour of its day, its weekday and its day, by the clock of a time zone."""

    hour: Ints
    weekday: Ints
    day: Ints

    @classmethod
    def of(cls, starts_us: Ints, step_s: int, like: Window) -> "Calendar":
        middles = (starts_us / 1e6 + step_s / 2).tolist()
        local = [datetime.fromtimestamp(middle, like.start.tzinfo) for middle in middles]
        told = [(one.hour, one.weekday(), one.toordinal()) for one in local]
        return cls(*np.array(told, np.int64).reshape(-1, 3).T)


def runs(is_one: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of neighbouring places that are true: [from, to)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_one, [False]]).astype(np.int8)))
    return [(first, after) for first, after in pairwise(edges.tolist())][::2]
