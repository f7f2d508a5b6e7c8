"""The Parquet files of rollups: writing them, and making one of several.

Sorted by field, series and time, so that one metric's cells lie together in a few row groups and the others are
never read. The footer says all that the head says of the file, so that a lost head is no loss of rollups.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.events import Kind
from store.files import publish_file
from store.rollups.cells import STEPS_S, cell_schema
from store.segments import FOOTER_PREFIX
from store.times import HOUR_US

ZSTD_LEVEL = 3
ROW_GROUP_ROWS_MIN = 4_000  # a metric of 8 GPUs is 11,520 rows a day per minute, 5,952 a month per hour
CELLS_AT_ONCE = {"minute": 40_000, "hour": 12_000}  # an hour's cells bear sketches


@dataclass(frozen=True, slots=True)
class RollupFile:
    """One file of cells, as catalogue and footer describe it; `path` is relative to the ledger."""

    path: str
    kind: str
    step: str
    first_begins_at_us: int
    last_ends_at_us: int
    row_count: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What rollups hold: all events observed before `before_us` with a seq up to `upto_seq`, and no others."""

    before_us: int
    upto_seq: int
    revision: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself and of the rollups it belongs to."""

    ledger_id: str
    reach: Reach
    events_by_hour: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """Cells that go into a file: those of `cells`, without those of the hours `without`."""

    cells: pa.Table | Path
    without: Collection[int] = ()


def write_cells(folder: Path, file: RollupFile, kind: Kind, parts: Sequence[Part], footer: Footer) -> RollupFile:
    """Publish one file of the cells of `parts`, and describe it.

    Memory is bounded by the number of cells that are taken at once, some fields at a time.
    """
    written = _Written()
    publish_file(folder / file.path, partial(_write, file, kind, parts, footer, written))
    return RollupFile(file.path, file.kind, file.step, written.first_us, written.last_us, written.rows)


@dataclass(slots=True)
class _Written:
    rows: int = 0
    first_us: int = 2**62
    last_us: int = 0

    def count(self, cells: pa.Table, step: str) -> None:
        edges = pc.min_max(cells["begins_at"].cast(pa.int64()))
        self.rows += cells.num_rows
        self.first_us = min(self.first_us, edges["min"].as_py())
        self.last_us = max(self.last_us, edges["max"].as_py() + STEPS_S[step] * 1_000_000)


def _write(
    file: RollupFile,
    kind: Kind,
    parts: Sequence[Part],
    footer: Footer,
    written: _Written,
    path: Path,
) -> None:
    schema = cell_schema(kind)
    writer = pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        store_schema=False,
        write_page_checksum=True,
        **_encodings(schema),
    )
    with writer:
        for fields in _batches_of_fields(parts, CELLS_AT_ONCE[file.step]):
            cells = pa.concat_tables([schema.empty_table(), *(_cells(one, schema, fields) for one in parts)])
            if cells.num_rows:
                cells = cells.sort_by([(name, "ascending") for name in _order(kind)])
                written.count(cells, file.step)
                for begins, ends in _row_group_edges(cells["field"]):
                    writer.write_table(cells.slice(begins, ends - begins), row_group_size=ends - begins)
        writer.add_key_value_metadata(_footer_texts(file, footer))


def _order(kind: Kind) -> tuple[str, ...]:
    return ("field", "host", *kind.series, "begins_at")


def _encodings(schema: pa.Schema) -> dict[str, object]:
    encodings = {}
    for field in schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    encodings |= dict.fromkeys(("sketch.list.element.bucket", "sketch.list.element.n"), "DELTA_BINARY_PACKED")
    return {
        "column_encoding": encodings,
        "use_dictionary": [field.name for field in schema if field.name not in encodings and field.name != "sketch"],
    }


def _row_group_edges(fields: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Where row groups begin and end: with a field, so that the one asked for is read alone, unless it is small."""
    begins = ends = 0
    for run in pc.run_end_encode(fields.combine_chunks()).run_ends.to_pylist():
        ends = run
        if ends - begins >= ROW_GROUP_ROWS_MIN:
            yield begins, ends
            begins = ends
    if begins < ends:
        yield begins, ends


