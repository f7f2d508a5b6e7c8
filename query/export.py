"""Taking events out: one kind over one window, as a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import pyarrow as pa

from query.catalogue import find_kind
from query.engine import Source, in_window, sql_text
from query.windows import Window
from store.derivations import arrow_schema
from store.errors import UsageError
from store.events import Kind
from store.files import publish_file

ExportFormat = Literal["parquet", "arrow", "csv", "json"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "csv": ".csv", "json": ".ndjson"}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written where."""

    path: Path
    format: ExportFormat
    event_count: int
    size_bytes: int


def export_events(
    source: Source,
    kind: str,
    window: Window,
    *,
    format: ExportFormat,  # noqa: A002 - the word that users know, also as --format
    path: Path,
    overwrite: bool = False,
) -> ExportResult:
    """Write the events of `kind` in `window`, in order of seq, to `path`, whole or not at all.

    Raises:
        UnknownKindError: There is no such kind.
        UsageError: The file is there already, or cannot be written.
    """
    declared = find_kind(kind)
    try:
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already", "name another file with --output, or give --overwrite")
        table = events_table(source, declared, window)
        publish_file(path, lambda temporary: write_table(table, temporary, format))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "name another file with --output") from error
    return ExportResult(path, format, table.num_rows, path.stat().st_size)


def events_table(source: Source, kind: Kind, window: Window) -> pa.Table:
    """The events of a kind in a window, in order of seq, with the kind's whole schema."""
    with source.engine([kind.name], start_us=window.start_us, end_us=window.end_us) as engine:
        sql = sql_text("events").format(relation=engine.relation(kind.name), in_window=in_window(engine))
        return engine.query(sql, start=window.start_us, end=window.end_us).cast(arrow_schema(kind))


def write_table(table: pa.Table, path: Path, format: ExportFormat) -> None:  # noqa: A002 - as above
    """Write an Arrow table to `path` in one of the export formats."""
    with path.open("wb") as file:
        _WRITERS[format](table, file)


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only who exports pays for it

    pq.write_table(table, file, compression="zstd")


def _write_arrow(table: pa.Table, file: BinaryIO) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    frame = _frame(table)
    lists = [name for name, kind in frame.schema.items() if kind.is_nested()]
    frame = frame.with_columns(frame[name].list.join(" ") for name in lists)  # CSV has no lists
    frame.write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z")


def _write_json(table: pa.Table, file: BinaryIO) -> None:
    frame = _frame(table)
    decimals = [name for name, kind in frame.schema.items() if kind.is_decimal()]
    frame = frame.cast(dict.fromkeys(decimals, float))  # or they become strings
    frame.write_ndjson(file)


def _frame(table: pa.Table) -> Any:
    import polars as pl  # noqa: PLC0415 - as above; Arrow's own writer of CSV takes no lists, and it has none of JSON

    return pl.from_arrow(table)


_WRITERS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "csv": _write_csv,
    "json": _write_json,
}
