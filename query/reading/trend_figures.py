"""The figures of a trend, from its parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from query.reading.columns import Key
from query.reading.trend_parts import Parts, Presence, Sketches, TrendParts
from store.rollups.cells import Floats, Ints
from store.rollups.sketch import buckets_of, quantile
from store.times import HOUR_US


@dataclass(frozen=True, slots=True)
class Figures:
    """How one series of a metric went; the fields are those of `query.history.trends.TrendSeries`.

    Args:
        key: What tells the series from the others: its host and the columns of its kind's `series`.
        newest_name: What it was called last.
        newest_us: When it was read last; microseconds UTC.
        covered_seconds: The time that its readings stand for.
        covered_points_s: The same of each point; None where it was not asked for.
    """

    key: Key
    newest_name: Any
    newest_us: int
    n: int
    min: float
    avg: float
    p50: float | None
    p95: float | None
    max: float
    last: float
    slope_per_hour: float | None
    increase: float | None
    covered_seconds: float
    points: tuple[float | None, ...]
    covered_points_s: tuple[float, ...] | None = None


def figures(
    made: TrendParts, *, start_us: int, step_s: int, buckets: range, is_counter: bool, with_coverage: bool = False
) -> list[Figures]:
    """The figures of each series that has a sample or a step.

    Args:
        made: Of what.
        start_us: Beginning of the window; microseconds UTC.
        step_s: Width of a point.
        buckets: The points that are wanted, numbered from the epoch by `step_s`.
        is_counter: Whether `increase` is told.
        with_coverage: Whether `covered_points_s` is told.
    """
    parts = made.parts
    if not len(parts.series):
        return []
    groups = _Groups(parts.series)
    arrays = {
        "n": groups.sums(parts.n),
        "min": groups.reduced(np.minimum, parts.least),
        "max": groups.reduced(np.maximum, parts.greatest),
        "amount": (amount := groups.sums(parts.amount)),
        "avg": amount / groups.sums(parts.weight),
        "last": parts.last[groups.newest(parts.last_us, parts.last_seq)],
    }
    columns = {name: values.tolist() for name, values in arrays.items()}
    slopes, points = _slopes(groups, parts, start_us), _points(groups, parts, step_s, buckets)
    percentiles = _percentiles(made, groups, columns["min"], columns["max"])
    presence = _newest(made)
    covered = _covered_points(made, step_s, buckets) if with_coverage else None
    found = []
    for place, series in enumerate(groups.numbers.tolist()):
        name, newest_us, covered_s = presence[series]
        found.append(
            Figures(
                key=made.keys[series],
                newest_name=name,
                newest_us=newest_us,
                p50=percentiles[place][0],
                p95=percentiles[place][1],
                slope_per_hour=slopes[place],
                increase=columns["amount"][place] if is_counter else None,
                covered_seconds=covered_s,
                points=points[place],
                covered_points_s=tuple(covered[series].tolist()) if covered is not None else None,
                **{name: columns[name][place] for name in ("n", "min", "avg", "max", "last")},
            )
        )
    return found


class _Groups:
    """Rows by the number of their series; `numbers` are those there are, in order."""

    def __init__(self, series: Ints) -> None:
        is_ordered = not np.any(np.diff(series) < 0)
        self._rows: Ints | None = None if is_ordered else _stable_order(series)
        ordered = self.ordered(series)
        self.starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self.ends = np.append(self.starts[1:], len(ordered))
        self.numbers = ordered[self.starts]

    def ordered(self, values: Any) -> Any:
        return values if self._rows is None else values[self._rows]

    def sums(self, values: Any) -> Any:
        return self.reduced(np.add, values)

    def reduced(self, operation: np.ufunc, values: Any) -> Any:
        return operation.reduceat(self.ordered(values), self.starts)

    def newest(self, time_us: Ints, seq: Ints) -> Ints:
        """The row of each series with the latest time, of several the one with the greatest seq."""
        times = self.ordered(time_us)
        latest = np.repeat(np.maximum.reduceat(times, self.starts), self.ends - self.starts)
        candidates = np.flatnonzero(times == latest)
        seqs = self.ordered(seq)[candidates]
        group = np.searchsorted(self.starts, candidates, side="right")
        order = np.lexsort((seqs, group))
        is_last = np.append(np.diff(group[order]) != 0, True)
        found: Ints = candidates[order[is_last]]
        return found if self._rows is None else self._rows[found]

    def spread(self) -> Ints:
        """The place of each ordered row's series among `numbers`."""
        return np.repeat(np.arange(len(self.starts)), self.ends - self.starts)


def _stable_order(series: Ints) -> Ints:
    """By radix where the numbers are small, which is ten times as fast."""
    return np.argsort(series.astype(np.uint16) if series.max() < 2**16 else series, kind="stable")


def _slopes(groups: _Groups, parts: Parts, start_us: int) -> list[float | None]:
    """Slope of the least-squares line through the parts' means, each as heavy as it has samples; per hour."""
    x = (parts.time_us - start_us) / HOUR_US
    y = parts.n * parts.amount / parts.weight
    n, nx = groups.sums(parts.n), parts.n * x
    sum_x, sum_xx, sum_xy, sum_y = (groups.sums(of_all) for of_all in (nx, nx * x, y * x, y))
    spread = n * sum_xx - sum_x * sum_x
    # Equal times leave what rounding leaves of the difference of two equal products.
    is_line = spread > 1e-12 * n * sum_xx
    slopes = (n * sum_xy - sum_x * sum_y) / np.where(is_line, spread, 1.0)
    return [slope if known else None for slope, known in zip(slopes.tolist(), is_line.tolist(), strict=True)]