def _batches_of_fields(parts: Sequence[Part], cells_max: int) -> Iterator[list[str]]:
    """All fields in order, so many at a time that their cells are about `cells_max`."""
    counts: dict[str, int] = {}
    for part in parts:
        for field, count in _field_counts(part.cells).items():
            counts[field] = counts.get(field, 0) + count
    batch: list[str] = []
    total = 0
    for field in sorted(counts):
        if batch and total + counts[field] > cells_max:
            yield batch
            batch, total = [], 0
        batch.append(field)
        total += counts[field]
    if batch:
        yield batch


def _field_counts(table: pa.Table | Path) -> dict[str, int]:
    names = pq.ParquetFile(table).read(columns=["field"])["field"] if isinstance(table, Path) else table["field"]
    return {one["values"]: one["counts"] for one in pc.value_counts(names).to_pylist()}


def _cells(part: Part, schema: pa.Schema, fields: Sequence[str]) -> pa.Table:
    """The cells of these fields, which follow one another in the order of their names."""
    stored = [part.cells] if isinstance(part.cells, pa.Table) else _row_groups(part.cells, fields[0], fields[-1])
    cells = pa.concat_tables([schema.empty_table(), *(with_schema(one, schema) for one in stored)])
    cells = cells.filter(pc.is_in(cells["field"], pa.array(fields, pa.string())))
    if not part.without:
        return cells
    times_us = cells["begins_at"].cast(pa.int64())
    hours_us = pc.multiply(pc.divide(times_us, HOUR_US), HOUR_US)
    return cells.filter(pc.invert(pc.is_in(hours_us, pa.array(list(part.without), pa.int64()))))


def _row_groups(path: Path, first: str, last: str) -> Iterator[pa.Table]:
    """The row groups that may hold the fields from `first` to `last`."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            extremes = file.metadata.row_group(number).column(0).statistics
            if extremes is None or (extremes.min <= last and extremes.max >= first):
                yield file.read_row_group(number, use_threads=False)


def _footer_texts(file: RollupFile, footer: Footer) -> dict[str, str]:
    texts = {
        "ledger_id": footer.ledger_id,
        "kind": file.kind,
        "step": file.step,
        "before_us": footer.reach.before_us,
        "upto_seq": footer.reach.upto_seq,
        "revision": footer.reach.revision,
        "events_by_hour": json.dumps({str(hour): count for hour, count in footer.events_by_hour.items()}),
    }
    return {f"{FOOTER_PREFIX}{key}": str(value) for key, value in texts.items()}


def read_footer(folder: Path, path: Path) -> tuple[RollupFile, Footer]:
    """What a file says of itself.

    Raises:
        ValueError, OSError: It cannot be read, or is no rollup.
    """
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        begins = file.read(columns=["begins_at"])["begins_at"].cast(pa.int64())
    pairs = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    texts = {key.removeprefix(FOOTER_PREFIX): value for key, value in pairs.items() if key.startswith(FOOTER_PREFIX)}
    if not {"kind", "step", "revision"} <= set(texts) or not len(begins):
        raise ValueError(f"{path} is no rollup")
    edges = pc.min_max(begins)
    ends_us = edges["max"].as_py() + STEPS_S[texts["step"]] * 1_000_000
    relative = str(path.relative_to(folder))
    described = RollupFile(relative, texts["kind"], texts["step"], edges["min"].as_py(), ends_us, len(begins))
    reach = Reach(int(texts["before_us"]), int(texts["upto_seq"]), int(texts["revision"]))
    by_hour = {int(hour): count for hour, count in json.loads(texts["events_by_hour"]).items()}
    return described, Footer(texts["ledger_id"], reach, by_hour)


def with_schema(stored: pa.Table | pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """The columns of a schema; one that a program of before did not write is NULL."""
    columns = [
        stored[column.name].cast(column.type)
        if column.name in stored.schema.names
        else pa.nulls(stored.num_rows, column.type)
        for column in schema
    ]
    return pa.table(columns, schema=schema)
