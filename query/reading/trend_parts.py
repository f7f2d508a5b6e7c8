"""What a trend is made of, as arrays: samples, the steps of a counter, cells of rollups.

The rules of a counter are those of query/sql/trend_of_counter.sql: between two readings of one boot and one counter
epoch there is a step if it took time and did not go back, and its rate stands at the later reading. Where cells take
part, the readings beside them are cut into minutes too, and the steps from one run to the next are taken at the end,
whatever both are of.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from query.catalogue import Metric
from query.reading.columns import Cells, Key, Rows, Values, cell_key_names, key_names
from query.reading.resolutions import MINUTE_US, Range, RollupPlan
from store.rollups.cells import Floats, Ints, run_keys, series_name
from store.times import HOUR_US


@dataclass(frozen=True, slots=True)
class Parts:
    """Samples, steps and cells, one a row, in no order.

    Args:
        series: Number of the series.
        time_us: When; of a cell the middle of its readings.
        bucket_us: A time of the bucket it counts for.
        n: How many samples or steps, at least one.
        least, greatest: Of their values.
        amount: Their sum; of a counter what it grew by.
        weight: What the amount is divided by for the mean: their number; of a counter the seconds it took.
        last: The value of the last of them, …
        last_us, last_seq: … and when that was.
    """

    series: Ints
    time_us: Ints
    bucket_us: Ints
    n: Ints
    least: Floats
    greatest: Floats
    amount: Floats
    weight: Floats
    last: Floats
    last_us: Ints
    last_seq: Ints


@dataclass(frozen=True, slots=True)
class Presence:
    """What was read at all, also what no step leads to: a reading or a cell a row.

    Args:
        series: Number of the series.
        last_us, last_seq: Of the newest reading.
        name: Number of the name that the series had then.
        covered_s: The time it stands for.
    """

    series: Ints
    last_us: Ints
    last_seq: Ints
    name: Ints
    covered_s: Floats


class Singles(NamedTuple):
    """Values one by one, for percentiles, and when each was."""

    series: Ints
    value: Floats
    time_us: Ints


class Sketches(NamedTuple):
    """Buckets of sketches, how many values fell into each, and when the hour of each begins."""

    series: Ints
    bucket: Ints
    n: Ints
    begins_us: Ints


@dataclass(frozen=True, slots=True)
class TrendParts:
    """All that a trend is made of; `keys` and `names` are what the numbers of series and names stand for.

    `sketches` is None where there are no cells: percentiles are exact then.
    """

    keys: Sequence[Key]
    names: Sequence[Any]
    parts: Parts
    presence: Presence
    singles: Singles
    sketches: Sketches | None


class Block(NamedTuple):
    """One field in some events: of all rows of which a part may be wanted alone."""

    rows: Rows
    values: Values
    is_wanted: NDArray[np.bool_] | None = None


def parts_of_events(metric: Metric, gpus: Collection[int], blocks: Iterable[Block]) -> TrendParts:
    """A trend of events alone."""
    numbers = _Numbers(metric, gpus)
    readings = _readings(numbers, blocks)
    if not metric.is_counter:
        return numbers.made(_samples(readings), _presence(readings), _values_of(readings), None)
    steps = _steps(numbers, readings, None)
    return numbers.made(steps, _presence(readings), Singles(steps.series, steps.last, steps.last_us), None)


def parts_of_plan(
    metric: Metric,
    gpus: Collection[int],
    blocks: Iterable[Block],
    cells: Mapping[str, Sequence[Cells]],
    plan: RollupPlan,
) -> TrendParts:
    """A trend of cells and of the events that are in none.

    Args:
        metric: Which.
        gpus: Only these GPU indexes; all where empty.
        blocks: The events.
        cells: The cells by the width that `plan` names.
        plan: Which of them count.
    """
    numbers = _Numbers(metric, gpus)
    readings = _readings(numbers, blocks)
    chosen = [_Chosen.of(numbers, one, (*plan.minutes,)) for one in cells["minute"]]
    chosen += [_Chosen.of(numbers, one, (plan.hours,)) for one in cells["hour"]]
    sketches = [_Chosen.of(numbers, one, (plan.sketched,)).sketches() for one in cells["hour"]]
    presence = _joined([_presence(readings), *(one.presence() for one in chosen)])
    if metric.is_counter:
        steps = _steps(numbers, readings, readings.time_us // MINUTE_US)
        runs = _joined([_minutes(readings), *(one.runs() for one in chosen)])
        between, is_in_no_sketch = _between(numbers, runs)
        parts = _joined([steps, between, *(one.parts() for one in chosen)])
        singles = Singles(
            np.concatenate([steps.series, between.series[is_in_no_sketch]]),
            np.concatenate([steps.last, between.last[is_in_no_sketch]]),
            np.concatenate([steps.last_us, between.last_us[is_in_no_sketch]]),
        )
    else:
        parts = _joined([_samples(readings), *(one.parts() for one in chosen)])
        singles = _values_of(readings)
    nothing = Sketches(*(np.empty(0, np.int64),) * 4)
    merged = Sketches(*(np.concatenate(of_all) for of_all in zip(nothing, *sketches, strict=True)))
    return numbers.made(parts, presence, singles, merged)


Table = TypeVar("Table", Parts, Presence, "_Runs")


def _joined(tables: Sequence[Table]) -> Table:
    names = [one.name for one in fields(tables[0])]
    return type(tables[0])(*(np.concatenate([getattr(one, name) for one in tables]) for name in names))


@dataclass(slots=True)
class _Numbered:
    """Numbers things in the order in which they turn up."""

    number: dict[Any, int] = field(default_factory=dict)

    def __call__(self, thing: Any) -> int:
        return self.number.setdefault(thing, len(self.number))

    @property
    def things(self) -> Sequence[Any]:
        return tuple(self.number)


class _Keys(NamedTuple):
    """Of each key: the numbers of its run, series and name, and whether it is asked for."""

    run: Ints
    series: Ints
    name: Ints
    is_asked: NDArray[np.bool_]


class _Numbers:
    """The numbers of the series, runs and names of one trend."""

    def __init__(self, metric: Metric, gpus: Collection[int]) -> None:
        self.metric = metric
        self.scale = 1000.0 if metric.column.type == "decimal" else 1.0  # as store.rollups.cells.exact_integers
        self._gpus = frozenset(gpus)
        self._of_series = ("host", *metric.kind.series)
        self._of_run = run_keys(metric.kind) if metric.is_counter else self._of_series
        self._series, self._run, self._name = _Numbered(), _Numbered(), _Numbered()

    def of_events(self, keys: Sequence[Key]) -> _Keys:
        return self._of(keys, key_names(self.metric.kind), series_name(self.metric.kind), "gpu_index")

    def of_cells(self, keys: Sequence[Key]) -> _Keys:
        return self._of(keys, cell_key_names(self.metric.kind, self.metric.column), "name", "name")

    def _of(self, keys: Sequence[Key], columns: Sequence[str], name: str, gpu: str) -> _Keys:
        series, run = ([columns.index(one) for one in names] for names in (self._of_series, self._of_run))
        at_name, at_gpu = columns.index(name), columns.index(gpu) if self._gpus else 0
        of_series = np.array([self._series(tuple(key[at] for at in series)) for key in keys], np.int64)
        is_one = self._of_run == self._of_series
        return _Keys(
            of_series if is_one else np.array([self._run(tuple(key[at] for at in run)) for key in keys], np.int64),
            of_series,
            np.array([self._name(key[at_name]) for key in keys], np.int64),
            np.array([not self._gpus or key[at_gpu] in self._gpus for key in keys], bool),
        )

    def made(self, parts: Parts, presence: Presence, singles: Singles, sketches: Sketches | None) -> TrendParts:
        return TrendParts(self._series.things, self._name.things, parts, presence, singles, sketches)


# --- events


class _Readings(NamedTuple):
    """Readings of one field, the runs one after another; those of a counter in order of time and seq, too.

    A run is a series' readings of one boot and one counter epoch; of a gauge all of them.
    """

    run: Ints
    series: Ints
    name: Ints
    time_us: Ints
    seq: Ints
    covered_s: Floats
    values: Any  # of a counter as integers

    def taken(self, order: Ints) -> "_Readings":
        return _each_once(self, lambda column: column[order])

    @staticmethod
    def joined(pieces: Sequence["_Readings"]) -> "_Readings":
        by_column = [_Column(of_all) for of_all in zip(*pieces, strict=True)]
        if all(piece.run is piece.series for piece in pieces):
            by_column[1] = by_column[0]
        return _each_once(by_column, lambda column: np.concatenate(column.pieces))


class _Column(NamedTuple):
    pieces: tuple[Any, ...]


def _each_once(columns: Sequence[Any], change: Callable[[Any], Any]) -> _Readings:
    """The columns changed; of a gauge run and series are one array, and stay one."""
    changed = {id(column): change(column) for column in {id(column): column for column in columns}.values()}
    return _Readings(*(changed[id(column)] for column in columns))


def _readings(numbers: _Numbers, blocks: Iterable[Block]) -> _Readings:
    pieces = [_of_block(numbers, block) for block in blocks if len(block.values.values)]
    if len(pieces) == 1:
        (readings,) = pieces
    else:
        readings = _Readings.joined([_no_readings(numbers), *pieces])
    order = _order(readings, by_time=numbers.metric.is_counter)
    return readings if order is None else readings.taken(order)


def _no_readings(numbers: _Numbers) -> _Readings:
    nothing = np.empty(0, np.int64)
    values = nothing if numbers.metric.is_counter else np.empty(0)
    return _Readings(nothing, nothing, nothing, nothing, nothing, np.empty(0), values)


def _of_block(numbers: _Numbers, block: Block) -> _Readings:
    rows, values = block.rows, block.values.values
    keys = numbers.of_events(rows.keys)
    place = block.values.place
    chosen = block.is_wanted if keys.is_asked.all() else _both(block.is_wanted, keys.is_asked[rows.code])
    if chosen is not None:
        values = values[chosen if place is None else chosen[place]]
        place = np.flatnonzero(chosen) if place is None else place[chosen[place]]
    code, time_us, seq = (column if place is None else column[place] for column in (rows.code, rows.time_us, rows.seq))
    covered_s = _covered_s(numbers.metric, rows.interval_s if place is None else rows.interval_s[place])
    series = keys.series[code]
    run = series if keys.run is keys.series else keys.run[code]
    return _Readings(run, series, keys.name[code], time_us, seq, covered_s, values)


def _both(one: NDArray[np.bool_] | None, other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return other if one is None else one & other


def _covered_s(metric: Metric, interval_s: Floats) -> Floats:
    """The time that each reading stands for: its row's interval, or its column's own where that is read more seldom."""
    every_s = metric.kind.expected_every_seconds
    if every_s is None:
        return np.zeros(len(interval_s))
    known = np.where(np.isnan(interval_s), every_s, interval_s)
    return np.maximum(known, metric.column.every_seconds) if metric.column.every_seconds else known


def _order(readings: _Readings, *, by_time: bool) -> Ints | None:
    """The order by run, and by time and seq in it where that is asked; None where it is that already.

    What was read from several files is mostly in order of time within each run: then a radix sort by run is enough.
    """
    run, time_us, seq = readings.run, readings.time_us, readings.seq
    order = None
    if np.any(np.diff(run) < 0):
        small = run.astype(np.uint16) if run.max() < 2**16 else run
        order = np.argsort(small, kind="stable")
        run, time_us, seq = run[order], time_us[order], seq[order]
    if by_time:
        later = np.diff(time_us)
        goes_back = (later < 0) | ((later == 0) & (np.diff(seq) < 0))
        if np.any(goes_back & (np.diff(run) == 0)):
            return np.lexsort((readings.seq, readings.time_us, readings.run))
    return order


def _presence(readings: _Readings) -> Presence:
    return Presence(readings.series, readings.time_us, readings.seq, readings.name, readings.covered_s)


def _samples(readings: _Readings) -> Parts:
    return _singles(readings.series, readings.time_us, readings.seq, readings.values, readings.values, None)


def _values_of(readings: _Readings) -> Singles:
    return Singles(readings.series, readings.values, readings.time_us)


def _singles(series: Ints, time_us: Ints, seq: Ints, value: Floats, amount: Floats, weight: Floats | None) -> Parts:
    """Parts of one sample or step each."""
    ones = np.ones(len(series))
    return Parts(
        series, time_us, time_us, ones.astype(np.int64), value, value, amount, ones if weight is None else weight,
        value, time_us, seq,
    )  # fmt: skip


def _steps(numbers: _Numbers, readings: _Readings, cut: Ints | None) -> Parts:
    """The steps within the runs of a counter, and within the same `cut` where that is given."""
    grown, took_us = np.diff(readings.values), np.diff(readings.time_us)
    is_step = (np.diff(readings.run) == 0) & (grown >= 0) & (took_us > 0)
    if cut is not None:
        is_step &= np.diff(cut) == 0
    before = np.flatnonzero(is_step)
    amount, took_s = grown[before] / numbers.scale, took_us[before] / 1e6
    series, time_us, seq = (column[before + 1] for column in (readings.series, readings.time_us, readings.seq))
    return _singles(series, time_us, seq, amount / took_s, amount, took_s)


@dataclass(frozen=True, slots=True)
class _Runs:
    """A counter's runs, whole or a minute or hour of each: their edges, and where they belong."""

    run: Ints
    series: Ints
    first_us: Ints
    first_seq: Ints
    last_us: Ints
    first_reading: Ints
    last_reading: Ints
    bucket_us: Ints
    hour: Ints
    is_event: NDArray[np.bool_]


