"""Which requests were slowest for their kind, from durations alone: columns that stay at hand, and cells of rollups.

A window's durations are one metric, so they are read as those of a trend are (`Source.trend`): of short windows every
request; of long ones the cells of hours and what is in none yet. The `top` requests furthest beyond their limits lie
where the greatest of a cell is furthest beyond: no cell but the first `top` in that order can hold one of them, and
only the hours of these cells are read. How many are beyond the limit comes from the sketches, within 1 % of the limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import numpy as np

from query.catalogue import find_metric
from query.engine import Source
from query.reading.resolutions import Range, Resolution, plan_rollups
from query.reading.trend_parts import TrendParts
from query.reading.trend_reading import TrendQuestion
from query.requests.summary import RequestFilter
from query.windows import Window
from store.events import REQUEST
from store.rollups.cells import Floats, Ints
from store.rollups.sketch import values_of
from store.times import HOUR_US

Kind = tuple[str | None, str | None]
"""Operation and model."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
METRIC = "request.duration_seconds"


class Ranked(NamedTuple):
    """The requests furthest beyond their limits.

    Args:
        seqs: Their numbers, the furthest first.
        span: Between which times they ended, [from, to).
        beyond: How many are beyond their limit in all.
        is_estimate: Whether that comes from sketches.
    """

    seqs: Sequence[int]
    span: Range
    beyond: int
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Durations:
    """What the requests of a window took.

    Args:
        window: Which.
        made: Samples and cells.
        resolution: What the most of them are.
        kinds: Of each series its operation and model; None where it is not asked for.
        has_ended_well: Of each series whether its requests have.
    """

    window: Window
    made: TrendParts
    resolution: Resolution
    kinds: Sequence[Kind | None]
    has_ended_well: Sequence[bool]

    def counts(self, *, ended_well: bool = False) -> Mapping[Kind, int]:
        """How many requests there are of each kind."""
        counted = np.bincount(self.made.parts.series, self.made.parts.n, len(self.kinds)).astype(np.int64).tolist()
        found: dict[Kind, int] = {}
        for kind, is_ok, n in zip(self.kinds, self.has_ended_well, counted, strict=True):
            if kind is not None and n and (is_ok or not ended_well):
                found[kind] = found.get(kind, 0) + n
        return found

    def quantile(self, kind: Kind, share: float) -> float:
        """A quantile of those of a kind that ended well: exact of requests, within 1 % of cells."""
        is_asked = np.array([one == kind for one in self.kinds]) & np.array(self.has_ended_well, bool)
        value, n = self._values(is_asked)
        order = np.argsort(value)
        value, upto = value[order], np.cumsum(n[order])
        rank = share * (upto[-1] - 1)
        below, above = (value[np.searchsorted(upto, edge(rank), side="right")] for edge in (np.floor, np.ceil))
        return float(below + (above - below) * (rank - np.floor(rank)))

    def _values(self, is_asked: np.ndarray) -> tuple[Floats, Ints]:
        """The values of some series and how often each occurs."""
        single, sketches = self.made.singles, self.made.sketches
        chosen = is_asked[single.series]
        values, n = single.value[chosen].astype(np.float64), np.ones(int(chosen.sum()), np.int64)
        if sketches is None:
            return values, n
        chosen = is_asked[sketches.series]
        counted = np.bincount(sketches.bucket[chosen] + _ZERO, sketches.n[chosen], 2 * _ZERO).astype(np.int64)
        buckets = np.flatnonzero(counted)
        return np.concatenate([values, values_of(buckets - _ZERO)]), np.concatenate([n, counted[buckets]])


_ZERO = 2**15


