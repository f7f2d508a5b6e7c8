"""Taking events out: one kind over one window, as a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from query.catalogue import find_kind
from query.engine import Source
from query.windows import Window
from store.derivations import arrow_schema
from store.errors import UsageError
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
    format: ExportFormat,
    path: Path,
    overwrite: bool = False,
) -> ExportResult:
    """Write the events of `kind` in `window`, in order of seq, to `path`, whole or not at all.

    Raises:
        UnknownKindError: There is no such kind.
        UsageError: The file is there already, or cannot be written.
    """
    declared = find_kind(kind)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already", "name another file with --output, or give --overwrite")
    with source.engine([declared.name], start_us=window.start_us, end_us=window.end_us) as engine:
        table = engine.query(
            f"select * from {engine.relation(declared.name)} "
            f"where observed_at >= {engine.parameter('start', 'time')} and observed_at < {engine.parameter('end', 'time')} "
            "order by seq",
            start=window.start_us,
            end=window.end_us,
        ).cast(arrow_schema(declared))
    try:
        publish_file(path, lambda temporary: write_table(table, temporary, format))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "name another file with --output") from error
    return ExportResult(path, format, table.num_rows, path.stat().st_size)


def write_table(table: pa.Table, path: Path, format: ExportFormat) -> None:  # noqa: A002
    """Write an Arrow table to `path` in one of the export formats."""
    _WRITERS[format](table, path)


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only who exports pays for it

    pq.write_table(table, path, compression="zstd")


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _write_csv(table: pa.Table, path: Path) -> None:
    import polars as pl  # noqa: PLC0415 - as above; Arrow's own writer takes no lists

    frame: Any = pl.from_arrow(table)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    frame.with_columns(pl.col(name).list.join(" ") for name in lists).write_csv(path)


def _write_json(table: pa.Table, path: Path) -> None:
    import polars as pl  # noqa: PLC0415 - as above

    frame: Any = pl.from_arrow(table)
    frame.write_ndjson(path)


_WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "csv": _write_csv,
    "json": _write_json,
}
