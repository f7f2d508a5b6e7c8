"""From events to the cells of a rollup.

A cell is what one series did in one metric during one minute or hour: how often it was read, least, greatest, sum,
last; per hour also a sketch. Cells of the same series merge by addition, least and greatest, so that any longer time
is answered from them. One row is one cell, narrow: the metric's column is data (`field`), not a column of its own; see
docs/decisions/0013-narrow-rollups.md.

A counter's cell is a run of readings of one boot and one counter epoch: what it grew by and for how long within the
run, and its first and last reading, so that the step from one run to the next is known to whoever puts them together.
The rules are those of query/sql/trend_of_counter.sql: what goes back is no step, nor is what takes no time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.derivations import arrow_schema
from store.events import KINDS, Field, Kind, measured_fields
from store.rollups.sketch import buckets_of

MINUTE_S = 60
HOUR_S = 3600
STEPS_S: Mapping[str, int] = {"minute": MINUTE_S, "hour": HOUR_S}

ROLLED_KINDS: Mapping[str, Kind] = {
    name: kind for name, kind in KINDS.items() if kind.series or kind.expected_every_seconds
}
"""The kinds that have metrics: those a trend can be asked of."""

SERIES_NAMES: Mapping[str, str] = {
    "gpu_sample": "gpu_index",
    "device_sample": "device",
    "nvlink_sample": "gpu_index",
    "process_sample": "name",
    "request": "operation",
    "server_sample": "model",
}
"""The column that names a series for a person, where it is not the host."""

SKETCH = pa.list_(pa.struct([pa.field("bucket", pa.int16()), pa.field("n", pa.int32())]))
_MEASURES = (
    ("begins_at", pa.timestamp("us", tz="UTC")),
    ("first_at", pa.timestamp("us", tz="UTC")),
    ("last_at", pa.timestamp("us", tz="UTC")),
    ("first_seq", pa.int64()),
    ("last_seq", pa.int64()),
    ("n", pa.int32()),
    ("minimum", pa.float64()),
    ("maximum", pa.float64()),
    ("total", pa.float64()),
    ("last", pa.float64()),
    ("last_step_at", pa.timestamp("us", tz="UTC")),
    ("last_step_seq", pa.int64()),
    ("covered_seconds", pa.float64()),
    ("elapsed_seconds", pa.float64()),
    ("first_reading", pa.decimal128(38, 3)),
    ("last_reading", pa.decimal128(38, 3)),
    ("sketch", SKETCH),
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def series_name(kind: Kind) -> str:
    """The column that names a series of this kind for a person."""
    return SERIES_NAMES.get(kind.name, "host")


def run_keys(kind: Kind) -> tuple[str, ...]:
    """The columns that tell one run from another."""
    epoch = ("counter_epoch",) if "counter_epoch" in kind.by_name else ()
    return ("host", *kind.series, "boot_id", *epoch)


@cache
def cell_schema(kind: Kind) -> pa.Schema:
    """The columns of a rollup of `kind`.

    Of a gauge, `elapsed_seconds`, the last step and the readings are NULL. Of a counter, `total` is what it grew by,
    and the other figures are those of its rates; `last` is its last step's, which may end before the last reading.
    """
    types = arrow_schema(kind)
    keys = [types.field(name) for name in run_keys(kind)]
    name = pa.field("name", types.field(series_name(kind)).type)
    return pa.schema([pa.field("field", pa.string()), *keys, name, *(pa.field(*one) for one in _MEASURES)])


def cell_columns(kind: Kind, column: Field, *, with_sketch: bool) -> tuple[str, ...]:
    """The columns of the cells of one field that are not NULL."""
    of_counters = {"boot_id", "counter_epoch", "first_seq", "last_step_at", "last_step_seq"}
    of_counters |= {"elapsed_seconds", "first_reading", "last_reading"}
    left_out = {"field"} | (set() if column.instrument == "counter" else of_counters)
    left_out |= set() if with_sketch else {"sketch"}
    return tuple(name for name in cell_schema(kind).names if name not in left_out)


def needed_columns(kind: Kind) -> tuple[str, ...]:
    """The columns of the events from which cells are made."""
    interval = ("interval_seconds",) if "interval_seconds" in kind.by_name else ()
    names = ("seq", "observed_at", *run_keys(kind), series_name(kind), *interval)
    return tuple(dict.fromkeys((*names, *(column.name for column in measured_fields(kind)))))


def cells_of(kind: Kind, events: pa.Table, step_s: int) -> pa.Table:
    """The cells of `events`, sorted by field, series and time."""
    if not events.num_rows:
        return cell_schema(kind).empty_table()
    rows = _rows(kind, events)
    pieces = [piece for column in measured_fields(kind) for piece in _cells_of_field(kind, column, rows, step_s)]
    return pa.concat_tables(pieces) if pieces else cell_schema(kind).empty_table()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events in order of run, time and seq. `run` numbers the runs; times are microseconds."""

    events: pa.Table
    run: Ints
    time_us: Ints
    seq: Ints
    interval_s: Floats


