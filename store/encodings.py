"""How a segment's columns stand in Parquet: an encoding for each field, from its declaration; zstd over all.

Measured in docs/decisions/0010. What is not named here is a state or a label: dictionary and run lengths.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.events import Field, Kind

ZSTD_LEVEL = 3  # for what is rewritten soon: a file of a closed day is worth ZSTD_LEVEL_CLOSED
ZSTD_LEVEL_CLOSED = 9  # 1 % smaller for 10 % more CPU; above, CPU doubles for half a percent
DATA_PAGE_BYTES = 2**20


def encoding(column: Field) -> str | None:
    """The Parquet encoding of a field; None for a dictionary."""
    if column.name == "seq" or column.type == "time" or column.instrument == "counter":
        return "DELTA_BINARY_PACKED"  # what grows, grows by little
    if column.instrument != "gauge" or column.unit == "hertz":
        return None  # clocks move in a few steps
    if column.type in ("float32", "float64", "int32"):
        return "BYTE_STREAM_SPLIT"  # noise stays in one stream, and the others compress to nothing
    return "DELTA_BINARY_PACKED"


def segment_writer(path: Path, kind: Kind, schema: pa.Schema, *, zstd_level: int = ZSTD_LEVEL) -> pq.ParquetWriter:
    """A writer of a segment of `kind`. A column that only a newer program declares is written with a dictionary."""
    encodings = {
        column.name: wanted
        for column in kind.columns
        if column.name in schema.names and (wanted := encoding(column)) is not None
    }
    return pq.ParquetWriter(
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
    )