def read_durations(source: Source, window: Window, only: RequestFilter) -> Durations | None:
    """What the requests of a window took; None where an engine is to be asked."""
    choose = partial(plan_rollups, window, 3600)
    reading = source.trend(TrendQuestion(find_metric(METRIC), window, (), choose))
    if reading is None:
        return None
    kinds, has_ended_well = [], []
    for key in reading.made.keys:
        named = dict(zip(("host", *REQUEST.series), key, strict=True))
        named["model"] = named["response_model"] if named["response_model"] is not None else named["request_model"]
        is_asked = all(named[name] == value for name, value in only.given.items())
        kinds.append((named["operation"], named["model"]) if is_asked else None)
        has_ended_well.append(named["status"] == "ok")
    resolution = reading.plan.resolution if reading.plan else "raw"
    return Durations(window, reading.made, resolution, kinds, has_ended_well)


def furthest_beyond(
    source: Source, durations: Durations, limits: Mapping[Kind, float], top: int, only: RequestFilter
) -> Ranked | None:
    """The `top` requests furthest beyond the limit of their kind; None where an engine is to be asked."""
    beyond, is_estimate = _beyond(durations, limits)
    parts, window = durations.made.parts, durations.window
    excess = parts.greatest - _limits_of(durations, limits)[parts.series]
    is_within = (parts.bucket_us >= window.start_us) & (parts.last_us < window.end_us)
    place = np.flatnonzero((excess >= 0) & (is_within | (parts.n > 1)))
    order = np.lexsort((parts.last_seq[place], -excess[place]))
    at_edges = int((~is_within[place]).sum())  # cells whose greatest may lie outside
    place = place[order][: top + at_edges]
    is_one = parts.n[place] == 1
    found = [_Found(excess[place][is_one], parts.last_seq[place][is_one], parts.last_us[place][is_one])]
    hours = np.unique(parts.bucket_us[place][~is_one] // HOUR_US) * HOUR_US
    for hour_us in hours.tolist():
        of_hour = _of_hour(source, window, hour_us, limits, only)
        if of_hour is None:
            return None
        found.append(of_hour)
    return _merged(found, top, beyond, is_estimate=is_estimate)


class _Found(NamedTuple):
    excess: Floats
    seq: Ints
    time_us: Ints


def _merged(found: Sequence[_Found], top: int, beyond: int, *, is_estimate: bool) -> Ranked:
    excess, seq, time_us = (np.concatenate(one) for one in zip(*found, strict=True))
    seq, first = np.unique(seq, return_index=True)  # what is in no cell yet is found in its hour, too
    excess, time_us = excess[first], time_us[first]
    order = np.lexsort((seq, -excess))[:top]
    span = (int(time_us[order].min()), int(time_us[order].max()) + 1) if len(order) else (0, 0)
    return Ranked(seq[order].tolist(), span, beyond, is_estimate)


def _of_hour(
    source: Source, window: Window, hour_us: int, limits: Mapping[Kind, float], only: RequestFilter
) -> _Found | None:
    """Every request of an hour of the window that is beyond its limit."""
    edges = (max(hour_us, window.start_us), min(hour_us + HOUR_US, window.end_us))
    durations = read_durations(source, _between(window, *edges), only)
    if durations is None or durations.resolution != "raw":
        return None
    parts = durations.made.parts
    excess = parts.greatest - _limits_of(durations, limits)[parts.series]
    chosen = excess >= 0
    return _Found(excess[chosen], parts.last_seq[chosen], parts.last_us[chosen])


def _between(window: Window, start_us: int, end_us: int) -> Window:
    start, end = (_EPOCH + timedelta(microseconds=one) for one in (start_us, end_us))
    return Window(start, end, window.time_zone, window.asked)


def _limits_of(durations: Durations, limits: Mapping[Kind, float]) -> Floats:
    """The limit of each series; infinite where it has none or is not asked for."""
    return np.array([np.inf if kind is None else limits.get(kind, np.inf) for kind in durations.kinds])


def _beyond(durations: Durations, limits: Mapping[Kind, float]) -> tuple[int, bool]:
    """How many requests are at or beyond their limit, and whether that is an estimate."""
    limit_s = _limits_of(durations, limits)
    single, sketches = durations.made.singles, durations.made.sketches
    n = int((single.value >= limit_s[single.series]).sum())
    if sketches is None:
        return n, False
    return n + int(sketches.n[values_of(sketches.bucket) >= limit_s[sketches.series]].sum()), True
