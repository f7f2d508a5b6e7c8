"""The functions of range vectors: what a series did in the time before each moment.

A window is closed at both ends, as in Prometheus 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from query.promql.vectors import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Windows:
    """The samples of one series in the window before each moment.

    Args:
        time_ms: Of its samples, in their order.
        values: Of them.
        start_ms, end_ms: The edges of each window, both included.
        moment_ms: What each is asked for: its end but for an offset.
        first, after: Of each window the place of its first sample, and of the first after it.
    """

    time_ms: Ints
    values: Floats
    start_ms: Ints
    end_ms: Ints
    moment_ms: Ints
    first: Ints
    after: Ints

    @property
    def count(self) -> Ints:
        return self.after - self.first

    def each(self, figure: Callable[[Floats], float]) -> Floats:
        """A figure of the values of each window that has some."""
        found = np.full(len(self.first), np.nan)
        for at in np.flatnonzero(self.count):
            found[at] = figure(self.values[self.first[at] : self.after[at]])
        return found

    def reduced(self, reduce: np.ufunc) -> Floats:
        """The values of each window that has some, put together two by two."""
        found = np.full(len(self.first), np.nan)
        filled = np.flatnonzero(self.count)
        if len(filled):
            edges = np.column_stack([self.first[filled], self.after[filled]]).ravel()
            # A place beyond the end is no beginning for reduceat; what it adds is in no window.
            found[filled] = reduce.reduceat(np.append(self.values, 0.0), edges)[::2]
        return found


def windows_of(time_ms: Ints, values: Floats, moment_ms: Ints, range_ms: int, offset_ms: int) -> Windows:
    """The windows of a series without its stale markers."""
    end_ms = moment_ms - offset_ms
    start_ms = end_ms - range_ms
    first, after = np.searchsorted(time_ms, start_ms, "left"), np.searchsorted(time_ms, end_ms, "right")
    return Windows(time_ms, values, start_ms, end_ms, moment_ms, first, after)


def _mean(windows: Windows) -> Floats:
    return windows.reduced(np.add) / windows.count


def _extrapolated(windows: Windows, *, is_counter: bool) -> Floats:
    """What the values grew by, drawn out to the edges of the window.

    Up to 1.1 times the mean distance of two samples to an edge it is drawn out to the edge itself, beyond that by half
    the distance; a counter never below zero. That a counter goes back is that it began anew.
    """
    first, last = windows.first, windows.after - 1
    values, time_ms = windows.values, windows.time_ms
    grown = values[last] - values[first]
    if is_counter:
        lost = np.concatenate([[0.0], np.cumsum(np.where(values[1:] < values[:-1], values[:-1], 0.0))])
        grown = grown + (lost[last] - lost[first])
    sampled_s = (time_ms[last] - time_ms[first]) / 1000
    distance_s = sampled_s / (windows.count - 1)
    to_start_s, to_end_s = (time_ms[first] - windows.start_ms) / 1000, (windows.end_ms - time_ms[last]) / 1000
    if is_counter:
        to_zero_s = np.where((grown > 0) & (values[first] >= 0), sampled_s * (values[first] / grown), np.inf)
        to_start_s = np.minimum(to_start_s, to_zero_s)
    near_s = distance_s * 1.1
    drawn_s = sampled_s + np.where(to_start_s < near_s, to_start_s, distance_s / 2)
    drawn_s = drawn_s + np.where(to_end_s < near_s, to_end_s, distance_s / 2)
    return np.asarray(grown * (drawn_s / sampled_s))


def _rate(windows: Windows) -> Floats:
    seconds = (windows.end_ms - windows.start_ms) / 1000
    return np.asarray(_extrapolated(windows, is_counter=True) / seconds)


def _last_step(windows: Windows, *, is_rate: bool) -> Floats:
    last = windows.after - 1
    values, time_ms = windows.values, windows.time_ms
    step = values[last] - values[last - 1]
    if not is_rate:
        return np.asarray(step)
    step = np.where(step < 0, values[last], step)
    return np.asarray(step / ((time_ms[last] - time_ms[last - 1]) / 1000))


def _steps(windows: Windows, is_one: Bools) -> Floats:
    """How many of the steps between two samples of a window are such."""
    upto = np.concatenate([[0], np.cumsum(is_one)])
    return np.asarray(upto[windows.after - 1] - upto[windows.first], float)


def _deviation(windows: Windows) -> Floats:
    return windows.each(lambda values: float(np.std(values)))


def line_of(windows: Windows, ahead_s: Floats | None) -> Floats:
    """The slope per second of the least-squares line through each window; or where the line is so far ahead."""
    found = np.full(len(windows.first), np.nan)
    for at in np.flatnonzero(windows.count >= 2):
        part = slice(windows.first[at], windows.after[at])
        origin_ms = windows.time_ms[part][0] if ahead_s is None else windows.moment_ms[at]
        x, y = (windows.time_ms[part] - origin_ms) / 1000, windows.values[part]
        from_mean = x - x.mean()
        slope = float((from_mean * y).sum() / (from_mean**2).sum())
        found[at] = slope if ahead_s is None else y.mean() + slope * (ahead_s[at] - x.mean())
    return found


def quantile(share: float, values: Floats) -> float:
    """The quantile of some values, interpolated between neighbours; infinite for a share that is none."""
    if not len(values) or np.isnan(share):
        return np.nan
    if share < 0 or share > 1:
        return float(np.copysign(np.inf, share - 0.5))
    ordered = np.sort(values)
    rank = share * (len(values) - 1)
    below = int(np.floor(rank))
    above = min(below + 1, len(values) - 1)
    weight = rank - below
    return float(ordered[below] * (1 - weight) + ordered[above] * weight)


@dataclass(frozen=True, slots=True)
class RangeFunction:
    """What it gives of each window with at least so many samples.

    Args:
        of: The function.
        samples_min: Least number of samples of a window that has an answer.
        keeps_name: Whether its values are still the metric's own.
    """

    of: Callable[[Windows], Floats]
    samples_min: int = 1
    keeps_name: bool = False


RANGE_FUNCTIONS: Mapping[str, RangeFunction] = {
    "rate": RangeFunction(_rate, 2),
    "increase": RangeFunction(lambda windows: _extrapolated(windows, is_counter=True), 2),
    "delta": RangeFunction(lambda windows: _extrapolated(windows, is_counter=False), 2),
    "irate": RangeFunction(lambda windows: _last_step(windows, is_rate=True), 2),
    "idelta": RangeFunction(lambda windows: _last_step(windows, is_rate=False), 2),
    "deriv": RangeFunction(lambda windows: line_of(windows, None), 2),
    "changes": RangeFunction(lambda windows: _steps(windows, windows.values[1:] != windows.values[:-1])),
    "resets": RangeFunction(lambda windows: _steps(windows, windows.values[1:] < windows.values[:-1])),
    "avg_over_time": RangeFunction(_mean),
    "min_over_time": RangeFunction(lambda windows: windows.reduced(np.minimum)),
    "max_over_time": RangeFunction(lambda windows: windows.reduced(np.maximum)),
    "sum_over_time": RangeFunction(lambda windows: windows.reduced(np.add)),
    "count_over_time": RangeFunction(lambda windows: windows.count.astype(float)),
    "last_over_time": RangeFunction(lambda windows: windows.values[windows.after - 1], keeps_name=True),
    "present_over_time": RangeFunction(lambda windows: np.ones(len(windows.first))),
    "stddev_over_time": RangeFunction(_deviation),
    "stdvar_over_time": RangeFunction(lambda windows: _deviation(windows) ** 2),
}