def _minutes(readings: _Readings) -> _Runs:
    """Each minute of each run of the events."""
    is_first = np.ones(len(readings.run), bool)
    is_first[1:] = (np.diff(readings.run) != 0) | (np.diff(readings.time_us // MINUTE_US) != 0)
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(is_first))[: len(first)] - 1
    first_us = readings.time_us[first]
    return _Runs(
        readings.run[first], readings.series[first], first_us, readings.seq[first], readings.time_us[last],
        readings.values[first], readings.values[last], first_us, first_us // HOUR_US, np.ones(len(first), bool),
    )  # fmt: skip


def _between(numbers: _Numbers, runs: _Runs) -> tuple[Parts, NDArray[np.bool_]]:
    """The steps from one run to the next, and which of them are in no sketch."""
    order = np.lexsort((runs.first_seq, runs.first_us, runs.run))
    before, after = order[:-1], order[1:]
    grown = runs.first_reading[after] - runs.last_reading[before]
    took_us = runs.first_us[after] - runs.last_us[before]
    is_step = (runs.run[after] == runs.run[before]) & (grown >= 0) & (took_us > 0)
    before, after = before[is_step], after[is_step]
    amount, took_s = grown[is_step] / numbers.scale, took_us[is_step] / 1e6
    first_us, rate = runs.first_us[after], amount / took_s
    ones = np.ones(len(after), np.int64)
    parts = Parts(
        runs.series[after], first_us, runs.bucket_us[after], ones, rate, rate, amount, took_s,
        rate, first_us, runs.first_seq[after],
    )  # fmt: skip
    return parts, runs.is_event[after] | runs.is_event[before] | (runs.hour[after] != runs.hour[before])


# --- cells


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Some of the cells of a file, by their places."""

    cells: Cells
    keys: _Keys
    is_chosen: NDArray[np.bool_]

    @classmethod
    def of(cls, numbers: _Numbers, cells: Cells, ranges: Iterable[Range]) -> "_Chosen":
        begins_us = cells.columns["begins_at"]
        is_chosen = np.zeros(len(begins_us), bool)
        for first_us, after_us in ranges:
            if first_us < after_us:
                is_chosen |= (begins_us >= first_us) & (begins_us < after_us)
        keys = numbers.of_cells(cells.keys)
        return cls(cells, keys, is_chosen & keys.is_asked[cells.code])

    def parts(self) -> Parts:
        place = np.flatnonzero(self.is_chosen & (self.cells.columns["n"] > 0))
        columns = {name: values[place] for name, values in self.cells.columns.items()}
        n = columns["n"].astype(np.int64)
        is_counter = "elapsed_seconds" in columns
        last = ("last_step_at", "last_step_seq") if is_counter else ("last_at", "last_seq")
        return Parts(
            self.keys.series[self.cells.code[place]],
            (columns["first_at"] + columns["last_at"]) // 2,
            columns["begins_at"],
            n,
            columns["minimum"],
            columns["maximum"],
            columns["total"],
            columns["elapsed_seconds"] if is_counter else n.astype(np.float64),
            columns["last"],
            *(columns[name].astype(np.int64) for name in last),
        )

    def presence(self) -> Presence:
        place = np.flatnonzero(self.is_chosen)
        code, columns = self.cells.code[place], self.cells.columns
        last_us, last_seq, covered_s = (columns[name][place] for name in ("last_at", "last_seq", "covered_seconds"))
        return Presence(self.keys.series[code], last_us, last_seq, self.keys.name[code], covered_s)

    def runs(self) -> _Runs:
        place = np.flatnonzero(self.is_chosen)
        code, columns = self.cells.code[place], self.cells.columns

        def edge(name: str) -> Ints:
            edges: Ints = columns[name][place].astype(np.int64)
            return edges

        return _Runs(
            self.keys.run[code], self.keys.series[code], edge("first_at"), edge("first_seq"), edge("last_at"),
            edge("first_reading"), edge("last_reading"), edge("begins_at"), edge("begins_at") // HOUR_US,
            np.zeros(len(place), bool),
        )  # fmt: skip

    def sketches(self) -> Sketches:
        cell, bucket, n = self.cells.sketch_cell, self.cells.sketch_bucket, self.cells.sketch_n
        if not self.is_chosen.all():
            is_chosen = self.is_chosen[cell]
            cell, bucket, n = cell[is_chosen], bucket[is_chosen], n[is_chosen]
        return Sketches(self.keys.series[self.cells.code[cell]], bucket, n, self.cells.columns["begins_at"][cell])
