"""Columns of Parquet files and of the tail as numpy arrays.

What questions about one metric use: of events the time, the series and the metric itself, a row group at a time; of
rollups the cells of one field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.events import Field, Kind
from store.rollups.cells import Floats, Ints, cell_columns, doubles, exact_integers, run_keys, series_name

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind, by what all its metrics share.

    Args:
        keys: The distinct values of the columns `key_names`, each a tuple.
        code: Of each row, the place of its own among `keys`.
        time_us: When it was observed; microseconds UTC.
        seq: Its number in the ledger.
        interval_s: The time it stands for; NaN where the row does not say.
        first_us, last_us: The edges of all times, both included.
    """

    keys: tuple[Key, ...]
    code: Ints
    time_us: Ints
    seq: Ints
    interval_s: Floats
    first_us: int
    last_us: int

    @property
    def nbytes(self) -> int:
        arrays = self.code.nbytes + self.time_us.nbytes + self.seq.nbytes + self.interval_s.nbytes
        return arrays + 500 * len(self.keys)


@dataclass(frozen=True, slots=True)
class Values:
    """What one field was in the rows that have it: `place` numbers them, None for all.

    A counter's values are integers, as `store.rollups.cells.exact_integers` gives them.
    """

    values: Floats | Ints
    place: Ints | None

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.place is None else self.place.nbytes)


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one field: the columns of `store.rollups.cells.cell_schema` by name, and each one's key.

    Args:
        keys: The distinct values of the columns `cell_key_names`.
        code: Of each cell, the place of its own among `keys`.
        columns: Numbers as numpy has them, times in microseconds; NaN or the least integer where it is NULL.
        sketch_cell, sketch_bucket, sketch_n: The sketches, a bucket of one cell a row.
    """

    keys: tuple[Key, ...]
    code: Ints
    columns: dict[str, Any]
    sketch_cell: Ints
    sketch_bucket: Ints
    sketch_n: Ints

    @property
    def nbytes(self) -> int:
        arrays = (self.code, self.sketch_cell, self.sketch_bucket, self.sketch_n, *self.columns.values())
        return sum(int(array.nbytes) for array in arrays) + 500 * len(self.keys)


@dataclass(frozen=True, slots=True)
class Group:
    """A row group and the edges of its times, both included."""

    number: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class Groups:
    groups: tuple[Group, ...]

    @property
    def nbytes(self) -> int:
        return 200 * (1 + len(self.groups))


def key_names(kind: Kind) -> tuple[str, ...]:
    """The columns whose values make the key of an event: its run's, its series' name, its GPU."""
    gpu = ("gpu_index",) if "gpu_index" in kind.by_name else ()
    return tuple(dict.fromkeys((*run_keys(kind), series_name(kind), *gpu)))


def cell_key_names(kind: Kind, field: Field) -> tuple[str, ...]:
    """The columns whose values make the key of a cell: its run's, or of a gauge its series'; and its name."""
    return (*(run_keys(kind) if field.instrument == "counter" else ("host", *kind.series)), "name")


def read_columns(kind: Kind, field: Field) -> tuple[str, ...]:
    """The columns of events that a trend of one field is made of."""
    interval = ("interval_seconds",) if "interval_seconds" in kind.by_name else ()
    return tuple(dict.fromkeys(("seq", "observed_at", *key_names(kind), *interval, field.name)))


_NOWHERE: Ints = np.empty(0, np.int64)


class EventFile:
    """A Parquet file of events that is opened when something of it is read for the first time."""

    def __init__(self, path: Path, kind: Kind, field: Field) -> None:
        self._path = path
        self._kind = kind
        self._field = field
        self._file: pq.ParquetFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def groups(self) -> Groups:
        metadata = self._opened().metadata
        column = metadata.schema.names.index("observed_at")
        found = []
        for number in range(metadata.num_row_groups):
            extremes = metadata.row_group(number).column(column).statistics
            known = extremes is not None and extremes.has_min_max
            first_us, last_us = (extremes.min_raw, extremes.max_raw) if known else (-(2**63), 2**63 - 1)
            found.append(Group(number, first_us, last_us))
        return Groups(tuple(found))

    def rows(self, group: int) -> Rows:
        return rows_of(self._read(group, read_columns(self._kind, self._field)), self._kind)

    def values(self, group: int) -> Values:
        return values_of(self._read(group, [self._field.name]), self._field)

    def _read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """These columns of a row group; a program of before may not have written all of them."""
        return self._opened().read_row_group(group, columns=list(columns), use_threads=False)

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = _parquet_file(self._path, key_names(self._kind))
        return self._file


def _parquet_file(path: Path, coded: Sequence[str]) -> pq.ParquetFile:
    """A file with those columns read as dictionaries: to make each text anew and compare it is most of the time."""
    metadata = pq.read_metadata(path)
    there = set(metadata.schema.names)
    return pq.ParquetFile(
        path,
        metadata=metadata,
        read_dictionary=[name for name in coded if name in there],
        page_checksum_verification=True,
    )


def rows_of(table: pa.Table, kind: Kind) -> Rows:
    """What all metrics share of events."""
    keys, code = coded(table, key_names(kind))
    if "interval_seconds" in table.column_names:
        interval_s = doubles(table["interval_seconds"])
    else:
        interval_s = np.full(table.num_rows, np.nan)
    time_us = _microseconds(table["observed_at"])
    edges = (int(time_us.min()), int(time_us.max())) if len(time_us) else (0, 0)
    return Rows(keys, code, time_us, table["seq"].to_numpy(), interval_s, *edges)


def values_of(table: pa.Table, field: Field) -> Values:
    """What one field was in these events; none where the table lacks it."""
    if field.name not in table.column_names:
        return Values(_NOWHERE if field.instrument == "counter" else np.empty(0), _NOWHERE)
    column = table[field.name]
    place = None if not column.null_count else np.flatnonzero(column.is_valid().to_numpy())
    present = column.drop_null() if column.null_count else column
    if field.instrument == "counter":
        return Values(exact_integers(present)[0], place)
    return Values(doubles(present), place)


def read_cells(path: Path, kind: Kind, field: Field, *, with_sketch: bool) -> Cells:
    """The cells of one field in a file of rollups.

    Raises:
        OSError, pyarrow.ArrowException: The file cannot be read.
    """
    names = cell_columns(kind, field, with_sketch=with_sketch)
    keys = cell_key_names(kind, field)
    tables = []
    with _parquet_file(path, ["field", *keys]) as file:
        wanted = ["field", *(name for name in names if name in file.schema_arrow.names)]
        for number in range(file.num_row_groups):
            extremes = file.metadata.row_group(number).column(0).statistics
            if extremes is None or extremes.min <= field.name <= extremes.max:
                table = file.read_row_group(number, columns=wanted, use_threads=False)
                tables.append(table.filter(pc.equal(table["field"], field.name)))
        empty = file.schema_arrow.empty_table().select(wanted)
    table = pa.concat_tables([empty, *tables], promote_options="permissive").combine_chunks()
    numbers = [name for name in names if name not in (*keys, "sketch")]
    columns = {name: _numbers(table, name, field) for name in numbers}
    return Cells(*coded(table, keys), columns, *_sketches(table))


def _numbers(table: pa.Table, name: str, field: Field) -> Floats | Ints:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name]
    if pa.types.is_timestamp(column.type):
        return _microseconds(column)
    if pa.types.is_decimal(column.type):
        return _readings(column, field)
    if pa.types.is_integer(column.type) and not column.null_count:
        return cast("Ints", column.cast(pa.int64()).to_numpy())
    return doubles(column)


def _readings(column: pa.ChunkedArray, field: Field) -> Ints:
    """A counter's readings as `exact_integers` of its events gives them."""
    if field.type == "decimal":
        return exact_integers(column)[0]
    return exact_integers(column.cast(pa.decimal128(38, 0), safe=False))[0]


