"""How a segment's columns stand in Parquet: an encoding for each field, from its declaration; zstd over all.

Measured in docs/decisions/0010. What is not named here is a state or a label: dictionary and run lengths. What rows are
asked for by, such as a trace, has a Bloom filter (docs/decisions/0015).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.events import Field
from store.segments import Segment, footer_texts
from store.shapes import shape

ZSTD_LEVEL = 3  # for what is rewritten soon: a file of a closed day is worth ZSTD_LEVEL_CLOSED
ZSTD_LEVEL_CLOSED = 9  # 1 % smaller for 10 % more CPU; above, CPU doubles for half a percent
DATA_PAGE_BYTES = 2**20
NAMES_PER_FILTER = 60_000  # a row group of a busy day's requests
FALSE_POSITIVES = 0.01  # 10 bits a name
DATA_PAGE_ROWS = 2**20  # Arrow's 20,000 make several pages of every column without a value: 5 % of a day's file


def encoding(column: Field) -> str | None:
    """The Parquet encoding of a field; None for a dictionary."""
    if column.name == "seq" or column.type == "time" or column.instrument == "counter":
        return "DELTA_BINARY_PACKED"  # what grows, grows by little
    if column.instrument != "gauge" or column.unit == "hertz":
        return None  # clocks move in a few steps
    if column.type in ("float32", "float64", "int32"):
        return "BYTE_STREAM_SPLIT"  # noise stays in one stream, and the others compress to nothing
    return "DELTA_BINARY_PACKED"


@contextmanager
def segment_writer(
    path: Path, segment: Segment, ledger_id: str, schema: pa.Schema, *, zstd_level: int = ZSTD_LEVEL
) -> Iterator[pq.ParquetWriter]:
    """A writer of a segment, with its footer. A column that only a newer program declares is written with a dictionary.

    Each page has a checksum: not for readers, which look at none, but for `store.repair.soundness`.
    """
    columns = [column for column in shape(segment.kind, segment.version).columns if column.name in schema.names]
    encodings = {column.name: wanted for column in columns if (wanted := encoding(column)) is not None}
    a_filter = {"ndv": min(segment.event_count, NAMES_PER_FILTER), "fpp": FALSE_POSITIVES}
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=zstd_level,
        use_dictionary=[name for name in schema.names if name not in encodings],
        column_encoding=encodings,
        store_decimal_as_integer=True,
        store_schema=False,
        write_statistics=["seq", "observed_at"],
        data_page_size=DATA_PAGE_BYTES,
        max_rows_per_page=DATA_PAGE_ROWS,
        write_page_checksum=True,
        bloom_filter_options={column.name: a_filter for column in columns if column.is_looked_up} or None,
    ) as writer:
        writer.add_key_value_metadata(footer_texts(segment, ledger_id))
        yield writer