def _points(groups: _Groups, parts: Parts, step_s: int, buckets: range) -> list[tuple[float | None, ...]]:
    """The mean of each wanted bucket of each series."""
    bucket = groups.ordered(parts.bucket_us) // (step_s * 1_000_000) - buckets.start
    is_wanted = (bucket >= 0) & (bucket < len(buckets))
    cell = (groups.spread() * len(buckets) + bucket)[is_wanted]
    size = len(groups.starts) * len(buckets)
    amount, weight = (
        np.bincount(cell, groups.ordered(of_all)[is_wanted], minlength=size) for of_all in (parts.amount, parts.weight)
    )
    is_known = weight > 0
    means = np.divide(amount, weight, out=np.zeros(size), where=is_known).astype(object)
    means[~is_known] = None
    return [tuple(row) for row in means.reshape(len(groups.starts), len(buckets)).tolist()]


def _covered_points(made: TrendParts, step_s: int, buckets: range) -> Floats:
    """The seconds that are covered of each wanted bucket, a row for each series by its number."""
    presence = made.presence
    bucket = presence.last_us // (step_s * 1_000_000) - buckets.start
    is_wanted = (bucket >= 0) & (bucket < len(buckets))
    cell = (presence.series * len(buckets) + bucket)[is_wanted]
    size = len(made.keys) * len(buckets)
    covered_s: Floats = np.bincount(cell, presence.covered_s[is_wanted], minlength=size).astype(np.float64)
    return covered_s.reshape(len(made.keys), len(buckets))


def _newest(made: TrendParts) -> dict[int, tuple[Any, int, float]]:
    """Of each series its newest name, when it was read last and the seconds that are covered."""
    presence: Presence = made.presence
    groups = _Groups(presence.series)
    newest = groups.newest(presence.last_us, presence.last_seq)
    names = [made.names[number] for number in presence.name[newest].tolist()]
    told = zip(names, presence.last_us[newest].tolist(), groups.sums(presence.covered_s).tolist(), strict=True)
    return dict(zip(groups.numbers.tolist(), told, strict=True))


SHARES = (0.5, 0.95)


def _percentiles(
    made: TrendParts, groups: _Groups, least: Sequence[float], greatest: Sequence[float]
) -> list[tuple[float | None, ...]]:
    """p50 and p95 of each series: exact where there are no sketches, else within 1 % and within the extremes."""
    series, value, _ = made.singles
    if made.sketches is None:
        ordered = groups.ordered(value)  # without cells, there is a part for each single value, in the same order
        return [exact_quantiles(ordered[first:after]) for first, after in zip(groups.starts, groups.ends, strict=True)]
    counts = _counts(series, value, made.sketches)
    found = []
    for place, number in enumerate(groups.numbers.tolist()):
        told = (quantile(counts.get(number, {}), share) for share in SHARES)
        found.append(tuple(one if one is None else max(least[place], min(greatest[place], one)) for one in told))
    return found


def exact_quantiles(values: Floats) -> tuple[float, ...]:
    """p50 and p95, interpolated between neighbours."""
    ranks = [share * (len(values) - 1) for share in SHARES]
    below = [math.floor(rank) for rank in ranks]
    wanted = sorted({*below, *(min(rank + 1, len(values) - 1) for rank in below)})
    ordered = np.partition(values, wanted)
    found = []
    for rank, lower in zip(ranks, below, strict=True):
        low, high = float(ordered[lower]), float(ordered[min(lower + 1, len(values) - 1)])
        found.append(low + (high - low) * (rank - lower) if rank > lower else low)
    return tuple(found)


def _counts(series: Ints, value: Floats, sketches: Sketches) -> dict[int, dict[int, int]]:
    """How many values of each series fell into which bucket of a sketch."""
    is_number = ~np.isnan(value)
    number = np.concatenate([sketches.series, series[is_number]])
    if not len(number):
        return {}
    of_singles = buckets_of(value[is_number])
    bucket = np.concatenate([sketches.bucket, of_singles])
    n = np.concatenate([sketches.n, np.ones(len(of_singles), np.int64)])
    first = int(bucket.min())
    width = int(bucket.max()) - first + 1
    place, times = _counted(number * width + (bucket - first), n)
    counts: dict[int, dict[int, int]] = {}
    for one, count in zip(place.tolist(), times.tolist(), strict=True):
        counts.setdefault(one // width, {})[one % width + first] = int(count)
    return counts


_TABLE_MAX = 4_000_000  # beyond that, to sort is less than to make the table: 32 MB


def _counted(place: Ints, n: Ints) -> tuple[Ints, Floats]:
    """The places there are, in order, and the sum of `n` of each. A table takes a tenth of the time of sorting."""
    if place.max() < _TABLE_MAX:
        table: Floats = np.bincount(place, n).astype(np.float64)
        there: Ints = np.flatnonzero(table).astype(np.int64)
        return there, table[there]
    there, number = np.unique(place, return_inverse=True)
    return there, np.bincount(number, n).astype(np.float64)
