"""Requests of long windows, from the cells of the rollups and the requests that are in none yet.

A cell is what the requests of one service, operation, model and status did in one measure in one minute or hour, with a
sketch (`store.rollups.sketch`: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019)
per hour. Cells are merged to the groups that are asked for: counts and sums are added, so are the sketches.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from query.catalogue import find_metric
from query.engine import Source
from query.reading.resolutions import Resolution, plan_rollups
from query.reading.trend_parts import TrendParts
from query.reading.trend_reading import TrendQuestion
from query.requests.summary import FAILED, MEASURES, SHARES, GroupFigures, RequestFilter, Spread
from query.windows import Window
from store.events import REQUEST
from store.rollups.cells import Floats, Ints
from store.rollups.sketch import buckets_of, values_of

Group = tuple[tuple[str | None, ...], int]
"""The values of what is grouped by, and the number of the step."""


def figures_from_cells(
    source: Source,
    window: Window,
    by: tuple[str, ...],
    only: RequestFilter,
    step_s: int | None,
    measures: Sequence[str] = tuple(MEASURES),
) -> tuple[list[GroupFigures], Resolution] | None:
    """The figures of each group, in order; None where cells cannot answer.

    Args:
        source: Where the events are.
        window: The time asked about.
        by: Some of `query.requests.summary.GROUPINGS`.
        only: Which requests.
        step_s: Width of the steps, whole hours; None for one.
        measures: Of what beside the duration; tokens are counted where it is all of them.
    """
    choose = partial(plan_rollups, window, step_s or 3600)
    merged: dict[str, _Merged] = {}
    resolutions: set[Resolution] = set()
    columns = {"duration": MEASURES["duration"], **{name: MEASURES[name] for name in measures}}
    tokens = ("output_tokens",) if len(columns) == len(MEASURES) else ()
    for column in (*columns.values(), *tokens):
        reading = source.trend(TrendQuestion(find_metric(f"request.{column}"), window, (), choose))
        if reading is None or reading.plan is None:
            return None
        resolutions.add(reading.plan.resolution)
        merged[column] = _Merged(reading.made, partial(_groups_of, by=by, only=only), _steps(window, step_s))
    return _all_figures(merged, columns), resolutions.pop()


def _steps(window: Window, step_s: int | None) -> Callable[[Ints], Ints]:
    """The number of the step of each time; what a cell at the edge has outside of the window counts for that step."""
    if step_s is None:
        return np.zeros_like
    step_us = step_s * 1_000_000
    first, last = window.start_us // step_us, (window.end_us - 1) // step_us
    return lambda time_us: np.clip(time_us // step_us, first, last)


def _groups_of(key: tuple[str | None, ...], by: tuple[str, ...], only: RequestFilter) -> tuple[str | None, ...] | None:
    """What a series is grouped under, and whether it failed at the end; None where it is not asked for."""
    named = dict(zip(("host", *REQUEST.series), key, strict=True))
    named["model"] = named["response_model"] if named["response_model"] is not None else named["request_model"]
    if any(named[name] != value for name, value in only.given.items()):
        return None
    return tuple(named[name] for name in by)


class _Merged:
    """One measure by group: numbers of groups are places in `groups`."""

    def __init__(
        self,
        made: TrendParts,
        group_of: Callable[[tuple[str | None, ...]], tuple[str | None, ...] | None],
        steps: Callable[[Ints], Ints],
    ) -> None:
        self._keys = [group_of(key) for key in made.keys]
        self._is_asked = np.array([key is not None for key in self._keys], bool)
        self._has_failed = np.array([key[-1] in FAILED for key in made.keys], bool)
        self._distinct = list(dict.fromkeys(key for key in self._keys if key is not None))
        number = {key: place for place, key in enumerate(self._distinct)}
        self._number = np.array([-1 if key is None else number[key] for key in self._keys], np.int64)
        self._steps = steps
        self._add(made)
        self._count(made)

    def _add(self, made: TrendParts) -> None:
        parts = made.parts
        chosen = self._is_asked[parts.series]
        series = parts.series[chosen]
        codes = self._codes(series, parts.bucket_us[chosen])
        self.codes, place = np.unique(codes, return_inverse=True)
        size = len(self.codes)
        self.n = np.bincount(place, parts.n[chosen], size)
        self.failed = np.bincount(place, parts.n[chosen] * self._has_failed[series], size)
        self.amount = np.bincount(place, parts.amount[chosen], size)
        self.least, self.greatest = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(self.least, place, parts.least[chosen])
        np.maximum.at(self.greatest, place, parts.greatest[chosen])

    def _count(self, made: TrendParts) -> None:
        """How many values of each group fell into which bucket of a sketch, in order of group and bucket."""
        single, sketches = made.singles, made.sketches
        assert sketches is not None  # noqa: S101 - there is a plan, so there are cells
        series = np.concatenate([sketches.series, single.series])
        bucket = np.concatenate([sketches.bucket, buckets_of(np.asarray(single.value, np.float64))])
        n = np.concatenate([sketches.n, np.ones(len(single.series), np.int64)])
        time_us = np.concatenate([sketches.begins_us, single.time_us])
        chosen = self._is_asked[series]
        codes = self._codes(series[chosen], time_us[chosen])
        together, place = np.unique(codes * 2**16 + (bucket[chosen] + 2**15), return_inverse=True)
        self._sketch_code, self._sketch_bucket = together // 2**16, together % 2**16 - 2**15
        self._sketch_n = np.bincount(place, n[chosen], len(together))

    def _codes(self, series: Ints, time_us: Ints) -> Ints:
        """Group and step as one number; a step's number is below 2³¹ for as long as it is at least an hour."""
        return self._number[series] * 2**31 + self._steps(time_us)

    def groups(self) -> list[Group]:
        return [(self._distinct[code // 2**31], code % 2**31) for code in self.codes.tolist()]

    def spreads(self) -> list[Spread]:
        return [self._spread(place) for place in range(len(self.codes))]

    def _spread(self, place: int) -> Spread:
        first, after = np.searchsorted(self._sketch_code, [self.codes[place], self.codes[place] + 1])
        values = values_of(self._sketch_bucket[first:after])
        told = _quantiles(values, self._sketch_n[first:after])
        least, greatest = float(self.least[place]), float(self.greatest[place])
        n = int(self.n[place])
        return Spread(
            n=n,
            mean=float(self.amount[place]) / n,
            max=greatest,
            **{name: max(least, min(greatest, value)) for name, value in zip(SHARES, told, strict=True)},
        )


def _quantiles(values: Floats, n: Floats | Ints) -> list[float]:
    """`SHARES` of values that occur `n` times each, in order, interpolated between neighbours."""
    upto = np.cumsum(n)
    ranks = np.array(list(SHARES.values())) * (upto[-1] - 1)
    below = values[np.searchsorted(upto, np.floor(ranks), side="right")]
    above = values[np.searchsorted(upto, np.ceil(ranks), side="right")]
    found: list[float] = (below + (above - below) * (ranks - np.floor(ranks))).tolist()
    return found


def _all_figures(merged: dict[str, _Merged], columns: Mapping[str, str]) -> list[GroupFigures]:
    durations = merged[MEASURES["duration"]]
    counted = merged.get("output_tokens")
    tokens = dict(zip(counted.groups(), counted.amount.tolist(), strict=True)) if counted else {}
    spreads = {
        name: dict(zip(merged[column].groups(), merged[column].spreads(), strict=True))
        for name, column in columns.items()
    }
    found = [
        GroupFigures(
            key=group[0],
            bucket=group[1],
            n=int(n),
            failed=int(failed),
            output_tokens=tokens.get(group),
            spreads={name: spreads.get(name, {}).get(group) for name in MEASURES},
        )
        for group, n, failed in zip(durations.groups(), durations.n.tolist(), durations.failed.tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: ([(name is None, name or "") for name in one.key], one.bucket))
