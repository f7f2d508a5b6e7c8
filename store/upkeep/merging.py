"""Merging: several segments become one. Which of them, `store.upkeep.compaction` says.

A merge streams: the output's row groups are slices of time, of whole hours where they fit, and of no more rows than can
be held with the columns that have a value; each is read from the row groups that meet it, sorted and written before the
next. Within a row group the rows stand by blocks of some two hours, then by series (GPU), then by time. A file's
`level` is the greatest of its inputs' and one more, so a name is never used twice.

The steps, each of which may be the last before a crash: the output is announced in the head; it is written under a
temporary name, counted, synced, renamed, its folder synced; ONE transaction puts it into the catalogue in place of
its inputs, notes from when those may be removed and withdraws the announcement.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Self

import apsw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.encodings import ZSTD_LEVEL, ZSTD_LEVEL_CLOSED, segment_writer
from store.errors import LedgerUnusableError
from store.files import publish_file
from store.ledger import transaction
from store.segments import Segment, announce, as_written, discard, enter_segments, segment_path
from store.shapes import shape
from store.times import HOUR_US
from store.upkeep.compaction import Merge
from store.upkeep.scrub import why_changed

ROWS_PER_ROW_GROUP = 120_000  # 4 h of 8 GPUs at 1 Hz
BYTES_PER_ROW_GROUP = 45_000_000  # in Arrow, of the columns that have a value
INSTANTS_PER_BLOCK = 7168  # of all 128 that DELTA_BINARY_PACKED packs together: see docs/decisions/0010
COLUMNS_AT_ONCE = 8


def merge_segments(folder: Path, head: apsw.Connection, merge: Merge, *, now_us: int, grace_us: int) -> Segment:
    """Make one file of several, for the holder of the lock. The inputs may be removed `grace_us` from now.

    Raises:
        OSError: A file cannot be read or written.
        pyarrow.ArrowException: An input is damaged.
        LedgerUnusableError: An input has not the bytes that were sealed, or what was written is not what was read. In
            all cases the inputs stay as they are.
    """
    inputs = sorted(merge, key=lambda one: one.first_seq)
    for one in inputs:
        if reason := why_changed(folder, one):  # or the damage would be given a good checksum
            raise LedgerUnusableError(f"{one.path} cannot be merged: {reason}")
    output = _output(inputs)
    ledger_id: str = head.execute("select id from ledger").get
    announce(head, [output.path])
    publish_file(folder / output.path, partial(_write, folder, inputs, output, ledger_id))
    output = as_written(folder, output)
    with transaction(head):
        discard(head, inputs, removable_at_us=now_us + grace_us)
        enter_segments(head, [output], now_us=now_us)
    return output


def _output(inputs: Sequence[Segment]) -> Segment:
    first = inputs[0]
    level = 1 + max(one.level for one in inputs)
    first_seq, last_seq = first.first_seq, max(one.last_seq for one in inputs)
    day = PurePosixPath(first.folder).name.removeprefix("date=")
    return Segment(
        path=segment_path(first.kind, first.version, day, first.host, (first_seq, last_seq), level=level),
        kind=first.kind,
        version=first.version,
        level=level,
        host=first.host,
        first_seq=first_seq,
        last_seq=last_seq,
        event_count=sum(one.event_count for one in inputs),
        first_observed_at_us=min(one.first_observed_at_us for one in inputs),
        last_observed_at_us=max(one.last_observed_at_us for one in inputs),
    )


@dataclass(frozen=True, slots=True)
class _Input:
    """One file to be merged: its times, and the first and last time of each of its row groups."""

    file: pq.ParquetFile
    times: pa.ChunkedArray
    bounds_us: tuple[tuple[int, int], ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        times = file.read(columns=["observed_at"], use_threads=False)["observed_at"].cast(pa.int64())
        bounds, first = [], 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            extremes = pc.min_max(times.slice(first, rows))
            bounds.append((extremes["min"].as_py(), extremes["max"].as_py()))
            first += rows
        return cls(file, times, tuple(bounds))

    def read(self, slice_us: tuple[int, int], wanted: pa.Schema) -> pa.Table | None:
        """Columns of the row groups that may hold events of the span; what the file lacks is NULL."""
        met = [at for at, (first, last) in enumerate(self.bounds_us) if first < slice_us[1] and last >= slice_us[0]]
        if not met:
            return None
        table = self.read_columns(met, wanted.names)
        there = set(table.column_names)
        arrays = [table[field.name] if field.name in there else pa.nulls(len(table), field.type) for field in wanted]
        return pa.table(arrays, schema=wanted)

    def read_columns(self, row_groups: Sequence[int], names: Iterable[str]) -> pa.Table:
        """Those of the columns that the file has."""
        there = set(self.file.schema_arrow.names)
        return self.file.read_row_groups(row_groups, columns=[n for n in names if n in there], use_threads=False)


def _write(folder: Path, inputs: Sequence[Segment], output: Segment, ledger_id: str, path: Path) -> None:
    kind = shape(output.kind, output.version)
    with ExitStack() as stack:
        opened = [_Input.open(folder / one.path) for one in inputs]
        for one in opened:
            stack.enter_context(one.file)
        schema = _common_schema(opened, [column.name for column in kind.columns])
        level = ZSTD_LEVEL_CLOSED if output.level > 1 else ZSTD_LEVEL
        seq_sum = 0
        weights_bytes = _weights_bytes(opened, schema)
        with segment_writer(path, output, ledger_id, schema, zstd_level=level) as writer:
            for slice_us in _slices(opened, _rows_at_once(weights_bytes)):
                table = _sorted_slice(opened, schema, weights_bytes, kind.series, slice_us)
                writer.write_table(table, row_group_size=len(table))
                seq_sum += pc.sum(table["seq"]).as_py()
                del table  # or two of them would stand in memory while the next is made
                pa.default_memory_pool().release_unused()  # 12 MiB less at the height of a day, 25 of a noisy one
    _check(path, output, seq_sum)


def _common_schema(inputs: Sequence[_Input], declared: Sequence[str]) -> pa.Schema:
    """Every column that any of the files has, in declared order; what only a newer program declares comes last."""
    merged = pa.unify_schemas([one.file.schema_arrow.remove_metadata() for one in inputs])
    order = {name: number for number, name in enumerate(declared)}
    return pa.schema(sorted(merged, key=lambda field: order.get(field.name, len(order))))


def _weights_bytes(inputs: Sequence[_Input], schema: pa.Schema) -> dict[str, float]:
    """The columns that have a value in any of the files, with the bytes that a row of each takes in memory.

    A column is read up to its first row group with a value. Most have none, and are not read again.
    """
    weights_bytes: dict[str, float] = {}
    for names in _some_at_a_time(schema.names):
        unseen = set(names)
        for one in inputs:
            for number in range(one.file.num_row_groups):
                table = one.read_columns([number], unseen)
                found = [name for name in table.column_names if table[name].null_count < len(table)]
                weights_bytes |= {name: table[name].nbytes / len(table) for name in found}
                unseen.difference_update(found)
    return weights_bytes


def _some_at_a_time(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[first : first + COLUMNS_AT_ONCE] for first in range(0, len(names), COLUMNS_AT_ONCE))


def _rows_at_once(weights_bytes: Mapping[str, float]) -> int:
    """How many rows are held together: what they take is that of their columns with a value."""
    return max(1, min(ROWS_PER_ROW_GROUP, int(BYTES_PER_ROW_GROUP / sum(weights_bytes.values()))))


def _slices(inputs: Sequence[_Input], rows_max: int) -> Iterator[tuple[int, int]]:
    """Spans of observed_at, microseconds and half-open, of about `rows_max` rows, cut at full hours where possible."""
    times = pa.concat_arrays([chunk for one in inputs for chunk in one.times.chunks]).sort()
    start = 0
    cuts = [times[0].as_py()]
    while len(times) - start > rows_max:
        at_us = times[start + rows_max].as_py()
        hour_us = at_us // HOUR_US * HOUR_US
        cuts.append(hour_us if hour_us > cuts[-1] else max(at_us, cuts[-1] + 1))
        start = bisect_left(times, cuts[-1], key=lambda time: time.as_py())
    if start < len(times):
        cuts.append(times[-1].as_py() + 1)
    return pairwise(cuts)


def _sorted_slice(
    inputs: Sequence[_Input],
    schema: pa.Schema,
    with_value: Collection[str],
    series: Sequence[str],
    slice_us: tuple[int, int],
) -> pa.Table:
    """The rows of one span of time in their order. A few columns at a time: the rest waits on disk."""
    order = _order(inputs, schema, series, slice_us)
    without_value = cache(partial(pa.nulls, len(order)))  # columns that are NULL throughout share their memory: 60 MB
    columns = {field.name: without_value(field.type) for field in schema if field.name not in with_value}
    for names in _some_at_a_time([name for name in schema.names if name in with_value]):
        some = _read(inputs, slice_us, pa.schema([schema.field(name) for name in names])).take(order)
        columns |= dict(zip(names, some.columns, strict=True))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _order(inputs: Sequence[_Input], schema: pa.Schema, series: Sequence[str], slice_us: tuple[int, int]) -> pa.Array:
    """The numbers of a slice's rows, of all rows that are read for it, by block, series, time and seq.

    A block is so many instants of all series. Series that are read together then have runs of equal length, and the
    times of one are packed into the same bytes as those of the next.
    """
    sorted_by = [*(name for name in series if name in schema.names), "observed_at", "seq"]
    keys = _read(inputs, slice_us, pa.schema([schema.field(name) for name in sorted_by]))
    times = keys["observed_at"].cast(pa.int64())
    within = pc.indices_nonzero(pc.and_(pc.greater_equal(times, slice_us[0]), pc.less(times, slice_us[1])))
    keys = keys.take(within)
    instants = pc.subtract(pc.rank(keys["observed_at"], tiebreaker="dense"), 1)
    keys = keys.append_column("block", pc.divide(instants, INSTANTS_PER_BLOCK))
    return within.take(pc.sort_indices(keys, [(name, "ascending") for name in ("block", *sorted_by)]))


def _read(inputs: Sequence[_Input], slice_us: tuple[int, int], wanted: pa.Schema) -> pa.Table:
    parts = (one.read(slice_us, wanted) for one in inputs)
    return pa.concat_tables([part for part in parts if part is not None]).combine_chunks()


def _check(path: Path, output: Segment, seq_sum: int) -> None:
    """What is on disk has as many events as its inputs' catalogue entries, and their seqs."""
    seqs = pq.read_table(path, columns=["seq"], use_threads=False)["seq"]
    if (len(seqs), pc.sum(seqs).as_py()) != (output.event_count, seq_sum):
        raise LedgerUnusableError(
            f"Compaction of {output.path} gave {len(seqs):,} events where {output.event_count:,} were expected",
            "its inputs were kept; report it with the output of 'gpuledger compact'",
        )