def _microseconds(column: pa.ChunkedArray) -> Ints:
    """Times as integers; the least one where there is none."""
    integers = column.cast(pa.int64())
    return cast("Ints", (pc.fill_null(integers, -(2**63)) if integers.null_count else integers).to_numpy())


def _sketches(table: pa.Table) -> tuple[Ints, Ints, Ints]:
    if "sketch" not in table.column_names or not table.num_rows:
        return (np.empty(0, np.int64),) * 3
    lists = table["sketch"].combine_chunks()
    parts = lists.flatten()
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    bucket, n = (parts.field(name).to_numpy().astype(np.int64) for name in ("bucket", "n"))
    return np.repeat(np.arange(len(lists)), sizes), bucket, n


def coded(table: pa.Table, names: Sequence[str]) -> tuple[tuple[Key, ...], Ints]:
    """The distinct tuples of some columns, and of each row the place of its own among them."""
    coded = [_codes(table, name) for name in names]
    code = np.zeros(table.num_rows, np.int64)
    for of_column, known in coded:
        if len(known) > 1:
            if code.size and int(code.max() + 1) * len(known) > _CODES_MAX:
                _, code = dense(code)
            code = code * len(known) + of_column
    first, code = dense(code)
    keys = zip(*([known[at] for at in of_column[first].tolist()] for of_column, known in coded), strict=True)
    return tuple(keys), code


_CODES_MAX = 2**62


def _codes(table: pa.Table, name: str) -> tuple[Ints, list[Any]]:
    """Of each row which of the values it has, and those."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.int64), [None]
    column = table[name].unify_dictionaries().combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    known = column.dictionary.to_pylist()
    if column.null_count:
        known.append(None)
        return pc.fill_null(column.indices, len(known) - 1).to_numpy().astype(np.int64), known
    return column.indices.to_numpy().astype(np.int64), known


def dense(code: Ints) -> tuple[Ints, Ints]:
    """Where each code occurs first, in their order; and the codes numbered without gaps."""
    if code.size and int(code.max()) < 4 * code.size + 1024:  # a table of all is faster than to sort
        first = np.full(int(code.max()) + 1, -1)
        first[code[::-1]] = np.arange(len(code) - 1, -1, -1)
        present = np.flatnonzero(first >= 0)
        number = np.zeros(len(first), np.int64)
        number[present] = np.arange(len(present))
        return first[present], number[code]
    _, at, dense = np.unique(code, return_index=True, return_inverse=True)
    return at, dense