def _rows(kind: Kind, events: pa.Table) -> _Rows:
    run = np.zeros(events.num_rows, np.int64)
    for name in dict.fromkeys((*run_keys(kind), series_name(kind))):
        codes = pc.dictionary_encode(events[name].combine_chunks(), null_encoding="encode").indices
        _, run = np.unique(run * (2**31) + codes.to_numpy(), return_inverse=True)
    time_us = events["observed_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((events["seq"].to_numpy(), time_us, run))
    ordered = events.take(pa.array(order))
    return _Rows(ordered, run[order], time_us[order], ordered["seq"].to_numpy(), _intervals(kind, ordered))


def _intervals(kind: Kind, events: pa.Table) -> Floats:
    """The time that each row stands for; 0 for what is not sampled."""
    every_s = kind.expected_every_seconds
    if every_s is None:
        return np.zeros(events.num_rows)
    return doubles(pc.fill_null(events["interval_seconds"].cast(pa.float64()), every_s))


def doubles(values: pa.ChunkedArray) -> Floats:
    found: Floats = values.cast(pa.float64()).to_numpy()
    return found


@dataclass(frozen=True, slots=True)
class _Readings:
    """The rows that have one field, cut into cells: cell i is rows `starts[i]` to `ends[i]`, the end not included."""

    place: Ints
    starts: Ints
    ends: Ints
    cell: Ints


def _cells_of_field(kind: Kind, column: Field, rows: _Rows, step_s: int) -> Iterator[pa.Table]:
    values = rows.events[column.name]
    if values.null_count == len(values):
        return
    place = np.flatnonzero(values.is_valid().to_numpy())
    cell_time = rows.time_us[place] // (step_s * 1_000_000)
    is_first = np.ones(len(place), bool)
    is_first[1:] = (np.diff(cell_time) != 0) | (np.diff(rows.run[place]) != 0)
    starts = np.flatnonzero(is_first)
    readings = _Readings(place, starts, np.append(starts[1:], len(place)), np.cumsum(is_first) - 1)
    present = values.drop_null()
    measures = _common(column, rows, readings) | {"begins_at": cell_time[starts] * (step_s * 1_000_000)}
    if column.instrument == "counter":
        measures |= _counter(present, rows, readings)
    else:
        measures |= _gauge(doubles(present), readings)
    if step_s < HOUR_S:
        measures.pop("sketch")
    keys = rows.events.select([*dict.fromkeys((*run_keys(kind), series_name(kind)))]).take(pa.array(place[starts]))
    yield _table(kind, column, keys, measures)


def _common(column: Field, rows: _Rows, readings: _Readings) -> dict[str, object]:
    first, last = readings.place[readings.starts], readings.place[readings.ends - 1]
    interval_s = rows.interval_s[readings.place]
    if column.every_seconds and interval_s.any():
        interval_s = np.maximum(interval_s, column.every_seconds)
    return {
        "first_at": rows.time_us[first],
        "last_at": rows.time_us[last],
        "first_seq": rows.seq[first],
        "last_seq": rows.seq[last],
        "covered_seconds": np.add.reduceat(interval_s, readings.starts),
    }


def _gauge(values: Floats, readings: _Readings) -> dict[str, object]:
    return {
        "n": readings.ends - readings.starts,
        "minimum": np.minimum.reduceat(values, readings.starts),
        "maximum": np.maximum.reduceat(values, readings.starts),
        "total": np.add.reduceat(values, readings.starts),
        "last": values[readings.ends - 1],
        "sketch": _sketches(values, readings.cell, len(readings.starts)),
    }


def _counter(totals: pa.ChunkedArray, rows: _Rows, readings: _Readings) -> dict[str, object]:
    exact, scale = exact_integers(totals)
    grown = np.diff(exact, prepend=exact[:1])
    elapsed_us = np.diff(rows.time_us[readings.place], prepend=rows.time_us[readings.place[:1]])
    is_step = (np.diff(exact, prepend=exact[:1]) >= 0) & (elapsed_us > 0)
    is_step[readings.starts] = False  # the step into a run is known only where the run before is known
    step = np.flatnonzero(is_step)
    grown_by, took_s = grown[step] / scale, elapsed_us[step] / 1e6
    rate = np.full(len(exact), np.nan)
    rate[step] = grown_by / took_s
    n = np.add.reduceat(is_step.astype(np.int64), readings.starts)
    last_step = np.maximum.reduceat(np.where(is_step, np.arange(len(exact)), -1), readings.starts)
    amount, time_s = np.zeros(len(exact)), np.zeros(len(exact))
    amount[step], time_s[step] = grown_by, took_s
    readings_as_decimal = totals.combine_chunks().cast(pa.decimal128(38, 3))
    return {
        "n": n,
        "minimum": _where(n, np.fmin.reduceat(rate, readings.starts)),
        "maximum": _where(n, np.fmax.reduceat(rate, readings.starts)),
        "total": np.add.reduceat(amount, readings.starts),
        "last": _where(n, rate[last_step]),
        "last_step_at": _where(n, rows.time_us[readings.place[last_step]]),
        "last_step_seq": _where(n, rows.seq[readings.place[last_step]]),
        "elapsed_seconds": np.add.reduceat(time_s, readings.starts),
        "first_reading": readings_as_decimal.take(pa.array(readings.starts)),
        "last_reading": readings_as_decimal.take(pa.array(readings.ends - 1)),
        "sketch": _sketches(rate[step], readings.cell[step], len(readings.starts)),
    }


def _where(n: Ints, values: Floats | Ints) -> pa.Array:
    """The values of the cells that had a step; NULL in the others."""
    return pa.array(values, mask=n == 0)


def exact_integers(totals: pa.ChunkedArray) -> tuple[Ints, float]:
    """A counter's totals as exact integers, and how many of them are one of its unit."""
    if not pa.types.is_decimal(totals.type):
        return totals.cast(pa.int64()).to_numpy(), 1.0
    # A decimal128 is two words; DECIMAL(18,3) fits the low one, sign included.
    array = totals.combine_chunks()
    words = np.frombuffer(array.buffers()[1], np.int64).reshape(-1, 2)
    return words[array.offset : array.offset + len(array), 0].copy(), 1000.0


def _sketches(values: Floats, cell: Ints, cell_count: int) -> pa.Array:
    finite = ~np.isnan(values)
    merged = cell[finite] * 2**16 + (buckets_of(values[finite]) + 2**15)
    found, counts = np.unique(merged, return_counts=True)
    offsets = np.searchsorted(found, np.arange(cell_count + 1) * 2**16)
    parts = pa.StructArray.from_arrays(
        [pa.array((found % 2**16 - 2**15).astype(np.int16)), pa.array(counts.astype(np.int32))],
        fields=list(SKETCH.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), parts, type=SKETCH)


def _table(kind: Kind, column: Field, keys: pa.Table, measures: Mapping[str, object]) -> pa.Table:
    schema = cell_schema(kind)
    columns = {"field": pa.array([column.name], pa.string()).take(pa.array(np.zeros(keys.num_rows, np.int64)))}
    columns |= {name: keys[name].combine_chunks() for name in keys.column_names}
    columns["name"] = columns[series_name(kind)]
    for field in schema:
        if field.name in measures:
            columns[field.name] = _array(measures[field.name], field.type)
        elif field.name not in columns:
            columns[field.name] = pa.nulls(keys.num_rows, field.type)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _array(values: object, wanted: pa.DataType) -> pa.Array:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return array.cast(wanted) if array.type != wanted else array
